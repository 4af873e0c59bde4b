//! The security association that a Permission names.

use crate::datapath::Protection;
use crate::wire::{Defense, Permission, SaParameters, SymmetricAlgorithm};

/// SPI, algorithm and key, with what the Permission says about the change to them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Association {
    pub(crate) parameters: SaParameters,
    pub(crate) protection: Protection,
}

impl Association {
    /// The association of a Permission; `None` if it has none that the packet side can do.
    pub(crate) fn of(permission: &Permission) -> Option<Self> {
        let parameters = permission.sa?;
        match permission.defense.as_ref()? {
            Defense::SymmetricKey { algorithm: SymmetricAlgorithm::HmacSha256, key } => {
                Some(Self { parameters, protection: Protection::HmacSha256(key.clone()) })
            }
            Defense::SymmetricKey { .. } | Defense::PublicKey { .. } | Defense::NoAction | Defense::ChangePath => None,
        }
    }

    pub(crate) fn spi(&self) -> u32 {
        self.parameters.spi
    }

    /// Whether another association under the same SPI is the same one. The keys are compared in constant time.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.spi() == other.spi() && self.protection == other.protection
    }
}

impl Protection {
    /// The algorithm's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HmacSha256(_) => "hmac-sha-256-128",
        }
    }
}
