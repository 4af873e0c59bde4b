//! Two nodes with real sockets and real TLS, in a network of their own.
#![cfg(feature = "io")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod io_support;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use gist::api::{Indication, MessageHandle, NetworkEvent, SendError, SendMessage};
use gist::io::{RequestError, intercepted};
use gist::node::{ApdEntry, IdentityPattern, PeerRole, Role};
use gist::wire::Direction;
use io_support::{
    ANSWERER, ANSWERER_6, ASKER, ASKER_6, Authority, Node, ROUTER_ALERT, expired, identity_of, in_own_network, message, message_of,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use socket2::{Domain, Protocol, Socket, Type};

/// G-233, G-237, G-344: query, Response, TLS, Confirm, Data; then Data back over the same association.
#[test]
fn a_message_crosses_and_is_answered_over_the_same_association() {
    in_own_network(|| async {
        for algorithms in [[&PKCS_ED25519, &PKCS_ED25519], [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519]] {
            let (mut asker, mut answerer) = pair(algorithms);
            asker.send(message(Direction::Downstream, b"may I sd", 1)).await;
            let asked = answerer.received().await;
            assert_eq!(&asked.payload[..], b"may I sd");
            assert!(asked.authenticated);
            assert!(asked.association.is_some());
            assert_eq!(asked.peer, identity_of(ASKER));
            assert_eq!(asked.mri.direction(), Direction::Downstream);

            answerer.send(message(Direction::Upstream, b"you may.", 2)).await;
            let answered = asker.received().await;
            assert_eq!(&answered.payload[..], b"you may.");
            assert!(answered.authenticated);
            assert_eq!(answered.mri.direction(), Direction::Upstream);

            let snapshot = asker.handle.snapshot().await.unwrap();
            assert_eq!(snapshot.associations.len(), 1);
            assert_eq!(snapshot.associations[0].subject, "CN=answerer.pbs.test");
            assert_eq!(snapshot.routing.len(), 1);
            assert_eq!(snapshot.shell.send_errors + snapshot.shell.query_mode_errors, 0);
            // The association leaves from the address that the shell is bound to.
            assert_eq!(answerer.handle.snapshot().await.unwrap().associations[0].remote.ip(), ASKER);
            asker.handle.stop().await;
            answerer.handle.stop().await;
        }
    });
}

/// G-099, G-097: the database is changed while the node runs: who is taken off it loses what it has, and who is put on it gets it.
#[test]
fn the_database_of_peers_can_be_changed_while_the_node_runs() {
    in_own_network(|| async {
        let (mut asker, mut answerer) = pair([&PKCS_ED25519, &PKCS_ED25519]);
        asker.send(message(Direction::Downstream, b"may I sd", 1)).await;
        answerer.received().await;
        let allowed = vec![ApdEntry { pattern: IdentityPattern::DnsName("*.pbs.test".to_owned()), role: PeerRole::Host, allow: true }];
        answerer.handle.set_authorised_peers(Vec::new()).await.unwrap();
        let told = answerer.indication().await;
        assert!(matches!(told, Indication::NetworkNotification { event: NetworkEvent::NotAuthorised, .. }));
        let told = asker.indication().await;
        assert!(matches!(told, Indication::NetworkNotification { event: NetworkEvent::AssociationLost, .. }));
        assert!(answerer.handle.snapshot().await.unwrap().associations.is_empty());
        answerer.handle.set_authorised_peers(allowed).await.unwrap();
        asker.send(message(Direction::Downstream, b"and now?", 2)).await;
        assert_eq!(&answerer.received().await.payload[..], b"and now?");
    });
}

/// The same in IPv6: a raw socket with hop-by-hop options, and everything after it.
#[test]
fn a_message_crosses_in_ipv6() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let mut asker = Node::start(ASKER_6, identity(&authority, "asker", ASKER_6), "*.pbs.test");
        let mut answerer = Node::start(ANSWERER_6, identity(&authority, "answerer", ANSWERER_6), "*.pbs.test");
        let flow = (ASKER_6, ANSWERER_6);
        asker.send(message_of(flow, Direction::Downstream, b"may I sd", 1)).await;
        assert_eq!(&answerer.received().await.payload[..], b"may I sd");
        answerer.send(message_of(flow, Direction::Upstream, b"you may.", 2)).await;
        assert_eq!(&asker.received().await.payload[..], b"you may.");
        for node in [asker, answerer] {
            let shell = node.handle.snapshot().await.unwrap().shell;
            assert_eq!(shell.send_errors + shell.query_mode_errors, 0);
        }
    });
}

/// G-173, G-176, G-166, G-182, on what the kernel really sent.
#[test]
fn the_query_on_the_wire_has_router_alert_df_and_a_right_checksum() {
    in_own_network(|| async {
        let wire = wire();
        let (asker, mut answerer) = pair([&PKCS_ED25519, &PKCS_ED25519]);
        asker.send(message(Direction::Downstream, b"may I sd", 1)).await;
        answerer.received().await;
        let packet = query(wire);
        assert_eq!(packet[0], 0x46, "one word of options");
        assert_eq!(packet[6..8], [0x40, 0], "do not fragment");
        assert_eq!(packet[12..20], [127, 0, 0, 2, 127, 0, 0, 3]);
        let [high, low] = ROUTER_ALERT.to_be_bytes();
        assert_eq!(packet[20..24], [0x94, 4, high, low]);
        assert_eq!(packet[24..28], [1, 14, 1, 14], "port 270 to port 270");
        assert_eq!(one_complement_sum(&packet[..24]), 0xffff);
        let length = u16::try_from(packet.len() - 24).unwrap().to_be_bytes();
        let pseudo_header = [&packet[12..20], &[0, 17], &length].concat();
        assert_ne!(packet[30..32], [0, 0]);
        assert_eq!(one_complement_sum(&[&pseudo_header, &packet[24..]].concat()), 0xffff);
    });
}

/// G-029: a router on the path takes the Query although it is addressed to somebody else.
#[test]
fn an_intercepted_query_makes_the_interceptor_the_peer() {
    in_own_network(|| async {
        let wire = wire();
        let authority = Authority::new("ours");
        let asker = Node::start_with(ASKER, identity(&authority, "asker", ASKER), "router.pbs.test", |config| {
            config.node.authorised_peers[0].role = PeerRole::Router;
        });
        let mut router = Node::start_with(ANSWERER, identity(&authority, "router", ANSWERER), "*.pbs.test", |config| {
            config.node.role = Role::Router;
        });
        let beyond = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 4));
        asker.send(message_of((ASKER, beyond), Direction::Downstream, b"may I sd", 1)).await;
        let packet = tokio::task::spawn_blocking(|| query(wire)).await.unwrap();
        let taken = intercepted(&packet, 1).unwrap();
        assert_eq!(taken.datagram.destination, beyond);
        assert!(router.handle.intercepted(taken.datagram));
        assert_eq!(&router.received().await.payload[..], b"may I sd");
        assert_eq!(router.handle.snapshot().await.unwrap().shell.intercepted, 1);
    });
}

/// G-082, G-095: a good certificate of somebody who is not on the list.
#[test]
fn a_peer_that_is_not_authorised_gets_and_gives_no_message() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let mut asker = Node::start(ASKER, identity(&authority, "asker", ASKER), "*.pbs.test");
        let mut answerer = Node::start(ANSWERER, identity(&authority, "answerer", ANSWERER), "somebody.else.test");
        let mut request = message(Direction::Downstream, b"may I sd", 1);
        request.timeout = Some(Duration::from_secs(3));
        asker.send(request).await;
        // The answerer closes without a word, so what the asker hears is not certain; that it hears something is.
        asker.indication().await;
        let snapshot = answerer.handle.snapshot().await.unwrap();
        assert!(snapshot.counters.not_authorised >= 1);
        assert_eq!(snapshot.counters.messages_delivered, 0);
        assert!(answerer.indications.try_recv().is_err());
    });
}

#[test]
fn an_answerer_that_is_not_authorised_gets_no_message() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let mut asker = Node::start(ASKER, identity(&authority, "asker", ASKER), "somebody.else.test");
        let answerer = Node::start(ANSWERER, identity(&authority, "answerer", ANSWERER), "*.pbs.test");
        asker.send(hasty()).await;
        let mut told = Vec::new();
        while told.len() < 2 {
            told.push(asker.indication().await);
        }
        let is_status = |indication: &Indication| matches!(indication, Indication::MessageStatus { error: SendError::NotAuthorised, .. });
        assert!(told.iter().any(is_status), "{told:?}");
        assert_eq!(answerer.handle.snapshot().await.unwrap().counters.messages_delivered, 0);
    });
}

/// G-245: §5.7.3.1: the certificate must belong to the address connected to.
#[test]
fn a_certificate_for_another_address_another_authority_or_another_time_is_refused() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        let foreign = Authority::new("theirs");
        let elsewhere = authority.issue(&PKCS_ED25519, &["answerer.pbs.test", "127.0.0.77"]).tls(&authority);
        let strange = foreign.issue(&PKCS_ED25519, &["answerer.pbs.test", "127.0.0.3"]).tls(&foreign);
        let old = authority.issue_with(&PKCS_ED25519, &["answerer.pbs.test", "127.0.0.3"], expired).tls(&authority);
        for (tls, expected) in [(elsewhere, "127.0.0.77"), (strange, "UnknownIssuer"), (old, "expired")] {
            let mut asker = Node::start(ASKER, identity(&authority, "asker", ASKER), "*.pbs.test");
            let answerer = Node::start(ANSWERER, tls, "*.pbs.test");
            asker.send(hasty()).await;
            let Indication::MessageStatus { error: SendError::AssociationFailed(reason), .. } = asker.indication().await else { panic!() };
            assert!(reason.starts_with("TLS with 127.0.0.3:30270: ") && reason.contains(expected), "{reason}");
            asker.handle.stop().await;
            answerer.handle.stop().await;
        }
    });
}

/// A message that does not wait for a better answer than the first few.
fn hasty() -> SendMessage {
    SendMessage { timeout: Some(Duration::from_secs(2)), ..message(Direction::Downstream, b"may I sd", 1) }
}

#[test]
fn a_flow_to_which_no_route_leads_is_reported() {
    in_own_network(|| async {
        let (mut asker, _answerer) = pair([&PKCS_ED25519, &PKCS_ED25519]);
        let nowhere = (ASKER, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)));
        let mut request = message_of(nowhere, Direction::Downstream, b"may I sd", 1);
        request.timeout = Some(Duration::from_secs(1));
        asker.send(request).await;
        let Indication::MessageStatus { handle, .. } = asker.indication().await else { panic!() };
        assert_eq!(handle, MessageHandle(1));
        assert!(asker.handle.snapshot().await.unwrap().shell.query_mode_errors >= 1);
    });
}

/// G-168, and a datagram longer than any frame.
#[test]
fn datagrams_that_are_no_gist_messages_are_counted_and_harm_nothing() {
    in_own_network(|| async {
        let (asker, mut answerer) = pair([&PKCS_ED25519, &PKCS_ED25519]);
        let stranger = std::net::UdpSocket::bind((ASKER, 0)).unwrap();
        for datagram in [&b"no magic"[..], &[], &[0x4e, 0x04, 0xbd, 0xa5], &[0; 20_000]] {
            stranger.send_to(datagram, (ANSWERER, 270)).unwrap();
        }
        asker.send(message(Direction::Downstream, b"may I sd", 1)).await;
        answerer.received().await;
        let snapshot = answerer.handle.snapshot().await.unwrap();
        assert_eq!(snapshot.counters.no_magic, 2);
        assert_eq!(snapshot.shell.datagrams_unusable, 1);
    });
}

/// The bound on indications: an application that only asks and never listens is told so, and can go on when it listens.
#[test]
fn an_application_that_never_takes_indications_is_refused() {
    in_own_network(|| async {
        let (mut asker, _answerer) = pair_with([&PKCS_ED25519, &PKCS_ED25519], |asker, _| {
            asker.limits.indications = 1;
            asker.node.caps.routing_states = 2;
        });
        let bad = gist::api::SendMessage { hop_count: Some(0), ..message(Direction::Downstream, b"may I sd", 1) };
        let ask = async || {
            let asked = asker.handle.request(gist::api::Request::Send(bad.clone())).await;
            tokio::task::yield_now().await;
            asked
        };
        let mut taken = 0;
        while ask().await.is_ok() {
            taken += 1;
            assert!(taken < 20);
        }
        assert_eq!(ask().await, Err(RequestError::Backlog));
        for _ in 0..taken {
            let Indication::MessageStatus { error, .. } = asker.indication().await else { panic!() };
            assert_eq!(error, SendError::HopCountZero);
        }
        asker.send(bad).await;
        asker.indication().await;
    });
}

/// G-011: nothing reliable is lost while the application is slow; the peer is slowed down instead.
#[test]
fn a_slow_application_loses_nothing() {
    in_own_network(|| async {
        const MESSAGES: u64 = 400;
        let (asker, mut answerer) = pair_with([&PKCS_ED25519, &PKCS_ED25519], |asker, answerer| {
            asker.node.caps.unwritten_bytes = 16 << 20;
            answerer.limits.indications = 4;
            answerer.limits.reports = 4;
        });
        asker.send(message(Direction::Downstream, b"first...", 0)).await;
        assert_eq!(&answerer.received().await.payload[..], b"first...");
        for number in 0..MESSAGES {
            let mut payload = vec![0; 16_000];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            asker.send(message(Direction::Downstream, &payload, number)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let delivered = answerer.handle.snapshot().await.unwrap().counters.messages_delivered;
        assert!(delivered < 20, "{delivered} messages were read although nobody takes them");
        for number in 0..MESSAGES {
            assert_eq!(answerer.received().await.payload[..8], number.to_be_bytes());
        }
    });
}

/// G-011, G-012: while the peer takes nothing, each session is told for itself that its queue is full; what was not refused
/// arrives once and in order when the peer goes on, over the same association.
#[test]
fn a_peer_that_takes_nothing_for_a_while_costs_no_session_what_was_accepted() {
    in_own_network(|| async {
        let (mut asker, mut answerer) = pair_with([&PKCS_ED25519, &PKCS_ED25519], |asker, answerer| {
            asker.node.caps.unwritten_bytes = 64 << 10;
            answerer.limits.indications = 1;
            answerer.limits.reports = 1;
        });
        let large = |number: u64| {
            let mut payload = vec![0; 16_000];
            payload[..8].copy_from_slice(&number.to_be_bytes());
            message(Direction::Downstream, &payload, number)
        };
        asker.send(large(0)).await;
        assert_eq!(answerer.received().await.payload[..8], 0u64.to_be_bytes());
        let mut sent = 0;
        let mut refused = Vec::new();
        while refused.len() < 5 {
            sent += 1;
            assert!(sent < 4000, "nobody is slowed down");
            asker.send(large(sent)).await;
            tokio::task::yield_now().await;
            while let Ok(indication) = asker.indications.try_recv() {
                let Indication::MessageStatus { handle, error: SendError::QueueFull, .. } = indication else { panic!("{indication:?}") };
                refused.push(handle.0);
            }
        }
        // Another session over the same association has a queue of its own.
        let other = SendMessage { session: gist::wire::SessionId([8; 16]), ..message(Direction::Downstream, b"other...", 9999) };
        asker.send(other).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(asker.indications.try_recv().is_err());
        let mut arrived = Vec::new();
        let mut others = 0;
        while arrived.len() + refused.len() < usize::try_from(sent).unwrap() || others == 0 {
            let received = answerer.received().await;
            if &received.payload[..] == b"other..." {
                others += 1;
            } else {
                arrived.push(u64::from_be_bytes(received.payload[..8].try_into().unwrap()));
            }
        }
        let expected: Vec<u64> = (1..=sent).filter(|number| !refused.contains(number)).collect();
        assert_eq!((arrived, others), (expected, 1));
        let snapshot = asker.handle.snapshot().await.unwrap();
        assert_eq!((snapshot.associations.len(), snapshot.shell.writes_stalled), (1, 0));
        asker.send(large(0)).await;
        assert_eq!(answerer.received().await.payload[..8], 0u64.to_be_bytes());
    });
}

/// G-122: a peer that takes nothing for too long has lost the association, and the application hears of it.
#[test]
fn a_peer_that_takes_nothing_for_long_loses_the_association() {
    in_own_network(|| async {
        let (mut asker, mut answerer) = pair_with([&PKCS_ED25519, &PKCS_ED25519], |asker, answerer| {
            asker.limits.write_timeout = Duration::from_millis(500);
            answerer.limits.indications = 1;
            answerer.limits.reports = 1;
        });
        asker.send(message(Direction::Downstream, b"first...", 0)).await;
        answerer.received().await;
        let mut told = Vec::new();
        for number in 0..4000 {
            asker.send(message(Direction::Downstream, &[0; 16_000], number)).await;
            tokio::task::yield_now().await;
            if let Ok(indication) = asker.indications.try_recv() {
                told.push(indication);
                break;
            }
        }
        while !told.iter().any(|indication| matches!(indication, Indication::NetworkNotification { .. })) {
            told.push(asker.indication().await);
        }
        let lost = told.iter().find_map(|indication| match indication {
            Indication::NetworkNotification { event, .. } => Some(*event),
            _ => None,
        });
        assert_eq!(lost, Some(NetworkEvent::AssociationLost));
        let failed =
            |indication: &Indication| matches!(indication, Indication::MessageStatus { error: SendError::AssociationFailed(_), .. });
        assert!(told.iter().any(failed), "what still waited is reported");
        assert_eq!(asker.handle.snapshot().await.unwrap().shell.writes_stalled, 1);
    });
}

/// X-27, G-177: `router_alert = -1` in the configuration leaves the option out where that can be, which is not in IPv6: there no
/// router would take the Query off its way.
#[test]
fn without_a_router_alert_value_ipv6_queries_have_the_option_all_the_same() {
    in_own_network(|| async {
        let authority = Authority::new("ours");
        for (source, destination, expected) in [(ASKER, ANSWERER, None), (ASKER_6, ANSWERER_6, Some(ROUTER_ALERT))] {
            let any = Protocol::from(i32::from(0x0003_u16.to_be()));
            let wire = Socket::new(Domain::PACKET, Type::RAW, Some(any)).unwrap();
            wire.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let asker = Node::start_with(source, identity(&authority, "asker", source), "*.pbs.test", |config| {
                config.node.registrations = vec![gist::node::Registration::secure(io_support::NSLP, None)];
            });
            let mut answerer = Node::start(destination, identity(&authority, "answerer", destination), "*.pbs.test");
            asker.send(message_of((source, destination), Direction::Downstream, b"may I sd", 1)).await;
            assert_eq!(&answerer.received().await.payload[..], b"may I sd");
            let mut wire = wire;
            let seen = tokio::task::spawn_blocking(move || {
                let mut frame = vec![0; 65_535];
                loop {
                    let length = wire.read(&mut frame).expect("no Query was seen");
                    if let Ok(seen) = intercepted(&frame[ETHERNET_HEADER..length], 0) {
                        return seen;
                    }
                }
            });
            let seen = seen.await.unwrap();
            assert_eq!((seen.router_alert, seen.datagram.destination), (expected, destination));
            asker.handle.stop().await;
            answerer.handle.stop().await;
        }
    });
}

/// No buffer longer than what the applications need is made for a peer.
#[test]
fn a_message_longer_than_any_application_needs_ends_the_association() {
    in_own_network(|| async {
        for (longest, fits) in [(16_000, true), (4000, false)] {
            let (mut asker, mut answerer) = pair_with([&PKCS_ED25519, &PKCS_ED25519], |_, answerer| {
                answerer.node.registrations[0].longest_payload = longest;
            });
            asker.send(message(Direction::Downstream, &[7; 16_000], 1)).await;
            if fits {
                assert_eq!(answerer.received().await.payload.len(), 16_000);
            } else {
                let Indication::NetworkNotification { event, .. } = asker.indication().await else { panic!() };
                assert_eq!(event, NetworkEvent::AssociationLost);
            }
            asker.handle.stop().await;
            answerer.handle.stop().await;
        }
    });
}

/// G-014: the application hears that the association is gone; what had been handed over before still arrives.
#[test]
fn stopping_delivers_what_was_handed_over_and_the_peer_notices() {
    in_own_network(|| async {
        let (asker, mut answerer) = pair([&PKCS_ED25519, &PKCS_ED25519]);
        asker.send(message(Direction::Downstream, b"first...", 0)).await;
        answerer.received().await;
        for number in 1..=50u64 {
            asker.send(message(Direction::Downstream, &number.to_be_bytes(), number)).await;
        }
        asker.handle.stop().await;
        for number in 1..=50u64 {
            assert_eq!(answerer.received().await.payload[..], number.to_be_bytes());
        }
        let Indication::NetworkNotification { event, .. } = answerer.indication().await else { panic!() };
        assert_eq!(event, NetworkEvent::AssociationLost);
        assert!(answerer.handle.snapshot().await.unwrap().associations.is_empty());
        let late = asker.handle.request(gist::api::Request::Send(message(Direction::Downstream, b"too late", 9))).await;
        assert!(matches!(late, Err(RequestError::Stopped(_))));
    });
}

fn pair(algorithms: [&'static SignatureAlgorithm; 2]) -> (Node, Node) {
    pair_with(algorithms, |_, _| {})
}

fn pair_with(
    [asker, answerer]: [&'static SignatureAlgorithm; 2],
    change: impl FnOnce(&mut gist::io::ShellConfig, &mut gist::io::ShellConfig),
) -> (Node, Node) {
    let authority = Authority::new("ours");
    let asker = authority.issue(asker, &["asker.pbs.test", "127.0.0.2"]).tls(&authority);
    let answerer = authority.issue(answerer, &["answerer.pbs.test", "127.0.0.3"]).tls(&authority);
    let mut asker = io_support::config(ASKER, asker, "*.pbs.test");
    let mut answerer = io_support::config(ANSWERER, answerer, "*.pbs.test");
    change(&mut asker, &mut answerer);
    (Node::start_from(ASKER, &asker), Node::start_from(ANSWERER, &answerer))
}

fn identity(authority: &Authority, name: &str, address: IpAddr) -> gist::io::Tls {
    authority.issue(&PKCS_ED25519, &[&format!("{name}.pbs.test"), &address.to_string()]).tls(authority)
}

/// What a packet socket puts before the IP header, also on loopback.
const ETHERNET_HEADER: usize = 14;

/// A raw socket that sees every IPv4 packet with UDP that arrives.
fn wire() -> Socket {
    let wire = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
    wire.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    wire
}

/// The first Query that the socket has seen.
fn query(mut wire: Socket) -> Vec<u8> {
    let mut buffer = vec![0; 65_535];
    loop {
        let length = wire.read(&mut buffer).expect("no Query was seen");
        if intercepted(&buffer[..length], 0).is_ok() {
            buffer.truncate(length);
            return buffer;
        }
    }
}

fn one_complement_sum(bytes: &[u8]) -> u32 {
    let mut sum: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
