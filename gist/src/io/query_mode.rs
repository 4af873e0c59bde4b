//! Q-mode packets, built whole: IP header, router alert, UDP, payload.
//!
//! A Query with source addressing mode S=0 carries the flow's source, which is usually not an address
//! of this node, so the operating system cannot be left to write the IP header (RFC 5971 §5.8.1.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{Checksum, udp_checksum};
use crate::wire::datagram::GIST_PORT;

/// What one Q-mode packet is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryModePacket<'a> {
    /// Source address: the flow's (S=0) or this node's (S=1).
    pub source: IpAddr,
    /// Destination address of the flow, in the same IP version as `source`.
    pub destination: IpAddr,
    /// UDP port at which replies are awaited (G-182).
    pub source_port: u16,
    /// IPv4 TTL or IPv6 hop limit.
    pub ip_ttl: u8,
    /// DS field of the flow; only the codepoint (upper six bits) is used, ECN stays "not capable".
    pub ds_field: u8,
    /// IPv6 flow label of the flow, 20 bits; 0 if it has none.
    pub flow_label: u32,
    /// Value of the router alert option, or `None` for no option.
    pub router_alert: Option<u16>,
    /// UDP payload, beginning with the magic number.
    pub payload: &'a [u8],
}

/// Why no packet was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// Source and destination belong to different IP versions.
    #[error("source {0} and destination {1} are of different IP versions")]
    MixedVersions(IpAddr, IpAddr),
    /// The packet would not fit an IP length field.
    #[error("payload of {0} bytes does not fit a Q-mode packet")]
    TooLarge(usize),
}

impl QueryModePacket<'_> {
    /// Builds the packet from the IP header on.
    ///
    /// IPv4: DF set (RFC 5971 §5.3.2.1), identification 0, router alert as RFC 2113 §2.1.
    /// IPv6: router alert in a hop-by-hop header (RFC 2711 §2.1).
    /// The UDP checksum is always present (G-166).
    pub fn build(&self) -> Result<Vec<u8>, BuildError> {
        let udp_length =
            u16::try_from(self.payload.len().saturating_add(UDP_HEADER_LENGTH)).map_err(|_| BuildError::TooLarge(self.payload.len()))?;
        let mut packet = Vec::with_capacity(LONGEST_HEADERS + self.payload.len());
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.put_ipv4_header(&mut packet, source, destination, udp_length)?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.put_ipv6_headers(&mut packet, source, destination, udp_length)?;
            }
            (source, destination) => return Err(BuildError::MixedVersions(source, destination)),
        }
        self.put_udp(&mut packet, udp_length);
        Ok(packet)
    }

    fn put_ipv4_header(&self, packet: &mut Vec<u8>, source: Ipv4Addr, destination: Ipv4Addr, udp_length: u16) -> Result<(), BuildError> {
        let words: u8 = if self.router_alert.is_some() { 6 } else { 5 };
        let total_length = udp_length.checked_add(u16::from(words) * 4).ok_or(BuildError::TooLarge(self.payload.len()))?;
        let mut header = Vec::with_capacity(24);
        header.extend([0x40 | words, self.ds_field & CODEPOINT]);
        header.extend(total_length.to_be_bytes());
        // The identification is free when DF is set (RFC 6864 §4.1).
        header.extend([0, 0]);
        header.extend(DONT_FRAGMENT.to_be_bytes());
        header.extend([self.ip_ttl, PROTOCOL_UDP]);
        let options = self.router_alert.map(|value| {
            let [high, low] = value.to_be_bytes();
            [IPV4_ROUTER_ALERT, 4, high, low]
        });
        let mut sum = Checksum::default();
        sum.add(&header);
        sum.add(&source.octets());
        sum.add(&destination.octets());
        sum.add(options.as_ref().map_or(&[], |option| option.as_slice()));
        header.extend(sum.finish().to_be_bytes());
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(options.into_iter().flatten());
        packet.append(&mut header);
        Ok(())
    }

    fn put_ipv6_headers(&self, packet: &mut Vec<u8>, source: Ipv6Addr, destination: Ipv6Addr, udp_length: u16) -> Result<(), BuildError> {
        let options = self.router_alert.map(|value| {
            let [high, low] = value.to_be_bytes();
            // Router alert is aligned to 2n; PadN with no data fills the eight octets.
            [PROTOCOL_UDP, 0, IPV6_ROUTER_ALERT, 2, high, low, IPV6_PAD_N, 0]
        });
        let payload_length =
            udp_length.checked_add(if options.is_some() { 8 } else { 0 }).ok_or(BuildError::TooLarge(self.payload.len()))?;
        let first_word = (6u32 << 28) | (u32::from(self.ds_field & CODEPOINT) << 20) | (self.flow_label & FLOW_LABEL);
        packet.extend(first_word.to_be_bytes());
        packet.extend(payload_length.to_be_bytes());
        let next_header = if options.is_some() { PROTOCOL_HOP_BY_HOP } else { PROTOCOL_UDP };
        packet.extend([next_header, self.ip_ttl]);
        packet.extend(source.octets());
        packet.extend(destination.octets());
        packet.extend(options.into_iter().flatten());
        Ok(())
    }

    fn put_udp(&self, packet: &mut Vec<u8>, udp_length: u16) {
        let [source_high, source_low] = self.source_port.to_be_bytes();
        let [destination_high, destination_low] = GIST_PORT.to_be_bytes();
        let [length_high, length_low] = udp_length.to_be_bytes();
        let ports_and_length = [source_high, source_low, destination_high, destination_low, length_high, length_low];
        let checksum = udp_checksum(self.source, self.destination, &[&ports_and_length, self.payload]);
        packet.extend(ports_and_length);
        packet.extend(checksum.to_be_bytes());
        packet.extend(self.payload);
    }
}

/// IP protocol number of UDP.
pub(super) const PROTOCOL_UDP: u8 = 17;
/// IPv6 next-header value of the hop-by-hop options header.
pub(super) const PROTOCOL_HOP_BY_HOP: u8 = 0;
/// Length of a UDP header in bytes.
pub(super) const UDP_HEADER_LENGTH: usize = 8;
/// IPv4 router alert: copied flag, class 0, number 20 (RFC 2113 §2.1).
pub(super) const IPV4_ROUTER_ALERT: u8 = 0x94;
/// IPv6 router alert: skip if unknown, unchanged en route, number 5 (RFC 2711 §2.1).
pub(super) const IPV6_ROUTER_ALERT: u8 = 0x05;
const IPV6_PAD_N: u8 = 1;
const DONT_FRAGMENT: u16 = 0x4000;
const CODEPOINT: u8 = 0xfc;
const FLOW_LABEL: u32 = 0x000f_ffff;
/// IPv6 header, hop-by-hop header and UDP header.
const LONGEST_HEADERS: usize = 40 + 8 + UDP_HEADER_LENGTH;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, destination: &str) -> QueryModePacket<'static> {
        QueryModePacket {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: 270,
            ip_ttl: 64,
            ds_field: 0,
            flow_label: 0,
            router_alert: Some(65503),
            payload: &[0x4e, 0x04, 0xbd, 0xa5],
        }
    }

    /// One's complement sum written the long way, so that the builder is not judged by its own code.
    fn plain_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u64;
        for (at, byte) in bytes.iter().enumerate() {
            sum += u64::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// G-173, G-176, G-182: option 148 of length 4, DF, port 270.
    #[test]
    fn an_ipv4_packet_is_the_one_written_by_hand() {
        let built = packet("192.168.20.1", "192.168.21.4").build().unwrap();
        // IP header sum: 4600+0024+4000+4011+c0a8+1401+c0a8+1504+9404+ffdf = 0x40413 -> 0x0417 -> !0xfbe8
        // UDP sum: c0a8+1401+c0a8+1504+0011+000c + 010e+010e+000c + 4e04+bda5 = 0x2b8b5 -> 0xb8b7 -> !0x4748
        let expected = hex::decode(concat!(
            "46000024",
            "00004000",
            "4011fb5d",
            "c0a81401",
            "c0a81504",
            "9404ffdf",
            "010e010e000c",
            "4748",
            "4e04bda5"
        ))
        .unwrap();
        assert_eq!(hex::encode(&built[..10]), hex::encode(&expected[..10]));
        assert_eq!(hex::encode(&built[12..30]), hex::encode(&expected[12..30]));
        assert_eq!(hex::encode(&built[32..]), hex::encode(&expected[32..]));
        assert_eq!(plain_sum(&built[..24]), 0xffff);
        assert_eq!(plain_sum(&with_pseudo_header_v4(&built, 24)), 0xffff);
    }

    #[test]
    fn without_router_alert_the_ipv4_header_has_five_words() {
        let built = QueryModePacket { router_alert: None, ds_field: 0xbb, ..packet("10.0.0.1", "10.0.0.2") }.build().unwrap();
        assert_eq!(built[..4], [0x45, 0xb8, 0x00, 0x20]);
        assert_eq!(built.len(), 32);
        assert_eq!(plain_sum(&built[..20]), 0xffff);
        assert_eq!(plain_sum(&with_pseudo_header_v4(&built, 20)), 0xffff);
    }

    /// G-177: option type 5, length 2, aligned to two octets.
    #[test]
    fn an_ipv6_packet_is_the_one_written_by_hand() {
        let built = QueryModePacket { ds_field: 0xb8, flow_label: 0xfff1_2345, ..packet("fd20::1", "fd21::4") }.build().unwrap();
        let expected = hex::decode(concat!(
            "6b812345",
            "0014",
            "00",
            "40",
            "fd200000000000000000000000000001",
            "fd210000000000000000000000000004",
            "1100",
            "0502ffdf",
            "0100",
            "010e010e000c",
        ))
        .unwrap();
        assert_eq!(hex::encode(&built[..54]), hex::encode(expected));
        let mut summed = built[8..40].to_vec();
        summed.extend([0, 0, 0, 12, 0, 0, 0, 17]);
        summed.extend(&built[48..]);
        assert_eq!(plain_sum(&summed), 0xffff);
    }

    #[test]
    fn an_odd_payload_is_summed_as_if_padded() {
        let built = QueryModePacket { payload: &[1, 2, 3], ..packet("10.0.0.1", "10.0.0.2") }.build().unwrap();
        assert_eq!(plain_sum(&with_pseudo_header_v4(&built, 24)), 0xffff);
    }

    #[test]
    fn mixed_versions_and_oversized_payloads_are_refused() {
        let mixed = packet("10.0.0.1", "fd21::4");
        assert!(matches!(mixed.build(), Err(BuildError::MixedVersions(..))));
        let payload = vec![0; 65_504];
        let largest = QueryModePacket { payload: &payload[..65_503], ..packet("10.0.0.1", "10.0.0.2") };
        assert_eq!(largest.build().unwrap().len(), 65_535);
        let larger = QueryModePacket { payload: &payload, ..packet("10.0.0.1", "10.0.0.2") };
        assert_eq!(larger.build(), Err(BuildError::TooLarge(65_504)));
    }

    fn with_pseudo_header_v4(packet: &[u8], udp_at: usize) -> Vec<u8> {
        let mut summed = packet[12..20].to_vec();
        let length = (packet.len() - udp_at) as u16;
        summed.extend([0, 17]);
        summed.extend(length.to_be_bytes());
        summed.extend(&packet[udp_at..]);
        summed
    }
}
