//! The packets, and who sends them.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use smoltcp::wire::Ipv4Packet;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::flow::Flow;
use traffic::packet::IpPacket;

use super::way::{DESTINATION, SOURCE};
use crate::bench::processor;
use crate::network::namespace::Namespace;
use crate::network::{link, sys};

/// The permission that all packets go under.
pub(super) const SPI: u32 = 4096;
/// Packets sent with one call at the most.
const TOGETHER: usize = 32;
/// How long a sender rests that is early and shares its processor.
const REST: Duration = Duration::from_micros(50);

/// How packets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// One call after the other.
    AsFastAsItCan,
    /// So many a second.
    PerSecond(u32),
}

/// Packets of one flow, sealed under every algorithm that was asked for.
pub(super) struct Stock {
    count: usize,
    len: usize,
    sealed: Mutex<BTreeMap<MacAlgorithm, &'static [Vec<u8>]>>,
}

impl Stock {
    /// Of `count` packets with `len` octets each, IP header included and AH not.
    pub(super) fn new(count: usize, len: usize) -> Self {
        Self { count, len, sealed: Mutex::default() }
    }

    /// How many packets there are.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// The packets under an algorithm. They are made once and stay until the program ends.
    ///
    /// # Errors
    ///
    /// A length that no packet has.
    pub(super) fn sealed(&self, algorithm: MacAlgorithm) -> io::Result<&'static [Vec<u8>]> {
        let mut all = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sealed) = all.get(&algorithm) {
            return Ok(sealed);
        }
        let sealed: &'static [Vec<u8>] = seal(self.count, self.len, &key(algorithm)?)?.leak();
        all.insert(algorithm, sealed);
        Ok(sealed)
    }
}

/// So many packets with `len` octets before AH.
///
/// # Errors
///
/// A length that no packet has, or a key that cannot be used.
pub(super) fn seal(count: usize, len: usize, key: &IcvKey) -> io::Result<Vec<Vec<u8>>> {
    let clear = datagram(len);
    let packet = IpPacket::parse(&clear).map_err(io::Error::other)?;
    let sealed = |low| {
        let mut out = Vec::new();
        ah::insert(&packet, SPI, Number { low, high: None }, key, &mut out).map_err(io::Error::other)?;
        Ok(out)
    };
    (1..).take(count).map(sealed).collect()
}

/// The key of an algorithm here.
pub(super) fn key(algorithm: MacAlgorithm) -> io::Result<IcvKey> {
    IcvKey::new(algorithm, &vec![7; algorithm.key_len()]).map_err(io::Error::other)
}

/// The flow of all packets.
pub(super) fn flow() -> Flow {
    Flow { source: SOURCE.into(), destination: DESTINATION.into(), protocol: 17, source_port: 4000, destination_port: 9000 }
}

/// A UDP datagram of that flow; its checksum is left out, as IPv4 allows.
pub(super) fn datagram(len: usize) -> Vec<u8> {
    let mut packet = vec![0; 20];
    packet.extend([4000_u16, 9000, u16::try_from(len.saturating_sub(20)).unwrap_or(0), 0].map(u16::to_be_bytes).as_flattened());
    packet.resize(len, 0x5a);
    let mut header = Ipv4Packet::new_unchecked(&mut packet);
    header.set_version(4);
    header.set_header_len(20);
    header.set_total_len(u16::try_from(len).unwrap_or(0));
    // The kernel fills in one that is 0, which the ICV would not cover.
    header.set_ident(1);
    header.set_hop_limit(64);
    header.set_next_header(smoltcp::wire::IpProtocol::Udp);
    header.set_src_addr(Ipv4Addr::from(SOURCE));
    header.set_dst_addr(Ipv4Addr::from(DESTINATION));
    header.fill_checksum();
    packet
}

/// From where packets are sent: put on the link as frames, so that the sender's host has the least to do with them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Post {
    /// Index of the sender's interface.
    interface: u32,
    header: [u8; 14],
    /// The place of the sender's processor.
    processor: usize,
}

impl Post {
    /// On the link between sender and router.
    ///
    /// # Errors
    ///
    /// Its ends are not there.
    pub(super) fn new(sender: &Namespace, router: &Namespace, processor: usize) -> io::Result<Self> {
        let ((interface, from), (_, to)) = (link::identify(sender, "near0")?, link::identify(router, "near1")?);
        let mut header = [0; 14];
        for (place, octet) in header.iter_mut().zip(to.into_iter().chain(from).chain([0x08, 0x00])) {
            *place = octet;
        }
        Ok(Self { interface, header, processor })
    }
}

/// Sends every packet once from the calling thread, which must be in the sender's namespace and keeps to its processor from then on; how long
/// that took.
///
/// # Errors
///
/// The socket refuses.
pub(super) fn send(post: Post, packets: &[Vec<u8>], pace: Pace) -> io::Result<Duration> {
    processor::pin(post.processor)?;
    set_timerslack(1000)?;
    let socket = sys::packet_socket(post.interface, false)?;
    socket.set_send_buffer_size(8 << 20)?;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(TOGETHER, None);
    let mut parts = Vec::with_capacity(TOGETHER);
    let began = Instant::now();
    let mut rest = packets;
    while !rest.is_empty() {
        let due = match pace {
            Pace::AsFastAsItCan => packets.len(),
            Pace::PerSecond(rate) => (began.elapsed().as_secs_f64() * f64::from(rate)) as usize,
        };
        let sent = packets.len() - rest.len();
        let now = due.saturating_sub(sent).min(TOGETHER).min(rest.len());
        if now == 0 {
            // Whoever shares its processor with the worker must not keep it.
            if post.processor == 0 {
                std::hint::spin_loop()
            } else {
                std::thread::sleep(REST)
            }
            continue;
        }
        let (these, later) = rest.split_at(now);
        parts.clear();
        parts.extend(these.iter().map(|packet| [IoSlice::new(&post.header), IoSlice::new(packet)]));
        match sendmmsg(socket.as_raw_fd(), &mut headers, &parts, [None; TOGETHER], [], MsgFlags::empty()) {
            // What the first link had no room for is lost on the way, like what the queue has none for.
            Ok(_) | Err(nix::errno::Errno::ENOBUFS) => rest = later,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(began.elapsed())
}
