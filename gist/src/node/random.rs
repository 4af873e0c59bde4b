//! Everything unpredictable in a node, derived from one seed: the same seed gives the same node.

use core::fmt;
use core::time::Duration;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Backend;

/// A key that is never shown and is wiped when dropped.
#[derive(Clone, PartialEq, Eq, Hash, Zeroize, ZeroizeOnDrop)]
pub(super) struct Secret([u8; 32]);

impl Secret {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key for one purpose.
    pub(super) fn derive(&self, backend: &dyn Backend, purpose: &[u8], number: u64) -> Self {
        Self(self.output(backend, purpose, number))
    }

    /// 32 bytes that nobody without the key can tell from random ones.
    pub(super) fn output(&self, backend: &dyn Backend, purpose: &[u8], number: u64) -> [u8; 32] {
        backend.mac(&self.0, &[purpose, &number.to_be_bytes()].concat())
    }

    pub(super) fn mac(&self, backend: &dyn Backend, message: &[u8]) -> [u8; 32] {
        backend.mac(&self.0, message)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A sequence of unpredictable values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Random {
    key: Secret,
    drawn: u64,
}

impl Random {
    pub(super) fn new(seed: &Secret, backend: &dyn Backend) -> Self {
        Self { key: seed.derive(backend, b"GIST random", 0), drawn: 0 }
    }

    /// 128 bits: a Query-Cookie's length (G-331).
    pub(super) fn bytes(&mut self, backend: &dyn Backend) -> [u8; 16] {
        let output = self.key.output(backend, b"value", self.drawn);
        self.drawn += 1;
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(output).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(super) fn u64(&mut self, backend: &dyn Backend) -> u64 {
        self.bytes(backend).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A moment between 1/2 and 3/4 of `span`, all of them equally likely (G-115, G-125); never zero.
    pub(super) fn refresh_moment(&mut self, backend: &dyn Backend, span: Duration) -> Duration {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let moment = micros / 2 + self.u64(backend) % (micros / 4 + 1);
        Duration::from_micros(moment.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_backend::TestBackend;
    use super::*;

    /// G-115, G-125: the whole interval is used and nothing outside it.
    #[test]
    fn refresh_moments_spread_over_the_third_quarter() {
        let backend = TestBackend::default();
        let mut random = Random::new(&Secret::new([7; 32]), &backend);
        let mut quarters = [0_u32; 4];
        for _ in 0..4000 {
            let moment = random.refresh_moment(&backend, Duration::from_secs(40)).as_micros();
            assert!((20_000_000..=30_000_000).contains(&moment));
            quarters[usize::try_from((moment - 20_000_000) / 2_500_001).unwrap()] += 1;
        }
        assert!(quarters.iter().all(|count| (850..1150).contains(count)), "{quarters:?}");
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new([0x5a; 32])), "Secret(…)");
    }
}
