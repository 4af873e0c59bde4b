//! Certificates that a neighbour shows in TLS and that must not be believed: the router ends the handshake, says why in its log, and
//! holds nothing. (A daemon itself does not start with most of them, so a client of the test shows them.)

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use daemon::clock::unix_seconds;
use gist::io::tls;
use pbs_lab::network::topology::{ROUTER_LEFT, SENDER};
use pbs_lab::pki::{Authority, KeyKind};
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa};
use rustls::{AlertDescription, ClientConnection};
use rustls_pki_types::{ServerName, UnixTime};

use crate::support::daemon::{Daemon, wait_until};
use crate::support::site::{ASSOCIATION_PORT, Site};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Shows the certificate `<name>.crt` of the site to the router. The alert by which the router ended the handshake, if it did.
fn show(site: &Site, directory: &Path, name: &str) -> Option<rustls::Error> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds()));
    // The client may show what is not valid now: only the router is to mind.
    let file = directory.join(format!("{name}.crt"));
    let certificate = [0, -10, 10].into_iter().find_map(|days| tls::read_certificates(&file, shifted(now, days)).ok());
    let key = tls::read_key(&directory.join(format!("{name}.key"))).unwrap();
    let anchors = tls::read_anchors(&site.files.path("ca.crt"), now).unwrap();
    let tls = tls::configs(certificate.unwrap(), key, anchors).unwrap();
    let remote = SocketAddr::new(ROUTER_LEFT, ASSOCIATION_PORT);
    let mut stream = site.chain.sender.run(|| TcpStream::connect(remote)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut connection = ClientConnection::new(tls.client, ServerName::IpAddress(ROUTER_LEFT.into())).unwrap();
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            return error.into_inner().and_then(|inner| inner.downcast::<rustls::Error>().ok()).map(|inner| *inner);
        }
    }
    // The client's part is over before the server has judged its certificate.
    let mut over = rustls::Stream::new(&mut connection, &mut stream);
    over.flush().unwrap();
    match over.read(&mut [0; 1]) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => Some(*error.into_inner().unwrap().downcast::<rustls::Error>().unwrap()),
        Ok(_) => panic!("the router closed without an alert"),
    }
}

fn shifted(time: UnixTime, days: i64) -> UnixTime {
    let seconds = time.as_secs().saturating_add_signed(days * 24 * 60 * 60);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// P-069, P-074, X-66, X-67, RFC 5971 §5.7.3.1.
#[test]
fn a_neighbours_certificate_that_must_not_be_believed_gets_no_association() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let directory = site.files.path("");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/certificates");
    let mut anchors = site.files.read("ca.crt");
    for name in ["sha-1", "rsa-1024", "control"] {
        anchors += &std::fs::read_to_string(fixtures.join(format!("{name}.ca.crt"))).unwrap();
    }
    site.files.write("ca.crt", anchors);
    let issue = |name: &str, change: &dyn Fn(&mut rcgen::CertificateParams)| {
        site.authority.issue_with(&directory, name, &[SENDER], KeyKind::Ed25519, |parameters| change(parameters)).unwrap();
    };
    let now = UNIX_EPOCH + Duration::from_secs(unix_seconds());
    issue("good", &|_| {});
    issue("expired", &|parameters| {
        parameters.not_before = (now - 20 * DAY).into();
        parameters.not_after = (now - DAY).into();
    });
    issue("not-yet-valid", &|parameters| {
        parameters.not_before = (now + DAY).into();
        parameters.not_after = (now + 20 * DAY).into();
    });
    issue("authority", &|parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    issue("server-only", &|parameters| parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    Authority::create("pbs-lab authority").unwrap().issue(&directory, "impostor", &[SENDER], KeyKind::Ed25519).unwrap();

    let router = site.start_router();
    for (from, name) in [(&*directory, "good"), (&*fixtures, "control")] {
        assert_eq!(show(&site, from, name), None, "{name}: what is refused below is refused for its own fault");
    }
    wait_until("the good ones are gone", || router.ask("gist")["associations"] == serde_json::json!([]));
    let cases: [(&Path, &str, AlertDescription, &str); 7] = [
        (&directory, "expired", AlertDescription::CertificateExpired, "certificate expired"),
        (&directory, "not-yet-valid", AlertDescription::CertificateExpired, "not valid yet"),
        (&directory, "authority", AlertDescription::CertificateUnknown, "CaUsedAsEndEntity"),
        (&directory, "server-only", AlertDescription::UnsupportedCertificate, "invalid peer certificate"),
        (&directory, "impostor", AlertDescription::DecryptError, "BadSignature"),
        (&fixtures, "sha-1", AlertDescription::DecryptError, "invalid peer certificate"),
        (&fixtures, "rsa-1024", AlertDescription::DecryptError, "invalid peer certificate"),
    ];
    for (from, name, alert, reason) in cases {
        must_refuse(&site, &router, (from, name), alert, reason);
    }
    assert_eq!(router.permissions(), [] as [serde_json::Value; 0]);
}

#[track_caller]
fn must_refuse(site: &Site, router: &Daemon, (from, name): (&Path, &str), expected: AlertDescription, reason: &str) {
    let (failed, said) = (router.gist("handshakes_failed"), router.log().len());
    match show(site, from, name) {
        Some(rustls::Error::AlertReceived(alert)) => assert_eq!(alert, expected, "{name}"),
        other => panic!("{name}: {other:?}"),
    }
    wait_until("the handshake has failed", || router.gist("handshakes_failed") > failed);
    let log = || router.log().get(said..).unwrap_or_default().to_owned();
    wait_until("the log says why", || log().contains("association refused"));
    assert!(log().contains(&SENDER.to_string()) && log().contains(reason), "{name}: {}", log());
    assert_eq!(router.ask("gist")["associations"], serde_json::json!([]), "{name}");
}
