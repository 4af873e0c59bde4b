//! Integrity algorithms of AH and their keys (RFC 4868, RFC 2404).

use std::fmt;

use ring::hmac;
use subtle::ConstantTimeEq;

/// An integrity algorithm that this crate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IcvAlgorithm {
    /// HMAC-SHA-256 cut to 128 bits, 256-bit key (RFC 4868 §2.3).
    HmacSha256_128,
    /// HMAC-SHA-1 cut to 96 bits, 160-bit key (RFC 2404). For known answers and old peers; PBS does not negotiate it.
    HmacSha1_96,
}

impl IcvAlgorithm {
    /// Every algorithm.
    pub const ALL: &'static [IcvAlgorithm] = &[IcvAlgorithm::HmacSha256_128, IcvAlgorithm::HmacSha1_96];

    /// Length of the ICV in octets, without padding.
    pub const fn icv_len(self) -> usize {
        match self {
            IcvAlgorithm::HmacSha256_128 => 16,
            IcvAlgorithm::HmacSha1_96 => 12,
        }
    }

    /// Length of the key in octets; both RFCs fix it.
    pub const fn key_len(self) -> usize {
        match self {
            IcvAlgorithm::HmacSha256_128 => 32,
            IcvAlgorithm::HmacSha1_96 => 20,
        }
    }

    /// The name in status output and in vector files.
    pub const fn name(self) -> &'static str {
        match self {
            IcvAlgorithm::HmacSha256_128 => "hmac-sha256-128",
            IcvAlgorithm::HmacSha1_96 => "hmac-sha1-96",
        }
    }

    const fn hmac(self) -> hmac::Algorithm {
        match self {
            IcvAlgorithm::HmacSha256_128 => hmac::HMAC_SHA256,
            IcvAlgorithm::HmacSha1_96 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        }
    }
}

impl fmt::Display for IcvAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A key bound to its algorithm, prepared for per-packet use.
///
/// Only the prepared form is kept, not the key's octets. `Debug` shows the algorithm alone; two keys are compared in
/// constant time.
#[derive(Clone)]
pub struct IcvKey {
    algorithm: IcvAlgorithm,
    prepared: hmac::Key,
    /// MAC of a fixed text: tells two keys apart without keeping either.
    fingerprint: hmac::Tag,
}

/// A key whose length its algorithm does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{algorithm} takes a key of {expected} octets, not {given}")]
pub struct KeyLengthError {
    /// The algorithm.
    pub algorithm: IcvAlgorithm,
    /// What it takes, in octets.
    pub expected: usize,
    /// What was given, in octets.
    pub given: usize,
}

impl IcvKey {
    /// Prepares `octets` as a key of `algorithm`.
    ///
    /// Fails if the length is not the one that the algorithm's RFC fixes (RFC 4868 §2.1.1, RFC 2404 §3).
    pub fn new(algorithm: IcvAlgorithm, octets: &[u8]) -> Result<Self, KeyLengthError> {
        if octets.len() != algorithm.key_len() {
            return Err(KeyLengthError { algorithm, expected: algorithm.key_len(), given: octets.len() });
        }
        let prepared = hmac::Key::new(algorithm.hmac(), octets);
        let fingerprint = hmac::sign(&prepared, b"which key is this");
        Ok(Self { algorithm, prepared, fingerprint })
    }

    /// The algorithm the key is for.
    pub const fn algorithm(&self) -> IcvAlgorithm {
        self.algorithm
    }

    /// Begins an ICV over data that comes in pieces.
    pub(crate) fn begin(&self) -> IcvContext {
        IcvContext { algorithm: self.algorithm, context: hmac::Context::with_key(&self.prepared) }
    }
}

impl PartialEq for IcvKey {
    fn eq(&self, other: &Self) -> bool {
        self.algorithm == other.algorithm && bool::from(self.fingerprint.as_ref().ct_eq(other.fingerprint.as_ref()))
    }
}

impl Eq for IcvKey {}

impl fmt::Debug for IcvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IcvKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// An ICV computation under way.
pub(crate) struct IcvContext {
    algorithm: IcvAlgorithm,
    context: hmac::Context,
}

impl IcvContext {
    /// Takes the next piece of the ICV input.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// Ends the computation. Neither RFC 4868 nor RFC 2404 asks for implicit padding of the input.
    pub(crate) fn finish(self) -> Icv {
        Icv { len: self.algorithm.icv_len(), tag: self.context.sign() }
    }
}

/// A computed integrity check value, already cut to its algorithm's length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Icv {
    tag: hmac::Tag,
    len: usize,
}

impl Icv {
    /// The value's octets.
    pub(crate) fn octets(&self) -> &[u8] {
        self.tag.as_ref().get(..self.len).unwrap_or_default()
    }

    /// Whether `received` begins with exactly this value, in time that does not depend on where they differ.
    pub(crate) fn matches(&self, received: &[u8]) -> bool {
        let own = self.octets();
        !own.is_empty() && received.get(..own.len()).is_some_and(|theirs| bool::from(own.ct_eq(theirs)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn icv(algorithm: IcvAlgorithm, key: &[u8], data: &[u8]) -> String {
        let key = IcvKey::new(algorithm, key).unwrap();
        let mut whole = key.begin();
        whole.update(data);
        let mut pieces = key.begin();
        data.chunks(7).for_each(|piece| pieces.update(piece));
        let whole = hex::encode(whole.finish().octets());
        assert_eq!(whole, hex::encode(pieces.finish().octets()), "pieces make no difference");
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
            assert_eq!(icv(IcvAlgorithm::HmacSha256_128, key, data), expected);
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
            assert_eq!(icv(IcvAlgorithm::HmacSha1_96, key, data), expected);
        }
    }

    #[test]
    fn a_key_of_another_length_is_refused_and_says_what_is_expected() {
        let error = IcvKey::new(IcvAlgorithm::HmacSha256_128, &[0; 20]).unwrap_err();
        assert_eq!(error.to_string(), "hmac-sha256-128 takes a key of 32 octets, not 20");
    }

    #[test]
    fn keys_are_compared_by_what_they_compute_and_never_shown() {
        let key = |octet, algorithm: IcvAlgorithm| IcvKey::new(algorithm, &vec![octet; algorithm.key_len()]).unwrap();
        assert_eq!(key(1, IcvAlgorithm::HmacSha256_128), key(1, IcvAlgorithm::HmacSha256_128));
        assert_ne!(key(1, IcvAlgorithm::HmacSha256_128), key(2, IcvAlgorithm::HmacSha256_128));
        assert_ne!(key(1, IcvAlgorithm::HmacSha256_128), key(1, IcvAlgorithm::HmacSha1_96));
        assert_eq!(format!("{:?}", key(1, IcvAlgorithm::HmacSha1_96)), "IcvKey { algorithm: HmacSha1_96, .. }");
    }

    #[test]
    fn a_received_value_shorter_than_the_icv_never_matches() {
        let icv = IcvKey::new(IcvAlgorithm::HmacSha1_96, &[0; 20]).unwrap().begin().finish();
        assert!(icv.matches(icv.octets()));
        assert!(!icv.matches(&icv.octets()[..11]));
        assert!(!icv.matches(&[]));
    }
}
