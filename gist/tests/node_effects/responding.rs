//! The responding machine (RFC 5971 §6.3) at the receiver, whose routers upstream are 1 and 3.

use std::time::Duration;

use bytes::Bytes;
use gist::api::{AssociationId, Request, RoutingStatus, SendMessage};
use gist::node::{AssociationEvent, Datagram};
use gist::wire::{Body, Cookie, ErrorBody, ErrorCause, GistError, Message, MessageType, NslpId};

use super::Book;
use super::node_world::*;

const RECEIVER: usize = 2;

pub(super) fn book() -> Book {
    Book::open("responding", include_str!("responding.txt"))
}

/// Associations last long: what ends is the routing state.
fn fork() -> World {
    World::fork_with(|_, config| {
        config.hold_time = secs(100);
        config.hello_timeout = secs(60);
    })
}

/// A message has come over router 1.
fn one() -> World {
    let mut world = fork();
    let switch = world.reroute();
    world.send(0, text("old."));
    world.run(secs(1));
    switch.set(true);
    world
}

/// Then one has come over router 3, which claims the flow.
fn two() -> World {
    let mut world = one();
    let bad = RoutingStatus::Bad;
    world.request(0, Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status: bad, urgent: true });
    world.send(0, text("new."));
    world.run(Duration::from_millis(50));
    world
}

/// With which of the two, so many seconds later.
fn worlds() -> Vec<(&'static str, World, usize)> {
    let later = |mut world: World| {
        world.run(secs(3));
        world
    };
    // The peer's state lives longer than the claim.
    let refreshed = || {
        let mut world = later(two());
        confirms(&mut world, 1, true);
        world
    };
    vec![
        ("one", later(one()), 1),
        ("two, of the peer", later(two()), 1),
        ("two, of the second", later(two()), BYPASS),
        ("two, refreshed, of the peer", refreshed(), 1),
        ("two, refreshed, of the second", refreshed(), BYPASS),
    ]
}

/// Of a router, on the receiver's link.
fn address_of(router: usize) -> &'static str {
    if router == 1 { "10.0.2.254" } else { "10.0.2.253" }
}

fn with(world: &World, peer: usize) -> AssociationId {
    let table = world.node(RECEIVER).associations();
    table.iter().find(|entry| entry.peer == Some(identity(peer))).unwrap().association
}

fn no_routing_state(world: &mut World, from: usize) {
    let header = [1, 64, 0, 0, 0x7f, 0xc0, MessageType::Data as u8, 0x80];
    let error = GistError { session: Some(session(1)), mri: Some(up()), ..GistError::new(ErrorCause::NoRoutingState, header) };
    let body = Body::Error(ErrorBody { nat: None, nli: None, error });
    let message = Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() };
    let id = with(world, from);
    world.inject_on(RECEIVER, id, &message);
}

/// The last Confirm of a router.
fn confirm(world: &World, from: usize) -> Message {
    let mine = world.on_associations.iter().filter(|(_, of, message)| *of == from && message.message_type() == MessageType::Confirm);
    mine.last().unwrap().2.clone()
}

/// The same Confirm with another validity and a payload, over this association.
fn confirms_more(world: &mut World, from: usize, id: AssociationId) {
    let mut message = confirm(world, from);
    let Body::Confirm(confirm) = &mut message.body else { panic!("Confirm") };
    confirm.nli.validity = secs(60);
    confirm.payload = Some(Bytes::from_static(b"more"));
    world.inject_on(RECEIVER, id, &message);
}

fn confirms(world: &mut World, from: usize, truly: bool) {
    let mut message = confirm(world, from);
    let Body::Confirm(confirm) = &mut message.body else { panic!("Confirm") };
    if !truly {
        let mut octets = confirm.responder_cookie.as_ref().unwrap().as_bytes().to_vec();
        *octets.last_mut().unwrap() ^= 1;
        confirm.responder_cookie = Cookie::new(octets);
    }
    let id = with(world, from);
    world.inject_on(RECEIVER, id, &message);
}

fn bar(world: &mut World, peer: usize) {
    let name = if peer == 1 { "router.pbs.test" } else { "bypass.pbs.test" };
    let others = both_routers().into_iter().filter(|entry| {
        let gist::node::IdentityPattern::DnsName(pattern) = &entry.pattern else { return true };
        pattern != name
    });
    let (others, now) = (others.collect(), world.now);
    world.members[RECEIVER].node.set_authorised_peers(others, now);
}

/// Responding rules 2, 3, 4, 10, 11, B.5, G-128, G-306, G-231, X-95, 6.4, 4.4.2: each by each of the peers there are.
#[test]
pub(super) fn what_each_peer_and_the_application_do() {
    let mut book = book();
    type Act = fn(&mut World, usize);
    let acts: [(&str, Act); 14] = [
        ("no routing state", no_routing_state),
        ("confirms again", |world, peer| confirms(world, peer, true)),
        ("confirms for 60 s", |world, peer| {
            let id = with(world, peer);
            confirms_more(world, peer, id);
        }),
        ("confirms over another association", |world, peer| {
            let (address, credentials) = (address_of(peer), world.members[peer].credentials.clone());
            let id = world.accept(RECEIVER, &format!("{address}:40000"), credentials);
            confirms_more(world, peer, id);
        }),
        ("confirms to another interface", |world, peer| {
            let (_, _, query) = world.datagrams_of(peer, MessageType::Query).pop().unwrap();
            let source = format!("{}:270", address_of(peer));
            world.inject(RECEIVER, Datagram { interface: 2, ..passing(&source, &query) });
            world.run(Duration::from_millis(5));
        }),
        ("confirms falsely", |world, peer| confirms(world, peer, false)),
        ("association fails", |world, peer| {
            let (id, now) = (with(world, peer), world.now);
            world.members[RECEIVER].node.handle_association(id, AssociationEvent::Failed("reset".to_owned()), now);
        }),
        ("not authorised any more", bar),
        ("data", |world, peer| {
            world.send(peer, text("data"));
            world.run(Duration::from_millis(3));
        }),
        ("message upstream", |world, _| world.send(RECEIVER, SendMessage { mri: up(), ..text("back") })),
        ("adopted", |world, peer| {
            let of_peer = world.received(RECEIVER).into_iter().filter(|message| message.peer == identity(peer));
            let peer = of_peer.last().unwrap().peer_handle;
            world.request(RECEIVER, Request::AdoptPeer { nslp_id: NSLP, session: session(1), mri: up(), peer });
        }),
        ("not wanted", |world, _| lifetime(world, 0)),
        ("wanted for 5 s", |world, _| lifetime(world, 5)),
        ("nothing", |_, _| {}),
    ];
    for (name, act) in acts {
        for (with, world, peer) in worlds() {
            book.case(&format!("{name} | {with}"), world, RECEIVER, |world| act(world, peer));
        }
    }
    book.close();
}

fn lifetime(world: &mut World, seconds: u64) {
    world.request(RECEIVER, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: up(), lifetime: secs(seconds) });
}

/// Responding rules 1, 2, 11, G-128: the beginning; a Query of the state's own peer.
#[test]
pub(super) fn what_the_beginning_does() {
    let mut book = book();
    book.case("first message | Birth", fork(), RECEIVER, |world| {
        world.send(0, text("old."));
        world.run(Duration::from_millis(100));
    });
    // The Confirm carries something.
    let mut asking = fork();
    asking.tap(|_, parcel| match message_of(parcel) {
        Some(message) if message.message_type() == MessageType::Confirm && matches!(parcel, Parcel::Association { from: 1, .. }) => {
            Fate::Lose
        }
        _ => Fate::Pass,
    });
    asking.send(0, text("old."));
    asking.run(Duration::from_millis(100));
    book.case("Confirm with a payload, for 60 s | Birth", asking, RECEIVER, |world| {
        let id = world.node(RECEIVER).associations()[0].association;
        confirms_more(world, 1, id);
    });
    for (with, world, peer) in worlds() {
        book.case(&format!("Query | {with}"), world, RECEIVER, |world| {
            let (_, _, query) = world.datagrams_of(peer, MessageType::Query).pop().unwrap();
            world.inject(RECEIVER, passing(&format!("{}:270", address_of(peer)), &query));
        });
    }
    // The second one's claim runs out, or it is the heir when the peer's does.
    book.case("the peer's state runs out | two", two(), RECEIVER, |world| {
        world.run(secs(20));
        confirms(world, BYPASS, true);
    });
    book.close();
}
