//! Revocation lists that are read again while a daemon runs.
//!
//! A list that has changed counts as soon as it is seen: associations of those that it names end, permissions that they have signed end,
//! and what they sign is refused. A file that cannot be used, being unreadable or out of date already, leaves what it held before in force
//! until that is out of date itself; from then on everybody is refused whom its issuer has certified. What other files hold counts
//! nevertheless: the list of one authority that nobody renews must not keep out another's that revokes. At the start there is nothing of
//! before, so that every file must hold current lists.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use gist::io::{Peers, TlsError, tls};
use pbs_nslp::credentials::{AnchorError, Authority, BadSignature, CertificateError, CertificatePath, VerifiedKey, X509Authority};
use rustls_pki_types::{CertificateRevocationListDer, UnixTime};
use serde_json::{Value, json};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

/// Verifies signers of messages against the lists of this moment.
#[derive(Debug)]
pub struct CurrentAuthority(RwLock<Arc<X509Authority>>);

impl CurrentAuthority {
    fn now(&self) -> Arc<X509Authority> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Authority for CurrentAuthority {
    fn verify_certificate(
        &self,
        certificate: &[u8],
        chain: &[Bytes],
        address: IpAddr,
        now_unix: u64,
    ) -> Result<VerifiedKey, CertificateError> {
        self.now().verify_certificate(certificate, chain, address, now_unix)
    }

    fn still_believes(&self, path: &CertificatePath, now_unix: u64) -> Result<(), CertificateError> {
        self.now().still_believes(path, now_unix)
    }

    fn verify_signature(&self, key: &VerifiedKey, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.now().verify_signature(key, message, signature)
    }
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Its file is not what it should be.
    #[error(transparent)]
    File(#[from] TlsError),
    /// It cannot be used for messages.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
}

/// The lists of a daemon, with all that goes by them.
#[derive(Debug)]
pub struct Revocation {
    paths: Vec<PathBuf>,
    anchors: Vec<Bytes>,
    authority: Arc<CurrentAuthority>,
    /// Neighbours; `None` until TLS has been set up.
    peers: Option<Arc<Peers>>,
    /// What the files were like when they were last tried.
    tried: Vec<Option<Stamp>>,
    /// What is in force of each file.
    lists: Vec<Lists>,
    /// The ends of all lists in force in ascending order, in Unix seconds; the last one of each that counts.
    ends: Vec<u64>,
    /// How many of them were over when they were last looked at.
    over: usize,
    /// Why files as they are cannot be used.
    failed: Option<String>,
    read_again: u64,
}

/// By what a file is known to be another one: number, length, last changes of its content and of itself.
type Stamp = (u64, u64, i64, i64, i64, i64);
/// The lists of one file.
type Lists = Vec<CertificateRevocationListDer<'static>>;

impl Revocation {
    /// Reads the lists for the first time.
    ///
    /// # Errors
    ///
    /// Anchors or lists cannot be used; so it is with a list that is out of date.
    pub fn read(
        paths: Vec<PathBuf>,
        anchors: Vec<Bytes>,
        now: u64,
    ) -> Result<(Self, Vec<CertificateRevocationListDer<'static>>), RevocationError> {
        let tried = stamps(&paths);
        let lists = paths.iter().map(|path| read(path, &anchors, now)).collect::<Result<Vec<_>, _>>()?;
        let all = lists.concat();
        let authority = Arc::new(CurrentAuthority(RwLock::new(Arc::new(authority(&anchors, &all)?))));
        let ends = ends(&all);
        let read = Self { paths, anchors, authority, peers: None, tried, lists, ends, over: 0, failed: None, read_again: 0 };
        Ok((read, all))
    }

    /// What verifies messages by these lists.
    pub fn authority(&self) -> Arc<CurrentAuthority> {
        Arc::clone(&self.authority)
    }

    /// Has neighbours go by these lists too.
    pub fn govern(&mut self, peers: Arc<Peers>) {
        self.peers = Some(peers);
    }

    /// Reads the files again if they are others, or if somebody has `asked` for it. Whether all certificates must be verified anew: the
    /// lists are others, or one more of them is out of date.
    pub fn look(&mut self, unix_seconds: u64, asked: bool) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let found = stamps(&self.paths);
        let are_others = (asked || found != self.tried) && self.read_anew(found, unix_seconds);
        let were_over = self.over;
        self.over = self.ends.iter().filter(|end| unix_seconds > **end).count();
        let is_another_over = self.over > were_over;
        if is_another_over {
            tracing::error!(lists = self.over, "a revocation list is out of date: everybody whom its issuer has certified is refused");
            self.peers.iter().for_each(|peers| peers.look_again());
        }
        are_others || is_another_over
    }

    /// Reads every file that looks like `found`, and takes what can be used. Whether that is anything.
    fn read_anew(&mut self, found: Vec<Option<Stamp>>, now: u64) -> bool {
        self.tried = found;
        let mut failed = Vec::new();
        let (mut lists, mut usable) = (self.lists.clone(), 0_usize);
        for (path, lists) in self.paths.iter().zip(&mut lists) {
            match read(path, &self.anchors, now) {
                Ok(read) => (*lists, usable) = (read, usable.saturating_add(1)),
                Err(error) => failed.push(error.to_string()),
            }
        }
        let taken = if usable > 0 { self.take(lists) } else { Ok(()) };
        let are_taken = usable > 0 && taken.is_ok();
        failed.extend(taken.err().map(|error| error.to_string()));
        if are_taken {
            // Whatever is over among them is told anew.
            self.over = 0;
            self.read_again = self.read_again.saturating_add(1);
            tracing::info!(files = usable, ends = ?self.ends, "revocation lists have been read again");
        }
        self.failed = (!failed.is_empty()).then(|| failed.join("; "));
        if let Some(error) = &self.failed {
            tracing::error!(error, "revocation lists cannot be read again: those of before hold in their place until they are out of date");
        }
        are_taken
    }

    fn take(&mut self, lists: Vec<Lists>) -> Result<(), RevocationError> {
        let all = lists.concat();
        let (authority, ends) = (authority(&self.anchors, &all)?, ends(&all));
        if let Some(peers) = &self.peers {
            peers.set_revocation_lists(all)?;
        }
        *self.authority.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authority);
        (self.lists, self.ends) = (lists, ends);
        Ok(())
    }

    /// Time until the next list is out of date, if one will be.
    pub fn left(&self, unix_seconds: u64) -> Option<Duration> {
        // The last second still counts.
        self.ends.iter().find_map(|end| end.checked_sub(unix_seconds)).map(|left| Duration::from_secs(left.saturating_add(1)))
    }

    /// For `status`.
    pub fn show(&self) -> Value {
        json!({
            "files": self.paths,
            "current_until": self.ends.get(self.over),
            "out_of_date": self.over > 0,
            "read_again": self.read_again,
            "not_usable_because": self.failed,
        })
    }
}

fn authority(anchors: &[Bytes], lists: &[CertificateRevocationListDer<'_>]) -> Result<X509Authority, AnchorError> {
    let octets: Vec<Bytes> = lists.iter().map(|list| Bytes::copy_from_slice(list)).collect();
    X509Authority::new(anchors)?.with_revocation_lists(&octets)
}

/// The lists of a file, each current and fit for both neighbours and signers.
fn read(path: &Path, anchors: &[Bytes], now: u64) -> Result<Lists, RevocationError> {
    let lists = tls::read_revocation_lists(path, UnixTime::since_unix_epoch(Duration::from_secs(now)))?;
    authority(anchors, &lists)?;
    Ok(lists)
}

/// When each ends, the first first. Reading has made sure that each names its end.
fn ends(lists: &[CertificateRevocationListDer<'_>]) -> Vec<u64> {
    let ends = lists.iter().filter_map(|list| CertificateList::from_der(list).ok()?.tbs_cert_list.next_update);
    let mut ends: Vec<u64> = ends.map(|end| end.to_unix_duration().as_secs()).collect();
    ends.sort_unstable();
    ends
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod, KeyPair,
        KeyUsagePurpose, RevokedCertParams, SanType, date_time_ymd,
    };

    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const SERIAL: u64 = 7;

    /// An authority, a host that it has certified, and the file of its list.
    struct Issuer {
        issuer: CertifiedIssuer<'static, KeyPair>,
        host: Vec<u8>,
        file: PathBuf,
    }

    impl Issuer {
        fn new(place: &Path, name: &str) -> Self {
            let parameters = |name: &str| {
                let mut parameters = CertificateParams::default();
                parameters.distinguished_name.push(DnType::CommonName, name);
                (parameters.not_before, parameters.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2027, 1, 1));
                parameters
            };
            let mut own = parameters(name);
            own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = || KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
            let issuer = CertifiedIssuer::self_signed(own, key()).unwrap();
            let mut host = parameters("host");
            host.subject_alt_names = vec![SanType::IpAddress(HOST)];
            host.serial_number = Some(SERIAL.into());
            host.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            let host = host.signed_by(&key(), &issuer).unwrap().der().to_vec();
            Self { issuer, host, file: place.join(name) }
        }

        /// Puts a list in place of the one of before.
        fn list(&self, serials: &[u64], ends_in: u8) {
            let revoked = serials.iter().map(|serial| RevokedCertParams {
                serial_number: (*serial).into(),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            });
            let list = CertificateRevocationListParams {
                this_update: date_time_ymd(2026, 1, 1),
                next_update: date_time_ymd(2026, ends_in, 1),
                crl_number: 1_u64.into(),
                issuing_distribution_point: None,
                revoked_certs: revoked.collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            std::fs::write(&self.file, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        }

        fn is_believed(&self, lists: &Revocation, now: u64) -> bool {
            lists.authority().verify_certificate(&self.host, &[], HOST, now).is_ok()
        }
    }

    /// The first second of a month of 2026.
    fn month(month: u8) -> u64 {
        date_time_ymd(2026, month, 1).unix_timestamp().try_into().unwrap()
    }

    fn two() -> (tempfile::TempDir, [Issuer; 2]) {
        let place = tempfile::tempdir().unwrap();
        let issuers = ["a", "b"].map(|name| Issuer::new(place.path(), name));
        (place, issuers)
    }

    fn read(issuers: &[Issuer], now: u64) -> Result<Revocation, RevocationError> {
        let (paths, anchors) = issuers.iter().map(|of| (of.file.clone(), Bytes::copy_from_slice(of.issuer.der()))).collect();
        Revocation::read(paths, anchors, now).map(|(lists, _)| lists)
    }

    /// what one authority revokes counts although another has not renewed its list, and whom that one has certified is refused.
    #[test]
    fn a_list_that_is_out_of_date_keeps_no_other_from_being_taken() {
        let (_place, issuers) = two();
        let [a, b] = &issuers;
        a.list(&[], 9);
        b.list(&[], 3);
        let mut lists = read(&issuers, month(2)).unwrap();
        assert!(a.is_believed(&lists, month(2)) && b.is_believed(&lists, month(2)));
        assert!(lists.look(month(4), false), "one is out of date");
        assert!(a.is_believed(&lists, month(4)) && !b.is_believed(&lists, month(4)));
        a.list(&[SERIAL], 10);
        assert!(lists.look(month(4), true), "the other is replaced");
        assert!(!a.is_believed(&lists, month(4)), "revoked");
        assert!(!b.is_believed(&lists, month(4)), "as before");
        let said = lists.show();
        assert!(said["not_usable_because"].as_str().is_some_and(|why| why.contains("is out of date since")), "{said}");
        assert_eq!((&said["out_of_date"], &said["read_again"]), (&json!(true), &json!(1)), "{said}");
        // Nor does one that is half written.
        std::fs::write(&a.file, "half of a list").unwrap();
        b.list(&[], 11);
        assert!(lists.look(month(4), true));
        assert!(!a.is_believed(&lists, month(4)) && b.is_believed(&lists, month(4)));
        assert_eq!(lists.show()["out_of_date"], false);
        // If none can be used nothing changes.
        std::fs::write(&b.file, "").unwrap();
        assert!(!lists.look(month(4), true));
        assert!(!a.is_believed(&lists, month(4)) && b.is_believed(&lists, month(4)));
    }

    /// at the start nothing of before could be in force, and the operator looks on.
    #[test]
    fn a_list_that_is_out_of_date_at_the_start_is_refused_by_the_name_of_its_file() {
        let (_place, issuers) = two();
        issuers[0].list(&[], 9);
        issuers[1].list(&[], 3);
        let error = read(&issuers, month(4)).unwrap_err().to_string();
        assert!(error.contains("/b: revocation list 1 is out of date since"), "{error}");
    }

    /// associations are looked at again with the end of every list, and the wall clock is looked at no later than that.
    #[test]
    fn the_end_of_each_list_is_noticed_and_not_that_of_the_first_alone() {
        let (_place, issuers) = two();
        issuers[0].list(&[], 5);
        issuers[1].list(&[], 3);
        let mut lists = read(&issuers, month(2)).unwrap();
        let until = |now: u64, ends: u8| Some(Duration::from_secs(month(ends) - now + 1));
        assert_eq!(lists.left(month(2)), until(month(2), 3));
        assert!(!lists.look(month(3), false), "its last second counts");
        assert!(lists.look(month(3) + 1, false));
        assert!(!lists.look(month(4), false), "told once");
        assert_eq!(lists.left(month(4)), until(month(4), 5));
        assert_eq!(lists.show()["current_until"], month(5));
        assert!(!lists.look(month(5), false));
        assert!(lists.look(month(5) + 1, false), "the second is out of date too");
        assert!(!lists.look(month(6), false));
        assert_eq!(lists.left(month(6)), None);
    }
}
