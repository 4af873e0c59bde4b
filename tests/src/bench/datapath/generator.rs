//! The packets, and who sends them.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use smoltcp::wire::Ipv4Packet;
use socket2::{Domain, Protocol, Socket, Type};
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::flow::Flow;
use traffic::packet::IpPacket;

use super::way::{DESTINATION, SOURCE};
use crate::bench::processor;

/// The permission that all packets go under.
pub(super) const SPI: u32 = 4096;
/// Packets sent with one call at the most.
const TOGETHER: usize = 32;

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
        let (clear, key) = (datagram(self.len), key(algorithm)?);
        let packet = IpPacket::parse(&clear).map_err(io::Error::other)?;
        let mut sealed = Vec::with_capacity(self.count);
        for low in (1..).take(self.count) {
            let mut out = Vec::new();
            ah::insert(&packet, SPI, Number { low, high: None }, &key, &mut out).map_err(io::Error::other)?;
            sealed.push(out);
        }
        let sealed: &'static [Vec<u8>] = sealed.leak();
        all.insert(algorithm, sealed);
        Ok(sealed)
    }
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

/// Sends every packet once from the calling thread, which keeps to the first processor; how long that took.
///
/// # Errors
///
/// The socket refuses.
pub(super) fn send(packets: &[Vec<u8>], pace: Pace) -> io::Result<Duration> {
    processor::pin(0)?;
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)))?;
    socket.set_send_buffer_size(8 << 20)?;
    let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::from(DESTINATION), 0));
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
            std::hint::spin_loop();
            continue;
        }
        let (these, later) = rest.split_at(now);
        let parts: Vec<[IoSlice<'_>; 1]> = these.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let mut headers = MultiHeaders::preallocate(now, None);
        let addresses = vec![Some(to); now];
        match sendmmsg(socket.as_raw_fd(), &mut headers, &parts, &addresses, [], MsgFlags::empty()) {
            // What the first link had no room for is lost on the way, like what the queue has none for.
            Ok(_) | Err(nix::errno::Errno::ENOBUFS) => rest = later,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(began.elapsed())
}
