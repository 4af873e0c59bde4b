//! Token buckets (RFC 5971 §5.3.3, G-204), in which the limit on datagrams is counted.

use super::DatagramRate;
use crate::time::Instant;

/// What a bucket counts in, so that small parts of small limits are not lost in rounding: parts of a datagram.
pub(super) const PARTS: u64 = 1024;

/// One datagram, in what one part a second gives in a microsecond.
pub(super) const TOKEN: u64 = PARTS * 1_000_000;

/// How fast a bucket fills and how much it holds, in parts of a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) per_second: u64,
    pub(super) burst: u64,
}

impl Flow {
    /// One of `of` equal pieces of so many sixteenths of the limit.
    pub(super) fn part(rate: DatagramRate, sixteenths: u64, of: u64) -> Self {
        let share = |whole: u32| u64::from(whole).saturating_mul(PARTS / 16 * sixteenths) / of.max(1);
        Self { per_second: share(rate.per_second), burst: share(rate.burst) }
    }

    /// At least one datagram, or nothing would ever leave.
    pub(super) fn most(self) -> u64 {
        self.burst.saturating_mul(TOKEN / PARTS).max(TOKEN)
    }
}

/// A token bucket (G-204); full when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    pub(super) filled: u64,
    pub(super) updated: Instant,
}

impl Bucket {
    pub(super) fn new(flow: Flow, now: Instant) -> Self {
        Self { filled: flow.most(), updated: now }
    }

    pub(super) fn fill(&mut self, flow: Flow, now: Instant) {
        let elapsed = u64::try_from(now.saturating_duration_since(self.updated).as_micros()).unwrap_or(u64::MAX);
        self.filled = self.filled.saturating_add(elapsed.saturating_mul(flow.per_second)).min(flow.most());
        self.updated = self.updated.max(now);
    }

    pub(super) fn take(&mut self, flow: Flow, now: Instant) -> bool {
        self.fill(flow, now);
        let left = self.filled.checked_sub(TOKEN);
        self.filled = left.unwrap_or(self.filled);
        left.is_some()
    }
}
