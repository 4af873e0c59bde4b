//! What everybody can send to the port of associations takes nothing from associations whose peer is authenticated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod association;
mod namespace;
mod raw;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use association::{ACK, Association, PORT, RST, SYN, counter, flooding, install, listener, segment};
use namespace::{A4, A6, B4, B6, add_route, address, eventually, pair, privileged};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use traffic::rules::Role;

/// Messages and answers that have to go through.
const ROUND_TRIPS: u32 = 200;
/// Segments a second that answer what no connection knows, and at once.
const RESETS: (f64, f64) = (5.0, 5.0);
/// Segments a second that answer openings, and at once, over IPv4 and IPv6: to an address (IPv6: to a /64).
const ANSWERS_TO_ONE: ((f64, f64), (f64, f64)) = ((5.0, 10.0), (50.0, 300.0));
/// To a network of addresses: /24, /48.
const ANSWERS_TO_A_NETWORK: ((f64, f64), (f64, f64)) = ((100.0, 300.0), (100.0, 300.0));

/// A flood of segments that open connections, from any source, and of such as look like a handshake.
#[test]
fn a_flood_of_the_listener_takes_nothing_from_an_association() {
    if !privileged() {
        return;
    }
    for role in [Role::Host, Role::Router] {
        for (from, to) in [(A4, B4), (A6, B6)] {
            for (kind, flags) in [("openings", SYN), ("handshakes", ACK)] {
                let (attacker, node) = pair(1500);
                node.run(|| install(role));
                let listener = listener(&node, address(to, PORT));
                let mut association = Association::authenticated(&attacker, &listener, to);
                let before = association.round_trips(ROUND_TRIPS);
                let sources: Vec<Vec<u8>> = (1024..5000).map(|port| segment((from, to), (port, PORT), flags)).collect();
                let during = flooding(&attacker, from, &sources, || {
                    let chain = if flags == SYN { "in-opening-peer" } else { "in-listener-known" };
                    eventually("the flood fills its bucket", || node.run(|| counter(role, chain, "above the bucket")) > 1000);
                    association.round_trips(ROUND_TRIPS)
                });
                eprintln!("{role:?} {from} {kind}: {ROUND_TRIPS} round trips in {before:?} before, {during:?} during the flood");
                assert_eq!(node.run(|| counter(role, "in-association", "above the bucket")), 0);
            }
        }
    }
}

/// Whoever knows the ports of an association can pose as its peer, and spends the bucket of that association alone.
#[test]
fn a_flood_in_the_name_of_one_association_takes_nothing_from_another() {
    if !privileged() {
        return;
    }
    for role in [Role::Host, Role::Router] {
        for (from, to) in [(A4, B4), (A6, B6)] {
            let (attacker, node) = pair(1500);
            node.run(|| install(role));
            let listener = listener(&node, address(to, PORT));
            let mut known = Association::authenticated(&attacker, &listener, to);
            let mut other = Association::authenticated(&attacker, &listener, to);
            known.round_trips(1);
            let forged = segment((from, to), (known.client.local_addr().unwrap().port(), PORT), ACK);
            let during = flooding(&attacker, from, &[forged], || {
                eventually("the flood fills its bucket", || node.run(|| counter(role, "in-association", "above the bucket")) > 1000);
                other.round_trips(ROUND_TRIPS)
            });
            eprintln!("{role:?} {from}: {ROUND_TRIPS} round trips of the other association in {during:?}");
        }
    }
}

/// A segment of no connection is answered by a RST, whose sequence number is the one that the segment acknowledges, to the source
/// that it names: neither many victims nor one gets more than a few, and whoever opens an association meanwhile does not notice.
#[test]
fn segments_of_no_connection_draw_few_resets_and_take_nothing_from_handshakes() {
    if !privileged() {
        return;
    }
    for role in [Role::Host, Role::Router] {
        for (from, to) in [(A4, B4), (A6, B6)] {
            let (attacker, node) = pair(1500);
            // Where victims are, who see what is reflected.
            add_route(&node, "10.0.0.0", 8, A4);
            add_route(&node, "fd99::", 16, A6);
            node.run(|| install(role));
            let listener = listener(&node, address(to, PORT));
            let victims = (0..4000u16).map(|victim| match from {
                A4 => format!("10.0.{}.{}", victim / 256, victim % 256),
                _ => format!("fd99:0:0:{victim:x}::1"),
            });
            for (victims, sources) in [("one victim", vec![from.to_owned()]), ("many victims", victims.collect())] {
                let segments: Vec<_> = sources.iter().map(|source| segment((source, to), (4000, PORT), ACK)).collect();
                let capture = attacker.run(|| Capture::open(from));
                let start = Instant::now();
                let during = flooding(&attacker, from, &segments, || {
                    std::thread::sleep(Duration::from_secs(1));
                    let start = Instant::now();
                    for _ in 0..5 {
                        Association::strangers(&attacker, &listener, to).round_trips(10);
                    }
                    start.elapsed()
                });
                let resets = capture.end();
                let most = (start.elapsed().as_secs_f64() + 1.0) * RESETS.0 + RESETS.1;
                eprintln!("{role:?} {from} {victims}: {resets} RST in {:?}; 5 handshakes in {during:?}", start.elapsed());
                assert!(resets > 0, "the capture sees RSTs");
                assert!(f64::from(resets) <= most, "{resets} RST reflected, {most} at most");
            }
        }
    }
}

/// who opens in a victim's name has it answered, again and again if nothing comes back. Neither one victim nor a network of them
/// gets more than a few answers a second, and a peer opens meanwhile.
#[test]
fn openings_in_others_names_draw_few_answers_upon_an_address_and_upon_a_network() {
    if !privileged() {
        return;
    }
    for role in [Role::Host, Role::Router] {
        for (from, to) in [(A4, B4), (A6, B6)] {
            let (attacker, node) = pair(1500);
            add_route(&node, "10.0.0.0", 8, A4);
            add_route(&node, "fd99::", 16, A6);
            node.run(|| install(role));
            let listener = listener(&node, address(to, PORT));
            let victims = (1..=250u16).map(|victim| match from {
                A4 => format!("10.0.0.{victim}"),
                // As many networks of hosts within that of one site.
                _ => format!("fd99:0:0:{victim:x}::1"),
            });
            let one = victims.clone().take(1).collect();
            for (victims, sources, most) in
                [("one victim", one, ANSWERS_TO_ONE), ("a network", victims.collect::<Vec<_>>(), ANSWERS_TO_A_NETWORK)]
            {
                let ports = (2000..2100).collect::<Vec<u16>>();
                let segments: Vec<_> =
                    ports.iter().flat_map(|port| sources.iter().map(|source| segment((source, to), (*port, PORT), SYN))).collect();
                let capture = attacker.run(|| Capture::of(from, SYN | ACK, &sources));
                let start = Instant::now();
                flooding(&attacker, from, &segments, || {
                    std::thread::sleep(Duration::from_secs(3));
                    Association::strangers(&attacker, &listener, to).round_trips(10);
                });
                let (answers, lasted) = (capture.end(), start.elapsed());
                let (rate, burst) = if from == A4 { most.0 } else { most.1 };
                let most = (lasted.as_secs_f64() + 1.0) * rate + burst;
                eprintln!("{role:?} {from} {victims}: {answers} SYN-ACK in {lasted:?}, {most:.0} at most");
                assert!(answers > 0, "the capture sees them");
                assert!(f64::from(answers) <= most, "{answers} SYN-ACK reflected, {most} at most");
            }
        }
    }
}

/// With SYN cookies the kernel keeps nothing about a connection until the last ACK of its opening, which is a segment of no
/// connection so far.
#[test]
fn an_association_opens_by_syn_cookie() {
    if !privileged() {
        return;
    }
    const ALWAYS: &str = "2";
    for role in [Role::Host, Role::Router] {
        let (client, node) = pair(1500);
        node.sysctl("net/ipv4/tcp_syncookies", ALWAYS);
        node.run(|| install(role));
        for to in [B4, B6] {
            let listener = listener(&node, address(to, PORT));
            for _ in 0..3 {
                Association::authenticated(&client, &listener, to).round_trips(1);
            }
        }
        // The first time from a stranger.
        let last = ["in-listener", "in-listener-known"].map(|chain| node.run(|| counter(role, chain, "within the bucket")));
        assert!(last.iter().sum::<u64>() >= 6, "{last:?}");
    }
}

/// Counts segments with some flags that come in by links.
struct Capture {
    end: Arc<AtomicBool>,
    counting: JoinHandle<u32>,
}

impl Capture {
    /// All RSTs.
    fn open(family_of: &str) -> Self {
        Self::of(family_of, RST, &[])
    }

    /// Those with all of the flags that are for one of these addresses, or for any if none is named.
    fn of(family_of: &str, flags: u8, destinations: &[String]) -> Self {
        let is_ipv6 = family_of.contains(':');
        let (protocol, header) = if is_ipv6 { (SockProtocol::EthIpv6, 40) } else { (SockProtocol::EthIp, 20) };
        let (flags_at, destination_at) = (header + 13, if is_ipv6 { 24..40 } else { 16..20 });
        let destinations: Vec<Vec<u8>> = destinations.iter().map(|address| namespace::octets(address.parse().unwrap())).collect();
        let wire = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let counting = std::thread::spawn(move || {
            let mut counted = 0;
            let mut packet = [0; 128];
            loop {
                match recv(wire.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                    Ok(len) if len > flags_at => {
                        let for_them = destinations.is_empty() || destinations.iter().any(|to| *to == packet[destination_at.clone()]);
                        counted += u32::from(packet[flags_at] & flags == flags && for_them);
                    }
                    Ok(_) => {}
                    Err(_) if ended.load(Ordering::Relaxed) => return counted,
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { end, counting }
    }

    fn end(self) -> u32 {
        self.end.store(true, Ordering::Relaxed);
        self.counting.join().unwrap()
    }
}
