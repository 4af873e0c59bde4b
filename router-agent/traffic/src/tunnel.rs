//! An IP packet in another one: protocol 4 for IPv4, 41 for IPv6 (RFC 2003, RFC 2473, RFC 4213), without the kernel's tunnels.
//!
//! For the way of a flow over a relay host: the inner packet, with its AH, travels unchanged, so that its permission holds
//! behind the relay as it would have before. No socket, no device: octets in, octets out. A relay unpacks with it ([`crate::relay`]).

use std::net::IpAddr;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use crate::packet::{IpPacket, Malformed};

/// Protocol number of an IPv4 packet in another packet.
pub const IPV4_INSIDE: u8 = 4;
/// Protocol number of an IPv6 packet in another packet.
pub const IPV6_INSIDE: u8 = 41;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Both low bits of the traffic class: congestion experienced (RFC 3168 §5).
const CONGESTION: u8 = 3;

/// The ends of a tunnel, of one IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Who packs.
    pub source: IpAddr,
    /// Who unpacks.
    pub destination: IpAddr,
}

/// Why a packet does not go into a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// It is no well-formed IP packet.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// With another header it would be longer than that can tell.
    #[error("too long for another IP header")]
    TooLong,
    /// The ends of the tunnel are of two IP versions.
    #[error("the ends of the tunnel are of two IP versions")]
    MixedVersions,
}

/// Why nothing comes out of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It, or what is in it, is no well-formed IP packet.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is a fragment: only whole packets are unpacked.
    #[error("a fragment of a packet of the tunnel")]
    Fragment,
    /// It holds no IP packet, or one of another version than its protocol says.
    #[error("no packet of the tunnel")]
    NotOfTunnel,
    /// A router was congested, and the inner packet's ends do not understand that (RFC 6040 §4.2).
    #[error("congestion that the inner packet cannot tell")]
    Congested,
}

/// Octets that the tunnel adds to a packet.
pub const fn overhead(ends: &Ends) -> usize {
    if ends.destination.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER }
}

/// Writes the packet inside another one into `out`, which is cleared first. The inner packet stays as it is, hop limit included: it
/// is this host's own. The outer one has its traffic class, and may be fragmented exactly if it may.
///
/// # Errors
///
/// See [`PackError`]; `out` is then left empty.
pub fn pack(inner: &[u8], ends: &Ends, hop_limit: u8, out: &mut Vec<u8>) -> Result<(), PackError> {
    out.clear();
    let packet = IpPacket::parse(inner)?;
    let (protocol, class, whole) = if packet.source().is_ipv4() {
        let view = Ipv4Packet::new_unchecked(inner);
        (IPV4_INSIDE, view.dscp() << 2 | view.ecn(), view.dont_frag())
    } else {
        (IPV6_INSIDE, Ipv6Packet::new_unchecked(inner).traffic_class(), true)
    };
    match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = inner.len().checked_add(IPV4_HEADER).and_then(|length| u16::try_from(length).ok()).ok_or(PackError::TooLong)?;
            out.resize(IPV4_HEADER, 0);
            let mut header = Ipv4Packet::new_unchecked(out.as_mut_slice());
            header.set_version(4);
            header.set_header_len(IPV4_HEADER as u8);
            header.set_dscp(class >> 2);
            header.set_ecn(class & CONGESTION);
            header.set_total_len(length);
            header.set_dont_frag(whole);
            header.set_hop_limit(hop_limit);
            header.set_next_header(IpProtocol::from(protocol));
            header.set_src_addr(source);
            header.set_dst_addr(destination);
            header.fill_checksum();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(inner.len()).map_err(|_| PackError::TooLong)?;
            out.resize(IPV6_HEADER, 0);
            let mut header = Ipv6Packet::new_unchecked(out.as_mut_slice());
            header.set_version(6);
            header.set_traffic_class(class);
            header.set_payload_len(length);
            header.set_next_header(IpProtocol::from(protocol));
            header.set_hop_limit(hop_limit);
            header.set_src_addr(source);
            header.set_dst_addr(destination);
        }
        _ => return Err(PackError::MixedVersions),
    }
    out.extend_from_slice(inner);
    Ok(())
}

/// What comes out of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked<'a> {
    /// Who packed and who unpacks, as the outer header says; nothing has proved it.
    pub ends: Ends,
    /// The inner packet as it was packed, a well-formed one.
    pub inner: &'a [u8],
    /// Whether a router on the way was congested, which the inner packet must be made to tell (RFC 6040 §4.2).
    pub congested: bool,
}

/// Takes the inner packet out of a packet of the tunnel: one without AH, which is to be verified and removed before.
///
/// # Errors
///
/// See [`UnpackError`].
pub fn unpack(outer: &[u8]) -> Result<Unpacked<'_>, UnpackError> {
    let packet = IpPacket::parse(outer)?;
    let ends = Ends { source: packet.source(), destination: packet.destination() };
    let (protocol, header, class) = match ends.source {
        IpAddr::V4(_) => {
            let view = Ipv4Packet::new_unchecked(outer);
            if view.more_frags() || view.frag_offset() != 0 {
                return Err(UnpackError::Fragment);
            }
            (u8::from(view.next_header()), usize::from(view.header_len()), view.ecn())
        }
        IpAddr::V6(_) => {
            let view = Ipv6Packet::new_unchecked(outer);
            (u8::from(view.next_header()), IPV6_HEADER, view.traffic_class() & CONGESTION)
        }
    };
    let inner = outer.get(header..).unwrap_or_default();
    let version = inner.first().map(|first| first >> 4);
    if !matches!((protocol, version), (IPV4_INSIDE, Some(4)) | (IPV6_INSIDE, Some(6))) {
        return Err(UnpackError::NotOfTunnel);
    }
    IpPacket::parse(inner)?;
    let congested = class == CONGESTION;
    let inner_ecn = match version {
        Some(4) => Ipv4Packet::new_unchecked(inner).ecn(),
        _ => Ipv6Packet::new_unchecked(inner).traffic_class() & CONGESTION,
    };
    if congested && inner_ecn == 0 {
        return Err(UnpackError::Congested);
    }
    Ok(Unpacked { ends, inner, congested })
}
