//! The security association that a Permission names.

use crate::credentials::SignatureScheme;
use crate::datapath::{Protection, SourceKey};
use crate::node::NodeConfig;
use crate::wire::{Defense, Permission, PublicKeyAlgorithm, SaParameters};

/// SPI, algorithm and key, with what the Permission says about the change to them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Association {
    pub(crate) parameters: SaParameters,
    pub(crate) protection: Protection,
}

/// Who signs the flow's packets if signatures are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    /// This node, whose signatures have so many octets.
    Own(usize),
    /// Another, with this key; `None` if its key is not known, or not fit for packets.
    Other(Option<&'a SourceKey>),
}

impl Association {
    /// The association of a Permission; `None` if it has none that the packet side of this node can do, or may.
    pub(crate) fn of(permission: &Permission, source: Source<'_>, node: &NodeConfig) -> Option<Self> {
        let parameters = permission.sa?;
        let protection = match permission.defense.as_ref()? {
            Defense::SymmetricKey { algorithm, key } if node.may_pass(*algorithm) => {
                Protection::Shared { algorithm: *algorithm, key: key.clone() }
            }
            Defense::PublicKey { algorithm: PublicKeyAlgorithm::FromCertificate } => source.protection()?,
            // The same by its own number, if that is what the certificate's key is (P-083).
            Defense::PublicKey { algorithm: PublicKeyAlgorithm::Rsa2048 } if source.signs_with_rsa_2048() => source.protection()?,
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

impl Source<'_> {
    fn protection(self) -> Option<Protection> {
        match self {
            Self::Own(_) => Some(Protection::Signing),
            Self::Other(key) => Some(Protection::SignedBy(key?.clone())),
        }
    }

    fn signs_with_rsa_2048(self) -> bool {
        match self {
            Self::Own(octets) => is_of_rsa_2048(octets),
            Self::Other(key) => key.is_some_and(|key| key.scheme == SignatureScheme::RsaPss && is_of_rsa_2048(key.signature_length.into())),
        }
    }
}

/// Whether a node's signatures are those of an RSA key with 2048 bits: no other key has as long ones.
pub(crate) fn is_of_rsa_2048(octets: usize) -> bool {
    octets == 256
}

impl Protection {
    /// The algorithm's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Shared { algorithm, .. } => algorithm.name(),
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

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use bytes::Bytes;
    use gist::wire::NslpId;

    use super::*;
    use crate::flow::FlowId;
    use crate::wire::{Credential, Volume};

    fn asking_for(algorithm: PublicKeyAlgorithm) -> Permission {
        Permission {
            flow: FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, 1, 2).unwrap(),
            number: 1,
            allowed: Volume(1),
            ttl: Duration::from_secs(1),
            refresh: Duration::from_secs(5),
            credential: Credential::Certificate { certificate: Bytes::new(), chain: Vec::new() },
            defense: Some(Defense::PublicKey { algorithm }),
            sa: Some(SaParameters { spi: 300, drain: Duration::ZERO, new_epoch: true }),
            echo: None,
        }
    }

    fn of(permission: &Permission, source: Source<'_>) -> Option<Association> {
        Association::of(permission, source, &NodeConfig::new(NslpId(1), [192, 0, 2, 2].into()))
    }

    fn key(scheme: SignatureScheme, signature_length: u16) -> SourceKey {
        SourceKey { scheme, public_key: Bytes::new(), signature_length }
    }

    #[test]
    fn signatures_by_rsa_2048_may_be_asked_for_by_their_own_number_of_those_who_have_such_a_key() {
        // P-083.
        let rsa = key(SignatureScheme::RsaPss, 256);
        let others = [key(SignatureScheme::Ed25519, 64), key(SignatureScheme::EcdsaP256, 64), key(SignatureScheme::RsaPss, 512)];
        let asked = asking_for(PublicKeyAlgorithm::Rsa2048);
        assert_eq!(of(&asked, Source::Other(Some(&rsa))).unwrap().protection, Protection::SignedBy(rsa.clone()));
        assert_eq!(of(&asked, Source::Own(256)).unwrap().protection, Protection::Signing);
        assert!(of(&asked, Source::Own(64)).is_none() && of(&asked, Source::Other(None)).is_none());
        for other in &others {
            assert!(of(&asked, Source::Other(Some(other))).is_none(), "{other:?}");
            assert!(of(&asking_for(PublicKeyAlgorithm::FromCertificate), Source::Other(Some(other))).is_some());
        }
        for weak in [PublicKeyAlgorithm::Rsa1024, PublicKeyAlgorithm::Dsa2048] {
            assert!(of(&asking_for(weak), Source::Other(Some(&rsa))).is_none(), "P-082");
        }
    }
}
