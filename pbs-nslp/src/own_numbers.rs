//! The numbers of a signer's own messages.

use std::collections::BTreeMap;

use crate::flow::FlowId;
use crate::wire::number;

/// The last number used for each flow, kept until the clock has passed it by a window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OwnNumbers {
    last: BTreeMap<FlowId, u32>,
    sweep_at: usize,
}

/// Below this many flows nothing is swept.
const SWEEP_FROM: usize = 1024;

impl OwnNumbers {
    pub(crate) fn new() -> Self {
        Self { last: BTreeMap::new(), sweep_at: SWEEP_FROM }
    }

    /// The number of the flow's next message.
    pub(crate) fn next(&mut self, flow: FlowId, now_unix: u64) -> u32 {
        if self.last.len() >= self.sweep_at {
            let safe = number::at(now_unix.saturating_sub(u64::from(number::WINDOW_PAST)));
            self.last.retain(|_, last| number::is_newer(*last, safe));
            self.sweep_at = self.last.len().saturating_mul(2).max(SWEEP_FROM);
        }
        let next = number::next(self.last.get(&flow).copied(), now_unix);
        self.last.insert(flow, next);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_clock_and_never_repeat() {
        let flow = FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, 1, 2).unwrap();
        let mut numbers = OwnNumbers::new();
        assert_eq!(numbers.next(flow, 1000), 1000);
        assert_eq!(numbers.next(flow, 1000), 1001);
        assert_eq!(numbers.next(flow, 990), 1002);
        assert_eq!(numbers.next(flow, 2000), 2000);
    }

    #[test]
    fn old_numbers_are_swept_so_that_the_table_stays_small() {
        let mut numbers = OwnNumbers::new();
        for port in 1..=4000_u16 {
            let flow = FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, port, 2).unwrap();
            numbers.next(flow, u64::from(port) * 10 + 100_000);
        }
        assert!(numbers.last.len() <= SWEEP_FROM);
    }
}
