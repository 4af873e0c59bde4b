//! Wrong certificates, keys and trust anchors: each error names the file; none quotes key material. `check` finds them all.

use pbs_lab::process::Program::{self, Host, Router};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::support::files::Files;
use crate::support::{end, end_apart, with_config};

#[track_caller]
fn must_refuse(program: Program, files: &Files, file: &str, expected: &str) {
    let path = files.path(file);
    let said = format!("error: {}{expected}", path.display());
    for verb in ["check", "run"] {
        let ended = end_apart(&mut with_config(program, verb, files.path("node.toml")), verb == "run");
        ended.must_say(2, &[&said]);
        must_not_quote(files, &ended.complaint);
    }
    assert!(!files.path("node.sock").exists(), "nothing was started");
}

/// No ten characters of any line of a key file may appear.
#[track_caller]
fn must_not_quote(files: &Files, complaint: &str) {
    let key = std::fs::read_to_string(files.path("node.key")).unwrap_or_default();
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        let quoted = line.as_bytes().windows(10).find(|part| complaint.as_bytes().windows(10).any(|said| said == *part));
        assert_eq!(quoted, None, "{complaint}");
    }
}

#[test]
fn a_certificate_that_is_missing_or_no_certificate_is_refused() {
    let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    let not_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for program in [Router, Host] {
        let files = Files::of(program);
        for (content, expected) in [
            ("", ": holds no certificate"),
            ("hello\n", ": holds no certificate"),
            (&*files.read("node.key"), ": holds no certificate"),
            (broken, ": not a PEM file"),
            (not_x509, ": certificate 1 cannot be parsed"),
            (&*(files.read("node.crt") + not_x509), ": certificate 2 cannot be parsed"),
        ] {
            files.write("node.crt", content);
            must_refuse(program, &files, "node.crt", expected);
        }
        std::fs::remove_file(files.path("node.crt")).unwrap();
        must_refuse(program, &files, "node.crt", ": cannot be read: No such file");
    }
}

#[test]
fn a_certificate_outside_its_time_is_refused_with_the_time() {
    let validity = [(2001, 2002, " expired on 2002-01-01"), (4000, 4001, " is not valid before 4000-01-01")];
    for (from, to, expected) in validity {
        let mut parameters = CertificateParams::new(vec!["node.pbs.test".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(from, 1, 1);
        parameters.not_after = date_time_ymd(to, 1, 1);
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = parameters.self_signed(&key).unwrap().pem();
        for program in [Router, Host] {
            let files = Files::of(program);
            files.write("node.crt", &certificate);
            must_refuse(program, &files, "node.crt", ": certificate 1 (");
            files.write("node.key", key.serialize_pem());
            let ended = end(&mut with_config(program, "check", files.path("node.toml")));
            ended.must_say(2, &["node.crt: certificate 1 (", expected]);
            // An anchor outside its time makes every path through it worthless.
            let files = Files::of(program);
            files.write("ca.crt", &certificate);
            let ended = end(&mut with_config(program, "check", files.path("node.toml")));
            ended.must_say(2, &["ca.crt: certificate 1 (", expected]);
        }
    }
}

#[test]
fn a_key_that_is_missing_unusable_or_of_another_certificate_is_refused() {
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
    let other_kind = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let sec1 = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBGbv4xPSecretSecretSecret\n-----END EC PRIVATE KEY-----\n";
    let cut = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIFhqc2Rmamts\n-----END PRIVATE KEY-----\n";
    let together = |files: &Files, what: &str| format!(" with {}: {what}", files.path("node.key").display());
    for program in [Router, Host] {
        let files = Files::of(program);
        for content in ["", "hello, this is a secret\n", &*files.read("node.crt")] {
            files.write("node.key", content);
            must_refuse(program, &files, "node.key", ": holds no private key in PEM format");
        }
        files.write("node.key", sec1);
        must_refuse(program, &files, "node.key", ": the private key is not in PKCS#8 form");
        files.write("node.key", &other);
        must_refuse(program, &files, "node.crt", &together(&files, "the private key does not belong to the certificate"));
        files.write("node.key", &other_kind);
        must_refuse(program, &files, "node.crt", &together(&files, "private key: "));
        files.write("node.key", cut);
        must_refuse(program, &files, "node.crt", &together(&files, "private key: "));
        std::fs::remove_file(files.path("node.key")).unwrap();
        must_refuse(program, &files, "node.key", ": cannot be read: No such file");
    }
}

#[test]
fn trust_anchors_that_are_missing_or_no_authorities_are_refused() {
    for program in [Router, Host] {
        let files = Files::of(program);
        files.write("ca.crt", "");
        must_refuse(program, &files, "ca.crt", ": holds no certificate");
        files.write("ca.crt", files.read("node.crt"));
        must_refuse(program, &files, "ca.crt", ": trust anchor is not a CA certificate: CN=node");
        std::fs::remove_file(files.path("ca.crt")).unwrap();
        must_refuse(program, &files, "ca.crt", ": cannot be read: No such file");
    }
}
