//! Which HMAC the packets should be given: ring's, or RustCrypto's, which wipes its keys. Both with the state prepared once and
//! the ICV input in pieces, as the packet path does it; the runs take turns, and the median of each counts.
//!
//! `cargo run --release -p traffic --example mac_speed`
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing)]

use std::hint::black_box;
use std::time::Instant;

use hmac::{Hmac, KeyInit, Mac};

const RUNS: usize = 15;
const PACKETS: u32 = 100_000;
const KEY: [u8; 32] = [7; 32];

fn main() {
    let ring_sha256 = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY);
    let ring_sha1 = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &KEY[..20]);
    let sha256 = Hmac::<sha2::Sha256>::new_from_slice(&KEY).unwrap();
    let sha1 = Hmac::<sha1::Sha1>::new_from_slice(&KEY[..20]).unwrap();
    for len in [100, 1500] {
        let packet = vec![3; len];
        let with_ring = |key: &ring::hmac::Key| {
            let mut context = ring::hmac::Context::with_key(key);
            pieces(&packet, |piece| context.update(piece));
            black_box(context.sign());
        };
        let contenders: [(&str, &dyn Fn()); 4] = [
            ("ring HMAC-SHA-256", &|| with_ring(&ring_sha256)),
            ("RustCrypto HMAC-SHA-256", &|| with_rust_crypto(&sha256, &packet)),
            ("ring HMAC-SHA-1", &|| with_ring(&ring_sha1)),
            ("RustCrypto HMAC-SHA-1", &|| with_rust_crypto(&sha1, &packet)),
        ];
        let mut times: [Vec<f64>; 4] = Default::default();
        for _ in 0..RUNS {
            for ((_, once), times) in contenders.iter().zip(&mut times) {
                let start = Instant::now();
                (0..PACKETS).for_each(|_| once());
                times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS));
            }
        }
        for ((name, _), times) in contenders.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let (median, least, most) = (times[RUNS / 2], times[0], times[RUNS - 1]);
            println!("{len:5} octets  {name:24} {median:6.0} ns ({least:.0}–{most:.0})  {:6.0} MB/s", len as f64 * 1e3 / median);
        }
    }
}

fn with_rust_crypto<M: Mac + Clone>(key: &M, packet: &[u8]) {
    let mut context = key.clone();
    pieces(packet, |piece| context.update(piece));
    black_box(context.finalize().into_bytes());
}

/// IP header, AH, the ICV as zeros, and what AH protects.
fn pieces(packet: &[u8], mut piece: impl FnMut(&[u8])) {
    for range in [0..20, 20..32, 32..48, 48..packet.len()] {
        piece(&packet[range]);
    }
}
