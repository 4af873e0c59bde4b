//! Keys of security associations do not outlive their use in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::inserter::{Inserter, InserterConfig};
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::update::{Grant, Update};

const NOW: Instant = Instant::from_micros_const(1_000_000);

/// The states of SHA-256 behind the two padded keys of [`octets`], computed elsewhere: who has them can make every ICV. Their
/// bits are turned over here, so that the test does not find itself.
const STATES: [[u32; 8]; 2] = [
    [0xef28_23f9, 0x1fc1_842c, 0x128f_1a2f, 0x3a7e_2a32, 0x972d_3ed8, 0xf9a8_65df, 0xe069_93ae, 0x1564_a184],
    [0xbca7_e775, 0xe908_eef2, 0x258f_ed42, 0x6326_c11f, 0x0b11_2280, 0xc2a2_c62a, 0xaf76_21bc, 0xaaaa_9033],
];

/// One test at a time: all search the same memory.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_key_is_wiped_with_the_last_of_its_copies() {
    let _alone = ALONE.lock().unwrap();
    let key = new_key();
    let copy = Box::new(key.clone());
    assert!(found() > 0, "the test finds what is there");
    drop(key);
    assert!(found() > 0);
    drop(copy);
    overwrite_stack();
    assert_eq!(found(), 0);
}

#[test]
fn a_removed_permission_leaves_no_key_behind_after_any_number_of_packets() {
    let _alone = ALONE.lock().unwrap();
    let mut inserter = Inserter::new(InserterConfig::default(), Arc::new(Strict), Arc::new(Counters::default()));
    let expires_at = NOW + Duration::from_secs(10);
    let grant = Grant { flow: flow_v4(), spi: 4096, key: new_key(), allowed: 1 << 20, counted: 0, highest: 0, expires_at };
    inserter.apply(Update::Install { token: 1, grant }, NOW).unwrap();
    for id in 0..10 {
        assert!(matches!(inserter.process(PacketId(id), &udp_v4(100), NOW), Verdict::Replace { .. }));
    }
    assert!(found() > 0);
    inserter.apply(Update::Remove { token: 2, flow: flow_v4(), spi: 4096 }, NOW).unwrap();
    overwrite_stack();
    assert_eq!(found(), 0);
}

fn new_key() -> IcvKey {
    let octets: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0x5c);
    IcvKey::new(MacAlgorithm::HmacSha256_128, &octets).unwrap()
}

/// How often either state stands in the writable memory of this process.
fn found() -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut window = vec![0; 1 << 16];
    let own = window.as_ptr().addr() as u64..window.as_ptr().addr() as u64 + window.len() as u64;
    let mut found = 0;
    for line in maps.lines() {
        let mut words = line.split(' ');
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let (mut from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        // States are aligned to 4 octets, and none lies across two windows: they overlap.
        while rights.starts_with("rw") && from < to {
            let len = usize::try_from(to - from).unwrap().min(window.len());
            let Ok(len) = memory.read_at(&mut window[..len], from) else { break };
            let words = window[..len].chunks_exact(4).map(|word| !u32::from_ne_bytes(word.try_into().unwrap()));
            let words: Vec<u32> = words.collect();
            // What is read lies in memory as well, and does not count.
            let states = words.windows(8).zip((from..).step_by(4)).filter(|(_, at)| *at + 32 <= own.start || *at >= own.end);
            found += states.filter(|(words, _)| STATES.iter().any(|state| words == state)).count();
            if len <= 32 {
                break;
            }
            from += len as u64 - 28;
        }
        window.fill(0);
    }
    found
}

/// What calls leave on the stack is written over by the next ones.
#[inline(never)]
fn overwrite_stack() {
    std::hint::black_box([0_u8; 1 << 16]);
}
