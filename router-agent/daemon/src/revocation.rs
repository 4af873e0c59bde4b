//! Revocation lists that are read again while a daemon runs.
//!
//! A list that has changed counts as soon as it is seen: associations of those that it names end, and what they have signed is
//! refused. One that cannot be used, being unreadable or out of date already, leaves those of before in force until they are out of date
//! themselves; from then on everybody is refused whom their issuer has certified.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use gist::io::{Peers, TlsError, tls};
use pbs_nslp::credentials::{AnchorError, Authority, BadSignature, CertificateError, VerifiedKey, X509Authority};
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
    /// The end of the list that ends first, in Unix seconds; its last one that counts.
    until: Option<u64>,
    /// Whether that was over when it was last looked at.
    over: bool,
    /// Why the files as they are cannot be used.
    failed: Option<String>,
    read_again: u64,
}

/// By what a file is known to be another one: number, length, last changes of its content and of itself.
type Stamp = (u64, u64, i64, i64, i64, i64);

impl Revocation {
    /// Reads the lists for the first time.
    ///
    /// # Errors
    ///
    /// Anchors or lists cannot be used.
    pub fn read(
        paths: Vec<PathBuf>,
        anchors: Vec<Bytes>,
        now: u64,
    ) -> Result<(Self, Vec<CertificateRevocationListDer<'static>>), RevocationError> {
        let tried = stamps(&paths);
        let lists = read(&paths, now)?;
        let authority = Arc::new(CurrentAuthority(RwLock::new(Arc::new(authority(&anchors, &lists)?))));
        let until = end(&lists);
        let read = Self { paths, anchors, authority, peers: None, tried, until, over: false, failed: None, read_again: 0 };
        Ok((read, lists))
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
    /// lists are others, or out of date since now.
    pub fn look(&mut self, unix_seconds: u64, asked: bool) -> bool {
        if self.paths.is_empty() {
            return false;
        }
        let found = stamps(&self.paths);
        let others = asked || found != self.tried;
        if others {
            self.tried = found;
            match self.take(unix_seconds) {
                Ok(()) => {
                    tracing::info!(until = self.until, "the revocation lists have been read again");
                    (self.failed, self.over) = (None, false);
                    self.read_again = self.read_again.saturating_add(1);
                    return true;
                }
                Err(error) => {
                    tracing::error!(%error, until = self.until, "revocation lists cannot be read again: those of before hold until they are out of date");
                    self.failed = Some(error.to_string());
                }
            }
        }
        let was_over = self.over;
        self.over = self.until.is_some_and(|until| unix_seconds > until);
        if self.over && !was_over {
            tracing::error!("a revocation list is out of date: everybody whom its issuer has certified is refused");
            self.peers.iter().for_each(|peers| peers.look_again());
        }
        self.over && !was_over
    }

    fn take(&mut self, now: u64) -> Result<(), RevocationError> {
        let lists = read(&self.paths, now)?;
        let authority = authority(&self.anchors, &lists)?;
        let until = end(&lists);
        if let Some(peers) = &self.peers {
            peers.set_revocation_lists(lists)?;
        }
        *self.authority.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authority);
        self.until = until;
        Ok(())
    }

    /// Time until a list is out of date, if one will be.
    pub fn left(&self, unix_seconds: u64) -> Option<Duration> {
        // The last second still counts.
        self.until.and_then(|until| until.checked_sub(unix_seconds)).map(|left| Duration::from_secs(left.saturating_add(1)))
    }

    /// For `status`.
    pub fn show(&self) -> Value {
        json!({
            "files": self.paths,
            "current_until": self.until,
            "out_of_date": self.over,
            "read_again": self.read_again,
            "not_usable_because": self.failed,
        })
    }
}

fn authority(anchors: &[Bytes], lists: &[CertificateRevocationListDer<'_>]) -> Result<X509Authority, AnchorError> {
    let octets: Vec<Bytes> = lists.iter().map(|list| Bytes::copy_from_slice(list)).collect();
    X509Authority::new(anchors)?.with_revocation_lists(&octets)
}

fn read(paths: &[PathBuf], now: u64) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
    let mut lists = Vec::new();
    for path in paths {
        lists.extend(tls::read_revocation_lists(path, now)?);
    }
    Ok(lists)
}

/// The end of the list that ends first. Reading has made sure that each names one.
fn end(lists: &[CertificateRevocationListDer<'_>]) -> Option<u64> {
    let ends = lists.iter().filter_map(|list| CertificateList::from_der(list).ok()?.tbs_cert_list.next_update);
    ends.map(|end| end.to_unix_duration().as_secs()).min()
}

fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()))
    };
    paths.iter().map(stamp).collect()
}
