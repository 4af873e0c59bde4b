//! Floods that anybody can send, and what must go on in spite of them (RFC 5971 §4.4.4, §5.3.3, §8.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::net::IpAddr;
use std::time::Duration;

use gist::api::Request;
use gist::node::{Datagram, DatagramRate};
use gist::wire::{Body, Message, MessageType, SessionId};
use node_world::*;

/// A bucket so small that a flood of 100 datagrams a second is many times more.
fn small() -> DatagramRate {
    DatagramRate { per_second: 20, burst: 16, ..DatagramRate::default() }
}

/// The sender's first Query, to be forged from.
fn template() -> Message {
    let mut probe = World::chain();
    probe.send(0, text("down"));
    probe.datagrams_of(0, MessageType::Query).remove(0).2
}

/// A Query for a session that nobody knows, with the NLI address given.
fn forged(template: &Message, number: u32, from: IpAddr) -> Message {
    let mut message = template.clone();
    let Body::Query(query) = &mut message.body else { panic!("Query") };
    query.session = SessionId([0xf0; 16]);
    query.session.0[..4].copy_from_slice(&number.to_be_bytes());
    query.nli.address = from;
    message
}

/// `count` forged Queries arrive at the router, 100 a second, each on the interface and from the address that `origin` says.
fn flood(world: &mut World, count: u32, origin: impl Fn(u32) -> (u32, IpAddr)) {
    let template = template();
    for number in 0..count {
        let (interface, from) = origin(number);
        let query = forged(&template, number, from);
        world.inject(1, Datagram { interface, ..passing(&format!("{from}:270"), &query) });
        world.run(Duration::from_millis(10));
    }
}

/// G-111, G-340, G-341: the flow's own refreshes are answered whatever strangers ask.
#[test]
fn a_flood_of_queries_ends_no_routing_state() {
    let mut world = World::chain_with(|_, config| config.datagram_rate = small());
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    let queries = world.datagrams_of(0, MessageType::Query).len();
    flood(&mut world, 9000, |_| (1, address("10.0.1.200")));
    assert!(world.datagrams_of(0, MessageType::Query).len() >= queries + 3, "the sender refreshes");
    assert!(world.events(0).is_empty() && world.events(1).is_empty(), "{:?} {:?}", world.events(0), world.events(1));
    assert_eq!([0, 1].map(|number| world.node(number).routing_table().len()), [1, 1]);
}

/// The same with the flood under the neighbour's own name, which everybody on the link can read.
#[test]
fn a_flood_in_the_name_of_a_neighbour_ends_no_routing_state() {
    let mut world = World::chain_with(|_, config| {
        config.datagram_rate = DatagramRate { most_per_second: 40, ..small() };
    });
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    flood(&mut world, 9000, |_| (1, address("10.0.1.1")));
    assert!(world.events(0).is_empty() && world.events(1).is_empty(), "{:?} {:?}", world.events(0), world.events(1));
    let answered = world.on_associations.iter().filter(|(_, from, message)| *from == 1 && message.message_type() == MessageType::Response);
    let answered = answered.count();
    assert!((90 * 20..=90 * 41).contains(&answered), "{answered} Responses over the association");
}

/// A node whose own Queries wait still answers those of others: else two busy neighbours would starve each other.
#[test]
fn waiting_queries_of_its_own_keep_no_node_from_answering() {
    let mut world = World::chain_with(|_, config| config.datagram_rate = small());
    world.members[1].relays = false;
    world.members[2].alive = false;
    for number in 0..200 {
        world.send(1, text_for(session(number), b"mine"));
    }
    world.send(0, text_for(session(255), b"down"));
    world.run(secs(2));
    assert!(world.node(1).counters().rate_delayed > 100, "the router's own Queries are still waiting");
    assert_eq!(world.payloads(1), ["down"]);
}

/// G-341: a source that floods leaves room for the first contact of another one on the same link.
#[test]
fn a_flood_from_one_source_leaves_room_for_another() {
    let mut world = World::chain_with(|number, config| {
        if number == 1 {
            config.datagram_rate = small();
        }
    });
    world.members[1].relays = false;
    flood(&mut world, 1000, |_| (1, address("10.0.1.200")));
    world.send(0, text("down"));
    flood(&mut world, 3100, |_| (1, address("10.0.1.200")));
    assert_eq!(world.payloads(1), ["down"]);
}

/// A flood from made-up sources on one interface leaves room for first contacts on another.
#[test]
fn a_flood_on_one_interface_leaves_room_on_another() {
    let mut world = World::chain_with(|number, config| {
        if number == 1 {
            config.datagram_rate = small();
        }
    });
    world.members[1].relays = false;
    let anybody = |number: u32| (9, IpAddr::from([10, 9, (number >> 8) as u8, number as u8]));
    flood(&mut world, 1000, anybody);
    world.send(0, text("down"));
    flood(&mut world, 3100, anybody);
    assert_eq!(world.payloads(1), ["down"]);
}

/// §5.6: Errors go where a datagram says it came from, so they get a small part of the limit, and Responses theirs.
#[test]
fn provoked_errors_are_few_and_keep_no_response_back() {
    let mut world = World::chain_with(|number, config| {
        if number == 1 {
            config.datagram_rate = DatagramRate { per_second: 32, burst: 32, ..DatagramRate::default() };
        }
    });
    world.members[1].relays = false;
    let template = template();
    for number in 0..1000 {
        let spent = Message { hop_count: 0, ..forged(&template, number, address("10.0.1.200")) };
        world.inject(1, passing("10.0.1.200:270", &spent));
    }
    assert_eq!(world.errors_of(1).len(), 2, "a sixteenth of the burst");
    world.send(0, text("down"));
    world.run(Duration::from_millis(400));
    assert_eq!(world.payloads(1), ["down"]);
}

/// Two neighbours with many flows, the rates and the number of flows a thirty-sixth of what two routers may have (36,000
/// flows, and the default limit): all are set up, none is lost, and none needs a longer validity.
#[test]
fn a_thousand_flows_between_two_nodes_are_kept() {
    let mut world = World::chain_with(|number, config| {
        config.datagram_rate = DatagramRate { per_second: 56, burst: 14, most_per_second: 167 };
        if number == 0 {
            config.inactivity = secs(3600);
        }
        config.caps.routing_states = 4000;
    });
    world.members[1].relays = false;
    // A router too, so that it may have more than a host.
    world.members[0].credentials = credentials("router", &["10.0.1.1"]);
    for number in 0..1000_u32 {
        let mut session = SessionId([3; 16]);
        session.0[..4].copy_from_slice(&number.to_be_bytes());
        world.send(0, text_for(session, b"down"));
        world.run(Duration::from_millis(40));
    }
    world.run(secs(20));
    let established = |world: &World| world.node(0).routing_table().iter().filter(|entry| entry.association.is_some()).count();
    assert_eq!((established(&world), world.node(1).routing_table().len()), (1000, 1000));
    world.run(secs(120));
    assert_eq!((established(&world), world.node(1).routing_table().len()), (1000, 1000));
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
    assert!(world.failures(0).is_empty());
    let latest = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    let Body::Query(query) = latest.2.body else { panic!("Query") };
    assert_eq!(query.nli.validity, secs(30));
}
