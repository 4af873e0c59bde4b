//! Whole IP packets of any source, made and sent for tests.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};

const TCP: u8 = 6;
const FRAGMENT: u8 = 44;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Source and destination.
pub type Ends<'a> = (&'a str, &'a str);

/// A socket that sends packets as they are.
pub struct Raw(OwnedFd);

impl Raw {
    /// A socket of the family of `address`, in the namespace of the calling thread.
    pub fn open(address: &str) -> Self {
        let family = if address.contains(':') { AddressFamily::Inet6 } else { AddressFamily::Inet };
        Self(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw).unwrap())
    }

    /// Sends a packet to the destination in its header.
    pub fn send(&self, packet: &[u8]) {
        let destination: IpAddr = if packet[0] >> 4 == 4 {
            <[u8; 4]>::try_from(&packet[16..20]).unwrap().into()
        } else {
            <[u8; 16]>::try_from(&packet[24..40]).unwrap().into()
        };
        let to = SockaddrStorage::from(SocketAddr::new(destination, 0));
        sendto(self.0.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap();
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An echo request with so many octets of data; on IPv4 it must not be fragmented on its way.
pub fn echo(ends: Ends<'_>, len: usize) -> Vec<u8> {
    let (protocol, kind) = if ends.0.contains(':') { (58, 128) } else { (1, 8) };
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1];
    message.resize(8 + len, 0x55);
    packet(ends, protocol, message, 2)
}

/// A TCP SYN.
pub fn syn(ends: Ends<'_>, from: u16, to: u16) -> Vec<u8> {
    const SYN: u8 = 0x02;
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend([0, 0, 1, 0, 0, 0, 0, 0, 5 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    packet(ends, TCP, segment, 16)
}

/// The packet in two fragments.
pub fn fragments(packet: &[u8]) -> Vec<Vec<u8>> {
    const FIRST: usize = 48;
    if packet[0] >> 4 == 4 {
        let (head, data) = packet.split_at(IPV4_HEADER);
        return [(&data[..FIRST], 0x2000u16), (&data[FIRST..], 6)]
            .map(|(part, place)| {
                let mut fragment = [head, part].concat();
                let len = u16::try_from(fragment.len()).unwrap();
                fragment[2..4].copy_from_slice(&len.to_be_bytes());
                fragment[4..6].copy_from_slice(&0x7777u16.to_be_bytes());
                fragment[6..8].copy_from_slice(&place.to_be_bytes());
                fragment
            })
            .to_vec();
    }
    let (head, data) = packet.split_at(IPV6_HEADER);
    [(&data[..FIRST], 1u16), (&data[FIRST..], 48)]
        .map(|(part, place)| {
            let [high, low] = place.to_be_bytes();
            let mut fragment = [head, &[head[6], 0, high, low, 0x77, 0x77, 0x77, 0x77], part].concat();
            fragment[6] = FRAGMENT;
            let len = u16::try_from(fragment.len() - IPV6_HEADER).unwrap();
            fragment[4..6].copy_from_slice(&len.to_be_bytes());
            fragment
        })
        .to_vec()
}

/// The same packet with another hop limit.
pub fn with_hop_limit(mut packet: Vec<u8>, limit: u8) -> Vec<u8> {
    let place = if packet[0] >> 4 == 4 { 8 } else { 7 };
    packet[place] = limit;
    packet
}

/// A packet around `payload`, whose checksum stands at `checksum_at`.
pub fn packet((source, destination): Ends<'_>, protocol: u8, mut payload: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let len = u16::try_from(payload.len()).unwrap();
    let addresses = [octets(source), octets(destination)].concat();
    let pseudo_header = [&*addresses, &[0, 0], &len.to_be_bytes(), &[0, protocol]].concat();
    // ICMP of IPv4 is the only one whose checksum covers no addresses.
    let covered = if protocol == 1 { payload.clone() } else { [pseudo_header, payload.clone()].concat() };
    payload[checksum_at..checksum_at + 2].copy_from_slice(&checksum(&covered).to_be_bytes());
    if source.is_ipv4() {
        // Do not fragment; the kernel fills in the header's checksum.
        let total = (len + 20).to_be_bytes();
        let head = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
        return [&head[..], &addresses, &payload].concat();
    }
    let len = len.to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], protocol, 64][..], &addresses, &payload].concat()
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
