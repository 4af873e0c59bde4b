//! How long an association may outlive its peer, or its peer's certificate (RFC 5971 §4.4.5, §5.7.3.1, §6.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{NetworkEvent, Request};
use gist::node::{AssociationEvent, NodeConfig};
use gist::wire::{Body, Hello};
use node_world::*;

/// One message has gone over the first link; its GIST state is wanted for an hour.
fn talking(change: impl Fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::chain_with(change);
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    world
}

/// Power fails at the router, or the wire is cut: nothing arrives any more, and no reset says so.
fn cut(world: &mut World) {
    world.tap(|_, _| Fate::Lose);
}

/// G-292, G-296 (association rule 4s): the bound is hold time and reply time, 40 s, however much is sent meanwhile; no refresh
/// of routing state is near.
#[test]
fn a_peer_that_is_gone_without_a_word_is_noticed_although_much_is_sent_to_it() {
    for pause in [1, 14, 60] {
        let mut world = talking(|_, config| config.validity = secs(3600));
        cut(&mut world);
        let since = world.now;
        while world.events(0).is_empty() {
            if (world.now.saturating_duration_since(since).as_secs() + 1) % pause == 0 {
                world.send(0, text("more"));
            }
            world.run(secs(1));
            assert!(world.now.saturating_duration_since(since) <= secs(40), "sending each {pause} s");
        }
        assert_eq!(world.events(0), [NetworkEvent::AssociationLost]);
        assert!(world.node(0).associations().is_empty());
        // The other end notices too, and its application hears of it.
        world.run(secs(40));
        assert_eq!(world.events(1), [NetworkEvent::AssociationLost]);
        assert!(world.node(1).associations().is_empty());
    }
}

/// The same for who only answers: what the peer sends keeps the association, nothing else does.
#[test]
fn a_peer_that_talks_is_not_asked() {
    let mut world = talking(|_, config| config.validity = secs(3600));
    world.tap(|_, parcel| match message_of(parcel).map(|message| message.message_type()) {
        // Not one MA-Hello arrives.
        Some(gist::wire::MessageType::Hello) => Fate::Lose,
        _ => Fate::Pass,
    });
    world.run(secs(1));
    for _ in 0..30 {
        let mut answer = text("back");
        answer.mri = up();
        world.send(1, answer);
        world.send(0, text("more"));
        world.run(secs(10));
    }
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
    assert_eq!(world.connects, 1);
}

/// G-296 (association rule 4t): an association that nobody uses is tested too when its peer seems to have forgotten it.
#[test]
fn an_idle_association_that_the_peer_has_forgotten_is_tested() {
    let mut world = talking(|_, config| config.hold_time = secs(600));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: Duration::ZERO });
    world.run(secs(5));
    let old = world.node(0).associations()[0].clone();
    assert_eq!(old.state, "Idle");
    world.forget_link(0, old.association);
    world.restart(1, |_, _| {});
    world.members[1].relays = false;
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
    assert_eq!(world.node(0).associations().len(), 2);
    world.run(secs(10));
    assert!(world.node(0).associations().iter().all(|entry| entry.association != old.association));
}

/// G-097, G-245: association rule 4.4.2 (to_CertificateEnd), on either side and for who opened it as for who accepted it.
/// Takes: association 0, 6.
#[test]
fn an_association_ends_with_the_certificate_of_its_peer() {
    for expiring in [0, 1] {
        let mut world = World::chain();
        world.members[1].relays = false;
        world.members[expiring].credentials.valid_for = Some(secs(100));
        world.send(0, text("down"));
        world.run(secs(1));
        world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
        world.run(secs(98));
        assert!(world.events(0).is_empty() && world.events(1).is_empty());
        world.run(secs(2));
        let other = 1 - expiring;
        assert_eq!(world.events(other), [NetworkEvent::NotAuthorised], "who sees the certificate");
        assert_eq!(world.events(expiring), [NetworkEvent::AssociationLost], "whose it is");
        assert_eq!(world.node(other).counters().not_authorised, 1);
        for number in [0, 1] {
            assert!(world.node(number).associations().is_empty() && world.node(number).routing_table().is_empty());
        }
        // With a new one everything goes on.
        world.members[expiring].credentials.valid_for = Some(secs(1000));
        world.send(0, text("anew"));
        world.run(secs(1));
        assert_eq!(world.payloads(1), ["down", "anew"]);
    }
}

/// What is used or not makes no difference.
#[test]
fn an_idle_association_ends_with_the_certificate_too() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.members[1].credentials.valid_for = Some(secs(10));
    world.send(0, text("down"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: Duration::ZERO });
    world.run(secs(8));
    assert_eq!(world.node(0).associations()[0].state, "Idle");
    world.run(secs(2));
    assert!(world.node(0).associations().is_empty());
}

/// One that is at its end when TLS has taken it.
#[test]
fn a_certificate_without_any_time_left_carries_nothing() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.members[0].credentials.valid_for = Some(Duration::ZERO);
    world.send(0, text("down"));
    world.run(secs(1));
    assert!(world.payloads(1).is_empty());
    assert!(world.node(1).associations().is_empty());
}

/// G-085: the hold time of the first Confirm replaces that of the Query: the responding node speaks often enough for it.
#[test]
fn the_hold_time_that_counts_is_that_of_the_confirm() {
    let speaks_within = |confirmed: Option<u64>| {
        let mut world = World::chain();
        world.members[1].relays = false;
        world.tap(move |_, parcel| {
            let (Parcel::Association { from, to, id, .. }, Some(mut message), Some(seconds)) = (parcel, message_of(parcel), confirmed)
            else {
                return Fate::Pass;
            };
            let Body::Confirm(confirm) = &mut message.body else { return Fate::Pass };
            // Later ones say nothing about it.
            let Some(configuration) = &mut confirm.configuration else { return Fate::Pass };
            configuration.hold_time = secs(seconds);
            let event = AssociationEvent::Received(message.to_bytes().unwrap());
            Fate::Change(Parcel::Association { from: *from, to: *to, id: *id, event })
        });
        world.send(0, text("down"));
        world.run(secs(1));
        let (since, before) = (world.now, world.on_associations.len());
        world.run(secs(30));
        let first = world.on_associations[before..]
            .iter()
            .find(|(_, from, message)| *from == 1 && matches!(message.body, Body::Hello(Hello { request: true, .. })));
        first.map(|(at, ..)| at.saturating_duration_since(since))
    };
    assert!(speaks_within(Some(6)).is_some_and(|span| span < secs(6)));
    assert!(speaks_within(None).is_none_or(|span| span > secs(6)), "the Query's are 30 s");
}
