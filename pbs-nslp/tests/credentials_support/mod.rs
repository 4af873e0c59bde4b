//! A small public-key infrastructure for tests. Everything is valid from 2026 to 2027.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::IpAddr;

use bytes::Bytes;
use pbs_nslp::credentials::{X509Authority, X509Signer};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SignatureAlgorithm, date_time_ymd,
};

/// The middle of 2026.
pub fn now() -> u64 {
    unix(2026, 7)
}

/// The first second of a month.
pub fn unix(year: i32, month: u8) -> u64 {
    date_time_ymd(year, month, 1).unix_timestamp().try_into().unwrap()
}

/// A certification authority.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: Bytes,
}

impl Ca {
    /// A self-signed one.
    pub fn new(name: &str) -> Self {
        let (parameters, key) = (ca_parameters(name), ed25519());
        let certificate = parameters.self_signed(&key).unwrap().der().to_vec().into();
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// One that this one certifies.
    pub fn subordinate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let (mut parameters, key) = (ca_parameters(name), ed25519());
        change(&mut parameters);
        let certificate = self.certify(&parameters, &key);
        Self { issuer: Issuer::new(parameters, key), certificate }
    }

    /// Certifies any key with any parameters.
    pub fn certify(&self, parameters: &CertificateParams, key: &impl PublicKeyData) -> Bytes {
        parameters.signed_by(key, &self.issuer).unwrap().der().to_vec().into()
    }

    /// A host's signer with an Ed25519 key.
    pub fn host(&self, address: &str) -> X509Signer {
        self.host_with(address, &rcgen::PKCS_ED25519)
    }

    /// A host's signer.
    pub fn host_with(&self, address: &str, algorithm: &'static SignatureAlgorithm) -> X509Signer {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = self.certify(&host_parameters(address), &key);
        X509Signer::from_der(vec![certificate], &key.serialize_der()).unwrap()
    }

    /// An authority that trusts this one.
    pub fn authority(&self) -> X509Authority {
        X509Authority::new(std::slice::from_ref(&self.certificate)).unwrap()
    }

    /// A list of revoked serial numbers, current in the first half of 2026.
    pub fn revocation_list(&self, serials: &[u64]) -> Bytes {
        let revoked = serials.iter().map(|serial| rcgen::RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = rcgen::CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2026, 8, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec().into()
    }
}

pub fn ed25519() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

/// A host certificate's parameters: its address, signatures only, client authentication.
pub fn host_parameters(address: &str) -> CertificateParams {
    let mut parameters = parameters("host");
    parameters.subject_alt_names = vec![SanType::IpAddress(ip(address))];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ca_parameters(name: &str) -> CertificateParams {
    let mut parameters = parameters(name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.not_before = date_time_ymd(2026, 1, 1);
    parameters.not_after = date_time_ymd(2027, 1, 1);
    parameters
}

/// A public key of any type that the certificates of these tests state without ever using it.
pub struct StatedKey {
    pub key: Vec<u8>,
    pub algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for StatedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}
