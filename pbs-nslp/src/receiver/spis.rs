//! Security parameter indexes: random, and not used again while anything may remember them.

use std::collections::{BTreeMap, BTreeSet};

use gist::time::Instant;

use crate::entropy::Entropy;
use crate::wire::SaParameters;

/// SPIs that may not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Spis {
    /// When a resting SPI may be used again; `None` while it is in use.
    taken: BTreeMap<u32, Option<Instant>>,
    resting: BTreeSet<(Instant, u32)>,
}

/// Resting SPIs at most; among 2³² numbers a repetition is unlikely even without memory.
const RESTING_LIMIT: usize = 65_536;

impl Spis {
    pub(super) fn new() -> Self {
        Self { taken: BTreeMap::new(), resting: BTreeSet::new() }
    }

    /// Draws an SPI.
    pub(super) fn draw(&mut self, entropy: &mut Entropy, now: Instant) -> u32 {
        self.wake(now);
        loop {
            let spi = entropy.spi();
            if spi >= SaParameters::FIRST_SPI && !self.taken.contains_key(&spi) {
                self.taken.insert(spi, None);
                return spi;
            }
        }
    }

    /// Gives an SPI back, to be used again after some time.
    pub(super) fn rest(&mut self, spi: u32, until: Instant) {
        if self.resting.len() >= RESTING_LIMIT
            && let Some((_, first)) = self.resting.pop_first()
        {
            self.taken.remove(&first);
        }
        if let Some(taken) = self.taken.get_mut(&spi)
            && taken.is_none()
        {
            *taken = Some(until);
            self.resting.insert((until, spi));
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some(&(until, spi)) = self.resting.first()
            && until <= now
        {
            self.resting.remove(&(until, spi));
            self.taken.remove(&spi);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::sync::Arc;

    use super::*;
    use crate::credentials::HmacGenerator;

    fn entropy() -> Entropy {
        Entropy::new(Arc::new(HmacGenerator), [1; 32])
    }

    #[test]
    fn an_spi_in_use_or_at_rest_is_not_drawn() {
        let now = Instant::ZERO;
        let mut spis = Spis::new();
        let first = spis.draw(&mut entropy(), now);
        let second = spis.draw(&mut entropy(), now);
        assert_ne!(first, second, "the same seed gives the same candidates");
        spis.rest(first, now + Duration::from_secs(9));
        assert_ne!(spis.draw(&mut entropy(), now + Duration::from_secs(8)), first);
        assert_eq!(spis.draw(&mut entropy(), now + Duration::from_secs(9)), first);
    }

    /// P-152, X-74.
    #[test]
    fn spis_are_no_reserved_ones_and_none_comes_back_while_anything_may_remember_it() {
        let mut entropy = Entropy::new(Arc::new(HmacGenerator), [7; 32]);
        let mut spis = Spis::new();
        let drawn: BTreeSet<u32> = (0..10_000).map(|_| spis.draw(&mut entropy, Instant::ZERO)).collect();
        assert_eq!(drawn.len(), 10_000);
        assert!(drawn.iter().all(|spi| *spi >= 256));
        let spread = drawn.iter().map(|spi| spi >> 28).collect::<BTreeSet<_>>();
        assert_eq!(spread.len(), 16, "anywhere among the numbers");
        let first = *drawn.first().unwrap();
        let end = Instant::ZERO + Duration::from_secs(900);
        spis.rest(first, end);
        spis.wake(Instant::from_micros(899_999_999));
        assert!(spis.taken.contains_key(&first));
        spis.wake(end);
        assert!(!spis.taken.contains_key(&first));
    }
}
