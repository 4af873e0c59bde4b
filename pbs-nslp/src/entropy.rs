//! Keys, SPIs, session identifiers and jitter, from one secret seed given at construction.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use ring::hmac;
use zeroize::Zeroizing;

/// HMAC-SHA-256 of a counter under the seed. Whoever does not know the seed cannot tell the output from randomness; with
/// the same seed and the same calls it is the same, so that a run can be repeated.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entropy {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl Entropy {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed: Zeroizing::new(seed), counter: 0 }
    }

    /// The next 32 bytes.
    pub(crate) fn block(&mut self) -> Zeroizing<[u8; 32]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.seed.as_slice());
        let tag = hmac::sign(&key, &self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        let mut block = Zeroizing::new([0; 32]);
        for (to, from) in block.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        block
    }

    /// A key of 32 bytes.
    pub(crate) fn key(&mut self) -> Vec<u8> {
        self.block().to_vec()
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
