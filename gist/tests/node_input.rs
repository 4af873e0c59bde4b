//! Any input at all, and the same input twice (G-395, G-396).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use bytes::Bytes;
use gist::api::{AssociationId, PathId, Request, RoutingStatus};
use gist::node::{AssociationEvent, Datagram, Output};
use gist::wire::{Cookie, MessageType};
use node_world::*;
use proptest::prelude::*;

/// Every kind of message that a whole exchange shows, with the node that got it.
fn specimens() -> Vec<(usize, Bytes, bool)> {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(40));
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(40));
    let datagrams = world.datagrams.iter().map(|(_, from, transmit)| (*from, encoded(&message_in(transmit)), true));
    let others = world.on_associations.iter().map(|(_, from, message)| (*from, message.to_bytes().unwrap(), false));
    datagrams.chain(others).collect()
}

/// A world in the middle of things.
fn busy() -> World {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    world.send(0, text_for(session(3), b"wait"));
    world
}

fn feed(world: &mut World, number: usize, bytes: Bytes, as_datagram: bool, query_mode: bool, id: u64) {
    let now = world.now;
    let node = &mut world.members[number].node;
    if as_datagram {
        let datagram = Datagram {
            source: "10.0.1.1:270".parse().unwrap(),
            destination: address(if query_mode { "10.0.2.1" } else { "10.0.1.254" }),
            ip_ttl: Some(60),
            interface: 2,
            query_mode,
            router_alert: None,
            payload: bytes,
        };
        node.handle_datagram(datagram, now);
    } else {
        node.handle_association(AssociationId(id), AssociationEvent::Received(bytes), now);
    }
    while node.poll_output().is_some() {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Arbitrary bytes: no panic, no state.
    #[test]
    fn arbitrary_bytes_change_no_routing_state(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        magic in any::<bool>(),
        as_datagram in any::<bool>(),
        query_mode in any::<bool>(),
        number in 0_usize..3,
        id in 0_u64..4,
    ) {
        let mut world = busy();
        let before = world.node(number).routing_table();
        let mut payload = if magic { b"\x4e\x04\xbd\xa5\x01\x05".to_vec() } else { Vec::new() };
        payload.extend(bytes);
        feed(&mut world, number, payload.into(), as_datagram, query_mode, id);
        prop_assert_eq!(world.node(number).routing_table(), before);
    }

    /// Real messages with some bytes changed, cut short or replayed, by whatever way: never a panic, never a new routing
    /// state, and time goes on.
    #[test]
    fn damaged_messages_create_no_routing_state(
        which in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        as_datagram in any::<bool>(),
        query_mode in any::<bool>(),
        number in 0_usize..3,
        id in 0_u64..4,
    ) {
        let specimens = specimens();
        let (_, bytes, was_datagram) = which.get(&specimens).clone();
        let mut bytes = bytes.to_vec();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        if as_datagram && !was_datagram {
            bytes.splice(0..0, *b"\x4e\x04\xbd\xa5");
        }
        let mut world = busy();
        let before = world.node(number).routing_table().len();
        feed(&mut world, number, bytes.into(), as_datagram, query_mode, id);
        prop_assert!(world.node(number).routing_table().len() <= before);
        world.run(secs(5));
    }

    /// Requests in any order and at any time.
    #[test]
    fn requests_in_any_order_leave_the_node_sound(steps in proptest::collection::vec((0_usize..3, 0_u8..6, 0_u8..3, 0_u64..9), 1..40)) {
        let mut world = World::chain();
        for (number, kind, which, wait) in steps {
            let (nslp_id, session, mri) = (NSLP, session(which), if kind % 2 == 0 { down() } else { up() });
            let request = match kind {
                0 | 1 => Request::Send(gist::api::SendMessage { mri, path: PathId(u8::from(wait > 6)), ..text_for(session, b"word") }),
                2 | 3 => Request::SetStateLifetime { nslp_id, session, mri, lifetime: secs(wait) },
                _ => Request::InvalidateRoutingState { nslp_id, session, mri, status: if wait % 2 == 0 { RoutingStatus::Bad } else { RoutingStatus::Tentative }, urgent: wait > 4 },
            };
            world.request(number, request);
            world.run(secs(wait));
        }
        world.run(secs(1000));
        for member in &world.members {
            prop_assert!(member.node.routing_table().is_empty());
            prop_assert!(member.node.associations().is_empty());
            prop_assert_eq!(member.node.poll_timeout(), None);
            prop_assert_eq!(member.node.counters().events_refused, 0);
        }
    }
}

fn eventful() -> World {
    let mut world = World::chain();
    let mut number = 0_u32;
    world.tap(move |_, _| {
        number += 1;
        if number % 7 == 3 { Fate::Lose } else { Fate::Pass }
    });
    for which in 0..5 {
        world.send(0, text_for(session(which), b"down"));
        world.run(secs(3));
    }
    world.kill(1);
    world.run(secs(5));
    world.restart(1, |_, _| {});
    world.send(0, text("agin"));
    world.run(secs(100));
    world
}

/// The same seeds and inputs give the same trace and the same nodes, hashed too.
#[test]
fn the_same_seed_gives_the_same_trace() {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let (first, second) = (eventful(), eventful());
    assert!(first.trace.len() > 150, "{}", first.trace.len());
    assert_eq!(first.trace, second.trace);
    let hash = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world.node(0));
    assert_eq!(first.node(0), second.node(0));
    assert_eq!(hash(&first), hash(&second));
}

/// Another seed gives other cookies (G-331).
#[test]
fn another_seed_gives_other_cookies() {
    let cookie = |world: &World, number: usize| -> Cookie {
        match &world.datagrams_of(number, MessageType::Query)[0].2.body {
            gist::wire::Body::Query(query) => query.cookie.clone(),
            other => panic!("{other:?}"),
        }
    };
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    assert_ne!(cookie(&world, 0), cookie(&world, 1));
}

/// A secret must not be read off a log line.
#[test]
fn the_seed_does_not_show_in_debug_output() {
    let world = World::chain();
    let shown = format!("{:?}", world.node(0));
    assert!(!shown.contains("1, 1, 1, 1, 1, 1, 1, 1"));
}

/// The polling contract: nothing is left over after draining, and a timer never lies in the past.
#[test]
fn draining_ends_and_timers_lie_ahead() {
    let mut world = busy();
    for _ in 0..200 {
        world.run(secs(1));
        for member in &mut world.members {
            assert_eq!(member.node.poll_output(), None::<Output>);
            assert!(member.node.poll_timeout().is_none_or(|at| at > world.now));
        }
    }
}
