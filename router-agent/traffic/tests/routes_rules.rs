//! Packets with AH go by the same rules as they did without: a program's own mark still counts, and no packet leaves beside a
//! tunnel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use std::time::Duration;

use namespace::{Namespace, SOON, address, link, pair, privileged, receive};
use nix::sys::socket::{setsockopt, sockopt};
use routing::{MAIN, Route, add_rule, rules};
use traffic::routes::{Left, MARK, MtuPlan, Why};
use traffic::rules::{ASSOCIATION_MARK, SIGNALLING_PASSED};

const PLAN: MtuPlan = MtuPlan::new(28, 32);
/// Mark and table that `wg-quick` gives the first tunnel.
const TUNNEL: u32 = 51_820;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

#[test]
fn the_mark_is_one_bit_that_no_other_mark_of_this_project_has() {
    assert_eq!(MARK.count_ones(), 1);
    assert_eq!((ASSOCIATION_MARK | SIGNALLING_PASSED) & MARK, 0);
}

/// Like WireGuard's: whatever has not the tunnel's own mark goes into the tunnel.
#[test]
fn a_tunnels_own_packets_leave_by_the_link_and_everything_else_by_the_tunnel() {
    if !privileged() {
        return;
    }
    let (a, provider, far) = (Namespace::new(), Namespace::new(), Namespace::new());
    // An address that both neighbours have tells the two ways apart.
    link(
        1500,
        (&a, "link", &[("192.168.20.1", 24), ("fd20::1", 64)]),
        (&provider, "up", &[("192.168.20.2", 24), ("fd20::2", 64), ("198.51.100.1", 32), ("2001:db8::1", 128)]),
    );
    link(
        1420,
        (&a, "tunnel", &[("10.0.0.1", 24), ("fd10::1", 64)]),
        (&far, "up", &[("10.0.0.2", 24), ("fd10::2", 64), ("198.51.100.1", 32), ("2001:db8::1", 128)]),
    );
    a.run(|| {
        for (default, via, table) in
            [("0.0.0.0", "192.168.20.2", MAIN), ("0.0.0.0", "10.0.0.2", TUNNEL), ("::", "fd20::2", MAIN), ("::", "fd10::2", TUNNEL)]
        {
            Route { destination: default, via: Some(via), table, ..Route::default() }.add();
        }
        for family in [IPV4, IPV6] {
            add_rule(family, 32_764, None, MAIN, true);
            add_rule(family, 32_765, Some(TUNNEL), TUNNEL, false);
        }
        let outcome = PLAN.apply().unwrap();
        assert_eq!(outcome.left, [Left { route: "rule 32765".into(), why: Why::OtherTable(TUNNEL) }]);
    });
    for to in ["198.51.100.1", "2001:db8::1"] {
        let (beside, through) = (provider.udp(address(to, 5001)), far.udp(address(to, 5001)));
        for (own_mark, there, not_there) in [(TUNNEL, &beside, &through), (0, &through, &beside), (7, &through, &beside)] {
            for with_ah in [0, PLAN.mark] {
                let sender = a.udp(address(if to.contains(':') { "::" } else { "0.0.0.0" }, 0));
                setsockopt(&sender, sockopt::Mark, &(own_mark | with_ah)).unwrap();
                sender.send_to(b"data", address(to, 5001)).unwrap();
                assert!(receive(there, SOON).is_some());
                assert!(receive(not_there, Duration::from_millis(20)).is_none(), "{to}, mark {own_mark:#x} and {with_ah:#x}");
            }
        }
    }
}

#[test]
fn rules_follow_those_of_others_and_go_without_a_trace() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| {
        let before = (rules(IPV4), rules(IPV6));
        PLAN.apply().unwrap();
        let first = (rules(IPV4), rules(IPV6));
        assert_eq!(first.0.iter().filter(|(_, table)| *table == PLAN.table).count(), 1);
        // The new set stands in the other place; coming back, it stands in the first again.
        add_rule(IPV4, 100, Some(7), 100, false);
        let outcome = PLAN.apply().unwrap();
        assert_eq!(outcome.left, [Left { route: "rule 100".into(), why: Why::OtherTable(100) }]);
        assert!(rules(IPV4).len() == first.0.len() + 2 && rules(IPV6) == first.1, "{:?}", rules(IPV4));
        add_rule(IPV4, 101, Some(8), 100, false);
        PLAN.apply().unwrap();
        assert_eq!(rules(IPV4).len(), first.0.len() + 4);
        PLAN.restore().unwrap();
        let with_others = [&before.0[..1], &[(100, 100), (101, 100)], &before.0[1..]].concat();
        assert_eq!((rules(IPV4), rules(IPV6)), (with_others, before.1));
    });
}

#[test]
fn another_bit_can_be_configured_and_a_rule_of_others_that_tests_it_is_told() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    let plan = MtuPlan { mark: 1 << 5, ..PLAN };
    a.run(|| {
        PLAN.apply().unwrap();
        add_rule(IPV4, 100, Some(0x20), 100, false);
        let left = plan.apply().unwrap().left;
        assert_eq!(left, [Left { route: "rule 100".into(), why: Why::MarkTaken }]);
        let marked = rules(IPV4).iter().filter(|(_, table)| *table == plan.table).count();
        assert_eq!(marked, 1, "those for the former mark are gone");
    });
    for (mark, fits) in [(plan.mark, 1472), (PLAN.mark, 1444)] {
        let (sender, receiver) = (a.udp(address(namespace::A4, 5000)), b.udp(address(namespace::B4, 5001)));
        namespace::forbid_fragments(&sender);
        setsockopt(&sender, sockopt::Mark, &mark).unwrap();
        sender.send_to(&vec![1; fits], address(namespace::B4, 5001)).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap().len(), fits);
        assert!(sender.send_to(&vec![1; fits + 1], address(namespace::B4, 5001)).is_err());
    }
}
