//! What a receiver's packet side notes for the comparison of volumes, and packets that their sender signs (FR-21, X-39, X-42,
//! requirements appendix E).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm, PacketSigner, SignatureAlgorithm, VerifyingKey};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::ledger::Covered;
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::update::{Grant, Tally, Update};
use traffic::verifier::{Role, SignatureBudget, Verifier, VerifierConfig};

const SPI: u32 = 0xabcd;
const NOW: Instant = Instant::from_micros_const(10_000_000);
const END: Instant = Instant::from_micros_const(100_000_000);
/// Length of `udp_v4(100)` with its AH.
const LENGTH: u64 = 20 + 28 + 8 + 100;

fn shared() -> IcvKey {
    key(MacAlgorithm::HmacSha256_128, 7)
}

fn verifier(config: VerifierConfig, key: IcvKey, allowed: u64) -> Verifier {
    let mut verifier = Verifier::new(config, Arc::new(Strict), Arc::new(Counters::default())).unwrap();
    let grant = Grant { flow: flow_v4(), spi: SPI, key, allowed, counted: 0, highest: 0, expires_at: END };
    verifier.apply(Update::Install { token: 1, grant }, NOW).unwrap();
    verifier
}

fn sealed(bytes: &[u8], number: u32, key: &IcvKey) -> Vec<u8> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(bytes).unwrap(), SPI, Number { low: number, high: None }, key, &mut out).unwrap();
    out
}

fn process(verifier: &mut Verifier, bytes: &[u8], now: Instant) -> Result<usize, DropReason> {
    match verifier.process(PacketId(1), bytes, now) {
        Verdict::Accept => Ok(bytes.len()),
        Verdict::Replace { payload, .. } => Ok(payload.len()),
        Verdict::Drop(reason) => Err(reason),
        other => panic!("{other:?}"),
    }
}

fn tally(verifier: &mut Verifier, up_to: u32, now: Instant) -> Tally {
    let delay = Duration::from_millis(500);
    verifier.apply(Update::Compare { token: 3, flow: flow_v4(), spi: SPI, up_to, delay }, now).unwrap().tally.unwrap()
}

fn events(verifier: &mut Verifier) -> Vec<Event> {
    std::iter::from_fn(|| verifier.poll_event()).collect()
}

#[test]
fn a_receiver_tells_how_much_it_counted_up_to_a_number_and_what_had_come_long_before() {
    let mut verifier = verifier(VerifierConfig::new(Role::Receiver), shared(), u64::MAX);
    for number in 1..=10 {
        process(&mut verifier, &sealed(&udp_v4(100), number, &shared()), NOW).unwrap();
    }
    // Injected, far ahead of all that the sender has used.
    for number in 900..920 {
        process(&mut verifier, &sealed(&udp_v4(100), number, &shared()), NOW).unwrap();
    }
    let later = NOW + Duration::from_secs(3);
    let tally = tally(&mut verifier, 10, later);
    assert_eq!(tally.covered, Some(Covered { at_least: 0, at_most: 10 * LENGTH }), "to the bucket");
    assert_eq!(tally.ahead, 20 * LENGTH);
    assert!(!tally.second_holder);
    assert_eq!(self::tally(&mut verifier, 1000, later).covered, Some(Covered { at_least: 30 * LENGTH, at_most: 30 * LENGTH }));
    assert_eq!(self::tally(&mut verifier, 10, NOW).ahead, 0, "it has just come");
}

#[test]
fn a_number_used_twice_by_two_key_holders_is_told_at_once_and_a_copy_is_not() {
    // P-182.
    // FR-21, E4.
    let mut verifier = verifier(VerifierConfig::new(Role::Receiver), shared(), u64::MAX);
    let first = sealed(&udp_v4(100), 5, &shared());
    process(&mut verifier, &first, NOW).unwrap();
    assert_eq!(process(&mut verifier, &first, NOW), Err(DropReason::Replayed));
    assert_eq!((events(&mut verifier), tally(&mut verifier, 5, NOW).second_holder), (vec![], false));
    let stranger = sealed(&udp_v4(104), 5, &key(MacAlgorithm::HmacSha256_128, 8));
    assert_eq!(process(&mut verifier, &stranger, NOW), Err(DropReason::Replayed), "without the key it is no evidence");
    assert_eq!(events(&mut verifier), []);
    let substitute = sealed(&udp_v4(104), 5, &shared());
    assert_eq!(process(&mut verifier, &substitute, NOW), Err(DropReason::Replayed));
    assert_eq!(events(&mut verifier), [Event::SecondHolder { flow: flow_v4(), spi: SPI }]);
    assert!(tally(&mut verifier, 5, NOW).second_holder);
    // A router compares no ICVs.
    let mut router = self::verifier(VerifierConfig::new(Role::Router), shared(), u64::MAX);
    process(&mut router, &first, NOW).unwrap();
    assert_eq!(process(&mut router, &substitute, NOW), Err(DropReason::Replayed));
    assert_eq!(events(&mut router), []);
}

#[test]
fn packets_that_somebody_running_ahead_has_pushed_out_of_the_window_are_noted_and_copies_are_not() {
    // T3, X-42: the key holder uses numbers 1 to 640 and one far ahead; then the sender's own packets come.
    let mut verifier = verifier(VerifierConfig::new(Role::Receiver), shared(), u64::MAX);
    let injected: Vec<_> = (1..=640).map(|number| sealed(&udp_v4(100), number, &shared())).collect();
    for bytes in &injected {
        process(&mut verifier, bytes, NOW).unwrap();
    }
    process(&mut verifier, &sealed(&udp_v4(100), 5000, &shared()), NOW).unwrap();
    injected.iter().for_each(|bytes| assert_eq!(process(&mut verifier, bytes, NOW), Err(DropReason::Replayed)));
    assert_eq!(tally(&mut verifier, 5000, NOW).late, 0, "copies, from anybody");
    for number in 1..=640 {
        let genuine = sealed(&udp_v4(104), number, &shared());
        assert_eq!(process(&mut verifier, &genuine, NOW), Err(DropReason::Replayed));
    }
    let late = tally(&mut verifier, 5000, NOW).late;
    assert_eq!(late, 640 * (LENGTH + 4), "ten of them, each standing for 64");
}

#[derive(Debug)]
struct Own(Ed25519KeyPair);

impl PacketSigner for Own {
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Ed25519
    }

    fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.sign(input).as_ref().to_vec())
    }
}

fn pair(seed: u8) -> (IcvKey, IcvKey) {
    let own = Own(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap());
    let public = VerifyingKey::new(SignatureAlgorithm::Ed25519, own.public_key());
    (IcvKey::Signing(Arc::new(own)), IcvKey::Verifying(public))
}

#[test]
fn signed_packets_pass_router_and_receiver_and_come_out_as_they_went_in() {
    // INV-18, TMP-05.
    // P-156, P-164, P-166, P-167, X-68.
    // X-70; AH of 76 octets on IPv4 and of 80 on IPv6.
    let (own, public) = pair(1);
    for role in [Role::Router, Role::Receiver] {
        let mut verifier = verifier(VerifierConfig::new(role), public.clone(), u64::MAX);
        let packet = sealed(&udp_v4(100), 1, &own);
        assert_eq!(packet.len(), 20 + 76 + 108);
        let expected = if role == Role::Router { packet.len() } else { 128 };
        // What routers change on the way is not signed.
        let mut on_its_way = packet.clone();
        on_its_way[8] -= 1;
        fix_checksum(&mut on_its_way);
        assert_eq!(process(&mut verifier, &on_its_way, NOW), Ok(expected));
        let mut altered = sealed(&udp_v4(100), 2, &own);
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(process(&mut verifier, &altered, NOW), Err(DropReason::BadIcv));
        assert_eq!(process(&mut verifier, &sealed(&udp_v4(100), 3, &pair(2).0), NOW), Err(DropReason::BadIcv));
        assert_eq!(process(&mut verifier, &sealed(&udp_v4(100), 4, &shared()), NOW), Err(DropReason::Malformed), "another length");
        assert_eq!(process(&mut verifier, &packet, NOW), Err(DropReason::Replayed));
    }
    assert_eq!(sealed(&udp_v6(100), 1, &own).len(), 40 + 80 + 108);
}

#[test]
fn bogus_signatures_use_up_their_own_flows_budget_and_nothing_else() {
    // P-169.
    // a live SPI and a fresh number is all that a forger needs to have a signature verified.
    let (own, public) = pair(1);
    let signatures = SignatureBudget { per_second: 100, burst: 10 };
    let mut verifier = verifier(VerifierConfig { signatures, ..VerifierConfig::new(Role::Router) }, public, u64::MAX);
    let bogus = |number| {
        let mut packet = sealed(&udp_v4(100), number, &own);
        *packet.last_mut().unwrap() ^= 1;
        packet
    };
    for number in 1000..1010 {
        assert_eq!(process(&mut verifier, &bogus(number), NOW), Err(DropReason::BadIcv));
    }
    assert_eq!(process(&mut verifier, &bogus(1010), NOW), Err(DropReason::VerificationBudget));
    assert_eq!(process(&mut verifier, &sealed(&udp_v4(100), 1, &own), NOW), Err(DropReason::VerificationBudget), "its own flow suffers");
    // Ten milliseconds buy one more; what is replayed costs none.
    let later = NOW + Duration::from_millis(10);
    let packet = sealed(&udp_v4(100), 2, &own);
    assert_eq!(process(&mut verifier, &packet, later), Ok(packet.len()));
    let much_later = later + Duration::from_secs(60);
    for _ in 0..1000 {
        assert_eq!(process(&mut verifier, &packet, much_later), Err(DropReason::Replayed));
    }
    for number in 3..13 {
        assert!(process(&mut verifier, &sealed(&udp_v4(100), number, &own), much_later).is_ok());
    }
    assert_eq!(
        process(&mut verifier, &sealed(&udp_v4(100), 13, &own), much_later),
        Err(DropReason::VerificationBudget),
        "the burst, no more"
    );
}

/// Signs on P-256.
#[derive(Debug)]
struct OwnP256(EcdsaKeyPair);

impl PacketSigner for OwnP256 {
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::EcdsaP256
    }

    fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        self.0.sign(&SystemRandom::new(), input).ok().map(|signature| signature.as_ref().to_vec())
    }
}

fn pair_p256() -> (IcvKey, IcvKey) {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let own = OwnP256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_ref(), &random).unwrap());
    let public = VerifyingKey::new(SignatureAlgorithm::EcdsaP256, own.public_key());
    (IcvKey::Signing(Arc::new(own)), IcvKey::Verifying(public))
}

/// The order n of P-256's base point (FIPS 186-4 D.1.2.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
    0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same packet with n - s instead of s: another right signature, made without any key. AH stands behind 20 octets, the ICV
/// behind 12 more, s in its second half.
fn with_the_other_s(packet: &[u8]) -> Vec<u8> {
    let mut other = packet.to_vec();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let place = 20 + 12 + 32 + at;
        let difference = i16::from(ORDER[at]) - i16::from(packet[place]) - borrow;
        borrow = i16::from(difference < 0);
        other[place] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    other
}

#[test]
fn the_second_signature_that_anybody_makes_of_one_on_p_256_is_right_and_no_evidence() {
    // two right ICVs under one number show a second holder of the key, unless the one follows from the other without it.
    let (own, public) = pair_p256();
    let mut verifier = verifier(VerifierConfig::new(Role::Receiver), public.clone(), u64::MAX);
    for number in 1..=20 {
        let packet = sealed(&udp_v4(100), number, &own);
        let other = with_the_other_s(&packet);
        assert_ne!(packet, other);
        for bytes in [&packet, &other] {
            assert!(ah::icv_matches(&IpPacket::parse(bytes).unwrap(), &public, None), "both are right");
        }
        // Whichever comes first passes, and the other is a copy of it.
        let (first, second) = if number % 2 == 0 { (&packet, &other) } else { (&other, &packet) };
        assert!(process(&mut verifier, first, NOW).is_ok());
        assert_eq!(process(&mut verifier, second, NOW), Err(DropReason::Replayed));
    }
    assert_eq!(verifier.poll_event(), None);
    assert!(!tally(&mut verifier, 20, NOW).second_holder);
    // A signature of the sender's own over another packet under the same number is evidence, as with a MAC.
    assert_eq!(process(&mut verifier, &sealed(&udp_v4(90), 20, &own), NOW), Err(DropReason::Replayed));
    assert_eq!(verifier.poll_event(), Some(Event::SecondHolder { flow: flow_v4(), spi: SPI }));
}

#[test]
fn copies_left_of_the_window_with_the_other_s_are_no_late_packets_either() {
    // T3 tells copies by the same octets of the ICV.
    let (own, public) = pair_p256();
    let mut verifier = verifier(VerifierConfig::new(Role::Receiver), public, u64::MAX);
    let early: Vec<_> = (1..=128).map(|number| sealed(&udp_v4(100), number, &own)).collect();
    for packet in early.iter().chain([&sealed(&udp_v4(100), 5000, &own)]) {
        assert!(process(&mut verifier, packet, NOW).is_ok());
    }
    for packet in &early {
        assert_eq!(process(&mut verifier, &with_the_other_s(packet), NOW), Err(DropReason::Replayed));
    }
    assert_eq!(tally(&mut verifier, 5000, NOW).late, 0);
}

#[test]
fn signatures_under_numbers_seen_cost_the_budget_too() {
    // Whoever makes up signatures under numbers that were seen has a receiver look whether they show a second holder (E4).
    let (own, public) = pair(1);
    let signatures = SignatureBudget { per_second: 100, burst: 10 };
    let mut verifier = verifier(VerifierConfig { signatures, ..VerifierConfig::new(Role::Receiver) }, public, u64::MAX);
    let packet = sealed(&udp_v4(100), 1, &own);
    assert!(process(&mut verifier, &packet, NOW).is_ok());
    for index in 0..9 {
        let mut bogus = packet.clone();
        bogus[20 + 12] ^= 1 + index;
        assert_eq!(process(&mut verifier, &bogus, NOW), Err(DropReason::Replayed));
    }
    assert_eq!(process(&mut verifier, &sealed(&udp_v4(100), 2, &own), NOW), Err(DropReason::VerificationBudget));
}

#[test]
fn ten_flooded_flows_take_no_more_than_the_nodes_budget_and_an_eleventh_gets_its_share() {
    // Before there was one for the node, ten flows had 40,000 signatures a second verified, twice what a processor can.
    let (own, public) = pair(1);
    let node_signatures = SignatureBudget { per_second: 1100, burst: 110 };
    let mut verifier = Verifier::new(
        VerifierConfig { node_signatures, ..VerifierConfig::new(Role::Router) },
        Arc::new(Strict),
        Arc::new(Counters::default()),
    )
    .unwrap();
    let flow = |port: u16| Flow { source_port: port, ..flow_v4() };
    for port in 1..=11 {
        let (allowed, spi) = (u64::MAX, SPI + u32::from(port));
        let grant = Grant { flow: flow(port), spi, key: public.clone(), allowed, counted: 0, highest: 0, expires_at: END };
        verifier.apply(Update::Install { token: 1, grant }, NOW).unwrap();
    }
    let seal = |port: u16, number| {
        let (clear, mut out) = (ipv4(&[], 17, &udp(port, 9000, 100)), Vec::new());
        let number = Number { low: number, high: None };
        ah::insert(&IpPacket::parse(&clear).unwrap(), SPI + u32::from(port), number, &own, &mut out).unwrap();
        out
    };
    let bogus: Vec<Vec<u8>> = (1..=10)
        .map(|port| {
            let mut packet = seal(port, 1);
            *packet.last_mut().unwrap() ^= 1;
            packet
        })
        .collect();
    let (mut verified, mut passed) = (0, 0);
    for milli in 0..2000 {
        let now = NOW + Duration::from_millis(milli);
        for packet in &bogus {
            match process(&mut verifier, packet, now) {
                Err(DropReason::BadIcv) => verified += 1,
                Err(DropReason::VerificationBudget) => {}
                other => panic!("{other:?}"),
            }
        }
        // 91 of the 100 a second that are its share.
        if milli % 11 == 0 {
            let number = u32::try_from(milli / 11 + 1).unwrap();
            passed += u32::from(process(&mut verifier, &seal(11, number), now).is_ok());
        }
    }
    assert_eq!(passed, 182, "none of them is lost");
    assert!(verified + passed <= 2 * 1100 + 2 * 110 + 11, "{verified}");
    assert!(verified + passed >= 2 * 1100, "what is unused by one is used by others: {verified}");
}
