//! The node's own machine (RFC 5971 §6.1): messages that no other machine is there for.

use std::time::Duration;

use gist::api::{AssociationId, Routing, SendMessage, TransferAttributes};
use gist::node::{Counters, NodeConfig, PeerCredentials};
use gist::wire::{Body, Cookie, ErrorBody, ErrorCause, GistError, Message, MessageType, NslpId, Profile, SessionId};

use super::Book;
use super::node_world::*;

const ROUTER: usize = 1;

pub(super) fn book() -> Book {
    Book::open("node", include_str!("node.txt"))
}

/// Nothing arrives but what is handed in.
fn lone(change: impl Fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::chain_with(change);
    world.members[ROUTER].relays = false;
    world.tap(|_, _| Fate::Lose);
    world
}

/// An application without protection, which takes Data that no state covers or not.
fn open(takes_unvalidated: bool) -> impl Fn(usize, &mut NodeConfig) {
    move |_, config| {
        config.registrations[0].offer.clear();
        config.registrations[0].unvalidated_data = takes_unvalidated;
    }
}

/// The same, which takes associations over TCP alone.
fn plain(_: usize, config: &mut NodeConfig) {
    config.registrations[0].offer = vec![Profile::tcp()];
    config.registrations[0].unvalidated_data = true;
}

fn stateless(payload: &'static str) -> SendMessage {
    SendMessage { attributes: TransferAttributes::default(), routing: Routing::Stateless, ..text(payload) }
}

/// The first message of this kind that the sender says in such a world, as a datagram.
fn said_by_the_sender(change: impl Fn(usize, &mut NodeConfig), message: SendMessage, kind: MessageType) -> Message {
    let mut world = lone(change);
    world.send(0, message);
    world.datagrams_of(0, kind).remove(0).2
}

/// What `act` adds to a counter.
fn adds(world: &mut World, number: usize, counter: fn(&Counters) -> u64, act: impl FnOnce(&mut World)) -> u64 {
    let before = counter(world.node(number).counters());
    act(world);
    counter(world.node(number).counters()) - before
}

/// Sender and router have an association over which session 2 goes. From now on no Confirm arrives by itself.
fn associated() -> World {
    let mut world = World::chain();
    world.members[ROUTER].relays = false;
    world.send(0, text_for(session(2), b"two."));
    world.run(secs(1));
    without_confirms(&mut world);
    world
}

fn without_confirms(world: &mut World) {
    world.tap(|_, parcel| match message_of(parcel) {
        Some(message) if message.message_type() == MessageType::Confirm => Fate::Lose,
        _ => Fate::Pass,
    });
}

fn only(world: &World, number: usize) -> AssociationId {
    world.node(number).associations()[0].association
}

/// The last Confirm that the sender has said.
fn confirm(world: &World, truly: bool) -> Message {
    let over = world.on_associations.iter().filter(|(_, from, _)| *from == 0).map(|(_, _, message)| message.clone());
    let datagrams = world.datagrams_of(0, MessageType::Confirm).into_iter().map(|(_, _, message)| message);
    let mut message = over.chain(datagrams).filter(|message| message.message_type() == MessageType::Confirm).last().unwrap();
    let Body::Confirm(confirm) = &mut message.body else { panic!("Confirm") };
    if !truly {
        let mut octets = confirm.responder_cookie.as_ref().unwrap().as_bytes().to_vec();
        *octets.last_mut().unwrap() ^= 1;
        confirm.responder_cookie = Cookie::new(octets);
    }
    message
}

fn error(cause: ErrorCause, about: &Message) -> Message {
    let header = about.to_bytes().unwrap()[..8].try_into().unwrap();
    let error =
        GistError { session: Some(session(1)), mri: Some(down()), datagram_mode: true, query_mode: true, ..GistError::new(cause, header) };
    let body = Body::Error(ErrorBody { nat: None, nli: None, error });
    Message { hop_count: 9, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

fn of_session(mut message: Message, session: SessionId) -> Message {
    let Body::Data(data) = &mut message.body else { panic!("Data") };
    data.session = session;
    message
}

/// Node rules 1, 2 and 4b: a Query is answered where the application wants peers and goes on where it does not; a Response and an Error
/// that belong to nothing are counted.
#[test]
pub(super) fn what_messages_of_strangers_do() {
    let mut book = book();
    let query = said_by_the_sender(|_, _| {}, text("down"), MessageType::Query);
    book.case("Query | peers are wanted", lone(|_, _| {}), ROUTER, |world| world.inject(ROUTER, passing("10.0.1.1:270", &query)));
    book.case("Query | peers are not wanted", lone(|_, _| {}), ROUTER, |world| {
        world.members[ROUTER].node.set_peering(NSLP, false);
        world.inject(ROUTER, passing("10.0.1.1:270", &query));
    });
    let mut router = lone(|_, _| {});
    router.inject(ROUTER, passing("10.0.1.1:270", &query));
    let response = router.datagrams_of(ROUTER, MessageType::Response).remove(0).2;
    let stray = |counters: &Counters| counters.stray;
    book.case("Response | nobody has asked", lone(|_, _| {}), 0, |world| {
        assert_eq!(adds(world, 0, stray, |world| world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &response))), 1);
    });
    book.case("no routing state | there is none", lone(|_, _| {}), 0, |world| {
        let error = error(ErrorCause::NoRoutingState, &query);
        assert_eq!(adds(world, 0, stray, |world| world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &error))), 1);
    });
    book.close();
}

/// Node rule 3: a Confirm with a true cookie makes the state. A false one closes what is new, is told to who has confirmed before, and
/// in a datagram is not answered.
#[test]
pub(super) fn what_confirms_do() {
    let mut book = book();
    for truly in [true, false] {
        let word = if truly { "true" } else { "false" };
        let mut fresh = World::chain();
        fresh.members[ROUTER].relays = false;
        without_confirms(&mut fresh);
        fresh.send(0, text("old."));
        fresh.run(Duration::from_millis(20));
        let mut known = associated();
        known.send(0, text("old."));
        known.run(Duration::from_millis(20));
        for (how, world) in [("a new association", fresh), ("one that has confirmed before", known)] {
            book.case(&format!("{word} Confirm | over {how}"), world, ROUTER, |world| {
                let (id, confirm) = (only(world, ROUTER), confirm(world, truly));
                world.inject_on(ROUTER, id, &confirm);
            });
        }
        let mut datagrams = World::chain_with(open(false));
        datagrams.members[ROUTER].relays = false;
        without_confirms(&mut datagrams);
        datagrams.send(0, SendMessage { attributes: TransferAttributes::default(), ..text("old.") });
        datagrams.run(Duration::from_millis(20));
        book.case(&format!("{word} Confirm | in a datagram"), datagrams, ROUTER, |world| {
            let confirm = confirm(world, truly);
            world.inject(ROUTER, direct("10.0.1.1:270", "10.0.1.254", &confirm));
        });
    }
    book.close();
}

/// Node rule 4: Data that no routing state covers is refused, or handed up as unvalidated to an application that wants it.
#[test]
pub(super) fn what_data_without_state_does() {
    let mut book = book();
    let no_state = |counters: &Counters| counters.no_routing_state;
    let data = said_by_the_sender(open(true), stateless("word"), MessageType::Data);
    for wanted in [false, true] {
        let how = if wanted { "wanted" } else { "not wanted" };
        book.case(&format!("Data in a datagram | {how}"), lone(open(wanted)), ROUTER, |world| {
            let refused = adds(world, ROUTER, no_state, |world| world.inject(ROUTER, passing("10.0.1.1:270", &data)));
            assert_eq!(refused, u64::from(!wanted));
            assert!(world.received(ROUTER).iter().all(|message| message.reception.unvalidated));
        });
    }
    // Over an association that says nothing about this session, marked as explicitly routed or not.
    let known = associated();
    let sent = known.on_associations.iter().rfind(|(_, from, message)| *from == 0 && message.message_type() == MessageType::Data);
    let over = of_session(sent.unwrap().2.clone(), session(1));
    for explicit in [false, true] {
        for wanted in [false, true] {
            let mut world = World::chain_with(|_, config| config.registrations[0].unvalidated_data = wanted);
            let friend = PeerCredentials { dns_names: vec!["friend.pbs.test".to_owned()], ..PeerCredentials::default() };
            let id = world.accept(ROUTER, "10.0.1.9:40000", friend);
            let mut over = over.clone();
            let Body::Data(data) = &mut over.body else { panic!("Data") };
            data.explicit = explicit;
            let (kind, how) =
                (if explicit { "explicitly routed" } else { "of another session" }, if wanted { "wanted" } else { "not wanted" });
            book.case(&format!("Data over an association, {kind} | {how}"), world, ROUTER, |world| {
                world.inject_on(ROUTER, id, &over);
            });
        }
    }
    book.close();
}

/// Node rule 5; querying rule 0 (tg_Establish): a message of the application, or one that turned out too long for a datagram.
#[test]
pub(super) fn what_the_application_sends_without_state() {
    let mut book = book();
    for inactivity in [3600, 6] {
        let short = move |change: fn(usize, &mut NodeConfig)| {
            move |number: usize, config: &mut NodeConfig| {
                change(number, config);
                config.inactivity = secs(inactivity);
            }
        };
        book.case(&format!("message downstream | {inactivity} s"), lone(short(|_, _| {})), 0, |world| world.send(0, text("word")));
        book.case(&format!("message upstream | {inactivity} s"), lone(short(|_, _| {})), 2, |world| {
            world.send(2, SendMessage { mri: up(), ..text("word") });
        });
        book.case(&format!("message without state | {inactivity} s"), lone(short(plain)), 0, |world| world.send(0, stateless("word")));
        let mut sent = lone(short(plain));
        sent.send(0, stateless("word"));
        let data = sent.datagrams_of(0, MessageType::Data).remove(0).2;
        book.case(&format!("message too long for a datagram | {inactivity} s"), sent, 0, |world| {
            let error = error(ErrorCause::MessageTooLarge, &data);
            world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &error));
        });
    }
    book.close();
}
