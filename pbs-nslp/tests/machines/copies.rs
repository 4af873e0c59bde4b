//! Paths that move are repaired with copies of the last messages, without asking the ends (X-95; FN-31, FN-32).

use core::time::Duration;

use gist::api::{Indication, NetworkEvent, ReceivedMessage};
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Terms};
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::selector::Selector;
use pbs_nslp::wire::MessageKind;

use crate::world::{LATENCY, Place, SENDER, T, World, principal, router_config, seconds, terms};

/// A router of the new way.
const ELSEWHERE: Place = 77;

/// A flow with one permission, refreshed every `refresh`, over two routers.
fn granted(refresh: Duration, config: impl Fn(RouterConfig) -> RouterConfig) -> World {
    let mut world = World::new(2);
    let (unix, now) = (world.unix(), world.now);
    for router in &mut world.routers {
        *router = Router::new(config(router_config()), world.authority.clone(), unix, now);
    }
    let terms = Terms { refresh, ..terms() };
    world
        .receiver
        .set_policy(GrantPolicy { rules: vec![GrantRule { selector: Selector::default(), terms, signed: false, mac: None }], ask: false });
    world.want();
    world.run(seconds(2));
    assert_eq!(world.states(), ["Permitted"; 4]);
    world.stable = false;
    world
}

/// The last Query that router 1 has got, as another peer brings it.
fn last_query(world: &World) -> ReceivedMessage {
    let last = world.sent(SENDER, MessageKind::Query).last().unwrap().received.clone();
    ReceivedMessage { principal: principal(ELSEWHERE), ..last }
}

/// How many messages of a kind a node has sent, and what the last one says.
fn sent(world: &World, place: Place, kind: MessageKind) -> (usize, Vec<u8>) {
    let sent = world.sent(place, kind);
    (sent.len(), sent.last().map(|transit| transit.received.payload.to_vec()).unwrap_or_default())
}

fn tell(world: &mut World, place: Place, message: ReceivedMessage) {
    world.tell(place, Indication::Received(message));
    world.settle();
}

#[test]
fn a_new_peer_downstream_gets_the_last_query_byte_for_byte_but_not_more_than_once_a_second() {
    // FN-32.
    let mut world = granted(T, |config| config);
    let (before, query) = sent(&world, 1, MessageKind::Query);
    world.network(1, NetworkEvent::PeerChanged);
    world.settle();
    assert_eq!(sent(&world, 1, MessageKind::Query), (before + 1, query.clone()));
    assert_eq!(world.sent(1, MessageKind::Notify).len(), 1, "and the sender is asked for a fresh one");
    world.network(1, NetworkEvent::PeerChanged);
    world.settle();
    assert_eq!(sent(&world, 1, MessageKind::Query), (before + 1, query));
    assert_eq!(world.sent(1, MessageKind::Notify).len(), 2);
}

#[test]
fn a_new_peer_upstream_that_brings_the_last_query_gets_the_last_permission_byte_for_byte() {
    // FN-31: once a second, and nothing is verified, counted or forwarded for it.
    let mut world = granted(T, |config| config);
    let again = last_query(&world);
    let (before, permission) = sent(&world, 1, MessageKind::Permission);
    let (queries, permissions) = (sent(&world, 1, MessageKind::Query), world.permissions());
    tell(&mut world, 1, again.clone());
    assert_eq!(sent(&world, 1, MessageKind::Permission), (before + 1, permission));
    assert_eq!((sent(&world, 1, MessageKind::Query), world.permissions()), (queries, permissions));
    world.took(1, &["FN-31"]);
    tell(&mut world, 1, ReceivedMessage { principal: principal(ELSEWHERE + 1), ..again });
    assert_eq!(sent(&world, 1, MessageKind::Permission).0, before + 1, "not within a second");
}

#[test]
fn who_only_claims_the_flow_or_is_not_known_gets_no_key_for_a_copy_of_a_query() {
    // FN-31, X-95: whoever was on the path has copies.
    let mut world = granted(T, |config| config);
    let again = last_query(&world);
    let before = sent(&world, 1, MessageKind::Permission).0;
    tell(&mut world, 1, ReceivedMessage { tentative: true, ..again.clone() });
    tell(&mut world, 1, ReceivedMessage { authenticated: false, ..again.clone() });
    assert_eq!(sent(&world, 1, MessageKind::Permission).0, before);
    assert!(world.adopted.is_empty());
    // That of before is no copy of the last one.
    world.run(T);
    let before = sent(&world, 1, MessageKind::Permission).0;
    tell(&mut world, 1, again);
    assert_eq!(sent(&world, 1, MessageKind::Permission).0, before);
}

#[test]
fn a_permission_that_waits_for_the_packet_side_goes_once_and_no_earlier() {
    // INV-11.
    let mut world = granted(T, |config| config);
    world.datapaths[1].stalled = true;
    let before = sent(&world, 1, MessageKind::Permission).0;
    world.run(T);
    let again = last_query(&world);
    tell(&mut world, 1, again);
    assert_eq!(sent(&world, 1, MessageKind::Permission).0, before);
    world.datapaths[1].resume();
    world.settle();
    world.run(LATENCY);
    assert_eq!(sent(&world, 1, MessageKind::Permission).0, before + 1);
}

#[test]
fn copies_that_would_be_too_old_or_have_no_room_are_not_sent() {
    // T above half the window; the bound is for all sessions together.
    let kept = |config| config;
    let none = |config| RouterConfig { copies: 0, ..config };
    let only_a_query = |config| RouterConfig { copies: 1, ..config };
    for (world, what) in [(granted(seconds(151), kept), "T"), (granted(T, none), "none"), (granted(T, only_a_query), "one octet")] {
        let mut world = world;
        let again = last_query(&world);
        let before = (sent(&world, 1, MessageKind::Query), sent(&world, 1, MessageKind::Permission));
        world.network(1, NetworkEvent::PeerChanged);
        world.settle();
        tell(&mut world, 1, again);
        assert_eq!((sent(&world, 1, MessageKind::Query), sent(&world, 1, MessageKind::Permission)), before, "{what}");
        assert_eq!(world.sent(1, MessageKind::Notify).len(), 1, "the sender repairs it: {what}");
    }
}

#[test]
fn the_room_for_copies_is_free_again_when_sessions_end() {
    // One flow's messages fit; the next flow's do as well, once that one is gone.
    let length = |world: &World, kind| world.sent(SENDER, kind).last().unwrap().received.payload.len();
    let world = granted(T, |config| config);
    let room = length(&world, MessageKind::Query) + sent(&world, 1, MessageKind::Permission).1.len() + 32;
    let mut world = granted(T, |config| RouterConfig { copies: room, ..config });
    for round in 0..3 {
        world.run(seconds(2));
        let before = sent(&world, 1, MessageKind::Query).0;
        world.network(1, NetworkEvent::PeerChanged);
        world.settle();
        assert_eq!(sent(&world, 1, MessageKind::Query).0, before + 1, "round {round}");
        world.run(seconds(2));
        world.sender.release(crate::world::flow(), world.now);
        world.run(seconds(3));
        world.want();
        world.run(seconds(2));
        assert_eq!(world.states(), ["Permitted"; 4]);
    }
}
