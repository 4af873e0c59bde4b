//! The cryptography of daemons: HMAC by RustCrypto, signatures by ring. No other module of the packet side names either.

use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::integrity::{Integrity, LONGEST, MacValue};
use super::{KeyLengthError, MacAlgorithm, MacKey, SignatureAlgorithm, VerifyingKey};

/// HMAC and signatures as the RFCs have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standard;

/// The states of the hash function behind the two padded keys (RFC 2104 §4). The library wipes them when they are dropped.
#[derive(Clone)]
pub struct Prepared(State);

#[derive(Clone)]
enum State {
    Sha256(Hmac<Sha256>),
    Sha1(Hmac<Sha1>),
}

impl Prepared {
    pub(super) fn new(algorithm: MacAlgorithm, octets: &[u8]) -> Result<Self, KeyLengthError> {
        let wrong_length = |_| KeyLengthError { algorithm, expected: algorithm.key_len(), given: octets.len() };
        Ok(Self(match algorithm {
            MacAlgorithm::HmacSha256_128 => State::Sha256(Hmac::new_from_slice(octets).map_err(wrong_length)?),
            MacAlgorithm::HmacSha1_96 => State::Sha1(Hmac::new_from_slice(octets).map_err(wrong_length)?),
        }))
    }
}

impl Integrity for Standard {
    type Context = Prepared;

    fn begin(key: &MacKey) -> Prepared {
        key.prepared().clone()
    }

    fn update(context: &mut Prepared, piece: &[u8]) {
        match &mut context.0 {
            State::Sha256(state) => state.update(piece),
            State::Sha1(state) => state.update(piece),
        }
    }

    /// Neither RFC 4868 nor RFC 2404 asks for implicit padding of the input.
    fn finish(context: Prepared) -> MacValue {
        match context.0 {
            State::Sha256(state) => MacValue::cut(MacAlgorithm::HmacSha256_128, &state.finalize().into_bytes()),
            State::Sha1(state) => MacValue::cut(MacAlgorithm::HmacSha1_96, &state.finalize().into_bytes()),
        }
    }

    fn verifies(key: &VerifyingKey, input: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(verification(key.algorithm()), key.octets()).verify(input, signature).is_ok()
    }
}

fn verification(algorithm: SignatureAlgorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        SignatureAlgorithm::Ed25519 => &ED25519,
        SignatureAlgorithm::EcdsaP256 => &ECDSA_P256_SHA256_FIXED,
        SignatureAlgorithm::RsaPss { .. } => &RSA_PSS_2048_8192_SHA256,
    }
}

/// The first octets of a hash: tells public keys apart.
pub(super) fn digest(octets: &[u8]) -> [u8; LONGEST] {
    Sha256::digest(octets).first_chunk().copied().unwrap_or_default()
}
