//! Time as a value: a core never reads a clock, its caller tells it the time.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::{Add, AddAssign};
use core::time::Duration;

/// A point in time, in microseconds since an origin which the caller chooses and keeps for a node's whole life.
///
/// Kept as one more than that, so that an instant that may be missing takes no more memory than one that is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(NonZeroU64);

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// The last representable point in time, about 584,000 years after the origin.
    pub const MAX: Self = Self(NonZeroU64::MAX);

    /// Makes the instant `micros` microseconds after the origin, or [`Self::MAX`] if that is earlier.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    /// Microseconds since the origin.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0.get() - 1
    }

    /// The span from `earlier` to `self`, zero if `earlier` is in fact later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// `span` before `self`, or the origin if that would be before it.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self::from_micros(self.micros().saturating_sub(whole_micros(span)))
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Instant").field(&self.micros()).finish()
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
        write!(f, "{}.{:06}s", self.micros() / 1_000_000, self.micros() % 1_000_000)
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
    fn an_instant_that_may_be_missing_takes_one_word() {
        assert_eq!(size_of::<Option<Instant>>(), 8);
        assert_eq!([Instant::ZERO, Instant::from_micros(7), Instant::MAX].map(Instant::micros), [0, 7, u64::MAX - 1]);
        assert_eq!(Instant::from_micros(u64::MAX), Instant::MAX);
    }

    #[test]
    fn an_instant_prints_as_seconds() {
        assert_eq!(Instant::from_micros(12_000_500).to_string(), "12.000500s");
    }
}
