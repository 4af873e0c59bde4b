//! The responding machine where state comes with the Query (RFC 5971 §6.3, cases 1 and 2): at the router, whose application sends datagrams.

use std::time::Duration;

use gist::api::{Request, SendMessage, TransferAttributes};
use gist::node::{Datagram, Installation};
use gist::wire::{Body, Confirm, Data, Message, MessageType, Query};

use super::Book;
use super::node_world::*;

const ROUTER: usize = 1;
/// The state's peer, and another node.
const PEER: &str = "10.0.1.1";
const OTHER: &str = "10.0.1.7";

fn world(installation: Installation) -> World {
    let mut world = World::chain_with(|_, config| {
        config.registrations[0].offer.clear();
        config.registrations[0].installation = installation;
    });
    world.members[ROUTER].relays = false;
    world
}

fn open(payload: &'static str) -> SendMessage {
    SendMessage { attributes: TransferAttributes::default(), ..text(payload) }
}

fn query(world: &World) -> Message {
    world.datagrams_of(0, MessageType::Query)[0].2.clone()
}

fn body(message: &Message) -> Query {
    let Body::Query(query) = message.body.clone() else { panic!("Query") };
    query
}

/// The Query in the name of whoever is there, by one of the interfaces.
fn asks(message: &Message, address: &str, interface: u32) -> Datagram {
    let mut query = body(message);
    if address != PEER {
        (query.nli.peer, query.nli.address) = (identity(7), self::address(address));
    }
    Datagram { interface, ..passing(&format!("{address}:270"), &Message { body: Body::Query(query), ..message.clone() }) }
}

fn asks_by(world: &mut World, address: &str, interface: u32) {
    let query = query(world);
    world.inject(ROUTER, asks(&query, address, interface));
}

/// The Confirm of a Query that another world's router has answered: it is the same node.
fn confirms(world: &mut World, address: &str, interface: u32) {
    let query = query(world);
    let mut twin = self::world(Installation::OnConfirm);
    twin.run(world.now.saturating_duration_since(twin.now));
    twin.inject(ROUTER, asks(&query, address, interface));
    let (_, _, response) = twin.datagrams_of(ROUTER, MessageType::Response).pop().unwrap();
    let Body::Response(response) = response.body else { panic!("Response") };
    let asked = gist::wire::datagram::decode(asks(&query, address, interface).payload).unwrap();
    let confirm = Confirm {
        mri: down(),
        session: session(1),
        nli: body(&asked).nli,
        responder_cookie: response.responder.map(|responder| responder.cookie),
        proposal: None,
        configuration: None,
        payload: Some("with".into()),
    };
    world.inject(ROUTER, direct(&format!("{address}:270"), "10.0.1.254", &of_peer(&query, Body::Confirm(confirm))));
}

fn of_peer(query: &Message, body: Body) -> Message {
    Message { body, source_is_signalling: true, ..query.clone() }
}

fn says(world: &mut World) {
    let query = query(world);
    let (nli, payload) = (Some(body(&query).nli), "data".into());
    let data = Data { nat: None, mri: down(), session: session(1), nli, payload, explicit: false, context_free: false };
    world.inject(ROUTER, direct("10.0.1.1:270", "10.0.1.254", &of_peer(&query, Body::Data(data))));
}

fn lifetime(world: &mut World, seconds: u64) {
    world.request(ROUTER, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: up(), lifetime: secs(seconds) });
}

/// Who asked says no more; the Response has been repeated once.
fn worlds() -> Vec<(&'static str, World)> {
    let asked = |installation: Installation| {
        let mut world = world(installation);
        world.send(0, open("down"));
        world.run(Duration::from_micros(1500));
        world.members[0].alive = false;
        world.run(Duration::from_millis(700));
        world
    };
    let confirmed = || {
        let mut world = world(Installation::OnQuery);
        world.send(0, open("down"));
        world.run(secs(1));
        world.members[0].alive = false;
        world
    };
    let refreshing = || {
        let mut world = confirmed();
        let query = query(&world);
        world.inject(ROUTER, asks(&query, PEER, 1));
        world.run(Duration::from_millis(700));
        world
    };
    vec![
        ("early, asked", asked(Installation::OnQuery)),
        ("early, confirmed", confirmed()),
        ("early, refreshing", refreshing()),
        ("early, never confirmed", asked(Installation::WithoutConfirm)),
    ]
}

/// Responding rules 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, B.5, G-128, G-306: what peers, others, the application and clocks do.
#[test]
pub(super) fn what_a_query_makes() {
    let mut book = Book::open("responding", include_str!("responding.txt"));
    type Act = fn(&mut World);
    let again: [(&str, &str, u32); 3] = [("asks again", PEER, 1), ("asks by another interface", PEER, 2), ("another asks", OTHER, 1)];
    for (name, address, interface) in again {
        for (with, world) in worlds() {
            book.case(&format!("{name} | {with}"), world, ROUTER, |world| asks_by(world, address, interface));
        }
    }
    let acts: [(&str, Act); 9] = [
        ("confirms", |world| confirms(world, PEER, 1)),
        ("confirms by another interface", |world| confirms(world, PEER, 2)),
        ("confirms by another interface, twice", |world| {
            confirms(world, PEER, 2);
            asks_by(world, PEER, 2);
            confirms(world, PEER, 2);
        }),
        ("another confirms", |world| confirms(world, OTHER, 1)),
        ("data", says),
        ("message upstream, then a Confirm", |world| {
            world.send(ROUTER, SendMessage { mri: up(), ..open("back") });
            confirms(world, PEER, 1);
        }),
        ("message upstream", |world| world.send(ROUTER, SendMessage { mri: up(), ..open("back") })),
        ("not wanted", |world| lifetime(world, 0)),
        ("wanted for 5 s", |world| lifetime(world, 5)),
    ];
    for (name, act) in acts {
        for (with, world) in worlds() {
            book.case(&format!("{name} | {with}"), world, ROUTER, act);
        }
    }
    book.close();
}
