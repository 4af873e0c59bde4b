//! An application without any protocol stack: handshake and messages as datagrams (RFC 5971 §4.3.3, §5.3.1).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use bytes::Bytes;
use gist::api::{NetworkEvent, SendError, SendMessage, TransferAttributes};
use gist::node::{Datagram, NodeConfig, Output, Transmit};
use gist::wire::{Body, ErrorCause, Message, MessageType, Mri, datagram};
use node_world::*;

fn plain() -> World {
    let mut world = World::chain_with(|_, config| config.registrations[0].offer.clear());
    world.members[1].relays = false;
    world
}

fn unreliable(payload: &'static str) -> SendMessage {
    SendMessage { attributes: TransferAttributes::default(), ..text(payload) }
}

/// A chain with state between sender and router.
fn talking() -> World {
    let mut world = plain();
    world.send(0, unreliable("down"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down"]);
    world
}

/// G-022, G-060, G-088 case 2, G-145, G-148, G-165, G-169.
#[test]
fn messages_travel_as_datagrams_both_ways() {
    let mut world = talking();
    let mut answer = unreliable("back");
    answer.mri = up();
    world.send(1, answer);
    world.run(secs(1));
    assert_eq!(world.payloads(0), ["back"]);
    assert_eq!(world.connects, 0);
    for number in [0, 1] {
        let received = world.received(number).remove(0);
        assert!(!received.authenticated);
        assert_eq!(received.association, None);
        assert_eq!(world.node(number).routing_table()[0].datagram_port, Some(270));
    }
    let Body::Query(query) = &world.datagrams_of(0, MessageType::Query)[0].2.body else { panic!("Query") };
    assert_eq!(query.stack, None);
    let Body::Confirm(confirm) = &world.datagrams_of(0, MessageType::Confirm)[0].2.body else { panic!("Confirm") };
    assert!(confirm.responder_cookie.is_some() && confirm.proposal.is_none());
    let (_, transmit, message) = world.datagrams_of(0, MessageType::Data)[0].clone();
    let Transmit::Normal { destination, source, .. } = transmit else { panic!("normal") };
    assert_eq!((destination, source), ("10.0.1.254:270".parse().unwrap(), Some(address("10.0.1.1"))));
    let Body::Data(data) = message.body else { panic!("Data") };
    assert_eq!(data.nli.unwrap().address, address("10.0.1.1"));
}

/// G-201, G-130, G-132, G-284: a lost Confirm is noticed with the first Data and repaired.
#[test]
fn a_lost_confirm_is_repaired_by_the_routing_state_error() {
    let mut world = plain();
    let mut lost = false;
    world.tap(move |_, parcel| match message_of(parcel) {
        Some(message) if message.message_type() == MessageType::Confirm && !lost => {
            lost = true;
            Fate::Lose
        }
        _ => Fate::Pass,
    });
    world.send(0, unreliable("lost"));
    world.run(secs(1));
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::NoRoutingState));
    assert_eq!(world.events(0), [NetworkEvent::AssociationLost]);
    // Within T1 of the first handshake nothing is asked; the next message does.
    world.send(0, unreliable("two."));
    world.run(secs(1));
    world.send(0, unreliable("tree"));
    world.run(secs(1));
    assert!(world.payloads(1).contains(&Bytes::from_static(b"tree")));
    assert_eq!(world.node(1).routing_table().len(), 1);
}

/// G-278, G-290: the refresh of datagram state.
#[test]
fn datagram_state_is_refreshed() {
    let mut world = talking();
    world.run(secs(200));
    assert_eq!(world.node(1).routing_table().len(), 1);
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
}

/// G-171, G-302: the session's messages come from its peer's address or not at all.
#[test]
fn data_from_another_address_is_not_delivered() {
    let mut world = talking();
    let (_, transmit, message) = world.datagrams_of(0, MessageType::Data)[0].clone();
    let Transmit::Normal { payload, .. } = transmit else { panic!("normal") };
    let from = |source: &str, payload: &Bytes| Datagram { payload: payload.clone(), ..direct(source, "10.0.1.254", &message) };
    world.inject(1, from("10.0.1.66:270", &payload));
    let mut forged = message.clone();
    let Body::Data(data) = &mut forged.body else { panic!("Data") };
    data.nli.as_mut().unwrap().address = address("10.0.1.66");
    world.inject(1, from("10.0.1.66:270", &encoded(&forged)));
    assert_eq!(world.payloads(1), ["down"]);
    world.inject(1, from("10.0.1.1:270", &payload));
    assert_eq!(world.payloads(1).len(), 2);
}

/// G-053, G-055: 512 bytes of GIST message and no more.
#[test]
fn a_message_too_long_for_a_datagram_is_refused() {
    let overhead = {
        let world = talking();
        let (_, transmit, _) = world.datagrams_of(0, MessageType::Data)[0].clone();
        let Transmit::Normal { payload, .. } = transmit else { panic!("normal") };
        payload.len() - 4 - "down".len()
    };
    for (length, arrives) in [(512 - overhead, true), (516 - overhead, false)] {
        let mut world = talking();
        let payload = Bytes::from(vec![7; length]);
        world.send(0, SendMessage { payload: payload.clone(), ..unreliable("long") });
        world.run(secs(1));
        assert_eq!(world.payloads(1).contains(&payload), arrives);
        assert_eq!(world.failures(0).iter().any(|(_, error)| *error == SendError::TooLarge), !arrives);
    }
}

/// G-051: what datagrams cannot give is refused.
#[test]
fn reliability_and_security_are_refused_without_a_stack() {
    for attributes in [TransferAttributes { reliable: true, secure: false }, TransferAttributes { reliable: false, secure: true }] {
        let mut world = plain();
        world.send(0, SendMessage { attributes, ..text("down") });
        assert_eq!(world.failures(0)[0].1, SendError::NoEncapsulation);
        assert!(world.datagrams.is_empty());
    }
}

/// G-135, G-112: that a peer has lost what it asked for is nobody's word in a datagram, since anybody can write its address: the state goes on
/// until its validity ends.
#[test]
fn nobody_can_say_in_a_datagram_that_it_has_lost_what_it_asked_for() {
    let mut world = talking();
    let mut answer = unreliable("back");
    answer.mri = up();
    world.members[0].node = plain().members.remove(0).node;
    world.send(1, answer);
    world.run(secs(1));
    assert_eq!(world.errors_of(0)[0].cause(), Some(ErrorCause::NoRoutingState));
    assert_eq!((world.node(1).routing_table().len(), world.events(1)), (1, vec![]));
    world.run(secs(65));
    assert!(world.node(1).routing_table().is_empty());
    assert_eq!(world.events(1), [NetworkEvent::RouteDeleted]);
}

/// G-231, §6.3: nor is a Confirm whose cookie is nobody's, though it begins as the node's own cookies do, a word of the state's peer.
#[test]
fn a_false_confirm_in_a_datagram_ends_no_state() {
    let mut world = talking();
    let (_, _, mut confirm) = world.datagrams_of(0, MessageType::Confirm)[0].clone();
    let Body::Confirm(body) = &mut confirm.body else { panic!("Confirm") };
    let mut cookie = body.responder_cookie.as_ref().unwrap().as_bytes().to_vec();
    cookie[8..].fill(0x5a);
    body.responder_cookie = gist::wire::Cookie::new(cookie);
    world.inject(1, direct("10.0.1.1:270", "10.0.1.254", &confirm));
    assert_eq!((world.node(1).routing_table().len(), world.events(1)), (1, vec![]));
    assert_eq!(world.node(1).counters().bad_responder_cookies, 1, "counted");
    world.send(1, gist::api::SendMessage { mri: up(), ..unreliable("back") });
    world.run(secs(1));
    assert_eq!(world.payloads(0), ["back"]);
}

/// The sender's first Query, for session 5 and the flow.
fn first_query() -> Message {
    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.datagrams_of(0, MessageType::Query)[0].2.clone()
}

/// G-054, G-055: with a known path MTU a message in a datagram stays within it, else within 576 bytes or what the first link takes, less 64, in
/// either IP version.
#[test]
fn a_message_in_a_datagram_fits_the_path() {
    let longest = |destination: &'static str, first_hop: u16| {
        let mut world = World::chain_with(|_, config| {
            config.registrations[0].offer.clear();
            config.first_hop_mtu = first_hop;
        });
        let router = &mut world.members[1].node;
        // Data to a peer at this address, whose Query has just been answered: it confirms, and the answer goes there.
        let mut asked = first_query();
        let Body::Query(body) = &mut asked.body else { panic!("Query") };
        (body.nli.address, body.stack) = (address(destination), None);
        let source = if destination.contains(':') { format!("[{destination}]:270") } else { format!("{destination}:270") };
        let now = at_millis(0);
        router.handle_datagram(passing(&source, &asked), now);
        let Some(Output::Transmit(response)) = router.poll_output() else { return None };
        let Body::Response(response) = message_in(&response).body else { return None };
        let Body::Query(asked) = asked.body else { return None };
        let confirm = gist::wire::Confirm {
            mri: down(),
            session: session(5),
            nli: asked.nli,
            responder_cookie: response.responder.map(|responder| responder.cookie),
            proposal: None,
            configuration: None,
            payload: None,
        };
        let confirm =
            Message { hop_count: 5, nslp_id: NSLP, source_is_signalling: true, body: Body::Confirm(confirm), unknown: Vec::new() };
        router.handle_datagram(direct(&source, "10.0.1.254", &confirm), now);
        assert_eq!(router.routing_table().len(), 1);
        let lengths = (1..200).map(|words| words * 4).filter_map(|length| {
            let back =
                SendMessage { mri: up(), payload: vec![7; length].into(), attributes: Default::default(), ..text_for(session(5), b"") };
            router.handle_request(gist::api::Request::Send(back), now);
            match router.poll_output() {
                Some(Output::Transmit(Transmit::Normal { payload, .. })) => Some(payload.len() - datagram::MAGIC_LENGTH),
                _ => None,
            }
        });
        lengths.max()
    };
    assert_eq!(longest("10.0.1.1", 1500), Some(512));
    assert_eq!(longest("10.0.1.1", 500), Some(436), "the first link takes no more");
    assert_eq!(longest("10.0.4.1", 1500), Some(usize::from(KNOWN_PATH_MTU) - 64), "something is known");
}

/// G-173, G-174, G-177, G-347, G-393: each application has one router alert value, several may share it; it is left out where that is configured, by
/// destination, in IPv4 alone.
#[test]
fn the_router_alert_is_left_out_by_destination_only() {
    let alert = |destination: &'static str, without: &'static [&'static str], rao: Option<u16>| {
        let mut world = World::chain_with(|_, config| {
            config.without_router_alert = without.iter().map(|prefix| prefix.parse().unwrap()).collect();
            config.registrations[0].rao = rao;
            config.local_addresses.push(address("fd00::1"));
        });
        let Mri::PathCoupled(mut mri) = down() else { panic!("path-coupled") };
        mri.destination = address(destination);
        if mri.destination.is_ipv6() {
            (mri.source, mri.source_prefix, mri.destination_prefix) = (address("fd00::1"), 128, 128);
        }
        world.send(0, SendMessage { mri: Mri::PathCoupled(mri), ..text("down") });
        let Transmit::QueryMode { router_alert, .. } = world.datagrams_of(0, MessageType::Query)[0].1 else { panic!("Q-mode") };
        router_alert
    };
    assert_eq!(alert("10.0.2.1", &[], Some(7)), Some(7));
    assert_eq!(alert("10.0.2.1", &["10.0.0.0/16"], Some(7)), None);
    assert_eq!(alert("10.0.2.1", &["10.0.3.0/24"], Some(7)), Some(7), "elsewhere");
    assert_eq!(alert("fd00::2", &["::/0"], Some(7)), Some(7), "not in IPv6");
    assert_eq!(alert("fd00::2", &[], None), Some(65503));
    assert_eq!(NodeConfig::new(identity(0), gist::node::Role::Host).without_router_alert, [], "off by default");
}
