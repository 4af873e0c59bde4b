//! Permissions that end in order: given back, taken back, used up, or left behind by a host that stops.

use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{MessageKind, Volume, VolumeContext};

use crate::forge::{self, query_from};
use crate::world::{LATENCY, SENDER, Transit, VOLUME, World, flow, seconds};

#[test]
fn a_released_permission_is_gone_everywhere_within_a_round_trip() {
    // P-123.
    // FS-35, FN-21, FR-12, FN-26, FS-50, TMP-16, X-48: the final volume is reported exactly.
    let mut world = World::granted(2);
    for _ in 0..7 {
        world.packet(123);
    }
    world.sender.release(flow(), world.now);
    world.run(LATENCY * 6);
    assert!(world.is_clean(), "{:?}", world.states());
    let release = world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap();
    assert_eq!((release.requested, release.sent), (Some(Volume::ZERO), Some(Volume(861))));
    let compared = |event: &ReportEvent| matches!(event, ReportEvent::Compared { sent: Volume(861), counted: Volume(861), .. });
    assert!(world.saw(3, compared), "the last comparison");
    world.took(SENDER, &["FS-35", "FS-50"]);
    world.took(1, &["FN-26"]);
    world.took(3, &["FR-12"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::Released));
}

#[test]
fn a_flow_given_up_while_waiting_is_given_up_everywhere() {
    // FS-16, FN-05 or FN-08, FR-09 or FR-12.
    let mut world = World::new(1);
    world.want();
    world.sender.release(flow(), world.now);
    world.run(seconds(1));
    world.took(SENDER, &["FS-16", "FS-50"]);
    assert!(world.is_clean());
}

#[test]
fn nothing_is_sent_under_a_permission_that_is_being_released() {
    // FS-52: data and a late Permission.
    let mut world = World::granted(1);
    world.loses = Box::new(|transit: &Transit| transit.from == SENDER);
    world.sender.release(flow(), world.now);
    world.settle();
    assert_eq!(world.packet(100), None);
    world.took(SENDER, &["FS-52"]);
    assert!(world.datapaths[SENDER].held.is_empty());
    world.receiver.change(flow(), crate::world::terms(), world.now);
    world.run(seconds(1));
    assert_eq!(world.sender_state(), "Releasing");
    assert!(world.datapaths[SENDER].table.is_empty());
}

#[test]
fn a_lost_release_is_repeated_once_and_then_left_to_expiry() {
    // FS-51, FS-53, TMP-09.
    let mut world = World::granted(1);
    let before = world.sent(SENDER, MessageKind::Query).len();
    world.loses = Box::new(|transit: &Transit| transit.from == SENDER);
    world.sender.release(flow(), world.now);
    world.run(seconds(16));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), before + 2);
    world.took(SENDER, &["FS-51", "FS-53"]);
    assert_eq!(world.sender_state(), "Idle");
    world.run(seconds(20));
    assert!(world.is_clean());
}

#[test]
fn a_revoked_permission_is_gone_everywhere_before_the_denial_goes_on() {
    // P-102, P-116: a Permission removes.
    // FR-16, FN-26, FS-27, TMP-01, P-144 (checked at every departure).
    let mut world = World::granted(2);
    assert!(world.receiver.revoke(flow(), world.now));
    world.settle();
    assert!(world.datapaths[3].table.is_empty());
    world.run(LATENCY * 3);
    assert!(world.permissions().iter().all(Vec::is_empty));
    assert_eq!(world.packet(100), None);
    world.took(3, &["FR-16"]);
    world.took(1, &["FN-26"]);
    world.took(SENDER, &["FS-27"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::Revoked));
    assert!(!world.receiver.revoke(flow(), world.now), "there is nothing to revoke any more");
}

/// No rule grants a revoked flow again for ten minutes; lifting ends that at once.
#[test]
fn a_revoked_flow_is_refused_until_that_is_lifted() {
    // FR-16.
    let mut world = World::granted(1);
    world.receiver.revoke(flow(), world.now);
    let refused: Vec<_> = world.receiver.refused(world.now).collect();
    assert_eq!(refused, [(flow(), seconds(600))]);
    world.run(seconds(20));
    let _ = world.sender.want(flow(), Volume(VOLUME), world.now);
    world.run(seconds(20));
    assert_ne!(world.sender_state(), "Permitted", "refused although its rule grants it");
    assert!(world.receiver.lift(&flow(), world.now));
    assert!(!world.receiver.lift(&flow(), world.now), "it is refused no more");
    assert_eq!(world.receiver.refused(world.now).count(), 0);
    world.run(seconds(20));
    let _ = world.sender.want(flow(), Volume(VOLUME), world.now);
    world.run(seconds(2));
    assert_eq!(world.sender_state(), "Permitted");
}

#[test]
fn a_router_removes_before_it_passes_the_denial_on() {
    // P-144.
    let mut world = World::granted(2);
    world.datapaths[1].stalled = true;
    world.receiver.revoke(flow(), world.now);
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted", "Idle", "Idle", "Idle"]);
    world.datapaths[1].resume();
    world.run(LATENCY * 2);
    assert!(world.permissions().iter().all(Vec::is_empty));
}

#[test]
fn a_failed_removal_is_asked_for_until_it_succeeds() {
    // P-144: no removal is lost.
    let mut world = World::granted(1);
    world.datapaths[1].stubborn = true;
    world.leftovers = true;
    world.receiver.revoke(flow(), world.now);
    world.run(seconds(3));
    assert_eq!(world.datapaths[1].table.len(), 1);
    assert_eq!(world.sent(1, MessageKind::Permission).len(), 1, "the denial waits");
    world.datapaths[1].stubborn = false;
    world.run(seconds(2));
    world.leftovers = false;
    world.check();
    assert!(world.permissions().iter().all(Vec::is_empty));
    assert_eq!(world.sent(1, MessageKind::Permission).len(), 2);
}

#[test]
fn a_denial_waits_for_the_epoch_that_runs_out_too() {
    // P-144, TMP-01, X-75: at the router and at the receiver, with a new epoch just begun.
    for place in [1, 2] {
        let mut world = World::granted(1);
        let session = world.session();
        let old = world.permissions()[place][0].1;
        let context = Some(VolumeContext { spi: 0x7777, highest: 1, permission: 1 });
        let number = u32::try_from(world.unix()).unwrap() + 5;
        let query = pbs_nslp::wire::Query { sent: Some(Volume(10)), requested: None, context, ..forge::query(number) };
        world.stable = false;
        world.tell(2, gist::api::Indication::Received(query_from(1, session, &query, &forge::sender())));
        world.run(LATENCY * 3);
        assert_eq!(world.datapaths[place].table.len(), 2);
        let before = world.sent(place, MessageKind::Permission).len();
        world.datapaths[place].sticks = Some(old);
        world.leftovers = true;
        world.receiver.revoke(flow(), world.now);
        world.run(seconds(5));
        assert_eq!(world.datapaths[place].table.keys().map(|(_, spi)| *spi).collect::<Vec<_>>(), [old]);
        assert_eq!(world.sent(place, MessageKind::Permission).len(), before, "the denial waits");
        world.datapaths[place].sticks = None;
        world.run(seconds(2));
        world.leftovers = false;
        world.check();
        assert!(world.permissions().iter().all(Vec::is_empty));
        assert_eq!(world.sent(place, MessageKind::Permission).len(), before + 1);
    }
}

#[test]
fn a_denial_lost_at_any_hop_ends_forwarding_at_the_latest_by_expiry() {
    // TMP-01, fsm.md scenario 10.
    for hop in 0..3 {
        let mut world = World::granted(2);
        world.loses = Box::new(move |transit: &Transit| transit.kind() == MessageKind::Permission && transit.from.min(transit.to) == hop);
        world.receiver.revoke(flow(), world.now);
        world.run(seconds(18));
        assert!(world.permissions().iter().all(Vec::is_empty), "denial lost at {hop}");
        assert_ne!(world.sender_state(), "Permitted");
    }
}

#[test]
fn more_than_the_allowed_volume_at_the_receiver_revokes() {
    // P-129.
    // FR-24: somebody behind the last router has the key.
    let mut world = World::granted(1);
    let spi = world.permissions()[2][0].1;
    for number in 100..112 {
        world.datapaths[2].verify(flow(), spi, number, 1000, world.now);
    }
    world.settle();
    world.took(2, &["FR-24"]);
    assert!(world.saw(2, |event| *event == ReportEvent::OverBudget { spi }));
    world.run(seconds(1));
    assert!(world.permissions().iter().all(Vec::is_empty));
}

#[test]
fn a_router_drops_what_exceeds_the_volume_and_keeps_the_state() {
    // P-141, P-192.
    // FN-43: the packet side drops; signalling does not react.
    let mut world = World::granted(1);
    let spi = world.permissions()[1][0].1;
    for number in 100..112 {
        world.datapaths[1].verify(flow(), spi, number, 1000, world.now);
    }
    world.settle();
    assert_eq!(world.states(), ["Permitted"; 3]);
    assert_eq!(world.datapaths[1].table.values().next().unwrap().counted, 10_000);
}

#[test]
fn a_host_that_stops_gives_back_and_takes_back_what_it_can() {
    // FS-60, FR-60.
    let mut world = World::granted(1);
    world.packet(500);
    world.sender.shutdown(world.now);
    world.run(seconds(1));
    world.took(SENDER, &["FS-60"]);
    let release = world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap();
    assert_eq!((release.requested, release.sent), (Some(Volume::ZERO), Some(Volume(500))));
    assert!(world.is_clean());

    let mut world = World::granted(1);
    world.receiver.shutdown(world.now);
    world.run(seconds(1));
    world.took(2, &["FR-60"]);
    world.took(SENDER, &["FS-27"]);
    assert!(world.permissions().iter().all(Vec::is_empty));

    let mut world = World::new(1);
    world.want();
    world.sender.shutdown(world.now);
    world.run(seconds(1));
    world.took(SENDER, &["FS-60"]);
    assert_eq!(world.sender_state(), "Idle");

    let mut world = World::granted(1);
    world.loses = Box::new(|transit: &Transit| transit.from == SENDER);
    world.sender.release(flow(), world.now);
    world.settle();
    assert_eq!(world.sender_state(), "Releasing");
    world.sender.shutdown(world.now);
    world.settle();
    assert_eq!(world.sender_state(), "Idle");
}

#[test]
fn a_release_of_what_does_not_exist_is_answered_all_the_same() {
    // FR-03.
    let mut world = World::granted(1);
    world.receiver.revoke(flow(), world.now);
    world.loses = Box::new(|transit: &Transit| transit.kind() == MessageKind::Permission);
    world.settle();
    world.sender.release(flow(), world.now);
    world.run(seconds(1));
    world.took(2, &["FR-03"]);
}
