//! Signatures and certificates: what the machines ask for as traits, and the implementation over X.509. All cryptography of this
//! crate is named in here, that of [`entropy`](crate::entropy) included.

mod authority;
mod cache;
mod generator;
mod key;
mod path;
mod signer;

use core::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use thiserror::Error;

pub use authority::{AnchorError, X509Authority};
pub use cache::CertificateCache;
pub(crate) use cache::validation_weight;
pub use generator::HmacGenerator;
pub(crate) use key::{rsa_octets, sha256};
pub use path::CertificatePath;
pub use signer::{SignerError, X509Signer};

/// Signs messages with a node's own private key.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The node's end-entity certificate in DER.
    fn certificate(&self) -> &Bytes;

    /// The intermediates above it in DER, issuer order, without the anchor.
    fn chain(&self) -> &[Bytes];

    /// Length in bytes of every signature of this key. Signed itself, so known beforehand.
    fn signature_length(&self) -> usize;

    /// Signs the bytes.
    ///
    /// # Errors
    /// [`SignError`] if the key cannot be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// Decides whose signature a message bears.
pub trait Authority: fmt::Debug + Send + Sync {
    /// Verifies that a certificate leads to a trusted anchor, is valid at `now_unix` (seconds), fit for signatures,
    /// strong enough, and issued for `address`.
    ///
    /// # Errors
    /// [`CertificateError`] says what is wrong with it.
    fn verify_certificate(
        &self,
        certificate: &[u8],
        chain: &[Bytes],
        address: IpAddr,
        now_unix: u64,
    ) -> Result<VerifiedKey, CertificateError>;

    /// Whether the certificates of a path that was verified before are still believed at `now_unix`, as far as revocation lists go:
    /// what they have signed stands no longer than that.
    ///
    /// # Errors
    /// [`CertificateError::Revoked`] if a list names one of them, [`CertificateError::Untrusted`] if it is out of date.
    fn still_believes(&self, path: &CertificatePath, now_unix: u64) -> Result<(), CertificateError>;

    /// Verifies a signature by a key that [`Authority::verify_certificate`] gave.
    ///
    /// # Errors
    /// [`BadSignature`], answered by Notify 9.
    fn verify_signature(&self, key: &VerifiedKey, message: &[u8], signature: &[u8]) -> Result<(), BadSignature>;
}

/// A public key that a verified certificate binds to an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VerifiedKey {
    /// SHA-256 of the SubjectPublicKeyInfo: the signer's identity in replay and supersession rules.
    pub key_hash: [u8; 32],
    /// How this key signs.
    pub scheme: SignatureScheme,
    /// The key itself, the content of the SubjectPublicKeyInfo's bit string.
    pub public_key: Bytes,
    /// The earliest end of validity on its path, in Unix seconds.
    pub not_after_unix: u64,
    /// The path itself.
    pub path: CertificatePath,
}

/// One scheme per key type, so that nothing is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SignatureScheme {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on P-256 with SHA-256, as r followed by s.
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384, as r followed by s.
    EcdsaP384,
    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes, key of 2048 to 8192 bits.
    RsaPss,
}

impl VerifiedKey {
    /// What it costs to verify a signature by this key: 1 is about what an elliptic curve or an RSA key of 2048 bits takes.
    pub(crate) fn weight(&self) -> u32 {
        match self.scheme {
            SignatureScheme::Ed25519 | SignatureScheme::EcdsaP256 => 1,
            SignatureScheme::EcdsaP384 => 4,
            // Quadratic in the length of the modulus, of which the key is little more.
            SignatureScheme::RsaPss => square(self.public_key.len() / 256),
        }
    }
}

/// The square of a small factor of cost, at least 1.
fn square(factor: usize) -> u32 {
    let factor = u32::try_from(factor).unwrap_or(u32::MAX).max(1);
    factor.saturating_mul(factor)
}

/// What is wrong with a certificate. The text names the reason for logs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Error)]
pub enum CertificateError {
    /// A certificate of the path is no longer valid.
    #[error("certificate expired")]
    Expired,
    /// A certificate of the path is not valid yet.
    #[error("certificate not yet valid")]
    NotYetValid,
    /// No acceptable path to an anchor.
    #[error("certificate not trusted: {0}")]
    Untrusted(String),
    /// Listed in a certificate revocation list.
    #[error("certificate revoked")]
    Revoked,
    /// Issued for other addresses.
    #[error("certificate does not name the address {0}")]
    AddressBinding(IpAddr),
    /// Key below the floor, or of a type that has no scheme.
    #[error("key refused: {0}")]
    WeakKey(String),
    /// Not an X.509 certificate in DER.
    #[error("malformed certificate: {0}")]
    Malformed(String),
}

impl CertificateError {
    /// The detail of the Notify 10 that answers (appendix C). The list has no entry for a malformed certificate, which
    /// counts as untrusted, nor for one that is not yet valid, which counts as outside its time.
    pub fn detail(&self) -> u16 {
        match self {
            Self::Expired | Self::NotYetValid => 1,
            Self::Untrusted(_) | Self::Malformed(_) => 2,
            Self::Revoked => 3,
            Self::AddressBinding(_) => 4,
            Self::WeakKey(_) => 5,
        }
    }
}

/// A signature is not by the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("signature does not verify")]
pub struct BadSignature;

/// A private key could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("signing failed")]
pub struct SignError;
