//! Routes with room for AH: plain packets are held to the lowered MTU, marked ones are not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use namespace::{A4, A6, B4, B6, SOON, add_route, address, forbid_fragments, pair, privileged, receive};
use nix::sys::socket::{setsockopt, sockopt};
use traffic::routes::{Left, Lowered, MtuPlan, Why};

const PLAN: MtuPlan = MtuPlan::new(28, 32);

#[test]
fn a_marked_packet_gets_the_full_mtu_and_a_plain_one_an_error_at_once() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    a.run(|| PLAN.apply().unwrap());
    // Behind IP and UDP headers: 1500 − 28 − 28 octets in IPv4, 1500 − 48 − 32 in IPv6.
    for (from, to, fits, full) in [(A4, B4, 1444, 1472), (A6, B6, 1420, 1452)] {
        let receiver = b.udp(address(to, 5001));
        let sender = a.udp(address(from, 5000));
        forbid_fragments(&sender);
        sender.send_to(&vec![1; fits], address(to, 5001)).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap().len(), fits);
        let error = sender.send_to(&vec![1; fits + 1], address(to, 5001)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EMSGSIZE));
        setsockopt(&sender, sockopt::Mark, &PLAN.mark).unwrap();
        sender.send_to(&vec![1; full], address(to, 5001)).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap().len(), full);
        assert_eq!(sender.send_to(&vec![1; full + 1], address(to, 5001)).unwrap_err().raw_os_error(), Some(nix::libc::EMSGSIZE));
    }
}

#[test]
fn applying_twice_lowers_once_and_new_routes_are_taken_in() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| {
        let first = PLAN.apply().unwrap();
        assert_eq!(first.left, []);
        assert!(first.lowered.contains(&Lowered { route: "192.168.20.0/24".into(), mtu: 1472 }), "{first:?}");
        assert!(first.lowered.contains(&Lowered { route: "fd20::/64".into(), mtu: 1468 }), "{first:?}");
        assert_eq!(PLAN.apply().unwrap(), first);
    });
    add_route(&a, "0.0.0.0", 0, B4);
    add_route(&a, "fd99::", 16, B6);
    a.run(|| {
        let more = PLAN.apply().unwrap();
        assert!(more.lowered.contains(&Lowered { route: "0.0.0.0/0".into(), mtu: 1472 }), "{more:?}");
        assert!(more.lowered.contains(&Lowered { route: "fd99::/16".into(), mtu: 1468 }), "{more:?}");
        assert_eq!(PLAN.apply().unwrap(), more);
    });
}

#[test]
fn restoring_brings_every_route_back_as_it_was() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    add_route(&a, "10.9.0.0", 16, B4);
    let before = a.run(listing);
    a.run(|| PLAN.apply().unwrap());
    assert_ne!(a.run(listing), before);
    a.run(|| PLAN.restore().unwrap());
    assert_eq!(a.run(listing), before);
    a.run(|| PLAN.restore().unwrap());
    for (from, to, full) in [(A4, B4, 1472), (A6, B6, 1452)] {
        let (sender, receiver) = (a.udp(address(from, 5000)), b.udp(address(to, 5001)));
        forbid_fragments(&sender);
        sender.send_to(&vec![1; full], address(to, 5001)).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap().len(), full);
    }
}

#[test]
fn a_link_too_small_for_ipv6_with_ah_is_left_alone_and_named() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1300);
    let outcome = a.run(|| PLAN.apply().unwrap());
    assert!(outcome.left.contains(&Left { route: "fd20::/64".into(), why: Why::TooSmall(1300) }), "{outcome:?}");
    assert!(outcome.lowered.contains(&Lowered { route: "192.168.20.0/24".into(), mtu: 1272 }), "{outcome:?}");
}

/// The kernel's routing tables as text.
fn listing() -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
    // Of IPv6 routes destination, source, gateway and metric, without use counters. Every table, even an empty one, has an
    // entry with the metric ffffffff.
    let columns = |line: &str| line.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
    let ipv6: Vec<String> = read("ipv6_route").lines().map(columns).filter(|line| !line.ends_with("ffffffff")).collect();
    read("route") + &ipv6.join("\n")
}
