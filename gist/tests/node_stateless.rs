//! Messages that no routing state covers, and ways to look for a peer other than along the path of a flow (RFC 5971 §4.1.2, §4.3.2, §5.5,
//! §5.8.1.3, §5.8.2, §7.1.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use bytes::Bytes;
use gist::api::{PeerHandle, Request, Routing, SendError, SendMessage, TransferAttributes};
use gist::node::{Datagram, NodeConfig, Side, Transmit};
use gist::wire::{
    Body, Data, Direction, ErrorBody, ErrorCause, GistError, LooseEnd, Message, MessageType, Mri, MriFault, NslpId, PeerIdentity, Profile,
};
use node_world::*;

fn stateless(payload: &'static str) -> SendMessage {
    SendMessage { attributes: TransferAttributes::default(), routing: Routing::Stateless, ..text(payload) }
}

/// Every node takes what no state covers, and sends datagrams.
fn open(_: usize, config: &mut NodeConfig) {
    config.registrations[0].offer.clear();
    config.registrations[0].unvalidated_data = true;
}

fn open_chain() -> World {
    let mut world = World::chain_with(open);
    world.members[1].relays = false;
    world
}

fn tables(world: &World) -> [usize; 3] {
    [0, 1, 2].map(|number| world.node(number).routing_table().len())
}

/// G-018, G-044, G-061, G-172, G-211, G-270, G-271, G-388: Data in Q-mode has C=1, goes to port 270 of the flow's destination with router
/// alert, makes no state anywhere, and is handed up marked as unvalidated with all that is known of its way.
#[test]
fn data_without_state_travels_in_query_mode_and_is_marked() {
    let mut world = open_chain();
    world.send(0, stateless("word"));
    let (_, transmit, message) = world.datagrams_of(0, MessageType::Data)[0].clone();
    let Transmit::QueryMode { source, destination, source_port, router_alert, ip_ttl, .. } = transmit else { panic!("Q-mode") };
    assert_eq!((source, destination, source_port), (address("10.0.1.1"), address("10.0.2.1"), 270));
    assert_eq!((router_alert, ip_ttl), (Some(65503), 64));
    let Body::Data(data) = &message.body else { panic!("Data") };
    assert!(data.context_free && !data.explicit && message.source_is_signalling);
    world.run(secs(1));
    assert_eq!(world.datagrams.len(), 1, "neither Query nor answer");
    assert_eq!(tables(&world), [0, 0, 0]);
    let received = world.received(1).remove(0);
    assert_eq!((&received.payload[..], &received.peer, received.association), (&b"word"[..], &identity(0), None));
    assert!(received.reception.unvalidated && !received.reception.explicit && !received.authenticated);
    assert_eq!((received.reception.ip_ttl, received.reception.interface), (Some(64), Some(1)));
    assert_eq!((received.hop_count, received.mri), (63, down()));
    // With state, Data takes the normal encapsulation and is not marked.
    world.send(0, SendMessage { routing: Routing::State, ..stateless("more") });
    world.run(secs(1));
    let received = world.received(1).remove(1);
    assert!(!received.reception.unvalidated);
    let (_, transmit, message) = world.datagrams_of(0, MessageType::Data)[1].clone();
    assert!(matches!((transmit, message.body), (Transmit::Normal { .. }, Body::Data(Data { context_free: false, .. }))));
}

/// G-046, G-130, G-270: an application that has not asked for it gets none of it; the sender hears that there is no state.
#[test]
fn data_without_state_is_refused_where_nobody_wants_it() {
    let mut world = World::chain_with(|number, config| {
        open(number, config);
        config.registrations[0].unvalidated_data = number == 0;
    });
    world.send(0, stateless("word"));
    world.run(secs(1));
    assert!(world.received(1).is_empty());
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::NoRoutingState));
    // One that demands protection does not take it in a datagram whatever it says.
    let mut secure = World::chain_with(|_, config| config.registrations[0].unvalidated_data = true);
    secure.inject(1, passing("10.0.1.1:270", &world.datagrams_of(0, MessageType::Data)[0].2));
    assert!(secure.received(1).is_empty());
    assert_eq!(secure.node(1).counters().unprotected, 1);
}

/// G-051: what no datagram can give, or may carry, does not go without state.
#[test]
fn protected_messages_do_not_go_without_state() {
    let mut world = open_chain();
    for attributes in [TransferAttributes { reliable: true, secure: false }, TransferAttributes { reliable: false, secure: true }] {
        world.send(0, SendMessage { attributes, ..stateless("word") });
    }
    let mut secure = World::chain();
    secure.send(0, stateless("word"));
    world.send(0, SendMessage { payload: vec![0; 512].into(), ..stateless("long") });
    world.send(0, SendMessage { mri: up(), ..stateless("word") });
    let errors = |world: &World| world.failures(0).into_iter().map(|(_, error)| error).collect::<Vec<_>>();
    let none = SendError::NoEncapsulation;
    assert_eq!(errors(&world), [none.clone(), none.clone(), SendError::TooLarge, SendError::SelfDestination]);
    assert_eq!(errors(&secure), [none]);
    assert!(world.datagrams.is_empty() && secure.datagrams.is_empty());
}

/// G-314, G-315, G-044, G-313: a message to a peer by its handle has E=1, goes past the sender's routing state by the peer's own way, and is
/// handed up unvalidated though state exists for its session, or none does.
#[test]
fn a_message_to_a_handle_passes_routing_state_at_both_ends() {
    for datagrams in [true, false] {
        let mut world = World::chain_with(|number, config| {
            if datagrams {
                open(number, config);
            }
            config.registrations[0].unvalidated_data = true;
        });
        world.members[1].relays = false;
        let plain = |payload| SendMessage { attributes: TransferAttributes::default(), ..text(payload) };
        world.send(0, plain("down"));
        world.run(secs(1));
        world.send(1, SendMessage { mri: up(), ..plain("back") });
        world.run(secs(1));
        let router = world.received(0)[0].peer_handle;
        let before = tables(&world);
        let queries = world.datagrams_of(0, MessageType::Query).len();
        for session in [session(1), session(77)] {
            world.send(0, SendMessage { session, routing: Routing::Peer(router), ..plain("hand") });
        }
        world.run(secs(1));
        assert_eq!((tables(&world), world.datagrams_of(0, MessageType::Query).len()), (before, queries), "no state, no Query");
        let received: Vec<_> = world.received(1).into_iter().filter(|message| &message.payload[..] == b"hand").collect();
        assert_eq!(received.len(), 2);
        for message in &received {
            assert!(message.reception.unvalidated && message.reception.explicit);
            assert_eq!((&message.peer, message.authenticated), (&identity(0), !datagrams));
        }
        let over = world.on_associations.iter().map(|(_, _, message)| message.clone());
        let sent: Vec<_> = world.datagrams.iter().map(|(_, _, transmit)| message_in(transmit)).chain(over).collect();
        let explicit = |message: &Message| matches!(&message.body, Body::Data(data) if data.explicit);
        assert_eq!(sent.iter().filter(|message| explicit(message)).count(), 2);
        let others = sent.iter().filter(|message| !explicit(message));
        assert!(others.clone().count() > 4, "and nothing else has E=1, which no other type could express");
        // Somebody who is not known, and an application that does not want it.
        world.send(0, SendMessage { routing: Routing::Peer(PeerHandle([9; 16])), ..plain("lost") });
        assert_eq!(world.failures(0)[0].1, SendError::UnknownPeer);
    }
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    world.send(1, SendMessage { mri: up(), ..text("back") });
    world.run(secs(1));
    let router = world.received(0)[0].peer_handle;
    world.send(0, SendMessage { session: session(77), routing: Routing::Peer(router), ..text("hand") });
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down"]);
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::NoRoutingState), "check 3 holds where check 1 is not wanted");
}

/// G-069: Message Too Large about a message without state begins a handshake, once and only if it echoes what was sent.
#[test]
fn what_is_too_long_for_a_datagram_begins_a_handshake() {
    let mut world = World::chain_with(|_, config| config.registrations[0].offer = vec![Profile::tcp()]);
    world.send(0, stateless("word"));
    let sent = world.datagrams_of(0, MessageType::Data)[0].2.to_bytes().unwrap();
    let about = |words: u8| {
        let mut header: [u8; 8] = sent[..8].try_into().unwrap();
        header[3] = words;
        let error = GistError {
            session: Some(session(1)),
            mri: Some(down()),
            datagram_mode: true,
            query_mode: true,
            ..GistError::new(ErrorCause::MessageTooLarge, header)
        };
        let body = Body::Error(ErrorBody { nat: None, nli: None, error });
        Message { hop_count: 9, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
    };
    let queries = |world: &World| world.datagrams_of(0, MessageType::Query).len();
    world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &about(sent[3] + 1)));
    assert_eq!(queries(&world), 0);
    world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &about(sent[3])));
    assert_eq!(queries(&world), 1);
    let Body::Query(query) = &world.datagrams_of(0, MessageType::Query)[0].2.body else { panic!("Query") };
    assert!(query.stack.is_some(), "an association is what it is for");
    world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &about(sent[3])));
    assert_eq!(queries(&world), 1);
}

fn loose(direction: Direction) -> Mri {
    Mri::LooseEnd(LooseEnd { direction, source: address("10.0.1.1"), destination: address("10.0.2.1") })
}

/// G-007, G-008, G-263, G-264, G-265: the loose-end method in both encapsulations of what follows: Query to the MRI's destination with router
/// alert, from its source, with no field of any flow; messages both ways.
#[test]
fn a_peer_is_found_by_the_loose_end_method() {
    for datagrams in [false, true] {
        let mut world = World::chain_with(|_, config| {
            if datagrams {
                config.registrations[0].offer.clear();
            }
        });
        let plain = |payload, mri| SendMessage { attributes: TransferAttributes::default(), mri, ..text(payload) };
        world.send(1, plain("down", loose(Direction::Downstream)));
        let (_, transmit, message) = world.datagrams_of(1, MessageType::Query)[0].clone();
        let Transmit::QueryMode { source, destination, router_alert, ds_field, flow_label, .. } = transmit else { panic!("Q-mode") };
        assert_eq!((source, destination, router_alert), (address("10.0.1.1"), address("10.0.2.1"), Some(65503)));
        assert_eq!((ds_field, flow_label, message.source_is_signalling), (0, 0, false), "the MRI's source by default");
        let Body::Query(query) = message.body else { panic!("Query") };
        assert_eq!(query.mri, loose(Direction::Downstream));
        world.run(secs(1));
        assert_eq!(world.payloads(2), ["down"]);
        world.send(2, plain("back", loose(Direction::Upstream)));
        world.run(secs(1));
        assert_eq!(world.payloads(1), ["back"]);
        assert_eq!(world.received(1)[0].mri, loose(Direction::Upstream));
        // There is no way to look for a peer in the other direction (G-062, G-266).
        world.send(2, SendMessage { session: session(3), ..plain("none", loose(Direction::Upstream)) });
        assert_eq!(world.failures(2)[0].1, SendError::NoEncapsulation);
    }
    // S=1 in every second transmission.
    let mut world = World::chain();
    world.members[2].alive = false;
    world.send(1, SendMessage { mri: loose(Direction::Downstream), ..text("down") });
    world.run(secs(1));
    let flags: Vec<_> = world.datagrams_of(1, MessageType::Query).iter().map(|(_, _, message)| message.source_is_signalling).collect();
    assert_eq!(flags, [false, true]);
}

/// The receiver may ask upstream, and the router answers.
fn upstream_chain() -> World {
    World::chain_with(|_, config| {
        config.registrations[0].asks_upstream = true;
        config.registrations[0].upstream_queries = true;
    })
}

/// G-255, G-256, G-259, G-260, G-158, G-162: a Query against the flow: to the flow's source, from the node's own address (S=1) with TTL 255, and
/// the handshake goes on as ever. G-062: only an application that wants it asks so.
#[test]
fn a_peer_is_found_against_the_flow() {
    let mut world = upstream_chain();
    world.members[1].relays = false;
    world.send(2, SendMessage { mri: up(), ..text("asks") });
    let (_, transmit, message) = world.datagrams_of(2, MessageType::Query)[0].clone();
    let Transmit::QueryMode { source, destination, ip_ttl, source_port, router_alert, .. } = transmit else { panic!("Q-mode") };
    assert_eq!((source, destination), (address("10.0.2.1"), address("10.0.1.1")));
    assert_eq!((ip_ttl, source_port, router_alert), (255, 270, Some(65503)));
    assert!(message.source_is_signalling);
    assert_eq!(message.nli().unwrap().ip_ttl, 0);
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["asks"]);
    let entry = world.node(2).routing_table().remove(0);
    assert_eq!((entry.side, entry.peer, entry.mri), (Side::Querying, Some(identity(1)), up()));
    world.send(1, text("down"));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["down"]);

    let mut world = World::chain();
    world.send(2, SendMessage { mri: up(), ..text("asks") });
    assert_eq!(world.failures(2)[0].1, SendError::NoEncapsulation);
}

/// G-261: an upstream Query that has crossed more than one link is refused, the first link's is answered.
#[test]
fn an_upstream_query_reaches_one_link() {
    let mut world = upstream_chain();
    world.send(2, SendMessage { mri: up(), ..text("asks") });
    let query = world.datagrams_of(2, MessageType::Query)[0].2.clone();
    for (ttl, refused) in [(255, false), (254, false), (253, true), (1, true)] {
        let mut world = upstream_chain();
        world.inject(1, Datagram { ip_ttl: Some(ttl), query_mode: true, ..direct("10.0.2.1:270", "10.0.1.1", &query) });
        let causes: Vec<_> = world.errors_of(1).iter().map(|error| error.cause().unwrap()).collect();
        assert_eq!(causes, if refused { vec![ErrorCause::InvalidIpTtl] } else { vec![] }, "{ttl}");
        assert_eq!(world.datagrams_of(1, MessageType::Response).len(), usize::from(!refused));
    }
}

/// G-257, G-258: exchanges along and against the flow with different sessions are two states; with the same session what was found along the
/// flow carries the messages.
#[test]
fn what_was_found_along_the_flow_counts_more() {
    let mut world = upstream_chain();
    world.members[1].relays = false;
    world.send(1, text_for(session(1), b"down"));
    world.send(2, SendMessage { mri: up(), ..text_for(session(2), b"asks") });
    world.run(secs(1));
    let state = |world: &World, number: u8| {
        world
            .node(2)
            .routing_table()
            .into_iter()
            .filter(|entry| entry.session == session(number))
            .map(|entry| entry.side)
            .collect::<Vec<_>>()
    };
    assert_eq!((state(&world, 1), state(&world, 2)), (vec![Side::Responding], vec![Side::Querying]));
    assert_eq!(world.payloads(1), ["asks"]);
    // The same session from both ends: the receiver has asked, the router has forgotten that, and asks along the flow itself.
    let forget = Request::SetStateLifetime { nslp_id: NSLP, session: session(2), mri: down(), lifetime: Duration::ZERO };
    world.request(1, forget);
    world.send(1, text_for(session(2), b"also"));
    world.run(secs(1));
    assert_eq!(state(&world, 2), vec![Side::Querying, Side::Responding]);
    world.send(2, SendMessage { mri: up(), ..text_for(session(2), b"back") });
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["asks", "back"], "the router knows nothing of the other state");
    assert!(world.errors_of(1).is_empty());
}

/// G-336, G-254, A.4.4.12: a flow whose sources cannot be where its Query came from is refused, over the whole of its prefix.
/// G-072: one to too many
/// destinations too.
#[test]
fn a_flow_that_cannot_come_this_way_is_refused() {
    let refused = |change: fn(&mut gist::wire::PathCoupled)| {
        let mut world = World::chain();
        let Mri::PathCoupled(mut mri) = down() else { panic!("path-coupled") };
        change(&mut mri);
        world.send(0, SendMessage { mri: Mri::PathCoupled(mri), ..text("down") });
        world.run(secs(1));
        world.errors_of(1).first().map(|error| (error.cause().unwrap(), error.info.len()))
    };
    // The world's routers know that 10.0.3.0/24 lies behind no interface of theirs.
    let filtered = Some((ErrorCause::MriValidation(MriFault::IngressFilterFailure), 1));
    assert_eq!(refused(|mri| mri.source = address("10.0.3.1")), filtered);
    assert_eq!(refused(|mri| mri.source_prefix = 8), filtered);
    let wild = Some((ErrorCause::MriValidation(MriFault::TooWild), 1));
    assert_eq!(refused(|mri| mri.destination_prefix = 8), wild);
    assert_eq!(refused(|mri| mri.destination_prefix = 23), wild);
    assert_eq!(refused(|mri| mri.destination_prefix = 24), None);
}

/// What is refused on the path is why nobody answered.
#[test]
fn who_waits_in_vain_hears_who_refused_and_why() {
    let mut world = World::chain();
    let Mri::PathCoupled(mut mri) = down() else { panic!("path-coupled") };
    mri.destination_prefix = 8;
    world.send(0, SendMessage { mri: Mri::PathCoupled(mri), ..text("down") });
    world.run(secs(40));
    let cause = ErrorCause::MriValidation(MriFault::TooWild);
    assert_eq!(world.failures(0)[0].1, SendError::Refused(cause));
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), 7, "nobody has to be right about it");
}

/// G-101: an identity is opaque and any, 16 octets here.
#[test]
fn identities_are_compared_and_not_read() {
    let odd = PeerIdentity::new(Bytes::from_static(b"\xff\x00:any thing\n\x01")).unwrap();
    let name = odd.clone();
    let mut world = World::chain_with(move |number, config| {
        if number == 1 {
            config.identity = name.clone();
        }
    });
    world.send(0, text("down"));
    world.run(secs(1));
    assert_eq!(world.node(0).routing_table()[0].peer, Some(odd));
    assert_eq!(world.payloads(2), ["down"]);
}

/// G-003: Data, Errors and MA-Hellos of a stranger make no peering and change none, in datagrams and over an association of its own.
#[test]
fn nothing_but_a_handshake_makes_a_peering() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let error = GistError {
        session: Some(session(1)),
        mri: Some(down()),
        ..GistError::new(ErrorCause::NoRoutingState, [1, 9, 0, 0, 0x7f, 0xc0, 3, 0])
    };
    let data = Data {
        nat: None,
        mri: down(),
        session: session(1),
        nli: None,
        payload: Bytes::from_static(b"data"),
        explicit: false,
        context_free: false,
    };
    let bodies = [
        Body::Data(data.clone()),
        Body::Data(Data { session: session(9), ..data.clone() }),
        Body::Error(ErrorBody { nat: None, nli: None, error }),
        Body::Hello(gist::wire::Hello { request: true, id: 7 }),
    ];
    let stranger = gist::node::PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..Default::default() };
    for number in [0, 1, 2] {
        let before = world.node(number).routing_table();
        let id = world.accept(number, "10.0.1.9:40000", stranger.clone());
        for body in &bodies {
            let nslp_id = if matches!(body, Body::Data(_)) { NSLP } else { NslpId::NONE };
            let message = Message { hop_count: 9, nslp_id, source_is_signalling: true, body: body.clone(), unknown: Vec::new() };
            world.inject_on(number, id, &message);
            let own = world.members[number].addresses[0].to_string();
            world.inject(number, direct("10.0.1.9:270", &own, &message));
        }
        assert_eq!(world.node(number).routing_table(), before);
    }
    assert_eq!((world.payloads(1), world.payloads(2)), (vec!["down".into()], vec!["down".into()]));
}

/// G-225: what is offered for a protected message has TLS in it, for another all there is; once protected, a state stays so.
#[test]
fn a_query_offers_only_what_its_messages_may_use() {
    let both = vec![Profile::tls_over_tcp(), Profile::tcp()];
    let offered = both.clone();
    let mut world = World::chain_with(move |_, config| config.registrations[0].offer = offered.clone());
    world.members[1].relays = false;
    let plain = SendMessage { attributes: TransferAttributes::default(), ..text("word") };
    world.send(0, plain.clone());
    world.run(secs(1));
    world.send(0, SendMessage { session: session(2), ..text("word") });
    world.send(0, SendMessage { session: session(2), ..plain });
    world.run(secs(60));
    let offers = |wanted| {
        let queries =
            world.datagrams_of(0, MessageType::Query).into_iter().filter(move |(_, _, message)| message.session() == Some(wanted));
        queries.map(|(_, _, message)| match message.body {
            Body::Query(query) => query.stack.unwrap().proposal.profiles,
            _ => panic!("Query"),
        })
    };
    let secure = [Profile::tls_over_tcp()];
    assert_eq!(offers(session(1)).next(), Some(both));
    assert!(offers(session(1)).count() > 2 && offers(session(1)).skip(1).all(|profiles| profiles == secure), "what it has found it keeps");
    assert!(offers(session(2)).count() > 2 && offers(session(2)).all(|profiles| profiles == secure), "refreshes too");
    assert_eq!(world.payloads(1), ["word", "word", "word"]);
}

/// G-228, G-229: the association that is used again is of TLS and authenticated, so no weaker than anything the Response would offer, and as good as
/// whatever the Query does.
#[test]
fn a_reused_association_is_as_good_as_any_offer() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    let (_, _, query) = world.datagrams_of(0, MessageType::Query)[0].clone();
    for profiles in [vec![Profile::tls_over_tcp()], vec![Profile::tcp()], vec![Profile::tcp(), Profile::tls_over_tcp()]] {
        let mut query = query.clone();
        let Body::Query(body) = &mut query.body else { panic!("Query") };
        body.session = session(9);
        body.stack.as_mut().unwrap().proposal.profiles = profiles;
        let (datagrams, messages) = (world.datagrams.len(), world.on_associations.len());
        world.inject(1, passing("10.0.1.1:270", &query));
        assert_eq!((world.datagrams.len(), world.on_associations.len()), (datagrams, messages + 1));
        let (_, _, message) = world.on_associations.last().unwrap();
        assert!(matches!(&message.body, Body::Response(response) if response.session == session(9)));
        assert!(world.node(1).associations().iter().all(|association| association.subject == "sender"), "nobody else's");
    }
}
