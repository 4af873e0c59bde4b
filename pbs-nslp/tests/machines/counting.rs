//! What happens to a receiver's session while the packet side is asked what it has counted (Compare Sv), or nobody has decided
//! yet: the wait holds nothing up (FR-37's sense).

use gist::api::{Indication, ReceivedMessage};
use gist::wire::SessionId;
use pbs_nslp::datapath::Event;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Terms};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::selector::Selector;
use pbs_nslp::wire::{MessageKind, NotifyCode, Query, Volume, VolumeContext};

use crate::forge::{self, query, query_from};
use crate::world::{L, LATENCY, SENDER, VOLUME, World, flow, seconds, terms};

const NEWER: SessionId = SessionId([9; 16]);

/// A world whose receiver has asked its packet side, which does not answer.
fn counting() -> World {
    counting_under(terms())
}

fn counting_under(terms: Terms) -> World {
    let mut world = World::new(1);
    set_rule(&mut world, terms);
    world.want();
    world.run(seconds(1));
    stall(&mut world);
    world
}

fn set_rule(world: &mut World, terms: Terms) {
    let rule = GrantRule { selector: Selector::default(), terms, signed: false, mac: None };
    world.receiver.set_policy(GrantPolicy { rules: vec![rule], ask: false });
}

/// Lets the next refresh come while the receiver's packet side is silent.
fn stall(world: &mut World) {
    world.datapaths[2].stalled = true;
    world.run(seconds(5));
    assert_eq!(world.receiver_state(), "Compare Sv");
}

fn later(world: &World) -> u32 {
    u32::try_from(world.unix()).unwrap() + 10
}

fn tell(world: &mut World, session: SessionId, query: &Query) {
    world.stable = false;
    world.tell(2, Indication::Received(query_from(1, session, query, &forge::sender())));
    world.settle();
}

fn spi(world: &World) -> u32 {
    world.datapaths[2].table.keys().next().unwrap().1
}

#[test]
fn a_bad_message_changes_nothing_while_the_counter_is_read_or_a_decision_is_due() {
    // FR-00, INV-06.
    let asking = || {
        let mut world = World::new(1);
        world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: true });
        world.want();
        world.run(seconds(1));
        world
    };
    for (mut world, state) in [(counting(), "Compare Sv"), (asking(), "Decision")] {
        assert_eq!(world.receiver_state(), state);
        let session = world.session();
        let bad = forge::spoiled(query_from(1, session, &query(later(&world)), &forge::sender()));
        world.stable = false;
        world.tell(2, Indication::Received(bad));
        world.settle();
        let refused = |event: &ReportEvent| matches!(event, ReportEvent::Refused(refusal) if refusal.code != NotifyCode::Stale);
        assert!(world.saw(2, refused));
        assert_eq!(world.receiver_state(), state);
    }
}

#[test]
fn a_release_ends_the_session_while_the_counter_is_read() {
    // FR-12.
    let mut world = counting();
    world.sender.release(flow(), world.now);
    world.run(LATENCY * 3);
    world.took(2, &["FR-12"]);
    assert!(world.datapaths[2].table.is_empty());
    world.datapaths[2].resume();
    world.run(seconds(1));
    assert!(world.is_clean(), "{:?}", world.states());
}

#[test]
fn another_epoch_begins_while_the_counter_is_read_and_its_drain_time_ends_there_too() {
    // FR-13, then FR-11 and FR-19 in Compare Sv.
    let mut world = counting();
    let (session, old) = (world.session(), spi(&world));
    let context = Some(VolumeContext { spi: 0x7777, highest: 1, permission: 1 });
    let lost = Query { requested: None, sent: Some(Volume(1)), context, ..query(later(&world)) };
    tell(&mut world, session, &lost);
    world.took(2, &["FR-13"]);
    let new = world.datapaths[2].table.iter().find(|(_, entry)| !entry.draining).unwrap().0.1;
    let context = Some(VolumeContext { spi: new, highest: 0, permission: 1 });
    let refresh = Query { number: lost.number + 1, sent: Some(Volume(0)), context, ..lost };
    tell(&mut world, session, &refresh);
    assert_eq!(world.receiver_state(), "Compare Sv");
    assert_eq!(world.datapaths[2].table.len(), 2);
    world.run(seconds(3));
    world.took(2, &["FR-19"]);
    assert!(!world.datapaths[2].table.contains_key(&(flow(), old)));
    assert_eq!(world.receiver_state(), "Compare Sv");
}

#[test]
fn clocks_end_a_session_whose_counter_is_never_told() {
    // FR-14 and FR-15.
    let mut world = counting_under(Terms { ttl: seconds(12), ..terms() });
    world.run(seconds(7));
    world.took(2, &["FR-14"]);
    assert!(world.datapaths[2].table.is_empty());
    let mut world = counting();
    world.down.insert(SENDER);
    world.loses = Box::new(|transit| transit.from == SENDER);
    world.run(L + seconds(1));
    world.took(2, &["FR-15"]);
    assert!(world.datapaths[2].table.is_empty());
}

#[test]
fn orders_and_alarms_end_a_session_while_the_counter_is_read() {
    // FR-16, FR-24, FR-60, FR-70.
    type Order = fn(&mut World);
    let orders: [(&str, Order); 4] = [
        ("FR-16", |world| assert!(world.receiver.revoke(flow(), world.now))),
        ("FR-24", |world| {
            let spi = spi(world);
            world.receiver.handle_datapath(Event::OverBudget { flow: flow(), spi }, world.now);
        }),
        ("FR-60", |world| world.receiver.shutdown(world.now)),
        ("FR-70", |world| {
            let Some(Event::Applied { token, .. } | Event::Compared { token, .. }) = world.datapaths[2].waiting.pop_back() else {
                panic!("the counter")
            };
            world.receiver.handle_datapath(Event::Failed { token, reason: "worker gone".to_owned() }, world.now);
        }),
    ];
    for (rule, order) in orders {
        let mut world = counting();
        order(&mut world);
        world.settle();
        world.took(2, &[rule]);
        assert!(world.datapaths[2].table.is_empty(), "{rule}");
        let denials =
            |world: &World| world.sent(2, MessageKind::Permission).iter().filter(|t| t.permission().unwrap().is_removal()).count();
        assert_eq!(denials(&world), 0, "{rule}: P-144: it waits");
        world.datapaths[2].resume();
        world.run(seconds(1));
        assert_eq!(denials(&world), 1, "{rule}");
        assert!(world.permissions().iter().all(Vec::is_empty), "{rule}");
    }
}

#[test]
fn a_newer_session_takes_over_while_the_counter_of_the_old_one_is_read() {
    // FR-50 in Compare Sv.
    let mut world = World::granted(1);
    let (old, session) = (spi(&world), world.session());
    world.datapaths[2].stalled = true;
    let number = later(&world);
    tell(&mut world, NEWER, &query(number));
    // The old session's refresh was under way; its counter is told after the new session's installation.
    let context = Some(VolumeContext { spi: old, highest: 0, permission: 1 });
    tell(&mut world, session, &Query { requested: None, sent: Some(Volume(0)), context, ..query(number + 1) });
    let states = |world: &World| world.receiver.sessions().into_iter().map(|s| (s.session, s.state)).collect::<Vec<_>>();
    assert!(states(&world).contains(&(session, "Compare Sv".to_owned())), "{:?}", states(&world));
    world.datapaths[2].resume();
    world.settle();
    world.took(2, &["FR-50"]);
    assert_eq!(states(&world), [(NEWER, "Permitted".to_owned())]);
    // what is under way still passes, for a while.
    assert!(world.datapaths[2].table[&(flow(), old)].draining);
    world.run(seconds(3));
    assert!(!world.datapaths[2].table.contains_key(&(flow(), old)));
}

#[test]
fn a_newer_question_replaces_one_that_is_not_decided_and_a_host_that_stops_denies_it() {
    // FR-50 and FR-60 in Decision.
    let mut world = World::new(1);
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: true });
    world.want();
    world.run(LATENCY * 3);
    let number = later(&world);
    tell(&mut world, NEWER, &query(number));
    world.took(2, &["FR-50"]);
    let sessions: Vec<_> = world.receiver.sessions().into_iter().map(|session| session.session).collect();
    assert_eq!(sessions, [NEWER]);
    world.receiver.shutdown(world.now);
    world.settle();
    world.took(2, &["FR-60"]);
    assert!(world.receiver.sessions().is_empty());
    assert!(world.sent(2, MessageKind::Permission).last().unwrap().permission().unwrap().is_removal());
}

#[test]
fn a_session_whose_counter_is_read_ends_for_one_that_needs_its_volume() {
    // FR-72 in Compare Sv: there is nothing to divide.
    let mut world = World::new(1);
    set_rule(&mut world, Terms { limit: Volume(VOLUME), ..terms() });
    world.want();
    world.run(seconds(1));
    for _ in 0..10 {
        assert!(world.packet(1000).is_some());
    }
    world.run(seconds(6));
    stall(&mut world);
    let old = spi(&world);
    let asked = Query { requested: Some(Volume(VOLUME)), ..query(later(&world)) };
    tell(&mut world, NEWER, &asked);
    world.took(2, &["FR-72"]);
    assert!(!world.datapaths[2].table.contains_key(&(flow(), old)));
    world.datapaths[2].resume();
    world.settle();
    assert!(world.datapaths[2].table.is_empty());
}

#[test]
fn a_flow_that_turns_out_to_have_had_all_its_volume_is_denied_while_its_counter_is_due() {
    // FR-71 in Compare Sv: the new epoch waited for its part of the old one, and a refresh came meanwhile.
    let mut world = World::new(1);
    set_rule(&mut world, Terms { limit: Volume(VOLUME), ..terms() });
    world.want();
    world.run(seconds(1));
    for _ in 0..10 {
        assert!(world.packet(1000).is_some());
    }
    world.datapaths[2].stalled = true;
    let number = later(&world);
    tell(&mut world, NEWER, &query(number));
    tell(&mut world, NEWER, &query(number + 1));
    assert!(world.receiver.sessions().iter().any(|session| session.session == NEWER && session.state == "Compare Sv"));
    world.datapaths[2].resume();
    world.settle();
    world.took(2, &["FR-71"]);
    assert!(world.saw(2, |event| *event == ReportEvent::BudgetSpent));
    assert_eq!(world.datapaths[2].table.len(), 1, "the old one, with nothing left");
}

#[test]
fn bad_messages_change_nothing_at_the_sender_in_any_state() {
    // FS-00 in Idle, Wait P and Releasing.
    let bad = |world: &World| {
        let session = world.session();
        let received = forge::permission_from(1, session, &forge::permission(later(world)), &forge::receiver());
        let cut_short = ReceivedMessage { payload: received.payload.slice(..received.payload.len() - 4), ..received };
        Indication::Received(cut_short)
    };
    let waiting = || {
        let mut world = World::new(1);
        world.down.insert(1);
        world.want();
        world
    };
    let releasing = || {
        let mut world = waiting();
        world.sender.release(flow(), world.now);
        world.settle();
        world
    };
    for (mut world, state) in [(World::new(1), "Idle"), (waiting(), "Wait P"), (releasing(), "Releasing")] {
        assert_eq!(world.sender_state(), state);
        world.stable = false;
        let message = bad(&world);
        world.tell(SENDER, message);
        world.settle();
        world.took(SENDER, &["FS-00"]);
        assert_eq!(world.sender_state(), state);
        assert!(world.datapaths[SENDER].table.is_empty());
    }
}
