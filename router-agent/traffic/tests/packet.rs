//! Packet views: what is read, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use proptest::prelude::*;
use support::*;
use traffic::packet::{Fragment, IpPacket, Ports};

/// Reads everything that a view offers.
fn read_all(packet: &IpPacket<'_>) {
    let _ = (packet.flow(), packet.source(), packet.destination(), packet.final_destination(), packet.total_len());
    let _ = (packet.is_source_routed(), packet.fragment(), packet.protocol(), packet.ports());
    let _ = packet.ah().map(|ah| (ah.spi(), ah.sequence(), ah.next_header(), ah.reserved(), ah.payload_len(), ah.icv_field().len()));
}

proptest! {
    #[test]
    fn no_octets_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packet) = IpPacket::parse(&bytes) {
            read_all(&packet);
        }
    }

    #[test]
    fn no_octets_behind_a_true_length_make_the_parser_panic(mut bytes in proptest::collection::vec(any::<u8>(), 20..200), version in prop_oneof![Just(4u8), Just(6)], next in prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(60), any::<u8>()]) {
        let len = bytes.len() as u16;
        bytes[0] = version << 4 | bytes[0] & 0x0f;
        if version == 4 {
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[9] = next;
        } else {
            bytes[4..6].copy_from_slice(&len.saturating_sub(40).to_be_bytes());
            bytes[6] = next;
        }
        if let Ok(packet) = IpPacket::parse(&bytes) {
            read_all(&packet);
        }
    }

    #[test]
    fn a_changed_octet_of_a_good_packet_makes_no_panic(built in any_packet(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut bytes = built.bytes;
        let at = at.index(bytes.len());
        bytes[at] = octet;
        if let Ok(packet) = IpPacket::parse(&bytes) {
            read_all(&packet);
        }
    }

    #[test]
    fn a_good_packet_shows_its_flow_and_length(built in any_packet()) {
        let packet = IpPacket::parse(&built.bytes).unwrap();
        prop_assert_eq!(packet.flow(), Some(built.flow));
        prop_assert_eq!(packet.total_len(), built.bytes.len());
        prop_assert!(packet.ah().is_none() && packet.fragment().is_none() && !packet.is_source_routed());
    }

    #[test]
    fn a_cut_or_extended_packet_is_malformed(built in any_packet(), cut in any::<prop::sample::Index>()) {
        prop_assert!(IpPacket::parse(&built.bytes[..cut.index(built.bytes.len())]).is_err());
        let mut longer = built.bytes.clone();
        longer.push(0);
        prop_assert!(IpPacket::parse(&longer).is_err());
    }
}

fn refusal(bytes: &[u8]) -> String {
    IpPacket::parse(bytes).unwrap_err().to_string()
}

#[test]
fn refusals_name_what_and_where() {
    assert_eq!(refusal(&[]), "malformed packet: empty at octet 0");
    assert_eq!(refusal(&[0x45; 19]), "malformed packet: IPv4 header length at octet 0");
    assert_eq!(refusal(&[0x60; 39]), "malformed packet: IPv6 header is cut short at octet 0");
    assert_eq!(refusal(&udp_v4(10)[..30]), "malformed packet: IPv4 Total Length is not the packet's length at octet 2");
    assert_eq!(refusal(&udp_v6(10)[..50]), "malformed packet: IPv6 Payload Length is not the packet's length at octet 4");
    assert_eq!(refusal(&[0x50; 40]), "malformed packet: IP version is neither 4 nor 6 at octet 0");
    let mut short_header = udp_v4(10);
    short_header[0] = 0x44;
    assert_eq!(refusal(&short_header), "malformed packet: IPv4 header length at octet 0");
    assert_eq!(refusal(&ipv4(&[7, 1, 0, 0], 17, &udp(1, 2, 3))), "malformed packet: IPv4 option length at octet 20");
    assert_eq!(refusal(&ipv4(&[1, 1, 1, 130], 17, &udp(1, 2, 3))), "malformed packet: IPv4 option length at octet 23");
    assert_eq!(refusal(&ipv4(&[131, 3, 3, 0], 17, &udp(1, 2, 3))), "malformed packet: IPv4 source route at octet 20");
    assert_eq!(refusal(&ipv4(&[], 51, &[17, 4, 0, 0])), "malformed packet: AH is cut short at octet 20");
    assert_eq!(refusal(&ipv4(&[], 51, &[17, 0, 0, 0, 0, 0, 0, 0])), "malformed packet: AH Payload Len is too small at octet 20");
    assert_eq!(refusal(&ipv6(0, &[17, 0, 5, 9, 0, 0, 0, 0])), "malformed packet: IPv6 option length at octet 40");
    assert_eq!(refusal(&ipv6(60, &[17, 1, 1, 4, 0, 0, 0, 0])), "malformed packet: extension header is cut short at octet 40");
    let second_hop_by_hop = [[0, 0, 1, 4, 0, 0, 0, 0], [17, 0, 1, 4, 0, 0, 0, 0]].concat();
    assert_eq!(refusal(&ipv6(0, &second_hop_by_hop)), "malformed packet: Hop-by-Hop Options header is not the first at octet 48");
    assert_eq!(refusal(&ipv6(43, &[17, 0, 0, 1, 0, 0, 0, 0])), "malformed packet: more segments left than addresses at octet 40");
    assert_eq!(
        refusal(&ipv6(43, &[[17, 1, 0, 0, 0, 0, 0, 0], [0; 8]].concat())),
        "malformed packet: length of a routing header at octet 40"
    );
    assert_eq!(refusal(&ipv6(60, &[[60, 0, 1, 4, 0, 0, 0, 0]; 13].concat())), "malformed packet: too many extension headers at octet 136");
}

#[test]
fn a_fragment_has_neither_ah_nor_flow() {
    let ah = [&[17, 5, 0, 0][..], &[0; 24], &udp(4000, 9000, 20)].concat();
    let whole = ipv4(&[], 51, &ah);
    assert!(IpPacket::parse(&whole).unwrap().ah().is_some());
    for (octets, expected) in [([0x20, 0], Fragment { offset: 0, more: true }), ([0x40, 2], Fragment { offset: 16, more: false })] {
        let mut bytes = whole.clone();
        bytes[6..8].copy_from_slice(&octets);
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!((packet.fragment(), packet.flow()), (Some(expected), None));
        assert!(packet.ah().is_none());
    }
    let fragment = ipv6(44, &[&[51, 0, 0, 1, 0, 0, 0, 9][..], &ah].concat());
    let packet = IpPacket::parse(&fragment).unwrap();
    assert_eq!((packet.fragment(), packet.flow()), (Some(Fragment { offset: 0, more: true }), None));
    assert!(packet.ah().is_none());
}

#[test]
fn an_atomic_fragment_is_a_whole_datagram() {
    let bytes = ipv6(44, &[&[17, 0, 0, 0, 0, 0, 0, 9][..], &udp(4000, 9000, 20)].concat());
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.fragment(), packet.flow()), (None, Some(flow_v6())));
}

#[test]
fn a_transport_header_too_short_for_its_ports_has_no_flow() {
    for bytes in [ipv4(&[], 17, &[1, 2, 3]), ipv6(6, &[1, 2, 3])] {
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!((packet.ports(), packet.flow()), (Ports::Unreadable, None));
    }
}

#[test]
fn an_unknown_next_header_is_a_protocol_without_ports_and_nothing_is_guessed_behind_it() {
    let bytes = ipv6(135, &[17, 0, 5, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
    let packet = IpPacket::parse(&bytes).unwrap();
    assert_eq!((packet.protocol(), packet.ports()), (135, Ports::None));
}

#[test]
fn source_routes_show_where_the_packet_will_be() {
    let route = |pointer| [131, 11, pointer, 10, 0, 0, 1, 10, 0, 0, 2, 1];
    let to_go = ipv4(&route(4), 17, &udp(4000, 9000, 1));
    let packet = IpPacket::parse(&to_go).unwrap();
    assert!(packet.is_source_routed());
    assert_eq!(packet.final_destination().to_string(), "10.0.0.2");
    assert_eq!(packet.flow().unwrap().destination.to_string(), "10.0.0.2");
    let used_up = ipv4(&route(12), 17, &udp(4000, 9000, 1));
    let packet = IpPacket::parse(&used_up).unwrap();
    assert!(packet.is_source_routed());
    assert_eq!(packet.final_destination(), packet.destination());
    let routing = |left| [&[17, 4, 0, left, 0, 0, 0, 0][..], &[7; 16], &[9; 16], &udp(4000, 9000, 1)].concat();
    let to_go = ipv6(43, &routing(1));
    let packet = IpPacket::parse(&to_go).unwrap();
    assert!(packet.is_source_routed());
    assert_eq!(packet.final_destination().to_string(), "909:909:909:909:909:909:909:909");
    let used_up = ipv6(43, &routing(0));
    let packet = IpPacket::parse(&used_up).unwrap();
    assert!(!packet.is_source_routed());
    assert_eq!(packet.final_destination(), packet.destination());
}
