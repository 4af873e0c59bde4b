//! ICMP errors about packets with AH: the sender translates "too big", routers let errors about their flows pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::icmp::{QuotingError, translate};
use traffic::inserter::{Inserter, InserterConfig};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::tunnel::{Ends, IPV4_INSIDE, IPV6_INSIDE, pack};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const SPI: u32 = 0xabcd;
const NOW: Instant = Instant::from_micros_const(1_000_000);
const END: Instant = Instant::from_micros_const(100_000_000);
/// The link behind the router.
const LINK: u32 = 1400;
/// How many numbers the flow has used.
const USED: u32 = 5;

fn secret() -> IcvKey {
    key(MacAlgorithm::HmacSha256_128, 7)
}

fn with_ah(packet: &[u8], number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(packet).unwrap(), SPI, Number { low: number, high: None }, &secret(), &mut out).unwrap();
    out
}

/// ICMP from a router, of this type and code, with these four octets, about `packet`, of which it quotes what it may.
fn error(packet: &[u8], kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
    let is_ipv4 = packet[0] >> 4 == 4;
    let quote = &packet[..packet.len().min(if is_ipv4 { 548 } else { 1232 })];
    let message = [&[kind, code, 0, 0], &rest[..], quote].concat();
    let mut bytes = if is_ipv4 { ipv4(&[], 1, &message) } else { ipv6(58, &message) };
    if is_ipv4 {
        bytes[12..16].copy_from_slice(&[192, 168, 22, 1]);
        bytes[16..20].copy_from_slice(&packet[12..16]);
        fix_checksum(&mut bytes);
    } else {
        bytes[8..24].copy_from_slice(&[0xfd, 0x22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes[24..40].copy_from_slice(&packet[8..24]);
    }
    fix_message(&mut bytes);
    bytes
}

fn too_big(packet: &[u8], mtu: u32) -> Vec<u8> {
    if packet[0] >> 4 == 4 { error(packet, 3, 4, mtu.to_be_bytes()) } else { error(packet, 2, 0, mtu.to_be_bytes()) }
}

/// Sets the checksum of an ICMP message behind a header without options.
fn fix_message(bytes: &mut [u8]) {
    let at = if bytes[0] >> 4 == 4 { 20 } else { 40 };
    bytes[at + 2..at + 4].fill(0);
    let checksum = !message_sum(bytes);
    bytes[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
}

/// All ones if the checksum is right.
fn message_sum(bytes: &[u8]) -> u16 {
    if bytes[0] >> 4 == 4 {
        return sum(&bytes[20..]);
    }
    let len = u32::try_from(bytes.len() - 40).unwrap().to_be_bytes();
    sum(&[&bytes[8..40], &len, &[0, 0, 0, 58], &bytes[40..]].concat())
}

fn install(flow: Flow) -> Update {
    Update::Install { token: 1, grant: Grant { flow, spi: SPI, key: secret(), allowed: 1 << 30, counted: 0, highest: 0, expires_at: END } }
}

/// A sender's host or a router with the two flows of `support`, which have used [`USED`] numbers each.
struct Fixture {
    processor: Box<dyn PacketProcessor>,
    counters: Arc<Counters>,
}

impl Fixture {
    fn sender() -> Self {
        let counters = Arc::new(Counters::default());
        Self::used(Box::new(Inserter::new(InserterConfig::default(), Arc::new(Strict), counters.clone())), counters, |packet, _| packet)
    }

    fn router() -> Self {
        let counters = Arc::new(Counters::default());
        let verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), counters.clone()).unwrap();
        Self::used(Box::new(verifier), counters, |packet, number| with_ah(&packet, number))
    }

    fn used(mut processor: Box<dyn PacketProcessor>, counters: Arc<Counters>, packet: fn(Vec<u8>, u32) -> Vec<u8>) -> Self {
        for (flow, plain) in [(flow_v4(), udp_v4(1400)), (flow_v6(), udp_v6(1400))] {
            processor.apply(install(flow), NOW).unwrap();
            for number in 1..=USED {
                let verdict = processor.process(PacketId(number.into()), &packet(plain.clone(), number), NOW);
                assert!(matches!(verdict, Verdict::Accept | Verdict::Replace { .. }), "{verdict:?}");
            }
        }
        Self { processor, counters }
    }

    /// What becomes of an error that has come over a link.
    fn hear(&mut self, bytes: &[u8]) -> Result<Vec<u8>, DropReason> {
        self.hear_at(bytes, NOW)
    }

    fn hear_at(&mut self, bytes: &[u8], now: Instant) -> Result<Vec<u8>, DropReason> {
        match self.processor.process_arrived(PacketId(9), bytes, now) {
            Verdict::Accept => Ok(bytes.to_vec()),
            Verdict::Replace { payload, mark: None } => Ok(payload.to_vec()),
            Verdict::Drop(reason) => Err(reason),
            other => panic!("{other:?}"),
        }
    }
}

fn families() -> [(Vec<u8>, u32); 2] {
    [(udp_v4(1400), LINK - 76), (udp_v6(1400), LINK - 80)]
}

/// what the sender's own stack hears is about the packet that its program has sent, with room for the largest protection.
#[test]
fn the_sender_hears_of_its_own_packet_and_of_an_mtu_that_leaves_room_for_the_largest_ah() {
    for (plain, expected) in families() {
        let mut sender = Fixture::sender();
        let sent = with_ah(&plain, USED);
        let heard = sender.hear(&too_big(&sent, LINK)).unwrap();
        let (header, ip) = if plain[0] >> 4 == 4 { (8, 20) } else { (8, 40) };
        IpPacket::parse(&heard).unwrap();
        assert_eq!(message_sum(&heard), 0xffff);
        let mtu: [u8; 4] = heard[ip + 4..ip + 8].try_into().unwrap();
        assert_eq!(u32::from_be_bytes(mtu), expected);
        // Length and checksum of the quoted header are those of the packet before AH was put on it.
        let quoted = &heard[ip + header..];
        assert_eq!(quoted, &plain[..quoted.len()]);
        assert!(quoted.len() > 400);
        let destination = IpPacket::parse(&plain).unwrap().destination();
        assert_eq!(sender.processor.poll_event(), Some(Event::PathMtu { destination, mtu: LINK, way: 0 }));
        if plain[0] >> 4 == 4 {
            assert_eq!(sum(&heard[..20]), 0xffff);
        }
    }
}

#[test]
fn the_first_fragment_of_a_packet_with_ah_is_known_by_its_ah_and_later_ones_are_not_believed() {
    let sent = with_ah(&udp_v6(3000), USED);
    let fragment = |place: u16, data: &[u8]| {
        let mut bytes = [&sent[..40], &[51, 0, 0, 0, 1, 2, 3, 4], data].concat();
        bytes[6] = 44;
        let len = u16::try_from(bytes.len() - 40).unwrap();
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
        bytes[42..44].copy_from_slice(&place.to_be_bytes());
        bytes
    };
    let mut sender = Fixture::sender();
    sender.processor.process(PacketId(9), &udp_v6(3000), NOW);
    let heard = sender.hear(&too_big(&fragment(1, &sent[40..1480]), LINK)).unwrap();
    assert_eq!((heard[48 + 6], heard[48 + 40]), (44, 17), "UDP behind the Fragment header");
    assert_eq!(sender.hear(&too_big(&fragment(1441, &sent[1480..2900]), LINK)), Err(DropReason::NoPermission));
}

#[test]
fn only_errors_about_packets_that_the_flow_has_sent_lately_count() {
    for (plain, _) in families() {
        let is_ipv4 = plain[0] >> 4 == 4;
        let (ip, source) = if is_ipv4 { (20, 12) } else { (40, 8) };
        let ah_at = ip + 8 + ip;
        let right = too_big(&with_ah(&plain, USED), LINK);
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = right.clone();
            change(&mut bytes);
            fix_message(&mut bytes);
            bytes
        };
        let later = too_big(&with_ah(&plain, USED + 1), LINK);
        let cases = [
            (later, DropReason::ImplausibleError),
            (too_big(&with_ah(&plain, 0), LINK), DropReason::ImplausibleError),
            (too_big(&with_ah(&plain, USED), 1500), DropReason::ImplausibleError),
            (too_big(&with_ah(&plain, USED), 67), DropReason::ImplausibleError),
            (changed(&|bytes| bytes[ah_at + 4] ^= 1), DropReason::UnknownSpi),
            (changed(&|bytes| bytes[ah_at + 28 + if is_ipv4 { 0 } else { 4 }] ^= 1), DropReason::UnknownSpi),
            (changed(&|bytes| bytes[ip + 8 + source] ^= 1), DropReason::UnknownSpi),
            (changed(&|bytes| bytes.truncate(bytes.len() - 1)), DropReason::Malformed),
            (error(&plain, if is_ipv4 { 3 } else { 2 }, if is_ipv4 { 4 } else { 0 }, LINK.to_be_bytes()), DropReason::NoPermission),
            (error(&with_ah(&plain, USED), if is_ipv4 { 3 } else { 1 }, 1, [0; 4]), DropReason::NoPermission),
            (
                error(&with_ah(&plain, USED)[..ip + 30], if is_ipv4 { 3 } else { 2 }, if is_ipv4 { 4 } else { 0 }, LINK.to_be_bytes()),
                DropReason::Malformed,
            ),
            (plain.clone(), DropReason::NoPermission),
        ];
        for (at, (bytes, reason)) in cases.into_iter().enumerate() {
            let mut sender = Fixture::sender();
            assert_eq!(sender.hear(&bytes), Err(reason), "case {at}");
            assert_eq!((sender.counters.dropped(reason).packets, sender.processor.poll_event()), (1, None), "case {at}");
        }
        let mut wrong_checksum = right.clone();
        wrong_checksum[ip + 2] ^= 1;
        assert_eq!(Fixture::sender().hear(&wrong_checksum), Err(DropReason::Malformed));
        let mut to_another = right.clone();
        to_another[if is_ipv4 { 19 } else { 39 }] ^= 2;
        if is_ipv4 {
            fix_checksum(&mut to_another);
        }
        fix_message(&mut to_another);
        assert_eq!(Fixture::sender().hear(&to_another), Err(DropReason::FlowMismatch));
        assert_eq!(Fixture::sender().hear_at(&right, END), Err(DropReason::Expired));
    }
}

#[test]
fn after_ten_errors_at_once_a_flow_hears_ten_a_second_and_others_are_as_before() {
    let mut sender = Fixture::sender();
    let right = too_big(&with_ah(&udp_v4(1400), USED), LINK);
    for _ in 0..10 {
        sender.hear(&right).unwrap();
    }
    assert_eq!(sender.hear(&right), Err(DropReason::ErrorRate));
    sender.hear(&too_big(&with_ah(&udp_v6(1400), USED), LINK)).unwrap();
    sender.hear_at(&right, NOW + Duration::from_millis(100)).unwrap();
}

/// in reverse, only about what has passed here.
#[test]
fn a_router_lets_errors_about_its_flows_pass_and_nothing_else_that_looks_like_one() {
    for (plain, _) in families() {
        let is_ipv4 = plain[0] >> 4 == 4;
        let sent = with_ah(&plain, USED);
        let kinds: &[(u8, u8)] = if is_ipv4 { &[(3, 4), (3, 1), (11, 0), (12, 0)] } else { &[(2, 0), (1, 0), (3, 0), (4, 0)] };
        for (kind, code) in kinds {
            let rest = if *code == 4 || *kind == 2 { LINK.to_be_bytes() } else { [0; 4] };
            let right = error(&sent, *kind, *code, rest);
            let passed = Fixture::router().hear(&right).unwrap();
            let ip = if is_ipv4 { 20 } else { 40 };
            assert_eq!((&passed[ip..ip + 2], &passed[ip + 4..]), (&right[ip..ip + 2], &right[ip + 4..passed.len()]));
        }
        let of_another_flow = if is_ipv4 { ipv4(&[], 17, &udp(4000, 9001, 1400)) } else { ipv6(17, &udp(4000, 9001, 1400)) };
        let mut unknown = with_ah(&plain, USED);
        unknown[if is_ipv4 { 24 } else { 44 }] ^= 1;
        let redirect = if is_ipv4 { error(&sent, 5, 0, [0; 4]) } else { error(&sent, 137, 0, [0; 4]) };
        let cases = [
            (too_big(&with_ah(&plain, USED + 1), LINK), DropReason::ImplausibleError),
            (too_big(&sent, 1500), DropReason::ImplausibleError),
            (too_big(&sent, if is_ipv4 { 67 } else { 1279 }), DropReason::ImplausibleError),
            (too_big(&with_ah(&of_another_flow, USED), LINK), DropReason::FlowMismatch),
            (too_big(&unknown, LINK), DropReason::UnknownSpi),
            (too_big(&plain, LINK), DropReason::NoPermission),
            (redirect, DropReason::NoPermission),
        ];
        for (at, (bytes, reason)) in cases.into_iter().enumerate() {
            assert_eq!(Fixture::router().hear(&bytes), Err(reason), "case {at}");
        }
        let mut router = Fixture::router();
        let right = too_big(&sent, LINK);
        assert_eq!((0..100).filter(|_| router.hear(&right).is_ok()).count(), 10);
        assert_eq!(router.counters.dropped(DropReason::ErrorRate).packets, 90);
        assert_eq!(Fixture::router().hear_at(&right, END), Err(DropReason::Expired));
    }
}

/// what nodes behind a relay say about a packet that came past here in another one.
#[test]
fn a_router_before_a_relay_lets_errors_about_what_it_has_seen_in_the_tunnel_pass_to_its_sender() {
    for (plain, _) in families() {
        let is_ipv4 = plain[0] >> 4 == 4;
        let inner = IpPacket::parse(&plain).unwrap();
        let relay = if is_ipv4 { "198.51.100.9".parse().unwrap() } else { "2001:db8::9".parse().unwrap() };
        let (source, protocol) = (inner.source(), if is_ipv4 { IPV4_INSIDE } else { IPV6_INSIDE });
        let tunnel = flow(source, relay, protocol, 0, 0);
        let router = |also: &[Flow]| {
            let counters = Arc::new(Counters::default());
            let mut verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), counters.clone()).unwrap();
            for flow in [&[tunnel], also].concat() {
                verifier.apply(install(flow), NOW).unwrap();
            }
            Fixture { processor: Box::new(verifier), counters }
        };
        let mut number = 0;
        let mut pass = |router: &mut Fixture, inner: &[u8]| {
            let mut outer = Vec::new();
            pack(inner, &Ends { source, destination: relay }, 64, &mut outer).unwrap();
            number += 1;
            assert_eq!(router.processor.process(PacketId(number.into()), &with_ah(&outer, number), NOW), Verdict::Accept);
        };
        let (sent, next) = (with_ah(&plain, USED), with_ah(&plain, USED + 1));
        let right = too_big(&sent, LINK);
        let mut fixture = router(&[]);
        assert_eq!(fixture.hear(&right), Err(DropReason::UnknownSpi), "nothing of it came past here yet");
        pass(&mut fixture, &sent);
        fixture.hear(&right).unwrap();
        if !is_ipv4 {
            // Options between the tunnel's AH and what is inside hide nothing.
            let mut outer = Vec::new();
            pack(&sent, &Ends { source, destination: relay }, 64, &mut outer).unwrap();
            outer.splice(40..40, [IPV6_INSIDE, 0, 1, 4, 0, 0, 0, 0]);
            let length = u16::try_from(outer.len() - 40).unwrap();
            outer[4..6].copy_from_slice(&length.to_be_bytes());
            outer[6] = 60;
            let mut fixture = router(&[]);
            assert_eq!(fixture.processor.process(PacketId(1), &with_ah(&outer, 1), NOW), Verdict::Accept);
            fixture.hear(&right).unwrap();
        }
        // As of a flow that is known: nothing else passes.
        let mut unknown = sent.clone();
        unknown[if is_ipv4 { 24 } else { 44 }] ^= 1;
        let longer = with_ah(&if is_ipv4 { udp_v4(1440) } else { udp_v6(1440) }, USED);
        let mut elsewhere = right.clone();
        elsewhere[if is_ipv4 { 19 } else { 39 }] ^= 2;
        if is_ipv4 {
            fix_checksum(&mut elsewhere)
        } else {
            fix_message(&mut elsewhere)
        }
        let cases = [
            (too_big(&next, LINK), DropReason::ImplausibleError),
            (too_big(&longer, LINK), DropReason::ImplausibleError),
            (too_big(&sent, 1500), DropReason::ImplausibleError),
            (too_big(&unknown, LINK), DropReason::UnknownSpi),
            (elsewhere, DropReason::FlowMismatch),
            (lengthened(&right, if is_ipv4 { 577 } else { 1281 }), DropReason::ErrorTooLarge),
        ];
        for (at, (bytes, reason)) in cases.into_iter().enumerate() {
            assert_eq!(fixture.hear(&bytes), Err(reason), "case {at}");
        }
        assert_eq!((0..100).filter(|_| fixture.hear(&right).is_ok()).count(), 10, "its own was the first; the tunnel's ten at once");
        assert_eq!(fixture.hear_at(&right, END), Err(DropReason::Expired));

        // Somebody else's packet in the tunnel counts for nothing: only its sender's own do.
        let mut fixture = router(&[]);
        let mut foreign = sent.clone();
        foreign[if is_ipv4 { 15 } else { 23 }] ^= 2;
        if is_ipv4 {
            fix_checksum(&mut foreign);
        }
        pass(&mut fixture, &foreign);
        assert_eq!(fixture.hear(&too_big(&foreign, LINK)), Err(DropReason::UnknownSpi));

        // Of many flows each is heard of, also while somebody says as much about one of them as he can.
        let mut fixture = router(&[]);
        let of = |other: u32| {
            let mut packet = sent.clone();
            let at = if is_ipv4 { 24 } else { 44 };
            packet[at..at + 4].copy_from_slice(&(1000 + other).to_be_bytes());
            packet
        };
        (0..200).for_each(|other| pass(&mut fixture, &of(other)));
        let hears = |fixture: &mut Fixture, other: u32, now| fixture.hear_at(&too_big(&of(other), LINK), now).is_ok();
        assert_eq!((0..1000).filter(|_| hears(&mut fixture, 0, NOW)).count(), 11);
        assert!((1..200).all(|other| hears(&mut fixture, other, NOW)));
        let later = NOW + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| hears(&mut fixture, 0, later)).count(), 11);
        assert!((1..200).all(|other| hears(&mut fixture, other, later)));
        assert!(!hears(&mut fixture, 200, later), "nothing of this one came past");
        // However many there have been: of more than there is room for, those that sent last.
        (200..2000).for_each(|other| pass(&mut fixture, &of(other)));
        let much_later = NOW + Duration::from_secs(2);
        assert!(!hears(&mut fixture, 0, much_later) && (1488..2000).all(|other| hears(&mut fixture, other, much_later)));

        // One that came this way itself before: the former permission knows none of its new numbers.
        let mut fixture = router(&[if is_ipv4 { flow_v4() } else { flow_v6() }]);
        pass(&mut fixture, &sent);
        fixture.hear(&right).unwrap();
    }
}

/// The same error with so many octets in all: data behind a true quote, as nobody but its maker can have put there.
fn lengthened(error: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = error.to_vec();
    bytes.resize(len, 0x5a);
    let total = u16::try_from(len).unwrap();
    if bytes[0] >> 4 == 4 {
        bytes[2..4].copy_from_slice(&total.to_be_bytes());
        fix_checksum(&mut bytes);
    } else {
        bytes[4..6].copy_from_slice(&(total - 40).to_be_bytes());
    }
    fix_message(&mut bytes);
    bytes
}

/// An error that is not about size.
fn time_exceeded(packet: &[u8]) -> Vec<u8> {
    error(packet, if packet[0] >> 4 == 4 { 11 } else { 3 }, 0, [0; 4])
}

/// an error is never longer than 576 octets (RFC 1812 §4.3.2.3) or 1280 (RFC 4443 §2.4), so a reassembled one is none.
#[test]
fn an_error_longer_than_any_has_to_be_goes_nowhere() {
    for (plain, _) in families() {
        let most = if plain[0] >> 4 == 4 { 576 } else { 1280 };
        let sent = with_ah(&plain, USED);
        for right in [too_big(&sent, LINK), time_exceeded(&sent)] {
            for len in [most + 1, 60_000] {
                let mut router = Fixture::router();
                assert_eq!(router.hear(&lengthened(&right, len)), Err(DropReason::ErrorTooLarge), "{len}");
                assert_eq!(router.counters.dropped(DropReason::ErrorTooLarge).bytes, len as u64);
            }
            Fixture::router().hear(&lengthened(&right, most)).unwrap();
        }
        let right = too_big(&sent, LINK);
        assert_eq!(Fixture::sender().hear(&lengthened(&right, most + 1)), Err(DropReason::ErrorTooLarge));
        Fixture::sender().hear(&lengthened(&right, most)).unwrap();
    }
}

/// what a receiver writes behind a true quote does not reach the sender; what does is counted.
#[test]
fn a_router_cuts_an_error_to_what_its_reader_needs() {
    for (plain, expected) in families() {
        let is_ipv4 = plain[0] >> 4 == 4;
        let (ip, ah, most) = if is_ipv4 { (20, 28, 576) } else { (40, 32, 1280) };
        let sent = with_ah(&plain, USED);
        for right in [too_big(&sent, LINK), time_exceeded(&sent)] {
            let mut router = Fixture::router();
            let accepted = router.counters.accepted().bytes;
            let passed = router.hear(&lengthened(&right, most)).unwrap();
            assert_eq!(passed.len(), ip + 8 + ip + ah + 8);
            IpPacket::parse(&passed).unwrap();
            assert_eq!((message_sum(&passed), &passed[ip + 8..]), (0xffff, &sent[..ip + ah + 8]));
            assert_eq!((&passed[ip..ip + 2], &passed[ip + 4..ip + 8]), (&right[ip..ip + 2], &right[ip + 4..ip + 8]));
            if is_ipv4 {
                assert_eq!(sum(&passed[..20]), 0xffff);
            }
            let count = router.counters.passed_errors();
            assert_eq!((count.packets, count.bytes), (1, passed.len() as u64));
            assert_eq!(router.counters.accepted().bytes - accepted, most as u64, "as it came in (X-34)");
        }
        // The next router passes what is left as it is, and the sender's host understands it.
        let cut = Fixture::router().hear(&too_big(&sent, LINK)).unwrap();
        assert_eq!(Fixture::router().hear(&cut).as_ref(), Ok(&cut));
        let heard = Fixture::sender().hear(&cut).unwrap();
        let mtu: [u8; 4] = heard[ip + 4..ip + 8].try_into().unwrap();
        assert_eq!((u32::from_be_bytes(mtu), &heard[ip + 8..]), (expected, &plain[..ip + 8]));
    }
}

/// Options stand before the ports (RFC 8200 §4.1).
#[test]
fn what_a_router_leaves_of_an_error_reaches_to_the_ports() {
    let plain = ipv6(60, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(4000, 9000, 1400)].concat());
    let sent = with_ah(&plain, USED + 1);
    let (mut router, mut sender) = (Fixture::router(), Fixture::sender());
    assert_eq!(router.processor.process(PacketId(9), &sent, NOW), Verdict::Accept);
    assert!(matches!(sender.processor.process(PacketId(9), &plain, NOW), Verdict::Replace { .. }));
    let passed = router.hear(&too_big(&sent, LINK)).unwrap();
    assert_eq!(&passed[48..], &sent[..40 + 32 + 8 + 8]);
    assert_eq!(&sender.hear(&passed).unwrap()[48..], &plain[..40 + 8 + 8]);
}

/// headers around the quote are no way around that.
#[test]
fn an_error_that_is_long_when_it_is_cut_goes_nowhere() {
    let right = too_big(&with_ah(&udp_v6(1400), USED), LINK);
    // Hop-by-hop options of 256 octets: one padding option (RFC 8200 §4.2).
    let options = [&[58, 31, 1, 252][..], &[0x5a; 252]].concat();
    let mut bytes = [&right[..40], &options, &right[40..200]].concat();
    bytes[6] = 0;
    let len = u16::try_from(bytes.len() - 40).unwrap();
    bytes[4..6].copy_from_slice(&len.to_be_bytes());
    let message_len = u32::try_from(bytes.len() - 296).unwrap().to_be_bytes();
    bytes[298..300].fill(0);
    let checksum = !sum(&[&bytes[8..40], &message_len, &[0, 0, 0, 58], &bytes[296..]].concat());
    bytes[298..300].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(Fixture::router().hear(&bytes), Err(DropReason::ErrorTooLarge));
}

#[test]
fn errors_of_other_kinds_pass_once_a_second_and_take_nothing_from_those_about_size() {
    for (plain, _) in families() {
        let sent = with_ah(&plain, USED);
        let mut router = Fixture::router();
        assert_eq!((0..300).filter(|_| router.hear(&time_exceeded(&sent)).is_ok()).count(), 1);
        router.hear(&too_big(&sent, LINK)).unwrap();
        assert_eq!(router.hear_at(&time_exceeded(&sent), NOW + Duration::from_millis(999)), Err(DropReason::ErrorRate));
        router.hear_at(&time_exceeded(&sent), NOW + Duration::from_millis(1000)).unwrap();
    }
}

/// nobody on the path can have seen a packet that is longer than any that the flow has sent.
#[test]
fn an_error_about_a_packet_longer_than_any_of_its_flow_is_not_believed() {
    for (plain, _) in families() {
        let is_ipv4 = plain[0] >> 4 == 4;
        let longest = with_ah(&plain, 2);
        let claim = |total: usize, mtu| {
            let mut quote = longest.clone();
            if is_ipv4 {
                quote[2..4].copy_from_slice(&u16::try_from(total).unwrap().to_be_bytes());
                fix_checksum(&mut quote);
            } else {
                quote[4..6].copy_from_slice(&u16::try_from(total - 40).unwrap().to_be_bytes());
            }
            too_big(&quote, mtu)
        };
        for mut fixture in [Fixture::sender(), Fixture::router()] {
            for (total, mtu) in [(65_535, 60_000), (65_535, LINK), (longest.len() + 1, LINK)] {
                assert_eq!(fixture.hear(&claim(total, mtu)), Err(DropReason::ImplausibleError), "{total} {mtu}");
            }
            assert_eq!(fixture.processor.poll_event(), None);
            fixture.hear(&claim(longest.len(), LINK)).unwrap();
        }
    }
}

#[test]
fn errors_never_count_against_the_volume_of_their_flow() {
    let mut router = Fixture::router();
    let snapshot = || Update::Snapshot { token: 1, flow: flow_v4(), spi: SPI };
    let before = router.processor.apply(snapshot(), NOW).unwrap();
    router.hear(&too_big(&with_ah(&udp_v4(1400), USED), LINK)).unwrap();
    assert_eq!(router.processor.apply(snapshot(), NOW).unwrap(), before);
}

/// What a translation must be, whatever was quoted: shorter by AH, readable, with right checksums.
fn judge_translation(bytes: &[u8], mtu: u32) -> Result<(), TestCaseError> {
    let Ok(packet) = IpPacket::parse(bytes) else { return Ok(()) };
    let Ok(error) = QuotingError::read(&packet) else { return Ok(()) };
    let mut out = vec![1, 2, 3];
    match translate(&error, mtu, &mut out) {
        Err(_) => prop_assert!(out.is_empty()),
        Ok(()) => {
            prop_assert!(out.len() + 12 <= bytes.len(), "{} of {}", out.len(), bytes.len());
            let translated = IpPacket::parse(&out).unwrap();
            prop_assert_eq!((translated.source(), translated.destination()), (packet.source(), packet.destination()));
            if out[0] & 0xf == 5 || out[0] >> 4 == 6 && out[6] == 58 {
                prop_assert_eq!(message_sum(&out), 0xffff);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_packet_is_found_again_in_the_translated_error(built in any_packet(), number in 1u32.., mtu in 0u32..65_536, algorithm in any_algorithm()) {
        let mut sent = Vec::new();
        let key = key(algorithm, 3);
        ah::insert(&IpPacket::parse(&built.bytes).unwrap(), SPI, Number { low: number, high: None }, &key, &mut sent).unwrap();
        let bytes = too_big(&sent, mtu);
        let packet = IpPacket::parse(&bytes).unwrap();
        let error = QuotingError::read(&packet).unwrap();
        prop_assert_eq!((error.quote.spi, error.quote.number, error.quote.total_len as usize), (SPI, number, sent.len()));
        prop_assert!(error.quote.may_be_of(&built.flow));
        let mut out = Vec::new();
        if translate(&error, mtu, &mut out).is_ok() {
            let at = if out[0] >> 4 == 4 { 28 } else { 48 };
            prop_assert_eq!(&out[at..], &built.bytes[..out.len() - at]);
        }
        judge_translation(&bytes, mtu)?;
    }

    #[test]
    fn whatever_is_quoted_nothing_panics_and_what_comes_out_is_shorter_and_right(
        built in any_packet(), noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(), kind in any::<u8>(), mtu in any::<u32>(),
    ) {
        let mut sent = with_ah(&built.bytes, 7);
        for (at, octet) in noise {
            let at = at.index(sent.len());
            sent[at] = octet;
        }
        let is_ipv4 = built.bytes[0] >> 4 == 4;
        sent[0] = if is_ipv4 { 0x40 } else { 0x60 } | sent[0] & 0xf;
        sent.resize(sent.len().max(40), 0);
        let quote = &sent[..cut.index(sent.len() - 40) + 40];
        judge_translation(&too_big(quote, mtu), mtu)?;
        judge_translation(&error(quote, kind, 0, mtu.to_be_bytes()), mtu)?;
        let _ = Fixture::sender().hear(&too_big(quote, mtu));
        let _ = Fixture::router().hear(&too_big(quote, mtu));
    }

    #[test]
    fn any_octets_are_judged_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), mtu in any::<u32>()) {
        judge_translation(&bytes, mtu)?;
        judge_translation(&ipv4(&[], 1, &bytes), mtu)?;
        judge_translation(&ipv6(58, &bytes), mtu)?;
    }
}
