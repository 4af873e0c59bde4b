//! Time as a value: a core never reads a clock, its caller tells it the time.

use core::fmt;
use core::ops::{Add, AddAssign};
use core::time::Duration;

/// A point in time, in microseconds since an origin which the caller chooses and keeps for a node's whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The last representable point in time, about 584,000 years after the origin.
    pub const MAX: Self = Self(u64::MAX);

    /// Makes the instant `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The span from `earlier` to `self`, zero if `earlier` is in fact later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// `span` before `self`, or the origin if that would be before it.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(whole_micros(span)))
    }
}

/// Saturates at [`Instant::MAX`]; what is finer than a microsecond is cut off.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(whole_micros(span)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

/// Seconds with six decimals, such as `12.000500s`.
impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

fn whole_micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_and_subtract_without_overflow() {
        let start = Instant::from_micros(1_500_000);
        assert_eq!(start + Duration::from_millis(500), Instant::from_micros(2_000_000));
        assert_eq!(start + Duration::MAX, Instant::MAX);
        assert_eq!(Instant::ZERO.saturating_duration_since(start), Duration::ZERO);
        assert_eq!(start.saturating_duration_since(Instant::ZERO), Duration::from_millis(1500));
        assert_eq!(start.saturating_sub(Duration::from_secs(9)), Instant::ZERO);
    }

    #[test]
    fn an_instant_prints_as_seconds() {
        assert_eq!(Instant::from_micros(12_000_500).to_string(), "12.000500s");
    }
}
