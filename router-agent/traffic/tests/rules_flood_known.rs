//! Whoever this node knows opens and signals while others flood it in as many names as they like: made-up names spend what strangers
//! have.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod association;
mod namespace;
mod raw;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use association::{ACK, Association, PORT, SYN, counter, flooding, install, listener, segment};
use namespace::{A4, A6, B4, B6, Namespace, SOON, add_address, add_route, address, eventually, pair, privileged, receive};
use nix::sys::socket::{setsockopt, sockopt};
use raw::Raw;
use traffic::rules::Role;

/// Other addresses of the left end.
const OTHER_A4: &str = "192.168.20.77";
const OTHER_A6: &str = "fd20::77";
const GIST: u16 = 270;
/// More sources, each in a network of its own, than any set has room for.
const NAMES: u32 = 20_000;
/// Times that somebody opens: within the bucket of one address.
const OPENINGS: u64 = 5;
/// Datagrams of a peer: within its bucket.
const DATAGRAMS: u64 = 50;

/// A neighbour that has lost its association, and one that comes for the first time and has had its Query answered: both come through,
/// and no bucket that others spend decides about it. With so many half-open the kernel sends SYN cookies, so that the last segment of an opening
/// goes to the listener, which is flooded too.
#[test]
fn peers_and_those_written_to_open_while_openings_in_many_names_flood_the_link() {
    if !privileged() {
        return;
    }
    for role in [Role::Host, Role::Router] {
        for (from, other, to) in [(A4, OTHER_A4, B4), (A6, OTHER_A6, B6)] {
            let (attacker, node) = flooded_link(role);
            let listener = listener(&node, address(to, PORT));
            Association::authenticated_from(&attacker, Some(from), &listener, to).round_trips(10);
            // A daemon that starts again: its peers are those of before.
            node.run(|| install(role));
            let opens = |name: &str| segment((name, to), (4000, PORT), SYN);
            let strangers: Vec<_> = names(from).map(|name| opens(&name)).collect();
            let answered = attacker.run(resets_sent);
            comes_through(&attacker, &strangers, &opens(from), OPENINGS, || attacker.run(resets_sent) - answered);
            // Its bucket is full again.
            std::thread::sleep(Duration::from_secs(2));
            let segments: Vec<_> = names(from).flat_map(|name| [opens(&name), segment((&name, to), (4000, PORT), ACK)]).collect();
            flooding(&attacker, from, &segments, || {
                for chain in ["in-openings", "in-listener-others"] {
                    eventually("the flood fills the bucket of all", || node.run(|| counter(role, chain, "above the bucket")) > 1000);
                }
                let signalling = node.udp(address(to, GIST));
                for (known, source, chain) in [("a peer", from, "opening-peer"), ("one written to", other, "opening-written-to")] {
                    let start = Instant::now();
                    for _ in 0..OPENINGS {
                        let _ = signalling.send_to(b"Response", address(other, 4000)).unwrap();
                        Association::from(&attacker, Some(source), &listener, to).round_trips(2);
                    }
                    eprintln!("{role:?} {from}: {known} opens {OPENINGS} times in {:?}", start.elapsed());
                    for way in ["in", "out"] {
                        let chain = format!("{way}-{chain}");
                        assert_eq!(node.run(|| counter(role, &chain, "above the bucket")), 0, "{chain}");
                        assert!(node.run(|| counter(role, &chain, "within the bucket")) >= OPENINGS, "{chain}");
                    }
                }
                assert_eq!(node.run(|| counter(role, "in-openings-written-to", "above the bucket")), 0);
                assert_eq!(node.run(|| counter(role, "in-listener-known", "above the bucket")), 0);
            });
        }
    }
}

/// The bucket of all signalling is spent, and every one of a peer's datagrams arrives; so they go to a router's signalling queue.
#[test]
fn datagrams_of_a_peer_pass_while_signalling_in_many_names_floods_the_link() {
    if !privileged() {
        return;
    }
    for role in [Role::Host, Role::Router] {
        for (from, to, beyond) in [(A4, B4, "10.255.0.1"), (A6, B6, "fd99:ffff::1")] {
            let (attacker, node) = flooded_link(role);
            let listener = listener(&node, address(to, PORT));
            Association::authenticated_from(&attacker, Some(from), &listener, to).round_trips(10);
            let own = node.udp(address(to, GIST));
            // Room for what of the flood comes through while nobody reads.
            setsockopt(&own, sockopt::RcvBufForce, &(16 << 20)).unwrap();
            let intercepted = if role == Role::Router { vec![beyond] } else { Vec::new() };
            for (chain, to) in intercepted.iter().map(|to| ("signalling", *to)).chain([("in-signalling", to)]) {
                let strangers: Vec<_> = names(from).map(|name| datagram((&name, to), b"forged")).collect();
                let passed = || node.run(|| counter(role, chain, "of a peer"));
                comes_through(&attacker, &strangers, &datagram((from, to), b"Query"), DATAGRAMS, passed);
                assert!(node.run(|| counter(role, chain, "above the bucket")) > 1000, "{chain}");
                if chain == "in-signalling" {
                    (0..DATAGRAMS).for_each(|_| arrives(&own, b"Query"));
                }
            }
        }
    }
}

/// An attacker, who has two addresses of its own in each family, and a node behind which nobody is.
fn flooded_link(role: Role) -> (Namespace, Namespace) {
    let (attacker, node) = pair(1500);
    attacker.run(|| [(OTHER_A4, 24), (OTHER_A6, 64)].iter().for_each(|(ip, prefix)| add_address("left", ip.parse().unwrap(), *prefix)));
    for (namespace, by4, by6) in [(&node, A4, A6), (&attacker, B4, B6)] {
        add_route(namespace, "10.0.0.0", 8, by4);
        add_route(namespace, "fd99::", 16, by6);
    }
    node.run(|| install(role));
    (attacker, node)
}

/// Sources of the family of an address.
fn names(of: &str) -> impl Iterator<Item = String> + use<> {
    let is_ipv6 = of.contains(':');
    (0..NAMES).map(move |name| if is_ipv6 { format!("fd99:{name:x}::1") } else { format!("10.{}.{}.1", name / 256, name % 256) })
}

/// Sends a packet that many times, each right behind a hundred of strangers' packets, which leave nothing in any bucket that they share with
/// it: only one that shares none passes again and again. What is lost on a busy machine before the rules see it is sent once more.
fn comes_through(attacker: &Namespace, strangers: &[Vec<u8>], packet: &[u8], times: u64, passed: impl Fn() -> u64) {
    let raw = attacker.run(|| Raw::open(if packet[0] >> 4 == 4 { A4 } else { A6 }));
    strangers.iter().for_each(|packet| raw.send(packet));
    let (mut some, mut sent) = (strangers.chunks(100).cycle(), 0);
    while passed() < times {
        assert!(sent < 2 * times, "{} of {sent} pass", passed());
        for _ in passed()..times {
            some.next().into_iter().flatten().for_each(|packet| raw.send(packet));
            raw.send(packet);
            sent += 1;
            // Not more at once than the kernel keeps for a link.
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("{} of {sent} pass right behind others", passed());
}

/// A GIST datagram, as the rules see it.
fn datagram(ends: raw::Ends<'_>, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let head = [GIST, GIST, length, 0].map(u16::to_be_bytes);
    raw::packet(ends, 17, [head.as_flattened(), payload].concat(), 6)
}

/// Waits for a datagram among others.
fn arrives(socket: &UdpSocket, payload: &[u8]) {
    let start = Instant::now();
    while receive(socket, SOON).is_none_or(|received| received != payload) {
        assert!(start.elapsed() < SOON, "it passes the rules and does not arrive");
    }
}

/// Resets that this namespace has sent, as it does when somebody answers an opening that it knows nothing of.
fn resets_sent() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_ascii_whitespace);
    let (mut names, mut values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.position(|name| name == "OutRsts").unwrap();
    values.nth(place).unwrap().parse().unwrap()
}
