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
}
