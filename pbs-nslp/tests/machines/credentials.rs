//! Signatures that cost nothing: a certificate names its address and key, a signature is a hash with the key's number.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use pbs_nslp::credentials::{Authority, BadSignature, CertificateError, CertificatePath, SignError, SignatureScheme, Signer, VerifiedKey};
use ring::digest::{SHA256, digest};

#[derive(Debug)]
pub(crate) struct ToySigner {
    certificate: Bytes,
    key: u8,
}

impl ToySigner {
    pub(crate) fn new(address: IpAddr, key: u8) -> Arc<Self> {
        Arc::new(Self { certificate: Bytes::from(format!("{key} {address}")), key })
    }
}

impl Signer for ToySigner {
    fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    fn chain(&self) -> &[Bytes] {
        &[]
    }

    fn signature_length(&self) -> usize {
        32
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(signature(self.key, message))
    }
}

/// Counts what it verifies, to show which checks come first.
#[derive(Debug, Default)]
pub(crate) struct ToyAuthority {
    pub(crate) certificates: AtomicUsize,
    pub(crate) signatures: AtomicUsize,
    /// Keys whose certificates are believed no more.
    pub(crate) revoked: Mutex<BTreeSet<u8>>,
}

impl Authority for ToyAuthority {
    fn verify_certificate(&self, certificate: &[u8], _: &[Bytes], address: IpAddr, _: u64) -> Result<VerifiedKey, CertificateError> {
        self.certificates.fetch_add(1, Ordering::Relaxed);
        let text = String::from_utf8_lossy(certificate);
        let malformed = || CertificateError::Malformed("no key".to_owned());
        let (key, named) = text.split_once(' ').ok_or_else(malformed)?;
        let key: u8 = key.parse().map_err(|_| malformed())?;
        if named != address.to_string() {
            return Err(CertificateError::AddressBinding(address));
        }
        let path = path(key);
        self.still_believes(&path, 0)?;
        let public_key = Bytes::copy_from_slice(&[key]);
        Ok(VerifiedKey { key_hash: [key; 32], scheme: SignatureScheme::Ed25519, public_key, not_after_unix: u64::MAX, path })
    }

    fn still_believes(&self, given: &CertificatePath, _: u64) -> Result<(), CertificateError> {
        let revoked = self.revoked.lock().unwrap().iter().any(|key| path(*key) == *given);
        if revoked { Err(CertificateError::Revoked) } else { Ok(()) }
    }

    fn verify_signature(&self, key: &VerifiedKey, message: &[u8], given: &[u8]) -> Result<(), BadSignature> {
        self.signatures.fetch_add(1, Ordering::Relaxed);
        if signature(key.public_key[0], message) == given { Ok(()) } else { Err(BadSignature) }
    }
}

fn path(key: u8) -> CertificatePath {
    CertificatePath::new([(&b"authority"[..], &[key][..])])
}

fn signature(key: u8, message: &[u8]) -> Vec<u8> {
    digest(&SHA256, &[&[key], message].concat()).as_ref().to_vec()
}
