//! Who may become the peer upstream of a flow that had another one: whoever brings what its source has signed anew.

use gist::api::{Indication, NetworkEvent, ReceivedMessage};
use gist::wire::SessionId;
use pbs_nslp::wire::{MessageKind, Query};

use crate::forge::{self, query_from};
use crate::world::{LATENCY, Place, SENDER, World, handle, seconds};

/// A node of the new way, not yet on the path.
const ELSEWHERE: Place = 9;
const SESSION: SessionId = SessionId([5; 16]);

/// A router, and a receiver, that know the flow from their usual neighbour.
fn places() -> Vec<(World, Place)> {
    let mut worlds = vec![(World::new(1), 1), (World::new(0), 1)];
    for (world, place) in &mut worlds {
        world.stable = false;
        let query = forge::query(number(world));
        tell(world, *place, query_from(SENDER, SESSION, &query, &forge::sender()));
        assert!(world.adopted.is_empty());
    }
    worlds
}

fn tell(world: &mut World, place: Place, message: ReceivedMessage) {
    world.tell(place, Indication::Received(message));
    world.settle();
}

fn number(world: &World) -> u32 {
    u32::try_from(world.unix()).unwrap()
}

/// What the claimed peer brings.
fn brought(query: &Query) -> ReceivedMessage {
    ReceivedMessage { tentative: true, ..query_from(ELSEWHERE, SESSION, query, &forge::sender()) }
}

#[test]
fn a_newer_query_of_the_flows_source_makes_its_bringer_the_peer() {
    // X-95, TMP-12.
    for (mut world, place) in places() {
        let query = forge::query(number(&world) + 1);
        tell(&mut world, place, brought(&query));
        assert_eq!(world.adopted, [(place, handle(ELSEWHERE))]);
    }
}

#[test]
fn nothing_else_makes_its_bringer_the_peer() {
    // A router with a certificate of the domain, which may have been on the path, has captures, and can change them.
    for (mut world, place) in places() {
        let old = number(&world);
        for number in [old, old - 1, old - 400] {
            tell(&mut world, place, brought(&forge::query(number)));
            assert!(world.adopted.is_empty(), "{} at {place}", i64::from(number) - i64::from(old));
        }
        let mut spoiled = brought(&forge::query(old + 1));
        let mut payload = spoiled.payload.to_vec();
        let last = payload.len() - 1;
        payload[last] ^= 1;
        spoiled.payload = payload.into();
        tell(&mut world, place, spoiled);
        assert!(world.adopted.is_empty(), "at {place}");
    }
}

#[test]
fn the_peer_itself_is_not_adopted_again() {
    for (mut world, place) in places() {
        let query = forge::query(number(&world) + 1);
        tell(&mut world, place, query_from(SENDER, SESSION, &query, &forge::sender()));
        assert!(world.adopted.is_empty());
    }
}

#[test]
fn a_router_whose_next_peer_is_another_one_has_the_sender_ask_at_once() {
    // FN-32, FS-34, X-95: the fresh Query goes the new way.
    let mut world = World::granted(2);
    world.run(seconds(2));
    let queries = world.sent(SENDER, MessageKind::Query).len();
    world.network(1, NetworkEvent::PeerChanged);
    world.run(LATENCY * 3);
    world.took(1, &["FN-32"]);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 1);
}
