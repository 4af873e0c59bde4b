//! Associations that one end has forgotten without the other being told, as after a crash (X-119; RFC 5971 §4.4.3, §4.4.5).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{AssociationId, NetworkEvent, Request, RoutingStatus};
use gist::node::AssociationEvent;
use gist::wire::{Body, Cookie, Message, MessageType};
use node_world::*;

/// The sender and the first router, which does not pass on what it gets, have talked for a while.
fn talking() -> World {
    let mut world = World::chain_with(|_, config| config.validity = secs(3600));
    world.members[1].relays = false;
    for session_number in [1, 2] {
        world.send(0, text_for(session(session_number), b"down"));
        world.run(secs(1));
        world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(session_number), mri: down(), lifetime: secs(3600) });
    }
    world.run(secs(5));
    assert_eq!((world.connects, world.payloads(1).len()), (1, 2));
    world
}

fn only_association(world: &World, number: usize) -> AssociationId {
    let associations = world.node(number).associations();
    assert_eq!(associations.len(), 1);
    associations[0].association
}

/// The end at this node is gone, and the node knows; nobody tells the other end.
fn lose_end_at(world: &mut World, number: usize) {
    let id = only_association(world, number);
    world.forget_link(number, id);
    world.break_association(number, id, "connection reset");
}

/// A Query of somebody who has seen one of the sender's, or made it up.
fn forged(world: &World) -> Message {
    let mut message = world.datagrams_of(0, MessageType::Query).last().unwrap().2.clone();
    let Body::Query(query) = &mut message.body else { panic!("{message:?}") };
    query.cookie = Cookie::new(vec![7; 16]).unwrap();
    message
}

fn requests(world: &World, number: usize) -> usize {
    let is_request = |body: &Body| matches!(body, Body::Hello(hello) if hello.request);
    world.on_associations.iter().filter(|(_, of, message)| *of == number && is_request(&message.body)).count()
}

/// Association 8 (er_Replaced), 4t; X-119: who has lost its end asks, is answered over the association that it does not have, and asks
/// again. The other end asks whether it is there, and then answers by datagram.
#[test]
fn who_has_lost_its_end_of_an_association_has_another_within_two_seconds() {
    let mut world = talking();
    lose_end_at(&mut world, 0);
    let old = only_association(&world, 1);
    let since = world.now;
    world.send(0, text("anew"));
    while !world.payloads(1).iter().any(|payload| payload == "anew") {
        world.run(Duration::from_millis(10));
        assert!(world.now.saturating_duration_since(since) <= secs(2), "{:?}", world.payloads(1));
    }
    world.run(Duration::from_millis(10));
    // The old one has failed for what still used it, as soon as its peer had confirmed over the new one.
    assert_ne!(only_association(&world, 1), old);
    assert!(world.events(1).contains(&NetworkEvent::AssociationLost));
    world.send(0, text_for(session(2), b"side"));
    world.run(secs(1));
    assert!(world.payloads(1).iter().any(|payload| payload == "side"));
    assert_eq!(world.connects, 2);
}

/// Querying 4c over a suspect association; association 8 (er_Replaced): the end that did not open it has forgotten it, as after a crash.
/// Its Responses come by datagram, and the second of them leads to another association.
#[test]
fn who_keeps_an_association_that_its_peer_has_forgotten_has_another_within_two_seconds() {
    let mut world = talking();
    let old = only_association(&world, 0);
    world.forget_link(0, old);
    world.restart(1, |_, _| {});
    world.members[1].relays = false;
    let since = world.now;
    world.request(
        0,
        Request::InvalidateRoutingState {
            nslp_id: NSLP,
            session: session(1),
            mri: down(),
            status: RoutingStatus::Tentative,
            urgent: false,
        },
    );
    world.send(0, text("lost"));
    // The application hears that what it has sent may be lost (G-014), for this flow and for the other one.
    while !(world.events(0).contains(&NetworkEvent::PeerChanged) && world.events(0).contains(&NetworkEvent::AssociationLost)) {
        world.run(Duration::from_millis(10));
        assert!(world.now.saturating_duration_since(since) <= secs(2), "{:?}", world.payloads(1));
    }
    assert_ne!(only_association(&world, 0), old);
    world.send(0, text("anew"));
    world.send(0, text_for(session(2), b"side"));
    world.run(secs(1));
    assert_eq!(world.payloads(1)[2..], ["anew", "side"]);
    assert_eq!(world.connects, 2);
}

/// Queries that only say whom they are from make the node ask, one request at a time, and neither break an association that is
/// alive nor add one.
#[test]
fn forged_queries_do_not_end_an_association_whose_peer_is_there() {
    let mut world = talking();
    let query = forged(&world);
    let (before, association) = (requests(&world, 1), only_association(&world, 1));
    for _ in 0..100 {
        world.inject(1, passing("10.0.1.1:270", &query));
        world.run(Duration::from_millis(100));
    }
    let asked = requests(&world, 1) - before;
    assert!((1..=40).contains(&asked), "{asked} in 10 s");
    assert_eq!(only_association(&world, 1), association);
    world.send(0, text("stay"));
    world.send(0, text_for(session(3), b"next"));
    world.run(secs(1));
    let payloads = world.payloads(1);
    assert_eq!(payloads[2..], ["stay", "next"]);
    assert_eq!((world.connects, world.events(0), world.events(1)), (1, vec![], vec![]));
}

/// an answer that comes late, over a way where everything takes longer than T1, ends the suspicion: nothing fails.
#[test]
fn a_suspect_association_over_which_something_is_heard_is_as_good_as_before() {
    let mut world = talking();
    let blackout = std::rc::Rc::clone(&world.blackout);
    world.tap(move |_, parcel| match parcel {
        Parcel::Association { event: AssociationEvent::Received(_), .. } if blackout.get() => Fate::Lose,
        _ => Fate::Pass,
    });
    world.blackout.set(true);
    let query = forged(&world);
    for _ in 0..3 {
        world.inject(1, passing("10.0.1.1:270", &query));
        world.run(Duration::from_millis(500));
    }
    // By now it is suspect: the third Response went by datagram, and nobody believes it.
    assert!(!world.datagrams_of(1, MessageType::Response).is_empty());
    world.blackout.set(false);
    world.send(0, text("stay"));
    world.run(secs(1));
    world.send(0, text_for(session(3), b"next"));
    world.run(secs(1));
    assert_eq!(world.payloads(1)[2..], ["stay", "next"]);
    assert_eq!(world.connects, 1);
}
