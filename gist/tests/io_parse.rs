//! Q-mode packets as they are read from the path and passed on.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::IpAddr;

use gist::io::{ForwardError, NotQueryMode, QueryModePacket, forwarded, intercepted};
use gist::wire::NslpId;
use pcap_file::pcap::PcapReader;
use proptest::prelude::*;

/// Magic number and common header: version 1, 5 hops, no words, NSLPID 32704, C=1, Query.
const QUERY: [u8; 12] = [0x4e, 0x04, 0xbd, 0xa5, 1, 5, 0, 0, 0x7f, 0xc0, 0x80, 0];

#[test]
fn what_is_built_is_read_back() {
    for (source, destination) in [("192.168.20.1", "192.168.21.4"), ("fd20::1", "fd21::4")] {
        let packet = packet(source, destination, &QUERY);
        let read = intercepted(&packet, 7).unwrap();
        assert_eq!(read.nslp_id, NslpId(32704));
        assert_eq!(read.hop_count, 5);
        assert_eq!(read.router_alert, Some(65503));
        assert_eq!(read.datagram.source, format!("{}:270", bracketed(source)).parse().unwrap());
        assert_eq!(read.datagram.destination, destination.parse::<IpAddr>().unwrap());
        assert_eq!(read.datagram.ip_ttl, Some(64));
        assert_eq!(read.datagram.interface, 7);
        assert!(read.datagram.query_mode);
        assert_eq!(&read.datagram.payload[..], QUERY);
    }
}

/// G-178, G-175: the option is a pre-filter only.
#[test]
fn an_ipv4_query_without_router_alert_is_taken_and_an_ipv6_one_is_not() {
    let without = |source: &str, destination: &str| build(source, destination, None, &QUERY);
    assert_eq!(intercepted(&without("10.0.0.1", "10.0.0.2"), 0).unwrap().router_alert, None);
    assert_eq!(intercepted(&without("fd20::1", "fd21::4"), 0), Err(NotQueryMode::NoRouterAlert));
}

/// G-030, G-031: whatever value the option has, the packet is taken, read and passed on in the same way; its NSLPID says whose it is.
#[test]
fn the_router_alert_value_decides_nothing() {
    for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd20::1", "fd21::4")] {
        let read = |alert: u16| {
            let packet = build(source, destination, Some(alert), &QUERY);
            let mut read = intercepted(&packet, 7).unwrap();
            assert_eq!((read.router_alert.take(), read.datagram.router_alert.take()), (Some(alert), Some(alert)));
            assert_eq!(intercepted(&forwarded(&packet).unwrap(), 7).unwrap().router_alert, Some(alert));
            read
        };
        let first = read(0);
        assert_eq!(first.nslp_id, NslpId(32704));
        for alert in [1, 32, 255, 256, 4711, 65503, 65535] {
            assert_eq!(read(alert), first, "{alert}");
        }
    }
}

/// G-187: what is only passed on keeps its options as they are, for the system that forwards it to process: here a record route with room for
/// one more address, which is none of GIST's business.
#[test]
fn options_of_a_packet_passed_on_are_left_to_the_system() {
    let packet = with_ipv4_options(&[0x94, 4, 0, 1, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let passed = forwarded(&packet).unwrap();
    assert_eq!(passed[..36], packet[..36]);
    assert_eq!(intercepted(&passed, 0).unwrap().hop_count, 4);
}

/// G-328, G-028: whatever does not match exactly stays ordinary traffic.
#[test]
fn what_does_not_match_the_encapsulation_is_left_alone() {
    let v4 = packet("10.0.0.1", "10.0.0.2", &QUERY);
    let v6 = packet("fd20::1", "fd21::4", &QUERY);
    let change = |packet: &[u8], at: usize, value: u8| {
        let mut changed = packet.to_vec();
        changed[at] = value;
        if changed[0] >> 4 == 4 {
            restore_ipv4_checksum(&mut changed);
        }
        intercepted(&changed, 0).unwrap_err()
    };
    // G-394: fragments, first ones and later ones.
    assert_eq!(change(&v4, 6, 0x20), NotQueryMode::Fragment);
    assert_eq!(change(&v4, 7, 1), NotQueryMode::Fragment);
    // G-179, G-180: AH, ESP, IP in IP.
    for protocol in [51, 50, 4, 41, 6] {
        assert_eq!(change(&v4, 9, protocol), NotQueryMode::Protocol(protocol));
        assert_eq!(change(&v6, 6, protocol), NotQueryMode::Protocol(protocol));
        assert_eq!(change(&v6, 40, protocol), NotQueryMode::Protocol(protocol));
    }
    assert_eq!(change(&v4, 27, 15), NotQueryMode::Port(271));
    assert_eq!(change(&v4, 32, 0x4f), NotQueryMode::UdpHeader);
    assert_eq!(change(&v4, 0, 0x36), NotQueryMode::Version(3));
    assert_eq!(intercepted(&v4[..v4.len() - 1], 0), Err(NotQueryMode::Truncated));
    assert_eq!(intercepted(&[], 0), Err(NotQueryMode::Truncated));
    let mut longer = v4.clone();
    longer.push(0);
    assert_eq!(intercepted(&longer, 0), Err(NotQueryMode::IpHeader));
    let mut broken = v4.clone();
    broken[10] ^= 1;
    assert_eq!(intercepted(&broken, 0), Err(NotQueryMode::IpHeader));
}

/// G-183, G-004, G-154: magic number, version and C-flag.
#[test]
fn what_is_not_a_query_mode_message_is_left_alone() {
    let read = |at: usize, value: u8| {
        let mut payload = QUERY;
        payload[at] = value;
        intercepted(&packet("10.0.0.1", "10.0.0.2", &payload), 0).unwrap_err()
    };
    assert_eq!(read(0, 0x4f), NotQueryMode::NoMessage);
    assert_eq!(read(4, 2), NotQueryMode::NoMessage);
    assert_eq!(read(10, 0x01), NotQueryMode::NormalEncapsulation);
    assert_eq!(intercepted(&packet("10.0.0.1", "10.0.0.2", &QUERY[..11]), 0), Err(NotQueryMode::NoMessage));
}

#[test]
fn a_datagram_without_checksum_is_left_alone() {
    let mut packet = packet("10.0.0.1", "10.0.0.2", &QUERY);
    packet[30..32].fill(0);
    assert_eq!(intercepted(&packet, 0), Err(NotQueryMode::UdpHeader));
}

#[test]
fn ipv4_options_are_walked() {
    // No-operation, router alert 1, end of options, padding that nobody reads.
    let taken = with_ipv4_options(&[1, 0x94, 4, 0, 1, 0, 0xff, 0xff]);
    assert_eq!(intercepted(&taken, 0).unwrap().router_alert, Some(1));
    // A strict source route that has not reached its end, and one that has.
    assert_eq!(intercepted(&with_ipv4_options(&[0x89, 7, 4, 10, 0, 0, 9, 0]), 0), Err(NotQueryMode::SourceRouted));
    assert!(intercepted(&with_ipv4_options(&[0x89, 7, 8, 10, 0, 0, 9, 0]), 0).is_ok());
    // Lengths that lead backwards or outside.
    assert_eq!(intercepted(&with_ipv4_options(&[7, 1, 0, 0]), 0), Err(NotQueryMode::IpHeader));
    assert_eq!(intercepted(&with_ipv4_options(&[7, 5, 0, 0]), 0), Err(NotQueryMode::IpHeader));
    assert_eq!(intercepted(&with_ipv4_options(&[1, 1, 1, 7]), 0), Err(NotQueryMode::IpHeader));
}

/// G-179: routing and destination options may stand between hop-by-hop options and UDP, nothing else may.
#[test]
fn ipv6_extension_headers_are_walked() {
    let destination_options = [17, 0, 1, 4, 0, 0, 0, 0];
    let read = intercepted(&with_ipv6_header(60, &destination_options), 0).unwrap();
    assert_eq!(read.router_alert, Some(65503));
    assert!(intercepted(&with_ipv6_header(43, &[17, 0, 4, 0, 0, 0, 0, 0]), 0).is_ok());
    assert_eq!(intercepted(&with_ipv6_header(43, &[17, 0, 4, 1, 0, 0, 0, 0]), 0), Err(NotQueryMode::SourceRouted));
    assert_eq!(intercepted(&with_ipv6_header(44, &[17, 0, 0, 0, 0, 0, 0, 0]), 0), Err(NotQueryMode::Fragment));
    assert_eq!(intercepted(&with_ipv6_header(135, &[17, 0, 0, 0, 0, 0, 0, 0]), 0), Err(NotQueryMode::Protocol(135)));
    // A second hop-by-hop header, and one that reaches beyond the packet.
    assert_eq!(intercepted(&with_ipv6_header(0, &[17, 0, 1, 4, 0, 0, 0, 0]), 0), Err(NotQueryMode::Protocol(0)));
    assert_eq!(intercepted(&with_ipv6_header(60, &[17, 9, 1, 4, 0, 0, 0, 0]), 0), Err(NotQueryMode::IpHeader));
}

/// G-066, G-040: one byte of the message and the checksum over it; G-065: the TTL is left to the kernel.
#[test]
fn a_packet_passed_on_differs_in_hop_count_and_checksum_only() {
    for (source, destination, udp_at) in [("10.0.0.1", "10.0.0.2", 24), ("fd20::1", "fd21::4", 48)] {
        let before = packet(source, destination, &QUERY);
        let after = forwarded(&before).unwrap();
        let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(changed, [udp_at + 7, udp_at + 13]);
        let read = intercepted(&after, 0).expect("the checksum is right");
        assert_eq!(read.hop_count, 4);
        assert_eq!(read.datagram.ip_ttl, Some(64));
    }
}

/// G-070, G-034: no message leaves with hop count 0.
#[test]
fn a_packet_whose_hop_count_is_used_up_is_not_passed_on() {
    for hops in [0, 1] {
        let mut payload = QUERY;
        payload[5] = hops;
        assert_eq!(forwarded(&packet("10.0.0.1", "10.0.0.2", &payload)), Err(ForwardError::HopCountExhausted));
    }
    let ordinary = forwarded(&packet("10.0.0.1", "10.0.0.2", b"hello"));
    assert_eq!(ordinary, Err(ForwardError::NotQueryMode(NotQueryMode::NoMessage)));
}

/// RFC 5971 §5.5, §4.3.3 (G-053): Queries and Data messages of 512 bytes at most, which the datagram holds exactly.
#[test]
fn only_a_query_or_data_message_of_its_announced_length_is_passed_on() {
    let with = |kind: u8, words: u8, octets: usize| {
        let mut payload = QUERY.to_vec();
        (payload[7], payload[10]) = (words, 0x80 | kind);
        payload.resize(QUERY.len() + octets, 0x5a);
        forwarded(&packet("10.0.0.1", "10.0.0.2", &payload)).map(|packet| packet.len())
    };
    for kind in 0..=127 {
        let expected = if matches!(kind, 0 | 3) { Ok(20 + 4 + 8 + 4 + 8 + 16) } else { Err(ForwardError::MessageType) };
        assert_eq!(with(kind, 4, 16), expected, "type {kind}");
    }
    assert!(with(0, 126, 504).is_ok());
    assert_eq!(with(0, 127, 508), Err(ForwardError::MessageLength { held: 516, announced: 516 }));
    assert_eq!(with(0, 4, 17), Err(ForwardError::MessageLength { held: 25, announced: 24 }));
    assert_eq!(with(3, 4, 12), Err(ForwardError::MessageLength { held: 20, announced: 24 }));
}

/// RFC 5971 §4.3.3 allows 64 bytes for the encapsulation: no room for data in options.
#[test]
fn a_packet_with_options_beyond_the_allowance_is_not_passed_on() {
    // Hop-by-hop and UDP headers and the magic number are 60 bytes.
    assert_eq!(forwarded(&with_ipv6_header(60, &[17, 0, 1, 4, 0, 0, 0, 0])), Err(ForwardError::Headers(68)));
    assert!(forwarded(&with_ipv4_options(&[1; 32])).is_ok());
    assert_eq!(forwarded(&with_ipv4_options(&[1; 36])), Err(ForwardError::Headers(68)));
}

/// Another implementation's handshake: its Query is Q-mode, what answers it is not.
#[test]
fn a_foreign_implementations_query_is_recognised_in_a_capture() {
    let file = std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/gist/dmode-ab.pcap")).unwrap();
    let mut reader = PcapReader::new(file).unwrap();
    let mut taken = 0;
    let mut normal = 0;
    while let Some(frame) = reader.next_packet() {
        let frame = frame.unwrap();
        let Some(packet) = ip_packet(&frame.data) else { continue };
        match intercepted(&with_udp_checksum(packet), 0) {
            Ok(read) => {
                assert_eq!(read.nslp_id, NslpId(100));
                assert_eq!(read.router_alert, Some(100));
                assert_eq!(read.datagram.destination, "10.71.2.4".parse::<IpAddr>().unwrap());
                assert!(forwarded(&with_udp_checksum(packet)).is_ok());
                taken += 1;
            }
            Err(NotQueryMode::NormalEncapsulation) => normal += 1,
            Err(_) => {}
        }
    }
    assert!(taken >= 1, "no Query in the capture");
    assert!(normal >= 2, "no Response or Confirm in the capture");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = intercepted(&bytes, 1);
        let _ = forwarded(&bytes);
    }

    #[test]
    fn no_change_to_a_good_packet_makes_the_reader_panic(
        ipv6 in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = if ipv6 { packet("fd20::1", "fd21::4", &QUERY) } else { packet("10.0.0.1", "10.0.0.2", &QUERY) };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        if bytes.len() >= 24 && bytes[0] >> 4 == 4 {
            restore_ipv4_checksum(&mut bytes);
        }
        let _ = intercepted(&bytes, 1);
        let _ = forwarded(&bytes);
    }

    #[test]
    fn every_packet_built_is_read_and_passed_on_with_a_right_checksum(
        ipv6 in any::<bool>(), port in 1u16.., ttl in 1u8.., ds in any::<u8>(), label in any::<u32>(), alert in any::<u16>(),
        hops in 2u8.., body in proptest::collection::vec(any::<[u8; 4]>(), 0..=126),
    ) {
        let mut payload = QUERY.to_vec();
        payload[5] = hops;
        payload[7] = body.len() as u8;
        payload.extend(body.as_flattened());
        let (source, destination) = if ipv6 { ("fd20::1", "fd21::4") } else { ("10.0.0.1", "10.0.0.2") };
        let packet = QueryModePacket {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            source_port: port,
            ip_ttl: ttl,
            ds_field: ds,
            flow_label: label,
            router_alert: Some(alert),
            payload: &payload,
        }
        .build()
        .unwrap();
        let read = intercepted(&packet, 0).unwrap();
        prop_assert_eq!(&read.datagram.payload[..], &payload[..]);
        prop_assert_eq!(read.datagram.source.port(), port);
        prop_assert_eq!(read.router_alert, Some(alert));
        let passed = intercepted(&forwarded(&packet).unwrap(), 0).unwrap();
        prop_assert_eq!(passed.hop_count, hops - 1);
    }
}

fn packet(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    build(source, destination, Some(65503), payload)
}

fn build(source: &str, destination: &str, router_alert: Option<u16>, payload: &[u8]) -> Vec<u8> {
    QueryModePacket {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        source_port: 270,
        ip_ttl: 64,
        ds_field: 0,
        flow_label: 0,
        router_alert,
        payload,
    }
    .build()
    .unwrap()
}

fn with_ipv4_options(options: &[u8]) -> Vec<u8> {
    let mut packet = build("10.0.0.1", "10.0.0.2", None, &QUERY);
    packet.splice(20..20, options.iter().copied());
    packet[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    packet[3] += u8::try_from(options.len()).unwrap();
    restore_ipv4_checksum(&mut packet);
    packet
}

/// Puts one more extension header behind the hop-by-hop options.
fn with_ipv6_header(kind: u8, header: &[u8]) -> Vec<u8> {
    let mut packet = packet("fd20::1", "fd21::4", &QUERY);
    packet.splice(48..48, header.iter().copied());
    packet[40] = kind;
    packet[5] += u8::try_from(header.len()).unwrap();
    packet
}

fn restore_ipv4_checksum(packet: &mut [u8]) {
    let length = (usize::from(packet[0] & 0x0f) * 4).min(packet.len());
    packet[10..12].fill(0);
    let checksum = !one_complement_sum(&packet[..length]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn one_complement_sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The captures were taken before the sender's interface had computed the UDP checksum.
fn with_udp_checksum(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let udp = usize::from(packet[0] & 0x0f) * 4;
    packet[udp + 6..udp + 8].fill(0);
    let length = u16::try_from(packet.len() - udp).unwrap().to_be_bytes();
    let checksum = !one_complement_sum(&[&packet[12..20], &[0, 17], &length, &packet[udp..]].concat());
    packet[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The IPv4 packet in a captured Ethernet frame or raw IP capture.
fn ip_packet(frame: &[u8]) -> Option<&[u8]> {
    let packet = if frame.first()? >> 4 == 4 { frame } else { frame.get(14..)? };
    let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    packet.get(..length)
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}
