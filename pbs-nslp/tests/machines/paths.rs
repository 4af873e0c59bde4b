//! Another way to the receiver, when nobody answers on the one in use or packets get lost on it (draft-04 §8.2; ).

use core::time::Duration;
use std::sync::Arc;

use gist::api::{Indication, PathId, SendError};
use pbs_nslp::credentials::Signer;
use pbs_nslp::flow::FlowId;
use pbs_nslp::receiver::Receiver;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::Way;
use pbs_nslp::wire::{Defense, MessageKind, Permission, Volume};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::datapath::Datapath;
use crate::forge::{self, permission, permission_from};
use crate::setting::{T, VOLUME, flow, receiver_address, receiver_config, seconds, terms};
use crate::world::{LATENCY, SENDER, World, entropy};

fn way(path: u8) -> Way {
    Way { path: PathId(path), covers: Selector::default(), live: true, relay: None }
}

/// A world with other ways; what leaves by those in `dead` gets lost, and so does what comes back.
pub(crate) fn with_ways(mut world: World, ways: &[u8]) -> World {
    world.sender.set_ways(ways.iter().copied().map(way).collect());
    world
}

/// What leaves the sender by these ways is lost from now on.
pub(crate) fn cut(world: &mut World, dead: &'static [u8]) {
    world.loses = Box::new(move |transit| transit.from == SENDER && dead.contains(&transit.path.0));
}

fn paths_taken(world: &World) -> Vec<u8> {
    let changed = |event: &&ReportEvent| matches!(event, ReportEvent::PathChanged { .. });
    let path = |event: &ReportEvent| if let ReportEvent::PathChanged { path } = event { path.0 } else { 0 };
    world.events(SENDER).into_iter().filter(changed).map(path).collect()
}

/// The receiver asks for another path, with a number newer than all before. Its own answer in the same second is an old one
/// then, and that to the second try counts.
pub(crate) fn ask_for_another_path(world: &mut World) {
    let number = u32::try_from(world.unix()).unwrap() + 1;
    let other_path = Permission { defense: Some(Defense::ChangePath), sa: None, allowed: Volume(VOLUME), ..permission(number) };
    let received = permission_from(1, world.session(), &other_path, &forge::receiver());
    world.tell(SENDER, Indication::Received(received));
    world.settle();
}

#[test]
fn a_flow_that_nobody_answers_takes_another_path_after_the_second_time_out() {
    // P-113, P-175.
    // FS-08, FS-09; draft-04 §8.2.1, figure 5.
    let mut world = with_ways(World::new(1), &[1, 2]);
    cut(&mut world, &[0]);
    world.want();
    world.run(Duration::from_millis(14_990));
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Wait P", vec![]));
    world.run(Duration::from_millis(200));
    world.took(SENDER, &["FS-08", "FS-09", "FS-05"]);
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1]));
    assert_eq!(world.datapaths[SENDER].ways.get(&flow()), Some(&PathId(1)));
    assert_eq!(world.packet(100), Some(world.end()), "and its packets get through");
    let queries: Vec<u8> = world.sent(SENDER, MessageKind::Query).iter().map(|transit| transit.path.0).collect();
    assert_eq!(queries, [0, 0, 1]);
}

#[test]
fn a_permission_that_nobody_refreshes_goes_on_on_another_path_with_its_association_and_its_volume() {
    // FS-30, FS-31, FS-05, FS-15; INV-07: the toy packet side refuses a number used twice.
    let mut world = with_ways(World::granted(1), &[3]);
    assert_eq!(world.packet(400), Some(2));
    let spi = world.sender.sessions()[0].permission.as_ref().unwrap().spi;
    cut(&mut world, &[0]);
    while world.sender_state() == "Permitted" {
        world.run(Duration::from_millis(1));
    }
    world.took(SENDER, &["FS-30", "FS-31"]);
    assert_eq!(world.packet(100), None, "FS-15: the nodes on the other path know of nothing yet");
    world.run(LATENCY * 6);
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![3]));
    assert_eq!(world.packet(100), Some(2));
    let status = &world.sender.sessions()[0];
    assert_eq!((status.path, status.permission.as_ref().unwrap().spi), (PathId(3), spi));
    let query = world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap();
    assert_eq!((query.sent, query.requested), (Some(Volume(400)), Some(Volume(VOLUME))), "X-53: RV, should the receiver have given up");
    // Refreshes go that way too.
    world.run(T * 2);
    assert!(world.sent(SENDER, MessageKind::Query).iter().rev().take(2).all(|transit| transit.path == PathId(3)));
}

#[test]
fn a_flow_leaves_a_dead_way_at_once_under_a_permission_and_while_it_waits_for_one() {
    // FS-36, FS-05; X-99.
    let mut world = with_ways(World::granted(1), &[1, 2, 3]);
    world.stable = false;
    ask_for_another_path(&mut world);
    world.run(T * 2 + seconds(1));
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1]));
    let spi = world.sender.sessions()[0].permission.as_ref().unwrap().spi;
    // Two ways die, and only the first of them is known to be dead.
    cut(&mut world, &[1, 2]);
    let dead = Way { live: false, ..way(1) };
    world.sender.set_ways(vec![dead, way(2), way(3)]);
    world.sender.way_is_dead(PathId(1), world.now);
    world.settle();
    world.took(SENDER, &["FS-36"]);
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Wait P", vec![1, 2]), "no time-out was waited for");
    assert_eq!(world.sender.sessions()[0].permission.as_ref().map(|permission| permission.spi), Some(spi), "what was granted stands");
    // N of X-47 bounds how often, as long as nobody knows that this one is dead too.
    world.sender.way_is_dead(PathId(2), world.now);
    world.settle();
    assert_eq!(paths_taken(&world), [1, 2]);
}

#[test]
fn from_a_dead_way_with_no_other_left_a_flow_goes_back_to_the_routed_path_and_is_permitted_there_again() {
    // FS-36, FS-05; X-99: on the way it would send to nobody until its permission is over.
    let mut world = with_ways(World::granted(1), &[1]);
    world.stable = false;
    ask_for_another_path(&mut world);
    world.run(T * 2 + seconds(1));
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1]));
    let spi = world.sender.sessions()[0].permission.as_ref().unwrap().spi;
    cut(&mut world, &[1]);
    world.sender.set_ways(vec![Way { live: false, ..way(1) }]);
    world.sender.way_is_dead(PathId(1), world.now);
    world.settle();
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Wait P", vec![1, 0]), "no time-out was waited for");
    world.run(seconds(1));
    world.took(SENDER, &["FS-36", "FS-05"]);
    let status = &world.sender.sessions()[0];
    assert_eq!((status.path, status.permission.as_ref().map(|permission| permission.spi)), (PathId::ROUTED, Some(spi)));
    assert_eq!(world.packet(100), Some(world.end()), "and its packets get through");
    // However the way comes and goes from now on, and whatever the receiver asks for, it stays.
    for live in [true, false, true] {
        world.sender.set_ways(vec![Way { live, ..way(1) }]);
        world.sender.way_is_dead(PathId(1), world.now);
        ask_for_another_path(&mut world);
        world.run(T * 2 + seconds(1));
        assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1, 0]));
    }
}

#[test]
fn while_a_first_answer_is_awaited_a_dead_way_is_left_too() {
    // FS-36 in S2.
    let mut world = with_ways(World::new(1), &[1, 2]);
    cut(&mut world, &[0, 1]);
    world.want();
    world.run(seconds(15) + Duration::from_millis(200));
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Wait P", vec![1]));
    world.sender.set_ways(vec![Way { live: false, ..way(1) }, way(2)]);
    world.sender.way_is_dead(PathId(1), world.now);
    world.run(Duration::from_millis(500));
    world.took(SENDER, &["FS-09", "FS-36", "FS-05"]);
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1, 2]));
}

#[test]
fn a_way_that_dies_just_after_a_change_is_left_at_once_and_ways_that_come_and_go_cost_three_changes_at_most() {
    // FS-36; X-99, TMP-06: said again and again, it is acted upon as often as a session may change.
    let mut world = with_ways(World::granted(1), &[1, 2]);
    world.sender.way_is_dead(PathId::ROUTED, world.now);
    world.settle();
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![]), "the routed path never counts as dead");
    world.stable = false;
    ask_for_another_path(&mut world);
    world.run(seconds(6));
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1]));
    world.sender.way_is_dead(PathId(1), world.now);
    world.settle();
    assert_eq!(paths_taken(&world), [1], "it is live again before it was left: two periods are not over");
    for round in 0..20 {
        let (dead, live) = if round % 2 == 0 { (1, 2) } else { (2, 1) };
        world.sender.set_ways(vec![Way { live: false, ..way(dead) }, way(live)]);
        world.sender.way_is_dead(PathId(dead), world.now);
        world.settle();
        world.run(seconds(1));
        // The routed path last, and for good.
        let taken: &[u8] = if round == 0 { &[1, 2] } else { &[1, 2, 0] };
        assert_eq!(paths_taken(&world), taken);
    }
}

#[test]
fn a_sender_tells_since_when_nobody_has_answered_and_asks_between_refreshes() {
    // FS-34 as a probe: the first open Query counts, and any answer ends it.
    let mut world = World::granted(1);
    world.run(Duration::from_millis(100));
    assert_eq!(world.sender.unanswered_since(&flow()), None);
    let before = world.sent(SENDER, MessageKind::Query).len();
    world.run(seconds(1));
    cut(&mut world, &[0]);
    let asked = world.now;
    world.sender.probe(flow(), asked);
    world.settle();
    world.run(seconds(2));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), before + 1);
    world.run(T);
    assert!(world.sent(SENDER, MessageKind::Query).len() > before + 1, "it was repeated");
    assert_eq!(world.sender.unanswered_since(&flow()), Some(asked), "the first one counts");
    cut(&mut world, &[]);
    world.sender.probe(flow(), world.now);
    world.run(seconds(1));
    assert_eq!((world.sender.unanswered_since(&flow()), world.sender_state().as_str()), (None, "Permitted"));
}

#[test]
fn a_flow_changes_its_path_when_asked_to_but_not_twice_within_two_periods() {
    // P-122.
    // FS-25, FS-26; X-99; figure 6.
    let mut world = with_ways(World::granted(1), &[1, 2]);
    world.stable = false;
    ask_for_another_path(&mut world);
    world.took(SENDER, &["FS-25"]);
    assert_eq!(world.sender_state(), "Wait P");
    world.run(seconds(21));
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1]));
    // The third time there would be a way left, but no change.
    for (wait, taken) in [(0, vec![1, 2]), (1, vec![1, 2]), (30, vec![1, 2])] {
        world.run(seconds(wait));
        ask_for_another_path(&mut world);
        world.run(seconds(21));
        assert_eq!(paths_taken(&world), taken);
    }
    world.took(SENDER, &["FS-26"]);
    assert_eq!(world.sender_state(), "Permitted");
}

#[test]
fn the_second_change_under_a_permission_waits_two_periods() {
    // X-99, TMP-06.
    let mut world = with_ways(World::granted(1), &[1, 2]);
    world.stable = false;
    ask_for_another_path(&mut world);
    world.run(seconds(6));
    assert_eq!(world.sender_state(), "Permitted");
    ask_for_another_path(&mut world);
    world.run(seconds(1));
    assert_eq!(paths_taken(&world), [1], "6 s after the first change, T is 5 s");
    world.run(seconds(4));
    ask_for_another_path(&mut world);
    world.run(seconds(1));
    assert_eq!(paths_taken(&world), [1, 2]);
}

#[test]
fn advice_and_errors_while_an_answer_is_awaited_change_the_path_too() {
    // P-122.
    // FS-11, FS-14.
    let mut world = with_ways(World::new(1), &[1, 2]);
    world.stable = false;
    cut(&mut world, &[0, 1]);
    world.want();
    ask_for_another_path(&mut world);
    world.took(SENDER, &["FS-11"]);
    assert_eq!(paths_taken(&world), [1]);
    world.run(seconds(6));
    world.undelivered(SendError::NoResponse);
    world.took(SENDER, &["FS-14"]);
    world.run(seconds(1));
    assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1, 2]));
}

#[test]
fn a_session_takes_no_path_twice_and_ends_when_none_is_left() {
    // P-121, P-187.
    // FS-10, INV-09, TMP-06: N = 2, and the routed path counts as one of those left.
    for ways in [&[1_u8][..], &[1, 2, 3]] {
        let mut world = with_ways(World::new(1), ways);
        cut(&mut world, &[0, 1, 2, 3]);
        world.want();
        world.run(seconds(100));
        let mut taken = paths_taken(&world);
        taken.truncate(ways.len().min(2));
        assert_eq!(taken, ways[..ways.len().min(2)]);
        world.took(SENDER, &["FS-10"]);
        assert!(world.datapaths[SENDER].ways.is_empty(), "the end of the session gives the way back");
        assert_eq!(world.sender_state(), "Idle");
    }
}

#[test]
fn ways_that_are_dead_or_for_other_flows_are_not_taken() {
    let mut world = World::new(1);
    let other_flows = Selector { destination_ports: Some(1..=1), ..Selector::default() };
    world.sender.set_ways(vec![Way { live: false, ..way(1) }, Way { covers: other_flows, ..way(2) }]);
    cut(&mut world, &[0]);
    world.want();
    world.run(seconds(16));
    world.took(SENDER, &["FS-10"]);
    assert!(paths_taken(&world).is_empty());
}

/// no way over a relay leads to that relay, to the other IP version, or into itself.
#[test]
fn a_flow_to_the_relay_does_not_go_over_it_and_the_flow_that_carries_others_goes_nowhere_else() {
    let relay_is = |relay: std::net::IpAddr| Way { relay: Some(relay), ..way(1) };
    let beyond: std::net::IpAddr = [203, 0, 113, 9].into();
    for (relay, goes) in [(beyond, true), (flow().destination, false), ("2001:db8::9".parse().unwrap(), false)] {
        let mut world = World::new(1);
        world.sender.set_ways(vec![relay_is(relay)]);
        cut(&mut world, &[0]);
        world.want();
        world.run(seconds(16));
        assert_eq!(paths_taken(&world), if goes { vec![1] } else { vec![] }, "{relay}");
    }
    let mut world = World::new(1);
    let carrier = FlowId::new(flow().source, flow().destination, 4, 0, 0).unwrap();
    world.sender.set_ways(vec![way(2), relay_is(carrier.destination)]);
    cut(&mut world, &[0]);
    world.sender.want(carrier, Volume(VOLUME), world.now).unwrap();
    world.settle();
    world.run(seconds(16));
    assert!(paths_taken(&world).is_empty(), "not by the other link either");
}

/// which relay is nearest changes while a flow is on one, and changes nothing; when that dies the other is taken, no
/// sooner than two periods later, and then the routed path, for good.
#[test]
fn a_flow_stays_on_its_relay_whichever_is_nearest_and_takes_each_once_at_most() {
    let relays = |order: [u8; 2], live: [bool; 2]| -> Vec<Way> {
        let over = |path: u8| Way { relay: Some([203, 0, 113, path].into()), live: live[usize::from(path) - 1], ..way(path) };
        order.into_iter().map(over).collect()
    };
    let mut world = World::granted(1);
    world.sender.set_ways(relays([1, 2], [true; 2]));
    ask_for_another_path(&mut world);
    assert_eq!(paths_taken(&world), [1]);
    for round in 0..4 {
        world.sender.set_ways(relays(if round % 2 == 0 { [2, 1] } else { [1, 2] }, [true; 2]));
        world.run(T / 2);
    }
    assert_eq!(paths_taken(&world), [1], "nearer or farther, it stays");
    // It dies: nobody answers there any more, and it is known to be dead.
    let died = world.now;
    cut(&mut world, &[1]);
    world.sender.set_ways(relays([2, 1], [false, true]));
    world.run(T * 3 + seconds(30));
    assert_eq!(paths_taken(&world), [1, 2]);
    assert!(world.now >= died);
    // The other one dies too, and the first lives again: no way is taken twice, and only what is routed is beyond the limit.
    cut(&mut world, &[2]);
    world.sender.set_ways(relays([1, 2], [true, false]));
    world.run(T * 4);
    assert_eq!(paths_taken(&world), [1, 2, 0]);
    cut(&mut world, &[0]);
    world.run(T * 4);
    assert_eq!(paths_taken(&world), [1, 2, 0]);
}

/// What a way over a relay is judged by.
#[test]
fn the_last_answer_tells_how_far_the_receiver_is_and_a_repeated_query_none() {
    let mut world = World::granted(1);
    let first = world.sender.session(&flow()).unwrap().answered.expect("answered");
    assert_eq!((first.round_trip, first.at <= world.now), (LATENCY * 4, true));
    world.run(T);
    let later = world.sender.session(&flow()).unwrap().answered.unwrap();
    assert!(later.at > first.at && later.round_trip <= first.round_trip, "{later:?}");
    cut(&mut world, &[0]);
    world.run(T * 2);
    assert_eq!(world.sender.session(&flow()).unwrap().answered, Some(later));
}

#[test]
fn what_was_granted_on_the_path_left_may_end_while_the_other_one_is_tried() {
    // FS-17, by either clock; a denial, an end by the application and a shutdown then find nothing installed.
    for by_time_limit in [true, false] {
        let mut world = with_ways(World::granted(1), &[1, 2]);
        world.stable = false;
        assert_eq!(world.packet(100), Some(2));
        if by_time_limit {
            world.receiver.change(flow(), pbs_nslp::receiver::Terms { ttl: seconds(5), ..terms() }, world.now);
            world.run(LATENCY * 4);
        }
        cut(&mut world, &[0, 1]);
        // What the receiver says on the path left is lost as well.
        world.down.insert(1);
        world.run(if by_time_limit { LATENCY } else { seconds(6) });
        ask_for_another_path(&mut world);
        assert_eq!(world.sender_state(), "Wait P");
        world.run(if by_time_limit { seconds(6) } else { seconds(11) });
        world.down.remove(&1);
        world.took(SENDER, &["FS-17"]);
        assert!(world.datapaths[SENDER].table.is_empty(), "{}", world.story());
        world.run(seconds(22));
        assert_eq!((world.sender_state().as_str(), paths_taken(&world)), ("Permitted", vec![1, 2]), "{}", world.story());
        assert_eq!(world.packet(100), Some(2));
    }
}

#[test]
fn every_end_of_a_flow_gives_its_way_back_and_its_key_too() {
    // FS-06, FS-07 to FS-60 with a permission that stands from the path before.
    for end in 0..4 {
        let mut world = with_ways(World::granted(1), &[1]);
        world.stable = false;
        cut(&mut world, &[1]);
        ask_for_another_path(&mut world);
        assert_eq!((world.sender_state().as_str(), world.datapaths[SENDER].ways.len()), ("Wait P", 1));
        assert_eq!(world.datapaths[SENDER].table.len(), 1);
        match end {
            0 => world.sender.release(flow(), world.now),
            1 => world.sender.shutdown(world.now),
            2 => {
                let number = u32::try_from(world.unix()).unwrap() + 25;
                let denial = permission_from(1, world.session(), &forge::denial(number), &forge::receiver());
                world.tell(SENDER, Indication::Received(denial));
            }
            _ => world.run(seconds(60)),
        }
        world.run(seconds(31));
        assert_eq!((world.sender_state().as_str(), world.datapaths[SENDER].ways.len()), ("Idle", 0), "{end}: {}", world.story());
        assert!(world.datapaths[SENDER].table.is_empty(), "{end}");
    }
}

/// The receiver takes back what it had granted, in words that reach the sender only after it has changed its path.
fn a_late_denial(world: &mut World, echo: u32) {
    let number = u32::try_from(world.unix()).unwrap() - 1;
    let denial = Permission {
        allowed: Volume(0),
        ttl: Duration::ZERO,
        refresh: Duration::ZERO,
        defense: None,
        sa: None,
        echo: Some(echo),
        ..permission(number)
    };
    let received = permission_from(1, world.session(), &denial, &forge::receiver());
    world.tell(SENDER, Indication::Received(received));
    world.settle();
}

#[test]
fn a_late_denial_from_the_way_left_ends_what_was_granted_there_and_leaves_the_question_open() {
    // FS-18, X-54, TMP-07: the receiver has been stopped and started again; what the sender asks on the new way is another question.
    let mut world = with_ways(World::granted(1), &[3]);
    world.stable = false;
    world.packet(400);
    cut(&mut world, &[0]);
    while world.sender_state() == "Permitted" {
        world.run(Duration::from_millis(1));
    }
    let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(receiver_config(), signer, Arc::new(ToyAuthority::default()), entropy(9), world.unix(), world.now);
    world.datapaths[2] = Datapath::default();
    a_late_denial(&mut world, 0);
    world.took(SENDER, &["FS-31", "FS-18"]);
    assert_eq!(world.sender_state(), "Wait P");
    assert!(world.datapaths[SENDER].table.is_empty(), "what was revoked is gone at once");
    assert!(world.saw(SENDER, |event| matches!(event, ReportEvent::LeftBehind)));
    assert_eq!(world.packet(100), None);
    world.run(LATENCY * 6);
    assert_eq!(world.sender_state(), "Permitted", "without a hold-down: {}", world.story());
    assert_eq!(world.packet(100), Some(2));
}

#[test]
fn a_denial_that_answers_the_question_on_the_new_way_is_one() {
    // FS-06.
    let mut world = with_ways(World::granted(1), &[3]);
    world.stable = false;
    cut(&mut world, &[0, 3]);
    while world.sender_state() == "Permitted" {
        world.run(Duration::from_millis(1));
    }
    let asked = world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap().number;
    a_late_denial(&mut world, asked);
    assert_eq!(world.sender_state(), "Idle");
}
