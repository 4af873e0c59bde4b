//! A Query names the address that its answer goes to, and anybody may write one: what a node can be made to send to others
//! by it (RFC 5971 §4.4.1, §5.3.1, §8.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::node::{Datagram, Transmit};
use gist::wire::{Body, Cookie, Message, MessageType, SessionId};
use node_world::*;

/// Somebody who has asked for nothing.
const VICTIM: &str = "10.0.2.77";

/// The attacker by its own, unforged source; the port is its choice.
const ATTACKER: &str = "10.0.1.66:5353";

/// A Query in the name of this address.
fn naming(named: &str) -> Message {
    let mut probe = World::chain();
    probe.send(0, text("down"));
    let mut message = probe.datagrams_of(0, MessageType::Query).remove(0).2;
    let Body::Query(query) = &mut message.body else { panic!("Query") };
    query.session = SessionId([0xf0; 16]);
    query.nli.address = address(named);
    Message { source_is_signalling: false, ..message }
}

/// One more like `template`.
fn again(template: &Message, number: u32) -> Message {
    let mut message = template.clone();
    let Body::Query(query) = &mut message.body else { panic!("Query") };
    query.session.0[..4].copy_from_slice(&number.to_be_bytes());
    message
}

fn with_cookie(length: usize) -> Message {
    let mut message = naming(VICTIM);
    let Body::Query(query) = &mut message.body else { panic!("Query") };
    query.cookie = Cookie::new(vec![b'!'; length]).unwrap();
    message
}

/// The same, so that an Error is due.
fn spent(message: Message) -> Message {
    Message { hop_count: 0, ..message }
}

/// Where the router has sent datagrams to.
fn destinations(world: &World) -> Vec<String> {
    let normal = |transmit: &Transmit| {
        if let Transmit::Normal { destination, .. } = transmit { Some(destination.to_string()) } else { None }
    };
    world.datagrams.iter().filter(|(_, from, _)| *from == 1).filter_map(|(_, _, transmit)| normal(transmit)).collect()
}

/// Where the router's answer to this one datagram goes.
fn answered(datagram: Datagram) -> Vec<String> {
    let mut world = World::chain();
    world.inject(1, datagram);
    destinations(&world)
}

/// G-089, G-169: the source port is where its sender hears; whoever names another address has nothing to say about ports there.
#[test]
fn an_answer_reaches_no_port_of_others_but_gists_own() {
    for message in [naming(VICTIM), spent(naming(VICTIM))] {
        assert_eq!(answered(passing(ATTACKER, &message)), ["10.0.2.77:270"]);
        assert_eq!(answered(passing("10.0.2.77:6000", &message)), ["10.0.2.77:6000"], "its own");
    }
}

/// G-156, G-330: not to programs of the router itself, which may trust it, and not to many at once.
#[test]
fn no_answer_goes_to_this_node_or_to_an_address_that_is_not_one_nodes() {
    let wrong = ["127.0.0.1", "127.9.9.9", "10.0.1.254", "10.0.2.254", "169.254.169.254", "0.0.0.0", "0.0.0.1", "224.0.0.1"];
    let others = ["255.255.255.255", "240.0.0.1", "::1", "::", "::ffff:127.0.0.1", "::ffff:10.0.2.77", "fe80::1", "ff02::1"];
    for named in wrong.into_iter().chain(others) {
        // From anywhere, those addresses included.
        for source in [ATTACKER, "127.0.0.1:5300", "10.0.2.254:5300"] {
            for message in [naming(named), spent(naming(named))] {
                let mut world = World::chain();
                world.inject(1, passing(source, &message));
                assert!(destinations(&world).is_empty(), "{named} {source}");
                assert_eq!(world.node(1).counters().unanswerable, 1, "{named}");
            }
        }
    }
    // Nor where no NLI can be read and the source is all there is, or where a NAT seems to have changed it.
    let mut world = World::chain();
    let mut unreadable = passing("127.0.0.1:5300", &Message { source_is_signalling: true, ..naming(VICTIM) });
    world.inject(1, unreadable.clone());
    let mut bytes = unreadable.payload.to_vec();
    bytes[4] = 7;
    unreadable.payload = bytes.into();
    world.inject(1, unreadable);
    assert!(destinations(&world).is_empty());
    assert_eq!(world.node(1).counters().unanswerable, 2);
}

/// §5.2.2: what is echoed is a cookie (G-331) and not a message to somebody else.
#[test]
fn a_query_cookie_longer_than_any_needs_is_not_echoed() {
    for (length, answers) in [(32, 1), (64, 1), (68, 0), (344, 0)] {
        let mut world = World::chain();
        world.inject(1, passing(ATTACKER, &with_cookie(length)));
        assert_eq!(destinations(&world).len(), answers, "{length}");
        assert_eq!(world.node(1).counters().long_query_cookies, 1 - answers as u64);
    }
}

/// 780 a second for ten seconds, as was measured: the victim gets no more than it can bear, and others are served meanwhile.
#[test]
fn a_flood_in_the_name_of_a_victim_brings_it_a_few_answers_a_second() {
    for spoil in [|message| message, spent] {
        let mut world = World::chain();
        world.members[1].relays = false;
        let template = naming(VICTIM);
        for number in 0..7800_u32 {
            if number == 3900 {
                world.send(0, text("ask."));
            }
            world.inject(1, passing(ATTACKER, &spoil(again(&template, number))));
            world.run(Duration::from_micros(1282));
        }
        let to_victim = destinations(&world).iter().filter(|to| to.starts_with(VICTIM)).count();
        assert!((4..=64).contains(&to_victim), "{to_victim} in ten seconds");
        assert!(world.node(1).counters().rate_dropped > 7000);
        assert_eq!(world.payloads(1), ["ask."]);
    }
}

/// The victim may be a neighbour that wants something itself: what comes from its own address is counted apart.
#[test]
fn a_flood_in_the_name_of_a_neighbour_leaves_room_for_its_first_contact() {
    let mut world = World::chain();
    world.members[1].relays = false;
    let template = naming("10.0.1.1");
    for number in 0..2000_u32 {
        if number == 1000 {
            world.send(0, text("ask."));
        }
        world.inject(1, passing(ATTACKER, &again(&template, number)));
        world.run(Duration::from_micros(1282));
    }
    assert_eq!(world.payloads(1), ["ask."]);
}
