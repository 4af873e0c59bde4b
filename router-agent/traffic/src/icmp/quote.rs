//! Reading an ICMP error and the part of a packet that it quotes (RFC 792, RFC 1191 §4, RFC 4443 §3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet};

use crate::flow::Flow;
use crate::packet::{IpPacket, PROTOCOL_AH, Ports, Upper, behind_ah};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Length of the header in front of the quote, the same in both families.
pub(super) const HEADER: usize = 8;
/// Length of an AH without its ICV.
const AH_FIXED: usize = 12;
const IPV4_BASE: usize = 20;
const IPV6_BASE: usize = 40;
/// What must be quoted behind AH and the options there: the kernel finds the socket by it (RFC 792).
pub(super) const LEAST_BEHIND: usize = 8;
/// Extension headers that are looked through, as in packets themselves.
const MAX_EXTENSIONS: usize = 12;

/// What an error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The packet is larger than the next link carries and may not be fragmented: the link's MTU in octets, 0 if a router does
    /// not tell.
    TooBig(u32),
    /// Unreachable, time exceeded, parameter problem.
    Other,
}

/// Why a packet is no error about a packet with AH that could be acted upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is no ICMP error, or quotes a packet without AH.
    #[error("it is no ICMP error about a packet with AH")]
    NotAboutAh,
    /// It is cut short, or its checksum is wrong.
    #[error("the ICMP error is cut short, or its checksum is wrong")]
    Malformed,
}

/// An ICMP error that quotes a packet with AH, or the first fragment of one.
#[derive(Debug, Clone)]
pub struct QuotingError<'a> {
    /// What it says.
    pub kind: Kind,
    /// To whom it goes.
    pub destination: IpAddr,
    /// The packet that it is about, as far as it is there.
    pub quote: Quote<'a>,
    /// How long it is, in octets.
    pub(super) len: usize,
    /// The IP header with options or extension headers.
    pub(super) before: &'a [u8],
    /// The ICMP header.
    pub(super) header: &'a [u8; HEADER],
}

/// The beginning of a packet with AH.
#[derive(Debug, Clone)]
pub struct Quote<'a> {
    /// Its source address.
    pub source: IpAddr,
    /// Its destination address.
    pub destination: IpAddr,
    /// Its whole length in octets, as its header tells.
    pub total_len: u32,
    /// SPI of its AH.
    pub spi: u32,
    /// Sequence number of its AH.
    pub number: u32,
    /// What AH protects.
    protocol: u8,
    /// All that is quoted.
    pub(super) bytes: &'a [u8],
    /// Where AH begins.
    pub(super) ah_at: usize,
    /// How long AH says that it is, in octets.
    pub(super) ah_len: usize,
    /// Where the octet stands that names AH.
    pub(super) link_at: usize,
}

impl<'a> QuotingError<'a> {
    /// Reads an error.
    ///
    /// # Errors
    ///
    /// See [`Unusable`].
    pub fn read(packet: &IpPacket<'a>) -> Result<Self, Unusable> {
        if packet.ah().is_some() || packet.fragment().is_some() {
            return Err(Unusable::NotAboutAh);
        }
        let message = packet.after();
        let (source, destination) = (packet.source(), packet.destination());
        let (kind, quoted_len) = match (packet.link().protocol, source, destination) {
            (ICMP, IpAddr::V4(_), IpAddr::V4(_)) => ipv4_kind(message)?,
            (ICMPV6, IpAddr::V6(source), IpAddr::V6(destination)) => ipv6_kind(message, source, destination)?,
            _ => return Err(Unusable::NotAboutAh),
        };
        let (header, rest) = message.split_first_chunk::<HEADER>().ok_or(Unusable::Malformed)?;
        // RFC 4884 §4: what is behind this length is no part of the quote.
        let quoted = quoted_len.and_then(|len| rest.get(..len)).unwrap_or(rest);
        let quote = if source.is_ipv4() { Quote::ipv4(quoted) } else { Quote::ipv6(quoted) }?;
        Ok(Self { kind, destination, quote, len: packet.total_len(), before: packet.before(), header })
    }
}

fn ipv4_kind(message: &[u8]) -> Result<(Kind, Option<usize>), Unusable> {
    const FRAGMENTATION_NEEDED: u8 = 4;
    let [kind, code, _, _, _, words, high, low] = *message.first_chunk::<HEADER>().ok_or(Unusable::NotAboutAh)?;
    let kind = match (kind, code) {
        (3, FRAGMENTATION_NEEDED) => Kind::TooBig(u16::from_be_bytes([high, low]).into()),
        (3 | 11 | 12, _) => Kind::Other,
        _ => return Err(Unusable::NotAboutAh),
    };
    if !Icmpv4Packet::new_unchecked(message).verify_checksum() {
        return Err(Unusable::Malformed);
    }
    Ok((kind, (words > 0).then_some(4 * usize::from(words))))
}

fn ipv6_kind(message: &[u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<(Kind, Option<usize>), Unusable> {
    let [kind, _, _, _, a, b, c, d] = *message.first_chunk::<HEADER>().ok_or(Unusable::NotAboutAh)?;
    let (kind, units) = match kind {
        2 => (Kind::TooBig(u32::from_be_bytes([a, b, c, d])), 0),
        1 | 3 => (Kind::Other, a),
        4 => (Kind::Other, 0),
        _ => return Err(Unusable::NotAboutAh),
    };
    if !Icmpv6Packet::new_unchecked(message).verify_checksum(&source, &destination) {
        return Err(Unusable::Malformed);
    }
    Ok((kind, (units > 0).then_some(8 * usize::from(units))))
}

impl<'a> Quote<'a> {
    fn ipv4(bytes: &'a [u8]) -> Result<Self, Unusable> {
        const PROTOCOL: usize = 9;
        let base = bytes.first_chunk::<IPV4_BASE>().ok_or(Unusable::NotAboutAh)?;
        let header_len = 4 * usize::from(base[0] & 0xf);
        // A later fragment carries no AH.
        let is_first = u16::from_be_bytes([base[6], base[7]]) & 0x1fff == 0;
        if base[0] >> 4 != 4 || header_len < IPV4_BASE || base[PROTOCOL] != PROTOCOL_AH || !is_first {
            return Err(Unusable::NotAboutAh);
        }
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *base;
        let ends = (Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(d0, d1, d2, d3).into());
        Self::of_ah(bytes, ends, u16::from_be_bytes([base[2], base[3]]).into(), header_len, PROTOCOL)
    }

    fn ipv6(bytes: &'a [u8]) -> Result<Self, Unusable> {
        const NEXT_HEADER: usize = 6;
        const FRAGMENT: u8 = 44;
        let (base, _) = bytes.split_first_chunk::<IPV6_BASE>().ok_or(Unusable::NotAboutAh)?;
        if base[0] >> 4 != 6 {
            return Err(Unusable::NotAboutAh);
        }
        let (mut next, mut at, mut link_at) = (base[NEXT_HEADER], IPV6_BASE, NEXT_HEADER);
        for _ in 0..=MAX_EXTENSIONS {
            if next == PROTOCOL_AH {
                let mut addresses = base.iter().skip(8).copied();
                let mut address = || Ipv6Addr::from(std::array::from_fn(|_| addresses.next().unwrap_or(0)));
                let ends = (address().into(), address().into());
                let total_len = u32::from(u16::from_be_bytes([base[4], base[5]])) + 40;
                return Self::of_ah(bytes, ends, total_len, at, link_at);
            }
            let [following, units, high, low, ..] =
                *bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or(Unusable::NotAboutAh)?;
            let len = match next {
                // Hop-by-hop options, routing header, destination options.
                0 | 43 | 60 => 8 * (usize::from(units) + 1),
                FRAGMENT if u16::from_be_bytes([high, low]) & 0xfff8 == 0 => 8,
                _ => return Err(Unusable::NotAboutAh),
            };
            (link_at, next, at) = (at, following, at + len);
        }
        Err(Unusable::NotAboutAh)
    }

    fn of_ah(bytes: &'a [u8], ends: (IpAddr, IpAddr), total_len: u32, ah_at: usize, link_at: usize) -> Result<Self, Unusable> {
        let fixed = bytes.get(ah_at..).and_then(|rest| rest.first_chunk::<AH_FIXED>()).ok_or(Unusable::Malformed)?;
        let [protocol, payload_len, _, _, s0, s1, s2, s3, n0, n1, n2, n3] = *fixed;
        let (spi, number) = (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([n0, n1, n2, n3]));
        let ah_len = 4 * (usize::from(payload_len) + 2);
        if ah_len < AH_FIXED {
            return Err(Unusable::Malformed);
        }
        let (source, destination) = ends;
        Ok(Self { source, destination, total_len, spi, number, protocol, bytes, ah_at, ah_len, link_at })
    }

    /// What stands behind AH as far as it is quoted.
    pub(super) fn behind(&self) -> &'a [u8] {
        self.bytes.get(self.ah_at.saturating_add(self.ah_len)..).unwrap_or_default()
    }

    /// What its reader needs of it: as far as the first octets of its transport.
    pub(super) fn needed(&self) -> &'a [u8] {
        const DESTINATION_OPTIONS: u8 = 60;
        let (mut protocol, mut rest) = (self.protocol, self.behind());
        while self.source.is_ipv6() && protocol == DESTINATION_OPTIONS {
            let Some([next, units]) = rest.first_chunk::<2>() else { break };
            (protocol, rest) = (*next, rest.get(8 * (usize::from(*units) + 1)..).unwrap_or_default());
        }
        let behind_it = rest.len().saturating_sub(LEAST_BEHIND);
        self.bytes.get(..self.bytes.len().saturating_sub(behind_it)).unwrap_or(self.bytes)
    }

    /// The flow that it is of, if enough is quoted to tell.
    pub fn flow(&self) -> Option<Flow> {
        let Upper { protocol, ports } = self.upper();
        let (source_port, destination_port) = match ports {
            Ports::Known { source, destination } => (source, destination),
            Ports::None => (0, 0),
            Ports::Unreadable => return None,
        };
        Some(Flow { source: self.source, destination: self.destination, protocol, source_port, destination_port })
    }

    fn upper(&self) -> Upper {
        if self.source.is_ipv4() { Upper::read(self.protocol, self.behind()) } else { behind_ah(self.protocol, self.behind()) }
    }

    /// Whether it can be a packet of `flow`: nothing of what is quoted says otherwise.
    pub fn may_be_of(&self, flow: &Flow) -> bool {
        let upper = self.upper();
        let same_ports = match upper.ports {
            Ports::Known { source, destination } => (source, destination) == (flow.source_port, flow.destination_port),
            Ports::None => (flow.source_port, flow.destination_port) == (0, 0),
            // Routers may quote 8 octets behind the IP header and no more (RFC 792).
            Ports::Unreadable => true,
        };
        // Cut off within extension headers, the protocol is not known either.
        let same_protocol = upper.protocol == flow.protocol || upper.ports == Ports::Unreadable && self.source.is_ipv6();
        (self.source, self.destination) == (flow.source, flow.destination) && same_protocol && same_ports
    }
}
