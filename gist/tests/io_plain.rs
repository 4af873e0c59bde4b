//! Messaging associations over TCP alone, on real sockets: for applications that offer that, and for no other.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod io_support;

use std::net::IpAddr;
use std::time::Duration;

use gist::api::{Indication, MessageHandle, NetworkEvent, SendError, SendMessage, TransferAttributes, Transport};
use gist::io::ShellConfig;
use gist::node::Registration;
use gist::wire::{Direction, NslpId, Profile};
use io_support::{ANSWERER, ASKER, Authority, NSLP, Node, ROUTER_ALERT, in_own_network, message};
use rcgen::PKCS_ED25519;

const PLAIN_PORT: u16 = 30271;

/// G-233, G-235: Forwards-TCP without TLS, between applications that offer it; both ends are told that nobody is authenticated.
#[test]
fn messages_travel_over_tcp_alone_where_both_ends_offer_that() {
    in_own_network(|| async {
        let (mut asker, mut answerer) = plain_nodes();
        asker.send(unprotected(Direction::Downstream, b"hello...", 1)).await;
        let received = answerer.received().await;
        assert_eq!(&received.payload[..], b"hello...");
        assert!(!received.authenticated && received.association.is_some(), "{received:?}");
        assert_eq!(received.reception.transport, Transport::Tcp);
        answerer.send(unprotected(Direction::Upstream, b"answer..", 2)).await;
        let answer = asker.received().await;
        assert_eq!((&answer.payload[..], answer.reception.transport, answer.authenticated), (&b"answer.."[..], Transport::Tcp, false));
        let associations = asker.handle.snapshot().await.unwrap().associations;
        assert_eq!(associations.iter().map(|entry| (entry.transport, entry.opened_here)).collect::<Vec<_>>(), [(Transport::Tcp, true)]);
    });
}

/// P-006, G-051, G-225: what is to go to authenticated peers only does not go over TCP alone, whatever stands already.
#[test]
fn a_message_that_demands_protection_does_not_travel_over_tcp_alone() {
    in_own_network(|| async {
        let (mut asker, mut answerer) = plain_nodes();
        asker.send(unprotected(Direction::Downstream, b"hello...", 1)).await;
        answerer.received().await;
        asker.send(message(Direction::Downstream, b"secret..", 7)).await;
        match asker.indication().await {
            Indication::MessageStatus { handle, error: SendError::AssociationFailed(_), .. } => assert_eq!(handle, MessageHandle(7)),
            other => panic!("{other:?}"),
        }
        answerer.send(message(Direction::Upstream, b"secret..", 8)).await;
        match answerer.indication().await {
            Indication::MessageStatus { handle, error: SendError::AssociationFailed(_), .. } => assert_eq!(handle, MessageHandle(8)),
            other => panic!("{other:?}"),
        }
    });
}

/// G-343: an application that demands TLS is not reached over TCP alone, although the same node takes that for another.
#[test]
fn an_application_that_demands_tls_is_not_reached_over_tcp_alone() {
    const OPEN: NslpId = NslpId(32705);
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let identity = |name: &str, address: IpAddr| {
            authority.issue(&PKCS_ED25519, &[&format!("{name}.pbs.test"), &address.to_string()]).tls(&authority)
        };
        let mut answerer = Node::start_with(ANSWERER, identity("answerer", ANSWERER), "*.pbs.test", |config| {
            let open = Registration { offer: vec![Profile::tcp()], ..Registration::secure(OPEN, Some(ROUTER_ALERT)) };
            config.node.registrations.push(open);
            config.node.plain_association_port = PLAIN_PORT;
        });
        // Its asker offers TCP alone for both.
        let asker = Node::start_with(ASKER, identity("asker", ASKER), "*.pbs.test", |config| {
            for nslp_id in [NSLP, OPEN] {
                let open = Registration { offer: vec![Profile::tcp()], ..Registration::secure(nslp_id, Some(ROUTER_ALERT)) };
                config.node.registrations.retain(|registration| registration.nslp_id != nslp_id);
                config.node.registrations.push(open);
            }
            config.node.plain_association_port = PLAIN_PORT;
        });
        asker.send(SendMessage { nslp_id: OPEN, ..unprotected(Direction::Downstream, b"open....", 1) }).await;
        assert_eq!(answerer.received().await.nslp_id, OPEN);
        let timeout = Some(Duration::from_millis(600));
        asker.send(SendMessage { timeout, ..unprotected(Direction::Downstream, b"closed..", 2) }).await;
        let mut asker = asker;
        assert!(matches!(asker.indication().await, Indication::MessageStatus { handle: MessageHandle(2), .. }));
        let delivered = answerer.handle.snapshot().await.unwrap().counters.messages_delivered;
        assert_eq!(delivered, 1, "only the one of the open application");
    });
}

/// G-051, G-225: one application takes both. What may go to anybody goes as its offer prefers; what may not goes over TLS, and the flow stays there.
#[test]
fn an_application_takes_tls_and_tcp_alone() {
    in_own_network(|| async {
        let (mut asker, mut answerer) = mixed_nodes(|_| {});
        asker.send(unprotected(Direction::Downstream, b"anybody.", 1)).await;
        let received = answerer.received().await;
        assert_eq!((received.reception.transport, received.authenticated), (Transport::Tcp, false));
        asker.send(message(Direction::Downstream, b"friends.", 2)).await;
        let told = answerer.indication().await;
        assert!(matches!(told, Indication::NetworkNotification { event: NetworkEvent::PeerChanged, authenticated: true, .. }), "{told:?}");
        let received = answerer.received().await;
        assert_eq!((&received.payload[..], received.reception.transport, received.authenticated), (&b"friends."[..], Transport::Tls, true));
        answerer.send(message(Direction::Upstream, b"answer..", 3)).await;
        let answer = asker.received().await;
        assert_eq!((&answer.payload[..], answer.reception.transport, answer.authenticated), (&b"answer.."[..], Transport::Tls, true));
    });
}

/// Whoever connects over TCP alone takes no place from who comes over TLS: as many as there are, from as many addresses as they have.
#[test]
fn a_crowd_over_tcp_alone_does_not_keep_tls_out() {
    in_own_network(|| async {
        let (asker, mut answerer) = mixed_nodes(|config| config.node.caps.associations = 32);
        let mut crowd = Vec::new();
        for number in 1..=60 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(std::net::SocketAddr::from(([127, 0, 9, number], 0))).unwrap();
            crowd.push(socket.connect(std::net::SocketAddr::new(ANSWERER, PLAIN_PORT)).await.unwrap());
        }
        let plain = async || {
            let associations = answerer.handle.snapshot().await.unwrap().associations;
            associations.iter().filter(|entry| entry.transport == Transport::Tcp).count()
        };
        while plain().await < 8 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        asker.send(message(Direction::Downstream, b"friends.", 1)).await;
        assert_eq!(plain().await, 8, "a quarter of the table");
        let received = answerer.received().await;
        assert_eq!((received.reception.transport, received.authenticated), (Transport::Tls, true));
    });
}

/// Both with certificates, and the offer of both lists TCP alone first.
fn mixed_nodes(change: impl Fn(&mut ShellConfig)) -> (Node, Node) {
    let authority = Authority::new("ours");
    let node = |name: &str, address: IpAddr| {
        let identity = authority.issue(&PKCS_ED25519, &[&format!("{name}.pbs.test"), &address.to_string()]).tls(&authority);
        Node::start_with(address, identity, "*.pbs.test", |config| {
            config.node.registrations[0].offer = vec![Profile::tcp(), Profile::tls_over_tcp()];
            config.node.plain_association_port = PLAIN_PORT;
            change(config);
        })
    };
    (node("asker", ASKER), node("answerer", ANSWERER))
}

/// G-009, G-010: while an application takes nothing, messages that come as datagrams are thrown away and counted; the next one after that arrives.
#[test]
fn datagrams_for_an_application_that_takes_nothing_are_thrown_away_and_counted() {
    in_own_network(|| async {
        let authority = Authority::new("nobody's");
        let tls = authority.issue(&PKCS_ED25519, &["unused.pbs.test"]).tls(&authority);
        let node = |address| {
            Node::start_with(address, tls.clone(), "unused.pbs.test", |config| {
                config.tls = None;
                config.limits.indications = 4;
                config.node.registrations = vec![Registration { offer: Vec::new(), ..Registration::secure(NSLP, Some(ROUTER_ALERT)) }];
            })
        };
        let (asker, mut answerer) = (node(ASKER), node(ANSWERER));
        let open = |payload: &'static [u8]| SendMessage {
            attributes: TransferAttributes::default(),
            ..message(Direction::Downstream, payload, 1)
        };
        asker.send(open(b"first...")).await;
        assert_eq!(&answerer.received().await.payload[..], b"first...");
        let mut dropped = 0;
        while dropped < 10 {
            asker.send(open(b"too fast")).await;
            dropped = answerer.handle.snapshot().await.unwrap().shell.indications_dropped;
        }
        for _ in 0..4 {
            assert_eq!(&answerer.received().await.payload[..], b"too fast");
        }
        loop {
            asker.send(open(b"and last")).await;
            if &answerer.received().await.payload[..] == b"and last" {
                break;
            }
        }
    });
}

fn plain_nodes() -> (Node, Node) {
    let authority = Authority::new("nobody's");
    let tls = authority.issue(&PKCS_ED25519, &["unused.pbs.test"]).tls(&authority);
    let node = |address| {
        Node::start_with(address, tls.clone(), "unused.pbs.test", |config| {
            config.tls = None;
            config.node.plain_association_port = PLAIN_PORT;
            config.node.registrations =
                vec![Registration { offer: vec![Profile::tcp()], ..Registration::secure(NSLP, Some(ROUTER_ALERT)) }];
        })
    };
    (node(ASKER), node(ANSWERER))
}

fn unprotected(direction: Direction, payload: &[u8], handle: u64) -> SendMessage {
    SendMessage { attributes: TransferAttributes { reliable: true, secure: false }, ..message(direction, payload, handle) }
}
