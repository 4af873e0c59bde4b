//! The IP headers in front of a Q-mode packet's UDP header, read with every bound checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::Checksum;
use super::parse::NotQueryMode;
use super::query_mode::{IPV4_ROUTER_ALERT, IPV6_ROUTER_ALERT, PROTOCOL_HOP_BY_HOP, PROTOCOL_UDP};

/// What the headers of an unfragmented IP packet that carries UDP say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IpHeaders {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// IPv4 TTL or IPv6 hop limit.
    pub(super) ttl: u8,
    pub(super) router_alert: Option<u16>,
    /// Offset of the UDP header, inside the packet.
    pub(super) payload_at: usize,
}

impl IpHeaders {
    /// Reads the headers of a whole packet, which must have exactly the length that it states.
    pub(super) fn read(packet: &[u8]) -> Result<Self, NotQueryMode> {
        match packet.first().ok_or(NotQueryMode::Truncated)? >> 4 {
            4 => read_ipv4(packet),
            6 => read_ipv6(packet),
            version => Err(NotQueryMode::Version(version)),
        }
    }
}

fn read_ipv4(packet: &[u8]) -> Result<IpHeaders, NotQueryMode> {
    let fixed: [u8; IPV4_HEADER] = array(packet, 0).ok_or(NotQueryMode::Truncated)?;
    let [version_and_words, _, length_high, length_low, _, _, fragment_high, fragment_low, ttl, protocol, _, _, addresses @ ..] = fixed;
    let header_length = usize::from(version_and_words & 0x0f) * 4;
    require_length(packet, usize::from(u16::from_be_bytes([length_high, length_low])))?;
    let options = packet.get(IPV4_HEADER..header_length).ok_or(NotQueryMode::IpHeader)?;
    let mut sum = Checksum::default();
    sum.add(&fixed);
    sum.add(options);
    if sum.finish() != 0 {
        return Err(NotQueryMode::IpHeader);
    }
    if u16::from_be_bytes([fragment_high, fragment_low]) & MORE_FRAGMENTS_OR_OFFSET != 0 {
        return Err(NotQueryMode::Fragment);
    }
    if protocol != PROTOCOL_UDP {
        return Err(NotQueryMode::Protocol(protocol));
    }
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    Ok(IpHeaders {
        source: IpAddr::V4(Ipv4Addr::new(s0, s1, s2, s3)),
        destination: IpAddr::V4(Ipv4Addr::new(d0, d1, d2, d3)),
        ttl,
        router_alert: read_ipv4_options(options)?,
        payload_at: header_length,
    })
}

/// The router alert's value. A source route with hops left is refused: such a packet is not on its flow's way.
fn read_ipv4_options(mut options: &[u8]) -> Result<Option<u16>, NotQueryMode> {
    let mut router_alert = None;
    loop {
        let length = match options {
            [] | [IPV4_END_OF_OPTIONS, ..] => return Ok(router_alert),
            [IPV4_NO_OPERATION, ..] => 1,
            [kind, length, data @ ..] => {
                let length = usize::from(*length);
                let data = length.checked_sub(2).and_then(|length| data.get(..length)).ok_or(NotQueryMode::IpHeader)?;
                match (*kind, data) {
                    (IPV4_ROUTER_ALERT, [high, low]) => router_alert = Some(u16::from_be_bytes([*high, *low])),
                    (IPV4_LOOSE_SOURCE_ROUTE | IPV4_STRICT_SOURCE_ROUTE, [pointer, ..]) if usize::from(*pointer) <= length => {
                        return Err(NotQueryMode::SourceRouted);
                    }
                    _ => {}
                }
                length
            }
            [_] => return Err(NotQueryMode::IpHeader),
        };
        options = options.get(length..).ok_or(NotQueryMode::IpHeader)?;
    }
}

fn read_ipv6(packet: &[u8]) -> Result<IpHeaders, NotQueryMode> {
    let fixed: [u8; IPV6_HEADER] = array(packet, 0).ok_or(NotQueryMode::Truncated)?;
    let [_, _, _, _, length_high, length_low, mut next_header, hop_limit, addresses @ ..] = fixed;
    require_length(packet, IPV6_HEADER + usize::from(u16::from_be_bytes([length_high, length_low])))?;
    let mut at = IPV6_HEADER;
    let mut router_alert = None;
    while next_header != PROTOCOL_UDP {
        // Hop-by-hop options only stand directly behind the IPv6 header (RFC 8200 §4.1).
        let allowed = match next_header {
            PROTOCOL_HOP_BY_HOP => at == IPV6_HEADER,
            PROTOCOL_ROUTING | PROTOCOL_DESTINATION_OPTIONS => true,
            PROTOCOL_FRAGMENT => return Err(NotQueryMode::Fragment),
            _ => false,
        };
        if !allowed {
            return Err(NotQueryMode::Protocol(next_header));
        }
        let [following, units]: [u8; 2] = array(packet, at).ok_or(NotQueryMode::IpHeader)?;
        let length = (usize::from(units) + 1) * 8;
        let body = packet.get(at + 2..at + length).ok_or(NotQueryMode::IpHeader)?;
        match next_header {
            PROTOCOL_HOP_BY_HOP => router_alert = read_hop_by_hop(body)?,
            PROTOCOL_ROUTING if body.get(1) != Some(&0) => return Err(NotQueryMode::SourceRouted),
            _ => {}
        }
        next_header = following;
        at += length;
    }
    let (source, destination) = addresses.split_at(16);
    Ok(IpHeaders {
        source: ipv6_address(source)?,
        destination: ipv6_address(destination)?,
        ttl: hop_limit,
        router_alert: Some(router_alert.ok_or(NotQueryMode::NoRouterAlert)?),
        payload_at: at,
    })
}

/// The value of the one router alert that a hop-by-hop header may hold (RFC 2711 §2.1).
fn read_hop_by_hop(mut options: &[u8]) -> Result<Option<u16>, NotQueryMode> {
    let mut router_alert = None;
    loop {
        let length = match options {
            [] => return Ok(router_alert),
            [IPV6_PAD_1, ..] => 1,
            [kind, length, data @ ..] => {
                let length = usize::from(*length);
                let data = data.get(..length).ok_or(NotQueryMode::IpHeader)?;
                if let (IPV6_ROUTER_ALERT, [high, low]) = (*kind, data)
                    && router_alert.replace(u16::from_be_bytes([*high, *low])).is_some()
                {
                    return Err(NotQueryMode::IpHeader);
                }
                length + 2
            }
            [_] => return Err(NotQueryMode::IpHeader),
        };
        options = options.get(length..).ok_or(NotQueryMode::IpHeader)?;
    }
}

fn require_length(packet: &[u8], stated: usize) -> Result<(), NotQueryMode> {
    match packet.len().cmp(&stated) {
        std::cmp::Ordering::Less => Err(NotQueryMode::Truncated),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(NotQueryMode::IpHeader),
    }
}

fn ipv6_address(bytes: &[u8]) -> Result<IpAddr, NotQueryMode> {
    let octets: [u8; 16] = array(bytes, 0).ok_or(NotQueryMode::Truncated)?;
    Ok(IpAddr::V6(Ipv6Addr::from(octets)))
}

/// The `N` bytes at `at`, if they are there.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;
const IPV4_END_OF_OPTIONS: u8 = 0;
const IPV4_NO_OPERATION: u8 = 1;
const IPV4_LOOSE_SOURCE_ROUTE: u8 = 0x83;
const IPV4_STRICT_SOURCE_ROUTE: u8 = 0x89;
const IPV6_PAD_1: u8 = 0;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;
