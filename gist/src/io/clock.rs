//! The node's time.

use std::time::Duration;

use crate::time::Instant;

/// The one place where the clock is read.
pub(super) struct Clock(std::time::Instant);

impl Clock {
    /// Starts the node's time at 0.
    pub(super) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The node's time.
    pub(super) fn now(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }

    /// The same moment on tokio's clock, or a day from now if it cannot be expressed or is further away.
    pub(super) fn at(&self, instant: Instant) -> tokio::time::Instant {
        let latest = self.0.elapsed() + LONGEST_SLEEP;
        let span = Duration::from_micros(instant.micros()).min(latest);
        self.0.checked_add(span).unwrap_or(self.0).into()
    }
}

/// Most time between two looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(86_400);
