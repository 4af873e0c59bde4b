//! What one packet costs a router and a receiver in the packet side's own code: no queue, no kernel.
//!
//! Times depend on what else runs; for counts of instructions that do not, take
//! `cargo build --release -p traffic --example packet_cost` and
//! `valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/examples/packet_cost 20000`: divide the difference between
//! two numbers of packets by the difference of these.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;

use smoltcp::time::Instant;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const PAYLOAD: usize = 100;

fn main() {
    let packets: u32 = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(200_000);
    let flow = Flow {
        source: [192, 0, 2, 1].into(),
        destination: [198, 51, 100, 2].into(),
        protocol: 17,
        source_port: 4000,
        destination_port: 9000,
    };
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
