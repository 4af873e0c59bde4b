//! Bounds: the rate limiter, full tables and queues (RFC 5971 §5.3.3, §8.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{Request, SendError};
use gist::node::{DatagramRate, PeerCredentials};
use gist::wire::{Body, Data, Message, MessageType, NslpId};
use node_world::*;

fn friend(number: usize) -> PeerCredentials {
    PeerCredentials { dns_names: vec![format!("friend{number}.pbs.test")], ..PeerCredentials::default() }
}

/// G-202: Errors have their part of the limit as well, and what is only passed on takes nothing of it, nor has to wait for it.
#[test]
fn errors_are_limited_and_what_is_passed_on_is_not() {
    let rate = DatagramRate { per_second: 32, burst: 32, most_per_second: 32 };
    let mut world = World::chain_with(|_, config| config.datagram_rate = rate);
    world.send(0, text("down"));
    let query = world.datagrams_of(0, MessageType::Query)[0].2.clone();
    let Body::Query(body) = &query.body else { panic!("Query") };
    let data = Data {
        nat: None,
        mri: down(),
        session: session(9),
        nli: Some(body.nli.clone()),
        payload: "lost".into(),
        explicit: false,
        context_free: false,
    };
    for number in 1..=200_u8 {
        let mut data = data.clone();
        data.nli.as_mut().unwrap().address = address(&format!("10.0.1.{number}"));
        let stray = Message { body: Body::Data(data), ..query.clone() };
        world.inject(1, direct(&format!("10.0.1.{number}:270"), "10.0.1.254", &stray));
    }
    let errors = world.errors_of(1).len();
    assert!((1..=4).contains(&errors), "{errors} at once, of a part of 2");
    world.run(Duration::from_millis(1000));
    assert!(world.errors_of(1).len() <= errors + 3);
    let foreign = Message { nslp_id: NslpId(99), ..query };
    let before = world.datagrams_of(1, MessageType::Query).len();
    (0..200).for_each(|_| world.inject(1, passing("10.0.1.1:270", &foreign)));
    assert_eq!(world.datagrams_of(1, MessageType::Query).len() - before, 200);
}

/// G-202, G-203, G-205: Queries of many sessions leave at the rate of their half of the limit, none is lost.
#[test]
fn queries_of_many_sessions_are_paced() {
    let rate = DatagramRate { per_second: 200, burst: 20, most_per_second: 200 };
    let mut world = World::chain_with(|_, config| config.datagram_rate = rate);
    world.members[1].alive = false;
    for number in 0..60 {
        world.send(0, text_for(session(number), b"down"));
    }
    assert_eq!(world.datagrams.len(), 10);
    world.run(Duration::from_millis(100));
    assert_eq!(world.datagrams.len(), 20);
    world.run(Duration::from_millis(390));
    assert_eq!(world.datagrams.len(), 59);
    // Retransmissions share the bucket (G-202).
    world.run(secs(2));
    assert!(world.datagrams.len() <= 10 + 249, "{}", world.datagrams.len());
    assert!(world.node(0).counters().rate_delayed >= 50);
}

/// G-184, G-340: a flood of Queries gets a bounded number of Responses and keeps the node neither from its own business nor
/// from that of a flow that exists.
#[test]
fn a_flood_of_queries_does_not_starve_the_nodes_own() {
    let rate = DatagramRate { per_second: 16, burst: 64, most_per_second: 16 };
    let mut world = World::chain_with(|number, config| {
        if number == 1 {
            config.datagram_rate = rate;
        }
    });
    world.send(0, text("down"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    let before = *world.node(1).counters();
    let mut probe = World::chain();
    probe.send(0, text_for(session(0), b"down"));
    let (_, _, mut query) = probe.datagrams_of(0, MessageType::Query)[0].clone();
    for number in 0..1000_u16 {
        let Body::Query(body) = &mut query.body else { panic!("Query") };
        body.session.0[..2].copy_from_slice(&number.to_be_bytes());
        // Two, since one destination does not get that much.
        let from = format!("10.0.1.{}", 200 + number % 2);
        body.nli.address = address(&from);
        world.inject(1, passing(&format!("{from}:270"), &query));
    }
    // One of each group of sources, twelve of their interface and eight of what is for all.
    let answered = 1000 - (world.node(1).counters().rate_dropped - before.rate_dropped);
    assert!((21..=22).contains(&answered), "{answered}");
    assert_eq!(world.node(1).routing_table().len(), 2, "the flow's, at either side");
    // The Queries of the router's own have a part that nobody else takes.
    world.send(1, text_for(session(2), b"mine"));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["down", "mine"]);
    // And the sender's refreshes are answered while the flood goes on.
    let confirms = |world: &World| {
        let confirms = world.on_associations.iter().filter(|(_, from, message)| *from == 0 && matches!(message.body, Body::Confirm(_)));
        confirms.count()
    };
    let first = confirms(&world);
    for _ in 0..9000 {
        world.inject(1, passing("10.0.1.200:270", &query));
        world.run(Duration::from_millis(10));
    }
    assert!(confirms(&world) >= first + 3);
    assert_eq!(world.node(1).routing_table().iter().filter(|entry| entry.session == session(1)).count(), 2);
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
}

/// [`gist::node::Caps::queued_messages_per_state`].
#[test]
fn a_full_message_queue_refuses_what_is_new() {
    let mut world = World::chain_with(|_, config| config.caps.queued_messages_per_state = 2);
    for word in ["one.", "two.", "tree"] {
        world.send(0, text(word));
    }
    assert_eq!(world.failures(0)[0].1, SendError::QueueFull);
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["one.", "two."]);
}

/// [`gist::node::Caps::routing_states`], at either end; what is established stays.
#[test]
fn a_full_routing_table_refuses_what_is_new() {
    let mut world = World::chain_with(|number, config| {
        if number == 1 {
            config.caps.routing_states = 1;
        }
    });
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down"]);
    assert_eq!(world.node(1).routing_table().len(), 1);
    assert!(world.node(1).counters().refused_when_full >= 1);
    world.send(1, text_for(session(3), b"mine"));
    assert_eq!(world.failures(1)[0].1, SendError::QueueFull);
    world.send(0, text("last"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "last"]);
}

/// [`gist::node::Caps::associations`]: strangers cannot push out an established peer, nor one another; what this node itself
/// needs has room in place of one that nobody uses.
#[test]
fn a_full_association_table_refuses_what_is_new() {
    let mut world = World::chain_with(|_, config| config.caps.associations = 3);
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    for number in 0..10 {
        world.accept(1, "10.0.1.9:40000", friend(number));
    }
    assert_eq!(world.node(1).associations().len(), 3);
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
    world.send(1, text_for(session(4), b"mine"));
    world.run(secs(1));
    assert_eq!((world.connects, world.node(1).associations().len()), (2, 3));
    assert_eq!((world.node(1).counters().idle_displaced, world.payloads(2)), (1, vec!["mine".into()]));
}

/// Where every association serves a flow there is no room to open one: querying rule G-343.
#[test]
fn an_association_in_use_gives_way_to_nobody() {
    let mut world = World::chain_with(|_, config| config.caps.associations = 1);
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    world.accept(1, "10.0.1.9:40000", friend(1));
    world.send(1, text_for(session(4), b"mine"));
    world.run(secs(1));
    assert_eq!((world.connects, world.node(1).associations().len()), (1, 1));
    assert_eq!(world.node(1).routing_table().len(), 2);
    assert_eq!(world.node(1).counters().idle_displaced, 0);
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
}

/// In a full table the holder of most idle associations gives way to who holds fewer, and to nobody else.
#[test]
fn the_largest_holder_of_idle_associations_gives_way() {
    let mut world = World::chain_with(|_, config| config.caps.associations = 5);
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    let hoarder = || credentials("hoarder", &["10.0.1.66"]);
    let hoarded: Vec<_> = (0..4).map(|_| world.accept(1, "10.0.1.66:40000", hoarder())).collect();
    let held = |world: &World| -> Vec<_> { world.node(1).associations().iter().map(|entry| entry.association).collect() };
    assert_eq!(held(&world).len(), 5);
    world.accept(1, "10.0.1.66:40000", hoarder());
    assert_eq!(held(&world)[1..], hoarded);
    let newcomer = world.accept(1, "10.0.1.9:40000", credentials("one", &["10.0.1.9"]));
    assert_eq!(held(&world)[1..], [&hoarded[1..], &[newcomer]].concat());
    let next = world.accept(1, "10.0.1.9:40001", credentials("two", &["10.0.1.10"]));
    assert_eq!(held(&world)[1..], [&hoarded[2..], &[newcomer, next]].concat());
    // Two for the hoarder, one for each other: nobody holds too much any more.
    world.accept(1, "10.0.1.9:40002", credentials("two", &["10.0.1.10"]));
    assert_eq!(held(&world)[1..], [&hoarded[2..], &[newcomer, next]].concat());
    assert_eq!(world.node(1).counters().idle_displaced, 2);
}

/// G-342: [`gist::node::Caps::unconfirmed_associations`].
#[test]
fn associations_that_confirm_nothing_hold_only_a_part_of_the_table() {
    let mut world = World::chain_with(|_, config| config.caps.unconfirmed_associations = 2);
    for number in 0..10 {
        world.accept(1, "10.0.1.9:40000", friend(number));
    }
    assert_eq!(world.node(1).associations().len(), 2);
    world.send(0, text("down"));
    world.run(secs(1));
    assert!(world.payloads(1).is_empty(), "refused while the strangers sit there");
    world.run(secs(31));
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"], "asked again until there was room");
}

/// [`gist::api::SendMessage::on_behalf_of`]: whose messages lead to states at the next hop gets a share of the table, and the
/// node's own application, and everybody else, keep the rest.
#[test]
fn what_one_cause_leads_to_is_a_share_of_the_table() {
    let mut world = World::chain_with(|_, config| config.caps.routing_states = 32);
    world.members[2].alive = false;
    let cause = |number: u8| Some(gist::api::Principal([number; 32]));
    let send = |world: &mut World, number: u8, on_behalf_of| {
        let before = world.failures(1).len();
        world.send(1, gist::api::SendMessage { on_behalf_of, ..text_for(session(number), b"word") });
        world.failures(1).get(before).map(|(_, error)| error.clone())
    };
    for number in 0..4 {
        assert_eq!(send(&mut world, number, cause(1)), None);
    }
    assert_eq!(send(&mut world, 4, cause(1)), Some(SendError::QueueFull), "an eighth");
    assert_eq!(send(&mut world, 0, cause(1)), None, "a state that exists is used");
    assert_eq!(send(&mut world, 5, cause(2)), None);
    for number in 6..15 {
        assert_eq!(send(&mut world, number, None), None);
    }
    // What ends makes room again: by the application's word, or because nobody answers.
    let lifetime = Request::SetStateLifetime { nslp_id: NSLP, session: session(0), mri: down(), lifetime: Duration::ZERO };
    world.request(1, lifetime);
    assert_eq!(send(&mut world, 4, cause(1)), None);
    assert_eq!(send(&mut world, 16, cause(1)), Some(SendError::QueueFull));
    world.run(secs(40));
    assert!(world.node(1).routing_table().is_empty());
    for number in 20..24 {
        assert_eq!(send(&mut world, number, cause(1)), None);
    }
}

/// A neighbour that is a router gets as much of it as of states it asks for itself: three quarters.
#[test]
fn a_router_may_cause_more() {
    let mut world = World::fork_with(|_, config| config.caps.routing_states = 16);
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    // The bypass router has an association to the receiver, and so is known there.
    world.send(BYPASS, text_for(session(99), b"word"));
    world.run(secs(1));
    let principal = Some(world.received(2)[0].principal);
    let mut mri = down();
    if let gist::wire::Mri::PathCoupled(mri) = &mut mri {
        mri.destination = address("10.0.3.1");
    }
    for number in 0..12 {
        world.send(2, gist::api::SendMessage { on_behalf_of: principal, mri: mri.clone(), ..text_for(session(number), b"word") });
    }
    assert!(world.failures(2).is_empty());
    world.send(2, gist::api::SendMessage { on_behalf_of: principal, mri, ..text_for(session(12), b"word") });
    assert_eq!(world.failures(2).len(), 1);
}
