//! Packet and byte counters of one queue direction, shared with whoever shows them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reason::DropReason;

/// Packets and bytes.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Pair {
    pub(crate) fn add(&self, bytes: usize) {
        self.add_many(1, bytes);
    }

    fn add_many(&self, packets: usize, bytes: usize) {
        // Statistics only: no other memory depends on the order in which they become visible.
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The same where one thread counts and others only read: without the processor's locks, which cost as much as a look-up.
    fn add_alone(&self, bytes: usize) {
        let more = |counter: &AtomicU64, by: u64| counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
        more(&self.packets, 1);
        more(&self.bytes, bytes as u64);
    }

    fn take(&self, bytes: usize) {
        let less = |counter: &AtomicU64, by: u64| {
            let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |value| Some(value.saturating_sub(by)));
        };
        less(&self.packets, 1);
        less(&self.bytes, bytes as u64);
    }

    pub(crate) fn read(&self) -> Count {
        Count { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// Counters of one queue direction: what was accepted, and what was dropped why. The one thread counts whose processor they are of; any
/// may read.
#[derive(Debug, Default)]
pub struct Counters {
    accepted: Pair,
    dropped: [Pair; DropReason::ALL.len()],
    would_drop: [Pair; DropReason::ALL.len()],
    trickled: Pair,
    passed_errors: Pair,
}

/// A reading of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets as they came in.
    pub bytes: u64,
}

impl Count {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { packets: self.packets.saturating_add(other.packets), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl Counters {
    /// Counts a packet that went on.
    pub fn count_accepted(&self, bytes: usize) {
        self.accepted.add_alone(bytes);
    }

    /// Counts so many packets that went on, of so many bytes together.
    pub(crate) fn count_many_accepted(&self, packets: usize, bytes: usize) {
        self.accepted.add_many(packets, bytes);
    }

    /// Counts a packet that was dropped.
    pub fn count_dropped(&self, reason: DropReason, bytes: usize) {
        if let Some(pair) = self.dropped.get(reason.index()) {
            pair.add(bytes);
        }
    }

    /// Counts an ICMP error of so many octets that a router passes on against the direction of a flow. It is counted as
    /// going on besides, as it came in.
    pub(crate) fn count_passed_error(&self, bytes: usize) {
        self.passed_errors.add(bytes);
    }

    /// A packet that was counted as going on did not: from now on it counts as dropped. `bytes` as they were counted.
    pub(crate) fn count_not_accepted(&self, bytes: usize) {
        self.count_not_passed(DropReason::VerdictFailed, bytes);
    }

    /// The same for another reason.
    pub(crate) fn count_not_passed(&self, reason: DropReason, bytes: usize) {
        self.accepted.take(bytes);
        self.count_dropped(reason, bytes);
    }

    /// A packet that was counted as dropped goes on, because its interface is in observe mode. `bytes` as they were counted.
    pub(crate) fn count_would_drop(&self, reason: DropReason, bytes: usize) {
        if let (Some(dropped), Some(would_drop)) = (self.dropped.get(reason.index()), self.would_drop.get(reason.index())) {
            dropped.take(bytes);
            would_drop.add(bytes);
        }
    }

    /// A packet that was counted as dropped goes on to the buckets of the trickle. `bytes` as they were counted.
    pub(crate) fn count_trickled(&self, reason: DropReason, bytes: usize) {
        if let Some(dropped) = self.dropped.get(reason.index()) {
            dropped.take(bytes);
            self.trickled.add(bytes);
        }
    }

    /// What went on for want of a mode that denies it, and would have been dropped: every reason, in the order of [`DropReason::ALL`].
    pub fn all_would_drop(&self) -> impl Iterator<Item = (DropReason, Count)> + '_ {
        DropReason::ALL.iter().zip(&self.would_drop).map(|(reason, pair)| (*reason, pair.read()))
    }

    /// What was handed to the buckets of the trickle; the filter rules count what they let pass.
    pub fn trickled(&self) -> Count {
        self.trickled.read()
    }

    /// ICMP errors about flows that a router has passed on, with the octets that were left of them.
    pub fn passed_errors(&self) -> Count {
        self.passed_errors.read()
    }

    /// What went on so far.
    pub fn accepted(&self) -> Count {
        self.accepted.read()
    }

    /// What went on although it would have been dropped for `reason`, so far.
    pub fn would_drop(&self, reason: DropReason) -> Count {
        self.would_drop.get(reason.index()).map(Pair::read).unwrap_or_default()
    }

    /// What was dropped for `reason` so far.
    pub fn dropped(&self, reason: DropReason) -> Count {
        self.dropped.get(reason.index()).map(Pair::read).unwrap_or_default()
    }

    /// Every reason with its reading, in the order of [`DropReason::ALL`].
    pub fn all_dropped(&self) -> impl Iterator<Item = (DropReason, Count)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.dropped(*reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_accepted_and_dropped_apart() {
        let counters = Counters::default();
        counters.count_accepted(100);
        counters.count_dropped(DropReason::BadIcv, 60);
        counters.count_dropped(DropReason::BadIcv, 40);
        assert_eq!(counters.accepted(), Count { packets: 1, bytes: 100 });
        assert_eq!(counters.dropped(DropReason::BadIcv), Count { packets: 2, bytes: 100 });
        assert_eq!(counters.all_dropped().filter(|(_, count)| count.packets > 0).count(), 1);
        counters.count_not_accepted(100);
        assert_eq!(counters.accepted(), Count::default());
        assert_eq!(counters.dropped(DropReason::VerdictFailed), Count { packets: 1, bytes: 100 });
    }
}
