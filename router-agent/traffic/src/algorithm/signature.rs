//! Signatures in the place of a MAC: Solution 3, per-packet public-key AH (draft-04 §8.1; RFC 4359; ).
//!
//! The signature covers the ICV input of RFC 4302 §3.3.3, as a MAC would. Only the sender can make it, so that a packet with
//! a right signature was sent by the sender, whoever else checks it on the way.

use std::fmt;
use std::sync::Arc;

/// A signature scheme for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// Ed25519 (RFC 8032), without prehash: R and S.
    Ed25519,
    /// ECDSA on P-256 with SHA-256, as r followed by s, each in 32 octets.
    EcdsaP256,
    /// RSASSA-PSS with SHA-256 and a salt of 32 octets.
    RsaPss {
        /// Length of the modulus in octets, 256 to 1000: what an AH can carry.
        octets: u16,
    },
}

/// Longest signature that fits into an AH, in octets: its length field counts 32-bit words in 8 bits, less 2 (RFC 4302 §2.2), and the
/// whole is a multiple of 8.
pub const LONGEST_SIGNATURE: u16 = 1000;

impl SignatureAlgorithm {
    /// RSASSA-PSS with a modulus of so many octets; `None` if that is too weak, or too long for an AH.
    pub fn rsa_pss(octets: u16) -> Option<Self> {
        (256..=LONGEST_SIGNATURE).contains(&octets).then_some(Self::RsaPss { octets })
    }

    /// Length of a signature in octets.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::Ed25519 | Self::EcdsaP256 => 64,
            Self::RsaPss { octets } => octets as usize,
        }
    }

    /// What it costs to verify one: 1 is about what an elliptic curve or an RSA key of 2048 bits takes; RSA grows with the square of
    /// the modulus.
    pub const fn weight(self) -> u32 {
        match self {
            Self::Ed25519 | Self::EcdsaP256 => 1,
            Self::RsaPss { octets } => (octets as u32).pow(2).div_ceil(256 * 256),
        }
    }

    /// The name in status output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256 => "ecdsa-p256-sha256",
            Self::RsaPss { .. } => "rsa-pss-sha256",
        }
    }
}

/// Signs packets with the host's own private key, wherever that is kept.
pub trait PacketSigner: fmt::Debug + Send + Sync {
    /// How it signs.
    fn algorithm(&self) -> SignatureAlgorithm;

    /// The public half, as [`VerifyingKey::new`] takes it: tells two signers apart.
    fn public_key(&self) -> &[u8];

    /// Signs the ICV input; `None` if the key cannot be used, and then the packet is not sent.
    fn sign(&self, input: &[u8]) -> Option<Vec<u8>>;
}

/// A sender's public key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifyingKey {
    algorithm: SignatureAlgorithm,
    octets: Arc<[u8]>,
}

impl VerifyingKey {
    /// A key as the bit string of a SubjectPublicKeyInfo holds it. Whether it is one shows at the first packet.
    pub fn new(algorithm: SignatureAlgorithm, octets: &[u8]) -> Self {
        Self { algorithm, octets: octets.into() }
    }

    /// How its owner signs.
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// The key's octets.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
