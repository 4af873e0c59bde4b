//! Results of path validation, kept while they hold: most refreshes then cost one signature check.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use bytes::Bytes;

use super::key::sha256;
use super::{Authority, CertificateError, VerifiedKey, square};

/// A certificate, by its SHA-256, and the address that it was found to name.
type Entry = ([u8; 32], IpAddr);

/// Bounded store of what was found out about certificates. When full, the verified one that ends first makes room; refusals are
/// kept for a moment only, as many at most, and the oldest makes room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateCache {
    limit: usize,
    verified: BTreeMap<Entry, VerifiedKey>,
    by_end: BTreeSet<(u64, Entry)>,
    /// By the certificate with what was sent to prove it.
    refused: BTreeMap<Entry, Refused>,
    /// In the order in which they were refused.
    oldest: VecDeque<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Refused {
    at_unix: u64,
    error: CertificateError,
}

/// How long a refusal is kept, in seconds: whoever repeats a message that was refused does not have it validated each time, and
/// a certificate that is not valid yet is soon taken.
const REFUSED_FOR: u64 = 10;

impl CertificateCache {
    /// A cache of at most `limit` certificates; with 0 nothing is kept.
    pub fn new(limit: usize) -> Self {
        Self { limit, verified: BTreeMap::new(), by_end: BTreeSet::new(), refused: BTreeMap::new(), oldest: VecDeque::new() }
    }

    /// [`Authority::verify_certificate`], asked only if the answer is not known.
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
        if let Some(known) = self.known(certificate, chain, address, now_unix) {
            return known;
        }
        let result = authority.verify_certificate(certificate, chain, address, now_unix);
        match &result {
            Ok(key) => self.insert((sha256(certificate), address), key.clone()),
            Err(error) => self.refuse((with_chain(certificate, chain), address), error.clone(), now_unix),
        }
        result
    }

    /// Whether [`CertificateCache::verify`] would answer without asking.
    pub(crate) fn knows(&mut self, certificate: &[u8], chain: &[Bytes], address: IpAddr, now_unix: u64) -> bool {
        self.known(certificate, chain, address, now_unix).is_some()
    }

    fn known(
        &mut self,
        certificate: &[u8],
        chain: &[Bytes],
        address: IpAddr,
        now_unix: u64,
    ) -> Option<Result<VerifiedKey, CertificateError>> {
        self.forget_ended(now_unix);
        if let Some(key) = self.verified.get(&(sha256(certificate), address)) {
            return Some(Ok(key.clone()));
        }
        let refused = self.refused.get(&(with_chain(certificate, chain), address))?;
        let holds = (refused.at_unix..=refused.at_unix.saturating_add(REFUSED_FOR)).contains(&now_unix);
        holds.then(|| Err(refused.error.clone()))
    }

    /// Forgets everything, as after a change of anchors or revocation lists.
    pub fn clear(&mut self) {
        self.verified.clear();
        self.by_end.clear();
        self.refused.clear();
        self.oldest.clear();
    }

    /// How many certificates are known to be good.
    pub fn len(&self) -> usize {
        self.verified.len()
    }

    /// Whether no certificate is known to be good.
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

    fn refuse(&mut self, entry: Entry, error: CertificateError, at_unix: u64) {
        if self.limit == 0 {
            return;
        }
        if self.refused.insert(entry, Refused { at_unix, error }).is_some() {
            return;
        }
        self.oldest.push_back(entry);
        if self.oldest.len() > self.limit
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.refused.remove(&oldest);
        }
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

/// What the validation of a certificate costs at most: 1 is one signature of an ordinary key.
///
/// As many paths are tried as there are orders of the intermediates if all have one name. The issuers' keys are not known before they
/// are read; that a certificate is longer than usual says that a key or a signature in it is.
pub(crate) fn validation_weight(certificate: &[u8], chain: &[Bytes]) -> u32 {
    /// Most certificates with elliptic curves, and with RSA keys of 2048 bits, are shorter than twice that.
    const ORDINARY: usize = 768;
    let paths =
        (1..=chain.len()).fold(1_u32, |paths, count| paths.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX)).saturating_add(1));
    let heaviest = chain.iter().map(|issuer| issuer.len()).chain([certificate.len()]).max();
    paths.saturating_mul(square(heaviest.unwrap_or(0) / ORDINARY))
}

fn with_chain(certificate: &[u8], chain: &[Bytes]) -> [u8; 32] {
    let mut hashes = sha256(certificate).to_vec();
    chain.iter().for_each(|issuer| hashes.extend(sha256(issuer)));
    sha256(&hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_chain_and_longer_keys_weigh_more() {
        let of = |length: usize| Bytes::from(vec![0; length]);
        let weights = [0, 1, 2, 3].map(|count| validation_weight(&of(500), &vec![of(500); count]));
        assert_eq!(weights, [1, 2, 5, 16], "paths through so many intermediates of one name");
        assert_eq!(validation_weight(&of(1000), &[]), 1);
        assert_eq!(validation_weight(&of(2600), &[]), 9);
        assert_eq!(validation_weight(&of(500), &[of(2600)]), 18);
    }
}
