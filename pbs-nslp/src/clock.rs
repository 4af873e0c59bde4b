//! The wall clock as a core knows it: told once in a while, carried on by the monotonic time in between.

use gist::time::Instant;

/// Unix time at one instant, and the latest that it has ever been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WallClock {
    unix_seconds: u64,
    told_at: Instant,
    latest: u64,
}

impl WallClock {
    pub(crate) fn new(unix_seconds: u64, now: Instant) -> Self {
        Self { unix_seconds, told_at: now, latest: unix_seconds }
    }

    /// Seconds since 1970.
    pub(crate) fn unix(&self, now: Instant) -> u64 {
        self.unix_seconds.saturating_add(now.saturating_duration_since(self.told_at).as_secs())
    }

    /// Takes another time; gives the latest time there has been if this one lies before it.
    pub(crate) fn set(&mut self, unix_seconds: u64, now: Instant) -> Option<u64> {
        self.latest = self.latest.max(self.unix(now));
        let stepped_back = unix_seconds < self.latest;
        self.latest = self.latest.max(unix_seconds);
        (self.unix_seconds, self.told_at) = (unix_seconds, now);
        stepped_back.then_some(self.latest)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn a_step_back_is_told_apart_from_a_clock_that_goes_on() {
        let start = Instant::ZERO;
        let mut clock = WallClock::new(1000, start);
        let later = start + Duration::from_secs(50);
        assert_eq!(clock.unix(later), 1050);
        assert_eq!(clock.set(1051, later), None);
        assert_eq!(clock.set(1040, later), Some(1051));
        assert_eq!(clock.unix(later + Duration::from_secs(1)), 1041);
        assert_eq!(clock.set(1045, later + Duration::from_secs(5)), Some(1051), "still before the latest");
    }
}
