//! Clocks that end what nobody ends (INV-08, TMP-09).

use core::time::Duration;

use pbs_nslp::receiver::{GrantPolicy, Terms};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{MessageKind, Volume};

use crate::world::{L, LATENCY, SENDER, T, Transit, VOLUME, World, flow, seconds, terms};

#[test]
fn without_refresh_everything_is_gone_at_every_node() {
    // P-132.
    // P-101, P-142: FN-28, FR-15, FS-29, wherever the path breaks.
    for hop in 0..3 {
        let mut world = World::granted(2);
        world.loses = Box::new(move |transit: &Transit| transit.from.min(transit.to) == hop);
        world.run(L + T + seconds(1));
        assert!(world.permissions().iter().all(Vec::is_empty), "broken at {hop}: {:?}", world.states());
        world.took(3, &["FR-15"]);
        world.took(SENDER, &["FS-29"]);
        world.run(seconds(60));
        assert!(world.is_clean(), "broken at {hop}: {:?}", world.states());
    }
}

#[test]
fn the_permission_of_a_router_outlives_three_lost_refreshes_and_no_more() {
    // L = 3.5 T.
    let mut world = World::granted(1);
    let granted_at = world.now;
    world.down.insert(2);
    world.run(L - seconds(2));
    assert_eq!(world.router_state(1), "Permitted");
    world.run(seconds(2));
    world.took(1, &["FN-28"]);
    assert!(world.now.saturating_duration_since(granted_at) <= L);
}

#[test]
fn the_time_limit_ends_a_permission_that_is_refreshed() {
    // P-116, P-132.
    // FN-27, FR-14, FS-27 or FS-28: TTL without renewal.
    let mut world = World::new(1);
    world.receiver.expect(flow(), Terms { ttl: seconds(12), ..terms() });
    world.want();
    world.run(seconds(11));
    assert_eq!(world.states(), ["Permitted"; 3]);
    world.run(seconds(2));
    world.took(2, &["FR-14"]);
    assert!(world.permissions().iter().all(Vec::is_empty));
}

#[test]
fn the_time_limit_ends_a_permission_even_where_no_denial_comes() {
    // FN-27 at the router, FS-28 at the sender.
    let mut world = World::new(1);
    world.receiver.expect(flow(), Terms { ttl: seconds(12), ..terms() });
    world.want();
    world.run(seconds(11));
    world.loses = Box::new(|transit: &Transit| transit.permission().is_some_and(|permission| permission.is_removal()));
    world.run(seconds(2));
    world.took(1, &["FN-27"]);
    world.took(SENDER, &["FS-28"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::Expired { clock: "time limit" }));
    assert!(world.is_clean());
}

/// Uses up the volume while nobody answers, so that a packet waits for more.
fn use_up_unanswered(world: &mut World) {
    world.down.insert(2);
    for _ in 0..10 {
        assert!(world.packet(1000).is_some());
    }
    assert_eq!(world.packet(1000), None);
    world.took(SENDER, &["FS-41"]);
}

#[test]
fn a_flow_whose_packet_waits_asks_again_when_the_time_limit_ends_its_permission() {
    // FS-28 with data waiting: neither given up nor held until somebody else asks.
    let mut world = World::new(1);
    world.receiver.expect(flow(), Terms { ttl: seconds(12), limit: Volume(VOLUME), ..terms() });
    let granted_at = world.now;
    world.want();
    world.run(LATENCY * 4);
    let first = world.session();
    world.run(seconds(3));
    use_up_unanswered(&mut world);
    world.run((granted_at + seconds(12)).saturating_duration_since(world.now));
    assert_eq!((world.sender_state().as_str(), world.session()), ("Permitted", first));
    let asked = world.sent(SENDER, MessageKind::Query).len();
    world.run(LATENCY * 6);
    world.took(SENDER, &["FS-28"]);
    assert!(!world.rules(SENDER).contains("FS-42") && !world.rules(SENDER).contains("FS-29"));
    assert_eq!(world.sender_state(), "Wait P");
    assert_ne!(world.session(), first, "a new session");
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), asked + 1, "at once");
    assert!(world.datapaths[SENDER].table.is_empty(), "nothing is sent under the old permission");
    assert!(world.datapaths[SENDER].held.contains(&flow()), "the packet goes on waiting");
    world.down.clear();
    world.run(seconds(6));
    assert_eq!(world.sender_state(), "Permitted");
    assert!(world.datapaths[SENDER].held.is_empty());
}

#[test]
fn a_flow_whose_packet_waits_asks_again_when_no_refresh_came() {
    // FS-29 with data waiting: both tries of the refresh have failed by then, and the packet asks once more.
    let mut world = World::new(1);
    let asked_at = world.now;
    world.want();
    world.run(seconds(3));
    let first = world.session();
    world.down.insert(2);
    world.run(Duration::from_millis(14_300));
    use_up_unanswered(&mut world);
    world.run((asked_at + L).saturating_duration_since(world.now));
    assert_eq!((world.sender_state().as_str(), world.session()), ("Permitted", first));
    world.run(LATENCY * 6);
    world.took(SENDER, &["FS-29"]);
    assert!(!world.rules(SENDER).contains("FS-42") && !world.rules(SENDER).contains("FS-28"));
    assert_eq!(world.sender_state(), "Wait P");
    assert_ne!(world.session(), first, "a new session");
    assert!(world.datapaths[SENDER].held.contains(&flow()), "the packet goes on waiting");
    world.down.clear();
    world.run(seconds(6));
    assert_eq!(world.sender_state(), "Permitted");
}

#[test]
fn a_flow_whose_renewal_nobody_answers_ends_before_its_time() {
    // FS-42 after both tries; the packet is given up.
    let mut world = World::new(1);
    world.receiver.expect(flow(), Terms { refresh: seconds(60), limit: Volume(VOLUME), ..terms() });
    world.want();
    world.run(seconds(1));
    use_up_unanswered(&mut world);
    world.run(seconds(14));
    assert_eq!(world.sender_state(), "Permitted");
    world.run(seconds(2));
    world.took(SENDER, &["FS-32", "FS-42"]);
    assert_eq!(world.sender_state(), "Idle");
    assert!(world.datapaths[SENDER].held.is_empty());
}

#[test]
fn a_decision_that_takes_too_long_is_a_refusal() {
    // FR-07, P-133.
    let mut world = World::new(1);
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: true });
    world.want();
    world.run(seconds(9));
    assert_eq!(world.receiver_state(), "Decision");
    world.run(seconds(2));
    world.took(2, &["FR-07"]);
    world.took(SENDER, &["FS-06"]);
}

#[test]
fn a_permission_is_not_sent_in_its_last_millisecond() {
    // a time limit of 0 would mean removal.
    let mut world = World::new(1);
    world.receiver.expect(flow(), Terms { ttl: Duration::from_millis(1), ..terms() });
    world.datapaths[2].stalled = true;
    world.want();
    world.run(LATENCY * 3);
    world.datapaths[2].resume();
    world.run(seconds(1));
    let permissions = world.sent(2, MessageKind::Permission);
    assert!(permissions.iter().all(|transit| transit.permission().unwrap().allowed.is_zero()));
}
