//! A small certificate authority for the laboratory. The certificates are real and live one day.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
};

/// Kind of a node's key, which fixes how it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// RSASSA-PSS with SHA-256 and 2048 bits: always the same key, which protects nothing.
    Rsa2048,
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with a key of its own.
    pub fn create(name: &str) -> io::Result<Self> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(parameters, key).map_err(io::Error::other)?;
        Ok(Self { issuer })
    }

    /// The authority's certificate as PEM.
    pub fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// A list of revoked serial numbers as PEM, to be replaced at `until`.
    pub fn revocation_list(&self, serials: &[u64], until: SystemTime) -> io::Result<String> {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: SystemTime::UNIX_EPOCH.into(),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: (until - Duration::from_secs(2 * 24 * 3600)).into(),
            next_update: until.into(),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(io::Error::other)
    }

    /// Issues a certificate for a node and writes `<node>.crt` and `<node>.key` into `directory`.
    pub fn issue(&self, directory: &Path, node: &str, addresses: &[IpAddr], kind: KeyKind) -> io::Result<()> {
        self.issue_with(directory, node, addresses, kind, |_| {})
    }

    /// The same with an Ed25519 key, for a certificate that lives a minute and ends at `end`.
    pub fn issue_until(&self, directory: &Path, node: &str, addresses: &[IpAddr], end: SystemTime) -> io::Result<()> {
        self.issue_with(directory, node, addresses, KeyKind::Ed25519, |parameters| {
            parameters.not_before = (end - Duration::from_secs(60)).into();
            parameters.not_after = end.into();
        })
    }

    /// The same as [`Self::issue`] with a certificate that is changed before it is signed.
    pub fn issue_with(
        &self,
        directory: &Path,
        node: &str,
        addresses: &[IpAddr],
        kind: KeyKind,
        change: impl FnOnce(&mut CertificateParams),
    ) -> io::Result<()> {
        let mut parameters = CertificateParams::new(vec![format!("{node}.pbs.test")]).map_err(io::Error::other)?;
        parameters.distinguished_name.push(DnType::CommonName, node);
        parameters.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut parameters);
        let key = match kind {
            KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
            KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::Rsa2048 => KeyPair::from_pkcs8_pem_and_sign_algo(include_str!("keys/rsa-2048.pem"), &rcgen::PKCS_RSA_SHA256),
        };
        let key = key.map_err(io::Error::other)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        std::fs::write(directory.join(format!("{node}.crt")), certificate.pem())?;
        std::fs::write(directory.join(format!("{node}.key")), key.serialize_pem())
    }
}
