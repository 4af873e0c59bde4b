//! Finding a permission among many, beside a map of the same size that does nothing else.

use std::hint::black_box;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};

use smoltcp::time::Instant;
use traffic::algorithm::MacAlgorithm;
use traffic::flow::Flow;
use traffic::table::inbound::{self, InboundTable};
use traffic::update::{Grant, Update};

use super::generator;
use crate::bench::pairs::{Goal, Sample, Trial};
use crate::bench::processor::{Thread, Watch};
use crate::dice::Dice;

const LOOK_UPS: usize = 1_000_000;
/// Numbers of the smallest window: memory is another row's matter.
const WINDOW: u32 = 64;

pub(super) fn trials() -> Vec<Trial> {
    [(100_000, 1.5), (1_000_000, 1.3)]
        .map(|(entries, goal)| Trial {
            name: format!("look-up and count among {entries} permissions"),
            unit: "ns of processor time per packet",
            goal: Goal::RatioAtMost(goal),
            bound_is: "hashbrown with its own hash function, keys of 24 octets, values of 128",
            ours: Box::new(move || of_table(entries)),
            bound: Box::new(move || of_map(entries)),
        })
        .into()
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
        *kept = (entries, Some(table(entries)?));
    }
    let table = kept.1.as_mut().ok_or_else(|| io::Error::other("no table"))?;
    measure(entries, |entry| {
        let Some(found) = table.get_mut(place(entry)) else { return false };
        found.counted += 1400;
        true
    })
}

fn table(entries: usize) -> io::Result<InboundTable> {
    let window = inbound::window(WINDOW, false).map_err(io::Error::other)?;
    let mut table = InboundTable::new(entries, window, None);
    let key = generator::key(MacAlgorithm::HmacSha256_128)?;
    for entry in 0..entries {
        let (destination, spi) = place(entry);
        let port = u16::try_from(entry % 16).unwrap_or(0);
        let flow = Flow { source: [192, 0, 2, 1].into(), destination, protocol: 17, source_port: 4000 + port, destination_port: 9000 };
        let expires_at = Instant::from_secs(1_000_000);
        let grant = Grant { flow, spi, key: key.clone(), allowed: 1 << 50, counted: 0, highest: 0, expires_at };
        table
            .apply(Update::Install { token: 1, grant }, Instant::ZERO)
            .map_err(|refused| io::Error::other(format!("a permission is refused: {refused:?}")))?;
    }
    Ok(table)
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
    measure(entries, |entry| {
        let Some([counted, ..]) = map.get_mut(&key_of(entry)) else { return false };
        *counted += 1400;
        true
    })
}

fn key_of(entry: usize) -> Key {
    [entry as u64 / 16, 0, 4096 + entry as u64]
}

fn measure(entries: usize, mut look_up: impl FnMut(usize) -> bool) -> io::Result<Sample> {
    let mut dice = Dice::new(7);
    let wanted: Vec<usize> = (0..LOOK_UPS).map(|_| usize::try_from(dice.below(entries as u64)).unwrap_or(0)).collect();
    let watch = Watch::start(Thread::current())?;
    let found = wanted.iter().filter(|entry| black_box(look_up(**entry))).count();
    if found != LOOK_UPS {
        return Err(io::Error::other("an entry was not found"));
    }
    Ok(Sample::of(watch.busy()? * 1e9 / LOOK_UPS as f64))
}
