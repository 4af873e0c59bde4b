//! What a receiver's packet side notes for the comparison of volumes, and packets that their sender signs (FR-21, X-39, X-42,
//! requirements appendix E).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm, PacketSigner, SignatureAlgorithm, VerifyingKey};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
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
