//! Many packets at once have the verdicts that they have one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use smoltcp::time::{Duration, Instant};
use support::rounds;
use traffic::ah::{self, BATCH, Number, Question};
use traffic::algorithm::{IcvKey, MacAlgorithm, Standard};
use traffic::checks::{Checks, Strict};
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{Arrival, PacketId, PacketProcessor, Verdict};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const NOW: Instant = Instant::from_micros_const(10_000_000);

/// Judges all packets, at once or one after the other; what is told of each, and of the events in the end.
fn drive(verifier: &mut Verifier, packets: &[Vec<u8>], at_once: bool, now: Instant) -> Vec<String> {
    let mut story = Vec::new();
    if at_once {
        let arrivals: Vec<_> = packets.iter().zip(1..).map(|(bytes, id)| arrival(id, bytes)).collect();
        verifier.process_batch(&arrivals, now, &mut |at, verdict| {
            assert_eq!(at, story.len(), "in order");
            story.push(format!("{verdict:?}"));
        });
    } else {
        for (bytes, id) in packets.iter().zip(1..) {
            story.push(format!("{:?}", verifier.process_arrived(PacketId(id), bytes, now)));
        }
    }
    while let Some(event) = verifier.poll_event() {
        story.push(format!("{event:?}"));
    }
    story
}

fn arrival(id: u64, bytes: &[u8]) -> Arrival<'_> {
    Arrival { id: PacketId(id), user: None, has_arrived: true, is_unfinished: false, bytes }
}

fn verifier(role: Role, checks: Arc<dyn Checks>) -> (Verifier, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (Verifier::new(VerifierConfig { window: 64, ..VerifierConfig::new(role) }, checks, Arc::clone(&counters)).unwrap(), counters)
}

fn install(verifier: &mut Verifier, flow: Flow, spi: u32, key: IcvKey, allowed: u64, expires_at: Instant) {
    let grant = Grant { flow, spi, key, allowed, counted: 0, highest: 0, expires_at };
    verifier.apply(Update::Install { token: 1, grant }, NOW).unwrap();
}

/// One packet of a mix: whose, under which number, and what is wrong with it.
#[derive(Debug, Clone)]
struct Piece {
    flow: usize,
    number: u32,
    len: usize,
    harm: Harm,
}

#[derive(Debug, Clone)]
enum Harm {
    None,
    Flipped(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    OtherSpi,
    OtherKey,
    Bare,
    Noise(Vec<u8>),
}

fn any_piece() -> impl Strategy<Value = Piece> {
    let harm = prop_oneof![
        6 => Just(Harm::None),
        1 => (any::<prop::sample::Index>(), 1u8..).prop_map(|(at, bits)| Harm::Flipped(at, bits)),
        1 => any::<prop::sample::Index>().prop_map(Harm::Cut),
        1 => Just(Harm::OtherSpi),
        1 => Just(Harm::OtherKey),
        1 => Just(Harm::Bare),
        1 => proptest::collection::vec(any::<u8>(), 0..90).prop_map(Harm::Noise),
    ];
    // Few numbers, so that some come twice in a batch, and some too far ahead or too late.
    let number = prop_oneof![8 => 1u32..40, 1 => 100u32..200, 1 => any::<u32>()];
    (0usize..FLOWS, number, 0usize..1400, harm).prop_map(|(flow, number, len, harm)| Piece { flow, number, len, harm })
}

const FLOWS: usize = 6;

/// All algorithms, the last one twice: a flow whose time is over.
fn key(flow: usize) -> IcvKey {
    let algorithm = MacAlgorithm::ALL[flow % MacAlgorithm::ALL.len()];
    support::key(algorithm, flow as u8)
}

fn flow(at: usize) -> Flow {
    let (source, destination) = ([192, 0, 2, 1], [198, 51, 100, 2]);
    Flow { source: source.into(), destination: destination.into(), protocol: 17, source_port: 4000 + at as u16, destination_port: 9000 }
}

fn udp(flow: &Flow, len: usize) -> Vec<u8> {
    let total = 28 + len;
    let mut packet = vec![0x5a; total];
    packet[..20].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    (packet[8], packet[9]) = (64, 17);
    packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
    packet[16..20].copy_from_slice(&[198, 51, 100, 2]);
    packet[20..22].copy_from_slice(&flow.source_port.to_be_bytes());
    packet[22..24].copy_from_slice(&flow.destination_port.to_be_bytes());
    packet[24..26].copy_from_slice(&(8 + len as u16).to_be_bytes());
    packet
}

fn sealed(bytes: &[u8], spi: u32, number: u32, key: &IcvKey) -> Vec<u8> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(bytes).unwrap(), spi, Number { low: number, high: None }, key, &mut out).unwrap();
    out
}

fn spi(flow: usize) -> u32 {
    4096 + flow as u32
}

fn packet(piece: &Piece) -> Vec<u8> {
    let clear = udp(&flow(piece.flow), piece.len);
    let seal = |spi, key: &IcvKey| sealed(&clear, spi, piece.number, key);
    match &piece.harm {
        Harm::None => seal(spi(piece.flow), &key(piece.flow)),
        Harm::Flipped(at, bits) => {
            let mut packet = seal(spi(piece.flow), &key(piece.flow));
            let at = at.index(packet.len());
            packet[at] ^= bits;
            packet
        }
        Harm::Cut(at) => {
            let packet = seal(spi(piece.flow), &key(piece.flow));
            packet[..at.index(packet.len())].to_vec()
        }
        Harm::OtherSpi => seal(spi(piece.flow + 1), &key(piece.flow)),
        Harm::OtherKey => seal(spi(piece.flow), &key(piece.flow + MacAlgorithm::ALL.len())),
        Harm::Bare => clear,
        Harm::Noise(octets) => octets.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn verdicts_of_a_batch_are_those_of_its_packets_one_by_one_whatever_it_holds(
        pieces in proptest::collection::vec(any_piece(), 0..150),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        is_receiver: bool,
        allowed in 2_000u64..60_000,
    ) {
        let packets: Vec<_> = pieces.iter().map(packet).collect();
        let role = if is_receiver { Role::Receiver } else { Role::Router };
        let (mut one, one_counted) = verifier(role, Arc::new(Strict));
        for at in 0..FLOWS {
            let expires_at = if at == FLOWS - 1 { NOW + Duration::from_millis(5) } else { Instant::from_secs(1000) };
            install(&mut one, flow(at), spi(at), key(at), allowed, expires_at);
        }
        let (mut other, other_counted) = (one.clone(), one_counted);
        for (since, packets) in rounds(&packets, &cuts) {
            let told = drive(&mut one, packets, false, NOW + since);
            prop_assert_eq!(told, drive(&mut other, packets, true, NOW + since));
            prop_assert_eq!(&one, &other, "what is noted and counted in the table");
        }
        // The clones share their counters: both have counted everything.
        let counted = other_counted.accepted().packets + other_counted.all_dropped().map(|(_, count)| count.packets).sum::<u64>();
        prop_assert_eq!(counted, 2 * packets.len() as u64);
    }
}

#[test]
fn of_two_packets_of_one_number_in_one_batch_one_passes_and_the_volume_is_not_passed_together() {
    // P-157, P-161.
    let (mut verifier, _) = verifier(Role::Router, Arc::new(Strict));
    let packet = |number| sealed(&udp(&flow(0), 100), spi(0), number, &key(0));
    install(&mut verifier, flow(0), spi(0), key(0), 2 * packet(1).len() as u64, Instant::from_secs(1000));
    let told = drive(&mut verifier, &[packet(1), packet(1), packet(2), packet(3)], true, NOW);
    assert_eq!(told[..4], ["Accept", "Drop(Replayed)", "Accept", "Drop(OverBudget)"]);
    assert!(told[4].starts_with("OverBudget"));
}

#[test]
fn who_replaces_the_check_of_icvs_replaces_it_in_batches_too() {
    #[derive(Debug)]
    struct Nobody;
    impl Checks for Nobody {
        fn icv_matches(&self, _: &IpPacket<'_>, _: &IcvKey, _: Option<u32>) -> bool {
            false
        }
    }
    let (mut verifier, _) = verifier(Role::Router, Arc::new(Nobody));
    install(&mut verifier, flow(0), spi(0), key(0), 100_000, Instant::from_secs(1000));
    let packets: Vec<_> = (1..40).map(|number| sealed(&udp(&flow(0), 100), spi(0), number, &key(0))).collect();
    assert!(drive(&mut verifier, &packets, true, NOW).iter().all(|told| told == "Drop(BadIcv)"));
}

/// A vector of `tests/vectors/ah` that we can judge.
struct Vector {
    id: String,
    packet: Vec<u8>,
    key: IcvKey,
    high: Option<u32>,
    spi: u32,
    is_valid: bool,
}

fn lines(name: &str) -> impl Iterator<Item = Value> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/ah").join(name);
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>().into_iter()
}

fn octets(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn key_of(line: &Value) -> Option<IcvKey> {
    let algorithm = *MacAlgorithm::ALL.iter().find(|algorithm| algorithm.name() == line["alg"])?;
    Some(IcvKey::new(algorithm, &octets(&line["key_hex"])).unwrap())
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn vectors() -> Vec<Vector> {
    let vector = |line: Value| {
        let (id, spi) = (line["id"].as_str().unwrap().to_owned(), number(&line["spi"]));
        let high = line.get("esn_hi").map(number);
        Some(Vector { id, packet: octets(&line["packet_hex"]), key: key_of(&line)?, high, spi, is_valid: line["valid"].as_bool().unwrap() })
    };
    lines("vectors-shared.jsonl").filter_map(vector).collect()
}

#[test]
fn every_known_answer_is_the_same_alone_and_among_others_right_and_wrong() {
    // P-149, P-155.
    let vectors = vectors();
    assert_eq!(vectors.len(), 1337);
    let parsed: Vec<_> = vectors.iter().filter_map(|vector| IpPacket::parse(&vector.packet).ok().map(|packet| (vector, packet))).collect();
    let mut right = 0;
    // Neighbours from all over the file, in batches of every length.
    let mut order: Vec<usize> = (0..parsed.len()).map(|at| at * 389 % parsed.len()).collect();
    let mut len = 1;
    while !order.is_empty() {
        let batch: Vec<_> = order.drain(..len.min(order.len())).map(|at| &parsed[at]).collect();
        let expected: Vec<_> = batch.iter().map(|(vector, packet)| Some(ah::icv_matches(packet, &vector.key, vector.high))).collect();
        let in_pieces = batch.iter().map(|(vector, packet)| Some(ah::icv_matches_by::<Standard>(packet, &vector.key, vector.high)));
        assert!(in_pieces.eq(expected.iter().copied()), "a head written whole is what its pieces are");
        let questions: Vec<_> =
            batch.iter().map(|(vector, packet)| Some(Question { packet, key: &vector.key, high: vector.high })).collect();
        let mut answers = vec![None; batch.len()];
        ah::icvs_match(&questions, &mut answers);
        assert_eq!(answers, expected);
        for (question, (vector, _)) in questions.iter().zip(&batch) {
            let mut alone = [None];
            ah::icvs_match(&[*question], &mut alone);
            assert_eq!(alone[0], Some(question.unwrap().answer()), "{}", vector.id);
        }
        right += answers.iter().filter(|answer| **answer == Some(true)).count();
        len = len % 100 + 1;
    }
    assert!(right > 500, "{right}");
}

#[test]
fn a_known_answer_passes_the_router_among_bad_neighbours_as_it_does_alone() {
    let mut passed = 0;
    for vector in vectors().iter().filter(|vector| vector.high.is_none()) {
        let Ok(packet) = IpPacket::parse(&vector.packet) else { continue };
        let Some(flow) = packet.flow() else { continue };
        let (mut verifier, _) = verifier(Role::Router, Arc::new(Strict));
        let grant = Grant {
            flow,
            spi: vector.spi,
            key: vector.key.clone(),
            allowed: 1 << 40,
            counted: 0,
            // The window ends right before it, so that it is not too far ahead.
            highest: packet.ah().map_or(0, |ah| ah.sequence().saturating_sub(1)),
            expires_at: Instant::from_secs(1000),
        };
        if verifier.apply(Update::Install { token: 1, grant }, NOW).is_err() {
            continue;
        }
        let alone = drive(&mut verifier.clone(), std::slice::from_ref(&vector.packet), true, NOW).remove(0);
        let harmed = |at: usize| {
            let mut packet = vector.packet.clone();
            let at = packet.len() - 1 - at % packet.len().min(8);
            packet[at] ^= 0xa5;
            packet
        };
        let mut batch: Vec<_> = (0..21).map(harmed).collect();
        batch.insert(13, vector.packet.clone());
        let mut one_by_one = verifier.clone();
        let told = drive(&mut verifier, &batch, true, NOW);
        assert_eq!(told, drive(&mut one_by_one, &batch, false, NOW), "{}", vector.id);
        assert_eq!(told[13], alone, "{}", vector.id);
        assert!(vector.is_valid || alone != "Accept", "{}", vector.id);
        assert!(told.iter().enumerate().all(|(at, told)| at == 13 || told != "Accept"), "{}: {told:?}", vector.id);
        passed += usize::from(alone == "Accept");
    }
    assert!(passed > 300, "{passed}");
}

#[test]
fn anti_replay_sequences_are_judged_in_one_batch_as_the_kernel_judged_them() {
    // P-157.
    let mut judged = 0;
    for line in lines("replay-shared.jsonl").filter(|line| line["esn"] != true && line.get("start_seq64").is_none_or(|start| start == 0)) {
        let (key, spi, window) = (key_of(&line).unwrap(), number(&line["spi"]), number(&line["window"]));
        let packets: Vec<_> = line["steps"].as_array().unwrap().iter().map(|step| octets(&step["packet_hex"])).collect();
        let expected: Vec<_> = line["steps"].as_array().unwrap().iter().map(|step| step["accept"].as_bool().unwrap()).collect();
        let flow = packets.iter().find_map(|packet| IpPacket::parse(packet).ok()?.flow()).unwrap();
        let config = VerifierConfig { window, ..VerifierConfig::new(Role::Router) };
        let mut verifier = Verifier::new(config, Arc::new(Strict), Arc::default()).unwrap();
        install(&mut verifier, flow, spi, key, u64::MAX / 2, Instant::from_secs(1000));
        let mut accepted = Vec::new();
        let arrivals: Vec<_> = packets.iter().zip(1..).map(|(bytes, id)| arrival(id, bytes)).collect();
        verifier.process_batch(&arrivals, NOW, &mut |_, verdict| accepted.push(verdict == Verdict::Accept));
        assert_eq!(accepted, expected, "{}", line["id"]);
        judged += packets.len();
    }
    assert!(judged > BATCH, "{judged}");
}

#[test]
fn a_packet_with_more_options_than_a_batch_has_room_for_is_judged_by_itself() {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
    packet.extend([0x20; 32]);
    // Destination options before a routing header would be honest; here it is only long: 312 octets of padding options.
    let mut options = vec![17, 38, 1, 255];
    options.extend([0; 255]);
    options.extend([1, 51]);
    options.extend([0; 51]);
    packet.extend(&options);
    packet.extend([0x0f, 0xa0, 0x23, 0x28, 0, 8, 0, 0]);
    let len = packet.len() as u16 - 40;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    let key = support::key(MacAlgorithm::HmacSha256_128, 1);
    let sealed = sealed(&packet, 4096, 1, &key);
    let parsed = IpPacket::parse(&sealed).unwrap();
    let mut answers = [None, None];
    let question = Question { packet: &parsed, key: &key, high: None };
    ah::icvs_match(&[Some(question), None], &mut answers);
    assert_eq!(answers, [Some(true), None]);
}
