//! Routes of every kind keep what they are: several to one place, expiring ones, locked ones, those of links with an IPv6 MTU of
//! their own, and those that lead nowhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use namespace::{A4, A6, B4, B6, Namespace, SOON, address, forbid_fragments, link, pair, privileged, receive};
use nix::sys::socket::{setsockopt, sockopt};
use routing::{MAIN, MARKED, Route, main_routes, routes};
use traffic::routes::{Left, MtuPlan, Why};
use traffic::routing_events::RoutingEvents;

const PLAN: MtuPlan = MtuPlan::new(28, 32);

/// Two neighbours in one subnet, each on a link of its own.
fn two_links() -> (Namespace, Namespace, Namespace) {
    let (a, b, c) = (Namespace::new(), Namespace::new(), Namespace::new());
    link(1500, (&a, "left", &[(A4, 24), (A6, 64)]), (&b, "right", &[(B4, 24), (B6, 64)]));
    link(1500, (&a, "other", &[("192.168.20.7", 24), ("fd20::7", 64)]), (&c, "right", &[("192.168.20.8", 24), ("fd20::8", 64)]));
    (a, b, c)
}

#[test]
fn of_two_links_in_one_subnet_both_keep_their_routes_in_their_order() {
    if !privileged() {
        return;
    }
    let (a, _b, _c) = two_links();
    a.run(|| {
        let before = routes(MAIN);
        assert_eq!((main_routes("192.168.20.0/24").len(), main_routes("fd20::/64").len()), (2, 2), "{before:?}");
        let outcome = PLAN.apply().unwrap();
        assert_eq!(outcome.left, []);
        let lowered = |line: &String| format!("{line} mtu {}", if line.contains(':') { 1468 } else { 1472 });
        assert_eq!(routes(MAIN), before.iter().map(lowered).collect::<Vec<_>>());
        assert_eq!(routes(MARKED), before);
        PLAN.restore().unwrap();
        assert_eq!(routes(MAIN), before);
        assert_eq!(routes(MARKED), [""; 0]);
    });
}

#[test]
fn of_several_routes_only_what_is_not_right_yet_is_changed() {
    if !privileged() {
        return;
    }
    let (a, _b, _c) = two_links();
    a.run(|| {
        let before = routes(MAIN);
        PLAN.apply().unwrap();
        let lowered = routes(MAIN);
        for link in ["left", "other"] {
            // As after the link has been down: alone of the two it is as it was.
            for (destination, prefix, metric) in [("192.168.20.0", 24, None), ("fd20::", 64, Some(256))] {
                let route = Route { destination, prefix, metric, link: Some(link), protocol: 2, ..Route::default() };
                route.remove();
                route.add();
            }
            assert_eq!(PLAN.apply().unwrap().left, []);
            let sorted = |mut routes: Vec<String>| {
                routes.sort();
                routes.iter().map(|line| line.split(" src ").next().unwrap().to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(sorted(routes(MAIN)), sorted(lowered.clone()), "{link}");
            assert_eq!(sorted(routes(MARKED)), sorted(before.clone()), "{link}");
        }
    });
}

#[test]
fn what_is_as_it_should_be_is_not_touched() {
    if !privileged() {
        return;
    }
    let (a, _b, _c) = two_links();
    a.run(|| {
        Route { via: Some(B4), ..Route::default() }.add();
        Route { destination: "10.1.0.0", prefix: 16, via: Some(B4), mtu: Some(1400), locked: true, ..Route::default() }.add();
        Route { destination: "10.2.0.0", prefix: 16, kind: 6, ..Route::default() }.add();
        Route { destination: "2001:db8::", prefix: 32, via: Some(B6), expires: Some(1000), ..Route::default() }.add();
        Route { destination: "::", via: Some(B6), link: Some("left"), metric: Some(1024), protocol: 9, ..Route::default() }.add();
        let first = PLAN.apply().unwrap();
        let mut events = RoutingEvents::listen().unwrap();
        assert_eq!(PLAN.apply().unwrap(), first);
        assert!(!events.has_changed(None).unwrap(), "a second time nothing is left to do");
        PLAN.restore().unwrap();
        assert!(events.has_changed(None).unwrap());
        PLAN.restore().unwrap();
        assert!(!events.has_changed(None).unwrap());
    });
}

#[test]
fn the_mtu_of_a_link_for_ipv6_counts_for_ipv6() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.sysctl("net/ipv6/conf/left/mtu", "1400");
    a.run(|| {
        PLAN.apply().unwrap();
        assert!(main_routes("fd20::/64")[0].ends_with("mtu 1368"), "{:?}", routes(MAIN));
        assert!(main_routes("192.168.20.0/24")[0].ends_with("mtu 1472"), "{:?}", routes(MAIN));
    });
}

#[test]
fn a_route_that_expires_goes_on_expiring() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| {
        Route { destination: "2001:db8::", prefix: 32, via: Some(B6), expires: Some(1000), ..Route::default() }.add();
        let before = main_routes("2001:db8::");
        assert!(before[0].ends_with("expires 100"), "{before:?}");
        PLAN.apply().unwrap();
        assert_eq!(main_routes("2001:db8::"), [before[0].replace(" expires", " mtu 1468 expires")]);
        PLAN.restore().unwrap();
        assert_eq!(main_routes("2001:db8::"), before);
    });
}

#[test]
fn a_locked_mtu_is_open_to_discovery_while_it_is_lowered_and_locked_again_afterwards() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| {
        Route { destination: "10.1.0.0", prefix: 16, via: Some(B4), mtu: Some(1400), locked: true, ..Route::default() }.add();
        let before = main_routes("10.1.0.0");
        assert!(before[0].ends_with("lock 0x4 mtu 1400"), "{before:?}");
        PLAN.apply().unwrap();
        PLAN.apply().unwrap();
        assert_eq!(main_routes("10.1.0.0"), [before[0].replace("lock 0x4 mtu 1400", "mtu 1372")]);
        assert!(routes(MARKED).contains(&before[0]), "{:?}", routes(MARKED));
        PLAN.restore().unwrap();
        assert_eq!(main_routes("10.1.0.0"), before);
    });
}

/// In the second table a packet must not take a less specific route because the right one has no copy there.
#[test]
fn routes_that_lead_nowhere_or_cannot_be_lowered_hold_for_packets_with_ah_too() {
    if !privileged() {
        return;
    }
    let (a, b, c) = (Namespace::new(), Namespace::new(), Namespace::new());
    link(1500, (&a, "left", &[(A4, 24), (A6, 64)]), (&b, "right", &[(B4, 24), (B6, 64)]));
    link(1300, (&a, "small", &[("fd30::1", 64)]), (&c, "right", &[("fd30::2", 64)]));
    a.run(|| {
        Route { via: Some(B4), ..Route::default() }.add();
        Route { destination: "10.2.0.0", prefix: 16, kind: 6, ..Route::default() }.add();
        Route { destination: "::", via: Some(B6), ..Route::default() }.add();
        let outcome = PLAN.apply().unwrap();
        assert_eq!(outcome.left, [Left { route: "fd30::/64".into(), why: Why::TooSmall(1300) }]);
    });
    let marked = |from: &str| {
        let socket = a.udp(address(from, 5000));
        setsockopt(&socket, sockopt::Mark, &PLAN.mark).unwrap();
        socket
    };
    assert!(marked(A4).send_to(b"data", address("10.2.0.1", 5001)).is_err());
    let receiver = c.udp(address("fd30::2", 5001));
    let sender = marked("fd30::1");
    forbid_fragments(&sender);
    sender.send_to(&[1; 1252], address("fd30::2", 5001)).unwrap();
    assert_eq!(receive(&receiver, SOON).unwrap().len(), 1252);
}

#[test]
fn an_mtu_that_somebody_sets_later_is_the_one_that_counts() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| {
        let route = Route { destination: "10.1.0.0", prefix: 16, via: Some(B4), ..Route::default() };
        route.add();
        let mut kept = traffic::routes::Routes::open(PLAN).unwrap();
        kept.apply().unwrap();
        Route { mtu: Some(1300), ..route }.replace();
        kept.apply().unwrap();
        assert!(main_routes("10.1.0.0")[0].ends_with("mtu 1272"));
        route.replace();
        kept.apply().unwrap();
        assert!(main_routes("10.1.0.0")[0].ends_with("mtu 1472"));
        kept.restore().unwrap();
        assert!(!main_routes("10.1.0.0")[0].contains("mtu"));
    });
}
