//! What the check of an ICV costs beside the bare primitive, and what many at once cost beside one after the other. No queue, no kernel.

use std::hint::black_box;
use std::io;

use ring::hmac;
use traffic::ah::{self, BATCH, Number, Question};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::packet::IpPacket;

use super::generator::{self, SPI};
use crate::bench::pairs::{Goal, Measure, Sample, Trial};
use crate::bench::processor::{Thread, Watch};

/// Packets of one measurement, a multiple of a batch. The kernel tells a running thread's time at its ticks alone, 4 ms apart.
const PACKETS: usize = 4000 * BATCH;
const UNIT: &str = "ns of processor time per packet";

pub(super) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (len, goal) in [(1400, 1.15), (64, 1.6)] {
        trials.push(Trial {
            name: format!("check of an ICV, HMAC-SHA-256, {len} octets"),
            unit: UNIT,
            goal: Goal::RatioAtMost(goal),
            bound_is: "ring's HMAC-SHA-256 of as many octets in one piece",
            ours: check(MacAlgorithm::HmacSha256_128, len, false),
            bound: primitive(len),
        });
    }
    for algorithm in [MacAlgorithm::HmacSha256_128, MacAlgorithm::HmacSha1_96, MacAlgorithm::Aes128Gmac] {
        for len in [1400, 512, 64] {
            trials.push(Trial {
                name: format!("ICVs of {BATCH} packets at once, {algorithm}, {len} octets"),
                unit: UNIT,
                goal: Goal::Told,
                bound_is: "the same packets one after the other",
                ours: check(algorithm, len, true),
                bound: check(algorithm, len, false),
            });
        }
    }
    trials
}

/// Whole packets of `len` octets under AH; shorter ones than there can be become the shortest.
fn check(algorithm: MacAlgorithm, len: usize, at_once: bool) -> Measure {
    Box::new(move || {
        let key = generator::key(algorithm)?;
        let sealed = sealed(&key, len)?;
        let packets: Vec<_> = sealed.iter().map(|bytes| IpPacket::parse(bytes)).collect::<Result<_, _>>().map_err(io::Error::other)?;
        let watch = Watch::start(Thread::current())?;
        let mut right = 0;
        for _ in 0..PACKETS / BATCH {
            if at_once {
                let questions: [Option<Question<'_>>; BATCH] =
                    std::array::from_fn(|at| packets.get(at).map(|packet| Question { packet, key: &key, high: None }));
                let mut answers = [None; BATCH];
                ah::icvs_match(&questions, &mut answers);
                right += answers.iter().filter(|answer| **answer == Some(true)).count();
            } else {
                right += packets.iter().filter(|packet| ah::icv_matches(packet, &key, None)).count();
            }
        }
        if right != PACKETS {
            return Err(io::Error::other("a right ICV was found to be wrong"));
        }
        Ok(Sample::of(watch.busy()? * 1e9 / PACKETS as f64))
    })
}

fn sealed(key: &IcvKey, len: usize) -> io::Result<Vec<Vec<u8>>> {
    let overhead = 12 + key.algorithm().icv_len();
    let clear = generator::datagram(len.saturating_sub(overhead).max(28));
    let packet = IpPacket::parse(&clear).map_err(io::Error::other)?;
    let seal = |low| {
        let mut out = Vec::new();
        ah::insert(&packet, SPI, Number { low, high: None }, key, &mut out).map(|()| out).map_err(io::Error::other)
    };
    (1..).take(BATCH).map(seal).collect()
}

fn primitive(len: usize) -> Measure {
    Box::new(move || {
        let (key, data) = (hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), vec![0x5a; len]);
        let watch = Watch::start(Thread::current())?;
        for _ in 0..PACKETS {
            black_box(hmac::sign(&key, black_box(&data)));
        }
        Ok(Sample::of(watch.busy()? * 1e9 / PACKETS as f64))
    })
}
