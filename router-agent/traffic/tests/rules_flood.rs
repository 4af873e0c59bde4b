//! What everybody can send to the port of associations takes nothing from associations whose peer is authenticated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use namespace::{A4, A6, B4, B6, Namespace, SOON, address, eventually, pair, privileged};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt, socket, sockopt};
use raw::Raw;
use traffic::rules::{self, ASSOCIATION_MARK, HostRules, LISTENER_MARK, Role, RouterRules};

const PORT: u16 = 30_270;
/// Messages and answers that have to go through.
const ROUND_TRIPS: u32 = 200;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

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
                let mut association = Association::open(&attacker, &listener);
                let before = association.round_trips(ROUND_TRIPS, Duration::MAX);
                let sources: Vec<Vec<u8>> = (1024..5000).map(|port| segment((from, to), (port, PORT), flags)).collect();
                let during = flooding(&attacker, from, &sources, || {
                    let chain = if flags == SYN { "in-opening" } else { "in-handshake" };
                    eventually("the flood fills its bucket", || node.run(|| counter(role, chain, "above the bucket")) > 1000);
                    association.round_trips(ROUND_TRIPS, SOON)
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
            let mut known = Association::open(&attacker, &listener);
            let mut other = Association::open(&attacker, &listener);
            known.round_trips(1, SOON);
            let forged = segment((from, to), (known.client.local_addr().unwrap().port(), PORT), ACK);
            let during = flooding(&attacker, from, &[forged], || {
                eventually("the flood fills its bucket", || node.run(|| counter(role, "in-association", "above the bucket")) > 1000);
                other.round_trips(ROUND_TRIPS, SOON)
            });
            eprintln!("{role:?} {from}: {ROUND_TRIPS} round trips of the other association in {during:?}");
        }
    }
}

fn install(role: Role) {
    match role {
        Role::Host => HostRules::new(3, 4, PORT).install().unwrap(),
        Role::Router => RouterRules::new(1, 2, PORT).install().unwrap(),
    }
}

/// Packets of both families that a rule has counted.
fn counter(role: Role, chain: &str, rule: &str) -> u64 {
    let counters = rules::counters(role).unwrap();
    let of_rule: Vec<_> = counters.iter().filter(|counter| counter.chain == chain && counter.rule == rule).collect();
    assert_eq!(of_rule.len(), 2, "{chain} {rule}: {counters:?}");
    of_rule.iter().map(|counter| counter.packets).sum()
}

/// Does `work` while the packets are sent again and again as fast as one thread can.
fn flooding<T>(from: &Namespace, family_of: &str, packets: &[Vec<u8>], work: impl FnOnce() -> T) -> T {
    let raw = from.run(|| Raw::open(family_of));
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let start = Instant::now();
            let mut sent = 0u32;
            while !end.load(Ordering::Relaxed) {
                packets.iter().for_each(|packet| raw.send(packet));
                sent += u32::try_from(packets.len()).unwrap();
            }
            eprintln!("flood: {:.0} packets a second", f64::from(sent) / start.elapsed().as_secs_f64());
        });
        // Also if `work` panics.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        end.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A TCP segment without data whose numbers are made up.
fn segment(ends: raw::Ends<'_>, (from, to): (u16, u16), flags: u8) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    raw::packet(ends, 6, segment, 16)
}

/// Both ends of an association that the node has authenticated.
struct Association {
    client: TcpStream,
    accepted: TcpStream,
}

impl Association {
    fn open(client: &Namespace, listener: &TcpListener) -> Self {
        let to = listener.local_addr().unwrap();
        let client = client.run(|| {
            let socket = tcp(to, None);
            connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).unwrap();
            TcpStream::from(socket)
        });
        let (accepted, _) = listener.accept().unwrap();
        setsockopt(&accepted, sockopt::Mark, &ASSOCIATION_MARK).unwrap();
        for end in [&client, &accepted] {
            end.set_nodelay(true).unwrap();
        }
        Self { client, accepted }
    }

    /// A message and its answer, so many times; fails if that takes longer than `limit`.
    fn round_trips(&mut self, count: u32, limit: Duration) -> Duration {
        let start = Instant::now();
        for done in 0..count {
            let (mut from, mut to) = (&mut self.client, &mut self.accepted);
            for _ in 0..2 {
                from.write_all(b"message").unwrap();
                to.set_read_timeout(Some(SOON)).unwrap();
                to.read_exact(&mut [0; 7]).unwrap_or_else(|error| panic!("after {done} round trips in {:?}: {error}", start.elapsed()));
                std::mem::swap(&mut from, &mut to);
            }
            assert!(start.elapsed() < limit, "{done} round trips of {count} in {:?}", start.elapsed());
            // The kernel's own pace would use up the association's bucket.
            std::thread::sleep(Duration::from_millis(1));
        }
        start.elapsed()
    }
}

fn listener(node: &Namespace, at: SocketAddr) -> TcpListener {
    node.run(|| {
        let socket = tcp(at, Some(LISTENER_MARK));
        bind(socket.as_raw_fd(), &SockaddrStorage::from(at)).unwrap();
        listen(&socket, Backlog::new(16).unwrap()).unwrap();
        TcpListener::from(socket)
    })
}

fn tcp(of: SocketAddr, mark: Option<u32>) -> OwnedFd {
    let family = if of.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    if let Some(mark) = mark {
        setsockopt(&socket, sockopt::Mark, &mark).unwrap();
        setsockopt(&socket, sockopt::IpTransparent, &true).unwrap();
    }
    socket
}
