//! Below which numbers nothing is accepted without state: of one signer, and of everybody as the last resort.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::number;

/// Floors of single keys, and the common one. When there are too many, the lowest becomes part of the common one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Floors {
    limit: usize,
    common: Option<u32>,
    of_keys: BTreeMap<[u8; 32], Floor>,
    by_unix: BTreeSet<(u64, [u8; 32])>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Floor {
    number: u32,
    /// The number as a time in Unix seconds.
    unix: u64,
}

impl Floors {
    /// At most `limit` floors of single keys.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, common: None, of_keys: BTreeMap::new(), by_unix: BTreeSet::new() }
    }

    pub(super) fn common(&self) -> Option<u32> {
        self.common
    }

    pub(super) fn of(&self, key: &[u8; 32]) -> Option<u32> {
        self.of_keys.get(key).map(|floor| floor.number)
    }

    pub(super) fn raise_common(&mut self, floor: u32) {
        if self.common.is_none_or(|current| number::is_newer(floor, current)) {
            self.common = Some(floor);
        }
    }

    /// Raises the floor of a key to a number that it has used itself.
    pub(super) fn raise(&mut self, key: [u8; 32], number: u32, now_unix: u64) {
        if self.of(&key).is_some_and(|current| !number::is_newer(number, current)) {
            return;
        }
        self.remove(&key);
        let unix = number::as_unix(number, now_unix);
        self.of_keys.insert(key, Floor { number, unix });
        self.by_unix.insert((unix, key));
        self.make_room(now_unix);
    }

    /// What lies before the window needs no floor: should the clock be put back, the common floor rises to there.
    fn make_room(&mut self, now_unix: u64) {
        while let Some(&(unix, key)) = self.by_unix.first() {
            let needless = unix.saturating_add(u64::from(number::WINDOW_PAST)) < now_unix;
            if !needless && self.of_keys.len() <= self.limit {
                break;
            }
            if let Some(number) = self.remove(&key)
                && !needless
            {
                // Never past the clock, or the honest new numbers of others would be refused.
                let clock = number::at(now_unix);
                self.raise_common(if number::is_newer(number, clock) { clock } else { number });
            }
        }
    }

    fn remove(&mut self, key: &[u8; 32]) -> Option<u32> {
        let floor = self.of_keys.remove(key)?;
        self.by_unix.remove(&(floor.unix, *key));
        Some(floor.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn clock() -> u32 {
        number::at(NOW)
    }

    #[test]
    fn a_floor_only_rises_and_only_that_of_one_key_passes_the_clock() {
        let mut floors = Floors::new(4);
        floors.raise([1; 32], clock() - 9, NOW);
        floors.raise([1; 32], clock() - 10, NOW);
        assert_eq!((floors.of(&[1; 32]), floors.of(&[2; 32]), floors.common()), (Some(clock() - 9), None, None));
        floors.raise([1; 32], clock() + 20, NOW);
        assert_eq!(floors.of(&[1; 32]), Some(clock() + 20), "what the signer itself has used");
        let mut none = Floors::new(0);
        none.raise([1; 32], clock() + 20, NOW);
        assert_eq!((none.of(&[1; 32]), none.common()), (None, Some(clock())));
    }

    #[test]
    fn the_common_floor_is_the_last_resort() {
        let mut floors = Floors::new(2);
        for (key, age) in [(1, 20), (2, 30), (3, 10)] {
            floors.raise([key; 32], clock() - age, NOW);
        }
        assert_eq!((floors.of_keys.len(), floors.common()), (2, Some(clock() - 30)));
        floors.raise([4; 32], clock() - 40, NOW);
        assert_eq!((floors.of(&[4; 32]), floors.common()), (None, Some(clock() - 30)), "it lies below already");
    }

    #[test]
    fn a_floor_goes_when_the_window_has_passed_it() {
        let mut floors = Floors::new(1);
        floors.raise([1; 32], clock(), NOW);
        floors.raise([2; 32], clock() + 301, NOW + 301);
        assert_eq!((floors.of(&[1; 32]), floors.of(&[2; 32]), floors.common()), (None, Some(clock() + 301), None));
    }
}
