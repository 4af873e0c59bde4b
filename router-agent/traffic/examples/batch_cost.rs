//! What a packet of 1400 octets costs a router when it comes with 63 others: the whole judgement, and of that the ICVs alone, for each
//! algorithm. No queue, no kernel; packets lie as far apart as the queue's places do.
//!
//! `cargo run --release -p traffic --example batch_cost`, times; for counts of instructions that depend on nothing else,
//! `valgrind --tool=callgrind target/release/examples/batch_cost hmac-sha256-128 100`, with another number of runs beside it.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant as Wall;

use smoltcp::time::Instant;
use traffic::ah::{self, BATCH, Number, Question};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{Arrival, PacketId, PacketProcessor, Verdict};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

/// Octets of a packet before AH.
const LEN: usize = 1372;
/// From the beginning of one packet to the next.
const STRIDE: usize = 73_728 + 1600;
const RUNS: u32 = 150;
/// Batches of a run.
const BATCHES: u32 = 32;

fn main() {
    let wanted = std::env::args().nth(1);
    let runs: u32 = std::env::args().nth(2).and_then(|number| number.parse().ok()).unwrap_or(RUNS);
    for algorithm in MacAlgorithm::ALL.iter().filter(|algorithm| wanted.as_ref().is_none_or(|wanted| algorithm.name() == wanted)) {
        let key = IcvKey::new(*algorithm, &vec![7; algorithm.key_len()]).unwrap();
        let sealed = sealed(&key);
        let mut space = vec![0; STRIDE * BATCH];
        let (mut whole, mut icvs) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let mut verifier = verifier(&key);
            let (mut judged, mut computed) = (0.0, 0.0);
            for batch in sealed.chunks_exact(BATCH) {
                let arrivals: Vec<Arrival<'_>> = space
                    .chunks_exact_mut(STRIDE)
                    .zip(batch)
                    .map(|(place, packet)| {
                        let place = &mut place[..packet.len()];
                        place.copy_from_slice(packet);
                        Arrival { id: PacketId(0), user: None, has_arrived: false, is_unfinished: false, bytes: place }
                    })
                    .collect();
                let began = Wall::now();
                verifier.process_batch(&arrivals, Instant::ZERO, &mut |_, verdict| assert!(verdict == Verdict::Accept));
                judged += began.elapsed().as_secs_f64();
                if wanted.is_none() {
                    let packets: Vec<_> = arrivals.iter().map(|arrival| IpPacket::parse(arrival.bytes).unwrap()).collect();
                    let questions: Vec<_> = packets.iter().map(|packet| Some(Question { packet, key: &key, high: None })).collect();
                    let mut answers = [None; BATCH];
                    let began = Wall::now();
                    ah::icvs_match(black_box(&questions), &mut answers);
                    computed += began.elapsed().as_secs_f64();
                    assert_eq!(answers, [Some(true); BATCH]);
                }
            }
            let packets = f64::from(BATCHES) * BATCH as f64;
            whole.push(judged * 1e9 / packets);
            icvs.push(computed * 1e9 / packets);
        }
        println!("{algorithm}: {:.0} ns a packet, of which ICVs {:.0}", least(&whole), least(&icvs));
    }
}

fn verifier(key: &IcvKey) -> Verifier {
    let mut verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), Arc::default()).unwrap();
    let expires_at = Instant::from_secs(1000);
    let grant = Grant { flow: flow(), spi: 4096, key: key.clone(), allowed: u64::MAX / 2, counted: 0, highest: 0, expires_at };
    verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
    verifier
}

fn sealed(key: &IcvKey) -> Vec<Vec<u8>> {
    let clear = udp();
    let packet = IpPacket::parse(&clear).unwrap();
    (1..=BATCHES * BATCH as u32)
        .map(|low| {
            let mut out = Vec::new();
            ah::insert(&packet, 4096, Number { low, high: None }, key, &mut out).unwrap();
            out
        })
        .collect()
}

/// What others do on the processor only adds to it.
fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn flow() -> Flow {
    Flow { source: [192, 0, 2, 1].into(), destination: [198, 51, 100, 2].into(), protocol: 17, source_port: 4000, destination_port: 9000 }
}

fn udp() -> Vec<u8> {
    let mut packet = vec![0; LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(LEN).unwrap().to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 1).octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::new(198, 51, 100, 2).octets());
    packet[20..22].copy_from_slice(&4000u16.to_be_bytes());
    packet[22..24].copy_from_slice(&9000u16.to_be_bytes());
    packet[24..26].copy_from_slice(&u16::try_from(LEN - 20).unwrap().to_be_bytes());
    packet
}
