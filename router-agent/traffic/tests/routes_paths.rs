//! IPv6 paths that are narrower than their first link: packets with AH are fragmented to the path's MTU.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use namespace::{A6, B6, SOON, add_route, address, pair, privileged, receive};
use nix::sys::socket::{setsockopt, sockopt};
use routing::{MAIN, MARKED, Route, routes};
use traffic::routes::{MtuPlan, NarrowPaths};

const PLAN: MtuPlan = MtuPlan::new(28, 32);
/// Somewhere behind the neighbour.
const FAR: &str = "fd21::4";

fn narrow(mtu: u32) -> bool {
    NarrowPaths::open(PLAN).unwrap().narrow(FAR.parse().unwrap(), mtu).unwrap()
}

fn of_path() -> Vec<String> {
    routes(MARKED).into_iter().filter(|line| line.starts_with("fd21::4/128")).collect()
}

/// hooks: IPv6 UDP larger than the path's MTU gets through only if the sender fragments to it.
#[test]
fn a_narrow_path_has_a_route_for_packets_with_ah_alone_and_the_main_table_stays_as_it_is() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    add_route(&a, "::", 0, B6);
    b.run(|| namespace::add_address("lo", FAR.parse().unwrap(), 128));
    a.run(|| {
        PLAN.apply().unwrap();
        let main = routes(MAIN);
        assert!(narrow(1400) && !narrow(1400) && !narrow(1450), "it is known already");
        let [line] = &of_path()[..] else { panic!("{:?}", routes(MARKED)) };
        assert!(line.contains("via fd20::2") && line.contains("proto 82 metric 1023 mtu 1400 expires 6"), "{line}");
        assert_eq!(routes(MAIN), main);
        // Whoever keeps the tables as they should be lets it stand.
        PLAN.apply().unwrap();
        assert_eq!(of_path().len(), 1);
        assert!(!narrow(1279), "less than any link carries");
        assert!(narrow(1300));
        assert!(of_path().len() == 1 && of_path()[0].contains("mtu 1300"), "{:?}", of_path());
    });
    // What has the mark is cut to the path's MTU, what has none to that of its link less the room for AH.
    let (from, to) = (a.udp(address(A6, 5000)), b.udp(address(FAR, 5001)));
    setsockopt(&from, sockopt::Mark, &PLAN.mark).unwrap();
    // The first fragments on a link that has just come up may be lost, whatever their size.
    let arrived = (0..5).find_map(|_| {
        from.send_to(&[1; 3000], address(FAR, 5001)).unwrap();
        receive(&to, SOON / 5)
    });
    assert_eq!(arrived.unwrap().len(), 3000);
    a.run(|| {
        PLAN.restore().unwrap();
        assert_eq!(routes(MARKED), [""; 0]);
    });
}

/// an MTU that is none of a narrower path would have the host send what its own link does not carry.
#[test]
fn a_path_that_is_not_narrower_than_its_first_link_or_its_route_gets_no_route() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    add_route(&a, "::", 0, B6);
    a.run(|| {
        PLAN.apply().unwrap();
        for mtu in [60_000, 1501, 1500] {
            assert!(!narrow(mtu), "{mtu}");
        }
        assert_eq!(of_path(), [""; 0]);
        Route { destination: "fd21::", prefix: 64, via: Some(B6), mtu: Some(1450), ..Route::default() }.add();
        PLAN.apply().unwrap();
        assert!(!narrow(1450), "its route has that MTU already");
        assert_eq!(of_path(), [""; 0]);
        assert!(narrow(1449) && of_path()[0].contains("mtu 1449"), "{:?}", of_path());
    });
}

#[test]
fn a_narrow_path_is_forgotten_when_its_destination_is_reached_by_another_way() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    add_route(&a, "fd21::", 64, B6);
    a.run(|| {
        PLAN.apply().unwrap();
        assert!(narrow(1400));
    });
    add_route(&a, "fd21::", 64, "fd20::9");
    a.run(|| {
        PLAN.apply().unwrap();
        assert_eq!(of_path(), [""; 0]);
        assert!(narrow(1400) && of_path()[0].contains("via fd20::9"), "{:?}", of_path());
    });
}

#[test]
fn where_no_route_leads_nothing_is_set() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| {
        PLAN.apply().unwrap();
        assert!(!narrow(1400));
        assert_eq!(of_path(), [""; 0]);
    });
}
