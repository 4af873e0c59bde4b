//! A router that observes loses nothing that would pass without it: not above a bucket, not without a daemon, not beside a daemon
//! that does not keep up. What it has not judged it counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::net::UdpSocket;

use namespace::{Namespace, QUIET, add_route, address, eventually, link, privileged, receive};
use raw::Raw;
use traffic::queue::{Queue, QueueConfig};
use traffic::rules::{self, At, Bucket, Exempt, Exemptions, Mode, Modes, Role, RouterRules};

const DATA: u16 = 2;
const OBSERVED: u16 = 5;
const MANY: usize = 50;
const NTP: u16 = 123;
/// Sender, router towards it, router towards the receiver, receiver.
const FAMILIES: [[&str; 4]; 2] =
    [["192.168.20.1", "192.168.20.254", "192.168.21.254", "192.168.21.4"], ["fd20::1", "fd20::fe", "fd21::fe", "fd21::4"]];
const LEAST: Bucket = Bucket::new(1, 1);

#[test]
fn what_exceeds_an_exemptions_bucket_passes_an_observed_interface_and_no_other() {
    if !privileged() {
        return;
    }
    for (others, listed) in [(Mode::Observe, Mode::Closed), (Mode::Closed, Mode::Observe)] {
        let path = Path::new();
        // By this interface packets go to the receiver, by the other to the sender.
        path.install(Modes { others, interfaces: vec![("up".to_owned(), listed)] });
        for [from, own, _, to] in FAMILIES {
            let (client, server) = (path.sender.udp(address(from, 4000)), path.receiver.udp(address(to, NTP)));
            let signalling = path.receiver.udp(address(to, 270));
            let (there, back) = if listed == Mode::Observe { (MANY, 1) } else { (1, MANY) };
            let few = |sent: usize| if sent == MANY { MANY..=MANY } else { 0..=3 };
            assert!(few(there).contains(&sent(&client, &server)), "{from} > {to}");
            assert!(few(back).contains(&sent(&server, &client)), "{to} > {from}");
            assert!(
                few(if there == MANY { MANY } else { 0 }).contains(&sent(&client, &signalling)),
                "{from}: signalling, without a daemon"
            );
            // For the router itself by the interface towards the sender.
            let service = path.router.udp(address(own, NTP));
            assert!(few(back).contains(&sent(&client, &service)), "{from} > {own}");
        }
    }
}

#[test]
fn an_observing_router_says_all_that_it_says_without_rules() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    // The kernel's own bounds aside.
    ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"].iter().for_each(|name| path.router.sysctl(&format!("net/{name}"), "0"));
    for ([from, _, _, to], mode) in FAMILIES.into_iter().flat_map(|family| [(family, Mode::Closed), (family, Mode::Observe)]) {
        path.install(Modes { others: mode, interfaces: Vec::new() });
        let raw = path.sender.run(|| Raw::open(from));
        let expired = raw::with_hop_limit(raw::echo((from, to), 64), 1);
        let before = path.sender.run(received);
        (0..MANY).for_each(|_| raw.send(&expired));
        let said = || path.sender.run(received) - before;
        if mode == Mode::Observe {
            eventually("nearly all are answered", || said() >= MANY * 4 / 5);
        } else {
            std::thread::sleep(QUIET);
            assert!(said() < MANY / 2, "{from}: {} errors", said());
        }
    }
}

#[test]
fn what_is_observed_and_finds_its_queue_full_passes_as_unjudged_and_what_is_not_is_dropped() {
    if !privileged() {
        return;
    }
    const ROOM: usize = 4;
    let path = Path::new();
    path.install(Modes { others: Mode::Closed, interfaces: vec![("up".to_owned(), Mode::Observe)] });
    let config = QueueConfig { capacity: ROOM as u32, observed: Some(OBSERVED), modes: true, ..QueueConfig::new(DATA) };
    // Nobody judges what waits here.
    let _queue = path.router.run(|| Queue::open(config).unwrap());
    for (family, [from, _, _, to]) in FAMILIES.into_iter().enumerate() {
        let (sending, receiving) = (path.sender.udp(address(from, 4000)), path.receiver.udp(address(to, 4001)));
        let waiting = if family == 0 { ROOM } else { 0 };
        assert_eq!(sent(&sending, &receiving), MANY - waiting, "{from}");
        assert_eq!(sent(&receiving, &sending), 0, "{from}: by the interface that is closed");
    }
    let unjudged = || {
        let counters = path.router.run(|| rules::counters(Role::Router).unwrap());
        counters.iter().filter(|counter| counter.rule == "passed unjudged").map(|counter| counter.packets).sum::<u64>()
    };
    eventually("they are counted", || unjudged() == (2 * MANY - ROOM) as u64);
}

/// How many of so many datagrams arrive.
fn sent(from: &UdpSocket, to: &UdpSocket) -> usize {
    for number in 0..MANY {
        from.send_to(&[number as u8; 100], to.local_addr().unwrap()).unwrap();
    }
    std::iter::from_fn(|| receive(to, QUIET)).count()
}

/// Frames that have come in by the link of this namespace.
fn received() -> usize {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("link:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Path {
    sender: Namespace,
    router: Namespace,
    receiver: Namespace,
}

impl Path {
    fn new() -> Self {
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        let end = |position: usize| [(FAMILIES[0][position], 24), (FAMILIES[1][position], 64)];
        link(4000, (&sender, "link", &end(0)), (&router, "down", &end(1)));
        link(1500, (&router, "up", &end(2)), (&receiver, "link", &end(3)));
        for ([_, near, far, _], any) in FAMILIES.into_iter().zip(["0.0.0.0", "::"]) {
            add_route(&sender, any, 0, near);
            add_route(&receiver, any, 0, far);
        }
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        Self { sender, router, receiver }
    }

    /// The least of every bucket.
    fn install(&self, modes: Modes) {
        let exempt = |name: &str, at, peer: Option<&str>| Exempt {
            name: name.to_owned(),
            protocol: 17,
            port: Some(NTP),
            at,
            peer: peer.map(|peer| peer.parse().unwrap()),
            interface: None,
            bucket: LEAST,
        };
        let exempt = vec![
            exempt("time", At::Beyond, Some("192.168.21.0/24")),
            exempt("time6", At::Beyond, Some("fd21::/64")),
            exempt("own", At::Node, None),
        ];
        let rules = RouterRules::new(1, DATA, 30_270);
        let exemptions = Exemptions { icmp_errors: LEAST, ..rules.exemptions };
        let rules = RouterRules {
            modes,
            exempt,
            exemptions,
            observed_queue: OBSERVED,
            signalling: LEAST,
            passed_signalling: LEAST,
            own_errors: LEAST,
            ..rules
        };
        self.router.run(|| rules.install().unwrap());
    }
}
