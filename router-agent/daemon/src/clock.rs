//! The clocks of a daemon: one monotonic clock for signalling and packets, and the wall clock for message numbers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Time since the daemon started, in the value types of both sides.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that shows 0 now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What the clock shows, for signalling.
    pub fn now(self) -> gist::time::Instant {
        gist::time::Instant::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The moment at which the clock will show `instant`.
    pub fn at(self, instant: gist::time::Instant) -> Instant {
        self.0 + instant.saturating_duration_since(gist::time::Instant::ZERO)
    }

    /// The same clock for the packet side.
    pub fn for_packets(self) -> traffic::worker::Clock {
        traffic::worker::Clock::new(self.0)
    }
}

/// Seconds since 1970, 0 if the wall clock stands before that (message numbers then lie outside every window: fail closed).
#[allow(clippy::disallowed_methods)]
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
