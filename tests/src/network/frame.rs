//! What a captured frame says, read without the code under test.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The Authentication Header of a packet, as far as a capture shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authentication<'a> {
    /// Security Parameters Index.
    pub spi: u32,
    /// Sequence number.
    pub sequence: u32,
    /// Integrity check value, with padding.
    pub icv: &'a [u8],
}

/// Addresses, protocol and ports of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The Authentication Header, if the packet has one.
    pub authentication: Option<Authentication<'a>>,
    /// Upper-layer protocol, behind AH; of a later fragment what the first one begins with, be it AH.
    pub protocol: u8,
    /// Source and destination port, zero where there are none (later fragments, protocols without ports).
    pub ports: (u16, u16),
    /// Length of the whole IP packet in octets.
    pub length: usize,
    /// What stands behind the ports: for UDP behind the header of eight octets, else behind four octets of ports.
    pub payload: &'a [u8],
}

/// Reads an IP packet.
pub fn read(ip: &[u8]) -> Option<Seen<'_>> {
    let (source, destination, mut protocol, mut rest, length): (IpAddr, IpAddr, u8, &[u8], usize) = match ip.first()? >> 4 {
        4 => {
            let header = usize::from(ip.first()? & 0x0f) * 4;
            let length = usize::from(be16(ip, 2)?);
            let source = Ipv4Addr::from(ip.get(12..16)?.first_chunk::<4>().copied()?);
            let destination = Ipv4Addr::from(ip.get(16..20)?.first_chunk::<4>().copied()?);
            let first = be16(ip, 6)? & 0x1fff == 0;
            let rest = if first { ip.get(header..length)? } else { &[] };
            (source.into(), destination.into(), *ip.get(9)?, rest, length)
        }
        6 => {
            let length = 40 + usize::from(be16(ip, 4)?);
            let source = Ipv6Addr::from(ip.get(8..24)?.first_chunk::<16>().copied()?);
            let destination = Ipv6Addr::from(ip.get(24..40)?.first_chunk::<16>().copied()?);
            let (protocol, rest) = behind_extensions(*ip.get(6)?, ip.get(40..length)?)?;
            (source.into(), destination.into(), protocol, rest, length)
        }
        _ => return None,
    };
    let mut authentication = None;
    if protocol == 51 && !rest.is_empty() {
        let words = usize::from(*rest.get(1)?) + 2;
        authentication = Some(Authentication { spi: be32(rest, 4)?, sequence: be32(rest, 8)?, icv: rest.get(12..words * 4)? });
        protocol = *rest.first()?;
        rest = rest.get(words * 4..)?;
    }
    let ports = if [6, 17].contains(&protocol) && !rest.is_empty() { (be16(rest, 0)?, be16(rest, 2)?) } else { (0, 0) };
    let payload = rest.get(if protocol == 17 { 8 } else { 4 }..).unwrap_or_default();
    Some(Seen { source, destination, authentication, protocol, ports, length, payload })
}

/// Walks the extension headers of an IPv6 packet that stand before AH or the upper layer. A later fragment has nothing behind them.
fn behind_extensions(mut protocol: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        let length = match protocol {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => (usize::from(*rest.get(1)?) + 1) * 8,
            44 if be16(rest, 2)? >> 3 != 0 => return Some((*rest.first()?, &[])),
            44 => 8,
            _ => return Some((protocol, rest)),
        };
        protocol = *rest.first()?;
        rest = rest.get(length..)?;
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: [u8; 12] = [0, 7, 1, 14, 0, 12, 0, 0, 1, 2, 3, 4];

    /// An IPv6 packet whose first header after the fixed one is `next`.
    fn ipv6(next: u8, rest: &[&[u8]]) -> Vec<u8> {
        let rest = rest.concat();
        [&[0x60, 0, 0, 0, 0, rest.len() as u8, next, 64][..], &[0x20; 16], &[0x21; 16], &rest].concat()
    }

    #[test]
    fn ports_are_found_behind_hop_by_hop_options_and_ah() {
        let router_alert = [17, 0, 5, 2, 0, 0, 1, 0];
        let packet = ipv6(0, &[&router_alert, &UDP]);
        let seen = read(&packet).unwrap();
        assert_eq!((seen.protocol, seen.ports, seen.payload), (17, (7, 270), &[1, 2, 3, 4][..]));

        let ah = [&[17, 2, 0, 0, 0, 0, 0, 9, 0, 0, 0, 5][..], &[0xab; 4]].concat();
        let packet = ipv6(51, &[&ah, &UDP]);
        let seen = read(&packet).unwrap();
        assert_eq!(seen.authentication, Some(Authentication { spi: 9, sequence: 5, icv: &[0xab; 4] }));
        assert_eq!(seen.ports, (7, 270));
    }

    #[test]
    fn a_first_fragment_shows_its_headers_and_a_later_one_its_protocol() {
        let first = ipv6(44, &[&[17, 0, 0, 1, 0, 0, 0, 1], &UDP]);
        assert_eq!(read(&first).unwrap().ports, (7, 270));
        let later = ipv6(44, &[&[51, 0, 5, 0xa8, 0, 0, 0, 1], &UDP]);
        let seen = read(&later).unwrap();
        assert_eq!((seen.protocol, seen.ports, seen.authentication), (51, (0, 0), None));
    }

    #[test]
    fn a_packet_that_ends_too_early_is_not_read() {
        let packet = ipv6(0, &[&[17, 0, 5, 2, 0, 0, 1, 0], &UDP]);
        for length in 0..packet.len() {
            assert_eq!(read(&packet[..length]), None, "{length} octets");
        }
    }
}
