//! Finding a permission among many, beside a map of the same size that does nothing else; and what it takes up in memory.

use std::hint::black_box;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use smoltcp::time::Instant;
use traffic::ah::BATCH;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::flow::Flow;
use traffic::replay::DEFAULT_SIZE;
use traffic::table::inbound::{self, InboundTable, Place};
use traffic::update::{Grant, Update};

use super::generator;
use crate::bench::pairs::{Goal, Sample, Trial};
use crate::bench::processor::{Thread, Watch};
use crate::dice::Dice;
use crate::network::sys;

const LOOK_UPS: usize = 1_000_000;
/// Numbers of the smallest window: memory is another row's matter.
const WINDOW: u32 = 64;

pub(super) fn trials() -> Vec<Trial> {
    let look_ups = [(100_000, 1.5), (1_000_000, 1.3)]
        .map(|(entries, goal)| Trial {
            name: format!("look-up and count among {entries} permissions"),
            unit: "ns of processor time per packet",
            goal: Goal::RatioAtMost(goal),
            bound_is: "hashbrown with its own hash function, keys of 24 octets, values of 128",
            ours: Box::new(move || of_table(entries)),
            bound: Box::new(move || of_map(entries)),
        })
        .into_iter();
    let memory = [("without window and key", 256.0, false), ("with a window of 1024 numbers and the key of HMAC-SHA-256", 512.0, true)]
        .into_iter()
        .map(|(what, goal, whole)| Trial {
            name: format!("memory of a permission among {MANY}, {what}"),
            unit: "octets",
            goal: Goal::AtMost(goal),
            bound_is: "hashbrown with keys of 24 octets, values of 128",
            ours: Box::new(move || {
                let mut sample = held(|| table(MANY, whole))?;
                sample.value -= if whole { 0.0 } else { LEAST };
                Ok(sample)
            }),
            bound: Box::new(|| held(|| Ok((0..MANY).map(|entry| (key_of(entry), [0; 16])).collect::<hashbrown::HashMap<Key, Value>>()))),
        });
    look_ups.chain(memory).collect()
}

/// What the allocator gives out at the least: the smallest window, which is no part of the row without one.
const LEAST: f64 = 32.0;
/// Permissions in the rows about memory.
const MANY: usize = 1_000_000;

/// Octets that the allocator has handed out for each of many, with what it needs for itself.
fn held<T>(fill: impl FnOnce() -> io::Result<T>) -> io::Result<Sample> {
    sys::release_free_memory();
    let before = sys::allocated_bytes();
    let _filled = fill()?;
    Ok(Sample::of(sys::allocated_bytes().saturating_sub(before) as f64 / MANY as f64))
}

fn place(entry: usize) -> (IpAddr, u32) {
    let [_, _, _, _, _, a, b, c] = (entry / 16).to_be_bytes();
    (IpAddr::from([10, a, b, c]), 4096 + u32::try_from(entry).unwrap_or(0))
}

fn of_table(entries: usize) -> io::Result<Sample> {
    static TABLE: OnceLock<Mutex<(usize, Option<InboundTable>)>> = OnceLock::new();
    let kept = TABLE.get_or_init(|| Mutex::new((0, None)));
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.0 != entries {
        kept.1 = None;
        *kept = (entries, Some(table(entries, false)?));
    }
    let table = kept.1.as_mut().ok_or_else(|| io::Error::other("no table"))?;
    // As the verifier does: those of a batch first, so that none waits for the memory of another.
    measure(entries, |batch| {
        let (mut keys, mut places) = ([None; BATCH], [None; BATCH]);
        keys.iter_mut().zip(batch).for_each(|(key, entry)| *key = Some(place(*entry)));
        table.locate(&keys, &mut places);
        let each = keys.iter().zip(places).filter_map(|(key, place)| Some((place, (*key)?)));
        each.filter_map(|(place, key)| count_at(table, place, key)).count()
    })
}

fn count_at(table: &mut InboundTable, place: Option<Place>, key: inbound::Key) -> Option<()> {
    table.get_mut_at(place, key)?.counted += 1400;
    Some(())
}

/// A table with permissions: each with window and key of its own, or with the smallest window and a key that all share.
fn table(entries: usize, whole: bool) -> io::Result<InboundTable> {
    let window = inbound::window(if whole { DEFAULT_SIZE } else { WINDOW }, false).map_err(io::Error::other)?;
    let mut table = InboundTable::new(entries, window, None);
    let shared = generator::key(MacAlgorithm::HmacSha256_128)?;
    for entry in 0..entries {
        let (destination, spi) = place(entry);
        let key = if whole { own_key(entry)? } else { shared.clone() };
        let port = u16::try_from(entry % 16).unwrap_or(0);
        let flow = Flow { source: [192, 0, 2, 1].into(), destination, protocol: 17, source_port: 4000 + port, destination_port: 9000 };
        let expires_at = Instant::from_secs(1_000_000);
        let grant = Grant { flow, spi, key, allowed: 1 << 50, counted: 0, highest: 0, expires_at };
        table
            .apply(Update::Install { token: 1, grant }, Instant::ZERO)
            .map_err(|refused| io::Error::other(format!("a permission is refused: {refused:?}")))?;
    }
    Ok(table)
}

fn own_key(entry: usize) -> io::Result<IcvKey> {
    let octets = [entry as u64; 4].map(u64::to_be_bytes);
    IcvKey::new(MacAlgorithm::HmacSha256_128, octets.as_flattened()).map_err(io::Error::other)
}

type Key = [u64; 3];
type Value = [u64; 16];

fn of_map(entries: usize) -> io::Result<Sample> {
    static MAP: OnceLock<Mutex<hashbrown::HashMap<Key, Value>>> = OnceLock::new();
    let map = MAP.get_or_init(Mutex::default);
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    if map.len() != entries {
        map.clear();
        map.extend((0..entries).map(|entry| (key_of(entry), [0; 16])));
    }
    measure(entries, |batch| {
        let mut found = 0;
        for entry in batch {
            if let Some([counted, ..]) = map.get_mut(&key_of(*entry)) {
                *counted += 1400;
                found += 1;
            }
        }
        found
    })
}

fn key_of(entry: usize) -> Key {
    [entry as u64 / 16, 0, 4096 + entry as u64]
}

fn measure(entries: usize, mut look_up: impl FnMut(&[usize]) -> usize) -> io::Result<Sample> {
    let mut dice = Dice::new(7);
    let wanted: Vec<usize> = (0..LOOK_UPS).map(|_| usize::try_from(dice.below(entries as u64)).unwrap_or(0)).collect();
    let watch = Watch::start(Thread::current())?;
    let found: usize = wanted.chunks(BATCH).map(|batch| black_box(look_up(batch))).sum();
    if found != LOOK_UPS {
        return Err(io::Error::other("an entry was not found"));
    }
    Ok(Sample::of(watch.busy()? * 1e9 / LOOK_UPS as f64))
}
