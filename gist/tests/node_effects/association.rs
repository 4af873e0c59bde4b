//! The messaging association machine (RFC 5971 §6.4) at either end of the one between sender (0) and router (1).

use std::time::Duration;

use gist::api::{AssociationId, Request, SendMessage};
use gist::node::{AssociationEvent, NodeConfig, PeerCredentials};
use gist::wire::{Body, Cookie, Hello, Message, MessageType, NslpId};

use super::Book;
use super::node_world::*;
use super::querying::{response_for, tls};

pub(super) fn book() -> Book {
    Book::open("association", include_str!("association.txt"))
}

fn slow(_: usize, config: &mut NodeConfig) {
    config.hold_time = secs(20);
    config.hello_timeout = secs(7);
    config.unconfirmed_timeout = secs(60);
}

/// Whoever is asked has more time than anybody is silent for.
fn patient(_: usize, config: &mut NodeConfig) {
    config.hold_time = secs(10);
    config.hello_timeout = secs(25);
}

/// The sender has one that both use.
fn connected() -> World {
    connected_with(slow)
}

fn connected_with(change: fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::chain_with(change);
    world.members[1].relays = false;
    world.send(0, text("old."));
    world.run(secs(1));
    world
}

/// Nobody at the sender uses it any more.
fn unused() -> World {
    let mut world = connected();
    unwanted(&mut world);
    world
}

fn unwanted(world: &mut World) {
    let end = Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(0) };
    world.request(0, end);
}

/// Nobody at the router does.
fn unused_there() -> World {
    let mut world = connected();
    let end = Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: up(), lifetime: secs(0) };
    world.request(1, end);
    world
}

/// It is being opened.
fn connecting() -> World {
    connecting_with(slow)
}

fn connecting_with(change: fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::chain_with(change);
    world.connect_delay = secs(3600);
    world.send(0, text("old."));
    world.run(Duration::from_millis(50));
    world
}

/// Somebody has opened one to the router.
fn accepted() -> World {
    let mut world = World::chain_with(slow);
    world.accept(1, "10.0.1.9:40000", friend());
    world
}

fn friend() -> PeerCredentials {
    PeerCredentials { dns_names: vec!["friend.pbs.test".to_owned()], ..PeerCredentials::default() }
}

fn id(world: &World, number: usize) -> AssociationId {
    world.node(number).associations()[0].association
}

/// The peer has been asked whether it is there.
fn asked(mut world: World, number: usize) -> World {
    let asks = |world: &World| {
        let mine = world.on_associations.iter().filter(|(_, from, _)| *from == number);
        mine.filter(|(_, _, message)| matches!(message.body, Body::Hello(Hello { request: true, .. }))).count()
    };
    world.cut();
    let before = asks(&world);
    while asks(&world) == before {
        let next = world.node(number).poll_timeout().unwrap();
        world.run(next.saturating_duration_since(world.now));
        world.cut();
    }
    world
}

fn hello(world: &mut World, number: usize, request: bool, answers: bool) {
    let last = world.on_associations.iter().rev().find_map(|(_, from, message)| match message.body {
        Body::Hello(Hello { request: true, id }) if *from == number => Some(id),
        _ => None,
    });
    let hello_id = if answers { last.unwrap() } else { 77 };
    let body = Body::Hello(Hello { request, id: hello_id });
    let message = Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() };
    let id = id(world, number);
    world.inject_on(number, id, &message);
}

fn event(world: &mut World, number: usize, event: AssociationEvent) {
    let (id, now) = (id(world, number), world.now);
    world.members[number].node.handle_association(id, event, now);
}

/// An Error without its objects, which is not answered.
fn unreadable(world: &mut World, number: usize) {
    event(world, number, AssociationEvent::Received(vec![1, 9, 0, 0, 0, 0, 4, 0].into()));
}

fn bar(world: &mut World, number: usize) {
    let now = world.now;
    world.members[number].node.set_authorised_peers(Vec::new(), now);
}

/// Association rules 1, 2, 3, 4, 4s, 4t, 7, 8 (er_Misused too), 9, 4.4.2 at both ends in each state.
#[test]
pub(super) fn what_happens_to_an_open_association() {
    let mut book = book();
    type Make = fn() -> World;
    let makes: [(&str, usize, Make); 11] = [
        ("Connected, opened here, patient", 0, || connected_with(patient)),
        ("Connected, opened by the peer, patient", 1, || connected_with(patient)),
        ("Idle, asked", 0, || {
            let mut world = asked(connected(), 0);
            unwanted(&mut world);
            world
        }),
        ("Connected, opened here", 0, connected),
        ("Connected, asked", 0, || asked(connected(), 0)),
        ("Idle, opened here", 0, unused),
        ("Connected, opened by the peer", 1, connected),
        ("Connected, opened by the peer, asked", 1, || asked(connected(), 1)),
        ("Idle, opened by the peer", 1, accepted),
        ("Idle, of a certificate for 8 s", 1, || {
            let mut world = World::chain_with(slow);
            world.accept(1, "10.0.1.9:40000", PeerCredentials { valid_for: Some(secs(8)), ..friend() });
            world
        }),
        ("Connected, of a certificate for 8 s", 0, || {
            let mut world = World::chain_with(slow);
            world.members[1].relays = false;
            world.members[1].credentials.valid_for = Some(secs(8));
            world.send(0, text("old."));
            world.run(secs(1));
            world
        }),
    ];
    for (name, number, make) in makes {
        let later = || {
            let mut world = make();
            world.run(secs(2));
            world
        };
        let mut case = |what: &str, act: &dyn Fn(&mut World)| book.case(&format!("{what} | {name}"), later(), number, act);
        case("nothing", &|_| {});
        case("fails", &|world| event(world, number, AssociationEvent::Failed("reset".to_owned())));
        case("closed by the peer", &|world| event(world, number, AssociationEvent::Closed));
        case("peer barred", &|world| bar(world, number));
        case("MA-Hello that asks", &|world| hello(world, number, true, false));
        case("MA-Hello that answers nothing", &|world| hello(world, number, false, false));
        if name.contains("asked") {
            case("MA-Hello that answers", &|world| hello(world, number, false, true));
        }
        if name.starts_with("Idle") && number == 0 {
            case("message of another session", &|world| {
                world.send(0, text_for(session(2), b"two."));
                world.run(Duration::from_millis(10));
            });
        }
        if number == 0 {
            case("not wanted any more", &unwanted);
            case("message", &|world| world.send(0, text("new.")));
            // What is said puts off what asks, and nobody answers.
            case("messages all the time", &|world| {
                world.cut();
                for _ in 0..7 {
                    world.run(secs(3));
                    world.send(0, text("more"));
                }
            });
        }
        if ["Connected, opened here", "Idle, opened here", "Connected, opened by the peer", "Idle, opened by the peer"].contains(&name) {
            let mut world = later();
            (0..287).for_each(|_| unreadable(&mut world, number));
            world.run(Duration::ZERO);
            book.case(&format!("once more what cannot be read | {name}"), world, number, |world| unreadable(world, number));
        }
        let mut case = |what: &str, act: &dyn Fn(&mut World)| book.case(&format!("{what} | {name}"), later(), number, act);
        if number == 1 && name.starts_with("Connected") {
            case("message", &|world| world.send(1, SendMessage { mri: up(), ..text("back") }));
            case("data of the peer", &|world| {
                world.send(0, text("more"));
                world.run(Duration::from_millis(3));
            });
        }
    }
    book.close();
}

/// Association rules 1, 2, 4t, 8 (er_Replaced): one that nobody uses is used again, or its peer has lost it.
#[test]
pub(super) fn what_happens_to_an_association_that_nobody_uses() {
    let mut book = book();
    let query = |world: &World| world.datagrams_of(0, MessageType::Query).pop().unwrap().2;
    book.case("Query of the peer | Idle, left here", unused_there(), 1, |world| {
        let query = query(world);
        world.inject(1, passing("10.0.1.1:270", &query));
    });
    // The second one says that the answer to the first has not been heard: the peer is asked, and says nothing.
    book.case("Query of the peer, twice | Idle, left here", unused_there(), 1, |world| {
        let query = query(world);
        world.cut();
        world.inject(1, passing("10.0.1.1:270", &query));
        world.run(Duration::from_millis(400));
        world.inject(1, passing("10.0.1.1:270", &query));
    });
    // Its Query is answered over what it has lost, its next one by datagram, and then it confirms over another association.
    for (name, world) in [("Idle, left here", unused_there()), ("Connected", connected())] {
        book.case(&format!("peer comes back over another | {name}"), world, 1, |world| {
            let lost = id(world, 0);
            world.forget_link(0, lost);
            world.break_association(0, lost, "connection reset");
            world.send(0, text("new."));
            world.run(secs(3));
        });
    }
    // Somebody names its peer in a datagram, so that the Confirm is what is said first.
    for (name, change) in [("", slow as fn(usize, &mut NodeConfig)), (", patient", patient)] {
        let mut world = World::chain_with(change);
        world.members[1].relays = false;
        world.send(0, text("old."));
        world.run(Duration::from_millis(20));
        unwanted(&mut world);
        world.tap(|_, parcel| if matches!(parcel, Parcel::Datagram { from: 0, .. }) { Fate::Lose } else { Fate::Pass });
        book.case(&format!("a candidate over it | Idle{name}"), world, 0, |world| {
            world.send(0, text_for(session(2), b"two."));
            let response = response_for(world, session(2), 1, tls());
            world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &response));
        });
    }
    book.close();
}

/// Association rules 0, 0u, 0c, 4.4.2, 6, 7, 8: one that is being opened, here or by the peer.
#[test]
pub(super) fn what_happens_to_an_association_that_is_being_opened() {
    let mut book = book();
    let mut case = |what: &str, act: &dyn Fn(&mut World)| book.case(&format!("{what} | Awaiting Connection"), connecting(), 0, act);
    case("nothing", &|_| {});
    case("not wanted any more", &unwanted);
    case("fails", &|world| event(world, 0, AssociationEvent::Failed("refused".to_owned())));
    let connected = |credentials: PeerCredentials| AssociationEvent::Connected { credentials };
    case("connected", &|world| {
        let credentials = world.members[1].credentials.clone();
        event(world, 0, connected(credentials));
    });
    case("connected, of a certificate for 5 s", &|world| {
        let credentials = PeerCredentials { valid_for: Some(secs(5)), ..world.members[1].credentials.clone() };
        event(world, 0, connected(credentials));
    });
    case("connected to somebody else", &|world| {
        let credentials = PeerCredentials { dns_names: vec!["stranger.example".to_owned()], ..PeerCredentials::default() };
        event(world, 0, connected(credentials));
    });
    book.case("connected | Awaiting Connection, patient", connecting_with(patient), 0, |world| {
        let credentials = world.members[1].credentials.clone();
        event(world, 0, connected(credentials));
    });
    book.case("a stranger opens one | Birth", World::chain_with(slow), 1, |world| {
        world.accept(1, "10.0.1.9:40000", PeerCredentials { dns_names: vec!["stranger.example".to_owned()], ..friend() });
    });
    book.case("a friend opens one | Birth", World::chain_with(slow), 1, |world| {
        world.accept(1, "10.0.1.9:40000", friend());
    });
    let impatient = || World::chain_with(|_, config| config.unconfirmed_timeout = secs(10));
    book.case("a friend opens one, for 10 s | Birth", impatient(), 1, |world| {
        world.accept(1, "10.0.1.9:40000", friend());
    });
    book.case("a friend for 5 s opens one | Birth", World::chain_with(slow), 1, |world| {
        world.accept(1, "10.0.1.9:40000", PeerCredentials { valid_for: Some(secs(5)), ..friend() });
    });
    book.close();
}

/// Association rules G-231, 0, 0u, 2: the first message on one that the peer has opened.
#[test]
pub(super) fn what_the_first_confirm_does() {
    let mut book = book();
    for (name, truly) in [("true", true), ("false", false)] {
        let mut world = World::chain_with(|_, config| config.unconfirmed_timeout = secs(10));
        world.members[1].relays = false;
        // The Confirm does not arrive by itself.
        world.tap(|_, parcel| match message_of(parcel) {
            Some(message) if message.message_type() == MessageType::Confirm => Fate::Lose,
            _ => Fate::Pass,
        });
        world.send(0, text("old."));
        world.run(Duration::from_millis(20));
        book.case(&format!("a {name} Confirm | Idle"), world, 1, |world| {
            let confirms = world.on_associations.iter().filter(|(_, _, message)| message.message_type() == MessageType::Confirm);
            let mut message = confirms.last().unwrap().2.clone();
            let Body::Confirm(confirm) = &mut message.body else { panic!("Confirm") };
            if !truly {
                let mut octets = confirm.responder_cookie.as_ref().unwrap().as_bytes().to_vec();
                *octets.last_mut().unwrap() ^= 1;
                confirm.responder_cookie = Cookie::new(octets);
            }
            let id = id(world, 1);
            world.inject_on(1, id, &message);
        });
    }
    book.close();
}
