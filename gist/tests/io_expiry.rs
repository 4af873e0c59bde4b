//! Certificates that run out while an association is open, over real TLS (RFC 5971 §5.7.3.1, G-245).

#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::disallowed_methods, reason = "the test makes certificates that end soon")]

mod io_support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gist::api::{Indication, NetworkEvent};
use gist::io::tls::{credentials_at, peer_credentials};
use gist::wire::Direction;
use io_support::{ANSWERER, ASKER, Authority, Identity, Node, in_own_network, message};
use rcgen::PKCS_ED25519;
use rustls_pki_types::UnixTime;

fn valid_until(authority: &Authority, names: &[&str], end: SystemTime) -> Identity {
    authority.issue_with(&PKCS_ED25519, names, |params| params.not_after = end.into())
}

/// The earliest end of all that counts; what has ended already is no part of the path that TLS took.
#[test]
fn credentials_say_how_long_they_last() {
    let authority = Authority::new("ends");
    let now = SystemTime::now();
    let at = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap());
    let [short, long, gone] = [60, 600, 0]
        .map(|seconds| valid_until(&authority, &["a.pbs.test"], now + Duration::from_secs(seconds) - Duration::from_secs(5)).certificate);
    let left = |chain: &[_]| credentials_at(Some(chain), at).unwrap().valid_for.map(|span| span.as_secs());
    assert_eq!(left(std::slice::from_ref(&short)), Some(56), "the last second counts");
    assert_eq!(left(&[long.clone(), short.clone()]), Some(56));
    assert_eq!(left(&[long, gone]), Some(596));
    assert_eq!(peer_credentials(Some(&[short])).unwrap().valid_for, None);
}

/// Association rule 4.4.2 (to_CertificateEnd): who saw the certificate ends it and says why; nothing is delivered afterwards.
#[test]
fn an_association_ends_with_the_certificate_that_opened_it() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let end = SystemTime::now() + Duration::from_secs(3);
        let asker = valid_until(&authority, &["asker.pbs.test", "127.0.0.2"], end).tls(&authority);
        let answerer = authority.issue(&PKCS_ED25519, &["answerer.pbs.test", "127.0.0.3"]).tls(&authority);
        let mut asker = Node::start(ASKER, asker, "*.pbs.test");
        let mut answerer = Node::start(ANSWERER, answerer, "*.pbs.test");
        asker.send(message(Direction::Downstream, b"in time.", 1)).await;
        assert_eq!(&answerer.received().await.payload[..], b"in time.");
        let Indication::NetworkNotification { event, former, peer, .. } = answerer.indication().await else { panic!() };
        assert_eq!((event, former.is_some(), peer), (NetworkEvent::NotAuthorised, true, None));
        assert!(SystemTime::now() >= end);
        let Indication::NetworkNotification { event, .. } = asker.indication().await else { panic!() };
        assert_eq!(event, NetworkEvent::AssociationLost);
        asker.send(message(Direction::Downstream, b"too late", 2)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(answerer.indications.try_recv().is_err());
        assert!(answerer.handle.snapshot().await.unwrap().associations.is_empty());
    });
}
