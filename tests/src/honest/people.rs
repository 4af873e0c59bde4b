//! Who they are: keys and certificates that all sessions share.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use pbs_nslp::credentials::{SignatureScheme, Signer, X509Authority, X509Signer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use traffic::algorithm::{PacketSigner, SignatureAlgorithm};

/// The flow's source.
pub(super) const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
/// Its destination.
pub(super) const DESTINATION: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

/// Both ends' keys, and whom every node trusts.
#[derive(Debug)]
pub(super) struct People {
    pub(super) sender: Arc<X509Signer>,
    pub(super) receiver: Arc<X509Signer>,
    pub(super) authority: Arc<X509Authority>,
}

impl People {
    pub(super) fn new() -> io::Result<Self> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(io::Error::other)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let anchor = Bytes::copy_from_slice(params.self_signed(&key).map_err(io::Error::other)?.der());
        let issuer = Issuer::new(params, key);
        let signer = |address: IpAddr| -> io::Result<Arc<X509Signer>> {
            let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(io::Error::other)?;
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::IpAddress(address)];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            let certificate = params.signed_by(&key, &issuer).map_err(io::Error::other)?;
            let certificate = Bytes::copy_from_slice(certificate.der());
            X509Signer::from_der(vec![certificate], &key.serialize_der()).map(Arc::new).map_err(io::Error::other)
        };
        let authority = X509Authority::new(std::slice::from_ref(&anchor)).map_err(io::Error::other)?;
        Ok(Self { sender: signer(SOURCE)?, receiver: signer(DESTINATION)?, authority: Arc::new(authority) })
    }
}

/// The sender's key, for its packets.
#[derive(Debug)]
pub(super) struct OwnKey(pub(super) Arc<X509Signer>);

impl PacketSigner for OwnKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.scheme() {
            SignatureScheme::EcdsaP256 => SignatureAlgorithm::EcdsaP256,
            _ => SignatureAlgorithm::Ed25519,
        }
    }

    fn public_key(&self) -> &[u8] {
        self.0.public_key()
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        self.0.sign(input).ok()
    }
}
