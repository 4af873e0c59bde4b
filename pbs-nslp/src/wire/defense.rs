//! The Defense object (draft-04 §9.4.9), the keys in it and the parameters of the security association.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

/// How the receiver wants the flow's packets authenticated, or what else the sender is to do (draft-04 §9.4.9).
///
/// Only the pairs of solution and algorithm that X-17 allows can be expressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Defense {
    /// Solution 1: nothing to change, or a permission without packet authentication.
    NoAction,
    /// Solution 2: Authentication Header with a key that receiver, routers and sender share.
    SymmetricKey {
        /// Which message authentication code.
        algorithm: SymmetricAlgorithm,
        /// The key, of exactly the algorithm's length.
        key: SharedKey,
    },
    /// Solution 3: Authentication Header with a signature by the sender's own key.
    PublicKey {
        /// Which signature scheme.
        algorithm: PublicKeyAlgorithm,
    },
    /// Solution 4: take another path. Leaves the security association as it is.
    ChangePath,
}

impl Defense {
    /// The Solution byte.
    pub fn solution(&self) -> u8 {
        match self {
            Self::NoAction => 1,
            Self::SymmetricKey { .. } => 2,
            Self::PublicKey { .. } => 3,
            Self::ChangePath => 4,
        }
    }

    /// The algorithm byte; 0 where the solution has none.
    pub fn algorithm_number(&self) -> u8 {
        match self {
            Self::NoAction | Self::ChangePath => 0,
            Self::SymmetricKey { algorithm, .. } => algorithm.number(),
            Self::PublicKey { algorithm } => algorithm.number(),
        }
    }

    /// Whether SA-Params must go with it (P-024).
    pub fn has_association(&self) -> bool {
        matches!(self, Self::SymmetricKey { .. } | Self::PublicKey { .. })
    }

    /// What the profile says about the algorithm; solutions without one are always acceptable.
    pub fn standing(&self) -> AlgorithmStanding {
        match self {
            Self::NoAction | Self::ChangePath => AlgorithmStanding::Supported,
            Self::SymmetricKey { algorithm, .. } => algorithm.standing(),
            Self::PublicKey { algorithm } => algorithm.standing(),
        }
    }
}

/// Whether an algorithm may be used. Refusals are answered by Notify 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlgorithmStanding {
    /// Acceptable without further ado.
    Supported,
    /// Only if the operator says so.
    ByConfiguration,
    /// Parsed, never used.
    Refused,
}

/// Message authentication codes for solution 2 (draft-04 §9.4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SymmetricAlgorithm {
    /// HMAC-SHA-1-96 (RFC 2404).
    HmacSha1,
    /// HMAC-SHA-256-128 (RFC 4868), the default.
    HmacSha256,
    /// HMAC-MD5-96 (RFC 2403).
    HmacMd5,
    /// AES-GMAC with a key of 128 bits and a salt behind it (RFC 4543 §5.4); a number of this implementation's.
    Aes128Gmac,
    /// The same with a key of 256 bits.
    Aes256Gmac,
}

impl SymmetricAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::HmacSha1, Self::HmacSha256, Self::HmacMd5, Self::Aes128Gmac, Self::Aes256Gmac];

    /// All that a node may use or be told to use, in the order in which they are offered where nothing else is asked for.
    pub const USABLE: [Self; 4] = [Self::HmacSha256, Self::Aes128Gmac, Self::Aes256Gmac, Self::HmacSha1];

    /// The algorithm byte.
    pub fn number(self) -> u8 {
        match self {
            Self::HmacSha1 => 1,
            Self::HmacSha256 => 2,
            Self::HmacMd5 => 3,
            Self::Aes128Gmac => 224,
            Self::Aes256Gmac => 225,
        }
    }

    /// The algorithm of an algorithm byte.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// Key length in bytes, with the salt.
    pub fn key_length(self) -> usize {
        match self {
            Self::HmacSha1 => 20,
            Self::HmacSha256 => 32,
            Self::HmacMd5 => 16,
            Self::Aes128Gmac => 20,
            Self::Aes256Gmac => 36,
        }
    }

    /// The name in configuration and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha-1-96",
            Self::HmacSha256 => "hmac-sha-256-128",
            Self::HmacMd5 => "hmac-md5-96",
            Self::Aes128Gmac => "aes-128-gmac",
            Self::Aes256Gmac => "aes-256-gmac",
        }
    }

    /// Whether it may be used.
    pub fn standing(self) -> AlgorithmStanding {
        match self {
            Self::HmacSha256 | Self::Aes128Gmac | Self::Aes256Gmac => AlgorithmStanding::Supported,
            Self::HmacSha1 => AlgorithmStanding::ByConfiguration,
            Self::HmacMd5 => AlgorithmStanding::Refused,
        }
    }
}

/// Signature schemes for solution 3 (draft-04 §9.4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PublicKeyAlgorithm {
    /// RSA, 1024 bits.
    Rsa1024,
    /// RSA, 2048 bits.
    Rsa2048,
    /// Elliptic curve, 160 bits.
    Ecc160,
    /// Elliptic curve, 224 bits.
    Ecc224,
    /// DSA, 1024 bits.
    Dsa1024,
    /// DSA, 2048 bits.
    Dsa2048,
    /// Whatever key the sender's certificate has; the default.
    FromCertificate,
}

impl PublicKeyAlgorithm {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Rsa1024, Self::Rsa2048, Self::Ecc160, Self::Ecc224, Self::Dsa1024, Self::Dsa2048, Self::FromCertificate];

    /// The algorithm byte.
    pub fn number(self) -> u8 {
        match self {
            Self::Rsa1024 => 4,
            Self::Rsa2048 => 5,
            Self::Ecc160 => 6,
            Self::Ecc224 => 7,
            Self::Dsa1024 => 8,
            Self::Dsa2048 => 9,
            Self::FromCertificate => 10,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.number() == number)
    }

    /// Whether it may be used.
    pub fn standing(self) -> AlgorithmStanding {
        match self {
            Self::Rsa2048 | Self::FromCertificate => AlgorithmStanding::Supported,
            Self::Ecc224 | Self::Dsa2048 => AlgorithmStanding::ByConfiguration,
            Self::Rsa1024 | Self::Ecc160 | Self::Dsa1024 => AlgorithmStanding::Refused,
        }
    }
}

/// A key for packet authentication. Wiped from memory when dropped; never printed (P-095, X-83).
#[derive(Clone)]
pub struct SharedKey(Zeroizing<Vec<u8>>);

impl SharedKey {
    /// Takes a key for the algorithm.
    ///
    /// # Errors
    /// [`WrongKeyLength`] if it is not exactly as long as the algorithm's key. The bytes are wiped all the same.
    pub fn new(algorithm: SymmetricAlgorithm, key: Vec<u8>) -> Result<Self, WrongKeyLength> {
        let key = Zeroizing::new(key);
        if key.len() == algorithm.key_length() { Ok(Self(key)) } else { Err(WrongKeyLength { algorithm, length: key.len() }) }
    }

    /// The secret bytes, for the packet side only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey(redacted)")
    }
}

impl PartialEq for SharedKey {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SharedKey {}

impl Hash for SharedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_slice().hash(state);
    }
}

/// A key does not have its algorithm's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key of {length} bytes does not fit {algorithm:?}")]
pub struct WrongKeyLength {
    /// The algorithm.
    pub algorithm: SymmetricAlgorithm,
    /// The key's length in bytes.
    pub length: usize,
}

/// Which security association the packets use, and how it takes over from the former one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SaParameters {
    /// Security parameter index, from [`SaParameters::FIRST_SPI`] on.
    pub spi: u32,
    /// How long packets under the former association still pass: whole milliseconds, at most 65,535.
    pub drain: Duration,
    /// NEW: the counters start at 0 under this SPI.
    pub new_epoch: bool,
}

impl SaParameters {
    /// Lowest SPI that may be used: RFC 4302 keeps 0 to 255 for itself.
    pub const FIRST_SPI: u32 = 256;

    /// Flag for [`SaParameters::new_epoch`] on the wire.
    pub(super) const NEW: u8 = 0x80;
}
