//! Associations that nobody uses (RFC 5971 §6.4), made on purpose.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{AssociationId, Request};
use gist::node::Registration;
use gist::wire::{Body, ErrorCause, Hello, Message, MessageType, NslpId};
use node_world::*;

fn lifetime(seconds: u64) -> Request {
    Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(seconds) }
}

/// Sender and router with an association that neither uses; the hold time is ten minutes.
fn idle() -> (World, AssociationId) {
    let mut world = World::chain_with(|_, config| config.hold_time = secs(600));
    world.members[1].relays = false;
    world.send(0, text("old."));
    world.run(secs(1));
    world.request(0, lifetime(0));
    let association = world.node(0).associations()[0].clone();
    assert_eq!(association.state, "Idle");
    (world, association.association)
}

fn hello(request: bool, id: u32) -> Message {
    let body = Body::Hello(Hello { request, id });
    Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

/// Association rule 9 (answers), and rule 4t in Idle: the peer answers the test, so the association stays, for the hold time from then.
#[test]
fn an_idle_association_whose_peer_answers_the_test_stays() {
    let (mut world, id) = idle();
    // The router answers by datagram, as one does that has forgotten the association.
    world.run(secs(5));
    world.forget_link(0, id);
    world.restart(1, |_, _| {});
    world.members[1].relays = false;
    world.send(0, text_for(session(2), b"two."));
    world.run(Duration::from_millis(50));
    let hellos = world.on_associations.iter().filter(|(_, from, _)| *from == 0).map(|(_, _, message)| &message.body);
    let asked: Vec<u32> =
        hellos.filter_map(|body| if let Body::Hello(Hello { request: true, id }) = body { Some(*id) } else { None }).collect();
    assert!(!asked.is_empty(), "it is tested");
    asked.into_iter().for_each(|number| world.inject_on(0, id, &hello(false, number)));
    let answered = world.now;
    world.run(secs(300));
    assert!(world.node(0).associations().iter().any(|entry| entry.association == id), "HelloReply has been stopped");
    world.run(secs(299));
    assert!(world.node(0).associations().iter().any(|entry| entry.association == id), "NoHello began anew with the answer");
    world.run(secs(2));
    assert!(world.now.saturating_duration_since(answered) > secs(600));
    assert!(!world.node(0).associations().iter().any(|entry| entry.association == id));
}

/// Association rule 4.4.2 in Idle: its peer may not be one any more.
#[test]
fn an_idle_association_goes_with_the_right_of_its_peer() {
    let (mut world, id) = idle();
    let now = world.now;
    world.members[0].node.set_authorised_peers(Vec::new(), now);
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(9), mri: down(), lifetime: secs(1) });
    assert!(world.node(0).associations().iter().all(|entry| entry.association != id));
    assert!(world.events(0).is_empty(), "nobody used it");
    world.run(secs(1));
    assert!(world.node(1).associations().is_empty(), "and the peer hears that it is closed");
}

/// G-145, G-210, association rule 0u: for a wrong cookie or an altered proposal alone §5.7.1 ends a new association. A Confirm that is refused
/// for its encapsulation is answered there, and another application's may follow; unless one does, the association goes.
#[test]
fn an_association_whose_first_confirm_belongs_into_a_datagram_goes_in_its_time_unless_another_is_confirmed_on_it() {
    const BY_DATAGRAM: NslpId = NslpId(NSLP.0 + 1);
    const UNCONFIRMED: Duration = Duration::from_secs(10);
    for confirmed in [false, true] {
        let mut world = World::chain_with(|_, config| {
            config.unconfirmed_timeout = UNCONFIRMED;
            config.registrations.push(Registration { offer: Vec::new(), ..Registration::secure(BY_DATAGRAM, None) });
        });
        world.members[1].relays = false;
        // Confirms do not arrive by themselves.
        world.tap(|_, parcel| match message_of(parcel) {
            Some(message) if message.message_type() == MessageType::Confirm => Fate::Lose,
            _ => Fate::Pass,
        });
        world.send(0, text("old."));
        world.run(Duration::from_millis(20));
        let id = world.node(1).associations()[0].association;
        let right = world.on_associations.iter().rfind(|(_, _, message)| message.message_type() == MessageType::Confirm).unwrap().2.clone();
        world.inject_on(1, id, &Message { nslp_id: BY_DATAGRAM, ..right.clone() });
        assert_eq!(world.errors_of(1).last().unwrap().cause(), Some(ErrorCause::IncorrectEncapsulation));
        assert_eq!((world.node(1).counters().wrong_encapsulation, world.node(1).routing_table().len()), (1, 0));
        if confirmed {
            world.inject_on(1, id, &right);
        }
        let stands = |world: &World| world.node(1).associations().iter().any(|entry| entry.association == id);
        world.run(UNCONFIRMED - secs(1));
        assert!(stands(&world), "the answer gets there");
        world.run(secs(2));
        assert_eq!(stands(&world), confirmed);
        assert_eq!(world.node(1).counters().unconfirmed_ended, u64::from(!confirmed));
    }
}
