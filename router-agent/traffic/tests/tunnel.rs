//! Packets in packets: what goes in comes out, and nothing else does (X-99; RFC 2003, RFC 2473, RFC 6040).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use proptest::prelude::*;
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};
use support::*;
use traffic::packet::IpPacket;
use traffic::tunnel::{Ends, IPV4_INSIDE, IPV6_INSIDE, PackError, UnpackError, overhead, pack, unpack};

fn ends(ipv4: bool) -> Ends {
    let [source, destination] = if ipv4 { ["192.0.2.1", "192.0.2.2"] } else { ["2001:db8::1", "2001:db8::2"] };
    Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn packed(inner: &[u8], ends: &Ends) -> Vec<u8> {
    let mut outer = Vec::new();
    pack(inner, ends, 64, &mut outer).unwrap();
    outer
}

#[test]
fn what_goes_in_comes_out_in_all_four_pairs_of_versions() {
    for (inner, protocol) in [(udp_v4(100), IPV4_INSIDE), (udp_v6(100), IPV6_INSIDE)] {
        for ipv4 in [true, false] {
            let ends = ends(ipv4);
            let outer = packed(&inner, &ends);
            assert_eq!(outer.len(), inner.len() + overhead(&ends));
            assert!(IpPacket::parse(&outer).is_ok(), "an IP packet like any other");
            let seen = if ipv4 { outer[9] } else { outer[6] };
            assert_eq!(seen, protocol);
            if ipv4 {
                assert!(Ipv4Packet::new_checked(&outer[..]).unwrap().verify_checksum());
            }
            let out = unpack(&outer).unwrap();
            assert_eq!((out.ends, out.inner, out.congested), (ends, &inner[..], false));
        }
    }
}

#[test]
fn an_ipv4_packet_that_must_stay_whole_does_so_in_the_tunnel() {
    for whole in [true, false] {
        let mut inner = udp_v4(100);
        let mut view = Ipv4Packet::new_unchecked(&mut inner[..]);
        view.set_dont_frag(whole);
        view.fill_checksum();
        assert_eq!(Ipv4Packet::new_unchecked(&packed(&inner, &ends(true))[..]).dont_frag(), whole);
    }
}

#[test]
fn congestion_on_the_way_is_told_or_the_packet_dropped() {
    for (inner_ecn, expected) in [(0, Err(UnpackError::Congested)), (1, Ok(true)), (2, Ok(true)), (3, Ok(true))] {
        let mut inner = udp_v6(10);
        Ipv6Packet::new_unchecked(&mut inner[..]).set_traffic_class(0xb8 | inner_ecn);
        let mut outer = packed(&inner, &ends(false));
        assert_eq!(Ipv6Packet::new_unchecked(&outer[..]).traffic_class(), 0xb8 | inner_ecn);
        Ipv6Packet::new_unchecked(&mut outer[..]).set_traffic_class(0xbb);
        assert_eq!(unpack(&outer).map(|out| out.congested), expected);
    }
}

#[test]
fn what_is_no_packet_of_the_tunnel_is_refused() {
    assert_eq!(unpack(&udp_v4(100)), Err(UnpackError::NotOfTunnel));
    let mut lies = packed(&udp_v4(100), &ends(false));
    lies[6] = IPV6_INSIDE;
    assert_eq!(unpack(&lies), Err(UnpackError::NotOfTunnel));
    let mut fragment = packed(&udp_v4(100), &ends(true));
    let mut view = Ipv4Packet::new_unchecked(&mut fragment[..]);
    view.set_more_frags(true);
    view.fill_checksum();
    assert_eq!(unpack(&fragment), Err(UnpackError::Fragment));
    let mut out = vec![1];
    assert!(matches!(pack(&[0x45, 0], &ends(true), 64, &mut out), Err(PackError::Malformed(_))));
    assert!(out.is_empty());
    let mixed = Ends { source: ends(true).source, destination: ends(false).destination };
    assert_eq!(pack(&udp_v4(1), &mixed, 64, &mut out), Err(PackError::MixedVersions));
    assert_eq!(pack(&udp_v4(65_535 - 28), &ends(true), 64, &mut out), Err(PackError::TooLong));
}

proptest! {
    /// Whatever an attacker sends: a well-formed inner packet that is a part of it, or nothing.
    #[test]
    fn arbitrary_octets_give_a_whole_inner_packet_or_none(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(out) = unpack(&octets) {
            prop_assert!(IpPacket::parse(out.inner).is_ok());
        }
        let mut outer = Vec::new();
        if pack(&octets, &ends(true), 1, &mut outer).is_ok() {
            prop_assert_eq!(unpack(&outer).unwrap().inner, &octets[..]);
        }
    }

    /// One octet changed on the way: the same, and never more than was sent.
    #[test]
    fn an_altered_packet_gives_a_whole_inner_packet_or_none(at in 0_usize..168, value: u8, six: bool, outer_six: bool) {
        let inner = if six { udp_v6(100) } else { udp_v4(100) };
        let mut outer = packed(&inner, &ends(!outer_six));
        let at = at.min(outer.len() - 1);
        outer[at] = value;
        if let Ok(out) = unpack(&outer) {
            prop_assert!(IpPacket::parse(out.inner).is_ok() && out.inner.len() <= inner.len());
        }
    }
}
