//! Certificates and signatures verified against configured anchors (X-22, X-65 to X-67, RFC 5280 §6).

use core::time::Duration;
use std::net::IpAddr;

use bytes::Bytes;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PSS_2048_8192_SHA256};
use ring::signature::{UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use thiserror::Error;
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert,
};
use x509_cert::Certificate;
use x509_cert::der::Encode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use super::key::{certified_key, malformed, parse};
use super::path::Revoked;
use super::{Authority, BadSignature, CertificateError, CertificatePath, SignatureScheme, VerifiedKey};
use crate::wire::CHAIN_LIMIT;

/// Verifies X.509 certificates against trust anchors and revocation lists that the operator configured; nothing is
/// fetched.
#[derive(Debug)]
pub struct X509Authority {
    anchors: Vec<TrustAnchor<'static>>,
    revocation_lists: Vec<CertRevocationList<'static>>,
    /// The same, for what was verified before.
    revoked: Revoked,
}

impl X509Authority {
    /// Takes trust anchors as CA certificates in DER.
    ///
    /// # Errors
    /// [`AnchorError`] if there is none, or one is not a CA certificate.
    pub fn new(anchors: &[Bytes]) -> Result<Self, AnchorError> {
        if anchors.is_empty() {
            return Err(AnchorError::None);
        }
        let anchors = anchors.iter().map(anchor).collect::<Result<_, _>>()?;
        Ok(Self { anchors, revocation_lists: Vec::new(), revoked: Revoked::default() })
    }

    /// Also refuses what these revocation lists (DER) name. An issuer without a list is not asked for one, but where
    /// there is a list it must be current. A [`super::CertificateCache`] filled before is to be cleared, and what was signed
    /// before is to be looked at again ([`Authority::still_believes`]).
    ///
    /// # Errors
    /// [`AnchorError::RevocationList`] if one cannot be read.
    pub fn with_revocation_lists(mut self, lists: &[Bytes]) -> Result<Self, AnchorError> {
        for list in lists {
            self.revoked.add(list)?;
            let list = OwnedCertRevocationList::from_der(list).map_err(|error| AnchorError::RevocationList(error.to_string()))?;
            self.revocation_lists.push(list.into());
        }
        Ok(self)
    }

    /// Builds and checks a path, and gives it with the earliest end of validity on it.
    fn verify_path(&self, certificate: &[u8], chain: &[Bytes], now_unix: u64) -> Result<(u64, CertificatePath), CertificateError> {
        let certificate = CertificateDer::from(certificate);
        let end_entity = EndEntityCert::try_from(&certificate).map_err(path_error)?;
        let chain: Vec<_> = chain.iter().map(|certificate| CertificateDer::from(certificate.as_ref())).collect();
        let lists: Vec<_> = self.revocation_lists.iter().collect();
        let path = end_entity
            .verify_for_usage(
                ALL_VERIFICATION_ALGS,
                &self.anchors,
                &chain,
                UnixTime::since_unix_epoch(Duration::from_secs(now_unix)),
                webpki::KeyUsage::client_auth(),
                revocation(&lists),
                Some(&issuers_may_sign),
            )
            .map_err(path_error)?;
        let mut parsed = vec![parse(&certificate)?];
        for issuer in path.intermediate_certificates() {
            parsed.push(parse(&issuer.der())?);
        }
        let earliest = parsed.iter().map(not_after).min().unwrap_or(0);
        let issuers = parsed.iter().map(|certificate| certificate.tbs_certificate.issuer.to_der().map_err(malformed));
        let issuers = issuers.collect::<Result<Vec<_>, _>>()?;
        let serials = parsed.iter().map(|certificate| certificate.tbs_certificate.serial_number.as_bytes());
        Ok((earliest, CertificatePath::new(issuers.iter().map(Vec::as_slice).zip(serials))))
    }
}

impl Authority for X509Authority {
    fn verify_certificate(
        &self,
        certificate: &[u8],
        chain: &[Bytes],
        address: IpAddr,
        now_unix: u64,
    ) -> Result<VerifiedKey, CertificateError> {
        if chain.len() > CHAIN_LIMIT {
            return Err(CertificateError::Untrusted("path too long".to_owned()));
        }
        // Cheap checks first; building the path costs signature verifications.
        let parsed = parse(certificate)?;
        let key = certified_key(&parsed)?;
        check_key_usage(&parsed)?;
        check_address(&parsed, address)?;
        let (not_after_unix, path) = self.verify_path(certificate, chain, now_unix)?;
        Ok(VerifiedKey { key_hash: key.hash, scheme: key.scheme, public_key: key.public_key, not_after_unix, path })
    }

    fn still_believes(&self, path: &CertificatePath, now_unix: u64) -> Result<(), CertificateError> {
        self.revoked.allows(path, now_unix)
    }

    fn verify_signature(&self, key: &VerifiedKey, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let algorithm: &dyn VerificationAlgorithm = match key.scheme {
            SignatureScheme::Ed25519 => &ED25519,
            SignatureScheme::EcdsaP256 => &ECDSA_P256_SHA256_FIXED,
            SignatureScheme::EcdsaP384 => &ECDSA_P384_SHA384_FIXED,
            SignatureScheme::RsaPss => &RSA_PSS_2048_8192_SHA256,
        };
        UnparsedPublicKey::new(algorithm, &key.public_key).verify(message, signature).map_err(|_| BadSignature)
    }
}

/// Why trust cannot be set up as configured.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnchorError {
    /// Nobody would be trusted.
    #[error("no trust anchor")]
    None,
    /// Not an X.509 certificate.
    #[error("malformed trust anchor: {0}")]
    Malformed(String),
    /// The certificate is not that of a certification authority.
    #[error("trust anchor is not a CA certificate: {0}")]
    NotAuthority(String),
    /// Not an X.509 certificate revocation list.
    #[error("malformed revocation list: {0}")]
    RevocationList(String),
}

fn anchor(certificate: &Bytes) -> Result<TrustAnchor<'static>, AnchorError> {
    let parsed = parse(certificate).map_err(|error| AnchorError::Malformed(error.to_string()))?;
    let constraints = parsed.tbs_certificate.get::<BasicConstraints>();
    if !constraints.is_ok_and(|constraints| constraints.is_some_and(|(_, constraints)| constraints.ca)) {
        return Err(AnchorError::NotAuthority(parsed.tbs_certificate.subject.to_string()));
    }
    let certificate = CertificateDer::from(certificate.as_ref());
    let anchor = anchor_from_trusted_cert(&certificate).map_err(|error| AnchorError::Malformed(error.to_string()))?;
    Ok(anchor.to_owned())
}

fn revocation<'a>(lists: &'a [&'a CertRevocationList<'a>]) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(lists).ok()?; // refuses only an empty list
    let options = builder
        .with_depth(RevocationCheckDepth::Chain)
        .with_status_policy(UnknownStatusPolicy::Allow)
        .with_expiration_policy(ExpirationPolicy::Enforce);
    Some(options.build())
}

/// Path validation leaves keyUsage of issuers to us (RFC 5280 §6.1.4 (n)).
fn issuers_may_sign(path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
    for issuer in path.intermediate_certificates() {
        let parsed = parse(&issuer.der()).map_err(|_| webpki::Error::BadDer)?;
        let usage = parsed.tbs_certificate.get::<KeyUsage>().map_err(|_| webpki::Error::BadDer)?;
        if usage.is_some_and(|(_, usage)| !usage.key_cert_sign()) {
            return Err(webpki::Error::EndEntityUsedAsCa);
        }
    }
    Ok(())
}

/// A certificate that restricts its key must allow signatures (RFC 5280 §4.2.1.3).
fn check_key_usage(certificate: &Certificate) -> Result<(), CertificateError> {
    match certificate.tbs_certificate.get::<KeyUsage>().map_err(malformed)? {
        Some((_, usage)) if !usage.digital_signature() => Err(CertificateError::Untrusted("key usage excludes signatures".to_owned())),
        Some(_) | None => Ok(()),
    }
}

/// An iPAddress of the subject alternative name must be the address, 4 or 16 octets (X-65, RFC 5280 §4.2.1.6).
fn check_address(certificate: &Certificate, address: IpAddr) -> Result<(), CertificateError> {
    let names = certificate.tbs_certificate.get::<SubjectAltName>().map_err(malformed)?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let matches = |name: &GeneralName| match (name, address) {
        (GeneralName::IpAddress(octets), IpAddr::V4(v4)) => octets.as_bytes() == v4.octets(),
        (GeneralName::IpAddress(octets), IpAddr::V6(v6)) => octets.as_bytes() == v6.octets(),
        _ => false,
    };
    if names.iter().any(matches) { Ok(()) } else { Err(CertificateError::AddressBinding(address)) }
}

fn not_after(certificate: &Certificate) -> u64 {
    certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs()
}

fn path_error(error: webpki::Error) -> CertificateError {
    use webpki::Error;
    let reason = match error {
        Error::CertExpired { .. } => return CertificateError::Expired,
        Error::CertNotValidYet { .. } => return CertificateError::NotYetValid,
        Error::CertRevoked => return CertificateError::Revoked,
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => return CertificateError::Malformed(error.to_string()),
        Error::UnknownIssuer => "unknown issuer",
        Error::InvalidSignatureForPublicKey => "not signed by the issuer it names",
        Error::CaUsedAsEndEntity => "a CA certificate, not that of a host",
        Error::EndEntityUsedAsCa => "an issuer on the path may not issue",
        Error::PathLenConstraintViolated => "an issuer on the path may not have that many below it",
        Error::NameConstraintViolation => "an issuer on the path may not issue for this name",
        Error::RequiredEkuNotFoundContext(_) => "extended key usage lacks client authentication",
        Error::UnsupportedCriticalExtension => "unknown critical extension",
        Error::CrlExpired { .. } => "revocation list out of date",
        other => return CertificateError::Untrusted(other.to_string()),
    };
    CertificateError::Untrusted(reason.to_owned())
}
