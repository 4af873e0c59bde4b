//! Keys, SPIs, session identifiers and jitter, from one secret seed given at construction.
//!
//! The seed is the shell's, and so is what makes more of it: a [`Generator`], as signatures come through
//! [`Signer`](crate::credentials::Signer).

use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use crate::opaque::Opaque;

/// Makes many unpredictable values of one.
pub trait Generator: fmt::Debug + Send + Sync {
    /// 32 bytes that nobody who does not know the seed can tell from random ones; the same for the same seed and number.
    fn block(&self, seed: &[u8; 32], number: u64) -> Zeroizing<[u8; 32]>;
}

/// A generator with its seed and a count of what was drawn. With the same seed and the same calls the values are the same, so that
/// a run can be repeated. Two are equal if they would go on alike under one generator.
#[derive(Clone, PartialEq, Eq)]
pub struct Entropy {
    generator: Opaque<dyn Generator>,
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl Entropy {
    /// Values from `seed`, which must be secret and never used twice.
    pub fn new(generator: Arc<dyn Generator>, seed: [u8; 32]) -> Self {
        Self { generator: Opaque::new(generator), seed: Zeroizing::new(seed), counter: 0 }
    }

    /// The next 32 bytes.
    pub(crate) fn block(&mut self) -> Zeroizing<[u8; 32]> {
        let block = self.generator.block(&self.seed, self.counter);
        self.counter = self.counter.wrapping_add(1);
        block
    }

    /// A key of so many bytes.
    pub(crate) fn key(&mut self, length: usize) -> Vec<u8> {
        // In one allocation: what is left behind by one that grows would not be wiped.
        let mut key = Vec::with_capacity(length.next_multiple_of(32));
        while key.len() < length {
            key.extend_from_slice(&*self.block());
        }
        if let Some(rest) = key.get_mut(length..) {
            rest.zeroize();
        }
        key.truncate(length);
        key
    }

    /// 16 bytes, for a session identifier.
    pub(crate) fn identifier(&mut self) -> [u8; 16] {
        let mut identifier = [0; 16];
        for (to, from) in identifier.iter_mut().zip(self.block().iter()) {
            *to = *from;
        }
        identifier
    }

    /// A candidate for an SPI.
    pub(crate) fn spi(&mut self) -> u32 {
        self.block().iter().take(4).fold(0, |number, byte| (number << 8) | u32::from(*byte))
    }

    /// A span of whole microseconds, evenly spread from `shortest` to `longest`.
    pub(crate) fn span(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let choices = micros(longest.saturating_sub(shortest)).saturating_add(1);
        let drawn = self.block().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
        shortest + Duration::from_micros(drawn.checked_rem(choices).unwrap_or(0))
    }
}

impl Hash for Entropy {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (*self.seed, self.counter).hash(state);
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entropy").field("counter", &self.counter).finish_non_exhaustive()
    }
}
