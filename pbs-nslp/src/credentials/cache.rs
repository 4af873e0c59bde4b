//! Results of path validation, kept while they hold: most refreshes then cost one signature check.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytes::Bytes;

use super::key::sha256;
use super::{Authority, CertificateError, VerifiedKey};

/// A certificate, by its SHA-256, and the address that it was found to name.
type Entry = ([u8; 32], IpAddr);

/// Bounded store of verified certificates. When full, the one that ends first makes room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateCache {
    limit: usize,
    verified: BTreeMap<Entry, VerifiedKey>,
    by_end: BTreeSet<(u64, Entry)>,
}

impl CertificateCache {
    /// A cache of at most `limit` certificates; with 0 nothing is kept.
    pub fn new(limit: usize) -> Self {
        Self { limit, verified: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// [`Authority::verify_certificate`], asked only if the answer is not known. Refusals are not kept.
    ///
    /// # Errors
    /// As [`Authority::verify_certificate`].
    pub fn verify(
        &mut self,
        authority: &dyn Authority,
        certificate: &[u8],
        chain: &[Bytes],
        address: IpAddr,
        now_unix: u64,
    ) -> Result<VerifiedKey, CertificateError> {
        self.forget_ended(now_unix);
        let entry = (sha256(certificate), address);
        if let Some(key) = self.verified.get(&entry) {
            return Ok(key.clone());
        }
        let key = authority.verify_certificate(certificate, chain, address, now_unix)?;
        self.insert(entry, key.clone());
        Ok(key)
    }

    /// Forgets everything, as after a change of anchors or revocation lists.
    pub fn clear(&mut self) {
        self.verified.clear();
        self.by_end.clear();
    }

    /// How many certificates are known.
    pub fn len(&self) -> usize {
        self.verified.len()
    }

    /// Whether no certificate is known.
    pub fn is_empty(&self) -> bool {
        self.verified.is_empty()
    }

    fn insert(&mut self, entry: Entry, key: VerifiedKey) {
        if self.limit == 0 {
            return;
        }
        while self.verified.len() >= self.limit {
            let Some((_, first)) = self.by_end.pop_first() else {
                break;
            };
            self.verified.remove(&first);
        }
        self.by_end.insert((key.not_after_unix, entry));
        self.verified.insert(entry, key);
    }

    /// The last second of validity still counts (RFC 5280 §4.1.2.5).
    fn forget_ended(&mut self, now_unix: u64) {
        while let Some(&(end, entry)) = self.by_end.first()
            && end < now_unix
        {
            self.by_end.pop_first();
            self.verified.remove(&entry);
        }
    }
}
