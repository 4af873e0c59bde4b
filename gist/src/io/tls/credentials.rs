//! What a peer's certificate says about it.

use std::net::IpAddr;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;

use crate::node::PeerCredentials;

/// Why a certificate that TLS accepted gives no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The peer showed no certificate.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The certificate or its subjectAltName is not readable.
    #[error("the peer's certificate cannot be parsed: {0}")]
    Unparsable(String),
    /// The certificate names more identities than are looked at.
    #[error("the peer's certificate names {0} identities, at most {MOST_NAMES} are accepted")]
    TooManyNames(usize),
}

/// Reads the identities from the certificates that the peer showed in TLS, its own first.
///
/// The certificates must have been validated; this only reads. The Common Name counts only where no dNSName
/// exists (RFC 5971 §5.7.3.1, G-242).
pub fn peer_credentials(certificates: Option<&[CertificateDer<'_>]>) -> Result<PeerCredentials, CredentialsError> {
    let own = certificates.and_then(<[_]>::first).ok_or(CredentialsError::NoCertificate)?;
    let unparsable = |error: x509_cert::der::Error| CredentialsError::Unparsable(error.to_string());
    let certificate = x509_cert::Certificate::from_der(own).map_err(unparsable)?.tbs_certificate;
    let names = certificate.get::<SubjectAltName>().map_err(unparsable)?.map_or(Vec::new(), |(_, SubjectAltName(names))| names);
    if names.len() > MOST_NAMES {
        return Err(CredentialsError::TooManyNames(names.len()));
    }
    let key = certificate.subject_public_key_info.to_der().map_err(unparsable)?;
    let mut credentials = PeerCredentials {
        dns_names: Vec::new(),
        addresses: Vec::new(),
        key_hash: sha256(&key),
        valid_for: None,
        subject: certificate.subject.to_string().chars().take(LONGEST_SUBJECT).collect(),
    };
    for name in names {
        match name {
            GeneralName::DnsName(name) => credentials.dns_names.push(name.to_string()),
            GeneralName::IpAddress(octets) => credentials.addresses.extend(ip_address(octets.as_bytes())),
            _ => {}
        }
    }
    if credentials.dns_names.is_empty() {
        credentials.dns_names.extend(most_specific_common_name(&certificate.subject));
    }
    Ok(credentials)
}

/// The same of a peer that has just authenticated itself, with the time that its certificates are still valid at `at`.
///
/// All of them count that are valid at `at`: one that is not can be no part of the path that was validated.
pub fn credentials_at(certificates: Option<&[CertificateDer<'_>]>, at: UnixTime) -> Result<PeerCredentials, CredentialsError> {
    let valid_for = valid_for(certificates.unwrap_or_default(), at);
    Ok(PeerCredentials { valid_for, ..peer_credentials(certificates)? })
}

fn valid_for(certificates: &[CertificateDer<'_>], at: UnixTime) -> Option<Duration> {
    let now = Duration::from_secs(at.as_secs());
    let parsed = certificates.iter().take(MOST_CERTIFICATES).filter_map(|certificate| x509_cert::Certificate::from_der(certificate).ok());
    let ends = parsed.map(|certificate| certificate.tbs_certificate.validity.not_after.to_unix_duration());
    // The last second is part of the validity (RFC 5280 §4.1.2.5).
    ends.filter_map(|end| (end + Duration::from_secs(1)).checked_sub(now)).min()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    hash
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The Common Name nearest to the leaf of the name tree, which DER puts last.
fn most_specific_common_name(subject: &Name) -> Option<String> {
    let attributes = subject.0.iter().rev().flat_map(|part| part.0.iter());
    let common_name = attributes.into_iter().find(|attribute| attribute.oid == COMMON_NAME)?;
    let value = &common_name.value;
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.as_str().to_owned()),
        _ => None,
    }
}

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Most subjectAltName entries of a peer's certificate.
const MOST_NAMES: usize = 64;
/// Most certificates of a peer whose end is looked at, its own included.
const MOST_CERTIFICATES: usize = 8;
/// Longest subject kept, in characters; it is only shown to people.
const LONGEST_SUBJECT: usize = 256;
