//! What one packet costs a router and a receiver in the packet side's own code: no queue, no kernel. And what share of a processor
//! a flood of made-up signatures takes, with the node's budget of signatures and without one; not if a number of packets is given.
//!
//! Times depend on what else runs; for counts of instructions that do not, take
//! `cargo build --release -p traffic --example packet_cost` and
//! `valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/packet_cost 20000`: divide the difference between
//! two numbers of packets by the difference of these.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ring::signature::{Ed25519KeyPair, KeyPair};
use smoltcp::time::Instant;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm, SignatureAlgorithm, VerifyingKey};
use traffic::checks::Strict;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::reason::DropReason;
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, SignatureBudget, Verifier, VerifierConfig};

const PAYLOAD: usize = 100;

fn main() {
    let told: Option<u32> = std::env::args().nth(1).and_then(|number| number.parse().ok());
    let packets = told.unwrap_or(200_000);
    let flow = flow();
    let key = IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap();
    let sealed: Vec<Vec<u8>> = (1..=packets)
        .map(|low| {
            let (clear, mut out) = (udp(), Vec::new());
            ah::insert(&IpPacket::parse(&clear).unwrap(), 4096, Number { low, high: None }, &key, &mut out).unwrap();
            out
        })
        .collect();
    for role in [Role::Router, Role::Receiver] {
        let mut verifier = Verifier::new(VerifierConfig::new(role), Arc::new(Strict), Arc::default()).unwrap();
        let expires_at = Instant::from_secs(1000);
        let grant = Grant { flow, spi: 4096, key: key.clone(), allowed: u64::MAX / 2, counted: 0, highest: 0, expires_at };
        verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
        let start = std::time::Instant::now();
        for packet in &sealed {
            let verdict = verifier.process(PacketId(0), packet, Instant::ZERO);
            assert!(!matches!(black_box(verdict), Verdict::Drop(_)));
        }
        println!("{role:?}: {:.0} ns a packet of {} octets", start.elapsed().as_secs_f64() * 1e9 / f64::from(packets), sealed[0].len());
    }
    if told.is_some() {
        return;
    }
    flood(SignatureBudget::NODE, "ten flows within the node's budget");
    flood(SignatureBudget::per_second(u32::MAX), "ten flows, each within its own alone");
}

/// Ten signed flows, 60,000 packets with made-up signatures in a second.
fn flood(node_signatures: SignatureBudget, name: &str) {
    const FLOWS: u16 = 10;
    const PACKETS: u32 = 60_000;
    let config = VerifierConfig { node_signatures, ..VerifierConfig::new(Role::Router) };
    let mut verifier = Verifier::new(config, Arc::new(Strict), Arc::default()).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
    let key = IcvKey::Verifying(VerifyingKey::new(SignatureAlgorithm::Ed25519, pair.public_key().as_ref()));
    let packets: Vec<Vec<u8>> = (0..FLOWS)
        .map(|index| {
            let spi = 4096 + u32::from(index);
            let flow = Flow { source_port: 4000 + index, ..flow() };
            let (key, expires_at) = (key.clone(), Instant::from_secs(1000));
            let grant = Grant { flow, spi, key, allowed: u64::MAX / 2, counted: 0, highest: 0, expires_at };
            verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
            let clear = udp();
            // AH of 76 octets with any 64 of them as signature.
            let mut packet = clear[..20].to_vec();
            packet.extend([17, 17, 0, 0]);
            packet.extend(spi.to_be_bytes());
            packet.extend(1_u32.to_be_bytes());
            packet.extend(pair.sign(b"something else").as_ref());
            packet.extend(&clear[20..]);
            packet[9] = 51;
            packet[96..98].copy_from_slice(&(4000 + index).to_be_bytes());
            let len = u16::try_from(packet.len()).unwrap();
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet
        })
        .collect();
    // The bursts are used up before.
    let mut verified = 0;
    let mut start = std::time::Instant::now();
    for packet in 0..2 * PACKETS {
        if packet == PACKETS {
            (start, verified) = (std::time::Instant::now(), 0);
        }
        let now = Instant::from_micros(i64::from(packet) * 1_000_000 / i64::from(PACKETS));
        let bytes = &packets[packet as usize % packets.len()];
        match verifier.process(PacketId(0), bytes, now) {
            Verdict::Drop(DropReason::BadIcv) => verified += 1,
            Verdict::Drop(DropReason::VerificationBudget) => {}
            other => panic!("{other:?}"),
        }
    }
    let share = start.elapsed().as_secs_f64() * 100.0;
    println!("{name}: {verified} signatures verified of {PACKETS} made up in a second, {share:.0} % of a processor");
}

fn flow() -> Flow {
    Flow { source: [192, 0, 2, 1].into(), destination: [198, 51, 100, 2].into(), protocol: 17, source_port: 4000, destination_port: 9000 }
}

fn udp() -> Vec<u8> {
    let mut packet = vec![0; 28 + PAYLOAD];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(28 + PAYLOAD).unwrap().to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 1).octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::new(198, 51, 100, 2).octets());
    packet[20..22].copy_from_slice(&4000u16.to_be_bytes());
    packet[22..24].copy_from_slice(&9000u16.to_be_bytes());
    packet[24..26].copy_from_slice(&u16::try_from(8 + PAYLOAD).unwrap().to_be_bytes());
    packet
}
