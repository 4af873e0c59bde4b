//! Signatures of every scheme, keys in PEM, key material, and the cache of verified certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod credentials_support;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use credentials_support::*;
use pbs_nslp::credentials::{
    Authority, BadSignature, CertificateCache, CertificateError, CertificatePath, SignatureScheme, Signer, VerifiedKey, X509Authority,
    X509Signer,
};
use pbs_nslp::wire::{SharedKey, SymmetricAlgorithm};
use rcgen::KeyPair;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

const HOST: &str = "192.0.2.1";
const MESSAGE: &[u8] = b"permission to send";

/// P-085, P-088, X-19: Ed25519 and P-256, signed with the private key and verified with that of the certificate; each key only in its own scheme.
#[test]
fn each_key_type_has_one_scheme() {
    let ca = Ca::new("ca");
    let authority = ca.authority();
    for (algorithm, scheme) in
        [(&rcgen::PKCS_ED25519, SignatureScheme::Ed25519), (&rcgen::PKCS_ECDSA_P256_SHA256, SignatureScheme::EcdsaP256)]
    {
        let host = ca.host_with(HOST, algorithm);
        let key = authority.verify_certificate(host.certificate(), &[], ip(HOST), now()).unwrap();
        assert_eq!(key.scheme, scheme);
        let signature = host.sign(MESSAGE).unwrap();
        assert_eq!(signature.len(), 64, "r and s in fixed length, not DER");
        assert_eq!(authority.verify_signature(&key, MESSAGE, &signature), Ok(()));
        for other in [SignatureScheme::Ed25519, SignatureScheme::EcdsaP256, SignatureScheme::EcdsaP384, SignatureScheme::RsaPss] {
            let key = VerifiedKey { scheme: other, ..key.clone() };
            assert_eq!(authority.verify_signature(&key, MESSAGE, &signature).is_ok(), other == scheme);
        }
    }
}

/// P-384 signatures of others, as r followed by s.
#[test]
fn p384_signatures_verify() {
    let ca = Ca::new("ca");
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = ca.certify(&host_parameters(HOST), &pair);
    let key = ca.authority().verify_certificate(&certificate, &[], ip(HOST), now()).unwrap();
    assert_eq!(key.scheme, SignatureScheme::EcdsaP384);
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &pair.serialize_der(), &random).unwrap();
    let signature = pair.sign(&random, MESSAGE).unwrap();
    assert_eq!(ca.authority().verify_signature(&key, MESSAGE, signature.as_ref()), Ok(()));
    assert_eq!(ca.authority().verify_signature(&key, b"else", signature.as_ref()), Err(BadSignature));
}

/// an RSASSA-PSS signature made elsewhere verifies; one whose salt is not 32 bytes does not.
#[test]
fn rsa_signatures_have_a_salt_of_32_bytes() {
    let ca = Ca::new("ca");
    let stated = StatedKey { key: hex::decode(RSA_KEY).unwrap(), algorithm: &rcgen::PKCS_RSA_SHA256 };
    let certificate = ca.certify(&host_parameters(HOST), &stated);
    let key = ca.authority().verify_certificate(&certificate, &[], ip(HOST), now()).unwrap();
    assert_eq!(key.scheme, SignatureScheme::RsaPss);
    let verify = |message: &[u8], signature: &str| ca.authority().verify_signature(&key, message, &hex::decode(signature).unwrap());
    assert_eq!(verify(MESSAGE, RSA_SIGNATURE_SALT_32), Ok(()));
    assert_eq!(verify(b"else", RSA_SIGNATURE_SALT_32), Err(BadSignature));
    assert_eq!(verify(MESSAGE, RSA_SIGNATURE_SALT_20), Err(BadSignature));
}

/// P-083, P-085, P-088, X-70: an RSA key signs messages and packets by RSASSA-PSS, each time with another salt.
#[test]
fn rsa_keys_sign_what_others_verify() {
    let ca = Ca::new("ca");
    let pair = KeyPair::from_pkcs8_pem_and_sign_algo(RSA_PRIVATE_KEY, &rcgen::PKCS_RSA_SHA256).unwrap();
    let certificate = ca.certify(&host_parameters(HOST), &pair);
    let host = X509Signer::from_der(vec![certificate.clone()], &pair.serialize_der()).unwrap();
    let key = ca.authority().verify_certificate(&certificate, &[], ip(HOST), now()).unwrap();
    assert_eq!((host.scheme(), key.scheme, host.signature_length()), (SignatureScheme::RsaPss, SignatureScheme::RsaPss, 256));
    assert_eq!(host.public_key(), &key.public_key[..]);
    let (one, other) = (host.sign(MESSAGE).unwrap(), host.sign(MESSAGE).unwrap());
    assert_ne!(one, other);
    for signature in [one, other] {
        assert_eq!(signature.len(), 256);
        assert_eq!(ca.authority().verify_signature(&key, MESSAGE, &signature), Ok(()));
        assert_eq!(ca.authority().verify_signature(&key, b"else", &signature), Err(BadSignature));
    }
    let foreign = ca.certify(&host_parameters(HOST), &StatedKey { key: hex::decode(RSA_KEY).unwrap(), algorithm: &rcgen::PKCS_RSA_SHA256 });
    assert!(X509Signer::from_der(vec![foreign], &pair.serialize_der()).is_err(), "the key of another certificate");
}

/// PEM as operators have it: certificates leaf first, PKCS#8 key, anything else refused.
#[test]
fn signers_are_read_from_pem() {
    let ca = Ca::new("ca");
    let key = ed25519();
    let certificate = ca.certify(&host_parameters(HOST), &key);
    let certificates = [&certificate, &ca.certificate].map(|certificate| pem("CERTIFICATE", certificate)).concat();
    let signer = X509Signer::from_pem(certificates.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    assert_eq!((signer.certificate(), signer.chain()), (&certificate, &[ca.certificate.clone()][..]));

    let error = |certificates: &str, key: &str| X509Signer::from_pem(certificates.as_bytes(), key.as_bytes()).unwrap_err().to_string();
    assert_eq!(error("", &key.serialize_pem()), "no certificate");
    assert!(error(&certificates, "").starts_with("PEM: "));
    assert!(error(&certificates, &certificates).starts_with("PEM: "));
    assert!(error(&certificates.replace("-----END", "----END"), &key.serialize_pem()).starts_with("PEM: "));
}

/// The identity of a signer is its key: it stays when the certificate is renewed.
#[test]
fn renewed_certificates_have_the_same_key_hash() {
    let ca = Ca::new("ca");
    let key = ed25519();
    let hash = |key: &KeyPair| {
        let certificate = ca.certify(&host_parameters(HOST), key);
        ca.authority().verify_certificate(&certificate, &[], ip(HOST), now()).unwrap().key_hash
    };
    assert_eq!(hash(&key), hash(&key));
    assert_ne!(hash(&key), hash(&ed25519()));
    let expected = ring::digest::digest(&ring::digest::SHA256, &rcgen::PublicKeyData::subject_public_key_info(&key));
    assert_eq!(hash(&key), expected.as_ref());
}

/// P-095, X-16: keys of the algorithm's length only, compared as a whole, never printed.
#[test]
fn shared_keys_keep_their_secret() {
    let key = |first: u8| SharedKey::new(SymmetricAlgorithm::HmacSha256, [&[first][..], &[7; 31]].concat()).unwrap();
    assert_eq!(format!("{:?}", key(1)), "SharedKey(redacted)");
    assert_eq!((key(1) == key(1), key(1) == key(2)), (true, false));
    assert_eq!(key(1).expose().len(), 32);
    for length in [0, 16, 20, 31, 33] {
        let error = SharedKey::new(SymmetricAlgorithm::HmacSha256, vec![0; length]).unwrap_err();
        assert_eq!(error.to_string(), format!("a key of {length} bytes does not fit HmacSha256"));
    }
}

/// a path is validated once, for each address, until its earliest end.
#[test]
fn certificates_are_validated_once_while_they_hold() {
    let ca = Ca::new("ca");
    let authority = Counting::new(ca.authority());
    let host = ca.host(HOST);
    let mut cache = CertificateCache::new(10);
    let mut check = |address: &str, time| cache.verify(&authority, host.certificate(), &[], ip(address), time).map(|_| ());
    for time in [now(), now() + 1, unix(2027, 1)] {
        assert_eq!(check(HOST, time), Ok(()));
    }
    assert_eq!(authority.asked(), 1);
    assert_eq!(check("192.0.2.2", now()), Err(CertificateError::AddressBinding(ip("192.0.2.2"))), "another address");
    assert_eq!(check("192.0.2.2", now() + 10), Err(CertificateError::AddressBinding(ip("192.0.2.2"))), "known for a moment");
    assert_eq!(authority.asked(), 2);
    assert_eq!(check("192.0.2.2", now() + 11), Err(CertificateError::AddressBinding(ip("192.0.2.2"))), "then asked anew");
    assert_eq!(authority.asked(), 3);
    assert_eq!(check(HOST, unix(2027, 1) + 1), Err(CertificateError::Expired));
    assert_eq!(authority.asked(), 4);
    assert!(cache.is_empty());
}

/// the cache has a bound; the certificate that ends first makes room.
#[test]
fn full_cache_forgets_what_ends_first() {
    let ca = Ca::new("ca");
    let authority = Counting::new(ca.authority());
    let certificate = |month: u8| {
        let mut parameters = host_parameters(HOST);
        parameters.not_after = rcgen::date_time_ymd(2026, month, 1);
        ca.certify(&parameters, &ed25519())
    };
    let certificates = [9, 11, 10, 12].map(certificate);
    let mut cache = CertificateCache::new(2);
    for certificate in &certificates {
        cache.verify(&authority, certificate, &[], ip(HOST), now()).unwrap();
        assert!(cache.len() <= 2);
    }
    let known = |cache: &mut CertificateCache, certificate: &Bytes| {
        let before = authority.asked();
        cache.clone().verify(&authority, certificate, &[], ip(HOST), now()).unwrap();
        authority.asked() == before
    };
    assert_eq!(certificates.each_ref().map(|certificate| known(&mut cache, certificate)), [false, true, false, true]);
    cache.clear();
    assert_eq!((cache.len(), known(&mut cache, &certificates[3])), (0, false));

    let mut nothing = CertificateCache::new(0);
    nothing.verify(&authority, &certificates[3], &[], ip(HOST), now()).unwrap();
    assert!(nothing.is_empty());
}

/// Counts how often certificates are really verified.
#[derive(Debug)]
struct Counting {
    authority: X509Authority,
    asked: AtomicU32,
}

impl Counting {
    fn new(authority: X509Authority) -> Self {
        Self { authority, asked: AtomicU32::new(0) }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Authority for Counting {
    fn verify_certificate(&self, certificate: &[u8], chain: &[Bytes], address: IpAddr, now: u64) -> Result<VerifiedKey, CertificateError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.authority.verify_certificate(certificate, chain, address, now)
    }

    fn still_believes(&self, path: &CertificatePath, now: u64) -> Result<(), CertificateError> {
        self.authority.still_believes(path, now)
    }

    fn verify_signature(&self, key: &VerifiedKey, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.authority.verify_signature(key, message, signature)
    }
}

/// PEM (RFC 7468) around DER.
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, three) in der.chunks(3).enumerate() {
        if index % 16 == 0 {
            text.push('\n');
        }
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            text.push(if place <= three.len() { char::from(ALPHABET[bits >> (18 - 6 * place) & 63]) } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----{text}\n-----END {label}-----\n")
}

/// An RSAPublicKey of 2048 bits whose private half nobody kept.
const RSA_KEY: &str = "\
     3082010a028201010089c7cf2e184e457d61ae675349d4647c15a3feb723e18676753cee2ad51b206055785f8a2473b42558675dfd910d1892c908d6e435839d\
     6bbacd015ca6b2058077983dce8a1ec23914dac416fb4fc2171ee457ab744c9117e31bee2e229e821b0e380932622271deb146fe9bb169e4cb92e883ec00c5a4\
     e2bf6bc17c66e18726fe7fe1bc1c8ecc981dcd8de6455b29c242b97a23885c8a91adea96e9f6d728a0212aeb9f446f2b15313e29e9f087fc6db45afac2e600e0\
     bdff214434e13474d49c3f09d40e2a5e805c4d2c9cb3c0fb044d36224ac6f8d9afc46eede1698acd77664c69a27bf91ffee178de70c9d59e7c75181ed55005b8\
     5ee3563d006861dcbf0203010001";

/// RSASSA-PSS with SHA-256 over [`MESSAGE`].
const RSA_SIGNATURE_SALT_32: &str = "\
     5ea5de5cb3a231d693e89e7edda0858572defb0c7249fac343eaaf3545fad953eba971a7e9ae7f2dfaf5620ca3e5a21d8b2872d905aee4dcd7e81c99bc1696d6\
     b68c4e44851abf90304279bc49d45aff6c4b20d70f25e22218eae09166e7bdb909babba95eeaf6f00c05f473a44654dbf9fceadb9a377c741e204ec0b368360e\
     e1800b8b217cf25885c18e775ebb8227fc5cfe23880518ecb18d2fadb9d266833d01941388bda07976020ffa0bb09155364711d9896342479d763c7ada6cc614\
     1079d52d33b09df5caf1202b02fe2cfd000c3b6d248b792fa1698ac247dc89b7e6a9d89ca6384740d873cd1b87d51ecb9650d456016ea34b6f111ff7aeb544cd";

/// The same with a shorter salt.
const RSA_SIGNATURE_SALT_20: &str = "\
     557050966da5e832e5551c355c1b0bb82d5518c2db39aefe67d0775a1ca4baae132dc0be0dfcec7145afebd7041ba33c2c85e6e64e2f146cac720b97d91caeaf\
     78fa3db73c74b0f15dd2cc4438b24b6cce92512bf65966cebab97af0391552538af6c7e56be413d06a5ef64442cf9977f4dfe11830842bb1e95aef4dea47a284\
     e40b86416243eb38c22dab80fcf4779a14699b5aa57c28b11aeaccd49f46573bbaddba23e4c93b08b2232c54e075769727905d4c76b11d13f025811f4a831619\
     ba2816a63573b6a9d1e2c847d78cd8090df87cf2ebca632991fc0341247d8ebaf4415a02601b7cbf591b1dba2b4a0421bb02fc8b1dea461084732021f93bbd5a";

/// Made for tests; it protects nothing.
const RSA_PRIVATE_KEY: &str = include_str!("../../tests/src/keys/rsa-2048.pem");
