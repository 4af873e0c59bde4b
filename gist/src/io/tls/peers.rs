//! The verifiers of peers, whose revocation lists may change while associations stand (RFC 5280 §5).

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use tokio::sync::watch;

use super::TlsError;

/// Verifies peers against the anchors, and the revocation lists of this moment. Associations that stand are looked at again when the
/// lists change.
#[derive(Debug)]
pub struct Peers {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
    verifiers: RwLock<Verifiers>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Clone)]
struct Verifiers {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl Verifiers {
    fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, TlsError> {
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .with_crls(lists.clone())
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration()
            .build()?;
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .with_crls(lists)
            .allow_unknown_revocation_status()
            .enforce_revocation_expiration()
            .build()?;
        Ok(Self { clients, servers })
    }
}

impl Peers {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, TlsError> {
        let verifiers = RwLock::new(Verifiers::new(&roots, &provider, lists)?);
        let hints = roots.subjects();
        Ok(Self { roots, provider, hints, verifiers, changed: watch::Sender::new(()) })
    }

    /// Takes other revocation lists instead of those of before. Associations whose peers they name end.
    ///
    /// # Errors
    ///
    /// A list cannot be used; those of before hold on.
    pub fn set_revocation_lists(&self, lists: Vec<CertificateRevocationListDer<'static>>) -> Result<(), TlsError> {
        let verifiers = Verifiers::new(&self.roots, &self.provider, lists)?;
        *self.verifiers.write().unwrap_or_else(PoisonError::into_inner) = verifiers;
        self.look_again();
        Ok(())
    }

    /// Has the peers of all associations verified anew, as when a list has gone out of date.
    pub fn look_again(&self) {
        self.changed.send_replace(());
    }

    /// Waits until peers are to be verified anew.
    pub(in crate::io) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Verifies a peer that has shown these certificates; with a name it is the server.
    pub(in crate::io) fn verify(&self, shown: &[CertificateDer<'_>], server: Option<&ServerName<'_>>, now: UnixTime) -> Result<(), Error> {
        let (own, issuers) = shown.split_first().ok_or(Error::NoCertificatesPresented)?;
        let verifiers = self.verifiers();
        match server {
            Some(name) => verifiers.servers.verify_server_cert(own, issuers, name, &[], now).map(drop),
            None => verifiers.clients.verify_client_cert(own, issuers, now).map(drop),
        }
    }

    fn verifiers(&self) -> Verifiers {
        self.verifiers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a peer signs is verified in one way, whichever end it is.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            crypto::verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifiers().clients.verify_client_cert(own, issuers, now)
    }

    signatures!();
}

impl ServerCertVerifier for Peers {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifiers().servers.verify_server_cert(own, issuers, name, ocsp, now)
    }

    signatures!();
}
