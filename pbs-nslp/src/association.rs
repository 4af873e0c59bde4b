//! The security association that a Permission names.

use crate::credentials::SignatureScheme;
use crate::datapath::{Protection, SourceKey};
use crate::wire::{Defense, Permission, PublicKeyAlgorithm, SaParameters, SymmetricAlgorithm};

/// SPI, algorithm and key, with what the Permission says about the change to them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Association {
    pub(crate) parameters: SaParameters,
    pub(crate) protection: Protection,
}

/// Who signs the flow's packets if signatures are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// This node.
    Own,
    /// Another, with this key; `None` if its key is not known, or not fit for packets.
    Other(Option<&'a SourceKey>),
}

impl Association {
    /// The association of a Permission; `None` if it has none that the packet side can do.
    pub(crate) fn of(permission: &Permission, source: Source<'_>) -> Option<Self> {
        let parameters = permission.sa?;
        let protection = match permission.defense.as_ref()? {
            Defense::SymmetricKey { algorithm: SymmetricAlgorithm::HmacSha256, key } => Protection::HmacSha256(key.clone()),
            Defense::PublicKey { algorithm: PublicKeyAlgorithm::FromCertificate } => match source {
                Source::Own => Protection::Signing,
                Source::Other(key) => Protection::SignedBy(key?.clone()),
            },
            Defense::SymmetricKey { .. } | Defense::PublicKey { .. } | Defense::NoAction | Defense::ChangePath => return None,
        };
        Some(Self { parameters, protection })
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
            Self::Signing => "public key",
            Self::SignedBy(key) => match key.scheme {
                SignatureScheme::Ed25519 => "ed25519",
                SignatureScheme::EcdsaP256 => "ecdsa-p256-sha256",
                SignatureScheme::EcdsaP384 => "ecdsa-p384-sha384",
                SignatureScheme::RsaPss => "rsa-pss-sha256",
            },
        }
    }
}
