//! AH on packets: insert, verify, remove, and what may change on the way (RFC 4302).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use proptest::prelude::*;
use support::*;
use traffic::ah::{self, InboundAssociation, InsertError, Number, Rejection};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::packet::IpPacket;
use traffic::replay::{Numbering, Replay, Window};

const SPI: u32 = 0x0001_0203;

fn insert(bytes: &[u8], key: &IcvKey, number: Number) -> Vec<u8> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(bytes).unwrap(), SPI, number, key, &mut out).unwrap();
    out
}

fn short(low: u32) -> Number {
    Number { low, high: None }
}

fn matches(bytes: &[u8], key: &IcvKey, high: Option<u32>) -> bool {
    IpPacket::parse(bytes).is_ok_and(|packet| ah::icv_matches(&packet, key, high))
}

proptest! {
    /// P-041, P-156: the flow is that of the protocol behind AH.
    #[test]
    fn what_was_inserted_verifies_and_shows_the_same_flow(built in any_packet(), algorithm in any_algorithm(), low: u32, high: Option<u32>) {
        let key = key(algorithm, 7);
        let bytes = insert(&built.bytes, &key, Number { low, high });
        let packet = IpPacket::parse(&bytes).unwrap();
        let view = packet.ah().unwrap();
        prop_assert_eq!((view.spi(), view.sequence(), view.reserved()), (SPI, low, 0));
        prop_assert_eq!(packet.flow(), Some(built.flow));
        prop_assert!(ah::icv_matches(&packet, &key, high));
        // Neither another key nor other high-order bits.
        prop_assert!(!ah::icv_matches(&packet, &support::key(algorithm, 8), high));
        prop_assert!(!ah::icv_matches(&packet, &key, Some(high.map_or(0, |high| high ^ 1))));
        // RFC 4302 §2.6, §3.3.3.2.1: least padding.
        let expected = match (built.flow.source.is_ipv6(), algorithm) {
            (false, MacAlgorithm::HmacSha256_128) => 28,
            (true, MacAlgorithm::HmacSha256_128) => 32,
            (_, MacAlgorithm::HmacSha1_96) => 24,
            (false, MacAlgorithm::Aes128Gmac | MacAlgorithm::Aes256Gmac) => 36,
            (true, MacAlgorithm::Aes128Gmac | MacAlgorithm::Aes256Gmac) => 40,
        };
        prop_assert_eq!(bytes.len() - built.bytes.len(), expected);
        prop_assert_eq!(usize::from(view.payload_len()), expected / 4 - 2);
        prop_assert_eq!(&bytes[built.ah_at + 12 + algorithm.icv_len()..built.ah_at + expected], &[0u8; 4][..expected - 12 - algorithm.icv_len()]);
    }

    /// P-162.
    #[test]
    fn remove_undoes_insert(built in any_packet(), algorithm in any_algorithm(), low: u32) {
        let bytes = insert(&built.bytes, &key(algorithm, 7), short(low));
        let mut out = vec![1, 2, 3];
        ah::remove(&IpPacket::parse(&bytes).unwrap(), &mut out).unwrap();
        prop_assert_eq!(out, built.bytes);
    }

    #[test]
    fn the_ipv4_header_checksum_is_right_after_insert(built in any_packet(), low: u32) {
        let bytes = insert(&built.bytes, &key(MacAlgorithm::HmacSha256_128, 7), short(low));
        if built.flow.source.is_ipv4() {
            prop_assert_eq!(sum(&bytes[..4 * usize::from(bytes[0] & 0xf)]), 0xffff);
        }
    }

    /// P-155.
    #[test]
    fn a_change_where_change_is_allowed_does_not_matter(built in any_packet(), algorithm in any_algorithm(), at in any::<prop::sample::Index>(), octet: u8) {
        let key = key(algorithm, 7);
        let mut bytes = insert(&built.bytes, &key, short(1));
        let places: Vec<usize> = (0..built.ah_at).filter(|at| built.mutable[*at] != 0).collect();
        let at = places[at.index(places.len())];
        bytes[at] ^= octet & built.mutable[at];
        prop_assert!(matches(&bytes, &key, None));
    }

    /// P-155.
    #[test]
    fn a_change_of_any_other_bit_is_found(built in any_packet(), algorithm in any_algorithm(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let key = key(algorithm, 7);
        let mut bytes = insert(&built.bytes, &key, short(1));
        let at = at.index(bytes.len());
        let excused = if at < built.ah_at { built.mutable[at] | built.unclear[at] } else { 0 };
        prop_assume!(excused & (1 << bit) == 0);
        bytes[at] ^= 1 << bit;
        prop_assert!(!matches(&bytes, &key, None));
    }

    #[test]
    fn no_octets_make_ah_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), built in any_packet()) {
        let key = key(MacAlgorithm::HmacSha256_128, 7);
        let mut mangled = insert(&built.bytes, &key, short(1));
        let at = at.index(mangled.len());
        let len = bytes.len().min(mangled.len() - at).min(9);
        mangled[at..at + len].copy_from_slice(&bytes[..len]);
        let mut out = Vec::new();
        for bytes in [&bytes, &mangled] {
            if let Ok(packet) = IpPacket::parse(bytes) {
                let _ = (ah::icv_matches(&packet, &key, Some(3)), ah::remove(&packet, &mut out), ah::insert(&packet, SPI, short(1), &key, &mut out));
            }
        }
    }

    #[test]
    fn on_every_hop_of_a_routing_header_the_icv_is_right(addresses in proptest::collection::vec(any::<[u8; 16]>(), 1..6), behind in any::<bool>()) {
        let key = key(MacAlgorithm::HmacSha256_128, 7);
        let count = addresses.len();
        let options = if behind { &[17, 0, 1, 4, 0, 0, 0, 0][..] } else { &[] };
        let header = [&[if behind { 60 } else { 17 }, 2 * count as u8, 0, count as u8, 1, 2, 3, 4][..], &addresses.concat(), options, &udp(1, 2, 30)].concat();
        let mut bytes = insert(&ipv6(43, &header), &key, short(1));
        for visited in 0..=count {
            prop_assert!(matches(&bytes, &key, None), "after {} hops", visited);
            if visited < count {
                // RFC 2460 §4.4: the node named in the destination swaps it with the next address.
                bytes[43] -= 1;
                let at = 48 + 16 * visited;
                let (head, tail) = bytes.split_at_mut(40);
                head[24..40].swap_with_slice(&mut tail[at - 40..at - 24]);
            }
        }
        let packet = IpPacket::parse(&bytes).unwrap();
        prop_assert!(!packet.is_source_routed());
        // Once there, the destination counts.
        bytes[39] ^= 1;
        prop_assert!(!matches(&bytes, &key, None));
    }

    #[test]
    fn on_every_hop_of_a_source_route_the_icv_is_right(hops in proptest::collection::vec(any::<[u8; 4]>(), 1..9), strict: bool, own: [u8; 4]) {
        let key = key(MacAlgorithm::HmacSha1_96, 7);
        let mut options = [&[if strict { 137 } else { 131 }, 3 + 4 * hops.len() as u8, 4][..], &hops.concat()].concat();
        options.push(1);
        let mut bytes = insert(&ipv4(&options, 17, &udp(1, 2, 30)), &key, short(1));
        for visited in 0..=hops.len() {
            prop_assert!(matches(&bytes, &key, None), "after {} hops", visited);
            if visited < hops.len() {
                // RFC 791 §3.1: the next address becomes the destination, the node's own takes its place.
                let at = 20 + usize::from(bytes[22]) - 1;
                let next: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
                bytes[16..20].copy_from_slice(&next);
                bytes[at..at + 4].copy_from_slice(&own);
                bytes[22] += 4;
                fix_checksum(&mut bytes);
            }
        }
    }
}

#[test]
fn a_fragment_header_left_by_reassembly_is_not_part_of_the_icv() {
    // RFC 4302 appendix A2.
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    let sealed = insert(&udp_v6(40), &key, short(1));
    let left_in_place = ipv6(44, &[&[51, 0, 0, 0, 0, 0, 0, 9][..], &sealed[40..]].concat());
    assert!(matches(&left_in_place, &key, None));
    let behind_options = insert(&ipv6(0, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(4000, 9000, 9)].concat()), &key, short(1));
    let mut left_in_place = ipv6(0, &[&behind_options[40..48], &[51, 0, 0, 0, 0, 0, 0, 9][..], &behind_options[48..]].concat());
    left_in_place[40] = 44;
    assert!(matches(&left_in_place, &key, None));
    // A sender that puts AH behind an atomic fragment's header computes the same.
    let atomic = ipv6(44, &[&[17, 0, 0, 0, 0, 0, 0, 9][..], &udp(4000, 9000, 40)].concat());
    assert_eq!(insert(&atomic, &key, short(1))[48..], sealed[40..]);
}

#[test]
fn a_routing_header_of_unknown_form_gives_no_icv_while_segments_are_left() {
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    let with = |left| ipv6(43, &[&[17, 0, 77, left, 1, 2, 3, 4][..], &udp(1, 2, 3)].concat());
    let used_up = with(0);
    assert!(matches(&insert(&used_up, &key, short(1)), &key, None));
    let mut out = Vec::new();
    let to_go = with(1);
    let refused = ah::insert(&IpPacket::parse(&to_go).unwrap(), SPI, short(1), &key, &mut out);
    assert_eq!((refused, out.len()), (Err(InsertError::Unpredictable), 0));
}

#[test]
fn fragments_and_packets_that_would_grow_too_long_get_no_ah() {
    // P-160, X-87.
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    let mut out = Vec::new();
    let mut fragment = udp_v4(20);
    fragment[6] = 0x20;
    assert_eq!(ah::insert(&IpPacket::parse(&fragment).unwrap(), SPI, short(1), &key, &mut out), Err(InsertError::Fragment));
    for bytes in [udp_v4(65_535 - 28), udp_v6(65_535 - 8)] {
        assert_eq!(ah::insert(&IpPacket::parse(&bytes).unwrap(), SPI, short(1), &key, &mut out), Err(InsertError::TooLong));
    }
    let fits = udp_v4(65_535 - 28 - 28);
    assert_eq!(ah::insert(&IpPacket::parse(&fits).unwrap(), SPI, short(1), &key, &mut out), Ok(()));
    assert_eq!(out.len(), 65_535);
}

#[test]
fn a_second_ah_goes_before_the_first_and_each_verifies_in_turn() {
    // RFC 4302 §3.1.1: before any other IPsec headers that have already been inserted.
    let (inner, outer) = (key(MacAlgorithm::HmacSha1_96, 1), key(MacAlgorithm::HmacSha256_128, 2));
    for bytes in [udp_v4(20), udp_v6(20)] {
        let once = insert(&bytes, &inner, short(1));
        let twice = insert(&once, &outer, short(9));
        assert!(matches(&twice, &outer, None) && !matches(&twice, &inner, None));
        let packet = IpPacket::parse(&twice).unwrap();
        // Nothing behind the first AH is taken for the flow's transport but what it names.
        assert_eq!((packet.protocol(), packet.flow().unwrap().destination_port), (51, 0));
        let mut out = Vec::new();
        ah::remove(&packet, &mut out).unwrap();
        assert_eq!(out, once);
    }
}

fn association(numbering: Numbering) -> InboundAssociation {
    InboundAssociation::new(SPI, key(MacAlgorithm::HmacSha256_128, 7), Window::new(64, numbering).unwrap().with_tags())
}

fn verify(association: &mut InboundAssociation, bytes: &[u8]) -> Result<(), Rejection> {
    let packet = IpPacket::parse(bytes).unwrap();
    let verified = association.verify(&packet, &Strict)?;
    association.commit(verified);
    Ok(())
}

#[test]
fn linux_pads_to_8_octets_on_ipv4_and_is_understood_but_nothing_longer_is() {
    let mut association = association(Numbering::Short);
    let with_padding = |padding: usize, number: u8| {
        // Written by hand: the code under test never pads so. The ICV comes from the vectors' own algorithm.
        let payload_len = (12 + 16 + padding) / 4 - 2;
        let fixed = [&[17, payload_len as u8, 0, 0][..], &SPI.to_be_bytes(), &[0, 0, 0, number]].concat();
        let mut bytes = ipv4(&[], 51, &[&fixed[..], &[0; 16], &vec![0; padding], &udp(1, 2, 8)].concat());
        let mut input = bytes.clone();
        input[1] = 0;
        input[6..9].fill(0);
        input[10..12].fill(0);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]);
        bytes[32..48].copy_from_slice(&ring::hmac::sign(&key, &input).as_ref()[..16]);
        bytes
    };
    assert_eq!(verify(&mut association, &with_padding(0, 1)), Ok(()));
    assert_eq!(verify(&mut association, &with_padding(4, 2)), Ok(()));
    assert_eq!(verify(&mut association, &with_padding(8, 3)), Err(Rejection::Length));
    assert_eq!(verify(&mut association, &with_padding(12, 4)), Err(Rejection::Length));
}

#[test]
fn an_association_judges_in_the_order_of_the_rfc_and_moves_only_on_a_right_icv() {
    // P-158.
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    let mut association = association(Numbering::Short);
    assert_eq!(verify(&mut association, &udp_v4(20)), Err(Rejection::NoAh));
    let good = insert(&udp_v4(20), &key, short(5));
    let mut other_spi = good.clone();
    other_spi[27] ^= 1;
    assert_eq!(verify(&mut association, &other_spi), Err(Rejection::OtherSpi));
    let mut forged = insert(&udp_v4(20), &support::key(MacAlgorithm::HmacSha256_128, 8), short(500));
    assert_eq!(verify(&mut association, &forged), Err(Rejection::Icv));
    assert_eq!(association.window().highest(), 0);
    assert_eq!(verify(&mut association, &good), Ok(()));
    assert_eq!(verify(&mut association, &good), Err(Rejection::Replayed(Replay::Seen)));
    assert_eq!(verify(&mut association, &insert(&udp_v4(20), &key, short(0))), Err(Rejection::Replayed(Replay::Zero)));
    assert_eq!(verify(&mut association, &insert(&udp_v4(20), &key, short(100))), Ok(()));
    assert_eq!(verify(&mut association, &insert(&udp_v4(20), &key, short(36))), Err(Rejection::Replayed(Replay::TooOld)));
    assert_eq!(verify(&mut association, &insert(&udp_v4(20), &key, short(37))), Ok(()));
    forged[6] = 0x20;
    assert_eq!(verify(&mut association, &forged), Err(Rejection::Fragment));
}

#[test]
fn extended_numbers_cross_into_the_next_subspace() {
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    let mut association = InboundAssociation::new(SPI, key.clone(), Window::new(64, Numbering::Extended).unwrap().starting_at(0xffff_fff0));
    let with = |number: u64| insert(&udp_v6(20), &key, Number { low: number as u32, high: Some((number >> 32) as u32) });
    for number in [0xffff_fff5, 0x1_0000_0000, 0x1_0000_0007, 0xffff_fff9] {
        assert_eq!(verify(&mut association, &with(number)), Ok(()), "{number:x}");
        assert_eq!(verify(&mut association, &with(number)), Err(Rejection::Replayed(Replay::Seen)), "{number:x}");
    }
    // The same lower half with other high-order bits.
    assert_eq!(verify(&mut association, &with(0x2_0000_0009)), Err(Rejection::Icv));
}

#[test]
fn two_right_icvs_under_one_number_show_a_second_holder_of_the_key() {
    // P-182.
    // E4.
    let key = key(MacAlgorithm::HmacSha256_128, 7);
    let mut association = association(Numbering::Short);
    let (first, other) = (insert(&udp_v4(20), &key, short(5)), insert(&udp_v4(21), &key, short(5)));
    let shows = |association: &InboundAssociation, bytes: &[u8]| association.shows_second_holder(&IpPacket::parse(bytes).unwrap(), &Strict);
    assert!(!shows(&association, &first));
    assert_eq!(verify(&mut association, &first), Ok(()));
    assert!(!shows(&association, &first), "a plain duplicate");
    assert!(shows(&association, &other));
    let forged = insert(&udp_v4(21), &support::key(MacAlgorithm::HmacSha256_128, 8), short(5));
    assert!(!shows(&association, &forged), "no key");
}
