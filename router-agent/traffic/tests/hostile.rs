//! Bad input at every state of a permission: each packet that anybody, a host with a permission of its own, or a node on the path
//! can make of those that it sees is dropped for one reason, counted once under it, and leaves every permission as it was (P-140,
//! P-153, P-154, P-157, INV-16). The whole matrix stands in `fsm-specs/requirements/bad-input.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PSS_SHA256, RsaKeyPair};
use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm, PacketSigner, SignatureAlgorithm, VerifyingKey};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, SignatureBudget, Verifier, VerifierConfig};

const SPI: u32 = 0x0001_abcd;
/// That of a flow beside the attacked one, between the same hosts.
const BESIDE: u32 = 0x0002_5678;
const NOW: Instant = Instant::from_micros_const(10_000_000);
const END: Instant = Instant::from_micros_const(100_000_000);
const VOLUME: u64 = 100_000;

/// Octets of data in the attacked packet.
const DATA: usize = 40;

struct Signing<K>(K, SignatureAlgorithm, Vec<u8>, fn(&K, &[u8]) -> Vec<u8>);

impl<K> std::fmt::Debug for Signing<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signing")
    }
}

impl<K: Send + Sync + 'static> PacketSigner for Signing<K> {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.1
    }

    fn public_key(&self) -> &[u8] {
        &self.2
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        Some((self.3)(&self.0, input))
    }
}

/// An algorithm: what makes ICVs and what checks them, the second one of somebody else.
struct Keys {
    name: &'static str,
    own: IcvKey,
    checks: IcvKey,
    other: IcvKey,
}

fn pair<K: Send + Sync + 'static>(
    key: K,
    algorithm: SignatureAlgorithm,
    public: &[u8],
    sign: fn(&K, &[u8]) -> Vec<u8>,
) -> (IcvKey, IcvKey) {
    let signer = Signing(key, algorithm, public.to_vec(), sign);
    (IcvKey::Signing(Arc::new(signer)), IcvKey::Verifying(VerifyingKey::new(algorithm, public)))
}

fn ed25519(seed: u8) -> (IcvKey, IcvKey) {
    let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = key.public_key().as_ref().to_vec();
    pair(key, SignatureAlgorithm::Ed25519, &public, |key, input| key.sign(input).as_ref().to_vec())
}

fn p256() -> (IcvKey, IcvKey) {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap();
    let public = key.public_key().as_ref().to_vec();
    pair(key, SignatureAlgorithm::EcdsaP256, &public, |key, input| key.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec())
}

/// A key of 2048 bits in PEM.
fn rsa(pem: &str) -> (IcvKey, IcvKey) {
    let key = RsaKeyPair::from_pkcs8(&decoded(pem)).unwrap();
    let public = key.public_key().as_ref().to_vec();
    let algorithm = SignatureAlgorithm::RsaPss { octets: u16::try_from(key.public().modulus_len()).unwrap() };
    pair(key, algorithm, &public, |key, input| {
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), input, &mut signature).unwrap();
        signature
    })
}

/// What stands between the lines of dashes (RFC 7468 §3).
fn decoded(pem: &str) -> Vec<u8> {
    let value = |character: u8| match character {
        b'A'..=b'Z' => character - b'A',
        b'a'..=b'z' => character - b'a' + 26,
        b'0'..=b'9' => character - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let text: Vec<u8> =
        pem.lines().filter(|line| !line.starts_with('-')).flat_map(str::bytes).filter(|character| *character != b'=').collect();
    let octets = |four: &[u8]| {
        let bits = four.iter().fold(0u32, |bits, character| bits << 6 | u32::from(value(*character))) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    text.chunks(4).flat_map(octets).collect()
}

/// Every algorithm that packets are protected with.
fn algorithms() -> Vec<Keys> {
    let mac = |name, algorithm| {
        let own = key(algorithm, 7);
        Keys { name, checks: own.clone(), own, other: key(algorithm, 8) }
    };
    let signature = |name, (own, checks): (IcvKey, IcvKey), (other, _): (IcvKey, IcvKey)| Keys { name, own, checks, other };
    vec![
        mac("hmac-sha256-128", MacAlgorithm::HmacSha256_128),
        mac("hmac-sha1-96", MacAlgorithm::HmacSha1_96),
        signature("ed25519", ed25519(1), ed25519(2)),
        signature("ecdsa-p256", p256(), p256()),
        signature(
            "rsa-pss-sha256",
            rsa(include_str!("../../../tests/src/keys/rsa-2048.pem")),
            rsa(include_str!("../../../tests/src/keys/rsa-2048-other.pem")),
        ),
    ]
}

/// A state of the attacked flow's permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    None,
    Live,
    Begun,
    UsedUp,
    Lowered,
    Draining,
    Expired,
    Removed,
}

const STATES: [State; 8] =
    [State::None, State::Live, State::Begun, State::UsedUp, State::Lowered, State::Draining, State::Expired, State::Removed];

fn flows(is_ipv6: bool) -> [Flow; 2] {
    let flow = if is_ipv6 { flow_v6() } else { flow_v4() };
    [flow, Flow { source_port: 4001, ..flow }]
}

fn packet(is_ipv6: bool, source_port: u16) -> Vec<u8> {
    let udp = udp(source_port, 9000, DATA);
    if is_ipv6 { ipv6(17, &udp) } else { ipv4(&[], 17, &udp) }
}

fn sealed(bytes: &[u8], spi: u32, number: u32, key: &IcvKey) -> Vec<u8> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(bytes).unwrap(), spi, Number { low: number, high: None }, key, &mut out).unwrap();
    out
}

/// A verifier with a flow in this state, and one beside it that is permitted; and the time.
fn verifier(role: Role, is_ipv6: bool, state: State, keys: &Keys, counters: &Arc<Counters>) -> (Verifier, Instant) {
    let plenty = SignatureBudget { per_second: 1_000_000, burst: 1_000_000 };
    let config = VerifierConfig { signatures: plenty, node_signatures: plenty, ..VerifierConfig::new(role) };
    let mut verifier = Verifier::new(config, Arc::new(Strict), Arc::clone(counters)).unwrap();
    let [flow, beside] = flows(is_ipv6);
    let mut apply = |update| verifier.apply(update, NOW).map(drop).unwrap();
    let mut install = |flow, spi| {
        let grant = Grant { flow, spi, key: keys.checks.clone(), allowed: VOLUME, counted: 0, highest: 0, expires_at: END };
        apply(Update::Install { token: 1, grant });
    };
    install(beside, BESIDE);
    if state == State::None {
        return (verifier, NOW);
    }
    install(flow, SPI);
    let mut counted = 0;
    if state != State::Live {
        for number in 1..=5 {
            let packet = sealed(&packet(is_ipv6, 4000), SPI, number, &keys.own);
            counted += packet.len() as u64;
            assert!(!matches!(verifier.process(PacketId(1), &packet, NOW), Verdict::Drop(_)));
        }
    }
    let mut apply = |update| verifier.apply(update, NOW).map(drop).unwrap();
    let (token, spi) = (2, SPI);
    match state {
        State::None | State::Live | State::Begun => {}
        State::UsedUp => apply(Update::Update { token, flow, spi, allowed: counted, expires_at: END }),
        State::Lowered => apply(Update::Update { token, flow, spi, allowed: VOLUME / 2, expires_at: END }),
        State::Draining => apply(Update::Drain { token, flow, spi, until: NOW + Duration::from_secs(2) }),
        State::Expired => apply(Update::Update { token, flow, spi, allowed: VOLUME, expires_at: NOW + Duration::from_secs(1) }),
        State::Removed => apply(Update::Remove { token, flow, spi }),
    }
    let now = if state == State::Expired { NOW + Duration::from_millis(1500) } else { NOW };
    (verifier, now)
}

/// Where AH begins.
fn ah_at(is_ipv6: bool) -> usize {
    if is_ipv6 { 40 } else { 20 }
}

/// Whether a bit of the IP header may change on the way without a trace in the ICV (RFC 4302 §3.3.3.1).
fn is_mutable(is_ipv6: bool, octet: usize, bit: u8) -> bool {
    match (is_ipv6, octet) {
        (false, 1 | 8 | 10 | 11) | (true, 1..=3 | 7) => true,
        (false, 6) => bit & 0xc0 != 0,
        (true, 0) => bit & 0x0f != 0,
        _ => false,
    }
}

/// What a node on the path makes of a packet that it holds, without any key: each with a name.
fn of_a_node_on_the_path(genuine: &[u8], beside: &[u8], is_ipv6: bool) -> Vec<(String, Vec<u8>)> {
    let at = ah_at(is_ipv6);
    let ah_len = (usize::from(genuine[at + 1]) + 2) * 4;
    let set_length = |mut bytes: Vec<u8>| {
        if is_ipv6 {
            let length = u16::try_from(bytes.len() - 40).unwrap();
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
        } else {
            let length = u16::try_from(bytes.len()).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            fix_checksum(&mut bytes);
        }
        bytes
    };
    let mut all = Vec::new();
    for octet in 0..genuine.len() {
        // Each bit of SPI and number, two of any other octet.
        let is_name = (at + 4..at + 12).contains(&octet);
        let bits = (0..8).map(|bit| 1 << bit).filter(|bit| is_name || [1 << (octet % 8), 0x80 >> (octet % 8)].contains(bit));
        for bit in bits {
            if !is_mutable(is_ipv6, octet, bit) {
                let mut changed = genuine.to_vec();
                changed[octet] ^= bit;
                all.push((format!("bit {bit:#04x} of octet {octet} changed"), changed));
            }
        }
    }
    for length in 0..genuine.len() {
        all.push((format!("cut to {length} octets"), genuine[..length].to_vec()));
        if length >= at {
            all.push((format!("cut to {length} octets, and the length with them"), set_length(genuine[..length].to_vec())));
        }
    }
    for more in [1, 4, 100] {
        all.push((format!("{more} octets added"), set_length([genuine, &vec![0; more][..]].concat())));
    }
    let mut bare = [&genuine[..at], &genuine[at + ah_len..]].concat();
    bare[if is_ipv6 { 6 } else { 9 }] = genuine[at];
    all.push(("AH taken out".to_owned(), set_length(bare)));
    let mut twice = [&genuine[..at + ah_len], &genuine[at..]].concat();
    twice[at] = 51;
    all.push(("AH twice".to_owned(), set_length(twice)));
    all.push((
        "the AH of a packet of the flow beside".to_owned(),
        [&genuine[..at], &beside[at..at + ah_len], &genuine[at + ah_len..]].concat(),
    ));
    all.push(("the ICV of a packet of the flow beside".to_owned(), {
        [&genuine[..at + 12], &beside[at + 12..at + ah_len], &genuine[at + ah_len..]].concat()
    }));
    all.push(("the content of a packet of the flow beside".to_owned(), [&genuine[..at + ah_len], &beside[at + ah_len..]].concat()));
    if !is_ipv6 {
        for (name, flags) in [("a first fragment", 0x20), ("a later fragment", 0x01)] {
            let mut fragment = genuine.to_vec();
            fragment[6] = flags;
            fix_checksum(&mut fragment);
            all.push((name.to_owned(), fragment));
        }
        let mut routed = [&genuine[..20], &[131, 7, 4, 192, 168, 21, 9, 1], &genuine[20..]].concat();
        routed[0] = 0x47;
        all.push(("a source route put in".to_owned(), set_length(routed)));
    } else {
        let mut fragment = [&genuine[..40], &[51, 0, 0, 1, 0, 0, 0, 9], &genuine[40..]].concat();
        fragment[6] = 44;
        all.push(("a first fragment".to_owned(), set_length(fragment.clone())));
        fragment[43] = 0;
        all.push(("an atomic fragment header put in".to_owned(), set_length(fragment)));
        let mut routed = [&genuine[..40], &[51, 2, 0, 1, 0, 0, 0, 0], &[9; 16][..], &genuine[40..]].concat();
        routed[6] = 43;
        all.push(("a routing header put in".to_owned(), set_length(routed)));
    }
    all
}

/// What a host signs or seals with a key of its own, or with that of the flow beside, which it has.
fn of_a_host(keys: &Keys, is_ipv6: bool) -> Vec<(String, Vec<u8>)> {
    let plain = packet(is_ipv6, 4000);
    let beside = packet(is_ipv6, 4001);
    vec![
        ("no AH".to_owned(), plain.clone()),
        ("another key".to_owned(), sealed(&plain, SPI, 6, &keys.other)),
        ("an SPI of nobody".to_owned(), sealed(&plain, 0x7777, 6, &keys.own)),
        ("the SPI of the flow beside, right key".to_owned(), sealed(&plain, BESIDE, 6, &keys.own)),
        ("another flow under this SPI, right key".to_owned(), sealed(&packet(is_ipv6, 4002), SPI, 6, &keys.own)),
        ("the flow beside under this SPI, right key".to_owned(), sealed(&beside, SPI, 6, &keys.own)),
        ("number 0, right key".to_owned(), sealed(&plain, SPI, 0, &keys.own)),
        ("a number beyond all that is left, right key".to_owned(), sealed(&plain, SPI, u32::MAX, &keys.own)),
    ]
}

fn drops(counters: &Counters) -> BTreeMap<DropReason, u64> {
    counters.all_dropped().map(|(reason, count)| (reason, count.packets)).filter(|(_, packets)| *packets > 0).collect()
}

/// Gives a clone the packet: dropped, for which reason, counted once under it, and everything as before.
fn dropped(verifier: &Verifier, counters: &Counters, bytes: &[u8], now: Instant, signed: bool, told: &str) -> DropReason {
    let (before, accepted) = (drops(counters), counters.accepted());
    let mut after = verifier.clone();
    let verdict = after.process(PacketId(1), bytes, now);
    let Verdict::Drop(reason) = verdict else { panic!("{told}: {verdict:?}") };
    let mut expected = before;
    *expected.entry(reason).or_default() += 1;
    assert_eq!(drops(counters), expected, "{told}");
    assert_eq!(counters.accepted(), accepted, "{told}");
    assert_eq!(after.poll_event(), None, "{told}");
    // A signature that was looked at has cost its budget; everything else is as it was.
    assert!(signed || after == *verifier, "{told}: {reason}");
    if signed {
        let of = |verifier: &mut Verifier, flow: Flow, spi| {
            let applied = verifier.apply(Update::Snapshot { token: 9, flow, spi }, now);
            applied.map(|applied| (applied.counted, applied.highest)).map_err(|refused| refused.why)
        };
        for is_ipv6 in [false, true] {
            let [flow, beside] = flows(is_ipv6);
            for (flow, spi) in [(flow, SPI), (beside, BESIDE)] {
                assert_eq!(of(&mut after, flow, spi), of(&mut verifier.clone(), flow, spi), "{told}");
            }
        }
    }
    reason
}

#[test]
fn no_packet_changed_on_its_way_passes_or_changes_anything_in_any_state_under_any_algorithm() {
    let mut reasons: BTreeMap<DropReason, u32> = BTreeMap::new();
    for keys in algorithms() {
        let signed = keys.checks.weight().is_some();
        for role in [Role::Router, Role::Receiver] {
            for is_ipv6 in [false, true] {
                let genuine = sealed(&packet(is_ipv6, 4000), SPI, 6, &keys.own);
                let beside = sealed(&packet(is_ipv6, 4001), BESIDE, 6, &keys.own);
                for state in STATES {
                    // Signatures are dear, and what they cover is the same in each state.
                    let few = signed && !matches!(state, State::Live | State::Expired);
                    let counters = Arc::new(Counters::default());
                    let (verifier, now) = verifier(role, is_ipv6, state, &keys, &counters);
                    for (index, (what, bytes)) in of_a_node_on_the_path(&genuine, &beside, is_ipv6).into_iter().enumerate() {
                        if few && index % 17 != 0 {
                            continue;
                        }
                        let told = format!("{} {role:?} IPv{} {state:?}: {what}", keys.name, if is_ipv6 { 6 } else { 4 });
                        *reasons.entry(dropped(&verifier, &counters, &bytes, now, signed, &told)).or_default() += 1;
                    }
                    // The control: as it was sent it passes where it may.
                    let passes = matches!(state, State::Live | State::Begun | State::Lowered | State::Draining);
                    let passed = !matches!(verifier.clone().process(PacketId(1), &genuine, now), Verdict::Drop(_));
                    assert_eq!(passed, passes, "{} {role:?} {state:?}", keys.name);
                }
            }
        }
    }
    for reason in [
        DropReason::Malformed,
        DropReason::BadIcv,
        DropReason::UnknownSpi,
        DropReason::FlowMismatch,
        DropReason::Replayed,
        DropReason::TooFarAhead,
        DropReason::Expired,
        DropReason::NoPermission,
        DropReason::MissingAh,
        DropReason::FragmentNotReassembled,
    ] {
        assert!(reasons.contains_key(&reason), "{reason} is a reason that occurs: {reasons:?}");
    }
}

#[test]
fn nothing_that_a_host_seals_for_itself_passes_as_the_flow_of_another_in_any_state() {
    for keys in algorithms() {
        let signed = keys.checks.weight().is_some();
        for role in [Role::Router, Role::Receiver] {
            for is_ipv6 in [false, true] {
                for state in STATES {
                    let counters = Arc::new(Counters::default());
                    let (verifier, now) = verifier(role, is_ipv6, state, &keys, &counters);
                    for (what, bytes) in of_a_host(&keys, is_ipv6) {
                        let told = format!("{} {role:?} IPv{} {state:?}: {what}", keys.name, if is_ipv6 { 6 } else { 4 });
                        dropped(&verifier, &counters, &bytes, now, signed, &told);
                    }
                }
            }
        }
    }
}

#[test]
fn a_replay_of_everything_in_any_order_passes_once_at_most() {
    // P-157: captured on any link, let go on any other, as often as one likes.
    for keys in algorithms() {
        let signed = keys.checks.weight().is_some();
        for role in [Role::Router, Role::Receiver] {
            let counters = Arc::new(Counters::default());
            let (mut verifier, now) = verifier(role, false, State::Live, &keys, &counters);
            let packets: Vec<_> = (1..=40).map(|number| sealed(&packet(false, 4000), SPI, number, &keys.own)).collect();
            // Back to front, and each of them three times.
            let mut passed = 0;
            for round in 0..3 {
                for bytes in packets.iter().rev() {
                    if round == 0 {
                        passed += u32::from(!matches!(verifier.process(PacketId(1), bytes, now), Verdict::Drop(_)));
                    } else {
                        assert_eq!(dropped(&verifier, &counters, bytes, now, signed, keys.name), DropReason::Replayed);
                    }
                }
            }
            assert_eq!(passed, 40);
            // After the end of the epoch none of them passes under the one that follows, whose key is another.
            let [flow, _] = flows(false);
            verifier.apply(Update::Remove { token: 3, flow, spi: SPI }, now).unwrap();
            let grant = Grant { flow, spi: SPI + 1, key: keys.checks.clone(), allowed: VOLUME, counted: 0, highest: 0, expires_at: END };
            verifier.apply(Update::Install { token: 4, grant }, now).unwrap();
            for bytes in &packets {
                assert_eq!(dropped(&verifier, &counters, bytes, now, signed, keys.name), DropReason::UnknownSpi);
            }
        }
    }
}
