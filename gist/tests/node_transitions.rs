//! Transitions that ordinary exchanges seldom take: each made on purpose, in each state that has it (RFC 5971 §6.2 to §6.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{AssociationId, NetworkEvent, PathId, Request, RoutingStatus, SendMessage};
use gist::node::{ApdEntry, IdentityPattern, PeerRole, RoutingEntry};
use gist::wire::{
    Body, Confirm, Cookie, ErrorBody, ErrorCause, GistError, MaOptions, Message, MessageType, Nli, NslpId, PeerIdentity, Profile, Query,
    ResponderPart, Response, StackConfiguration, StackOffer, StackProposal,
};
use node_world::*;

const RECEIVER: usize = 2;

/// How far the sender's handshake for session 1 has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nobody has answered yet.
    Asking,
    /// The first router is the peer.
    Established,
    /// It is, and was asked again; its answer does not come.
    AskedAgain,
}

use Stage::{AskedAgain, Asking, Established};

impl Stage {
    fn state(self) -> &'static str {
        match self {
            Asking => "Awaiting Response",
            Established => "Established",
            AskedAgain => "Awaiting Refresh",
        }
    }
}

/// Two routers, and the sender at this stage. From now on no datagram of the sender arrives.
fn at(stage: Stage) -> World {
    at_with(stage, |world| world)
}

/// The same in a world that has been prepared.
fn at_with(stage: Stage, prepare: impl Fn(World) -> World) -> World {
    let mut world = prepare(World::fork());
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    let blackout = std::rc::Rc::clone(&world.blackout);
    world.tap(move |_, parcel| match parcel {
        Parcel::Datagram { from: 0, .. } if blackout.get() => Fate::Lose,
        _ => detour(parcel, message_of(parcel).and_then(|message| message.session()) == Some(session(2))),
    });
    world.blackout.set(stage == Asking);
    world.send(0, text("old."));
    world.run(Duration::from_millis(50));
    world.blackout.set(true);
    if stage != Asking {
        world.request(0, lifetime(3600));
        world.run(secs(1));
    }
    if stage == AskedAgain {
        world.request(0, invalidate(RoutingStatus::Tentative, true));
        world.run(Duration::from_millis(50));
    }
    assert_eq!(entry(&world).unwrap().state, stage.state());
    world
}

/// The same, and the sender has an association with the second router, over which session 2 goes.
fn with_both(stage: Stage) -> World {
    at_with(stage, |mut world| {
        world.members[BYPASS].relays = false;
        world.tap(|_, parcel| detour(parcel, true));
        world.send(0, text_for(session(2), b"two."));
        world.run(secs(1));
        let lifetime = Request::SetStateLifetime { nslp_id: NSLP, session: session(2), mri: down(), lifetime: secs(3600) };
        world.request(0, lifetime);
        world
    })
}

fn lifetime(seconds: u64) -> Request {
    Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(seconds) }
}

fn invalidate(status: RoutingStatus, urgent: bool) -> Request {
    Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status, urgent }
}

/// The sender's state for session 1.
fn entry(world: &World) -> Option<RoutingEntry> {
    world.node(0).routing_table().into_iter().find(|entry| entry.session == session(1))
}

fn state(world: &World) -> Option<String> {
    entry(world).map(|entry| entry.state)
}

fn peer(world: &World) -> Option<PeerIdentity> {
    entry(world).unwrap().peer
}

/// The sender's association with a router.
fn with(world: &World, peer: usize) -> Option<AssociationId> {
    let table = world.node(0).associations();
    table.iter().find(|entry| entry.peer == Some(identity(peer))).map(|entry| entry.association)
}

/// The sender's Queries for session 1, oldest first.
fn queries(world: &World) -> Vec<Query> {
    let bodies = world.datagrams_of(0, MessageType::Query).into_iter().map(|(_, _, message)| message.body);
    bodies
        .filter_map(|body| if let Body::Query(query) = body { Some(query) } else { None })
        .filter(|query| query.session == session(1))
        .collect()
}

/// What the sender has confirmed for session 1.
fn confirms(world: &World) -> usize {
    let mine = world.on_associations.iter().filter(|(_, from, _)| *from == 0);
    mine.filter(|(_, _, message)| message.message_type() == MessageType::Confirm && message.session() == Some(session(1))).count()
}

/// An answer to the last Query of session 1 that names the second router, without its cookie; `stack` is what it offers.
fn forged(world: &World, stack: Option<StackOffer>) -> Message {
    let query = queries(world).pop().unwrap();
    let response = Response {
        nat: None,
        mri: query.mri.inverted(),
        session: query.session,
        nli: Nli { ip_ttl: 64, validity: secs(30), peer: identity(BYPASS), address: address("10.0.1.253") },
        query_cookie: query.cookie,
        confirm_requested: true,
        responder: Some(ResponderPart { cookie: Cookie::new(vec![1; 32]).unwrap(), stack }),
        payload: None,
    };
    Message { hop_count: 64, nslp_id: NSLP, source_is_signalling: true, body: Body::Response(response), unknown: Vec::new() }
}

fn tls() -> Option<StackOffer> {
    let configuration = StackConfiguration { hold_time: secs(30), options: vec![MaOptions::tcp_response(0, LISTENING_PORT)] };
    Some(StackOffer { proposal: StackProposal { profiles: vec![Profile::tls_over_tcp()] }, configuration })
}

fn answer(world: &mut World, response: &Message) {
    world.inject(0, direct("10.0.1.253:270", "10.0.1.1", response));
}

fn no_routing_state(mri: gist::wire::Mri, about: MessageType) -> Message {
    let header = [1, 64, 0, 0, 0x7f, 0xc0, about as u8, 0x80];
    let error = GistError { session: Some(session(1)), mri: Some(mri), ..GistError::new(ErrorCause::NoRoutingState, header) };
    let body = Body::Error(ErrorBody { nat: None, nli: None, error });
    Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

/// A new handshake has begun: another Query-Cookie, and the full number of Queries is sent again.
fn asks_anew(world: &mut World, before: &[Query]) {
    let now = queries(world);
    assert_eq!(now.len(), before.len() + 1, "at once");
    assert!(before.iter().all(|query| query.cookie != now.last().unwrap().cookie), "under a cookie of its own");
    world.run(secs(120));
    let mut fresh = at(Asking);
    fresh.request(0, lifetime(3600));
    fresh.run(secs(120));
    let (again, first) = (queries(world).len() - before.len(), queries(&fresh).len());
    assert!(first > 4 && again + 1 >= first, "as often as the first time, but for what chance adds to the pauses: {again} of {first}");
    assert_eq!(state(world), None, "or nobody does");
}

const STAGES: [Stage; 3] = [Asking, Established, AskedAgain];

/// Querying rules 4c, 6.4 and 4.4.2 of a candidate in each state: it refuses the Confirm, closes, cannot be connected to, or may not be
/// the peer. State and peer stay, nobody is told, the association is given up, and its next answer is tried like a first one.
#[test]
fn the_end_of_a_candidate_changes_nothing_for_the_state() {
    for stage in STAGES {
        for end in ["refuses", "closes", "is deaf", "is barred"] {
            if (stage, end) == (AskedAgain, "refuses") {
                // An association older than the question is not used for the answer, so that the candidate closes a new one.
                continue;
            }
            let mut world = if end == "refuses" { with_both(stage) } else { at(stage) };
            match end {
                "is deaf" => world.members[BYPASS].listens = false,
                "is barred" => {
                    let now = world.now;
                    world.members[0].node.set_authorised_peers(authorised_peers(), now);
                }
                _ => {}
            }
            let (before, events) = (entry(&world).unwrap(), world.events(0));
            // One that is barred is not tried again before the next transmission.
            for round in 1..=if end == "is barred" { 1 } else { 2 } {
                let (connects, confirmed) = (world.connects, confirms(&world));
                let response = forged(&world, tls());
                answer(&mut world, &response);
                world.run(Duration::from_millis(50));
                assert_eq!(world.connects - connects, usize::from(end != "refuses"), "{stage:?} {end} {round}");
                assert_eq!(confirms(&world) - confirmed, usize::from(["refuses", "closes"].contains(&end)), "{stage:?} {end} {round}");
                let after = entry(&world).unwrap();
                assert_eq!((&after.state, &after.peer), (&before.state, &before.peer), "{stage:?} {end}");
                assert_eq!(world.events(0), events, "{stage:?} {end}");
            }
            if end == "is barred" {
                // It may still be the peer of its own flows.
                let table = world.node(0).associations();
                assert!(table.iter().all(|entry| entry.peer != Some(identity(BYPASS)) || entry.state == "Idle"), "{stage:?} {table:?}");
            } else if end == "refuses" {
                // Session 2 keeps it; without that nobody would.
                world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(2), mri: down(), lifetime: Duration::ZERO });
                let table = world.node(0).associations();
                let given_up = table.iter().find(|entry| entry.peer == Some(identity(BYPASS))).unwrap();
                assert_eq!(given_up.state, "Idle", "{stage:?}");
            } else {
                assert_eq!(with(&world, BYPASS), None, "{stage:?} {end}");
            }
        }
    }
}

/// G-306 of querying: a true answer of the second router, which has seen the Query too, moves the state when it is proven, in either
/// state; querying rule 4c before that.
#[test]
fn a_proven_candidate_is_the_new_peer() {
    for stage in [Established, AskedAgain] {
        let mut world = at(stage);
        let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
        world.inject(BYPASS, passing("10.0.1.1:270", &query));
        world.run(Duration::from_millis(20));
        assert_eq!((state(&world).as_deref(), peer(&world)), (Some("Established"), Some(identity(BYPASS))), "{stage:?}");
        assert_eq!(world.events(0), [NetworkEvent::PeerChanged], "{stage:?}");
        assert_eq!(confirms(&world), 2, "{stage:?}: one for each");
        world.send(0, text("new."));
        world.run(Duration::from_millis(50));
        assert!(world.payloads(1) == ["old."] && world.payloads(BYPASS) == ["new."], "{stage:?}");
        let asked = queries(&world).len();
        world.run(secs(29));
        assert!(queries(&world).len() > asked, "{stage:?}: refreshed in time");
    }
}

/// Querying rule 4, G-276: the peer's answer comes a second time over the association, since its Confirm was lost: another Confirm.
#[test]
fn a_second_answer_of_the_peer_is_confirmed_again() {
    let mut world = at(Established);
    world.blackout.set(false);
    world.request(0, invalidate(RoutingStatus::Tentative, true));
    world.run(Duration::from_millis(50));
    assert_eq!(state(&world).as_deref(), Some("Established"));
    let confirmed = confirms(&world);
    let answers = world.on_associations.iter().filter(|(_, from, message)| *from == 1 && message.message_type() == MessageType::Response);
    let again = answers.last().unwrap().2.clone();
    let id = with(&world, 1).unwrap();
    world.inject_on(0, id, &again);
    assert_eq!(confirms(&world), confirmed + 1);
    assert_eq!((state(&world).as_deref(), peer(&world)), (Some("Established"), Some(identity(1))));
    assert!(world.events(0).is_empty());
    // The time to the next refresh counts from this answer.
    let asked = queries(&world).len();
    world.run(secs(14));
    assert_eq!(queries(&world).len(), asked);
    world.run(secs(10));
    assert_eq!(queries(&world).len(), asked + 1);
}

/// Querying rule G-306 (rx_Response): another router's own word, over an association with it, counts at once.
#[test]
fn an_answer_over_the_association_of_another_peer_moves_the_state() {
    for stage in [Established, AskedAgain] {
        let mut world = with_both(stage);
        let id = with(&world, BYPASS).unwrap();
        let confirmed = confirms(&world);
        let response = forged(&world, tls());
        world.inject_on(0, id, &response);
        assert_eq!((state(&world).as_deref(), peer(&world)), (Some("Established"), Some(identity(BYPASS))), "{stage:?}");
        assert_eq!(entry(&world).unwrap().association, Some(id), "{stage:?}");
        assert_eq!(world.events(0), [NetworkEvent::PeerChanged], "{stage:?}");
        assert_eq!(confirms(&world), confirmed + 1, "{stage:?}");
        let old = world.node(0).associations().into_iter().find(|entry| entry.peer == Some(identity(1))).unwrap();
        assert_eq!(old.state, "Idle", "{stage:?}: nobody here wants it any more");
    }
}

/// Querying rule G-343 in each state: an answer that offers no protocol is as good as none.
#[test]
fn an_answer_without_a_protocol_is_waited_past() {
    for stage in STAGES {
        let mut world = at(stage);
        let (connects, asked) = (world.connects, queries(&world).len());
        let response = forged(&world, None);
        answer(&mut world, &response);
        world.run(Duration::from_millis(50));
        assert_eq!((state(&world).as_deref(), world.connects), (Some(stage.state()), connects));
        assert!(world.events(0).is_empty() && world.failures(0).is_empty());
        if stage != Established {
            world.run(secs(4));
            assert!(queries(&world).len() > asked, "{stage:?}: it goes on asking");
        }
    }
}

/// Querying rule 3 in Awaiting Response and Awaiting Refresh: the peer has lost the state, and the last question is some time ago.
#[test]
fn lost_state_is_asked_for_anew_while_an_answer_is_awaited() {
    let mut world = at(AskedAgain);
    let id = with(&world, 1).unwrap();
    world.run(secs(2));
    let before = queries(&world);
    world.inject_on(0, id, &no_routing_state(down(), MessageType::Data));
    assert_eq!(state(&world).as_deref(), Some("Awaiting Response"));
    assert_eq!(world.events(0), [NetworkEvent::AssociationLost], "what was sent last may be lost");
    let between = queries(&world);
    assert_eq!(between.len(), before.len() + 1);
    world.inject_on(0, id, &no_routing_state(down(), MessageType::Data));
    assert_eq!(queries(&world).len(), between.len(), "not twice within a moment");
    world.run(secs(2));
    let between = queries(&world);
    world.inject_on(0, id, &no_routing_state(down(), MessageType::Data));
    assert_eq!(world.events(0).len(), 1);
    asks_anew(&mut world, &between);
}

/// Querying rule 7.1.3 in Awaiting Response and Awaiting Refresh, urgent: a new handshake at once.
#[test]
fn an_urgent_invalidation_asks_anew_while_an_answer_is_awaited() {
    for stage in [Asking, AskedAgain] {
        let mut world = at(stage);
        world.request(0, lifetime(3600));
        world.run(secs(3));
        let before = queries(&world);
        world.request(0, invalidate(RoutingStatus::Tentative, true));
        assert_eq!(state(&world).as_deref(), Some(stage.state()));
        asks_anew(&mut world, &before);
    }
}

/// Querying rule 7.1.3 in Awaiting Refresh, bad and not urgent: the state ends, and nothing is asked before the next message.
#[test]
fn bad_state_that_is_being_refreshed_ends() {
    let mut world = at(AskedAgain);
    let asked = queries(&world).len();
    world.request(0, invalidate(RoutingStatus::Bad, false));
    assert_eq!(state(&world), None);
    assert_eq!(world.node(0).associations()[0].state, "Idle");
    world.run(secs(60));
    assert_eq!(queries(&world).len(), asked);
    assert!(world.events(0).is_empty(), "G-309: the application caused it");
}

/// Querying rule 7.1.4 in each state: what is sent goes the other way, and whoever answers there is the peer.
#[test]
fn another_way_out_is_asked_at_once_in_every_state() {
    for stage in STAGES {
        let mut world = at(stage);
        world.tap(|_, parcel| detour(parcel, true));
        world.send(0, SendMessage { path: PathId(2), ..text("new.") });
        assert_eq!(state(&world).as_deref(), Some("Awaiting Response"), "{stage:?}");
        world.run(Duration::from_millis(50));
        assert_eq!((state(&world).as_deref(), peer(&world)), (Some("Established"), Some(identity(BYPASS))), "{stage:?}");
        let (old, new): (&[&str], &[&str]) = if stage == Asking { (&[], &["old.", "new."]) } else { (&["old."], &["new."]) };
        assert!(world.payloads(1) == old && world.payloads(BYPASS) == new, "{stage:?}: {:?}", world.payloads(BYPASS));
        if stage != Asking {
            let table = world.node(0).associations();
            assert_eq!(table.iter().find(|entry| entry.peer == Some(identity(1))).unwrap().state, "Idle", "{stage:?}");
        }
    }
}

/// Querying rule 4.4.2 of the peer, in each state: while an answer is awaited it is left, otherwise the state ends and the application
/// is told.
#[test]
fn a_peer_that_may_be_it_no_more_is_left() {
    for stage in [Asking, Established, AskedAgain] {
        let mut world = at(if stage == Asking { Established } else { stage });
        if stage == Asking {
            // It has lost the state, so that it is asked again while it is still the peer.
            let id = with(&world, 1).unwrap();
            world.run(secs(2));
            world.inject_on(0, id, &no_routing_state(down(), MessageType::Data));
            assert_eq!((state(&world).as_deref(), entry(&world).unwrap().association), (Some("Awaiting Response"), Some(id)));
        }
        let events = world.events(0).len();
        let now = world.now;
        world.members[0]
            .node
            .set_authorised_peers(vec![ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Host, allow: false }], now);
        // What follows is drained with the next input.
        world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(9), mri: down(), lifetime: secs(1) });
        assert!(world.node(0).associations().is_empty(), "{stage:?}");
        if stage == Asking {
            assert_eq!((state(&world).as_deref(), entry(&world).unwrap().association), (Some("Awaiting Response"), None));
            assert_eq!(world.events(0).len(), events);
        } else {
            assert_eq!(state(&world), None, "{stage:?}");
            assert_eq!(world.events(0), [NetworkEvent::NotAuthorised], "{stage:?}");
        }
    }
}

/// Querying rule B.5 in each state: the lifetime counts from the request; none ends the state at once, and nobody is told.
#[test]
fn a_lifetime_counts_from_the_request_in_every_state() {
    for stage in STAGES {
        let mut world = at(stage);
        world.request(0, lifetime(5));
        assert_eq!(state(&world).as_deref(), Some(stage.state()));
        world.run(Duration::from_millis(4999));
        assert!(state(&world).is_some(), "{stage:?}");
        world.run(Duration::from_millis(2));
        // Querying rule 6.
        assert_eq!(state(&world), None, "{stage:?}");
        if stage == Asking {
            assert_eq!(world.failures(0).len(), 1, "what waited has failed");
        } else {
            assert_eq!(world.events(0), [NetworkEvent::RouteDeleted], "{stage:?}");
        }

        let mut world = at(stage);
        world.request(0, lifetime(0));
        assert_eq!(state(&world), None, "{stage:?}");
        assert!(world.events(0).is_empty(), "G-309: the application caused it");
        assert!(world.node(0).associations().iter().all(|entry| entry.state == "Idle"), "{stage:?}");
    }
}

/// The last Confirm that `from` sent, with a Responder-Cookie that nobody made.
fn false_confirm(world: &World, from: usize) -> Message {
    let mine = world.on_associations.iter().filter(|(_, of, message)| *of == from && message.message_type() == MessageType::Confirm);
    let mut message = mine.last().unwrap().2.clone();
    let Body::Confirm(Confirm { responder_cookie, .. }) = &mut message.body else { panic!("Confirm") };
    let mut octets = responder_cookie.as_ref().unwrap().as_bytes().to_vec();
    *octets.last_mut().unwrap() ^= 1;
    *responder_cookie = Cookie::new(octets);
    message
}

/// Responding rule G-231: a false Confirm over the state's own association ends the state, and the application is told.
#[test]
fn a_false_confirm_over_the_states_own_association_ends_it() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("old."));
    world.run(secs(1));
    let id = world.node(1).associations()[0].association;
    let confirm = false_confirm(&world, 0);
    world.inject_on(1, id, &confirm);
    assert!(world.node(1).routing_table().is_empty());
    assert_eq!(world.events(1), [NetworkEvent::RouteDeleted]);
    assert_eq!(world.node(1).associations()[0].state, "Idle", "it has confirmed something before, and stays");
}

/// Responding rules X-95 and G-128 (er_BadConfirm): over the second peer's association it ends the claim, over the first one's the second
/// inherits.
#[test]
fn a_false_confirm_ends_whose_association_it_came_over() {
    for of_second in [true, false] {
        let mut world = World::fork();
        let switch = world.reroute();
        world.send(0, text("old."));
        world.run(secs(1));
        switch.set(true);
        world.request(0, invalidate(RoutingStatus::Bad, true));
        world.send(0, text("new."));
        world.run(Duration::from_millis(50));
        let table = |world: &World| world.node(RECEIVER).routing_table().pop().unwrap();
        assert_eq!((table(&world).peer, table(&world).second_peer), (Some(identity(1)), Some(identity(BYPASS))));
        let whose = if of_second { BYPASS } else { 1 };
        let confirm = false_confirm(&world, whose);
        let associations = world.node(RECEIVER).associations();
        let id = associations.iter().find(|entry| entry.peer == Some(identity(whose))).unwrap().association;
        world.inject_on(RECEIVER, id, &confirm);
        let left = if of_second { 1 } else { BYPASS };
        assert_eq!((table(&world).peer, table(&world).second_peer), (Some(identity(left)), None), "{of_second}");
        let news = if of_second { vec![] } else { vec![NetworkEvent::PeerChanged] };
        assert_eq!(world.events(RECEIVER), news);
        let state =
            |world: &World| world.node(RECEIVER).associations().into_iter().find(|entry| entry.association == id).map(|entry| entry.state);
        assert_eq!(state(&world).as_deref(), Some("Idle"), "{of_second}: nobody here wants it");
        let kept = table(&world).valid_until;
        world.run(secs(29));
        assert!(kept.is_some() && !world.node(RECEIVER).routing_table().is_empty());
    }
}
