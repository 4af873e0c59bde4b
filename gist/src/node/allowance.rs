//! What one peer gets, apart from all others.

use super::DatagramRate;
use super::bucket::{Bucket, Flow, TOKEN};
use super::rate::{ERRORS, KEPT};
use crate::time::Instant;

/// One neighbour gets one part in so many of what is for all of them.
const NEIGHBOURS: u64 = 2;

/// What one association gets in Responses to Queries that name its peer, for flows that do not exist yet or ask too often:
/// Queries are not authenticated, and without a bound forged ones would fill it.
///
/// As many as a node like this one can ask at most, so that a true peer never meets the bound. Of Errors about what its peer says it has
/// another one, a sixteenth as large: those that its peer needs are not counted there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Allowance(Option<Bucket>);

impl Allowance {
    pub(super) fn take(&mut self, rate: DatagramRate, now: Instant) -> bool {
        self.take_part(rate, 16, now)
    }

    pub(super) fn take_error(&mut self, rate: DatagramRate, now: Instant) -> bool {
        self.take_part(rate, ERRORS, now)
    }

    fn take_part(&mut self, rate: DatagramRate, sixteenths: u64, now: Instant) -> bool {
        let whole = DatagramRate { per_second: rate.most_per_second.max(rate.per_second), ..rate };
        let flow = Flow::part(whole, sixteenths, 1);
        self.of(flow, now).take(flow, now)
    }

    /// The same of a neighbour that is reached by datagrams, for refreshes of states that nobody confirms.
    pub(super) fn take_turn_of_neighbour(&mut self, rate: DatagramRate, now: Instant) -> bool {
        let flow = Flow::part(rate, KEPT, NEIGHBOURS);
        self.of(flow, now).take(flow, now)
    }

    /// Whether it could.
    pub(super) fn has_turn_of_neighbour(&mut self, rate: DatagramRate, now: Instant) -> bool {
        let flow = Flow::part(rate, KEPT, NEIGHBOURS);
        let bucket = self.of(flow, now);
        bucket.fill(flow, now);
        bucket.filled >= TOKEN
    }

    fn of(&mut self, flow: Flow, now: Instant) -> &mut Bucket {
        self.0.get_or_insert_with(|| Bucket::new(flow, now))
    }
}
