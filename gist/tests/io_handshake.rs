//! Who gets as far as a messaging association: the listener's handshakes and limits, on real sockets.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod io_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gist::io::{Bind, Limits, ShellError, spawn};
use gist::wire::Direction;
use io_support::{ANSWERER, ASKER, Authority, Identity, Node, PORT, config, expired, in_own_network, message};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// G-245, G-239, G-240: the responding node is the TLS server; it asks for a certificate and takes none but those of its own
/// authority.
#[test]
fn a_client_without_a_good_certificate_is_refused_and_counted() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test");
        let foreign = Authority::new("theirs").issue(&PKCS_ED25519, &["asker.pbs.test"]);
        let old = authority.issue_with(&PKCS_ED25519, &["asker.pbs.test"], expired);
        let attempts =
            [("no certificate", None), ("a certificate of another authority", Some(foreign)), ("an expired certificate", Some(old))];
        for (count, (what, identity)) in (1..).zip(attempts) {
            let error = connect(client(&authority, identity)).await.expect_err(what);
            assert!(error.contains("alert"), "{what}: {error}");
            until(async || node.handle.snapshot().await.unwrap().shell.handshakes_failed == count).await;
        }
    });
}

#[test]
fn what_is_no_tls_at_all_is_refused() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test");
        let mut stream = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer.first(), Some(&21), "a TLS alert");
        drop(stream);
        until(async || node.handle.snapshot().await.unwrap().shell.handshakes_failed == 1).await;
    });
}

#[test]
fn a_handshake_that_is_not_finished_in_time_is_given_up() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start_with(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test", |config| {
            config.limits.handshake_timeout = Duration::from_millis(200);
        });
        let start = Instant::now();
        let mut stream = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        assert!(start.elapsed() >= Duration::from_millis(150));
        until(async || node.handle.snapshot().await.unwrap().shell.handshakes_failed == 1).await;
    });
}

#[test]
fn one_source_does_not_take_all_places() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start_with(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test", |config| {
            config.limits.handshakes_per_source = 3;
        });
        let mut idle = Vec::new();
        for _ in 0..3 {
            idle.push(TcpStream::connect((ANSWERER, PORT)).await.unwrap());
        }
        let mut one_more = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
        assert_eq!(one_more.read(&mut [0; 8]).await.unwrap_or(0), 0, "closed at once");
        assert_eq!(node.handle.snapshot().await.unwrap().shell.handshakes_refused, 1);
        // Another source still gets in.
        let identity = authority.issue(&PKCS_ECDSA_P256_SHA256, &["asker.pbs.test"]);
        let other = tokio::net::TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        let stream = other.connect(SocketAddr::from((ANSWERER, PORT))).await.unwrap();
        let connector = TlsConnector::from(client(&authority, Some(identity)));
        connector.connect(ServerName::IpAddress(ANSWERER.into()), stream).await.unwrap();
        // And so does this one when its places are free again.
        drop(idle);
        until(async || node.handle.snapshot().await.unwrap().shell.handshakes_failed == 3).await;
        let identity = authority.issue(&PKCS_ED25519, &["asker.pbs.test"]);
        TlsConnector::from(client(&authority, Some(identity)))
            .connect(ServerName::IpAddress(ANSWERER.into()), TcpStream::connect((ANSWERER, PORT)).await.unwrap())
            .await
            .unwrap();
    });
}

/// G-082, G-207: what an accepted peer may do to its own association without harm to others.
#[test]
fn a_peer_that_vanishes_or_talks_nonsense_loses_its_association() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test");
        let associations = async || node.handle.snapshot().await.unwrap().associations.len();
        // A header that announces more than follows, a wrong version, and nothing at all.
        for nonsense in [&[1, 9, 0, 9, 0, 0, 5, 0][..], &[9; 16], &[]] {
            let identity = authority.issue(&PKCS_ED25519, &["asker.pbs.test"]);
            let stream = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
            let connector = TlsConnector::from(client(&authority, Some(identity)));
            let mut stream = connector.connect(ServerName::IpAddress(ANSWERER.into()), stream).await.unwrap();
            until(async || associations().await == 1).await;
            stream.write_all(nonsense).await.unwrap();
            stream.flush().await.unwrap();
            // Neither a TLS nor an orderly TCP goodbye.
            socket2::SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
            drop(stream);
            until(async || associations().await == 0).await;
        }
        assert_eq!(node.handle.snapshot().await.unwrap().shell.handshakes_failed, 0);
    });
}

/// What of a stream is no message, and what never becomes one, each has its count: neither comes as far as the node's own counters.
#[test]
fn streams_that_cannot_be_read_and_messages_that_never_end_are_counted() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test");
        let counted = async || {
            let shell = node.handle.snapshot().await.unwrap().shell;
            (shell.streams_unreadable, shell.messages_unfinished)
        };
        let mut expected = (0, 0);
        // Another version, more than any message has, half a header, a header and nothing more, and nothing at all.
        for (octets, unreadable, unfinished) in [
            (&[9; 16][..], 1, 0),
            (&[1, 9, 0xff, 0xff, 0, 0, 5, 0], 1, 0),
            (&[1, 9, 0], 0, 1),
            (&[1, 9, 0, 9, 0, 0, 5, 0], 0, 1),
            (&[], 0, 0),
        ] {
            let identity = authority.issue(&PKCS_ED25519, &["asker.pbs.test"]);
            let stream = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
            let connector = TlsConnector::from(client(&authority, Some(identity)));
            let mut stream = connector.connect(ServerName::IpAddress(ANSWERER.into()), stream).await.unwrap();
            stream.write_all(octets).await.unwrap();
            stream.flush().await.unwrap();
            let _ = stream.shutdown().await;
            expected = (expected.0 + unreadable, expected.1 + unfinished);
            until(async || node.handle.snapshot().await.unwrap().associations.is_empty() && counted().await == expected).await;
        }
    });
}

#[test]
fn a_stopping_shell_says_goodbye_in_tls() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test");
        let identity = authority.issue(&PKCS_ED25519, &["asker.pbs.test"]);
        let stream = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
        let connector = TlsConnector::from(client(&authority, Some(identity)));
        let mut stream = connector.connect(ServerName::IpAddress(ANSWERER.into()), stream).await.unwrap();
        until(async || node.handle.snapshot().await.unwrap().associations.len() == 1).await;
        let mut buffer = [0; 8];
        let (end, ()) = tokio::join!(stream.read(&mut buffer), node.handle.stop());
        // Without close_notify this would be an error.
        assert_eq!(end.unwrap(), 0);
    });
}

#[test]
fn a_shell_that_cannot_start_says_what_and_where() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let tls = answerer(&authority).tls(&authority);
        let error = |change: fn(&mut gist::io::ShellConfig)| {
            let mut config = config(ANSWERER, tls.clone(), "*.pbs.test");
            change(&mut config);
            spawn(config).expect_err("it must not start")
        };
        assert!(matches!(error(|config| config.node.registrations[0].nslp_id = gist::wire::NslpId::NONE), ShellError::NoApplication));
        let nowhere = error(|config| config.bind.ipv4 = Some("192.0.2.1".parse().unwrap()));
        assert!(nowhere.to_string().starts_with("cannot bind UDP 192.0.2.1:270: "), "{nowhere}");
        assert!(nowhere.to_string().ends_with("(no interface has this address)"), "{nowhere}");
        assert!(matches!(error(|config| config.bind = Bind { ipv4: None, ipv6: None, ..Bind::default() }), ShellError::NoAddress));
        assert!(matches!(error(|config| config.node.association_port = 0), ShellError::NoAssociationPort));
        let _first = Node::start(ANSWERER, tls.clone(), "*.pbs.test");
        let taken = error(|_| {});
        assert!(taken.to_string().contains("127.0.0.3:270") && taken.to_string().ends_with("(another program uses it)"), "{taken}");
    });
}

#[test]
fn outside_of_a_runtime_no_shell_starts() {
    let authority = Authority::new("ours");
    let started = spawn(config(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test"));
    assert!(matches!(started, Err(ShellError::NoRuntime)));
}

#[test]
fn a_stopped_shell_says_so_and_frees_its_sockets() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let identity = answerer(&authority);
        let mut node = Node::start(ANSWERER, identity.tls(&authority), "*.pbs.test");
        node.handle.stop().await;
        assert!(node.handle.snapshot().await.is_err());
        assert_eq!(node.indications.recv().await, None);
        node.handle.stop().await;
        let again = Node::start(ANSWERER, identity.tls(&authority), "*.pbs.test");
        // Dropping either end stops it as well.
        drop(again.indications);
        until(async || again.handle.snapshot().await.is_err()).await;
    });
}

fn answerer(authority: &Authority) -> Identity {
    authority.issue(&PKCS_ED25519, &["answerer.pbs.test", "127.0.0.3"])
}

/// A client that trusts the authority and shows the identity, if any.
fn client(authority: &Authority, identity: Option<Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some(Identity { certificate, key }) => builder.with_client_auth_cert(vec![certificate], key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

/// Connects and waits for what the server says to the client's certificate, which in TLS 1.3 comes after the handshake.
async fn connect(config: Arc<ClientConfig>) -> Result<(), String> {
    let stream = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
    let mut stream =
        TlsConnector::from(config).connect(ServerName::IpAddress(ANSWERER.into()), stream).await.map_err(|error| error.to_string())?;
    stream.read(&mut [0; 8]).await.map(drop).map_err(|error| error.to_string())
}

async fn until(condition: impl AsyncFn() -> bool) {
    while !condition().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A TLS ClientHello: protocol versions, and what further extensions the caller gives.
fn client_hello(versions: &[u8], extensions: &[u8]) -> Vec<u8> {
    let with_length = |length: usize, bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[4 - length..], bytes].concat();
    let supported = [&[0, 43][..], &with_length(2, &with_length(1, versions))].concat();
    let groups = [&[0, 10][..], &with_length(2, &with_length(2, &[0, 0x1d]))].concat();
    let signatures = [&[0, 13][..], &with_length(2, &with_length(2, &[8, 7, 4, 3]))].concat();
    let all = [&supported[..], &groups, &signatures, extensions].concat();
    // TLS 1.2 in the old field, random, no session, two suites, no compression.
    let body = [&[3, 3][..], &[7; 32], &[0], &with_length(2, &[0x13, 0x01, 0xc0, 0x2b]), &[1, 0], &with_length(2, &all)].concat();
    let handshake = [&[1][..], &with_length(3, &body)].concat();
    [&[22, 3, 1][..], &with_length(2, &handshake)].concat()
}

/// The first record that the node answers with: its type, and of an alert the description.
async fn first_record(hello: &[u8]) -> (u8, Option<u8>) {
    let mut stream = TcpStream::connect((ANSWERER, PORT)).await.unwrap();
    stream.write_all(hello).await.unwrap();
    let mut record = [0; 7];
    stream.read_exact(&mut record).await.unwrap();
    (record[0], (record[0] == 21).then_some(record[6]))
}

/// G-238: neither SSL 3.0 nor TLS 1.0 or 1.1 is spoken, nor 1.2 in this profile; of several versions the highest is taken. G-246: a key known
/// beforehand (PSK), whose identity nobody would have compared with the list of peers, opens nothing.
#[test]
fn only_the_latest_tls_with_certificates_is_spoken() {
    in_own_network(|| async {
        const PROTOCOL_VERSION: u8 = 70;
        let authority = Authority::new("ours");
        let _node = Node::start(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test");
        for old in [&[3, 0][..], &[3, 1], &[3, 2], &[3, 3], &[3, 3, 3, 2, 3, 1]] {
            assert_eq!(first_record(&client_hello(old, &[])).await, (21, Some(PROTOCOL_VERSION)), "{old:?}");
        }
        let share = [&[0, 51, 0, 38, 0, 36, 0, 0x1d, 0, 32][..], &[9; 32]].concat();
        let (record, _) = first_record(&client_hello(&[3, 1, 3, 2, 3, 3, 3, 4], &share)).await;
        assert_eq!(record, 22, "a ServerHello");
        // The mode without a key exchange of its own, one identity of four octets, a binder.
        let modes = [0, 45, 0, 2, 1, 0];
        let identity = [&[0, 41, 0, 45, 0, 10, 0, 4][..], b"name", &[0, 0, 0, 0, 0, 33, 32], &[5; 32]].concat();
        let (record, _) = first_record(&client_hello(&[3, 4], &[&modes[..], &identity].concat())).await;
        assert_eq!(record, 21);
    });
}

/// G-223: the port of a Response is open before the Response is, and stays open: whoever connects at once gets in, and so does who connects later.
#[test]
fn the_port_announced_takes_connections_at_once_and_later() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let node = Node::start(ANSWERER, answerer(&authority).tls(&authority), "*.pbs.test");
        for wait in [0, 0, 300] {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let identity = authority.issue(&PKCS_ED25519, &["asker.pbs.test"]);
            let stream = TcpStream::connect((ANSWERER, PORT)).await.expect("the port takes connections");
            let connector = TlsConnector::from(client(&authority, Some(identity)));
            connector.connect(ServerName::IpAddress(ANSWERER.into()), stream).await.unwrap();
        }
        assert_eq!(node.handle.snapshot().await.unwrap().shell.handshakes_failed, 0);
    });
}

/// Strangers who connect and say nothing, from many addresses and again and again, keep nobody out.
#[test]
fn silent_connections_from_many_addresses_keep_nobody_out() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let tls = |name: &str, address: &str| authority.issue(&PKCS_ED25519, &[name, address]).tls(&authority);
        let mut answerer = Node::start(ANSWERER, tls("answerer.pbs.test", "127.0.0.3"), "*.pbs.test");
        let asker = Node::start(ASKER, tls("asker.pbs.test", "127.0.0.2"), "*.pbs.test");
        let places = usize::from(12_u8) * 8;
        assert!(places > Limits::default().handshakes);
        for source in (1..=12_u8).cycle().take(12 * 12) {
            tokio::spawn(async move {
                loop {
                    let socket = TcpSocket::new_v4().unwrap();
                    socket.bind(SocketAddr::from(([127, 0, 1, source], 0))).unwrap();
                    if let Ok(mut stream) = socket.connect(SocketAddr::new(ANSWERER, PORT)).await {
                        // Until the other end has enough.
                        let _ = stream.read(&mut [0; 8]).await;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        until(async || answerer.handle.snapshot().await.unwrap().shell.handshakes_displaced > 0).await;
        let start = Instant::now();
        asker.send(message(Direction::Downstream, b"ask.", 1)).await;
        assert_eq!(answerer.received().await.payload, "ask.");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}

/// [`gist::api::Principal`]: SHA-256 of the SubjectPublicKeyInfo of the peer's certificate.
#[test]
fn the_principal_of_a_peer_is_the_hash_of_its_key() {
    let authority = Authority::new("ours");
    let identity = answerer(&authority);
    let credentials = gist::io::tls::peer_credentials(Some(std::slice::from_ref(&identity.certificate))).unwrap();
    let key = rcgen::KeyPair::try_from(&identity.key).unwrap();
    let expected = ring::digest::digest(&ring::digest::SHA256, &rcgen::PublicKeyData::subject_public_key_info(&key));
    assert_eq!(credentials.key_hash, expected.as_ref());
}
