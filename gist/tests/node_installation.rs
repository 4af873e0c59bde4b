//! When routing state comes into being at the node that is asked: the three policies of RFC 5971 §6.3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{NetworkEvent, Request, SendError, SendMessage, TransferAttributes};
use gist::node::{Caps, Installation, Side};
use gist::time::Instant;
use gist::wire::{Body, ErrorCause, Message, MessageType, Nli, PeerIdentity};
use node_world::*;

const POLICIES: [Installation; 3] = [Installation::OnConfirm, Installation::OnQuery, Installation::WithoutConfirm];

/// After the Query has come, and before anything has come after it.
const QUERY_TAKEN: Duration = Duration::from_micros(1500);

/// Links whose application sends datagrams, with this policy at all nodes, and at most so many routing states.
fn world_of(installation: Installation, routing_states: usize) -> World {
    let mut world = World::chain_with(|_, config| {
        config.registrations[0].offer.clear();
        config.registrations[0].installation = installation;
        config.caps = Caps { routing_states, ..Caps::default() };
    });
    world.members[1].relays = false;
    world
}

fn world(installation: Installation) -> World {
    world_of(installation, 100)
}

fn open(payload: &'static str) -> SendMessage {
    SendMessage { attributes: TransferAttributes::default(), ..text(payload) }
}

fn back(payload: &'static str) -> SendMessage {
    SendMessage { mri: up(), ..open(payload) }
}

fn lose(world: &mut World, kind: MessageType) {
    world.tap(move |_, parcel| match message_of(parcel) {
        Some(message) if message.message_type() == kind => Fate::Lose,
        _ => Fate::Pass,
    });
}

fn state(world: &World, number: usize) -> Option<String> {
    world.node(number).routing_table().first().map(|entry| entry.state.clone())
}

fn count(world: &World, number: usize, kind: MessageType) -> usize {
    world.datagrams_of(number, kind).len()
}

fn lifetime(lifetime: Duration, mri: gist::wire::Mri) -> Request {
    Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri, lifetime }
}

/// A Query is all that has ever come; no Confirm has.
fn asked(installation: Installation) -> (World, Message) {
    let mut world = world(installation);
    lose(&mut world, MessageType::Confirm);
    world.send(0, open("down"));
    world.run(QUERY_TAKEN);
    world.members[0].alive = false;
    let (_, _, query) = world.datagrams_of(0, MessageType::Query)[0].clone();
    (world, query)
}

/// The same Query of somebody else, of this session.
fn of_another(query: &Message, number: u8, of: gist::wire::SessionId) -> Message {
    let Body::Query(mut body) = query.body.clone() else { panic!("Query") };
    let peer = PeerIdentity::new(vec![number; 16]).unwrap();
    body.nli = Nli { peer, address: address(&format!("10.9.0.{number}")), ..body.nli };
    body.session = of;
    Message { body: Body::Query(body), ..query.clone() }
}

/// G-283, G-088, G-079, G-286, G-289: what there is after the Query, and after the whole handshake; messages go both ways, and refreshes keep
/// the state. It ends when they end (G-290).
/// Takes: node 1, 3. Takes: responding 1, 2, 3, 4, 5, 8, 10, 11.
#[test]
fn each_policy_makes_state_in_its_moment() {
    for (installation, after_query) in POLICIES.into_iter().zip([None, Some("Awaiting Confirm"), Some("Established")]) {
        let mut world = world(installation);
        world.send(0, open("down"));
        world.run(QUERY_TAKEN);
        assert_eq!(state(&world, 1).as_deref(), after_query, "{installation:?}");
        world.run(secs(1));
        assert_eq!((state(&world, 1).as_deref(), world.payloads(1)), (Some("Established"), vec!["down".into()]), "{installation:?}");
        let confirms = usize::from(installation != Installation::WithoutConfirm);
        assert_eq!(count(&world, 0, MessageType::Confirm), confirms);
        let Body::Response(response) = &world.datagrams_of(1, MessageType::Response)[0].2.body else { panic!("Response") };
        assert_eq!((response.confirm_requested, response.responder.is_some()), (confirms == 1, confirms == 1));
        world.send(1, back("back"));
        world.request(0, lifetime(secs(3600), down()));
        world.run(secs(300));
        assert_eq!(world.payloads(0), ["back"]);
        let refreshes = count(&world, 0, MessageType::Query);
        assert!((10..=25).contains(&refreshes), "{refreshes}");
        assert_eq!(count(&world, 1, MessageType::Response), refreshes, "one for each: nothing is repeated that is confirmed");
        assert!(world.events(0).is_empty() && world.events(1).is_empty());
        assert_eq!(world.node(1).routing_table()[0].side, Side::Responding);
        world.kill(0);
        world.run(secs(100));
        assert_eq!((state(&world, 1), world.events(1)), (None, vec![NetworkEvent::RouteDeleted]), "{installation:?}");
    }
}

/// G-200, G-287, G-199, G-339: without a Confirm the Response is repeated as a Query is, after 0.5 and 1 s, and then no more; T2 ends the state.
/// The application hears nothing of a state that it never had.
/// Takes: responding 9.
#[test]
fn a_response_is_repeated_like_a_query_until_t2() {
    let (mut world, _) = asked(Installation::OnQuery);
    world.run(Duration::from_millis(31_990));
    assert_eq!(state(&world, 1).as_deref(), Some("Awaiting Confirm"));
    let responses = world.datagrams_of(1, MessageType::Response);
    let sent: Vec<Instant> = responses.iter().map(|(at, ..)| *at).collect();
    assert_eq!(sent, [1, 501, 1501].map(at_millis));
    world.run(secs(1));
    assert_eq!((state(&world, 1), count(&world, 1, MessageType::Response)), (None, 3));
    assert!(world.members[1].indications.is_empty());
    // The last one is as good as the first: its cookie is a new one.
    let (mut world, _) = asked(Installation::OnQuery);
    world.run(secs(2));
    let last = world.datagrams_of(1, MessageType::Response)[2].2.clone();
    world.members[0].alive = true;
    world.tap(|_, _| Fate::Pass);
    world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &last));
    world.run(Duration::from_millis(100));
    assert_eq!(world.payloads(1), ["down"]);
}

/// G-285, G-287: a Query that comes again is answered again and starts the interval anew; it does not prolong the whole.
/// Takes: responding 1, 9.
#[test]
fn a_query_in_awaiting_confirm_is_answered_again() {
    let (mut world, query) = asked(Installation::OnQuery);
    world.run(Duration::from_millis(100));
    let before = count(&world, 1, MessageType::Response);
    world.inject(1, passing("10.0.1.1:270", &query));
    assert_eq!(count(&world, 1, MessageType::Response), before + 1, "at once");
    world.run(Duration::from_millis(499));
    assert_eq!(count(&world, 1, MessageType::Response), before + 1);
    world.run(Duration::from_millis(2));
    assert_eq!(count(&world, 1, MessageType::Response), before + 2, "and after T1");
    for _ in 0..43 {
        world.inject(1, passing("10.0.1.1:270", &query));
        world.run(Duration::from_millis(730));
    }
    assert_eq!(state(&world, 1).as_deref(), Some("Awaiting Confirm"));
    world.run(Duration::from_millis(100));
    assert_eq!(state(&world, 1), None, "T2 after the first");
}

/// G-285, G-289, G-287: the same for a refresh: messages go both ways meanwhile, in Awaiting Refresh, and a Confirm leads back. None comes:
/// the state lives for as long as the last one said.
/// Takes: responding 1, 3, 4, 8, 9, 11.
#[test]
fn a_refresh_without_confirm_is_repeated_and_keeps_messages_going() {
    let mut world = world(Installation::OnQuery);
    world.send(0, open("down"));
    world.run(secs(1));
    world.request(0, lifetime(secs(3600), down()));
    lose(&mut world, MessageType::Confirm);
    world.run(secs(13));
    while state(&world, 1).as_deref() != Some("Awaiting Refresh") {
        world.run(Duration::from_millis(10));
    }
    let query = world.datagrams_of(0, MessageType::Query).pop().unwrap().2;
    let before = count(&world, 1, MessageType::Response);
    world.run(Duration::from_millis(100));
    world.inject(1, passing("10.0.1.1:270", &query));
    assert_eq!(count(&world, 1, MessageType::Response), before + 1, "again at once");
    world.run(Duration::from_millis(499));
    assert_eq!(count(&world, 1, MessageType::Response), before + 1);
    world.run(Duration::from_millis(2));
    assert_eq!(count(&world, 1, MessageType::Response), before + 2, "and after T1");
    world.send(0, open("more"));
    world.send(1, back("back"));
    world.run(Duration::from_millis(100));
    assert_eq!((world.payloads(1).last().cloned(), world.payloads(0)), (Some("more".into()), vec!["back".into()]));
    world.tap(|_, _| Fate::Pass);
    world.run(secs(60));
    assert_eq!(state(&world, 1).as_deref(), Some("Established"));
    assert!(world.events(1).is_empty());
    // Now for good.
    lose(&mut world, MessageType::Confirm);
    let until = world.node(1).routing_table()[0].valid_until.unwrap();
    world.run(until.saturating_duration_since(world.now) - Duration::from_millis(1));
    assert_eq!(state(&world, 1).as_deref(), Some("Awaiting Refresh"));
    world.run(Duration::from_millis(2));
    assert_eq!(world.events(1), [NetworkEvent::RouteDeleted]);
}

/// G-290: what anybody can write ends nothing: a Query in the peer's name leads to Awaiting Refresh, and the peer's next refresh out of it,
/// even if it is later than T2.
/// Takes: responding 1, 8, 9.
#[test]
fn a_forged_refresh_does_not_shorten_what_a_confirm_has_granted() {
    let mut world = World::chain_with(|_, config| {
        config.registrations[0].offer.clear();
        config.registrations[0].installation = Installation::OnQuery;
        config.validity = secs(60);
        config.query_timer = Duration::from_millis(100);
    });
    world.members[1].relays = false;
    world.send(0, open("down"));
    world.run(secs(1));
    world.request(0, lifetime(secs(3600), down()));
    let query = world.datagrams_of(0, MessageType::Query)[0].2.clone();
    for _ in 0..300 {
        if state(&world, 1).as_deref() == Some("Established") {
            world.inject(1, passing("10.0.1.1:270", &query));
        }
        world.run(secs(1));
        assert!(state(&world, 1).is_some());
    }
    assert!(world.events(1).is_empty());
    let for_each = count(&world, 1, MessageType::Response) / count(&world, 0, MessageType::Confirm);
    assert!(for_each <= 20, "{for_each} Responses for each Confirm");
}

/// G-284: before the Confirm Data are refused with code 5, and what the application wants to send waits for it.
/// Takes: responding 6, 7, 8, 9.
#[test]
fn before_the_confirm_data_are_refused_and_messages_wait() {
    let mut world = world(Installation::OnQuery);
    lose(&mut world, MessageType::Confirm);
    world.send(0, open("down"));
    world.run(Duration::from_micros(3500));
    assert_eq!(world.errors_of(1).iter().map(|error| error.cause()).collect::<Vec<_>>(), [Some(ErrorCause::NoRoutingState)]);
    assert!(world.payloads(1).is_empty());
    world.send(1, back("wait"));
    for timeout in [50, 70] {
        world.send(1, SendMessage { timeout: Some(Duration::from_millis(timeout)), ..back("late") });
    }
    assert_eq!(world.node(1).routing_table()[0].queued, 3);
    world.run(Duration::from_millis(60));
    assert_eq!(world.failures(1).len(), 1);
    world.run(Duration::from_millis(40));
    assert_eq!(world.failures(1).len(), 2, "each in its time");
    world.tap(|_, _| Fate::Pass);
    world.run(secs(2));
    assert_eq!(world.payloads(0), ["wait"]);
    // And is told if none comes.
    let (mut world, _) = asked(Installation::OnQuery);
    world.send(1, back("wait"));
    world.run(secs(40));
    assert_eq!(world.failures(1).into_iter().map(|(_, error)| error).collect::<Vec<_>>(), [SendError::TimedOut]);
}

/// G-281: an application that does not want the state ends it, whatever is awaited.
/// Takes: responding B.5.
#[test]
fn a_state_that_is_not_wanted_ends_in_every_state() {
    let (mut world, _) = asked(Installation::OnQuery);
    world.request(1, lifetime(secs(10), up()));
    assert_eq!(state(&world, 1).as_deref(), Some("Awaiting Confirm"));
    world.request(1, lifetime(Duration::ZERO, up()));
    assert_eq!(state(&world, 1), None);
    world.run(secs(5));
    assert_eq!(count(&world, 1, MessageType::Response), 1, "and nothing is repeated");
    let mut world = self::world(Installation::OnQuery);
    world.send(0, open("down"));
    world.run(secs(1));
    let query = world.datagrams_of(0, MessageType::Query)[0].2.clone();
    world.inject(1, passing("10.0.1.1:270", &query));
    world.request(1, lifetime(secs(10), up()));
    assert_eq!(state(&world, 1).as_deref(), Some("Awaiting Refresh"));
    world.request(1, lifetime(Duration::ZERO, up()));
    assert_eq!(state(&world, 1), None);
}

/// G-128, G-306, X-95: another node's Query makes no second state and moves none: a Confirm does, in whichever state it comes, and the
/// application is told. So does a Confirm of the same peer for a Query that has come in by another interface.
/// Takes: responding G-128, G-306.
#[test]
fn only_a_confirm_moves_a_state_that_there_is() {
    for installation in [Installation::OnQuery, Installation::WithoutConfirm] {
        for (is_refreshing, is_another) in [(false, true), (true, true), (false, false), (true, false)] {
            let mut world = world(installation);
            world.send(0, open("down"));
            world.run(secs(1));
            world.members[0].alive = false;
            let query = world.datagrams_of(0, MessageType::Query)[0].2.clone();
            if is_refreshing {
                world.inject(1, passing("10.0.1.1:270", &query));
            }
            let before = world.node(1).routing_table()[0].peer_address;
            let (from, other) = if is_another { ("10.9.0.7", of_another(&query, 7, session(1))) } else { ("10.0.1.1", query.clone()) };
            let asked = world.datagrams.len();
            world.inject(1, gist::node::Datagram { interface: 2, ..passing(&format!("{from}:270"), &other) });
            assert_eq!((world.node(1).routing_table().len(), world.node(1).routing_table()[0].peer_address), (1, before));
            let response = world.datagrams[asked..].iter().map(|(_, _, sent)| message_in(sent)).next().expect("it is answered");
            let Body::Response(response) = response.body else { panic!("Response") };
            let asks = is_another || installation == Installation::OnQuery;
            assert_eq!(response.confirm_requested, asks, "{installation:?} {is_another}");
            if !asks {
                continue;
            }
            let Body::Query(other) = other.body else { panic!("Query") };
            let confirm = gist::wire::Confirm {
                mri: down(),
                session: session(1),
                nli: other.nli,
                responder_cookie: response.responder.map(|responder| responder.cookie),
                proposal: None,
                configuration: None,
                payload: Some("with".into()),
            };
            let confirm = Message { body: Body::Confirm(confirm), source_is_signalling: true, ..query };
            world.inject(1, direct(&format!("{from}:270"), "10.0.1.254", &confirm));
            assert_eq!(state(&world, 1).as_deref(), Some("Established"));
            assert_eq!(world.node(1).routing_table()[0].peer_address, Some(address(from)));
            assert_eq!(world.events(1), [NetworkEvent::PeerChanged], "{installation:?} {is_refreshing} {is_another}");
            world.run(secs(2));
            assert_eq!(world.payloads(1), ["down", "with"]);
            // Whoever has confirmed is not forgotten by a word of the former peer.
            world.inject(1, passing("10.0.1.1:270", &query_of(&world)));
            assert_eq!(world.node(1).routing_table()[0].peer_address, Some(address(from)));
        }
    }
}

fn query_of(world: &World) -> Message {
    world.datagrams_of(0, MessageType::Query)[0].2.clone()
}

/// G-340, G-395: whoever writes Queries in others' names fills a quarter of the table and no more; then nothing is kept, and a handshake does what it
/// does. What somebody stands for has the places of the others if it needs them.
/// Takes: node 1. Takes: responding 9, 11.
#[test]
fn a_flood_of_queries_leaves_room_for_who_confirms() {
    for installation in [Installation::OnQuery, Installation::WithoutConfirm] {
        let mut world = world_of(installation, 64);
        world.send(0, open("down"));
        world.run(secs(1));
        let query = query_of(&world);
        for number in 1..=60_u8 {
            world.inject(1, passing(&format!("10.9.0.{number}:270"), &of_another(&query, number, session(100 + number))));
        }
        let expected = if installation == Installation::OnQuery { 17 } else { 16 };
        assert_eq!(world.node(1).routing_table().len(), expected, "{installation:?}");
        // Somebody who is there confirms, and has a state.
        world.send(0, SendMessage { session: session(2), ..open("more") });
        world.run(secs(2));
        assert_eq!(world.payloads(1), ["down", "more"], "{installation:?}");
        // The table is full, and its own sessions need a place each.
        for number in 0..60_u8 {
            world.send(1, SendMessage { session: session(170 + number), ..open("mine") });
        }
        world.run(secs(5));
        let table = world.node(1).routing_table();
        assert_eq!((table.len(), table.iter().filter(|entry| entry.side == Side::Querying).count()), (64, 60), "{installation:?}");
        assert!(world.node(1).counters().unconfirmed_displaced >= 12);
        assert!(world.failures(1).is_empty());
        let of_sender: Vec<_> = table.iter().filter(|entry| entry.peer == Some(identity(0))).map(|entry| entry.session).collect();
        assert!(of_sender.contains(&session(2)), "who has confirmed stays");
    }
}

/// G-339, G-395: what a Query that nobody confirms costs others: its Responses count against what one destination gets, and the state's own
/// peer is answered beside them.
#[test]
fn repeated_responses_count_against_the_limits_of_their_destination() {
    let mut world = world_of(Installation::OnQuery, 4096);
    world.send(0, open("down"));
    world.run(secs(1));
    world.request(0, lifetime(secs(3600), down()));
    let query = query_of(&world);
    // Some of what is repeated falls into the next window.
    world.run(Duration::from_millis(1600));
    for number in 0..200_u8 {
        let Body::Query(mut body) = of_another(&query, 9, session(7)).body else { panic!("Query") };
        body.session.0[0] = number;
        world.inject(1, passing("10.9.0.9:270", &Message { body: Body::Query(body), ..query.clone() }));
    }
    let sent = |world: &World| {
        let to_victim = |sent: &gist::node::Transmit| matches!(sent, gist::node::Transmit::Normal { destination, .. } if destination.ip() == address("10.9.0.9"));
        world.datagrams.iter().filter(|(_, from, sent)| *from == 1 && to_victim(sent)).count()
    };
    world.run(secs(40));
    assert!((17..=16 * 2).contains(&sent(&world)), "repeated, and within the limits: {}", sent(&world));
    assert_eq!(world.node(1).routing_table().len(), 1, "all others are over");
    assert!(world.events(1).is_empty() && world.events(0).is_empty());
}

/// G-339, G-395: whoever knows confirmed sessions and writes their Queries has each of them answered once beside the limits; what is repeated
/// counts against them.
#[test]
fn what_is_repeated_for_a_confirmed_peer_counts_against_the_limits_too() {
    const SESSIONS: u8 = 40;
    let mut world = world_of(Installation::OnQuery, 4096);
    for number in 1..=SESSIONS {
        world.send(0, SendMessage { session: session(number), ..open("down") });
        world.run(Duration::from_millis(300));
    }
    assert_eq!(count(&world, 0, MessageType::Confirm), usize::from(SESSIONS));
    let queries: Vec<Message> = world.datagrams_of(0, MessageType::Query).into_iter().map(|(_, _, query)| query).collect();
    world.members[0].alive = false;
    let before = count(&world, 1, MessageType::Response);
    for number in 1..=SESSIONS {
        let known = queries.iter().find(|query| query.session() == Some(session(number))).unwrap();
        let Body::Query(mut body) = known.body.clone() else { panic!("Query") };
        body.cookie = gist::wire::Cookie::new(vec![number; 16]).unwrap();
        let source = format!("{}:270", body.nli.address);
        world.inject(1, passing(&source, &Message { body: Body::Query(body), ..known.clone() }));
    }
    world.run(secs(40));
    let answers = count(&world, 1, MessageType::Response) - before;
    assert!((usize::from(SESSIONS) + 1..=usize::from(SESSIONS) + 16 * 2).contains(&answers), "{answers}");
}

/// G-269: where no Response asks for a Confirm, one that comes is nobody's. What offers associations has them with the Confirm, whatever it asks
/// for. What a NAT has changed is kept with the Confirm.
/// Takes: node 3.
#[test]
fn a_confirm_that_nobody_asked_for_makes_no_state() {
    let mut asked = world(Installation::OnConfirm);
    asked.send(0, open("down"));
    asked.run(secs(1));
    let confirm = asked.datagrams_of(0, MessageType::Confirm)[0].2.clone();
    for (installation, answer) in POLICIES.into_iter().zip([None, None, Some(ErrorCause::NoRoutingState)]) {
        let mut world = world(installation);
        let Body::Confirm(mut body) = confirm.body.clone() else { panic!("Confirm") };
        body.session = session(9);
        world.inject(1, direct("10.0.1.1:270", "10.0.1.254", &Message { body: Body::Confirm(body), ..confirm.clone() }));
        assert_eq!(
            (state(&world, 1), world.errors_of(1).first().and_then(gist::wire::GistError::cause)),
            (None, answer),
            "{installation:?}"
        );
    }
    let mut secure = World::chain_with(|_, config| config.registrations[0].installation = Installation::WithoutConfirm);
    secure.send(0, text("down"));
    secure.run(QUERY_TAKEN);
    assert_eq!(state(&secure, 1), None);
    secure.run(secs(1));
    assert_eq!(secure.payloads(2), ["down"]);
}
