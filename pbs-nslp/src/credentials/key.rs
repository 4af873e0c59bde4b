//! Public keys in certificates: which scheme, and whether strong enough.

use bytes::Bytes;
use ring::digest;
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::{CertificateError, SignatureScheme};

/// What a certificate says about its key.
pub(super) struct CertifiedKey {
    pub(super) scheme: SignatureScheme,
    pub(super) public_key: Bytes,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub(super) hash: [u8; 32],
}

/// Reads an X.509 certificate, which must fill the bytes exactly.
pub(super) fn parse(certificate: &[u8]) -> Result<Certificate, CertificateError> {
    Certificate::from_der(certificate).map_err(malformed)
}

pub(super) fn malformed(error: der::Error) -> CertificateError {
    CertificateError::Malformed(error.to_string())
}

/// The certificate's key, if it has a scheme and meets the floor.
pub(super) fn certified_key(certificate: &Certificate) -> Result<CertifiedKey, CertificateError> {
    let info = &certificate.tbs_certificate.subject_public_key_info;
    let bits = info.subject_public_key.as_bytes();
    let key = bits.ok_or_else(|| CertificateError::Malformed("public key is not whole bytes".to_owned()))?;
    let scheme = scheme(info, key)?;
    let encoded = info.to_der().map_err(malformed)?;
    Ok(CertifiedKey { scheme, public_key: Bytes::copy_from_slice(key), hash: sha256(&encoded) })
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    hash
}

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ELLIPTIC_CURVE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// Bits of an acceptable RSA modulus: the floor of the profile, and what the verification code can do.
const RSA_BITS: core::ops::RangeInclusive<usize> = 2048..=8192;

fn scheme(info: &SubjectPublicKeyInfoOwned, key: &[u8]) -> Result<SignatureScheme, CertificateError> {
    let weak = |reason: String| Err(CertificateError::WeakKey(reason));
    match info.algorithm.oid {
        ED25519 if key.len() == 32 => Ok(SignatureScheme::Ed25519),
        ELLIPTIC_CURVE => {
            let parameters = info.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
            // Uncompressed points only.
            match (curve, key.first(), key.len()) {
                (Some(P256), Some(4), 65) => Ok(SignatureScheme::EcdsaP256),
                (Some(P384), Some(4), 97) => Ok(SignatureScheme::EcdsaP384),
                (Some(P256 | P384), ..) => weak("elliptic-curve point is not in uncompressed form".to_owned()),
                (Some(curve), ..) => weak(format!("elliptic curve {curve}")),
                (None, ..) => weak("elliptic curve without a name".to_owned()),
            }
        }
        RSA => {
            let bits = rsa_bits(key).map_err(malformed)?;
            if RSA_BITS.contains(&bits) { Ok(SignatureScheme::RsaPss) } else { weak(format!("RSA key of {bits} bits")) }
        }
        algorithm => weak(format!("key type {algorithm}")),
    }
}

/// Octets of the signatures of an RSA key; `None` if it cannot be read.
pub(crate) fn rsa_octets(key: &[u8]) -> Option<u16> {
    u16::try_from(rsa_bits(key).ok()?.div_ceil(8)).ok()
}

/// Bits in the modulus of an RSAPublicKey (RFC 8017 appendix A.1.1).
fn rsa_bits(key: &[u8]) -> Result<usize, der::Error> {
    let mut reader = SliceReader::new(key)?;
    let bits = reader.sequence(|fields| {
        let modulus = UintRef::decode(fields)?;
        let _exponent = UintRef::decode(fields)?;
        let unused = modulus.as_bytes().first().map_or(0, |first| first.leading_zeros() as usize);
        Ok(modulus.as_bytes().len().saturating_mul(8).saturating_sub(unused))
    })?;
    reader.finish(bits)
}
