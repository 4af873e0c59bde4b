//! What a router's own IP stack answers: nothing that comes from a false source, beyond what X-58 lists and buckets bound.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::net::TcpListener;
use std::ops::Range;
use std::time::Instant;

use namespace::{Namespace, QUIET, SOON, add_route, address, admit, eventually, link, privileged, receive, seconds_since};
use raw::Raw;
use traffic::rules::{self, Admitted, At, Bucket, Exempt, Role, RouterRules};

const PORT: u16 = 30_270;
/// Packets of each kind.
const FLOOD: u16 = 30;
/// Frames that a link may carry by itself meanwhile: the kernel's multicast listener reports and neighbour discovery.
const NOISE: u64 = 8;
/// What the router may say of itself, and of the size of the packets of one permission.
const OWN_ERRORS: Bucket = Bucket::new(1, 10);
const OF_A_PERMISSION: Bucket = Bucket::new(10, 10);

/// For each family: sender, router towards it, receiver, a neighbour of the receiver.
const FAMILIES: [[&str; 4]; 2] =
    [["192.168.20.1", "192.168.20.254", "192.168.21.4", "192.168.21.5"], ["fd20::1", "fd20::fe", "fd21::4", "fd21::5"]];

/// Answers to a source on the receiver's link are packets that the receiver has not permitted.
#[test]
fn what_comes_from_a_false_source_is_not_answered_to_it() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    for [_, router, receiver, _] in FAMILIES {
        let _service = path.router.run(|| TcpListener::bind(address(router, 22)).unwrap());
        let raw = path.sender.run(|| Raw::open(router));
        let from = (receiver, router);
        // Each time from another port, since the kernel answers one connection only so often.
        type Attack = fn((&str, &str), u16) -> Vec<Vec<u8>>;
        let attacks: [(&str, Attack); 5] = [
            ("echo", |from, _| vec![raw::echo(from, 64)]),
            ("fragmented echo", |from, _| raw::fragments(&raw::echo(from, 64))),
            ("SYN to a service", |from, port| vec![raw::syn(from, port, 22)]),
            ("SYN to no service", |from, port| vec![raw::syn(from, port, 23)]),
            ("SYN to the port of associations", |from, port| vec![raw::syn(from, port, PORT)]),
        ];
        for (name, attack) in attacks {
            let reflected = |ports: Range<u16>| {
                path.quiet();
                let before = path.receiver.run(received);
                ports.for_each(|port| attack(from, port).iter().for_each(|packet| raw.send(packet)));
                std::thread::sleep(QUIET);
                path.receiver.run(received) - before
            };
            path.router.run(|| rules::remove(Role::Router).unwrap());
            assert!(reflected(40_000..40_000 + FLOOD) >= FLOOD.into(), "without the rules the attack works: {name}");
            path.router.run(|| RouterRules::new(1, 2, PORT).install().unwrap());
            assert!(reflected(50_000..50_000 + FLOOD) <= NOISE, "{name} of {router} is reflected");
        }
        let counters = path.router.run(|| rules::counters(Role::Router).unwrap());
        let dropped = counters.iter().find(|counter| counter.chain == "input" && counter.rule == "not exempt" && counter.packets > 0);
        assert!(dropped.is_some(), "{counters:?}");
    }
}

/// The stack answers a packet that is too large before FORWARD has judged it, and its own limit leaves these errors out.
#[test]
fn errors_about_packets_that_nobody_has_judged_are_bounded() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    for [_, router, receiver, neighbour] in FAMILIES {
        let raw = path.sender.run(|| Raw::open(router));
        let large = raw::echo((receiver, neighbour), 2000);
        let expired = raw::with_hop_limit(raw::echo((receiver, neighbour), 64), 1);
        for (name, packet) in [("too large", large), ("expired", expired)] {
            let answers = || {
                path.quiet();
                let (before, start) = (path.receiver.run(received), Instant::now());
                for _ in 0..400 {
                    raw.send(&packet);
                }
                std::thread::sleep(QUIET);
                (path.receiver.run(received) - before, OWN_ERRORS.at_most(seconds_since(start)) + NOISE)
            };
            path.router.run(|| rules::remove(Role::Router).unwrap());
            let (open, _) = answers();
            path.router.run(|| RouterRules { own_errors: OWN_ERRORS, ..RouterRules::new(1, 2, PORT) }.install().unwrap());
            let (bounded, most) = answers();
            eprintln!("{name} at {router}: {open} answers without the rules, {bounded} with them");
            assert!(bounded <= most, "{name} at {router}: {bounded}, {most} at most");
            assert!(name != "too large" || open >= 300, "the kernel itself bounds them: {open}");
        }
    }
}

/// path MTU discovery of a permitted flow goes on while somebody spends what the router says of the sizes of others' packets.
#[test]
fn large_packets_under_made_up_spis_do_not_use_up_what_is_said_of_the_size_of_permitted_ones() {
    if !privileged() {
        return;
    }
    const SPI: u32 = 0x1234_5678;
    let path = Path::new();
    let admitted = path.router.run(|| Admitted::open(Role::Router).unwrap());
    for [_, router, receiver, neighbour] in FAMILIES {
        path.router.run(|| RouterRules { own_errors: OWN_ERRORS, ..RouterRules::new(1, 2, PORT) }.install().unwrap());
        admit(&admitted, receiver.parse().unwrap(), neighbour.parse().unwrap(), SPI, SOON * 10);
        admitted.refill();
        admitted.settled();
        let raw = path.sender.run(|| Raw::open(router));
        let errors = |spis: &[u32], bucket: Bucket| {
            path.quiet();
            let (before, start) = (path.receiver.run(received), Instant::now());
            spis.iter().for_each(|spi| raw.send(&large((receiver, neighbour), *spi)));
            std::thread::sleep(QUIET);
            (path.receiver.run(received) - before, bucket.at_most(seconds_since(start)) + NOISE)
        };
        let made_up: Vec<u32> = (1000..1400).collect();
        let ((others, most), (permitted, _)) = (errors(&made_up, OWN_ERRORS), errors(&[SPI; 5], OF_A_PERMISSION));
        let (flooded, most_of_one) = errors(&[SPI; 400], OF_A_PERMISSION);
        eprintln!(
            "{router}: {others} errors about 400 under made-up SPIs, {permitted} about 5 and {flooded} about 400 of the permitted flow"
        );
        assert!(others <= most, "{others}, {most} at most");
        assert!((5..=5 + NOISE).contains(&permitted), "{permitted}");
        // What is above its own bucket has no other.
        assert!(flooded <= most_of_one, "{flooded}, {most_of_one} at most");
        // The shared bucket has at most what one second gives, or two.
        let (late, most) = errors(&[SPI + 1; 5], Bucket::new(1, 1));
        assert!(late <= most, "{late}, {most} at most");
    }
}

/// A packet under AH that does not fit the receiver's link.
fn large(ends: raw::Ends<'_>, spi: u32) -> Vec<u8> {
    let words = if ends.0.contains(':') { 6 } else { 5 };
    let mut payload = [&[17, words, 0, 0][..], &spi.to_be_bytes(), &[0, 0, 0, 1]].concat();
    payload.resize(2000, 7);
    raw::packet(ends, 51, payload, 100)
}

/// Everything on the list still reaches the router, and what it asks for itself comes back if it is exempt.
#[test]
fn a_router_is_reached_by_what_is_listed_and_by_nothing_else() {
    if !privileged() {
        return;
    }
    let path = Path::new();
    let exempt = |name: &str, protocol, port, at, peer: &str| Exempt {
        name: name.to_owned(),
        protocol,
        port: Some(port),
        at,
        peer: Some(peer.parse().unwrap()),
        interface: None,
        bucket: Bucket::new(100, 100),
    };
    for [sender, router, ..] in FAMILIES {
        let prefix = if sender.contains(':') { "fd20::/64" } else { "192.168.20.0/24" };
        let exempt = vec![exempt("ssh", 6, 22, At::Node, prefix), exempt("dns", 17, 53, At::Peer, prefix)];
        path.router.run(|| RouterRules { exempt, ..RouterRules::new(1, 2, PORT) }.install().unwrap());
        let signalling = path.router.udp(address(router, 270));
        path.sender.udp(address(sender, 270)).send_to(b"Query", address(router, 270)).unwrap();
        assert_eq!(receive(&signalling, SOON).unwrap(), b"Query");
        for (port, reached) in [(22, true), (23, false), (PORT, false)] {
            let service = path.router.run(|| TcpListener::bind(address(router, port)).unwrap());
            let attempt = path.sender.run(|| std::net::TcpStream::connect_timeout(&address(router, port), QUIET * 3));
            assert_eq!(attempt.is_ok(), reached, "{router} port {port}");
            drop(service);
        }
        let (asker, server) = (path.router.udp(address(router, 4000)), path.sender.udp(address(sender, 53)));
        asker.send_to(b"name?", address(sender, 53)).unwrap();
        assert_eq!(receive(&server, SOON).unwrap(), b"name?", "what a router sends of itself is open");
        server.send_to(b"address", address(router, 4000)).unwrap();
        assert_eq!(receive(&asker, SOON).unwrap(), b"address");
        path.sender.udp(address(sender, 54)).send_to(b"address", address(router, 4000)).unwrap();
        assert_eq!(receive(&asker, QUIET), None);
        let own = path.router.udp(address(router, 5000));
        path.router.udp(address(router, 5001)).send_to(b"own", address(router, 5000)).unwrap();
        assert_eq!(receive(&own, SOON).unwrap(), b"own", "loopback");
    }
}

/// Frames that have come in by the link of this namespace.
fn received() -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("down:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sender, router, and receiver on a smaller link.
struct Path {
    sender: Namespace,
    router: Namespace,
    receiver: Namespace,
}

impl Path {
    fn new() -> Self {
        let path = Self { sender: Namespace::new(), router: Namespace::new(), receiver: Namespace::new() };
        let [[s4, r4, e4, n4], [s6, r6, e6, n6]] = FAMILIES;
        for namespace in [&path.sender, &path.router, &path.receiver] {
            // Routes are asymmetric on purpose (P-003).
            ["all", "default"].iter().for_each(|of| namespace.sysctl(&format!("net/ipv4/conf/{of}/rp_filter"), "0"));
        }
        link(4000, (&path.sender, "up", &[(s4, 24), (s6, 64)]), (&path.router, "down", &[(r4, 24), (r6, 64)]));
        let ends: [&[(&str, u8)]; 2] = [&[("192.168.21.254", 24), ("fd21::fe", 64)], &[(e4, 24), (e6, 64), (n4, 24), (n6, 64)]];
        link(1500, (&path.router, "up", ends[0]), (&path.receiver, "down", ends[1]));
        add_route(&path.sender, "0.0.0.0", 0, r4);
        add_route(&path.sender, "::", 0, r6);
        path.router.sysctl("net/ipv4/ip_forward", "1");
        path.router.sysctl("net/ipv6/conf/all/forwarding", "1");
        path
    }

    /// Waits until the receiver's link carries nothing any more.
    fn quiet(&self) {
        let mut last = u64::MAX;
        eventually("the link is quiet", || {
            std::thread::sleep(QUIET / 2);
            let now = self.receiver.run(received);
            std::mem::replace(&mut last, now) == now
        });
    }
}
