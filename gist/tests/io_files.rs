//! Certificates and keys from files, and what a certificate says about its owner.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod io_support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gist::io::TlsError;
use gist::io::tls::{CredentialsError, configs, peer_credentials, read_anchors, read_certificates, read_key};
use io_support::{Authority, Identity, expired};
use rcgen::{DnType, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls_pki_types::{CertificateDer, UnixTime};

#[test]
fn good_files_give_a_configuration_for_ed25519_and_p_256() {
    let authority = Authority::new("good");
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P256_SHA256] {
        let identity = authority.issue(algorithm, &["router.pbs.test", "192.0.2.1"]);
        let certificate = file("good.crt", &pem("CERTIFICATE", &identity.certificate));
        let key = file("good.key", &pem("PRIVATE KEY", identity.key.secret_der()));
        let anchors = file("ca.crt", &pem("CERTIFICATE", &authority.certificate()));
        let chain = read_certificates(&certificate, now()).unwrap();
        let tls = configs(chain, read_key(&key).unwrap(), read_anchors(&anchors, now()).unwrap()).unwrap();
        assert_eq!(format!("{tls:?}"), "Tls { .. }");
    }
}

#[test]
fn an_error_names_the_file_and_what_is_wrong_in_it() {
    let authority = Authority::new("errors");
    let old = authority.issue_with(&PKCS_ED25519, &["old.pbs.test"], expired);
    let good = authority.issue(&PKCS_ED25519, &["new.pbs.test"]);
    let both = format!("{}{}", pem("CERTIFICATE", &good.certificate), pem("CERTIFICATE", &old.certificate));
    let cases = [
        ("expired.crt", both, "expired.crt: certificate 2 (CN=old.pbs.test) expired on 2002-01-01"),
        ("garbage.crt", pem("CERTIFICATE", b"no certificate"), "garbage.crt: certificate 1 cannot be parsed"),
        ("broken.crt", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".to_owned(), "broken.crt: not a PEM file"),
        ("cut.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "cut.crt: not a PEM file"),
        ("empty.crt", String::new(), "empty.crt: holds no certificate"),
        ("key.crt", pem("PRIVATE KEY", good.key.secret_der()), "key.crt: holds no certificate"),
    ];
    for (name, content, expected) in cases {
        let error = read_certificates(&file(name, &content), now()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} instead of {expected}");
    }
    let error = read_certificates(&file("early.crt", &pem("CERTIFICATE", &good.certificate)), UnixTime::since_unix_epoch(Duration::ZERO));
    assert!(matches!(error, Err(TlsError::NotYetValid { position: 1, .. })), "{error:?}");
    let error = read_certificates(Path::new("/nonexistent/router.crt"), now()).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/router.crt: cannot be read"), "{error}");
}

#[test]
fn an_error_about_a_key_file_says_nothing_of_its_content() {
    let secret = "MC4CAQAwBQYDK2VwBCIEIFhqc2Rmamts";
    for content in [format!("-----BEGIN PRIVATE KEY---{secret}\n"), format!("-----BEGIN PRIVATE KEY-----\n{secret}!\n"), secret.to_owned()]
    {
        let path = file("broken.key", &content);
        let error = read_key(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: holds no private key in PEM format", path.display()));
        assert!(!format!("{error:?}").contains(secret));
    }
    assert!(matches!(read_key(Path::new("/nonexistent/router.key")), Err(TlsError::Unreadable { .. })));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let authority = Authority::new("mixed");
    let one = authority.issue(&PKCS_ED25519, &["one.pbs.test"]);
    let other = authority.issue(&PKCS_ED25519, &["other.pbs.test"]);
    let mixed = configs(vec![one.certificate], other.key, vec![authority.certificate()]);
    assert!(matches!(mixed, Err(TlsError::CertificateAndKey(_))), "{mixed:?}");
}

#[test]
fn without_anchors_nobody_could_be_trusted_and_nothing_is_configured() {
    let Identity { certificate, key } = Authority::new("lonely").issue(&PKCS_ED25519, &["one.pbs.test"]);
    assert!(matches!(configs(vec![certificate], key, Vec::new()), Err(TlsError::NoAnchor)));
}

/// G-242: the Common Name counts only where no dNSName exists.
#[test]
fn credentials_are_the_names_of_the_certificate() {
    let authority = Authority::new("names");
    let named = authority.issue(&PKCS_ED25519, &["a.pbs.test", "*.b.pbs.test", "192.0.2.1", "2001:db8::1"]);
    let credentials = peer_credentials(Some(&[named.certificate])).unwrap();
    assert_eq!(credentials.dns_names, ["a.pbs.test", "*.b.pbs.test"]);
    assert_eq!(credentials.addresses, ["192.0.2.1".parse::<std::net::IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    assert_eq!(credentials.subject, "CN=a.pbs.test");

    let common_name_only = authority.issue_with(&PKCS_ED25519, &["192.0.2.1"], |params| {
        params.distinguished_name.push(DnType::CommonName, "c.pbs.test");
    });
    assert_eq!(peer_credentials(Some(&[common_name_only.certificate])).unwrap().dns_names, ["c.pbs.test"]);
}

#[test]
fn credentials_need_a_certificate_that_can_be_read() {
    assert_eq!(peer_credentials(None), Err(CredentialsError::NoCertificate));
    let garbage = CertificateDer::from(vec![1, 2, 3]);
    assert!(matches!(peer_credentials(Some(&[garbage])), Err(CredentialsError::Unparsable(_))));
    let names: Vec<_> = (0..65).map(|number| format!("n{number}.pbs.test")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let many = Authority::new("many").issue(&PKCS_ED25519, &names);
    assert_eq!(peer_credentials(Some(&[many.certificate])), Err(CredentialsError::TooManyNames(65)));
}

fn now() -> UnixTime {
    UnixTime::now()
}

fn file(name: &str, content: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("io-files-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    // Tests run side by side, and some use the same name.
    let path = directory.join(format!("{:?}-{name}", std::thread::current().id()).replace(['(', ')'], "-"));
    std::fs::write(&path, content).unwrap();
    path
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in base64(der).as_bytes().chunks(64) {
        text += std::str::from_utf8(line).unwrap();
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = u32::from_be_bytes([0, chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)]);
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}
