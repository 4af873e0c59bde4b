//! What must be in a node's own certificate so that its neighbours and the other ends of flows can believe it. Found here, it is an
//! error that says what to do; found by them, it is a handshake that fails or a message that counts for nothing.

use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

/// id-kp-serverAuth and id-kp-clientAuth (RFC 5280 §4.2.1.12).
const SERVER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// Why a certificate cannot be a node's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// It cannot be read.
    #[error("cannot be parsed: {0}")]
    Unparsable(String),
    /// It is an authority's.
    #[error("is that of an authority (CA:TRUE), which nobody believes as a node's own: put the node's own certificate first")]
    Authority,
    /// Its key may not sign.
    #[error("has a key usage without digitalSignature, which TLS and signed messages need")]
    MayNotSign,
    /// It may not be used in both directions of TLS.
    #[error(
        "has an extended key usage without {0}: a node opens associations and accepts them, so it needs both serverAuth and clientAuth"
    )]
    Usage(&'static str),
    /// No message of the node would count.
    #[error(
        "names no iPAddress: neighbours and the other ends of flows believe only for addresses that it names (X-65); issue it with \
         subjectAltName = IP:<each address of this node>"
    )]
    NoAddress,
    /// Lists by name would not match it.
    #[error(
        "has no dNSName, nor a common name that is one: neighbours whose [[gist.peer]] goes by dns_name, as here, refuse this node (X-78, \
         RFC 5971 §5.7.3.1); issue it with subjectAltName = DNS:<its name>, or list peers by address on every node"
    )]
    NoName,
}

/// Refuses what nobody would believe. `by_name`: whether peers are listed by name in this network, as far as this node knows.
pub(crate) fn check(leaf: &CertificateDer<'_>, common_name: Option<&str>, by_name: bool) -> Result<(), LeafError> {
    let unparsable = |error: x509_cert::der::Error| LeafError::Unparsable(error.to_string());
    let certificate = Certificate::from_der(leaf).map_err(unparsable)?.tbs_certificate;
    if certificate.get::<BasicConstraints>().map_err(unparsable)?.is_some_and(|(_, constraints)| constraints.ca) {
        return Err(LeafError::Authority);
    }
    if certificate.get::<KeyUsage>().map_err(unparsable)?.is_some_and(|(_, usage)| !usage.digital_signature()) {
        return Err(LeafError::MayNotSign);
    }
    if let Some((_, ExtendedKeyUsage(usages))) = certificate.get::<ExtendedKeyUsage>().map_err(unparsable)? {
        for (usage, name) in [(SERVER, "serverAuth"), (CLIENT, "clientAuth")] {
            if !usages.contains(&usage) {
                return Err(LeafError::Usage(name));
            }
        }
    }
    let names = certificate.get::<SubjectAltName>().map_err(unparsable)?.map_or(Vec::new(), |(_, SubjectAltName(names))| names);
    if !names.iter().any(|name| matches!(name, GeneralName::IpAddress(_))) {
        return Err(LeafError::NoAddress);
    }
    let is_named = names.iter().any(|name| matches!(name, GeneralName::DnsName(_)))
        || common_name.is_some_and(|name| name.contains('.') && !name.contains(' '));
    if by_name && !is_named { Err(LeafError::NoName) } else { Ok(()) }
}
