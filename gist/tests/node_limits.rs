//! Bounds: the rate limiter, full tables and queues (RFC 5971 §5.3.3, §8.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::SendError;
use gist::node::{DatagramRate, PeerCredentials};
use gist::wire::{Body, MessageType};
use node_world::*;

fn friend(number: usize) -> PeerCredentials {
    PeerCredentials { dns_names: vec![format!("friend{number}.pbs.test")], ..PeerCredentials::default() }
}

/// G-202, G-203, G-205: Queries of many sessions leave at the bucket's rate, none is lost.
#[test]
fn queries_of_many_sessions_are_paced() {
    let mut world = World::chain_with(|_, config| config.datagram_rate = DatagramRate { per_second: 100, burst: 10 });
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

/// G-184, G-340: a flood of Queries gets a bounded number of Responses and does not keep the node from its own business.
#[test]
fn a_flood_of_queries_does_not_starve_the_nodes_own() {
    let mut world = World::chain_with(|_, config| config.datagram_rate = DatagramRate { per_second: 1, burst: 40 });
    let mut probe = World::chain();
    probe.send(0, text_for(session(0), b"down"));
    let (_, _, mut query) = probe.datagrams_of(0, MessageType::Query)[0].clone();
    for number in 0..1000_u16 {
        let Body::Query(body) = &mut query.body else { panic!("Query") };
        body.session.0[..2].copy_from_slice(&number.to_be_bytes());
        body.nli.address = address("10.0.1.200");
        world.inject(1, passing("10.0.1.200:270", &query));
    }
    assert_eq!(world.node(1).counters().rate_dropped, 1000 - 30);
    assert!(world.node(1).routing_table().is_empty());
    // Ten tokens are left for Queries of the router's own.
    world.send(1, text("mine"));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["mine"]);
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

/// [`gist::node::Caps::associations`]: strangers cannot push out an established peer.
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
    // Nor is there room to open one: querying rule G-343.
    world.send(1, text_for(session(4), b"mine"));
    world.run(secs(1));
    assert_eq!(world.connects, 1);
    assert_eq!(world.node(1).routing_table().len(), 2);
}

/// [`gist::node::Caps::unconfirmed_associations`].
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
    assert_eq!(world.payloads(1), ["more"]);
}
