//! Certificates as revocation lists name them: all that is kept of them while something that they have signed stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode};

use super::key::sha256;
use super::{AnchorError, CertificateError};

/// The certificates from a signer's own up to the anchor, which is left out: as many as a message may carry at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct CertificatePath(Arc<[Named]>);

/// The beginnings of SHA-256 of the issuer's name and of the serial number. Whoever has an authority give it a certificate that is
/// named as another one is has itself ended with that one, and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Named {
    issuer: [u8; 16],
    serial: [u8; 16],
}

impl CertificatePath {
    /// A path of certificates, each given by its issuer's name in DER and the content of its serial number.
    pub fn new<'a>(certificates: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let named = |(issuer, serial)| Named { issuer: short(issuer), serial: short(serial) };
        Self(certificates.into_iter().map(named).collect())
    }
}

/// What revocation lists say, by whose they are.
#[derive(Debug, Default)]
pub(super) struct Revoked(BTreeMap<[u8; 16], Listed>);

#[derive(Debug, Default)]
struct Listed {
    serials: BTreeSet<[u8; 16]>,
    /// When the last one of this issuer is out of date, in Unix seconds; `None` if one of them does not say.
    until: Option<u64>,
}

impl Revoked {
    /// Adds what a list (DER) says.
    pub(super) fn add(&mut self, list: &[u8]) -> Result<(), AnchorError> {
        let unreadable = |error: x509_cert::der::Error| AnchorError::RevocationList(error.to_string());
        let list = CertificateList::from_der(list).map_err(unreadable)?.tbs_cert_list;
        let issuer = short(&list.issuer.to_der().map_err(unreadable)?);
        let until = list.next_update.map(|end| end.to_unix_duration().as_secs());
        let listed = self.0.entry(issuer).or_insert(Listed { serials: BTreeSet::new(), until });
        listed.until = listed.until.zip(until).map(|(one, other)| one.max(other));
        let revoked = list.revoked_certificates.unwrap_or_default();
        listed.serials.extend(revoked.iter().map(|entry| short(entry.serial_number.as_bytes())));
        Ok(())
    }

    /// Whether nothing is said against any certificate of the path at `now_unix`.
    pub(super) fn allows(&self, path: &CertificatePath, now_unix: u64) -> Result<(), CertificateError> {
        for named in path.0.iter() {
            let Some(listed) = self.0.get(&named.issuer) else {
                continue;
            };
            if listed.serials.contains(&named.serial) {
                return Err(CertificateError::Revoked);
            }
            // The last second still counts.
            if listed.until.is_some_and(|until| now_unix > until) {
                return Err(CertificateError::Untrusted("revocation list out of date".to_owned()));
            }
        }
        Ok(())
    }
}

fn short(octets: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.iter_mut().zip(sha256(octets)).for_each(|(to, from)| *to = from);
    short
}
