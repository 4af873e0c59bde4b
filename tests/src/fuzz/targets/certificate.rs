//! What a peer's certificate says about it.

use std::path::PathBuf;

use gist::io::tls::{credentials_at, peer_credentials};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::fuzz::mark;

/// Certificates of the tree.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/certificates");
    let files = ["control.crt", "control.ca.crt", "rsa-1024.crt", "sha-1.crt"];
    let read = |file: &str| CertificateDer::from_pem_file(directory.join(file)).ok().map(|certificate| certificate.to_vec());
    files.into_iter().filter_map(read).collect()
}

/// Names and addresses are no more than the certificate can hold.
pub(super) fn take(input: &[u8]) -> u64 {
    let certificates = [CertificateDer::from(input)];
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
    match peer_credentials(Some(&certificates)) {
        Ok(credentials) => {
            let named: usize = credentials.dns_names.iter().map(String::len).sum();
            assert!(named + credentials.addresses.len() * 4 <= input.len(), "{credentials:?}");
            assert!(credentials.subject.len() <= input.len() * 8, "{} octets of subject", credentials.subject.len());
            let until = credentials_at(Some(&certificates), at).map(|credentials| credentials.valid_for.is_some());
            mark(&(credentials.dns_names.len(), credentials.addresses.len(), until.ok()))
        }
        Err(error) => mark(&error.to_string().split(|letter: char| letter.is_ascii_digit()).next()),
    }
}
