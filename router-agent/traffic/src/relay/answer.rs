//! "Too big" from a relay to the sender of a packet (RFC 1191 §4, RFC 4443 §3.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
/// No error is longer (RFC 1812 §4.3.2.3, RFC 4443 §2.4).
const LONGEST_IPV4: usize = 576;
const LONGEST_IPV6: usize = 1280;
const HOP_LIMIT: u8 = 64;
/// "Fragmentation needed and DF set".
const NEEDS_FRAGMENTS: u8 = 4;

/// Writes the error about `packet` into `out`, which is cleared first; `false` if the addresses are of two IP versions.
pub(super) fn too_big(packet: &[u8], mtu: u32, relay: IpAddr, sender: IpAddr, out: &mut Vec<u8>) -> bool {
    out.clear();
    match (relay, sender) {
        (IpAddr::V4(relay), IpAddr::V4(sender)) => ipv4(packet, mtu, relay, sender, out),
        (IpAddr::V6(relay), IpAddr::V6(sender)) => ipv6(packet, mtu, relay, sender, out),
        _ => return false,
    }
    true
}

fn ipv4(packet: &[u8], mtu: u32, relay: Ipv4Addr, sender: Ipv4Addr, out: &mut Vec<u8>) {
    let quote = quoted(packet, LONGEST_IPV4 - IPV4_HEADER - ICMP_HEADER);
    out.resize(IPV4_HEADER + ICMP_HEADER, 0);
    out.extend_from_slice(quote);
    let total = out.len();
    let (header, message) = out.split_at_mut(IPV4_HEADER);
    let mut header = Ipv4Packet::new_unchecked(header);
    header.set_version(4);
    header.set_header_len(IPV4_HEADER as u8);
    header.set_total_len(u16::try_from(total).unwrap_or(u16::MAX));
    header.set_dont_frag(true);
    header.set_hop_limit(HOP_LIMIT);
    header.set_next_header(IpProtocol::Icmp);
    header.set_src_addr(relay);
    header.set_dst_addr(sender);
    header.fill_checksum();
    if let Some(place) = message.get_mut(6..ICMP_HEADER) {
        place.copy_from_slice(&u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
    }
    let mut message = Icmpv4Packet::new_unchecked(message);
    message.set_msg_type(Icmpv4Message::DstUnreachable);
    message.set_msg_code(NEEDS_FRAGMENTS);
    message.fill_checksum();
}

fn ipv6(packet: &[u8], mtu: u32, relay: Ipv6Addr, sender: Ipv6Addr, out: &mut Vec<u8>) {
    let quote = quoted(packet, LONGEST_IPV6 - IPV6_HEADER - ICMP_HEADER);
    out.resize(IPV6_HEADER + ICMP_HEADER, 0);
    out.extend_from_slice(quote);
    let payload = out.len().saturating_sub(IPV6_HEADER);
    let (header, message) = out.split_at_mut(IPV6_HEADER);
    let mut header = Ipv6Packet::new_unchecked(header);
    header.set_version(6);
    header.set_payload_len(u16::try_from(payload).unwrap_or(u16::MAX));
    header.set_hop_limit(HOP_LIMIT);
    header.set_next_header(IpProtocol::Icmpv6);
    header.set_src_addr(relay);
    header.set_dst_addr(sender);
    if let Some(place) = message.get_mut(4..ICMP_HEADER) {
        place.copy_from_slice(&mtu.to_be_bytes());
    }
    let mut message = Icmpv6Packet::new_unchecked(message);
    message.set_msg_type(Icmpv6Message::PktTooBig);
    message.set_msg_code(0);
    message.fill_checksum(&relay, &sender);
}

fn quoted(packet: &[u8], most: usize) -> &[u8] {
    packet.get(..most).unwrap_or(packet)
}
