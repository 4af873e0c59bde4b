//! Whoever sees a Query can answer it: what forged Responses make a node do, and what they do not (note 4 of the querying table).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::Request;
use gist::wire::{
    Body, Cookie, MaOptions, Message, MessageType, Nli, PeerIdentity, Profile, ResponderPart, Response, StackConfiguration, StackOffer,
    StackProposal,
};
use node_world::*;

fn other(number: u8) -> PeerIdentity {
    PeerIdentity::new(vec![number; 16]).unwrap()
}

/// An answer to the sender's latest Query, in the name of `who` at `from`, who listens on `port`.
fn forged_response(world: &World, who: PeerIdentity, from: &str, port: u16) -> Message {
    let (_, _, mut message) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    let Body::Query(query) = message.body else { panic!("Query") };
    let proposal = StackProposal { profiles: vec![Profile::tls_over_tcp()] };
    let configuration = StackConfiguration { hold_time: secs(30), options: vec![MaOptions::tcp_response(0, port)] };
    let cookie = Cookie::new(vec![1; 32]).unwrap();
    message.source_is_signalling = false;
    message.body = Body::Response(Response {
        nat: None,
        mri: query.mri.inverted(),
        session: query.session,
        nli: Nli { ip_ttl: 64, validity: secs(30), peer: who, address: address(from) },
        query_cookie: query.cookie,
        confirm_requested: true,
        responder: Some(ResponderPart { cookie, stack: Some(StackOffer { proposal, configuration }) }),
        payload: None,
    });
    message
}

/// The sender has asked, and nothing but forged answers reaches it.
fn asking() -> World {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { to: 1, .. } | Parcel::Association { .. } => Fate::Lose,
        Parcel::Datagram { .. } => Fate::Pass,
    });
    world.send(0, text("ask."));
    world
}

/// Eight connections for one handshake, however long it takes and however many answer.
#[test]
fn forged_responses_open_few_connections() {
    let mut world = asking();
    for round in 0..60_u8 {
        for number in 0..4 {
            let forged = forged_response(&world, other(round), &format!("10.0.{number}.77"), 30270);
            world.inject(0, direct("10.0.1.77:270", "10.0.1.1", &forged));
        }
        world.run(Duration::from_millis(500));
    }
    assert_eq!(world.connects, 8);
    world.run(secs(60));
    assert!(world.node(0).associations().is_empty());
}

/// Nor is anything opened to what is no neighbour's address.
#[test]
fn forged_responses_open_no_connection_to_what_is_no_peer() {
    for target in
        ["127.0.0.1", "10.0.1.1", "224.0.0.5", "255.255.255.255", "0.0.0.0", "0.0.0.9", "::1", "fd00::9", "::ffff:127.0.0.1", "ff02::1"]
    {
        let mut world = asking();
        let forged = forged_response(&world, other(7), target, 30270);
        world.inject(0, direct("10.0.1.77:270", "10.0.1.1", &forged));
        world.run(secs(1));
        assert_eq!(world.connects, 0, "{target}");
    }
}

/// G-197: what answers the same Query after the first who was taken is processed still: a router that the flow goes over by now proves itself,
/// and is the peer from then on; one whose cookie is none of the Query's is nobody.
#[test]
fn a_second_responder_to_the_same_query_is_heard() {
    let mut world = World::fork();
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    world.send(0, text("ask."));
    world.run(secs(1));
    assert_eq!(world.node(0).routing_table()[0].peer, Some(identity(1)));
    let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    let mut another = query.clone();
    let Body::Query(body) = &mut another.body else { panic!("Query") };
    body.cookie = Cookie::new(vec![5; 16]).unwrap();
    world.inject(BYPASS, passing("10.0.1.1:270", &another));
    world.run(secs(1));
    assert_eq!((world.node(0).counters().bad_query_cookies, world.connects), (1, 1));
    world.inject(BYPASS, passing("10.0.1.1:270", &query));
    world.run(secs(1));
    assert_eq!(world.node(0).routing_table()[0].peer, Some(identity(BYPASS)));
    assert_eq!(world.events(0), [gist::api::NetworkEvent::PeerChanged]);
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), 1, "without another question");
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["ask.".into()], vec!["more".into()]));
}

/// The first who answered keeps its chance, even if its handshake takes long.
#[test]
fn later_answers_displace_no_earlier_one() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.connect_delay = secs(3);
    world.send(0, text("ask."));
    world.run(Duration::from_millis(3));
    for round in 0..40_u8 {
        for number in 0..8 {
            let forged = forged_response(&world, other(round), &format!("10.0.{number}.77"), 30270);
            world.inject(0, direct("10.0.1.77:270", "10.0.1.1", &forged));
        }
        world.run(Duration::from_millis(100));
    }
    assert_eq!(world.payloads(1), ["ask."]);
    assert!(world.connects <= 8, "{}", world.connects);
}

/// A false port under the honest peer's name does not stand in for the true one.
/// Takes: querying 1, association 6.
#[test]
fn a_forged_port_does_not_stand_in_for_the_true_one() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("ask."));
    let forged = forged_response(&world, identity(1), "10.0.1.254", 9);
    world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &forged));
    world.run(Duration::from_millis(100));
    assert_eq!(world.payloads(1), ["ask."]);
}

/// G-107: a validity that somebody on the way has raised does not keep the querying node from refreshing in time.
#[test]
fn a_raised_validity_does_not_make_the_responder_forget() {
    for own in [30, 5] {
        let mut world = World::chain_with(|number, config| {
            if number == 1 {
                config.validity = secs(own);
            }
        });
        world.members[1].relays = false;
        world.tap(|_, parcel| {
            let Parcel::Datagram { to: 0, from, datagram } = parcel else { return Fate::Pass };
            let Some(mut message) = message_of(parcel) else { return Fate::Pass };
            if let Body::Response(response) = &mut message.body {
                response.nli.validity = secs(86_400);
            }
            let datagram = gist::node::Datagram { payload: encoded(&message), ..datagram.clone() };
            Fate::Change(Parcel::Datagram { from: *from, to: 0, datagram })
        });
        world.send(0, text("down"));
        world.run(secs(1));
        world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
        for _ in 0..600 {
            world.run(secs(1));
            assert_eq!(world.node(1).routing_table().len(), 1, "validity {own} s, at {}", world.now);
        }
        assert!(world.events(0).is_empty() && world.events(1).is_empty());
    }
}

/// §4.4.3: an association is young for a while after its *first* Confirm, however busy it is.
#[test]
fn a_busy_association_that_the_peer_has_forgotten_is_not_used() {
    let mut world = World::chain();
    world.members[1].relays = false;
    for number in 1..=5 {
        world.send(0, text_for(session(number), b"down"));
        world.run(secs(1));
    }
    let old = world.node(0).associations()[0].association;
    world.forget_link(0, old);
    world.restart(1, |_, _| {});
    world.members[1].relays = false;
    world.send(0, text_for(session(6), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1).last().unwrap(), "more");
}
