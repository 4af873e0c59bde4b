//! Message authentication codes and their keys (RFC 4868, RFC 2404, RFC 4543).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use subtle::ConstantTimeEq;

use super::integrity::{Iv, LONGEST};
use super::standard::Prepared;

/// A message authentication code that this crate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MacAlgorithm {
    /// HMAC-SHA-256 cut to 128 bits, 256-bit key (RFC 4868 §2.3).
    HmacSha256_128,
    /// HMAC-SHA-1 cut to 96 bits, 160-bit key (RFC 2404). For known answers and where a node is told to allow it.
    HmacSha1_96,
    /// AES-GMAC with a 128-bit key and a salt of 32 bits behind it: AUTH_AES_128_GMAC (RFC 4543 §5.4).
    Aes128Gmac,
    /// The same with a 256-bit key: AUTH_AES_256_GMAC.
    Aes256Gmac,
}

impl MacAlgorithm {
    /// Every algorithm.
    pub const ALL: &'static [MacAlgorithm] =
        &[MacAlgorithm::HmacSha256_128, MacAlgorithm::HmacSha1_96, MacAlgorithm::Aes128Gmac, MacAlgorithm::Aes256Gmac];

    /// Length of what AH carries in its ICV field, in octets, without padding: the initialization vector, if there is one, and the
    /// value (RFC 4543 §4, figure 3).
    pub const fn icv_len(self) -> usize {
        self.iv_len() + self.value_len()
    }

    /// Length of the initialization vector in octets, 0 for an algorithm without one. Unlike the value it counts as it is in what
    /// the value is computed over.
    pub const fn iv_len(self) -> usize {
        match self {
            MacAlgorithm::HmacSha256_128 | MacAlgorithm::HmacSha1_96 => 0,
            MacAlgorithm::Aes128Gmac | MacAlgorithm::Aes256Gmac => size_of::<Iv>(),
        }
    }

    /// Length of the value in octets.
    pub const fn value_len(self) -> usize {
        match self {
            MacAlgorithm::HmacSha256_128 | MacAlgorithm::Aes128Gmac | MacAlgorithm::Aes256Gmac => 16,
            MacAlgorithm::HmacSha1_96 => 12,
        }
    }

    /// Length of the key in octets, with its salt; the RFCs fix it.
    pub const fn key_len(self) -> usize {
        match self {
            MacAlgorithm::HmacSha256_128 => 32,
            MacAlgorithm::HmacSha1_96 | MacAlgorithm::Aes128Gmac => 20,
            MacAlgorithm::Aes256Gmac => 36,
        }
    }

    /// The name in status output and in vector files.
    pub const fn name(self) -> &'static str {
        match self {
            MacAlgorithm::HmacSha256_128 => "hmac-sha256-128",
            MacAlgorithm::HmacSha1_96 => "hmac-sha1-96",
            MacAlgorithm::Aes128Gmac => "aes-128-gmac",
            MacAlgorithm::Aes256Gmac => "aes-256-gmac",
        }
    }
}

impl fmt::Display for MacAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key bound to its algorithm, prepared for per-packet use.
///
/// Only the prepared form is kept, not the key's octets: once, on the heap, shared by all clones, and wiped with the last of
/// them. `Debug` shows the algorithm alone. As a value it is its algorithm and its fingerprint, a MAC of a fixed text: by
/// that keys are compared, in constant time, and hashed, and it tells nothing of the key.
///
/// What is not wiped: copies that the compiler leaves on the stack while a key is prepared, until other calls write over them. The
/// state of an ICV under way is wiped when it ends.
#[derive(Clone)]
pub struct MacKey {
    prepared: Arc<Prepared>,
    algorithm: MacAlgorithm,
}

/// A key whose length its algorithm does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{algorithm} takes a key of {expected} octets, not {given}")]
pub struct KeyLengthError {
    /// The algorithm.
    pub algorithm: MacAlgorithm,
    /// What it takes, in octets.
    pub expected: usize,
    /// What was given, in octets.
    pub given: usize,
}

impl MacKey {
    /// Prepares `octets` as a key of `algorithm`.
    ///
    /// Fails if the length is not the one that the algorithm's RFC fixes (RFC 4868 §2.1.1, RFC 2404 §3, RFC 4543 §5.4).
    pub fn new(algorithm: MacAlgorithm, octets: &[u8]) -> Result<Self, KeyLengthError> {
        Ok(Self { prepared: Arc::new(Prepared::new(algorithm, octets)?), algorithm })
    }

    /// The algorithm the key is for.
    pub const fn algorithm(&self) -> MacAlgorithm {
        self.algorithm
    }

    /// The first octets of a MAC of a fixed text: tells, with the algorithm, whether a key is this one, and nothing of the key.
    pub fn fingerprint(&self) -> [u8; LONGEST] {
        self.prepared.fingerprint()
    }

    /// What the standard computation begins with.
    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared
    }
}

impl PartialEq for MacKey {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && bool::from(self.fingerprint().ct_eq(&other.fingerprint()))
    }
}

impl Eq for MacKey {}

impl Hash for MacKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.algorithm, self.fingerprint()).hash(state);
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Integrity, Standard};
    use super::*;

    fn icv(algorithm: MacAlgorithm, key: &[u8], data: &[u8]) -> String {
        let key = MacKey::new(algorithm, key).unwrap();
        let mut whole = Standard::begin(&key, [0; 8]);
        Standard::update(&mut whole, data);
        let mut pieces = Standard::begin(&key, [0; 8]);
        data.chunks(7).for_each(|piece| Standard::update(&mut pieces, piece));
        let whole = hex::encode(Standard::finish(whole).octets());
        assert_eq!(whole, hex::encode(Standard::finish(pieces).octets()), "pieces make no difference");
        whole
    }

    #[test]
    fn hmac_sha256_128_gives_the_answers_of_rfc_4868_section_2_7_2_1() {
        let sequence: Vec<u8> = (1..=32).collect();
        let cases: [(&[u8], &[u8], &str); 4] = [
            (&[0x0b; 32], b"Hi There", "198a607eb44bfbc69903a0f1cf2bbdc5"),
            (b"JefeJefeJefeJefeJefeJefeJefeJefe", b"what do ya want for nothing?", "167f928588c5cc2eef8e3093caa0e87c"),
            (&[0xaa; 32], &[0xdd; 50], "cdcb1220d1ecccea91e53aba3092f962"),
            (&sequence, &[0xcd; 50], "372efcf9b40b35c2115b1346903d2ef4"),
        ];
        for (key, data, expected) in cases {
            assert_eq!(icv(MacAlgorithm::HmacSha256_128, key, data), expected);
        }
    }

    #[test]
    fn hmac_sha1_96_gives_the_answers_of_rfc_2202_section_3_for_keys_of_its_length() {
        let cases: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b617318655057264e28bc0b6"),
            (&[0xaa; 20], &[0xdd; 50], "125d7342b9ac11cd91a39af4"),
            (&[0x0c; 20], b"Test With Truncation", "4c1a03424b55e07fe7f27be1"),
        ];
        for (key, data, expected) in cases {
            assert_eq!(icv(MacAlgorithm::HmacSha1_96, key, data), expected);
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_says_what_is_expected() {
        let error = MacKey::new(MacAlgorithm::HmacSha256_128, &[0; 20]).unwrap_err();
        assert_eq!(error.to_string(), "hmac-sha256-128 takes a key of 32 octets, not 20");
    }

    #[test]
    fn keys_are_compared_by_what_they_compute_and_never_shown() {
        let key = |octet, algorithm: MacAlgorithm| MacKey::new(algorithm, &vec![octet; algorithm.key_len()]).unwrap();
        assert_eq!(key(1, MacAlgorithm::HmacSha256_128), key(1, MacAlgorithm::HmacSha256_128));
        assert_ne!(key(1, MacAlgorithm::HmacSha256_128), key(2, MacAlgorithm::HmacSha256_128));
        assert_ne!(key(1, MacAlgorithm::HmacSha256_128), key(1, MacAlgorithm::HmacSha1_96));
        assert_eq!(format!("{:?}", key(1, MacAlgorithm::HmacSha1_96)), "MacKey { algorithm: HmacSha1_96, .. }");
    }

    #[test]
    fn a_received_value_matches_in_every_bit_or_not_at_all_and_what_stands_behind_it_does_not_count() {
        for algorithm in MacAlgorithm::ALL {
            let icv = Standard::finish(Standard::begin(&MacKey::new(*algorithm, &vec![3; algorithm.key_len()]).unwrap(), [0; 8]));
            for behind in [0, 4, 20] {
                let mut received = icv.octets().to_vec();
                received.extend(vec![0xa5; behind]);
                assert!(icv.matches(&received), "{algorithm}");
                for bit in 0..8 * algorithm.value_len() {
                    received[bit / 8] ^= 1 << (bit % 8);
                    assert!(!icv.matches(&received), "{algorithm}: {bit}");
                    received[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    #[test]
    fn a_received_value_shorter_than_the_icv_never_matches() {
        let icv = Standard::finish(Standard::begin(&MacKey::new(MacAlgorithm::HmacSha1_96, &[0; 20]).unwrap(), [0; 8]));
        assert!(icv.matches(icv.octets()));
        assert!(!icv.matches(&icv.octets()[..11]));
        assert!(!icv.matches(&[]));
    }
}
