//! The last hop of a path that moves: the receiver repairs it without asking the sender, and does not have the nodes on the new
//! one wait for packets that the old one has lost (FR-38, FR-39, X-95).

use gist::api::{Indication, ReceivedMessage};
use gist::wire::SessionId;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Terms};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::selector::Selector;
use pbs_nslp::wire::{MessageKind, Volume};

use crate::datapath::Fate;
use crate::world::{LATENCY, Place, SENDER, T, TTL, World, flow, principal, seconds};

/// A router of the new way.
const ELSEWHERE: Place = 77;
const MB: u64 = 1_000_000;
const PACKET: u64 = 50_000;

/// A flow with 10 MB over one router.
fn granted() -> World {
    let mut world = World::new(1);
    let terms = Terms { volume: Volume(10 * MB), limit: Volume(100 * MB), ttl: TTL, refresh: T };
    world
        .receiver
        .set_policy(GrantPolicy { rules: vec![GrantRule { selector: Selector::default(), terms, signed: false, mac: None }], ask: false });
    world.sender.want(flow(), Volume(10 * MB), world.now).unwrap();
    world.run(seconds(2));
    assert_eq!(world.states(), ["Permitted"; 3]);
    world.stable = false;
    world
}

/// The newest Query that the receiver has, as another peer brings it.
fn last_query(world: &World) -> ReceivedMessage {
    let to_receiver = |transit: &&crate::world::Transit| transit.to == 2 && transit.kind() == MessageKind::Query;
    let last = world.delivered.iter().rev().find(to_receiver).unwrap().received.clone();
    ReceivedMessage { principal: principal(ELSEWHERE), ..last }
}

fn tell(world: &mut World, message: ReceivedMessage) {
    world.tell(2, Indication::Received(message));
    world.settle();
}

fn permissions(world: &World) -> usize {
    world.sent(2, MessageKind::Permission).len()
}

fn lose(world: &mut World, bytes: u64) {
    for _ in 0..bytes / PACKET {
        assert!(matches!(world.datapaths[SENDER].send(flow(), PACKET, world.now), Fate::Passed { .. }));
    }
    world.settle();
}

fn run_to(world: &mut World, state: &str) {
    for _ in 0..2000 {
        if world.receiver_state() == state {
            return;
        }
        world.run(LATENCY);
    }
    panic!("not {state}: {}", world.story());
}

#[test]
fn a_new_peer_upstream_that_brings_the_last_query_gets_a_fresh_permission_nobody_asked_for() {
    // FR-38.
    let mut world = granted();
    let (before, again) = (permissions(&world), last_query(&world));
    let counted = world.permissions();
    tell(&mut world, again.clone());
    world.took(2, &["FR-38"]);
    assert_eq!(permissions(&world), before + 1);
    let fresh = world.sent(2, MessageKind::Permission).last().unwrap().permission().unwrap();
    assert_eq!((fresh.echo, fresh.sa.unwrap().spi), (Some(0), counted[2][0].1), "X-54: it answers nothing, and changes nothing");
    assert_eq!(world.permissions(), counted);
    let other = ReceivedMessage { principal: principal(ELSEWHERE + 1), ..again };
    tell(&mut world, other.clone());
    assert_eq!(permissions(&world), before + 1, "not within a second");
    world.run(seconds(1));
    tell(&mut world, other);
    assert_eq!(permissions(&world), before + 2);
}

#[test]
fn who_only_claims_the_flow_or_has_no_copy_of_the_query_gets_no_permission() {
    // INV-04.
    // Permissions hold the key.
    let mut world = granted();
    let (before, again) = (permissions(&world), last_query(&world));
    tell(&mut world, ReceivedMessage { tentative: true, ..again.clone() });
    tell(&mut world, ReceivedMessage { authenticated: false, ..again.clone() });
    tell(&mut world, ReceivedMessage { session: SessionId([3; 16]), ..again.clone() });
    let mut payload = again.payload.to_vec();
    let last = payload.len() - 1;
    payload[last] ^= 1;
    // The end of the signature is not compared, so that one of its first octets has to differ.
    let first = payload.len() - 32;
    payload[first] ^= 1;
    tell(&mut world, ReceivedMessage { payload: payload.into(), ..again.clone() });
    assert_eq!(permissions(&world), before);
    tell(&mut world, ReceivedMessage { principal: principal(1), ..again });
    assert_eq!(permissions(&world), before, "the peer itself has had it: a replay");
}

#[test]
fn while_packets_under_way_are_waited_for_the_new_peer_gets_the_answer_at_once() {
    // FR-38 in Grace and in Compare Sv.
    let mut world = granted();
    lose(&mut world, MB);
    run_to(&mut world, "Grace");
    let (before, again) = (permissions(&world), last_query(&world));
    tell(&mut world, ReceivedMessage { tentative: true, ..again.clone() });
    assert_eq!((world.receiver_state().as_str(), permissions(&world)), ("Grace", before), "not to who only claims the flow");
    tell(&mut world, again);
    assert_eq!((world.receiver_state().as_str(), permissions(&world)), ("Permitted", before + 1));

    let mut world = granted();
    world.datapaths[2].stalled = true;
    run_to(&mut world, "Compare Sv");
    let (before, again) = (permissions(&world), last_query(&world));
    tell(&mut world, ReceivedMessage { tentative: true, ..again.clone() });
    tell(&mut world, again);
    assert_eq!((world.receiver_state().as_str(), permissions(&world)), ("Compare Sv", before));
    world.datapaths[2].resume();
    world.settle();
    assert_eq!(permissions(&world), before + 1, "the answer that was due");
}

#[test]
fn while_nothing_is_decided_there_is_nothing_to_tell() {
    let mut world = World::new(1);
    world.stable = false;
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: true });
    world.want();
    world.run(LATENCY * 3);
    let again = last_query(&world);
    tell(&mut world, again.clone());
    assert_eq!((world.receiver_state().as_str(), permissions(&world)), ("Decision", 0));
    world.datapaths[2].stalled = true;
    world.receiver.decide(flow(), again.session, pbs_nslp::receiver::Decision::Grant(crate::setting::terms()), world.now);
    world.settle();
    tell(&mut world, again);
    world.datapaths[2].resume();
    world.settle();
    assert_eq!(permissions(&world), 1, "the first one, when the packet side has it");
}

/// The next Query reaches the receiver by another peer.
fn next_query_by(world: &mut World, peer: Place) {
    for _ in 0..5000 {
        if let Some(transit) = world.wires.iter_mut().find(|transit| transit.to == 2 && transit.kind() == MessageKind::Query) {
            transit.received.principal = principal(peer);
            world.run(LATENCY * 2);
            return;
        }
        world.run(LATENCY / 2);
    }
    panic!("no Query");
}

fn waited(world: &World) -> bool {
    let rules = &world.receiver.counters().rules;
    rules.contains_key("FR-33")
}

#[test]
fn a_query_by_a_new_peer_is_answered_at_once_though_packets_are_missing_and_the_next_one_tells() {
    // FR-39.
    let mut world = granted();
    lose(&mut world, MB);
    let before = permissions(&world);
    next_query_by(&mut world, ELSEWHERE);
    world.took(2, &["FR-39"]);
    assert_eq!((world.receiver_state().as_str(), permissions(&world)), ("Permitted", before + 1));
    assert!(!waited(&world));
    // Nothing is forgiven: the same bytes are missing in the next comparison.
    next_query_by(&mut world, ELSEWHERE);
    assert!(waited(&world), "{}", world.story());
}

#[test]
fn peers_that_change_with_each_query_put_a_verdict_off_by_one_query_and_no_more() {
    let mut world = granted();
    for period in 0..6 {
        lose(&mut world, MB);
        next_query_by(&mut world, ELSEWHERE + period % 2);
        world.run(seconds(2));
    }
    assert!(world.saw(2, |event| matches!(event, ReportEvent::Evidence(_))), "{}", world.story());
}
