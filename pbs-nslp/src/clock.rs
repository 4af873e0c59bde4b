//! The wall clock as a core knows it: told once in a while, carried on by the monotonic time in between.

use gist::time::Instant;

/// Unix time at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WallClock {
    unix_seconds: u64,
    told_at: Instant,
}

impl WallClock {
    pub(crate) fn new(unix_seconds: u64, now: Instant) -> Self {
        Self { unix_seconds, told_at: now }
    }

    /// Seconds since 1970.
    pub(crate) fn unix(&self, now: Instant) -> u64 {
        self.unix_seconds.saturating_add(now.saturating_duration_since(self.told_at).as_secs())
    }
}
