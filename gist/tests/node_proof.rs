//! A Response in a datagram is anybody's: who it names becomes the peer only by having answered (note 4c of the querying
//! table).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use bytes::Bytes;
use gist::api::{Request, SendMessage};
use gist::node::{NodeConfig, Registration};
use gist::wire::{
    Body, Cookie, Data, ErrorCause, MaOptions, Message, MessageType, Nli, NslpId, Profile, ResponderPart, Response, SessionId,
    StackConfiguration, StackOffer, StackProposal,
};
use node_world::*;

/// Two routers that both live; the sender has session 1 over the first and session 2 over the second.
fn both_known() -> World {
    both_known_with(|_, _| {})
}

fn both_known_with(change: impl Fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::fork_with(change);
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    world.tap(|_, parcel| detour(parcel, message_of(parcel).and_then(|message| message.session()) == Some(session(2))));
    world.send(0, text("ask."));
    world.run(secs(1));
    world.send(0, text_for(session(2), b"two."));
    world.run(Duration::from_millis(50));
    assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["ask.".into()], vec!["two.".into()]));
    for number in [1, 2] {
        let lifetime = secs(3600);
        world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(number), mri: down(), lifetime });
    }
    world
}

/// What an observer without any certificate answers to the sender's last Query of the session: it names the second router.
fn forged(world: &World, of: SessionId) -> Message {
    let queries = world.datagrams_of(0, MessageType::Query).into_iter().map(|(_, _, message)| message.body);
    let queries = queries.filter_map(|body| if let Body::Query(query) = body { Some(query) } else { None });
    let query = queries.filter(|query| query.session == of).last().unwrap();
    let stack = StackOffer {
        proposal: StackProposal { profiles: vec![Profile::tls_over_tcp()] },
        configuration: StackConfiguration { hold_time: secs(30), options: vec![MaOptions::tcp_response(0, 30270)] },
    };
    let response = Response {
        nat: None,
        mri: query.mri.inverted(),
        session: query.session,
        nli: Nli { ip_ttl: 64, validity: secs(30), peer: identity(BYPASS), address: address("10.0.1.253") },
        query_cookie: query.cookie,
        confirm_requested: true,
        responder: Some(ResponderPart { cookie: Cookie::new(vec![1; 32]).unwrap(), stack: Some(stack) }),
        payload: None,
    };
    Message { hop_count: 64, nslp_id: NSLP, source_is_signalling: true, body: Body::Response(response), unknown: Vec::new() }
}

fn inject(world: &mut World, forged: &Message) {
    world.inject(0, direct("10.0.1.253:270", "10.0.1.1", forged));
}

/// Who the sender's session 1 goes to.
fn peer(world: &World) -> gist::wire::PeerIdentity {
    let table = world.node(0).routing_table();
    table.into_iter().find(|entry| entry.session == session(1)).unwrap().peer.unwrap()
}

/// G-087, G-306: the association to the router that is named is open, and young or old; the Response comes as the answer to a
/// refresh, or when the true one is in, again and again.
/// Takes: querying 4, 4c.
#[test]
fn a_forged_response_naming_another_authorised_router_takes_no_peer_away() {
    for (age, refreshing) in [(0, true), (0, false), (5, true), (5, false)] {
        let mut world = both_known();
        world.run(secs(age));
        if refreshing {
            // The refresh is under way, and the true answer is late.
            let queries = world.datagrams_of(0, MessageType::Query).len();
            while world.datagrams_of(0, MessageType::Query).len() == queries {
                world.run(Duration::from_millis(1));
            }
        }
        for _ in 0..10 {
            let forged = forged(&world, session(1));
            inject(&mut world, &forged);
            world.run(Duration::from_millis(100));
            assert_eq!(peer(&world), identity(1), "{age} {refreshing}");
        }
        world.run(secs(60));
        assert!(world.events(0).is_empty() && world.events(1).is_empty() && world.events(BYPASS).is_empty());
        assert_eq!(peer(&world), identity(1));
        world.send(0, text("more"));
        world.run(secs(1));
        assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["ask.".into(), "more".into()], vec!["two.".into()]));
    }
}

/// The first handshake of a session too, where there is no peer yet to keep.
#[test]
fn a_forged_response_naming_another_authorised_router_gets_no_message() {
    for pause in [0, 1, 2, 3] {
        let mut world = both_known();
        world.send(0, text_for(session(3), b"tri."));
        world.run(Duration::from_millis(pause));
        let forged = forged(&world, session(3));
        inject(&mut world, &forged);
        world.run(secs(1));
        assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["ask.".into(), "tri.".into()], vec!["two.".into()]));
        assert!(world.events(0).is_empty() && world.failures(0).is_empty());
    }
}

/// Note 3 of the node's table: who never made the Responder-Cookie says so over the association, and what else goes over it
/// stays.
#[test]
fn a_confirm_that_is_refused_is_answered_over_a_living_association() {
    let mut world = both_known();
    let associations = world.node(BYPASS).associations().len();
    let forged = forged(&world, session(1));
    inject(&mut world, &forged);
    world.run(Duration::from_millis(50));
    let errors: Vec<_> = world.errors_of(BYPASS).iter().map(|error| (error.cause(), error.session)).collect();
    assert_eq!(errors, [(Some(ErrorCause::NoRoutingState), Some(session(1)))]);
    assert_eq!(world.node(BYPASS).associations().len(), associations);
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(BYPASS), ["two.", "more"]);
}

/// Note 4c of the querying machine: a peer that has been said so much that it answers nothing wrong any more still tells a Confirm that it
/// does not take from one that it does, so that nobody can have it taken for the peer.
#[test]
fn a_refused_confirm_is_told_by_a_peer_too_that_tells_of_nothing_else_any_more() {
    let mut world = both_known();
    let id = world.node(BYPASS).associations().iter().find(|entry| !entry.opened_here).unwrap().association;
    let of_nobody = Message {
        hop_count: 64,
        nslp_id: NSLP,
        source_is_signalling: true,
        body: Body::Data(Data {
            nat: None,
            mri: down(),
            session: session(9),
            nli: None,
            payload: Bytes::from_static(b"lost"),
            explicit: false,
            context_free: false,
        }),
        unknown: Vec::new(),
    };
    for round in 0..100 {
        for _ in 0..50 {
            world.inject_on(BYPASS, id, &of_nobody);
        }
        if round % 10 == 9 {
            let forged = forged(&world, session(1));
            inject(&mut world, &forged);
        }
        world.run(Duration::from_millis(1));
        assert_eq!(peer(&world), identity(1));
    }
    assert!(world.node(BYPASS).counters().rate_dropped > 4000);
    world.run(secs(1));
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(
        (peer(&world), world.payloads(1), world.payloads(BYPASS)),
        (identity(1), vec!["ask.".into(), "more".into()], vec!["two.".into()])
    );
}

/// The same of a peer to which so much is under way that the Errors which nobody acts upon stay away: the answer to the MA-Hello behind the Confirm
/// does not.
#[test]
fn a_refused_confirm_is_told_by_a_peer_too_to_which_more_is_under_way_than_it_may_have() {
    let mut world = both_known_with(|number, config| {
        if number == BYPASS {
            config.caps.unwritten_bytes = 150;
        }
    });
    world.stall(BYPASS, true);
    world.send(BYPASS, SendMessage { mri: up(), ..text_for(session(2), &[b'-'; 300]) });
    // What has been written arrives all the same, late.
    world.members[0].node.set_reading(true, world.now);
    for _ in 0..10 {
        let forged = forged(&world, session(1));
        inject(&mut world, &forged);
        world.run(Duration::from_millis(100));
        assert_eq!(peer(&world), identity(1));
    }
    // Some are told, and one that takes no more is not told for ever.
    let counters = world.node(BYPASS).counters();
    assert!(counters.refused.of(ErrorCause::NoRoutingState) > 2 && counters.errors_sent > 0, "{counters:?}");
    assert_eq!(counters.misused_ended, 1);
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["ask.".into(), "more".into()], vec!["two.".into()]));
}

/// Whatever it is refused for: here the peer has associations, but none for this application, which it serves by datagrams alone.
#[test]
fn a_confirm_that_is_refused_for_its_encapsulation_makes_nobody_the_peer() {
    const OTHER: NslpId = NslpId(32705);
    let mut world = World::fork_with(|number, config| {
        config.registrations.push(Registration::secure(OTHER, Some(65503)));
        if number == BYPASS {
            config.registrations[0].offer.clear();
        }
    });
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    world.tap(|_, parcel| detour(parcel, message_of(parcel).is_some_and(|message| message.nslp_id == OTHER)));
    world.send(0, text("ask."));
    world.run(secs(1));
    world.send(0, SendMessage { nslp_id: OTHER, ..text_for(session(2), b"two.") });
    world.run(Duration::from_millis(50));
    assert_eq!(world.payloads(BYPASS), ["two."]);
    let forged = forged(&world, session(1));
    inject(&mut world, &forged);
    world.run(secs(1));
    assert_eq!(world.errors_of(BYPASS)[0].cause(), Some(ErrorCause::IncorrectEncapsulation));
    assert_eq!(peer(&world), identity(1));
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["ask.".into(), "more".into()], vec!["two.".into()]));
}

/// A peer whose answer to the last question does not come is not taken, and the handshake ends in time.
#[test]
fn a_candidate_that_does_not_answer_is_not_taken() {
    let mut world = World::chain();
    world.members[1].relays = false;
    // The association opens, and nothing that the router writes arrives.
    world.tap(|_, parcel| match parcel {
        Parcel::Association { from: 1, event: gist::node::AssociationEvent::Received(_), .. } => Fate::Lose,
        _ => Fate::Pass,
    });
    world.send(0, text("ask."));
    world.run(secs(9));
    assert!(world.payloads(1).is_empty());
    assert_eq!(world.node(0).routing_table()[0].state, "Awaiting Response");
    world.run(secs(60));
    assert!(world.node(0).routing_table().is_empty());
    assert_eq!(world.failures(0).len(), 1);
}

/// What forged Responses make this node ask of the router they name is bounded for each handshake, like what they make it open.
/// Takes: querying 4c.
#[test]
fn forged_responses_cause_few_confirms() {
    let mut world = both_known();
    let confirms = |world: &World| {
        let mine = world.on_associations.iter().filter(|(_, from, _)| *from == 0);
        mine.filter(|(_, _, message)| message.message_type() == MessageType::Confirm).count()
    };
    let before = confirms(&world);
    for _ in 0..100 {
        let forged = forged(&world, session(1));
        inject(&mut world, &forged);
        world.run(Duration::from_millis(10));
    }
    assert_eq!(confirms(&world) - before, 7, "and one for the true answer");
    assert!(world.node(0).counters().opens_refused >= 92);
}
