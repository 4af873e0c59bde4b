//! How far ahead a number may be: nobody who keeps to the permission is dropped for it, and who does not has no signature verified.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::{Checks, Strict};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::replay::Window;
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const SPI: u32 = 0xabcd;
const NOW: Instant = Instant::from_micros_const(10_000_000);
/// The shortest packet: an IPv4 header and AH.
const SHORTEST: u64 = 20 + 28;
const WINDOW: u64 = 1024;

fn verifier(checks: Arc<dyn Checks>, role: Role, allowed: u64, counted: u64, highest: u32) -> Verifier {
    with_window(VerifierConfig::new(role), checks, allowed, counted, highest)
}

fn with_window(config: VerifierConfig, checks: Arc<dyn Checks>, allowed: u64, counted: u64, highest: u32) -> Verifier {
    let mut verifier = Verifier::new(config, checks, Arc::default()).unwrap();
    let expires_at = NOW + Duration::from_secs(100);
    let grant = Grant { flow: flow_v4(), spi: SPI, key: shared(), allowed, counted, highest, expires_at };
    verifier.apply(Update::Install { token: 1, grant }, NOW).unwrap();
    verifier
}

fn shared() -> IcvKey {
    key(MacAlgorithm::HmacSha256_128, 7)
}

fn sealed(number: u64, len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let number = Number { low: u32::try_from(number).unwrap(), high: None };
    ah::insert(&IpPacket::parse(&udp_v4(len)).unwrap(), SPI, number, &shared(), &mut out).unwrap();
    out
}

fn process(verifier: &mut Verifier, bytes: &[u8]) -> Result<(), DropReason> {
    match verifier.process(PacketId(1), bytes, NOW) {
        Verdict::Accept | Verdict::Replace { .. } => Ok(()),
        Verdict::Drop(reason) => Err(reason),
        Verdict::Hold | Verdict::Taken => panic!("neither passed nor dropped"),
    }
}

#[test]
fn a_number_beyond_all_that_the_volume_can_hold_is_dropped_unverified() {
    let mut verifier = verifier(Arc::new(Strict), Role::Router, 100 * SHORTEST, 0, 0);
    let furthest = 100 + WINDOW;
    let mut bogus = sealed(furthest + 1, 0);
    assert_eq!(process(&mut verifier, &bogus), Err(DropReason::TooFarAhead), "though its ICV is right");
    *bogus.last_mut().unwrap() ^= 1;
    assert_eq!(process(&mut verifier, &bogus), Err(DropReason::TooFarAhead));
    let mut bogus = sealed(furthest, 0);
    *bogus.last_mut().unwrap() ^= 1;
    assert_eq!(process(&mut verifier, &bogus), Err(DropReason::BadIcv), "looked at");
    // What is used up is no reach: each packet here is 56 octets long.
    for number in 1..=50 {
        process(&mut verifier, &sealed(number, 0)).unwrap();
    }
    let furthest = 50 + (100 * SHORTEST - 50 * 56) / SHORTEST + WINDOW;
    assert_eq!(process(&mut verifier, &sealed(furthest + 1, 0)), Err(DropReason::TooFarAhead));
    assert_eq!(process(&mut verifier, &sealed(furthest, 0)), Ok(()));
}

#[test]
fn a_key_holder_cannot_push_the_window_beyond_what_is_granted() {
    // With the shared key one packet under the last number there is had every later one of the sender's dropped as replayed.
    let mut verifier = verifier(Arc::new(Strict), Role::Router, 1 << 20, 0, 0);
    process(&mut verifier, &sealed(1, 100)).unwrap();
    assert_eq!(process(&mut verifier, &sealed(u64::from(u32::MAX), 100)), Err(DropReason::TooFarAhead));
    process(&mut verifier, &sealed(2, 100)).unwrap();
}

#[test]
fn a_router_that_begins_in_mid_flow_and_is_told_no_number_takes_the_first_packet_wherever_the_flow_is() {
    // A sender without Vol-Context: SV is known, N is not.
    let (allowed, sent) = (10_000_000, 9_990_000);
    let mut verifier = verifier(Arc::new(Strict), Role::Router, allowed, sent, 0);
    process(&mut verifier, &sealed(sent / 60, 50)).unwrap();
    // From then on the rest of the volume counts.
    let furthest = sent / 60 + (allowed - sent - 106) / SHORTEST + WINDOW;
    assert_eq!(process(&mut verifier, &sealed(furthest + 1, 50)), Err(DropReason::TooFarAhead));
}

#[test]
fn a_permission_that_is_raised_reaches_further() {
    let mut verifier = verifier(Arc::new(Strict), Role::Router, 100 * SHORTEST, 0, 0);
    let packet = sealed(5000, 0);
    assert_eq!(process(&mut verifier, &packet), Err(DropReason::TooFarAhead));
    let (flow, expires_at) = (flow_v4(), NOW + Duration::from_secs(100));
    verifier.apply(Update::Update { token: 2, flow, spi: SPI, allowed: 5000 * SHORTEST, expires_at }, NOW).unwrap();
    assert_eq!(process(&mut verifier, &packet), Ok(()));
}

/// Takes nothing for too far.
#[derive(Debug)]
struct Boundless;

impl Checks for Boundless {
    fn is_within_reach(&self, _: &Window, _: u64, _: u64, _: u64) -> bool {
        true
    }
}

proptest! {
    /// Single packets and long runs are lost, and packets overtake each other; they are about as short as can be.
    #[test]
    fn no_packet_of_an_honest_sender_is_dropped_for_it(
        lengths in prop::collection::vec(0usize..8, 1..400),
        gap in (0usize..400, 0usize..400),
        keep in prop::collection::vec(0u8..10, 400),
        delay in prop::collection::vec(0usize..60, 400),
        joins_at in 0usize..400,
        names_its_number in any::<bool>(),
        spare in 0u64..500,
    ) {
        let total = |lengths: &[usize]| lengths.iter().map(|len| SHORTEST + 8 + *len as u64).sum::<u64>();
        let joins_at = joins_at.min(lengths.len());
        // What is allowed is hardly more than what the sender will have sent in the end.
        let (allowed, sent) = (total(&lengths) + spare, total(&lengths[..joins_at]));
        let named = if names_its_number { u32::try_from(joins_at).unwrap() } else { 0 };
        let mut on_the_way: Vec<(usize, u64, usize)> = (joins_at..lengths.len())
            .filter(|at| keep[*at] > 1 && !(gap.0..gap.0 + gap.1).contains(at))
            .map(|at| (at + delay[at], at as u64 + 1, lengths[at]))
            .collect();
        on_the_way.sort_unstable();
        for role in [Role::Router, Role::Receiver] {
            let counted = if role == Role::Router { sent } else { 0 };
            let highest = if role == Role::Router { named } else { 0 };
            // The smallest window, so that its size does not hide what the volume says.
            let config = VerifierConfig { window: 32, ..VerifierConfig::new(role) };
            let mut bounded = with_window(config, Arc::new(Strict), allowed, counted, highest);
            let mut boundless = with_window(config, Arc::new(Boundless), allowed, counted, highest);
            for (_, number, len) in &on_the_way {
                let packet = sealed(*number, *len);
                let verdict = process(&mut bounded, &packet);
                prop_assert_ne!(verdict, Err(DropReason::TooFarAhead), "number {} of {}", number, lengths.len());
                prop_assert_eq!(verdict, process(&mut boundless, &packet));
            }
        }
    }
}
