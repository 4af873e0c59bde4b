//! Channel security of messaging associations: TLS 1.3 with X.509 on both sides (RFC 5971 §5.7.3).
//!
//! The querying node is the client, the responding node the server (G-239). Both must show a certificate
//! that leads to one of the configured anchors; who the peer then is, the node compares with its authorised
//! peer database. There is no resumption, so every association checks certificates and their dates anew.

mod credentials;
mod files;
mod peers;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

pub use credentials::{CredentialsError, credentials_at, peer_credentials};
pub use files::{read_anchors, read_certificates, read_key, read_revocation_lists};
pub use peers::Peers;

/// Both sides' TLS configuration. Its `Debug` shows nothing, least of all the key.
#[derive(Clone)]
pub struct Tls {
    /// For associations that peers open.
    pub server: Arc<ServerConfig>,
    /// For associations opened here.
    pub client: Arc<ClientConfig>,
    /// Verifies the peers of both.
    pub peers: Arc<Peers>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What is wrong with certificates, key or anchors. No variant holds any part of a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file that should hold certificates is not in PEM format.
    #[error("{}: not a PEM file: {reason}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What the reader stumbled over.
        reason: String,
    },
    /// A file holds no certificate.
    #[error("{}: holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate of a file is not X.509.
    #[error("{}: certificate {position} cannot be parsed: {reason}", path.display())]
    Unparsable {
        /// The file.
        path: PathBuf,
        /// Which certificate of the file, from 1.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate is not valid any more.
    #[error("{}: certificate {position} ({subject}) expired on {not_after}", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Which certificate of the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
        /// The last moment of its validity.
        not_after: String,
    },
    /// A certificate is not valid yet.
    #[error("{}: certificate {position} ({subject}) is not valid before {not_before}", path.display())]
    NotYetValid {
        /// The file.
        path: PathBuf,
        /// Which certificate of the file, from 1.
        position: usize,
        /// Its subject.
        subject: String,
        /// The first moment of its validity.
        not_before: String,
    },
    /// A file holds no revocation list in PEM format.
    #[error("{}: holds no revocation list", path.display())]
    NoRevocationList {
        /// The file.
        path: PathBuf,
    },
    /// A revocation list cannot be used.
    #[error("{}: revocation list {position} {reason}", path.display())]
    RevocationList {
        /// The file.
        path: PathBuf,
        /// Which list of the file, from 1.
        position: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds no private key in PEM format.
    #[error("{}: holds no private key in PEM format", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A trust anchor cannot be used.
    #[error("trust anchor {position}: {reason}")]
    Anchor {
        /// Which of the anchors given, from 1.
        position: usize,
        /// What is wrong with it.
        reason: rustls::Error,
    },
    /// No trust anchor was given: nobody could be authenticated.
    #[error("no trust anchor")]
    NoAnchor,
    /// The verifier of client certificates cannot be made.
    #[error("trust anchors: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key cannot be used, or do not belong together.
    #[error("certificate and private key: {0}")]
    CertificateAndKey(rustls::Error),
    /// The provider has no TLS 1.3.
    #[error("TLS 1.3: {0}")]
    Version(rustls::Error),
}

/// Makes both configurations: one identity, shown to everybody, and the anchors that peers are checked against.
///
/// `certificate_chain` starts with the own certificate, intermediates follow, the anchor is left out.
pub fn configs(
    certificate_chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    anchors: Vec<CertificateDer<'static>>,
) -> Result<Tls, TlsError> {
    configs_with_revocation(certificate_chain, key, anchors, Vec::new())
}

/// The same, and peers whose certificates these lists name are refused. An issuer without a list is not asked for one.
pub fn configs_with_revocation(
    certificate_chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    anchors: Vec<CertificateDer<'static>>,
    revocation_lists: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Tls, TlsError> {
    let provider = Arc::new(provider());
    let roots = Arc::new(root_store(anchors)?);
    let peers = Arc::new(Peers::new(roots, Arc::clone(&provider), revocation_lists)?);
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Version)?
        .with_client_cert_verifier(peers.clone())
        .with_single_cert(certificate_chain.clone(), key.clone_key())
        .map_err(TlsError::CertificateAndKey)?;
    server.send_tls13_tickets = 0;
    server.session_storage = Arc::new(NoServerSessionStorage {});
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(VERSIONS)
        .map_err(TlsError::Version)?
        // No other checks than the default, but against lists that may change.
        .dangerous()
        .with_custom_certificate_verifier(peers.clone())
        .with_client_auth_cert(certificate_chain, key)
        .map_err(TlsError::CertificateAndKey)?;
    client.resumption = Resumption::disabled();
    Ok(Tls { server: Arc::new(server), client: Arc::new(client), peers })
}

fn root_store(anchors: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (index, anchor) in anchors.into_iter().enumerate() {
        roots.add(anchor).map_err(|reason| TlsError::Anchor { position: index + 1, reason })?;
    }
    if roots.is_empty() { Err(TlsError::NoAnchor) } else { Ok(roots) }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// TLS 1.3 alone: both ends are this implementation's peers, so the highest common version is the only one (G-238).
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
