//! What a receiver changes unasked in a permission that lives (FR-16, FR-17; draft-04 §6.2), and what crosses it.

use core::time::Duration;

use pbs_nslp::receiver::{Change, Strength};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{MessageKind, Volume};

use crate::datapath::Fate;
use crate::world::{L, LATENCY, SENDER, T, TTL, VOLUME, World, flow, flow_to, seconds};

fn allowed(world: &World) -> Vec<u64> {
    world.permissions().into_iter().flatten().map(|(_, _, allowed)| allowed).collect()
}

fn amend(world: &mut World, change: Change) {
    assert!(world.receiver.amend(flow(), change, world.now));
    world.run(LATENCY * 5);
}

fn volume(volume: u64) -> Change {
    Change { volume: Some(Volume(volume)), ..Change::default() }
}

fn ends_in(world: &World) -> Duration {
    let permission = world.receiver.sessions()[0].permission.clone().unwrap();
    permission.expires_at.unwrap().saturating_duration_since(world.now)
}

#[test]
fn a_change_of_the_volume_leaves_time_and_period_as_they_are() {
    // P-102: a Permission modifies.
    // FR-17, P-106, P-107.
    let mut world = World::granted(2);
    world.run(seconds(60));
    let before = ends_in(&world);
    amend(&mut world, volume(25_000));
    assert_eq!(allowed(&world), [25_000; 4]);
    assert!(ends_in(&world) <= before && before - ends_in(&world) < seconds(1), "X-46: no time is given away");
    assert_eq!(world.packet(20_000), Some(3), "the new volume counts at once");
    let announced = world.sent(3, MessageKind::Permission).last().unwrap().permission().unwrap();
    assert_eq!((announced.echo, announced.refresh), (Some(0), T));
}

#[test]
fn a_lowered_volume_stays_lowered_though_the_sender_asks_for_more() {
    // FR-17, X-36: the rule would extend it to 30,000.
    let mut world = World::granted(1);
    world.packet(1000);
    amend(&mut world, volume(5000));
    world.want();
    world.run(2 * T);
    assert_eq!(allowed(&world), [5000; 3]);
    amend(&mut world, Change { volume: Some(Volume(5000)), limit: Some(Volume(20_000)), ..Change::default() });
    world.want();
    world.run(2 * T);
    assert!(allowed(&world).iter().all(|allowed| *allowed > 5000), "{:?}", allowed(&world));
}

#[test]
fn packets_in_flight_when_the_volume_is_lowered_are_no_attack() {
    // FR-27, X-50, with on_overrun = revoke: lowered below what was counted, then raised a little, while packets are under way.
    let mut world = World::granted(1);
    let mut flying = Vec::new();
    for _ in 0..8 {
        let Fate::Passed { spi, number } = world.datapaths[SENDER].send(flow(), 1000, world.now) else { panic!() };
        flying.push((spi, number));
    }
    for (spi, number) in flying.drain(..4) {
        assert_eq!(world.carry(spi, number, 1000), 2);
    }
    assert!(world.receiver.amend(flow(), volume(2000), world.now));
    world.settle();
    assert!(world.receiver.amend(flow(), volume(4500), world.now));
    world.settle();
    for (spi, number) in flying {
        assert_eq!(world.carry(spi, number, 1000), 1, "the receiver drops it");
        world.settle();
    }
    world.run(2 * T);
    assert!(!world.saw(2, |event| matches!(event, ReportEvent::OverBudget { .. } | ReportEvent::Evidence(_))));
    assert_eq!(world.receiver_state(), "Permitted");
    // it may be raised again, and the flow goes on.
    amend(&mut world, volume(VOLUME));
    assert_eq!(world.packet(1000), Some(2));
}

#[test]
fn a_shorter_time_ends_the_permission_everywhere_and_a_longer_one_keeps_it() {
    // FR-17, FR-14, FN-27, FS-28.
    let mut world = World::granted(1);
    amend(&mut world, Change { ttl: Some(seconds(20)), ..Change::default() });
    assert!(ends_in(&world) <= seconds(20));
    world.run(seconds(21));
    assert_eq!(world.states(), ["Idle"; 3]);
    let mut world = World::granted(1);
    amend(&mut world, Change { ttl: Some(seconds(3600)), ..Change::default() });
    world.run(TTL + seconds(60));
    assert_eq!(world.states(), ["Permitted"; 3]);
}

#[test]
fn another_period_is_kept_to_by_every_node() {
    // FR-17, X-45: longer, then shorter again; L follows.
    let mut world = World::granted(1);
    let queries = |world: &World| world.sent(SENDER, MessageKind::Query).len();
    amend(&mut world, Change { refresh: Some(seconds(60)), ..Change::default() });
    world.run(seconds(10));
    let before = queries(&world);
    world.run(seconds(120));
    assert!((2..=3).contains(&(queries(&world) - before)), "{}", queries(&world) - before);
    amend(&mut world, Change { refresh: Some(T), ..Change::default() });
    let before = queries(&world);
    world.run(seconds(60));
    assert!(queries(&world) - before >= 11);
    world.down.insert(SENDER);
    world.run(L + seconds(1));
    assert_eq!(&world.states()[1..], ["Idle"; 2], "L = 3.5 T again");
}

#[test]
fn whoever_changes_nothing_or_everything_away_is_told_no() {
    let mut world = World::granted(1);
    let before = world.permissions();
    for change in [volume(0), Change { ttl: Some(Duration::ZERO), ..Change::default() }] {
        assert!(!world.receiver.amend(flow(), change, world.now), "that is revoke's");
    }
    assert!(!world.receiver.amend(flow_to(9001), volume(1), world.now));
    world.settle();
    assert_eq!(world.permissions(), before);
}

#[test]
fn changes_and_queries_that_cross_anywhere_leave_the_receivers_last_word_at_every_node() {
    // Scenario 9, P-108, X-55: at each moment of a Query's way, with each kind of change.
    let changes: [fn(&mut World); 3] = [
        |world| assert!(world.receiver.amend(flow(), volume(20_000), world.now)),
        |world| assert!(world.receiver.amend(flow(), volume(4000), world.now)),
        |world| assert!(world.receiver.rekey(flow(), Strength::Same, world.now)),
    ];
    for (kind, change) in changes.into_iter().enumerate() {
        for moment in 0..16 {
            let mut world = World::granted(2);
            world.packet(1000);
            world.want();
            world.run(Duration::from_millis(5 * moment));
            change(&mut world);
            world.settle();
            world.run(seconds(5));
            let last = world.receiver.sessions()[0].permission.clone().unwrap();
            for table in world.permissions() {
                assert_eq!(table, [(flow(), last.spi, last.allowed.0)], "change {kind} at {moment}: {}", world.story());
            }
            assert_eq!(world.states(), ["Permitted"; 4]);
        }
    }
}

#[test]
fn several_flows_between_two_hosts_change_apart_from_each_other() {
    // Several sessions: one is rekeyed, one lowered, one revoked, one left alone.
    let mut world = World::granted(1);
    let flows: Vec<_> = (9001..9004).map(flow_to).collect();
    for flow in &flows {
        world.sender.want(*flow, Volume(VOLUME), world.now).unwrap();
    }
    world.run(seconds(1));
    let of = |world: &World, wanted| world.permissions()[1].iter().find(|(flow, ..)| *flow == wanted).copied();
    let before: Vec<_> = flows.iter().map(|flow| of(&world, *flow)).collect();
    let alone = of(&world, flow());
    assert!(world.receiver.rekey(flows[0], Strength::Signed, world.now));
    assert!(world.receiver.amend(flows[1], volume(5000), world.now));
    assert!(world.receiver.revoke(flows[2], world.now));
    world.settle();
    world.run(3 * T);
    assert_ne!(of(&world, flows[0]).unwrap().1, before[0].unwrap().1);
    assert_eq!(of(&world, flows[1]), before[1].map(|(flow, spi, _)| (flow, spi, 5000)));
    assert_eq!(of(&world, flows[2]), None);
    assert_eq!(of(&world, flow()), alone);
}
