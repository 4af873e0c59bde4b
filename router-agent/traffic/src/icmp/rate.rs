//! How many errors about one flow are passed on.

use smoltcp::time::Instant;

use super::quote::Kind;

/// Errors a second about the size of one flow's packets; as many may come at once.
const TOO_BIG: u64 = 10;
/// The same of all other kinds together: no connection depends on them.
const OTHERS: u64 = 1;
const ONE: u64 = 1_000_000;

/// What is left of one flow's errors, apart for those about size, which nothing else may use up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rates {
    too_big: Rate<TOO_BIG>,
    others: Rate<OTHERS>,
}

impl Rates {
    /// Of a flow about which no error has come.
    pub(crate) const FULL: Self = Self { too_big: Rate { left: None }, others: Rate { left: None } };

    /// Whether one more error of this kind may be passed on now; if so, it is counted.
    pub(crate) fn take(&mut self, kind: Kind, now: Instant) -> bool {
        match kind {
            Kind::TooBig(_) => self.too_big.take(now),
            Kind::Other => self.others.take(now),
        }
    }
}

/// What is left of one kind. One that is believed is enough: what follows are those about packets already on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rate<const PER_SECOND: u64> {
    /// Millionths that are left, and at which microsecond.
    left: Option<(u64, i64)>,
}

impl<const PER_SECOND: u64> Rate<PER_SECOND> {
    /// Whether one more may be passed on now; if so, it is counted.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full = PER_SECOND * ONE;
        let left = self.left.map_or(full, |(left, then)| {
            let elapsed = u64::try_from(now.total_micros().saturating_sub(then)).unwrap_or(0);
            left.saturating_add(elapsed.saturating_mul(PER_SECOND)).min(full)
        });
        let taken = left.checked_sub(ONE);
        self.left = Some((taken.unwrap_or(left), now.total_micros()));
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::time::Duration;

    use super::*;

    #[test]
    fn ten_errors_pass_at_once_and_then_ten_a_second() {
        let (mut rate, start) = (Rate::<TOO_BIG>::default(), Instant::from_micros(5));
        let taken = |rate: &mut Rate<TOO_BIG>, now| (0..100).filter(|_| rate.take(now)).count();
        assert_eq!(taken(&mut rate, start), 10);
        assert_eq!(taken(&mut rate, start + Duration::from_millis(99)), 0);
        assert_eq!(taken(&mut rate, start + Duration::from_millis(300)), 3);
        assert_eq!(taken(&mut rate, start + Duration::from_secs(1000)), 10);
        assert_eq!(taken(&mut rate, start), 0, "a clock that goes back gives nothing");
    }
}
