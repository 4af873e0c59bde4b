//! Wrong certificates, keys and trust anchors: each error names the file; none quotes key material. `check` finds them all. A
//! certificate that ends ends its daemon, and keys stay in the daemon's memory.

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::clock::unix_seconds;

use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{RECEIVER, SENDER, SENDER6};
use pbs_lab::pki::KeyKind;
use pbs_lab::process::Program::{self, Host, Router};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd};

use crate::support::capability::{self, Capability};
use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::Files;
use crate::support::site::Site;
use crate::support::{end, end_apart, has_rules, with_config};

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

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds())
}

/// X-66, P-073.
#[test]
fn revocation_lists_that_cannot_be_used_are_refused_and_a_good_one_is_taken() {
    for program in [Router, Host] {
        let files = Files::of(program);
        let configuration = files.read("node.toml");
        files.write("node.toml", configuration.replace("trust_anchors", "revocation_lists = [\"ca.crl\"]\ntrust_anchors"));
        must_refuse(program, &files, "ca.crl", ": cannot be read: No such file");
        files.write("ca.crl", "hello\n");
        must_refuse(program, &files, "ca.crl", ": holds no revocation list");
        files.write("ca.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
        must_refuse(program, &files, "ca.crl", ": revocation list 1 cannot be parsed");
        let authority = files.authority();
        authority.issue(&files.path(""), "node", &[SENDER], KeyKind::Ed25519).unwrap();
        let hour = Duration::from_secs(3600);
        files.write("ca.crl", authority.revocation_list(&[7], now() - hour).unwrap());
        must_refuse(program, &files, "ca.crl", ": revocation list 1 is out of date since ");
        files.write("ca.crl", authority.revocation_list(&[7], now() + hour).unwrap());
        end(&mut with_config(program, "check", files.path("node.toml"))).must_say(0, &[]);
    }
}

/// X-66, P-073: whose certificate is on the list is no neighbour any more.
#[test]
fn a_host_whose_certificate_is_revoked_gets_no_association_and_no_permission() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let serial = |number: u64| move |parameters: &mut CertificateParams| parameters.serial_number = Some(number.into());
    site.authority.issue_with(&site.files.path(""), "sender", &[SENDER, SENDER6], KeyKind::Ed25519, serial(7)).unwrap();
    let until = now() + Duration::from_secs(3600);
    site.files.write("ca.crl", site.authority.revocation_list(&[7], until).unwrap());
    let configuration = site.files.read("router.toml");
    site.files.write("router.toml", configuration.replace("trust_anchors", "revocation_lists = [\"ca.crl\"]\ntrust_anchors"));
    let (_receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let application = site.application(RECEIVER);
    for _ in 0..10 {
        application.send();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!application.arrives(Duration::from_secs(1)));
    assert_eq!(router.ask("status")["sessions"], 0);
    drop((sender, router));
    site.files.write("ca.crl", site.authority.revocation_list(&[8], until).unwrap());
    let (_router, _sender) = (site.start_router(), site.start_sender());
    let arrived = (0..100).any(|_| {
        application.send();
        application.arrives(Duration::from_millis(100))
    });
    assert!(arrived, "another one's revocation is nobody else's");
}

/// what nobody would believe is found here, and what is missing is named with who needs it.
#[test]
fn a_certificate_that_nobody_would_believe_is_refused_with_what_it_needs() {
    type Change = fn(&mut CertificateParams);
    let cases: [(Change, &str); 7] = [
        (|parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), "is that of an authority (CA:TRUE)"),
        (|parameters| parameters.key_usages = vec![KeyUsagePurpose::KeyAgreement], "has a key usage without digitalSignature"),
        (|parameters| parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], "without clientAuth"),
        (|parameters| parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth], "without serverAuth"),
        (|parameters| parameters.subject_alt_names.retain(|name| matches!(name, SanType::DnsName(_))), "names no iPAddress"),
        (|parameters| parameters.subject_alt_names.clear(), "names no iPAddress"),
        (|parameters| parameters.subject_alt_names.retain(|name| matches!(name, SanType::IpAddress(_))), "has no dNSName"),
    ];
    for program in [Router, Host] {
        let files = Files::of(program);
        let authority = files.authority();
        for (change, expected) in cases {
            authority.issue_with(&files.path(""), "node", &[SENDER], KeyKind::Ed25519, change).unwrap();
            must_refuse(program, &files, "node.crt", ": certificate 1 (CN=node), the node's own by identity.certificate, ");
            end(&mut with_config(program, "check", files.path("node.toml"))).must_say(2, &[expected]);
        }
        // A list by address needs no names, and a common name counts where there is no dNSName.
        let unnamed: Change = |parameters| parameters.subject_alt_names.retain(|name| matches!(name, SanType::IpAddress(_)));
        let common_name: Change = |parameters| {
            parameters.subject_alt_names.retain(|name| matches!(name, SanType::IpAddress(_)));
            parameters.distinguished_name.push(DnType::CommonName, "node.pbs.test");
        };
        authority.issue_with(&files.path(""), "node", &[SENDER], KeyKind::Ed25519, common_name).unwrap();
        end(&mut with_config(program, "check", files.path("node.toml"))).must_say(0, &[]);
        authority.issue_with(&files.path(""), "node", &[SENDER], KeyKind::Ed25519, unnamed).unwrap();
        let by_address =
            |line: &str| if line.starts_with("dns_name") { "address = \"192.168.0.0/16\"".to_owned() } else { line.to_owned() };
        let text: Vec<String> = files.read("node.toml").lines().map(by_address).collect();
        files.write("node.toml", text.join("\n"));
        end(&mut with_config(program, "check", files.path("node.toml"))).must_say(0, &[]);
    }
}

/// FS-60: what a node may say no longer it does not hold any longer. The rules stay.
#[test]
#[allow(clippy::disallowed_methods, reason = "the certificate ends soon, by the clock on the wall")]
fn a_daemon_ends_with_its_certificate_after_it_has_given_its_sessions_back() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let ends = UNIX_EPOCH + Duration::from_secs(unix_seconds() + 9);
    site.authority.issue_until(&site.files.path(""), "sender", &[SENDER, SENDER6], ends).unwrap();
    let (receiver, router) = (site.start_receiver(), site.start_router());
    let sender = site.start_sender();
    let application = site.application(RECEIVER);
    wait_until("a datagram arrives", || {
        application.send();
        application.arrives(Duration::from_millis(50))
    });
    assert_eq!(router.permissions().len(), 1);
    sender.wait_for_log(&["WARN", "sender.crt", "the certificate ends soon"]);
    let log = site.files.path("sender.log");
    let status = sender.wait();
    assert!(SystemTime::now() >= ends, "not before its time");
    assert_eq!(status.code(), Some(2));
    let log = std::fs::read_to_string(log).unwrap();
    let told = |words: &[&str]| log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
    assert_eq!(told(&["ERROR", "sender.crt", "the certificate ended on 20", "the filter rules stay"]), 1, "{log}");
    assert_eq!(told(&["WARN", "the certificate ends soon"]), 1, "once a day: {log}");
    assert!(has_rules(&site.chain.sender), "fail closed");
    wait_until("the router has heard of the end", || router.permissions().is_empty());
    wait_until("the receiver has heard of the end", || receiver.permissions().is_empty());
    // What was held before the grant has arrived with it.
    while application.arrives(Duration::from_millis(100)) {}
    application.send();
    assert!(!application.arrives(Duration::from_millis(300)));
}

/// not in core dumps, nor for other processes to read.
#[test]
fn what_a_daemon_has_in_memory_is_in_no_core_dump_and_for_no_other_process() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        let work = || {
            // Whoever may look at any process may look at this one too. From here on nobody may, the daemon neither.
            capability::withhold(Capability::Trace)?;
            let daemon = Daemon::start(&host, program, &files, "node");
            let other = Command::new("sleep").arg("60").spawn()?;
            let opens = |process: u32| {
                let mut open = Command::new("sh");
                open.args(["-c", &format!(": < /proc/{process}/mem")]).stderr(Stdio::null()).status().map(|status| status.success())
            };
            let pid = u32::try_from(daemon.pid().as_raw()).map_err(std::io::Error::other)?;
            let seen = (opens(other.id())?, opens(pid)?);
            let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
            let mut other = other;
            other.kill()?;
            other.wait()?;
            Ok((seen, limits))
        };
        let (seen, limits) = host.run(work).unwrap();
        assert_eq!(seen, (true, false), "another process of the same user, and the daemon");
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    }
}
