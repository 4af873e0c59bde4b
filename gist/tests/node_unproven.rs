//! What nobody has proved, where state comes with the Query (RFC 5971 §6.3, §8.4): it costs little, moves nothing that stands, and takes
//! nothing from neighbours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use bytes::Bytes;
use gist::api::{Indication, Request, Routing, SendMessage, TransferAttributes};
use gist::node::{Caps, Datagram, Installation, NodeConfig, Registration, Side, Transmit};
use gist::time::Instant;
use gist::wire::{
    Body, Cookie, ErrorCause, Message, MessageType, Mri, NatTraversal, Nli, NslpId, ObjectType, PathCoupled, PeerIdentity, Query, SessionId,
};
use node_world::*;

/// After the Query has come, and before anything has come after it.
const QUERY_TAKEN: Duration = Duration::from_micros(1500);

/// Links whose application sends datagrams, with this policy at all nodes.
fn world(installation: Installation) -> World {
    world_with(installation, |_, _| {})
}

fn world_with(installation: Installation, change: impl Fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::chain_with(|number, config| {
        config.registrations[0].offer.clear();
        config.registrations[0].installation = installation;
        change(number, config);
    });
    world.members[1].relays = false;
    world
}

fn open(payload: &'static str) -> SendMessage {
    SendMessage { attributes: TransferAttributes::default(), ..text(payload) }
}

fn numbered(number: u16) -> SessionId {
    let mut session = [7; 16];
    session[..2].copy_from_slice(&number.to_be_bytes());
    SessionId(session)
}

fn last_query(world: &World, number: usize) -> Message {
    world.datagrams_of(number, MessageType::Query).pop().unwrap().2
}

fn body(message: &Message) -> Query {
    let Body::Query(query) = message.body.clone() else { panic!("Query") };
    query
}

/// The Query with something of it changed.
fn forged(message: &Message, change: impl FnOnce(&mut Query)) -> Message {
    let mut query = body(message);
    change(&mut query);
    Message { body: Body::Query(query), ..message.clone() }
}

/// Somebody whom nobody has heard of.
fn stranger(number: u8) -> Nli {
    let peer = PeerIdentity::new(vec![number; 16]).unwrap();
    Nli { ip_ttl: 64, validity: secs(30), peer, address: address(&format!("10.9.0.{number}")) }
}

/// How many datagrams with a Response have gone to this address.
fn responses_to(world: &World, number: usize, to: &str) -> Vec<Instant> {
    let is_to = |transmit: &Transmit| matches!(transmit, Transmit::Normal { destination, .. } if destination.ip() == address(to));
    let all = world.datagrams_of(number, MessageType::Response).into_iter();
    all.filter(|(_, transmit, _)| is_to(transmit)).map(|(at, ..)| at).collect()
}

fn lifetime(session: SessionId, seconds: u64) -> Request {
    Request::SetStateLifetime { nslp_id: NSLP, session, mri: down(), lifetime: secs(seconds) }
}

/// G-340, G-341, G-395: two neighbours have as many sessions without a Confirm as they like: what somebody has shown to be there for is
/// refreshed on an account of its own, and whoever floods in its name by the same link takes nothing of it.
/// Takes: responding 1, 5, 10.
#[test]
fn many_sessions_between_two_neighbours_are_refreshed_without_confirms() {
    const SESSIONS: u16 = 400;
    for floods in [false, true] {
        let mut world =
            world_with(Installation::WithoutConfirm, |_, config| config.caps = Caps { routing_states: 4096, ..Caps::default() });
        for number in 0..SESSIONS {
            let session = numbered(number);
            world.send(0, SendMessage { session, ..open("down") });
            world.request(0, lifetime(session, 3600));
            world.run(Duration::from_millis(500));
            world.trace.clear();
        }
        let query = last_query(&world, 0);
        for second in 0..90_u16 {
            for number in 0..if floods { 40 } else { 0 } {
                let query = forged(&query, |query| query.session = numbered(1000 + second * 40 + number));
                world.inject(1, passing("10.0.1.1:270", &query));
            }
            world.run(secs(1));
            world.trace.clear();
        }
        let table = world.node(1).routing_table();
        let kept = table.iter().filter(|entry| entry.session < numbered(SESSIONS)).count();
        assert_eq!(kept, usize::from(SESSIONS), "floods: {floods}");
        assert!(world.events(0).is_empty() && world.failures(0).is_empty(), "floods: {floods}");
        let told = world.members[1]
            .indications
            .iter()
            .filter(|(_, told)| matches!(told, Indication::NetworkNotification { session, .. } if *session < numbered(SESSIONS)));
        assert_eq!(told.count(), 0, "floods: {floods}");
        let confirms = world.datagrams_of(0, MessageType::Confirm).len();
        assert!(floods || confirms < 3 * usize::from(SESSIONS), "mostly without Confirms: {confirms}");
    }
}

/// G-340, G-341, G-395: that a neighbour is there, with an association or with a state that it has confirmed, is no reason to believe Queries
/// in its name: past half of what one name gets, new sessions are asked for a Confirm, by whichever interface they come; and what refreshes
/// the others by an interface that it is not behind has no account.
#[test]
fn whoever_writes_queries_in_a_neighbours_name_is_asked_for_proof_by_every_interface() {
    const OPEN: NslpId = NslpId(32705);
    for (interface, is_confirmed) in [(1, true), (2, true), (1, false), (2, false)] {
        let mut world = World::chain_with(|_, config| {
            let open =
                Registration { offer: Vec::new(), installation: Installation::WithoutConfirm, ..Registration::secure(OPEN, Some(65503)) };
            config.registrations.push(open);
            if is_confirmed {
                config.registrations.remove(0);
                config.registrations[0].nslp_id = NSLP;
            }
        });
        world.members[1].relays = false;
        let nslp_id = if is_confirmed { NSLP } else { OPEN };
        if !is_confirmed {
            world.send(0, text("down"));
            world.run(secs(1));
            assert_eq!(world.node(1).associations().len(), 1);
        }
        // So many that the last ones have to be confirmed.
        for number in 0..if is_confirmed { 10 } else { 1 } {
            world.send(0, SendMessage { nslp_id, session: numbered(number), ..open("open") });
        }
        world.run(secs(5));
        assert_eq!(world.datagrams_of(0, MessageType::Confirm).is_empty(), !is_confirmed);
        world.members[0].alive = false;
        let query = last_query(&world, 0);
        let (states, before) = (world.node(1).routing_states(), responses_to(&world, 1, "10.0.1.1").len());
        for _ in 0..2 {
            for number in 100..140 {
                let query = forged(&query, |query| query.session = numbered(number));
                world.inject(1, Datagram { interface, ..passing("10.0.1.1:270", &query) });
            }
        }
        let made = world.node(1).routing_states() - states;
        assert!((1..=8).contains(&made), "{made} by interface {interface}, confirmed: {is_confirmed}");
        let is_behind_it = interface == 1 && is_confirmed;
        let answers = responses_to(&world, 1, "10.0.1.1").len() - before;
        assert!(answers <= 16 + if is_behind_it { made } else { 0 }, "{answers} by interface {interface}, confirmed: {is_confirmed}");
    }
}

/// G-339, G-285, G-287: whoever writes one Query in another's name has three Responses sent there, and for each further one it writes one:
/// what is repeated is repeated twice, whatever is asked meanwhile, until a Confirm shows that somebody is there.
/// Takes: responding 1, 9.
#[test]
fn a_query_that_nobody_confirms_draws_three_responses_at_most() {
    // Of a state that nobody has confirmed.
    let mut world = world(Installation::OnQuery);
    world.send(0, open("down"));
    world.run(QUERY_TAKEN);
    let query = forged(&last_query(&world, 0), |query| (query.nli, query.session) = (stranger(9), session(9)));
    world.inject(1, passing("10.9.0.9:270", &query));
    let start = world.now;
    world.run(secs(40));
    let after: Vec<_> = responses_to(&world, 1, "10.9.0.9").iter().map(|at| at.saturating_duration_since(start)).collect();
    assert_eq!(after, [0, 500, 1500].map(Duration::from_millis));
    // Of one that is confirmed, and of which somebody has seen a Query.
    let mut world = self::world(Installation::OnQuery);
    world.send(0, open("down"));
    world.run(secs(1));
    world.request(0, lifetime(session(1), 3600));
    world.members[0].alive = false;
    let query = forged(&last_query(&world, 0), |query| query.cookie = Cookie::new(vec![9; 16]).unwrap());
    let before = responses_to(&world, 1, "10.0.1.1").len();
    for _ in 0..3 {
        world.inject(1, passing("10.0.1.1:270", &query));
        world.run(secs(8));
    }
    assert_eq!(responses_to(&world, 1, "10.0.1.1").len() - before, 3 + 2);
}

/// G-145: a Confirm for an application of datagrams is one in a datagram: over an association it is refused, whatever cookie it has, so that
/// no state of it hangs on an association.
#[test]
fn a_confirm_over_an_association_is_none_for_an_application_of_datagrams() {
    const OPEN: NslpId = NslpId(32705);
    for installation in [Installation::OnConfirm, Installation::OnQuery, Installation::WithoutConfirm] {
        let mut world = World::chain_with(|_, config| {
            let open = Registration { offer: Vec::new(), installation, ..Registration::secure(OPEN, Some(65503)) };
            config.registrations.push(open);
        });
        world.members[1].relays = false;
        world.send(0, text("down"));
        world.run(secs(1));
        world.tap(|_, parcel| match message_of(parcel) {
            Some(message) if message.message_type() == MessageType::Response => Fate::Lose,
            _ => Fate::Pass,
        });
        world.send(0, SendMessage { nslp_id: OPEN, session: session(2), ..open("open") });
        world.run(QUERY_TAKEN);
        world.members[0].alive = false;
        let query = last_query(&world, 0);
        let Body::Response(response) = world.datagrams_of(1, MessageType::Response).pop().unwrap().2.body else { panic!("Response") };
        let confirm = gist::wire::Confirm {
            mri: down(),
            session: session(2),
            nli: body(&query).nli,
            responder_cookie: response.responder.map(|responder| responder.cookie),
            proposal: None,
            configuration: None,
            payload: None,
        };
        let confirm = Message { body: Body::Confirm(confirm), source_is_signalling: true, ..query };
        let id = world.node(1).associations()[0].association;
        let states = world.node(1).routing_table();
        world.inject_on(1, id, &confirm);
        let causes: Vec<_> = world.errors_of(1).iter().map(|error| error.cause()).collect();
        assert_eq!(causes, [Some(ErrorCause::IncorrectEncapsulation)], "{installation:?}");
        assert_eq!(world.node(1).routing_table(), states, "{installation:?}");
        // Nor is a Response over one taken for an answer.
        let (_, _, response) = world.datagrams_of(1, MessageType::Response).pop().unwrap();
        world.members[0].alive = true;
        let id = world.node(0).associations()[0].association;
        world.inject_on(0, id, &response);
        let table = world.node(0).routing_table();
        let entry = table.iter().find(|entry| entry.session == session(2)).unwrap();
        assert_eq!((entry.state.as_str(), entry.association), ("Awaiting Response", None), "{installation:?}");
        assert_eq!(world.node(0).counters().wrong_encapsulation, 1, "{installation:?}");
    }
}

/// The receiver may ask upstream, and has done so in session 1; the router is its peer.
fn asked_upstream(installation: Installation) -> World {
    let mut world = world_with(installation, |_, config| config.registrations[0].asks_upstream = true);
    world.send(2, SendMessage { mri: up(), ..open("asks") });
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["asks"]);
    world
}

/// A Query along the flow in a stranger's name.
fn downstream_query() -> Message {
    let mut world = world(Installation::OnConfirm);
    world.send(0, open("down"));
    forged(&last_query(&world, 0), |query| query.nli = stranger(9))
}

/// G-258, G-395: a peer that a node has found itself is not given up for somebody who has written a Query: messages go to the former until
/// a Confirm has shown that the latter is there.
#[test]
fn a_query_that_nobody_confirms_draws_no_messages_of_a_known_session() {
    for installation in [Installation::OnQuery, Installation::WithoutConfirm] {
        let mut world = asked_upstream(installation);
        world.inject(2, passing("10.9.0.9:270", &downstream_query()));
        assert_eq!(world.node(2).routing_table().len(), 2, "{installation:?}");
        world.send(2, SendMessage { mri: up(), ..open("more") });
        world.run(secs(1));
        assert_eq!(world.payloads(1), ["asks", "more"], "{installation:?}");
        // Nor where this node has asked nobody yet, and can.
        let mut world = world_with(installation, |_, config| config.registrations[0].asks_upstream = true);
        world.inject(2, passing("10.9.0.9:270", &downstream_query()));
        world.send(2, SendMessage { mri: up(), ..open("asks") });
        world.run(secs(1));
        assert_eq!(world.payloads(1), ["asks"], "{installation:?}");
    }
}

/// G-044, G-047, G-395: nor does it make Data misdelivered that were none: what no state covered goes up unvalidated as before, and Data of the
/// peer that this node has found are its.
#[test]
fn a_query_that_nobody_confirms_keeps_no_data_from_the_application() {
    for installation in [Installation::OnQuery, Installation::WithoutConfirm] {
        let mut world = world_with(installation, |_, config| config.registrations[0].unvalidated_data = true);
        world.inject(1, passing("10.9.0.9:270", &downstream_query()));
        assert_eq!(world.node(1).routing_table().len(), 1, "{installation:?}");
        world.send(0, SendMessage { routing: Routing::Stateless, ..open("word") });
        world.run(secs(1));
        assert_eq!(world.payloads(1), ["word"], "{installation:?}");
        assert!(world.received(1)[0].reception.unvalidated && world.errors_of(1).is_empty());
        // The peer that the receiver has found by a Query of its own is named by the forged one, too.
        let mut world = asked_upstream(installation);
        let peer = Nli { peer: identity(1), address: address("10.0.2.254"), ..stranger(9) };
        world.inject(2, passing("10.0.2.254:270", &forged(&downstream_query(), |query| query.nli = peer)));
        world.send(1, open("back"));
        world.run(Duration::from_millis(100));
        assert_eq!(world.payloads(2), ["back"], "{installation:?}");
    }
}

/// G-395: which of the states that nobody has confirmed gives its place to another one nobody can choose, neither by names nor by being late:
/// some of those who were there before are left, and some of those who came after are not.
#[test]
fn nobody_chooses_which_unconfirmed_state_gives_way() {
    let mut world = world_with(Installation::WithoutConfirm, |_, config| config.caps = Caps { routing_states: 64, ..Caps::default() });
    let query = downstream_query();
    // Eight who were first, with the lowest names, and eight who come after.
    for number in (1..=8_u8).chain(200..208) {
        let query = forged(&query, |query| (query.nli, query.session) = (stranger(number), session(number)));
        world.inject(1, passing(&format!("10.9.0.{number}:270"), &query));
    }
    for number in 0..56_u16 {
        world.send(1, SendMessage { session: numbered(number), ..open("mine") });
    }
    let table = world.node(1).routing_table();
    let left: Vec<_> = table.iter().filter(|entry| entry.side == Side::Responding).map(|entry| entry.session).collect();
    assert_eq!((table.len(), left.len()), (64, 8));
    let early = left.iter().filter(|left| **left < session(100)).count();
    assert!((1..8).contains(&early), "{left:?}");
}

/// G-323, G-200: what NATs have noted in a Query goes back with each Response to it, also with those that are repeated.
#[test]
fn a_repeated_response_has_what_nats_have_noted() {
    let mut world = world_with(Installation::OnQuery, |_, config| config.behind_nats = true);
    world.send(0, open("down"));
    world.run(secs(1));
    world.members[0].alive = false;
    let Mri::PathCoupled(flow) = down() else { panic!("path-coupled") };
    let original = Mri::PathCoupled(PathCoupled { source: address("192.168.0.1"), ..flow });
    let translated = [ObjectType::MessageRoutingInformation, ObjectType::NetworkLayerInformation].map(ObjectType::number).to_vec();
    let nat = NatTraversal { original, translated, opaque: vec![Bytes::from_static(b"note")] };
    let refresh = forged(&last_query(&world, 0), |query| query.nat = Some(nat.clone()));
    let before = world.datagrams_of(1, MessageType::Response).len();
    world.inject(1, passing("10.0.1.1:270", &refresh));
    world.run(secs(2));
    let responses = world.datagrams_of(1, MessageType::Response).split_off(before);
    let noted: Vec<_> = responses
        .into_iter()
        .map(|(_, _, message)| if let Body::Response(response) = message.body { response.nat } else { None })
        .collect();
    assert_eq!(noted, [Some(nat.clone()), Some(nat.clone()), Some(nat)]);
}

/// G-105, G-158, RFC 5971 §4.4.3: the flow leaves by another address of this node: its peer knows that one by no association and answers in D-mode,
/// and a new association is made while the old one lives; the state does not wait for its end.
#[test]
fn another_own_address_towards_the_same_peer_makes_a_new_association() {
    const OTHER: &str = "10.0.2.253";
    for is_told in [true, false] {
        let mut world = World::chain_with(|number, config| {
            if number == 1 {
                config.local_addresses.push(address(OTHER));
            }
        });
        world.members[1].credentials.addresses.push(address(OTHER));
        world.members[1].relays = false;
        world.send(1, text("old."));
        world.run(secs(1));
        world.request(1, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
        world.leaves_by(1, "10.0.2.0/24", OTHER);
        if is_told {
            world.route_changes(1, down().destination());
            world.run(secs(1));
        } else {
            world.run(secs(25));
        }
        assert_eq!(world.node(2).routing_table()[0].peer_address, Some(address(OTHER)), "told: {is_told}");
        assert_eq!((world.connects, world.node(1).counters().answered_elsewhere), (2, 0), "told: {is_told}");
        // It is refreshed over that one from now on, and the old one ends since nobody uses it.
        let refreshes = world.datagrams_of(1, MessageType::Query).len();
        world.run(secs(300));
        assert!(world.datagrams_of(1, MessageType::Query).len() > refreshes + 5);
        assert_eq!((world.connects, world.node(1).associations().len()), (2, 1), "told: {is_told}");
        for (number, payload) in [(1, text("more")), (2, SendMessage { mri: up(), ..text("back") })] {
            world.send(number, payload);
        }
        world.run(secs(1));
        assert_eq!((world.payloads(1), world.payloads(2)), (vec!["back".into()], vec!["old.".into(), "more".into()]), "told: {is_told}");
        assert!(world.failures(1).is_empty());
    }
}
