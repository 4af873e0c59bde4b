//! Signatures by a private key that belongs to an X.509 certificate.

use core::fmt;

use bytes::Bytes;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PSS_SHA256, RsaKeyPair};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::key::{certified_key, parse};
use super::{CertificateError, SignError, SignatureScheme, Signer};
use crate::wire::CHAIN_LIMIT;

/// Signs with an Ed25519 or P-256 key, or with an RSA key of 2048 to 4096 bits.
pub struct X509Signer {
    certificate: Bytes,
    chain: Vec<Bytes>,
    key: PrivateKey,
}

impl X509Signer {
    /// Takes certificates in DER, the end-entity certificate first and then its issuers, and the private key in PKCS#8 DER.
    ///
    /// # Errors
    /// [`SignerError`] if something cannot be read, the key is not that of the first certificate, or its type cannot sign.
    pub fn from_der(certificates: Vec<Bytes>, key: &[u8]) -> Result<Self, SignerError> {
        let mut chain = certificates;
        if chain.is_empty() {
            return Err(SignerError::NoCertificate);
        }
        let certificate = chain.remove(0);
        if chain.len() > CHAIN_LIMIT {
            return Err(SignerError::ChainTooLong);
        }
        for issuer in &chain {
            parse(issuer)?;
        }
        let certified = certified_key(&parse(&certificate)?)?;
        let key = PrivateKey::from_pkcs8(certified.scheme, key)?;
        if key.public_key() != certified.public_key {
            return Err(SignerError::ForeignKey);
        }
        Ok(Self { certificate, chain, key })
    }

    /// Takes the same from PEM: one or more `CERTIFICATE` blocks, and a `PRIVATE KEY` block.
    ///
    /// # Errors
    /// As [`X509Signer::from_der`].
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, SignerError> {
        let certificates = CertificateDer::pem_slice_iter(certificates)
            .map(|certificate| certificate.map(|certificate| Bytes::copy_from_slice(&certificate)))
            .collect::<Result<_, _>>()?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key)?;
        Self::from_der(certificates, key.secret_pkcs8_der())
    }
}

impl X509Signer {
    /// How it signs.
    pub fn scheme(&self) -> SignatureScheme {
        match &self.key {
            PrivateKey::Ed25519(_) => SignatureScheme::Ed25519,
            PrivateKey::EcdsaP256(..) => SignatureScheme::EcdsaP256,
            PrivateKey::Rsa(..) => SignatureScheme::RsaPss,
        }
    }

    /// Its public half: the content of the SubjectPublicKeyInfo's bit string.
    pub fn public_key(&self) -> &[u8] {
        self.key.public_key()
    }
}

impl Signer for X509Signer {
    fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    fn chain(&self) -> &[Bytes] {
        &self.chain
    }

    fn signature_length(&self) -> usize {
        match &self.key {
            PrivateKey::Rsa(key, _) => key.public().modulus_len(),
            PrivateKey::Ed25519(_) | PrivateKey::EcdsaP256(..) => 64, // r and s of 32 bytes each, or R and S
        }
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        match &self.key {
            PrivateKey::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            PrivateKey::EcdsaP256(key, random) => {
                key.sign(random, message).map(|signature| signature.as_ref().to_vec()).map_err(|_| SignError)
            }
            PrivateKey::Rsa(key, random) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PSS_SHA256, random, message, &mut signature).map(|()| signature).map_err(|_| SignError)
            }
        }
    }
}

impl fmt::Debug for X509Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Signer").finish_non_exhaustive()
    }
}

/// Why a node cannot sign with what it was given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignerError {
    /// No certificate was given.
    #[error("no certificate")]
    NoCertificate,
    /// More intermediates than a message may carry.
    #[error("more than {CHAIN_LIMIT} intermediate certificates")]
    ChainTooLong,
    /// The PEM text cannot be read.
    #[error("PEM: {0}")]
    Pem(String),
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The private key cannot be read.
    #[error("private key: {0}")]
    Key(String),
    /// The private key is of a type that this signer has no code for.
    #[error("no signing with {0:?} keys")]
    UnsupportedKey(SignatureScheme),
    /// The private key does not belong to the certificate.
    #[error("the private key does not belong to the certificate")]
    ForeignKey,
}

impl From<pem::Error> for SignerError {
    fn from(error: pem::Error) -> Self {
        Self::Pem(error.to_string())
    }
}

enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    /// ECDSA draws a fresh nonce for each signature, and RSASSA-PSS a fresh salt: the one place of this crate that asks the system for
    /// randomness.
    EcdsaP256(EcdsaKeyPair, SystemRandom),
    Rsa(Box<RsaKeyPair>, SystemRandom),
}

impl PrivateKey {
    fn from_pkcs8(scheme: SignatureScheme, key: &[u8]) -> Result<Self, SignerError> {
        let rejected = |error: ring::error::KeyRejected| SignerError::Key(error.to_string());
        match scheme {
            // A key file without its public half is common; the comparison with the certificate makes up for it.
            SignatureScheme::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(key).map(Self::Ed25519).map_err(rejected),
            SignatureScheme::EcdsaP256 => {
                let random = SystemRandom::new();
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random)
                    .map(|key| Self::EcdsaP256(key, random))
                    .map_err(rejected)
            }
            SignatureScheme::RsaPss => {
                RsaKeyPair::from_pkcs8(key).map(|key| Self::Rsa(Box::new(key), SystemRandom::new())).map_err(rejected)
            }
            SignatureScheme::EcdsaP384 => Err(SignerError::UnsupportedKey(scheme)),
        }
    }

    fn public_key(&self) -> &[u8] {
        match self {
            Self::Ed25519(key) => key.public_key().as_ref(),
            Self::EcdsaP256(key, _) => key.public_key().as_ref(),
            Self::Rsa(key, _) => key.public_key().as_ref(),
        }
    }
}
