//! Rows of packets to a whole verifier with live permissions: all at once, and one after the other.
//!
//! The first octet says where the verifier stands and how much is allowed; then each packet is a record of six octets: what is done to it,
//! whose it is, its number (two octets), its length, and where it is harmed. A record that says so is followed by a packet as it is.

use std::sync::Arc;

use smoltcp::time::{Duration, Instant};
use traffic::ah::{self, BATCH, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::{Checks, Strict};
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{Arrival, PacketId, PacketProcessor, Verdict};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

use crate::dice::Dice;
use crate::fuzz::mark;

const NOW: Instant = Instant::from_micros_const(10_000_000);
/// Permissions; the last one ends soon.
const FLOWS: usize = 6;
/// Packets of one input at most.
const MOST: usize = 2 * BATCH + 5;
const RECORD: usize = 6;
const WINDOW: u32 = 64;

/// A packet, and whether its sender has kept to the rules: which flow it is of then, and under which number.
struct Made {
    octets: Vec<u8>,
    honest: Option<(usize, u32)>,
}

/// Rows by chance, half of them mostly honest.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut dice = Dice::new(7);
    let mut seeds = Vec::new();
    for seed in 0..16_u8 {
        let mut input = vec![seed * 16 + seed % 4];
        for number in 0..8 + dice.below(140) {
            let harm = if seed % 2 == 0 { 0 } else { dice.below(10) as u8 };
            let length = dice.below(120) as u8;
            input.extend([harm, dice.below(FLOWS as u64) as u8, 0, number as u8, length, length / 2]);
        }
        seeds.push(input);
    }
    seeds
}

/// Verdicts, tables and counters are the same; nothing passes that its sender has not sealed, that has passed before, or that is beyond
/// what was allowed.
pub(super) fn take(input: &[u8]) -> u64 {
    judge(input, [Arc::new(Strict), Arc::new(Strict)])
}

/// The same where the checks are these, one by one and at once.
pub fn judge(input: &[u8], checks: [Arc<dyn Checks>; 2]) -> u64 {
    let Some((first, records)) = input.split_first() else { return 0 };
    let role = if first & 1 == 0 { Role::Router } else { Role::Receiver };
    let allowed = 1000 + u64::from(first >> 1) * 200;
    let keys: Vec<IcvKey> = (0..FLOWS).filter_map(key).collect();
    let made = make(records, &keys);
    let counters = [Arc::new(Counters::default()), Arc::new(Counters::default())];
    let [of_single, of_batched] = checks;
    let [counted_single, counted_batched] = &counters;
    let mut single = verifier(role, allowed, &keys, (of_single, counted_single));
    let mut batched = verifier(role, allowed, &keys, (of_batched, counted_batched));
    let mut told = Vec::new();
    let (mut passed, mut used) = (Vec::new(), [0_u64; FLOWS]);
    for (round, made) in made.chunks(BATCH + 3).enumerate() {
        let now = NOW + Duration::from_millis(3 * round as u64);
        let mut one_by_one = Vec::new();
        for (at, made) in made.iter().enumerate() {
            let verdict = single.process_arrived(PacketId(at as u64), &made.octets, now);
            if matches!(verdict, Verdict::Accept) || (role == Role::Receiver && matches!(verdict, Verdict::Replace { .. })) {
                let Some((flow, number)) = made.honest else { panic!("passed, and nobody who may has sent it: {:02x?}", made.octets) };
                assert!(!passed.contains(&(flow, number)), "number {number} of flow {flow} has passed twice");
                passed.push((flow, number));
                if let Some(used) = used.get_mut(flow) {
                    *used += made.octets.len() as u64;
                    assert!(*used <= allowed, "{used} octets of flow {flow}, {allowed} are allowed");
                }
            }
            one_by_one.push(format!("{verdict:?}"));
        }
        let arrivals: Vec<Arrival<'_>> = made.iter().zip(0..).map(|(made, id)| arrival(id, &made.octets)).collect();
        let mut at_once = Vec::new();
        batched.process_batch(&arrivals, now, &mut |at, verdict| {
            assert_eq!(at, at_once.len(), "not in order");
            at_once.push(format!("{verdict:?}"));
        });
        assert_eq!(at_once, one_by_one, "at once, and one by one");
        let events = [&mut single, &mut batched].map(|verifier| std::iter::from_fn(|| verifier.poll_event()).collect::<Vec<_>>());
        let [of_single, of_batched] = &events;
        assert_eq!(of_single, of_batched);
        assert!(single == batched, "other tables");
        told.extend(one_by_one.into_iter().map(|verdict| verdict.split([' ', ')']).next().unwrap_or_default().to_owned()));
        told.push(format!("{}", of_single.len().min(3)));
    }
    for counters in &counters {
        let dropped: u64 = counters.all_dropped().map(|(_, count)| count.packets).sum();
        assert_eq!(counters.accepted().packets + counters.passed_errors().packets + dropped, made.len() as u64, "counters do not add up");
        assert!(counters.accepted().packets >= passed.len() as u64);
    }
    // Which reasons came up, and how the row began.
    told.sort();
    told.dedup();
    mark(&(role == Role::Router, told))
}

fn verifier(role: Role, allowed: u64, keys: &[IcvKey], (checks, counters): (Arc<dyn Checks>, &Arc<Counters>)) -> Verifier {
    let config = VerifierConfig { window: WINDOW, ..VerifierConfig::new(role) };
    let Ok(mut verifier) = Verifier::new(config, checks, Arc::clone(counters)) else { panic!("no verifier") };
    for (at, key) in keys.iter().enumerate() {
        let expires_at = if at + 1 == FLOWS { NOW + Duration::from_millis(5) } else { NOW + Duration::from_secs(100) };
        let grant = Grant { flow: flow(at), spi: spi(at), key: key.clone(), allowed, counted: 0, highest: 0, expires_at };
        assert!(verifier.apply(Update::Install { token: 1, grant }, NOW).is_ok(), "not installed");
    }
    verifier
}

/// The packets that the records are about.
fn make(mut records: &[u8], keys: &[IcvKey]) -> Vec<Made> {
    let mut made = Vec::new();
    while let Some((record, behind)) = records.split_first_chunk::<RECORD>() {
        if made.len() == MOST {
            break;
        }
        records = behind;
        let [harm, flow, high, low, length, at] = *record;
        let (flow, number) = (usize::from(flow) % FLOWS, u32::from(u16::from_be_bytes([high, low])));
        let clear = udp(flow, usize::from(length) * 4);
        let seal = |spi: u32, key: Option<&IcvKey>| sealed(&clear, spi, number, key).unwrap_or_default();
        let octets = match harm % 10 {
            // The bits of one octet, of which one is set at least.
            4 => {
                let mut packet = seal(spi(flow), keys.get(flow));
                let place = usize::from(at) * packet.len() / 256;
                if let Some(octet) = packet.get_mut(place) {
                    *octet ^= harm.max(1);
                }
                packet
            }
            5 => {
                let mut packet = seal(spi(flow), keys.get(flow));
                packet.truncate(usize::from(at) * packet.len() / 256);
                packet
            }
            6 => seal(spi((flow + 1) % FLOWS), keys.get(flow)),
            7 => seal(spi(flow), keys.get((flow + 1) % FLOWS)),
            8 => clear,
            // As it stands in the input.
            9 => {
                let (packet, behind) = records.split_at(usize::from(length).min(records.len()));
                records = behind;
                packet.to_vec()
            }
            _ => seal(spi(flow), keys.get(flow)),
        };
        // Whoever changes what may change on the way has changed nothing.
        let is_honest = harm % 10 < 4 || (harm % 10 == 4 && is_mutable(&octets, at));
        made.push(Made { octets, honest: is_honest.then_some((flow, number)) });
    }
    made
}

/// Whether the octet harmed is one that routers change (RFC 4302 §3.3.3.1.1.1): of the type of service, flags and offset, TTL, checksum.
fn is_mutable(packet: &[u8], at: u8) -> bool {
    matches!(usize::from(at) * packet.len() / 256, 1 | 6..=8 | 10 | 11)
}

fn sealed(clear: &[u8], spi: u32, number: u32, key: Option<&IcvKey>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(clear).ok()?, spi, Number { low: number, high: None }, key?, &mut out).ok()?;
    Some(out)
}

fn key(flow: usize) -> Option<IcvKey> {
    let algorithm = *MacAlgorithm::ALL.get(flow % MacAlgorithm::ALL.len())?;
    IcvKey::new(algorithm, &vec![flow as u8 + 1; algorithm.key_len()]).ok()
}

fn spi(flow: usize) -> u32 {
    4096 + flow as u32
}

fn flow(at: usize) -> Flow {
    let (source, destination) = ([192, 0, 2, 1], [198, 51, 100, 2]);
    Flow { source: source.into(), destination: destination.into(), protocol: 17, source_port: 4000 + at as u16, destination_port: 9000 }
}

fn udp(at: usize, length: usize) -> Vec<u8> {
    let flow = flow(at);
    let total = (28 + length) as u16;
    let [high, low] = total.to_be_bytes();
    let mut packet = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2];
    packet.extend(flow.source_port.to_be_bytes());
    packet.extend(flow.destination_port.to_be_bytes());
    packet.extend((8 + length as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.resize(usize::from(total), 0x5a);
    packet
}

fn arrival(id: u64, bytes: &[u8]) -> Arrival<'_> {
    Arrival { id: PacketId(id), user: None, has_arrived: true, is_unfinished: false, bytes }
}
