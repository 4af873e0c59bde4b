//! Associations as daemons make them, and floods of what everybody can send to their port.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt, socket, sockopt};
use traffic::rules::{self, ASSOCIATION_MARK, HostRules, LISTENER_MARK, Role, RouterRules};

use super::namespace::{Namespace, address};
use super::raw::{self, Raw};

/// The port of associations.
pub const PORT: u16 = 30_270;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
/// Packets a second of a flood.
const FLOOD: u32 = 100_000;
/// How long a test waits for what must come about however busy the machine is: TCP tries five times meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The role's rules with the default buckets.
pub fn install(role: Role) {
    match role {
        Role::Host => HostRules::new(3, 4, PORT).install().unwrap(),
        Role::Router => RouterRules::new(1, 2, PORT).install().unwrap(),
    }
}

/// Packets of both families that a rule has counted.
pub fn counter(role: Role, chain: &str, rule: &str) -> u64 {
    let counters = rules::counters(role).unwrap();
    let of_rule: Vec<_> = counters.iter().filter(|counter| counter.chain == chain && counter.rule == rule).collect();
    assert_eq!(of_rule.len(), 2, "{chain} {rule}: {counters:?}");
    of_rule.iter().map(|counter| counter.packets).sum()
}

/// Does `work` while the packets are sent again and again, [`FLOOD`] a second if the machine is fast enough: many times what any bucket lets
/// through, and few enough to leave it time for something else.
pub fn flooding<T>(from: &Namespace, family_of: &str, packets: &[Vec<u8>], work: impl FnOnce() -> T) -> T {
    let raw = from.run(|| Raw::open(family_of));
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let start = Instant::now();
            let mut sent = 0u32;
            for packet in packets.iter().cycle() {
                raw.send(packet);
                sent += 1;
                // Without gaps, in which a bucket would fill up again.
                while start.elapsed() < Duration::from_secs(1) * sent / FLOOD {
                    std::hint::spin_loop();
                }
                if end.load(Ordering::Relaxed) {
                    break;
                }
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
pub fn segment(ends: raw::Ends<'_>, (from, to): (u16, u16), flags: u8) -> Vec<u8> {
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    raw::packet(ends, 6, segment, 16)
}

/// Both ends of an association.
pub struct Association {
    pub client: TcpStream,
    pub accepted: TcpStream,
}

impl Association {
    /// One whose peer the node has authenticated.
    pub fn authenticated(client: &Namespace, listener: &TcpListener, to: &str) -> Self {
        Self::authenticated_from(client, None, listener, to)
    }

    /// The same from an address of the client's choice.
    pub fn authenticated_from(client: &Namespace, source: Option<&str>, listener: &TcpListener, to: &str) -> Self {
        let association = Self::from(client, source, listener, to);
        setsockopt(&association.accepted, sockopt::Mark, &ASSOCIATION_MARK).unwrap();
        association
    }

    /// One that has only just been opened.
    pub fn strangers(client: &Namespace, listener: &TcpListener, to: &str) -> Self {
        Self::from(client, None, listener, to)
    }

    /// The same from such an address.
    pub fn from(client: &Namespace, source: Option<&str>, listener: &TcpListener, to: &str) -> Self {
        let (start, to) = (Instant::now(), address(to, PORT));
        let client = client.run(|| {
            let socket = tcp(to, None);
            if let Some(source) = source {
                bind(socket.as_raw_fd(), &SockaddrStorage::from(address(source, 0))).unwrap();
            }
            let client = TcpStream::from(socket);
            // The kernel's limit for connecting is that for sending; of itself it would try for two minutes.
            client.set_write_timeout(Some(PATIENCE)).unwrap();
            let connected = connect(client.as_raw_fd(), &SockaddrStorage::from(to));
            connected.unwrap_or_else(|error| panic!("{source:?} cannot connect to {to} within {PATIENCE:?}: {error}"));
            client
        });
        listener.set_nonblocking(true).unwrap();
        let accepted = loop {
            match listener.accept() {
                Ok((accepted, _)) => break accepted,
                Err(_) => assert!(start.elapsed() < PATIENCE, "{source:?} is connected to {to}, and nothing is to be accepted there"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        accepted.set_nonblocking(false).unwrap();
        for end in [&client, &accepted] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { client, accepted }
    }

    /// A message and its answer, so many times.
    pub fn round_trips(&mut self, count: u32) -> Duration {
        let start = Instant::now();
        for done in 0..count {
            let (mut from, mut to) = (&mut self.client, &mut self.accepted);
            for _ in 0..2 {
                from.write_all(b"message").unwrap();
                to.read_exact(&mut [0; 7]).unwrap_or_else(|error| panic!("after {done} round trips in {:?}: {error}", start.elapsed()));
                std::mem::swap(&mut from, &mut to);
            }
            // The kernel's own pace would use up the association's bucket.
            std::thread::sleep(Duration::from_millis(1));
        }
        start.elapsed()
    }
}

/// Listens as a daemon does: on all addresses of the family.
pub fn listener(node: &Namespace, mut at: SocketAddr) -> TcpListener {
    at.set_ip(if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() });
    node.run(|| {
        let socket = tcp(at, Some(LISTENER_MARK));
        setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
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
