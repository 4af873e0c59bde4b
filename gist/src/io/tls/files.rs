//! Certificates and keys from PEM files, with errors that name the file and what is wrong in it.

use std::fs::File;
use std::io::{BufReader, Error, ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::TlsError;

/// Reads a certificate chain: the own certificate first, then intermediates.
///
/// Each must be valid at `at`, so that an expired one is found at the start and not by the first peer.
pub fn read_certificates(path: &Path, at: UnixTime) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(open(path)?)) {
        let certificate = certificate.map_err(|reason| pem_error(path, reason))?;
        require_valid(path, certificates.len() + 1, &certificate, at)?;
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(TlsError::NoCertificate { path: path.to_owned() }) } else { Ok(certificates) }
}

/// Reads trust anchors; like [`read_certificates`], because an expired anchor makes every path through it worthless.
pub fn read_anchors(path: &Path, at: UnixTime) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_certificates(path, at)
}

/// Reads certificate revocation lists (RFC 5280 §5), of which there may be several in a file.
///
/// Each must be current at `at`: what is out of date would have every certificate of its issuer refused.
pub fn read_revocation_lists(path: &Path, at: UnixTime) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let mut lists = Vec::new();
    for list in CertificateRevocationListDer::pem_reader_iter(BufReader::new(open(path)?)) {
        let list = list.map_err(|reason| pem_error(path, reason))?;
        require_current(path, lists.len() + 1, &list, at)?;
        lists.push(list);
    }
    if lists.is_empty() { Err(TlsError::NoRevocationList { path: path.to_owned() }) } else { Ok(lists) }
}

/// Reads the first private key of a file (PKCS #8, SEC 1 or PKCS #1). An error says nothing about the content.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_reader(BufReader::new(open(path)?)).map_err(|error| match error {
        pem::Error::Io(source) => TlsError::Unreadable { path: path.to_owned(), source },
        // The reader's words may quote a line of the file.
        _ => TlsError::NoKey { path: path.to_owned() },
    })
}

/// Opens a file of which no more than [`LARGEST_FILE`] bytes will be read.
fn open(path: &Path) -> Result<impl Read, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length > LARGEST_FILE {
        return Err(unreadable(Error::new(ErrorKind::FileTooLarge, format!("{length} bytes, at most {LARGEST_FILE} are read"))));
    }
    Ok(file.take(LARGEST_FILE))
}

fn pem_error(path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::Io(source) => TlsError::Unreadable { path: path.to_owned(), source },
        other => TlsError::NotPem { path: path.to_owned(), reason: other.to_string() },
    }
}

fn require_valid(path: &Path, position: usize, certificate: &CertificateDer<'_>, at: UnixTime) -> Result<(), TlsError> {
    let parsed = x509_cert::Certificate::from_der(certificate).map_err(|reason| TlsError::Unparsable {
        path: path.to_owned(),
        position,
        reason: reason.to_string(),
    })?;
    let validity = parsed.tbs_certificate.validity;
    let now = Duration::from_secs(at.as_secs());
    let subject = parsed.tbs_certificate.subject.to_string();
    if now > validity.not_after.to_unix_duration() {
        let not_after = validity.not_after.to_string();
        return Err(TlsError::Expired { path: path.to_owned(), position, subject, not_after });
    }
    if now < validity.not_before.to_unix_duration() {
        let not_before = validity.not_before.to_string();
        return Err(TlsError::NotYetValid { path: path.to_owned(), position, subject, not_before });
    }
    Ok(())
}

fn require_current(path: &Path, position: usize, list: &CertificateRevocationListDer<'_>, at: UnixTime) -> Result<(), TlsError> {
    let unusable = |reason: String| TlsError::RevocationList { path: path.to_owned(), position, reason };
    let parsed = CertificateList::from_der(list).map_err(|reason| unusable(format!("cannot be parsed: {reason}")))?;
    let next = parsed.tbs_cert_list.next_update.ok_or_else(|| unusable("does not say when the next one comes".to_owned()))?;
    if at.as_secs() > next.to_unix_duration().as_secs() {
        return Err(unusable(format!("is out of date since {next}: every certificate of its issuer would be refused")));
    }
    Ok(())
}

/// Largest PEM file read, in bytes; a thousand certificates fit.
const LARGEST_FILE: u64 = 1 << 20;
