//! The next hop to a destination, as the kernel routes packets there now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use namespace::{A4, B4, B6, index, pair, privileged};
use routing::Route;
use traffic::next_hop::{NextHop, NextHops};

#[test]
fn a_next_hop_is_the_most_special_routes_gateway_and_interface_in_both_families() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| {
        let hops = NextHops::open().unwrap();
        let towards = |destination: &str| hops.towards(destination.parse().unwrap()).unwrap();
        let by =
            |gateway: Option<&str>| Some(NextHop { interface: index("left"), gateway: gateway.map(|gateway| gateway.parse().unwrap()) });
        assert_eq!(towards("198.51.100.1"), None, "no route");
        assert_eq!(towards("fd99::1"), None, "no route");
        assert_eq!(towards(B4), by(None), "a neighbour");
        Route { via: Some(B4), ..Route::default() }.add();
        Route { destination: "fd99::", prefix: 16, via: Some(B6), ..Route::default() }.add();
        assert_eq!(towards("198.51.100.1"), by(Some(B4)));
        assert_eq!(towards("fd99::1"), by(Some(B6)));
        Route { destination: "198.51.100.0", prefix: 24, via: Some("192.168.20.77"), ..Route::default() }.add();
        assert_eq!(towards("198.51.100.1"), by(Some("192.168.20.77")), "a change is seen at the next look");
        Route { destination: "198.51.100.1", prefix: 32, kind: 6, ..Route::default() }.add();
        assert_eq!(towards("198.51.100.1"), None, "a route that leads nowhere");
        assert_eq!(towards(A4).map(|hop| hop.gateway), Some(None), "this host itself");
    });
}
