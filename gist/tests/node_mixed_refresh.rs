//! Applications that take TLS and TCP alone, on a link with somebody who hears every Query and answers it: what a state over TCP alone has to
//! fear of that, and what places and Queries it may have (G-278, G-343, G-256, RFC 5971 §8.6).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use gist::api::{NetworkEvent, Request, SendMessage, Transport};
use gist::node::{Caps, Datagram, NodeConfig};
use gist::wire::{
    Body, Cookie, MaOptions, Message, MessageType, Nli, PeerIdentity, Profile, ResponderPart, Response, StackConfiguration, StackOffer,
    StackProposal,
};
use node_world::mixed::*;
use node_world::*;

/// Nothing listens there, and what goes there is dropped in silence.
const NOWHERE: u16 = 9;

fn tcp_first(config: &mut NodeConfig) {
    config.registrations[0].offer = vec![Profile::tcp(), Profile::tls_over_tcp()];
}

fn how(world: &World, number: usize) -> Vec<(String, Transport)> {
    let text = |message: &gist::api::ReceivedMessage| String::from_utf8(message.payload.to_vec()).unwrap();
    world.received(number).iter().map(|message| (text(message), message.reception.transport)).collect()
}

/// Lets time pass until the sender's only state is in `state`.
fn until(world: &mut World, state: &str) {
    for _ in 0..60_000 {
        if world.node(0).routing_table()[0].state == state {
            return;
        }
        world.run(Duration::from_millis(1));
    }
    panic!("never {state}");
}

/// An answer to this Query in a datagram: TLS, at an address that takes a connection and never says a word.
fn forged_answer(query: Message) -> Datagram {
    let Body::Query(body) = query.body else { panic!("Query") };
    let proposal = StackProposal { profiles: vec![Profile::tls_over_tcp()] };
    let configuration = StackConfiguration { hold_time: secs(30), options: vec![MaOptions::tcp_response(0, NOWHERE)] };
    let cookie = Cookie::new(vec![1; 32]).unwrap();
    let response = Response {
        nat: None,
        mri: body.mri.inverted(),
        session: body.session,
        nli: Nli { ip_ttl: 64, validity: secs(30), peer: PeerIdentity::new(vec![0xee; 16]).unwrap(), address: address("10.0.1.254") },
        query_cookie: body.cookie,
        confirm_requested: true,
        responder: Some(ResponderPart { cookie, stack: Some(StackOffer { proposal, configuration }) }),
        payload: None,
    };
    let message = Message { source_is_signalling: false, body: Body::Response(response), ..query };
    direct("10.0.1.66:270", "10.0.1.1", &message)
}

/// G-278, G-343: whoever hears the Queries answers each before the peer does, and makes this node wait for TLS that never comes. The peer's
/// own answer, over its association, keeps the state all the same.
#[test]
fn whoever_answers_a_refresh_and_never_speaks_tls_ends_no_state_over_tcp_alone() {
    let mut world = link(|_, config| tcp_first(config));
    world.send(0, open("open"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    let association = world.node(0).routing_table()[0].association;
    let heard = Rc::new(RefCell::new(Vec::new()));
    let ear = Rc::clone(&heard);
    world.tap(move |_, parcel| {
        let query = message_of(parcel).filter(|message| matches!(message.body, Body::Query(_)));
        ear.borrow_mut().extend(query);
        Fate::Pass
    });
    for _ in 0..180_000 {
        world.run(Duration::from_micros(500));
        let queries = std::mem::take(&mut *heard.borrow_mut());
        queries.into_iter().for_each(|query| world.inject(0, forged_answer(query)));
    }
    assert!(world.connects >= 4, "{} connections, one of them the peer's: the attack was on", world.connects);
    assert_eq!(told(&world, 0), []);
    let entry = world.node(0).routing_table().remove(0);
    assert_eq!((entry.peer, entry.association), (Some(identity(1)), association));
    world.send(0, open("more"));
    world.run(secs(1));
    assert_eq!(how(&world, 1), [("open".to_owned(), Transport::Tcp), ("more".to_owned(), Transport::Tcp)]);
}

/// The other side of it: who answered beside the peer, and authenticates itself after the peer's own answer has come, replaces it.
#[test]
fn who_authenticates_itself_after_the_peers_answer_replaces_it() {
    let mut world = rivals();
    world.members[1].listens = false;
    world.send(0, open("open"));
    also_ask_the_rival(&mut world);
    world.run(secs(1));
    assert_eq!(how(&world, BYPASS), [("open".to_owned(), Transport::Tcp)]);
    world.members[1].listens = true;
    world.connect_delay = secs(3);
    until(&mut world, "Awaiting Refresh");
    world.run(Duration::from_millis(10));
    assert_eq!((world.node(0).routing_table()[0].state.as_str(), world.node(0).associations().len()), ("Awaiting Refresh", 2));
    also_ask_the_rival(&mut world);
    world.run(Duration::from_millis(10));
    let entry = world.node(0).routing_table().remove(0);
    assert_eq!((entry.state.as_str(), entry.peer), ("Established", Some(identity(BYPASS))), "it has the state until then");
    world.run(secs(4));
    assert_eq!(told(&world, 0), [(NetworkEvent::PeerChanged, true)]);
    assert_eq!(world.node(0).routing_table()[0].peer, Some(identity(1)));
}

/// The other router, over TCP alone like the peer, proves that it has heard the refresh: it waits for whoever may yet authenticate itself, and
/// the state and its peer stay as they are meanwhile.
/// Takes: querying G-306, 4c.
#[test]
fn who_proves_itself_over_tcp_alone_moves_no_state_while_somebody_may_authenticate_itself() {
    let mut world = World::fork_with(|number, config| {
        let both = vec![Profile::tls_over_tcp(), Profile::tcp()];
        config.registrations[0].offer = if number == 0 { both } else { vec![Profile::tcp()] };
    });
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    world.send(0, open("open"));
    world.run(secs(2));
    // The peer does not hear the refresh.
    world.tap(|_, parcel| if matches!(parcel, Parcel::Datagram { from: 0, .. }) { Fate::Lose } else { Fate::Pass });
    let status = gist::api::RoutingStatus::Tentative;
    world.request(0, Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status, urgent: true });
    let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    world.inject(0, forged_answer(query));
    also_ask_the_rival(&mut world);
    world.run(Duration::from_millis(400));
    let confirmed = world.on_associations.iter().filter(|(_, from, message)| *from == 0 && message.message_type() == MessageType::Confirm);
    assert_eq!(confirmed.count(), 2, "the rival has had its Confirm, and says so");
    let entry = world.node(0).routing_table().remove(0);
    assert_eq!((entry.state.as_str(), entry.peer), ("Awaiting Refresh", Some(identity(1))));
    assert!(entry.association.is_some());
    assert_eq!(told(&world, 0), []);
    // Twice T1 is what a connection over TLS gets.
    world.run(secs(2));
    assert_eq!(told(&world, 0), [(NetworkEvent::PeerChanged, false)]);
    assert_eq!(world.node(0).routing_table()[0].peer, Some(identity(BYPASS)));
}

/// In a first handshake too: a connection over TLS is waited for, but not for as long as it likes.
#[test]
fn who_proves_itself_over_tcp_alone_waits_no_longer_than_twice_t1() {
    let mut world = rivals();
    world.connect_delay = secs(5);
    world.send(0, open("open"));
    also_ask_the_rival(&mut world);
    world.run(Duration::from_millis(990));
    assert!(how(&world, BYPASS).is_empty());
    world.run(secs(1));
    assert_eq!(how(&world, BYPASS), [("open".to_owned(), Transport::Tcp)]);
    world.run(secs(4));
    assert_eq!(told(&world, 0), [(NetworkEvent::PeerChanged, true)], "who comes late is the peer from then on");
    world.send(0, open("more"));
    world.run(secs(1));
    assert_eq!(how(&world, 1), [("more".to_owned(), Transport::Tls)]);
}

/// G-256 (note 1 of the node table): an offer of both is enough that nobody places itself downstream by its own word.
#[test]
fn an_upstream_query_is_not_answered_where_tls_is_among_the_offer() {
    let mut probe = link(|_, config| tcp_first(config));
    probe.send(0, open("open"));
    let (_, _, mut query) = probe.datagrams_of(0, MessageType::Query).pop().unwrap();
    let Body::Query(body) = &mut query.body else { panic!("Query") };
    body.mri = body.mri.inverted();
    for (wanted, answers) in [(false, 0), (true, 1)] {
        let mut world = link(|_, config| {
            tcp_first(config);
            config.registrations[0].upstream_queries = wanted;
        });
        world.inject(1, Datagram { ip_ttl: Some(254), ..passing("10.0.1.1:270", &query) });
        assert_eq!(world.datagrams_of(1, MessageType::Response).len(), answers);
        assert_eq!(world.node(1).counters().upstream_queries_refused, 1 - answers as u64);
    }
}

/// G-051, G-255: state that a Query against the flow has made over TCP alone carries what may go over that; what demands more looks for a peer
/// along the flow.
#[test]
fn what_demands_protection_does_not_go_to_a_peer_that_an_upstream_query_has_made_over_tcp_alone() {
    let mut world = link(|_, config| {
        tcp_first(config);
        config.registrations[0].asks_upstream = true;
        config.registrations[0].upstream_queries = true;
    });
    world.send(2, SendMessage { mri: up(), ..open("asks") });
    world.run(secs(1));
    assert_eq!(how(&world, 1), [("asks".to_owned(), Transport::Tcp)]);
    world.send(1, open("open"));
    world.send(1, text("safe"));
    world.run(secs(1));
    assert_eq!(how(&world, 2), [("open".to_owned(), Transport::Tcp), ("safe".to_owned(), Transport::Tls)]);
    assert!(world.failures(1).is_empty(), "{:?}", world.failures(1));
}

/// A full table: what this node itself opens over TCP alone takes no place of what is over TLS either; what it opens over TLS does.
#[test]
fn a_protected_association_does_not_give_way_to_this_nodes_own_over_tcp_alone() {
    let caps = Caps { associations: 16, unconfirmed_associations: 16, ..Caps::default() };
    let mut world = link(move |number, config| {
        tcp_first(config);
        if number == 0 {
            config.caps = caps;
            config.unconfirmed_timeout = secs(3600);
            config.hold_time = secs(3600);
        }
    });
    let friend = |number: u8| credentials(&format!("friend{number}"), &[]);
    let friends: Vec<_> = (1..=16_u8).map(|number| world.accept(0, &format!("10.8.0.{number}:4000"), friend(number))).collect();
    let standing = |world: &World| {
        let known = world.node(0).associations();
        friends.iter().filter(|id| known.iter().any(|entry| entry.association == **id)).count()
    };
    assert_eq!(standing(&world), 16);
    world.send(0, SendMessage { timeout: Some(secs(2)), ..open("open") });
    world.run(secs(3));
    assert_eq!((standing(&world), world.payloads(1).len()), (16, 0));
    assert!(world.node(0).counters().refused_when_full > 0);
    world.send(0, SendMessage { session: session(2), ..text("safe") });
    world.run(secs(1));
    assert_eq!((standing(&world), how(&world, 1)), (15, vec![("safe".to_owned(), Transport::Tls)]));
}
