//! What a packet of 1400 octets costs a sender's host in the packet side's own code, for each algorithm: judged, numbered, counted and
//! sealed, by itself and with 63 others. No queue, no kernel; packets lie as far apart as the queue's places do.
//!
//! `cargo run --release -p traffic --example seal_cost`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant as Wall;

use smoltcp::time::Instant;
use traffic::ah::BATCH;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::flow::Flow;
use traffic::inserter::{Inserter, InserterConfig};
use traffic::processor::{Arrival, PacketId, PacketProcessor, Verdict};
use traffic::update::{Grant, Update};

/// Octets of a packet before AH.
const LEN: usize = 1372;
/// From the beginning of one packet to the next.
const STRIDE: usize = 73_728 + 1600;
const RUNS: u32 = 3000;

fn main() {
    let clear = udp();
    let mut space = vec![0; STRIDE * BATCH];
    for place in space.chunks_exact_mut(STRIDE) {
        place[..LEN].copy_from_slice(&clear);
    }
    let arrivals: Vec<Arrival<'_>> = space
        .chunks_exact(STRIDE)
        .map(|place| Arrival { id: PacketId(0), user: None, has_arrived: false, is_unfinished: false, bytes: &place[..LEN] })
        .collect();
    for algorithm in MacAlgorithm::ALL {
        let mut inserter = Inserter::new(InserterConfig::default(), Arc::new(Strict), Arc::default());
        let key = IcvKey::new(*algorithm, &vec![7; algorithm.key_len()]).unwrap();
        let expires_at = Instant::from_secs(1000);
        let grant = Grant { flow: flow(), spi: 4096, key, allowed: u64::MAX / 2, counted: 0, highest: 0, expires_at };
        inserter.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
        let (mut alone, mut together) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..RUNS {
            let began = Wall::now();
            for arrival in &arrivals {
                assert!(matches!(inserter.process(arrival.id, arrival.bytes, Instant::ZERO), Verdict::Replace { .. }));
            }
            alone = began.elapsed().as_secs_f64().min(alone);
            let began = Wall::now();
            inserter.process_batch(&arrivals, Instant::ZERO, &mut |_, verdict| assert!(matches!(verdict, Verdict::Replace { .. })));
            together = began.elapsed().as_secs_f64().min(together);
        }
        let each = |seconds: f64| seconds * 1e9 / BATCH as f64;
        println!("{algorithm}: {:.0} ns a packet by itself, {:.0} with {} others", each(alone), each(together), BATCH - 1);
    }
}

fn flow() -> Flow {
    Flow { source: [192, 0, 2, 1].into(), destination: [198, 51, 100, 2].into(), protocol: 17, source_port: 4000, destination_port: 9000 }
}

fn udp() -> Vec<u8> {
    let mut packet = vec![0; LEN];
    (packet[0], packet[6], packet[8], packet[9]) = (0x45, 0x40, 64, 17);
    packet[2..4].copy_from_slice(&u16::try_from(LEN).unwrap().to_be_bytes());
    packet[12..16].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 1).octets());
    packet[16..20].copy_from_slice(&Ipv4Addr::new(198, 51, 100, 2).octets());
    packet[20..22].copy_from_slice(&4000u16.to_be_bytes());
    packet[22..24].copy_from_slice(&9000u16.to_be_bytes());
    packet[24..26].copy_from_slice(&u16::try_from(LEN - 20).unwrap().to_be_bytes());
    packet
}
