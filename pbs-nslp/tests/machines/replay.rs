//! What was accepted once never counts again (X-62, X-63, INV-05, TMP-10, fsm.md scenario 13).

use gist::api::Indication;
use gist::wire::SessionId;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{MessageKind, NotifyCode};

use crate::forge::{self, query_from};
use crate::world::{SENDER, Transit, World, flow, flow_to, seconds};

/// Replays everything delivered so far at every node that got it; nothing may change.
fn replay_all(world: &mut World) {
    world.stable = false;
    for transit in world.delivered.clone() {
        if transit.kind() == MessageKind::Notify {
            continue;
        }
        let before = (world.states(), world.permissions());
        let passed_on = forwarded(world);
        world.deliver(transit.clone());
        assert_eq!(before, (world.states(), world.permissions()), "{:?} replayed at {} at {}", transit.kind(), transit.to, world.now);
        assert_eq!(passed_on, forwarded(world), "FN-30: a replay is not passed on");
    }
    world.wires.clear();
}

fn forwarded(world: &World) -> usize {
    world.recorded.iter().filter(|transit| transit.kind() != MessageKind::Notify).count()
}

#[test]
fn every_message_replayed_at_any_later_time_has_no_effect() {
    // P-047, INV-05.
    let mut world = World::granted(2);
    for _ in 0..4 {
        world.run(seconds(4));
        replay_all(&mut world);
    }
    world.took(1, &["FN-30"]);
    // After a revocation: tombstones.
    world.receiver.revoke(flow(), world.now);
    world.run(seconds(2));
    assert!(world.permissions().iter().all(Vec::is_empty));
    for _ in 0..8 {
        replay_all(&mut world);
        world.run(seconds(20));
    }
    // When the tombstones are gone, the window refuses.
    world.run(seconds(300));
    replay_all(&mut world);
    world.run(seconds(3600));
    replay_all(&mut world);
    assert!(world.is_clean());
}

#[test]
fn messages_replayed_after_expiry_and_release_have_no_effect() {
    // P-051.
    let mut world = World::granted(1);
    world.sender.release(flow(), world.now);
    world.run(seconds(1));
    replay_all(&mut world);
    let mut world = World::granted(1);
    world.loses = Box::new(|_: &Transit| true);
    world.run(seconds(30));
    assert!(world.permissions().iter().all(Vec::is_empty));
    replay_all(&mut world);
    world.run(seconds(200));
    replay_all(&mut world);
    assert!(world.permissions().iter().all(Vec::is_empty));
}

#[test]
fn a_restarted_router_refuses_what_it_may_have_accepted_before() {
    // FN-60, X-63, X-96: the floor; the cached Query does not do, a fresh one does.
    let mut world = World::granted(2);
    world.run(seconds(20));
    let recorded = world.recorded.clone();
    world.run(seconds(6));
    world.restart_router(1);
    world.took(1, &["FN-60"]);
    for transit in recorded.into_iter().filter(|transit| transit.to == 1) {
        world.deliver(transit);
        assert_eq!(world.router_state(1), "Idle");
    }
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Refused(refusal) if refusal.code == NotifyCode::Stale)));
    world.run(seconds(5));
    assert_eq!(world.router_state(1), "Permitted");
}

#[test]
fn a_denial_replayed_into_a_newer_session_does_not_end_it() {
    // P-048: numbers are kept per signer and flow, across sessions.
    let mut world = World::granted(1);
    world.sender.release(flow(), world.now);
    world.run(seconds(2));
    world.want();
    world.run(seconds(2));
    assert_eq!(world.states(), ["Permitted"; 3]);
    replay_all(&mut world);
    assert_eq!(world.states(), ["Permitted"; 3]);
}

#[test]
fn without_state_a_number_must_lie_in_the_window() {
    // P-049, X-63: clock − 300 s to clock + 30 s, and above the floor of 5 s before the start.
    let accepted = |runs: u64, number: fn(u32) -> u32| {
        let mut world = World::new(1);
        world.down.insert(2);
        world.run(seconds(runs));
        let number = number(u32::try_from(world.unix()).unwrap());
        let received = query_from(SENDER, SessionId([5; 16]), &forge::query(number), &forge::sender());
        world.tell(1, Indication::Received(received));
        world.settle();
        world.router_state(1) == "Wait P"
    };
    assert!(accepted(1000, |clock| clock - 300));
    assert!(!accepted(1000, |clock| clock - 301));
    assert!(accepted(1000, |clock| clock + 30));
    assert!(!accepted(1000, |clock| clock + 31));
    assert!(accepted(0, |clock| clock - 4));
    assert!(!accepted(0, |clock| clock - 5));
}

#[test]
fn a_forgotten_number_is_refused_by_the_window() {
    // a tombstone goes when the window has taken over from it.
    let mut world = World::granted(1);
    let (first, grant) = (world.delivered[0].clone(), world.delivered[2].clone());
    world.sender.release(flow(), world.now);
    world.run(seconds(400));
    world.sender.want(flow_to(9001), 10.into(), world.now).unwrap();
    world.run(seconds(1));
    world.sender.release(flow_to(9001), world.now);
    world.run(seconds(1));
    assert!(world.is_clean());
    world.stable = false;
    for transit in [first, grant] {
        world.deliver(transit);
        assert!(world.is_clean());
    }
    let reasons: Vec<_> = world.events(1).into_iter().rev().take(4).map(ToString::to_string).collect();
    assert!(reasons.iter().any(|reason| reason.contains("outside the freshness window")), "{reasons:?}");
}
