//! Who decides what is granted.

use pbs_nslp::output::{Ask, Output};
use pbs_nslp::receiver::{Decision, GrantPolicy, Terms};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::Volume;

use crate::world::{LATENCY, SENDER, VOLUME, World, flow, seconds, terms};

pub(crate) fn asking() -> World {
    let mut world = World::new(1);
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: true });
    world.want();
    world.run(LATENCY * 2);
    assert_eq!(world.receiver_state(), "Decision");
    world
}

#[test]
fn a_flow_without_a_rule_is_decided_by_whoever_is_asked() {
    // FR-01, FR-05.
    let mut world = asking();
    let ask = Ask { flow: flow(), session: world.session(), requested: Some(Volume(VOLUME)) };
    assert!(world.trace.iter().any(|line| line.ends_with(&format!("{ask:?}"))));
    world.receiver.decide(flow(), ask.session, Decision::Grant(terms()), world.now);
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3]);
    world.receiver.decide(flow(), ask.session, Decision::Decline, world.now);
    world.settle();
    assert_eq!(world.receiver_state(), "Permitted", "a second answer comes too late");
}

#[test]
fn whoever_is_asked_may_decline_or_grant_nothing() {
    // FR-06, X-25.
    for decision in [Decision::Decline, Decision::Grant(Terms { volume: Volume::ZERO, ..terms() })] {
        let mut world = asking();
        let session = world.session();
        world.receiver.decide(flow(), session, decision, world.now);
        world.run(seconds(1));
        world.took(2, &["FR-06"]);
        world.took(SENDER, &["FS-06"]);
        assert!(world.saw(SENDER, |event| matches!(event, ReportEvent::Denied { .. })));
    }
}

#[test]
fn a_repeated_query_keeps_one_decision_and_the_newest_number() {
    // FR-08, FN-08; then FR-09: the sender gives up while the decision is open.
    let mut world = asking();
    world.run(seconds(6));
    world.took(2, &["FR-08"]);
    let session = world.session();
    let mut granted = World::new(0);
    std::mem::swap(&mut granted, &mut world);
    granted.receiver.decide(flow(), session, Decision::Grant(terms()), granted.now);
    granted.run(LATENCY * 3);
    assert_eq!(granted.states(), ["Permitted"; 3], "the answer echoes the second Query");

    let mut given_up = asking();
    given_up.sender.release(flow(), given_up.now);
    given_up.run(seconds(1));
    given_up.took(2, &["FR-09"]);
    assert!(given_up.is_clean());
}

#[test]
fn less_is_granted_when_less_is_asked_for_and_never_more_than_the_rule() {
    for (asked, granted) in [(4000, 4000), (VOLUME, VOLUME), (50_000, VOLUME)] {
        let mut world = World::new(0);
        world.sender.want(flow(), Volume(asked), world.now).unwrap();
        world.run(seconds(1));
        assert_eq!(world.permissions()[0][0].2, granted);
    }
}

#[test]
fn an_expected_flow_is_granted_without_a_rule() {
    // the host that asks grants the reverse flow of its own.
    let mut world = World::new(1);
    world.receiver.set_policy(GrantPolicy::default());
    assert!(world.receiver.expect(flow(), terms()));
    world.want();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3]);
    let more = Terms { limit: Volume(90_000), ..terms() };
    assert!(world.receiver.expect(flow(), more), "the limit of a live permission grows with its cause");
    for _ in 0..60 {
        if world.packet(1000).is_none() {
            world.run(LATENCY * 5);
        }
    }
    assert!(world.permissions()[0][0].2 > crate::world::LIMIT);
    world.receiver.unexpect(&flow());
    world.receiver.revoke(flow(), world.now);
    world.run(seconds(2));
    world.want();
    world.run(seconds(1));
    world.took(2, &["FR-06"]);
}

#[test]
fn an_undecided_query_can_be_turned_down_like_a_permission() {
    let mut world = asking();
    assert!(world.receiver.revoke(flow(), world.now));
    world.run(seconds(1));
    world.took(2, &["FR-06"]);
}

#[test]
fn the_receiver_asks_only_what_it_must() {
    let mut world = World::new(0);
    world.sender.want(flow(), Volume(1), world.now).unwrap();
    world.run(seconds(1));
    let asked = std::iter::from_fn(|| world.receiver.poll_output()).any(|output| matches!(output, Output::Ask(_)));
    assert!(!asked);
}
