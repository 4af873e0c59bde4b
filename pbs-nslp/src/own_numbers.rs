//! The numbers of a signer's own messages.

use std::collections::{BTreeMap, BTreeSet};

use crate::flow::FlowId;
use crate::wire::number;

/// The last number used for each flow, kept until the clock has passed it by a window. When there are too many, the lowest
/// goes, and flows whose last number is not known go on above it: no number is ever used twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OwnNumbers {
    limit: usize,
    last: BTreeMap<FlowId, Used>,
    by_unix: BTreeSet<(u64, FlowId)>,
    /// The highest number that was given up before its time.
    forgotten: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Used {
    number: u32,
    /// The number as a time in Unix seconds, which orders numbers across the wrap.
    unix: u64,
}

/// Flows whose last number is kept at most.
const LIMIT: usize = 65_536;

impl OwnNumbers {
    pub(crate) fn new() -> Self {
        Self::with_limit(LIMIT)
    }

    fn with_limit(limit: usize) -> Self {
        Self { limit, last: BTreeMap::new(), by_unix: BTreeSet::new(), forgotten: None }
    }

    /// The number of the flow's next message.
    pub(crate) fn next(&mut self, flow: FlowId, now_unix: u64) -> u32 {
        let previous = self.remove(&flow).or(self.forgotten);
        let number = number::next(previous, now_unix);
        self.make_room(now_unix);
        let unix = number::as_unix(number, now_unix);
        self.last.insert(flow, Used { number, unix });
        self.by_unix.insert((unix, flow));
        number
    }

    fn make_room(&mut self, now_unix: u64) {
        while let Some(&(unix, flow)) = self.by_unix.first() {
            let passed = unix.saturating_add(u64::from(number::WINDOW_PAST)) < now_unix;
            if !passed && self.last.len() < self.limit {
                break;
            }
            let number = self.remove(&flow).filter(|_| !passed);
            if let Some(number) = number.filter(|number| self.forgotten.is_none_or(|forgotten| number::is_newer(*number, forgotten))) {
                self.forgotten = Some(number);
            }
        }
    }

    fn remove(&mut self, flow: &FlowId) -> Option<u32> {
        let used = self.last.remove(flow)?;
        self.by_unix.remove(&(used.unix, *flow));
        Some(used.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> FlowId {
        FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, port, 2).unwrap()
    }

    #[test]
    fn numbers_follow_the_clock_and_never_repeat() {
        let mut numbers = OwnNumbers::new();
        assert_eq!(numbers.next(flow(1), 1000), 1000);
        assert_eq!(numbers.next(flow(1), 1000), 1001);
        assert_eq!(numbers.next(flow(1), 990), 1002);
        assert_eq!(numbers.next(flow(1), 2000), 2000);
    }

    #[test]
    fn old_numbers_are_forgotten_and_hold_nobody_up() {
        let mut numbers = OwnNumbers::new();
        for port in 1..=4000_u16 {
            assert_eq!(numbers.next(flow(port), u64::from(port) * 10 + 100_000), u32::from(port) * 10 + 100_000);
        }
        assert_eq!((numbers.last.len(), numbers.by_unix.len(), numbers.forgotten), (31, 31, None));
    }

    #[test]
    fn the_table_has_a_cap_and_no_number_repeats_all_the_same() {
        let mut numbers = OwnNumbers::with_limit(16);
        let mut used = BTreeSet::new();
        for round in 0..10_u64 {
            for port in 1..=100 {
                let number = numbers.next(flow(port), 100_000 + round / 5);
                assert!(used.insert((port, number)), "{number} twice for {port}");
                assert!(numbers.last.len() <= 16 && numbers.by_unix.len() <= 16);
            }
        }
        // How far they run ahead: one for each time that the table is filled.
        let ahead = numbers.next(flow(200), 100_001) - 100_001;
        assert!(ahead <= 1000 / 16 + 1, "{ahead}");
        assert_eq!(numbers.next(flow(201), 200_000), 200_000, "the clock catches up");
    }
}
