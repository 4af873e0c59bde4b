//! What of a permitted packet a relay sends on: the checks, and the one change a router makes too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::reason::RelayDrop;
use crate::packet::{Fragment, IpPacket, PROTOCOL_AH, Ports};
use crate::tunnel::{IPV4_INSIDE, IPV6_INSIDE, UnpackError, Unpacked, unpack};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// UDP port of GIST (RFC 5971 §9).
const GIST_PORT: u16 = 270;
/// AH without its ICV (RFC 4302 §2).
const LEAST_AH: usize = 12;
/// Both low bits of the traffic class: congestion experienced (RFC 3168 §5).
const CONGESTION: u8 = 3;

/// For whom, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelayRules {
    /// Senders who may send through this node. Their packets need a permission of it besides.
    pub admit: Vec<IpNet>,
    /// Where they may send to.
    pub forward_to: Vec<IpNet>,
    /// TCP port of messaging associations, the same on every node.
    pub association_port: u16,
    /// Packets a second of one sender, at least 1; a tenth of a second's may come at once.
    pub rate: u32,
}

/// From whom to whom an inner packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forwarded {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

/// Whether a packet, with AH or without, holds another one.
pub(super) fn is_packed(outer: &IpPacket<'_>) -> bool {
    is_tunnel(outer.protocol())
}

const fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, IPV4_INSIDE | IPV6_INSIDE)
}

/// Writes the packet that is to be sent on into `out`, which is cleared first, with its hop limit one less and congestion told.
/// `outer` has been verified and bears no AH any more.
///
/// # Errors
///
/// Why it is not sent on.
pub(super) fn forward(outer: &[u8], rules: &RelayRules, out: &mut Vec<u8>) -> Result<Forwarded, RelayDrop> {
    out.clear();
    let Unpacked { ends, inner, congested } = unpack(outer).map_err(|error| match error {
        UnpackError::Malformed(_) | UnpackError::NotOfTunnel | UnpackError::Fragment => RelayDrop::MalformedInside,
        UnpackError::Congested => RelayDrop::CongestedInside,
    })?;
    let packet = IpPacket::parse(inner).map_err(|_| RelayDrop::MalformedInside)?;
    if packet.source() != ends.source {
        return Err(RelayDrop::SpoofedSource);
    }
    if !contains(&rules.admit, packet.source()) {
        return Err(RelayDrop::NotAdmitted);
    }
    if packet.is_source_routed() {
        return Err(RelayDrop::SourceRouteInside);
    }
    if is_tunnel(packet.protocol()) {
        return Err(RelayDrop::NestedTunnel);
    }
    let destination = packet.destination();
    if destination == ends.destination {
        return Err(RelayDrop::ToRelay);
    }
    if !is_one_node(destination) || !contains(&rules.forward_to, destination) {
        return Err(RelayDrop::DestinationNotAllowed);
    }
    let has_ah = match packet.fragment() {
        Some(fragment) => check_part(&packet, fragment).map(|()| true)?,
        None => packet.ah().is_some(),
    };
    if !has_ah && !is_signalling(&packet, rules.association_port) {
        return Err(RelayDrop::NeitherAhNorSignalling);
    }
    out.extend_from_slice(inner);
    step(destination, has_ah, congested, out).inspect_err(|_| out.clear())?;
    Ok(Forwarded { source: packet.source(), destination })
}

/// What a sender's kernel makes of a datagram with AH that may be fragmented and is longer than the way over the relay carries: each
/// part names AH as what it is a part of, so that nothing has to be remembered here (as RFC 4301 §7.1 has it for tunnels without
/// ports). The nodes behind judge the whole, and without its first part, which is looked into, it never becomes one. Signalling never
/// comes in parts.
fn check_part(packet: &IpPacket<'_>, fragment: Fragment) -> Result<(), RelayDrop> {
    if packet.protocol() != PROTOCOL_AH {
        return Err(RelayDrop::FragmentInside);
    }
    match packet.after().first_chunk::<LEAST_AH>() {
        _ if fragment.offset > 0 => Ok(()),
        Some([protected, ..]) if is_tunnel(*protected) => Err(RelayDrop::NestedTunnel),
        Some(_) => Ok(()),
        // RFC 1858: too little to judge it by.
        None => Err(RelayDrop::FragmentInside),
    }
}

/// One hop further.
fn step(destination: IpAddr, has_ah: bool, congested: bool, packet: &mut [u8]) -> Result<(), RelayDrop> {
    match destination {
        IpAddr::V4(_) => {
            let mut header = Ipv4Packet::new_unchecked(packet);
            if has_ah && header.ident() == 0 && !header.dont_frag() {
                return Err(RelayDrop::NoIdentification);
            }
            header.set_hop_limit(left(header.hop_limit())?);
            if congested {
                header.set_ecn(CONGESTION);
            }
            header.fill_checksum();
        }
        IpAddr::V6(_) => {
            let mut header = Ipv6Packet::new_unchecked(packet);
            header.set_hop_limit(left(header.hop_limit())?);
            if congested {
                header.set_traffic_class(header.traffic_class() | CONGESTION);
            }
        }
    }
    Ok(())
}

fn left(hop_limit: u8) -> Result<u8, RelayDrop> {
    hop_limit.checked_sub(1).filter(|left| *left > 0).ok_or(RelayDrop::HopLimit)
}

/// A Query in Q-mode or another datagram of GIST, or a segment of an association: what a sender's signalling behind the relay needs.
fn is_signalling(packet: &IpPacket<'_>, association_port: u16) -> bool {
    let Ports::Known { source, destination } = packet.ports() else { return false };
    match packet.protocol() {
        UDP => destination == GIST_PORT,
        TCP => [source, destination].contains(&association_port),
        _ => false,
    }
}

/// Whether an address is one of a single node that others can reach by a router. Nothing else is sent on to.
pub fn is_one_node(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_one_ipv4_node(address),
        IpAddr::V6(address) => is_one_ipv6_node(address),
    }
}

fn is_one_ipv4_node(address: Ipv4Addr) -> bool {
    // RFC 1122 §3.2.1.3: "this network"; RFC 1112 §4: class E, the limited broadcast included.
    let [first, ..] = address.octets();
    first != 0 && first < 240 && !(address.is_loopback() || address.is_link_local() || address.is_multicast())
}

fn is_one_ipv6_node(address: Ipv6Addr) -> bool {
    // Whatever hides an IPv4 address goes to it in ways of which nothing is known here: mapped and compatible ones, those of
    // translators (RFC 6052 §2.1, RFC 8215), 6to4 (RFC 3056 §2) and Teredo (RFC 4380 §2.6).
    let hides_ipv4 =
        address.to_ipv4().is_some() || matches!(address.segments(), [0x64, 0xff9b, 0 | 1, ..] | [0x2002, ..] | [0x2001, 0, ..]);
    !(address.is_unspecified() || address.is_loopback() || address.is_unicast_link_local() || address.is_multicast() || hides_ipv4)
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}
