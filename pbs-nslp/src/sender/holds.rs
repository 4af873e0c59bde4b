//! How long a refused flow must not ask: 1 s, doubling to 64 s.

use core::time::Duration;
use std::collections::BTreeMap;

use gist::time::Instant;

use crate::flow::FlowId;

/// After a single refusal, and after no answer.
pub(super) const HOLD: Duration = Duration::from_secs(1);

const LONGEST: Duration = Duration::from_secs(64);

/// The refusals that are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Holds {
    limit: usize,
    refused: BTreeMap<FlowId, Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Refused {
    hold: Duration,
    /// When the refusal is forgotten, so that the next one counts as the first.
    until: Instant,
}

impl Holds {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, refused: BTreeMap::new() }
    }

    /// A refusal, which may name a longer time itself; gives the time that the flow must not ask.
    pub(super) fn refused(&mut self, flow: FlowId, at_least: Duration, now: Instant) -> Duration {
        let before = self.refused.get(&flow).filter(|refused| refused.until > now).map(|refused| refused.hold);
        let hold = before.map_or(HOLD, |hold| hold.saturating_mul(2).min(LONGEST));
        self.make_room(now);
        if self.refused.len() < self.limit {
            self.refused.insert(flow, Refused { hold, until: now + hold.max(at_least) + LONGEST });
        }
        hold.max(at_least)
    }

    /// The receiver has agreed: the next refusal counts as the first.
    pub(super) fn granted(&mut self, flow: &FlowId) {
        self.refused.remove(flow);
    }

    fn make_room(&mut self, now: Instant) {
        if self.refused.len() >= self.limit {
            self.refused.retain(|_, refused| refused.until > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hold_down_doubles_up_to_64_s_and_starts_anew_after_a_grant() {
        let flow = FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, 1, 2).unwrap();
        let mut holds = Holds::new(8);
        let mut now = Instant::ZERO;
        let mut refuse = |holds: &mut Holds| {
            let hold = holds.refused(flow, Duration::ZERO, now);
            now += hold;
            hold.as_secs()
        };
        let seconds: Vec<u64> = (0..8).map(|_| refuse(&mut holds)).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 64]);
        holds.granted(&flow);
        assert_eq!(refuse(&mut holds), 1);
        let minute = Duration::from_secs(60);
        assert_eq!(holds.refused(flow, minute, now), minute, "the receiver's own wish");
    }
}
