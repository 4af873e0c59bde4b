//! What arrives in fragments, where the operator wants none of it (X-87, P-160).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, add_route, address, next, pair, privileged, receive};
use traffic::queue::{Decision, Queue, QueueConfig};
use traffic::rules::{self, Fragments, HostRules, Role, RouterRules};

const IN: u16 = 4;

/// Packets that the rule has counted.
fn dropped(namespace: &Namespace, role: Role) -> u64 {
    let counters = namespace.run(|| rules::counters(role).unwrap());
    counters.iter().filter(|counter| counter.rule == "fragments").map(|counter| counter.packets).sum()
}

#[test]
fn a_host_that_wants_no_fragments_gets_whole_datagrams_only() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| HostRules { fragments: Fragments::Drop, ..HostRules::new(3, IN, 30_270) }.install().unwrap());
    let mut queue = b.run(|| Queue::open(QueueConfig::new(IN)).unwrap());
    for (from, to) in [(A4, B4), (A6, B6)] {
        let (sender, receiver) = (a.udp(address(from, 5000)), b.udp(address(to, 5001)));
        let before = dropped(&b, Role::Host);
        sender.send_to(&[1; 4000], address(to, 5001)).unwrap();
        assert_eq!(receive(&receiver, QUIET), None);
        assert_eq!(dropped(&b, Role::Host) - before, 3);
        sender.send_to(&[2; 1000], address(to, 5001)).unwrap();
        let packet = next(&queue);
        assert!(packet.payload.ends_with(&[2; 1000]), "the first that comes to the queue");
        queue.verdict(packet.id, Decision::Accept).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap().len(), 1000);
        // A host's traffic with itself is not concerned.
        let own = b.udp(address(to, 5002));
        own.send_to(&vec![3; 66_000 / 2], address(to, 5002)).unwrap();
        own.send_to(&vec![3; 65_000], address(to, 5002)).unwrap();
        assert_eq!(receive(&own, SOON).unwrap().len(), 33_000);
        assert_eq!(receive(&own, SOON).unwrap().len(), 65_000);
    }
}

#[test]
fn a_router_that_wants_no_fragments_forwards_none() {
    if !privileged() {
        return;
    }
    let (sender, router) = pair(1500);
    router.sysctl("net/ipv4/ip_forward", "1");
    router.sysctl("net/ipv6/conf/all/forwarding", "1");
    router.run(|| RouterRules { fragments: Fragments::Drop, ..RouterRules::new(1, 2, 30_270) }.install().unwrap());
    let mut queue = router.run(|| Queue::open(QueueConfig::new(2)).unwrap());
    add_route(&sender, "0.0.0.0", 0, B4);
    add_route(&sender, "::", 0, B6);
    add_route(&router, "0.0.0.0", 0, A4);
    add_route(&router, "::", 0, A6);
    for (from, to) in [(A4, "192.168.99.1"), (A6, "fd99::1")] {
        let before = dropped(&router, Role::Router);
        let socket = sender.udp(address(from, 5000));
        socket.send_to(&[1; 4000], address(to, 5001)).unwrap();
        socket.send_to(&[2; 1000], address(to, 5001)).unwrap();
        let packet = next(&queue);
        assert!(packet.payload.ends_with(&[2; 1000]), "the first that comes to the queue");
        queue.verdict(packet.id, Decision::Drop).unwrap();
        assert_eq!(dropped(&router, Role::Router) - before, 3);
    }
}
