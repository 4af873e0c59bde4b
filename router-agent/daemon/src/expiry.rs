//! The end of this node's own certificate: warned of in time, and an orderly end when it comes (FS-60).

use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Time;

/// When less than one part in so many of its life is left, a certificate is spoken of.
const WARNED_PART: u64 = 5;
/// How often, in seconds.
const WARN_EVERY: u64 = 24 * 60 * 60;

/// The life of a certificate file: that of the certificate in it that ends first, be it the node's own or one that vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    path: PathBuf,
    /// Unix seconds.
    from: u64,
    /// Unix seconds; the last one that is part of it (RFC 5280 §4.1.2.5).
    until: u64,
    date: String,
    warned_at: Option<u64>,
}

/// What the time says about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing that had to be said.
    Quiet,
    /// It ends soon, in so many seconds.
    Soon(u64),
    /// This is its last second, or it has ended.
    Over,
}

impl Expiry {
    /// The life of the certificates that were read from `path`. One that cannot be read was refused before; if there is none, it is
    /// over.
    pub fn of(path: &Path, certificates: &[CertificateDer<'_>]) -> Self {
        let read = certificates.iter().filter_map(|certificate| Certificate::from_der(certificate).ok());
        let first =
            read.map(|certificate| certificate.tbs_certificate.validity).min_by_key(|validity| validity.not_after.to_unix_duration());
        let seconds = |time: Time| time.to_unix_duration().as_secs();
        let (from, until) = first.map_or((0, 0), |first| (seconds(first.not_before), seconds(first.not_after)));
        let date = first.map_or_else(String::new, |first| first.not_after.to_string());
        Self { path: path.to_owned(), from, until, date, warned_at: None }
    }

    /// What is to be said at `unix_seconds`. In its last second a certificate still counts, so that the good-byes signed then are
    /// believed.
    pub fn look(&mut self, unix_seconds: u64) -> Finding {
        let Some(left) = self.until.checked_sub(unix_seconds).filter(|left| *left > 0) else { return Finding::Over };
        let soon = left.saturating_mul(WARNED_PART) <= self.until.saturating_sub(self.from);
        if !soon || self.warned_at.is_some_and(|at| unix_seconds.abs_diff(at) < WARN_EVERY) {
            return Finding::Quiet;
        }
        self.warned_at = Some(unix_seconds);
        Finding::Soon(left)
    }

    /// Seconds until it is over, 0 if it is.
    pub fn left(&self, unix_seconds: u64) -> u64 {
        self.until.saturating_sub(unix_seconds)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The date of the end.
    pub fn date(&self) -> &str {
        &self.date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn expiry() -> Expiry {
        Expiry { path: "/node.crt".into(), from: 1000 * DAY, until: 1100 * DAY, date: "2000-01-01T00:00:00Z".into(), warned_at: None }
    }

    /// FS-60.
    #[test]
    fn a_certificate_is_spoken_of_once_a_day_in_the_last_fifth_of_its_life_and_is_over_in_its_last_second() {
        let mut expiry = expiry();
        assert_eq!(expiry.look(1000 * DAY), Finding::Quiet);
        assert_eq!(expiry.look(1080 * DAY - 1), Finding::Quiet);
        assert_eq!(expiry.look(1080 * DAY), Finding::Soon(20 * DAY));
        assert_eq!(expiry.look(1081 * DAY - 1), Finding::Quiet);
        assert_eq!(expiry.look(1081 * DAY), Finding::Soon(19 * DAY));
        assert_eq!(expiry.look(1100 * DAY - 1), Finding::Soon(1));
        assert_eq!(expiry.look(1100 * DAY), Finding::Over);
        assert_eq!(expiry.look(1200 * DAY), Finding::Over);
        assert_eq!((expiry.left(1099 * DAY), expiry.left(1200 * DAY)), (DAY, 0));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_silence_it() {
        let mut expiry = expiry();
        assert_eq!(expiry.look(1095 * DAY), Finding::Soon(5 * DAY));
        assert_eq!(expiry.look(1090 * DAY), Finding::Soon(10 * DAY));
    }
}
