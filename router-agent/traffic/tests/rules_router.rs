//! The router's rules: what is signalling goes to its own queue, everything else that is forwarded to the data queue.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use std::time::Instant;

use namespace::{Namespace, QUIET, Queued, SOON, add_route, address, eventually, link, next, privileged, receive, seconds_since};
use traffic::queue::{Decision, Queue, QueueConfig, ReceiveBuffer};
use traffic::rules::{self, Bucket, Family, Role, RouterRules, SIGNALLING_PASSED};

const SIGNALLING: u16 = 1;
const DATA: u16 = 2;
const ASSOCIATION_PORT: u16 = 30_270;
const PREROUTING: u8 = 0;
const FORWARD: u8 = 2;

/// Addresses of sender, router towards it, and receiver.
const FAMILIES: [(&str, &str, &str); 2] = [("192.168.20.1", "192.168.20.254", "192.168.21.4"), ("fd20::1", "fd20::fe", "fd21::4")];

#[test]
fn signalling_on_its_way_is_queued_apart_and_passes_only_with_the_mark() {
    // P-146.
    if !privileged() {
        return;
    }
    let path = Path::new();
    let (mut signalling, mut data) = path.queues();
    for (sender, _, receiver) in FAMILIES {
        let (from, to) = (path.sender.udp(address(sender, 270)), path.receiver.udp(address(receiver, 270)));
        from.send_to(b"Query", address(receiver, 270)).unwrap();
        let packet = next(&signalling);
        assert_eq!(packet.hook, PREROUTING);
        assert!(packet.payload.ends_with(b"Query"));
        signalling.verdict(packet.id, Decision::AcceptMarked(SIGNALLING_PASSED)).unwrap();
        assert_eq!(receive(&to, SOON).unwrap(), b"Query");
        // Accepted without the mark it is ordinary data.
        from.send_to(b"Query", address(receiver, 270)).unwrap();
        signalling.verdict(next(&signalling).id, Decision::Accept).unwrap();
        let packet = next(&data);
        assert_eq!(packet.hook, FORWARD);
        data.verdict(packet.id, Decision::Drop).unwrap();
        assert_eq!(receive(&to, QUIET), None);
    }
}

#[test]
fn the_mark_passes_nothing_but_datagrams_to_the_port_of_signalling() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    let (mut signalling, data) = path.queues();
    let (sender, _, receiver) = FAMILIES[0];
    let other = path.receiver.udp(address(receiver, 5001));
    path.sender.udp(address(sender, 5000)).send_to(b"Query", address(receiver, 270)).unwrap();
    let Queued { id, mut payload, .. } = next(&signalling);
    // The signalling queue itself would have to turn the datagram into another one.
    payload[22..24].copy_from_slice(&5001u16.to_be_bytes());
    payload[26..28].fill(0);
    signalling.verdict(id, Decision::Replace { payload: &payload, mark: Some(SIGNALLING_PASSED) }).unwrap();
    assert_eq!(next(&data).hook, FORWARD);
    assert_eq!(receive(&other, QUIET), None);
}

#[test]
fn fragmented_and_ordinary_datagrams_go_to_the_data_queue_whole() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    let (signalling, mut data) = path.queues();
    for (sender, _, receiver) in FAMILIES {
        let from = path.sender.udp(address(sender, 5000));
        for (port, len) in [(270, 4000), (5001, 10), (5001, 4000)] {
            let to = path.receiver.udp(address(receiver, port));
            from.send_to(&vec![5; len], address(receiver, port)).unwrap();
            let packet = next(&data);
            assert_eq!(packet.hook, FORWARD);
            assert!(packet.payload.len() > len);
            data.verdict(packet.id, Decision::Accept).unwrap();
            assert_eq!(receive(&to, SOON).unwrap().len(), len);
        }
    }
    let mut buffer = ReceiveBuffer::default();
    assert!(signalling.receive(&mut buffer).is_err());
}

#[test]
fn datagrams_for_the_router_itself_reach_its_socket() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    let (signalling, _data) = path.queues();
    for (sender, router, _) in FAMILIES {
        let own = path.router.udp(address(router, 270));
        path.sender.udp(address(sender, 270)).send_to(b"Response", address(router, 270)).unwrap();
        assert_eq!(receive(&own, SOON).unwrap(), b"Response");
    }
    let mut buffer = ReceiveBuffer::default();
    assert!(signalling.receive(&mut buffer).is_err());
}

#[test]
fn without_listeners_a_router_forwards_nothing() {
    // P-147, P-190.
    if !privileged() {
        return;
    }
    let path = Path::new();
    for (sender, _, receiver) in FAMILIES {
        for port in [270, 5001] {
            let (from, to) = (path.sender.udp(address(sender, port)), path.receiver.udp(address(receiver, port)));
            from.send_to(b"anything", address(receiver, port)).unwrap();
            assert_eq!(receive(&to, QUIET), None);
        }
    }
    let counters = path.router.run(|| rules::counters(Role::Router).unwrap());
    for family in [Family::Ipv4, Family::Ipv6] {
        let of = |chain: &str, rule: &str| {
            counters.iter().find(|counter| counter.family == family && counter.chain == chain && counter.rule == rule).unwrap().packets
        };
        assert_eq!((of("signalling", "within the bucket"), of("forward", "data")), (1, 1));
    }
}

#[test]
fn signalling_above_its_bucket_never_reaches_the_queue() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    let (bucket, start) = (Bucket::new(1, 2), Instant::now());
    path.router.run(|| RouterRules { signalling: bucket, ..RouterRules::new(SIGNALLING, DATA, ASSOCIATION_PORT) }.install().unwrap());
    let (signalling, _data) = path.queues();
    let (sender, _, receiver) = FAMILIES[0];
    let from = path.sender.udp(address(sender, 270));
    for _ in 0..30 {
        from.send_to(b"flood", address(receiver, 270)).unwrap();
    }
    let most = bucket.at_most(seconds_since(start));
    let counted = |rule: &str| {
        let counters = path.router.run(|| rules::counters(Role::Router).unwrap());
        counters.iter().filter(|counter| counter.chain == "signalling" && counter.rule == rule).map(|counter| counter.packets).sum::<u64>()
    };
    eventually("all have been judged", || counted("within the bucket") + counted("above the bucket") == 30);
    let mut queued = 0;
    let mut buffer = ReceiveBuffer::default();
    while let Ok(deliveries) = signalling.receive(&mut buffer) {
        queued += deliveries.count() as u64;
    }
    assert!((2..=most).contains(&queued), "{queued}, {most} at most");
}

/// Sender, router with its rules, receiver.
struct Path {
    sender: Namespace,
    router: Namespace,
    receiver: Namespace,
}

impl Path {
    fn new() -> Self {
        let path = Self { sender: Namespace::new(), router: Namespace::new(), receiver: Namespace::new() };
        let [(s4, r4, e4), (s6, r6, e6)] = FAMILIES;
        link(1500, (&path.sender, "up", &[(s4, 24), (s6, 64)]), (&path.router, "down", &[(r4, 24), (r6, 64)]));
        link(1500, (&path.router, "up", &[("192.168.21.254", 24), ("fd21::fe", 64)]), (&path.receiver, "down", &[(e4, 24), (e6, 64)]));
        add_route(&path.sender, "0.0.0.0", 0, r4);
        add_route(&path.sender, "::", 0, r6);
        add_route(&path.receiver, "0.0.0.0", 0, "192.168.21.254");
        add_route(&path.receiver, "::", 0, "fd21::fe");
        path.router.sysctl("net/ipv4/ip_forward", "1");
        path.router.sysctl("net/ipv6/conf/all/forwarding", "1");
        path.router.run(|| RouterRules::new(SIGNALLING, DATA, ASSOCIATION_PORT).install().unwrap());
        path
    }

    fn queues(&self) -> (Queue, Queue) {
        self.router.run(|| (Queue::open(QueueConfig::new(SIGNALLING)).unwrap(), Queue::open(QueueConfig::new(DATA)).unwrap()))
    }
}
