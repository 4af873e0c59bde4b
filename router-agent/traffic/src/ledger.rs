//! What was counted under which numbers: the receiver's memory for comparing volumes (X-39, X-42, requirements appendix E).
//!
//! A sender says "up to number N I have sent so many bytes". The ledger answers how many of the bytes counted here lie up to N,
//! exactly for buckets of [`BUCKET`] numbers, and within a bucket between two bounds, so that whoever compares can take the
//! one in the sender's favour. The bounds follow from the bucket's longest packet: close where packets are of one length, as they
//! are where much is sent. Of one number in [`SAMPLE`] it keeps the first octets of the ICV, so that a packet that comes
//! too late for the anti-replay window can still be told from a copy of one that was counted.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use smoltcp::time::Instant;

use crate::state::Micros;

/// Numbers in one bucket.
pub const BUCKET: u32 = 256;
/// One number in so many is remembered with its ICV.
pub const SAMPLE: u32 = 64;
/// Buckets kept at most unless told otherwise: 524,288 numbers, or more than 6 s of full packets at 1 Gbit/s, in 64 KiB.
pub const DEFAULT_CAPACITY: usize = 2048;

const SAMPLES: usize = (BUCKET / SAMPLE) as usize;

/// Bytes counted, by number.
///
/// Memory grows with the numbers that came and stops at the capacity: 32 octets a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ledger {
    capacity: usize,
    /// Which number of each [`SAMPLE`] is remembered; nobody outside should know.
    phase: u32,
    /// Index of the oldest bucket kept.
    first: u32,
    /// Bytes under numbers that are older.
    before: u64,
    /// All bytes.
    total: u64,
    /// Highest number counted.
    highest: u32,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    bytes: u32,
    /// Octets of the longest of them.
    longest: u32,
    /// When the last of them came.
    last: Instant,
    /// First octets of the ICV of each sampled number; all zero for one that was not counted.
    tags: [[u8; 4]; SAMPLES],
}

impl Hash for Bucket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { bytes, longest, last, tags } = self;
        (bytes, longest, last.in_micros(), tags).hash(state);
    }
}

impl Bucket {
    const EMPTY: Self = Self { bytes: 0, longest: 0, last: Instant::ZERO, tags: [[0; 4]; SAMPLES] };
}

/// How much of what was counted lies up to some number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// Bytes that certainly do.
    pub at_least: u64,
    /// Bytes that may: of the number's own bucket as many as its longest packet allows.
    pub at_most: u64,
}

/// What is known of a number whose packet comes too late for the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Nothing: it is not one of those remembered, or was not counted. Late is no evidence: the network may have held the packet
    /// back, and anybody can send it again.
    Unknown,
    /// It was counted with this very ICV: a copy.
    Copy,
    /// It was counted with another ICV: if this one is right too, two hold the key.
    Other,
}

impl Ledger {
    /// An empty ledger of at most `capacity` buckets, at least one. `phase` chooses which numbers are sampled.
    pub fn new(capacity: usize, phase: u32) -> Self {
        let capacity = capacity.max(1);
        Self { capacity, phase: phase % SAMPLE, first: 0, before: 0, total: 0, highest: 0, buckets: VecDeque::new() }
    }

    /// Takes note of a packet that was counted: its number, its length in bytes, and the first octets of its ICV.
    pub fn count(&mut self, number: u32, length: u32, tag: [u8; 4], now: Instant) {
        self.total = self.total.saturating_add(length.into());
        self.highest = self.highest.max(number);
        let index = number / BUCKET;
        self.make_room(index);
        let place = index.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let sample = self.sample(number);
        let Some(bucket) = place.and_then(|place| self.buckets.get_mut(place)) else {
            // Older than everything kept.
            self.before = self.before.saturating_add(length.into());
            return;
        };
        bucket.bytes = bucket.bytes.saturating_add(length);
        bucket.longest = bucket.longest.max(length);
        bucket.last = now;
        if let Some(kept) = sample.and_then(|sample| bucket.tags.get_mut(sample)) {
            // All zero means "not counted"; one ICV in 2^32 is remembered as its neighbour.
            *kept = if tag == [0; 4] { [0, 0, 0, 1] } else { tag };
        }
    }

    /// Bytes counted under numbers up to `number`; `None` if the ledger no longer goes back so far.
    pub fn up_to(&self, number: u32) -> Option<Covered> {
        if number >= self.highest {
            return Some(Covered { at_least: self.total, at_most: self.total });
        }
        let own = usize::try_from((number / BUCKET).checked_sub(self.first)?).ok()?;
        let older = self.buckets.iter().take(own).fold(self.before, |sum, bucket| sum.saturating_add(bucket.bytes.into()));
        let (within, longest) = self.buckets.get(own).map_or((0, 0), |bucket| (u64::from(bucket.bytes), u64::from(bucket.longest)));
        // No number has more than one packet, and none is longer than the longest.
        let numbers = u64::from(number % BUCKET + 1);
        let beyond = (u64::from(BUCKET) - numbers).saturating_mul(longest);
        let at_least = older.saturating_add(within.saturating_sub(beyond));
        Some(Covered { at_least, at_most: older.saturating_add(within.min(numbers.saturating_mul(longest))) })
    }

    /// Bytes counted under numbers beyond `number` that had come before `then`: at a number that a Query names as the last one
    /// used, what had come long before the Query. The number's own bucket, and others that were still being filled at `then`,
    /// are left out: in the sender's favour.
    pub fn ahead_of(&self, number: u32, then: Instant) -> u64 {
        let behind =
            (number / BUCKET).checked_sub(self.first).map_or(0, |own| usize::try_from(own).unwrap_or(usize::MAX).saturating_add(1));
        let ahead = self.buckets.iter().skip(behind).filter(|bucket| bucket.last < then);
        ahead.fold(0, |sum, bucket| sum.saturating_add(bucket.bytes.into()))
    }

    /// What is known of a number left of the window, whose packet carries the ICV that begins with `tag`.
    pub fn late(&self, number: u32, tag: [u8; 4]) -> Late {
        let bucket = (number / BUCKET)
            .checked_sub(self.first)
            .and_then(|place| usize::try_from(place).ok())
            .and_then(|place| self.buckets.get(place));
        match bucket.zip(self.sample(number)).and_then(|(bucket, sample)| bucket.tags.get(sample)) {
            None | Some([0, 0, 0, 0]) => Late::Unknown,
            Some(kept) if *kept == tag || (tag == [0; 4] && *kept == [0, 0, 0, 1]) => Late::Copy,
            Some(_) => Late::Other,
        }
    }

    /// Bytes in all.
    pub const fn total(&self) -> u64 {
        self.total
    }

    fn sample(&self, number: u32) -> Option<usize> {
        let within = number % BUCKET;
        (within % SAMPLE == self.phase).then(|| usize::try_from(within / SAMPLE).unwrap_or(0))
    }

    /// Lets the kept buckets reach up to `index`; the oldest make room. A jump beyond all that can be kept empties the ledger
    /// rather than filling it bucket by bucket: numbers are the sender's choice.
    fn make_room(&mut self, index: u32) {
        if self.buckets.is_empty() {
            // The first packet: nothing older has been counted, so the bucket before it is kept free for a late neighbour.
            self.first = index.saturating_sub(1);
        }
        let place = match index.checked_sub(self.first).map(usize::try_from) {
            Some(Ok(place)) => place,
            _ => return,
        };
        if place >= self.buckets.len().saturating_add(self.capacity) {
            self.before = self.total_of_kept();
            self.buckets.clear();
            self.first = index;
        }
        while index.checked_sub(self.first).is_some_and(|place| usize::try_from(place).is_ok_and(|place| place >= self.buckets.len())) {
            if self.buckets.len() >= self.capacity
                && let Some(oldest) = self.buckets.pop_front()
            {
                self.before = self.before.saturating_add(oldest.bytes.into());
                self.first = self.first.saturating_add(1);
            }
            self.buckets.push_back(Bucket::EMPTY);
        }
    }

    fn total_of_kept(&self) -> u64 {
        self.buckets.iter().fold(self.before, |sum, bucket| sum.saturating_add(bucket.bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_lies_up_to_a_number_is_bounded_from_both_sides(
            packets in proptest::collection::btree_map(1u32..20_000, 60u32..1500, 1..400),
            asked in 0u32..25_000,
            capacity in 1usize..100,
        ) {
            let mut ledger = Ledger::new(capacity, 7);
            for (number, length) in &packets {
                ledger.count(*number, *length, number.to_be_bytes(), Instant::ZERO);
            }
            let exact: u64 = packets.iter().filter(|(number, _)| **number <= asked).map(|(_, length)| u64::from(*length)).sum();
            if let Some(covered) = ledger.up_to(asked) {
                prop_assert!(covered.at_least <= exact && exact <= covered.at_most);
                prop_assert!(covered.at_most - covered.at_least <= u64::from(BUCKET) * 1500);
            }
            prop_assert!(ledger.buckets.len() <= capacity);
            prop_assert_eq!(ledger.total(), packets.values().map(|length| u64::from(*length)).sum::<u64>());
            prop_assert_eq!(ledger.total_of_kept(), ledger.total());
        }

        #[test]
        fn order_makes_no_difference_to_what_is_still_kept(
            mut packets in proptest::collection::vec((1u32..5_000, 60u32..1500), 1..200),
            asked in 0u32..6_000,
        ) {
            packets.sort();
            packets.dedup_by_key(|packet| packet.0);
            let mut in_order = Ledger::new(100, 0);
            let mut backwards = Ledger::new(100, 0);
            packets.iter().for_each(|(number, length)| in_order.count(*number, *length, [1; 4], Instant::ZERO));
            // The first packet begins the ledger; the others may come in any order behind it.
            let (first, rest) = packets.split_first().unwrap();
            backwards.count(first.0, first.1, [1; 4], Instant::ZERO);
            rest.iter().rev().for_each(|(number, length)| backwards.count(*number, *length, [1; 4], Instant::ZERO));
            prop_assert_eq!(in_order.up_to(asked), backwards.up_to(asked));
        }

        #[test]
        fn no_numbers_make_it_panic_or_grow(packets in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..200), capacity in 0usize..10) {
            let mut ledger = Ledger::new(capacity, 9);
            for (number, length) in packets {
                ledger.count(number, length, [0; 4], Instant::ZERO);
                let _ = (ledger.up_to(number), ledger.late(number, [0; 4]), ledger.ahead_of(number, Instant::from_secs(1)));
                prop_assert!(ledger.buckets.len() <= capacity.max(1));
            }
        }
    }

    #[test]
    fn packets_of_one_length_are_told_to_the_number_where_none_is_missing_and_nearly_so_where_some_are() {
        let mut ledger = Ledger::new(16, 0);
        for number in (1..=1500).filter(|number| *number <= 1000 || number % 10 != 0) {
            ledger.count(number, 1264, [1; 4], Instant::ZERO);
        }
        assert_eq!(ledger.up_to(700), Some(Covered { at_least: 700 * 1264, at_most: 700 * 1264 }));
        let exact = (1000 + 300 - 30) * 1264;
        let covered = ledger.up_to(1300).unwrap();
        assert!(covered.at_most - exact <= 3 * 1264 && exact - covered.at_least <= 24 * 1264, "{covered:?}, {exact}");
    }

    #[test]
    fn a_number_that_the_ledger_no_longer_goes_back_to_gives_no_answer() {
        let mut ledger = Ledger::new(4, 0);
        for number in 1..=BUCKET * 10 {
            ledger.count(number, 100, [1; 4], Instant::ZERO);
        }
        assert_eq!(ledger.up_to(BUCKET), None);
        assert!(ledger.up_to(BUCKET * 8).is_some());
        let all = u64::from(BUCKET) * 1000;
        assert_eq!(ledger.up_to(BUCKET * 10), Some(Covered { at_least: all, at_most: all }));
    }

    #[test]
    fn one_number_in_64_tells_a_copy_from_another_packet_long_after_the_window_has_passed() {
        let mut ledger = Ledger::new(16, 5);
        for number in (1..1000).filter(|number| *number != 69) {
            ledger.count(number, 100, number.to_be_bytes(), Instant::ZERO);
        }
        let mut sampled = 0;
        for number in 1..1000u32 {
            match ledger.late(number, number.to_be_bytes()) {
                Late::Unknown => assert_eq!(ledger.late(number, [9; 4]), Late::Unknown),
                Late::Copy => {
                    sampled += 1;
                    assert_eq!(ledger.late(number, [9; 4]), Late::Other);
                }
                Late::Other => panic!("{number}"),
            }
        }
        assert_eq!(sampled, 15);
        assert_eq!(ledger.late(69, [9; 4]), Late::Unknown, "sampled, but not counted");
    }

    #[test]
    fn what_came_long_before_a_query_that_does_not_know_of_it_is_told_from_what_came_just_now() {
        let mut ledger = Ledger::new(64, 0);
        let (long_ago, now) = (Instant::from_millis(1_000), Instant::from_millis(5_000));
        for number in 1..=1000 {
            ledger.count(number, 100, [1; 4], long_ago);
        }
        // Sent after the Query, arrived before it; and injected far ahead, long before.
        for number in 1001..=3000 {
            ledger.count(number, 100, [1; 4], now);
        }
        for number in 9000..9500 {
            ledger.count(number, 100, [1; 4], long_ago);
        }
        let then = Instant::from_millis(4_500);
        assert_eq!(ledger.ahead_of(1000, then), 500 * 100);
        assert_eq!(ledger.ahead_of(9500, then), 0);
        assert_eq!(ledger.ahead_of(1000, long_ago), 0);
    }
}
