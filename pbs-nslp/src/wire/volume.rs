//! Volumes in bytes, on the wire as a saturating 32-bit object and, above that, a 64-bit twin.

use core::fmt;

/// A number of bytes of whole IP packets. Counted in 64 bits, never wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Volume(pub u64);

impl Volume {
    /// No bytes: refuses, revokes or releases.
    pub const ZERO: Self = Self(0);

    /// Whether this is no volume at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The value of the 32-bit object: exact up to 2³² − 1 and saturated above.
    pub fn saturated(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// Whether the 32-bit object cannot carry the value, so that the 64-bit twin goes with it (P-062).
    pub fn needs_twin(self) -> bool {
        self.0 > u64::from(u32::MAX)
    }
}

impl From<u64> for Volume {
    fn from(bytes: u64) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}
