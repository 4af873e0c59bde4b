//! Nodes that restart and ways that break heal without anybody's help (TMP-13).

use core::time::Duration;

use gist::api::{NetworkEvent, SendError};
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Receiver};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::Sender;
use pbs_nslp::wire::{MessageKind, NotifyCode, SaParameters, VolumeContext};

use crate::credentials::ToySigner;
use crate::datapath::Datapath;
use crate::forge::{self, notice_from, permission_from, query_from};
use crate::world::{
    LATENCY, SENDER, T, World, entropy, flow, receiver_address, receiver_config, seconds, sender_address, sender_config, terms,
};

#[test]
fn a_restarted_router_permits_again_within_one_period() {
    // X-96, P-203: same epoch, counted from what the sender says it sent.
    for place in [1, 2, 3] {
        let mut world = World::granted(3);
        for _ in 0..3 {
            world.packet(1000);
        }
        world.restart_router(place);
        assert_eq!(world.packet(500), Some(place - 1), "fail closed");
        world.run(T + LATENCY * 8);
        assert_eq!(world.states(), ["Permitted"; 5]);
        assert_eq!(world.datapaths[place].table.values().next().unwrap().counted, 3500, "X-44");
        assert_eq!(world.packet(500), Some(4));
    }
}

#[test]
fn a_restarted_router_lets_nothing_pass_that_was_captured_before_and_everything_new() {
    // X-71 with the N of the Query.
    for place in [1, 2, 3] {
        let mut world = World::granted(3);
        for _ in 0..3 {
            world.packet(1000);
        }
        let spi = world.permissions()[place][0].1;
        world.restart_router(place);
        // This one was under way when the router died.
        assert_eq!(world.packet(500), Some(place - 1));
        world.run(T + LATENCY * 8);
        let table = &world.datapaths[place].table;
        assert_eq!(table.values().map(|entry| (entry.grant.spi, entry.grant.highest)).collect::<Vec<_>>(), [(spi, 4)]);
        for captured in 1..=4 {
            assert!(!world.datapaths[place].verify(flow(), spi, captured, 500, world.now), "{captured} at router {place}");
        }
        assert_eq!(world.packet(500), Some(4));
        // A refresh changes nothing about numbers.
        world.run(T * 2);
        assert_eq!(world.datapaths[place].table.values().next().unwrap().grant.highest, 4);
        assert_eq!(world.packet(500), Some(4));
    }
}

#[test]
fn a_router_begins_after_the_senders_number_only_in_the_epoch_that_the_query_names() {
    // the object names the SPI; without it, or about another epoch, the first verified packet decides.
    let of = |spi, highest| Some(VolumeContext { spi, highest, permission: 1 });
    for (context, begins_after) in [(of(0x6000, 77), 77), (of(0x6001, 77), 0), (None, 0)] {
        let mut world = World::new(1);
        world.stable = false;
        let session = gist::wire::SessionId([5; 16]);
        let number = u32::try_from(world.unix()).unwrap();
        let query = pbs_nslp::wire::Query { sent: Some(10_u64.into()), context, ..forge::query(number) };
        world.down.insert(2);
        world.tell(1, gist::api::Indication::Received(query_from(SENDER, session, &query, &forge::sender())));
        world.settle();
        let sa = Some(SaParameters { spi: 0x6000, drain: seconds(2), new_epoch: true });
        let permission = pbs_nslp::wire::Permission { sa, ..forge::permission(number) };
        world.tell(1, gist::api::Indication::Received(permission_from(2, session, &permission, &forge::receiver())));
        world.settle();
        assert_eq!(world.datapaths[1].table.values().next().unwrap().grant.highest, begins_after, "{context:?}");
    }
}

#[test]
fn a_lost_association_downstream_makes_the_sender_ask_at_once() {
    // FN-33, FS-34: Notify 15, not more than once a second.
    let mut world = World::granted(2);
    world.run(seconds(2));
    let queries = world.sent(SENDER, MessageKind::Query).len();
    world.network(1, NetworkEvent::AssociationLost);
    world.run(LATENCY * 3);
    world.took(1, &["FN-33"]);
    world.took(SENDER, &["FS-34"]);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 1);
    world.network(1, NetworkEvent::AssociationLost);
    world.run(LATENCY * 3);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 1, "not within a second");
}

#[test]
fn a_query_that_is_lost_with_the_association_downstream_goes_on_once_more() {
    // FN-33: nobody else would repeat it before five seconds have passed.
    let mut world = World::new(2);
    world.down.insert(2);
    world.want();
    world.run(LATENCY * 3);
    assert_eq!(world.receiver_state(), "Idle");
    world.down.clear();
    world.network(1, NetworkEvent::AssociationLost);
    world.network(1, NetworkEvent::AssociationLost);
    world.run(LATENCY * 8);
    world.took(1, &["FN-33"]);
    assert_eq!(world.sent(1, MessageKind::Query).len(), 2, "the first time and once more");
    assert_eq!(world.states(), ["Permitted"; 4]);
}

#[test]
fn a_first_query_that_is_lost_with_its_association_is_repeated_when_a_second_is_over() {
    // FS-14: it is no further try, and there is none if the answer comes meanwhile.
    for is_lost in [true, false] {
        let mut world = World::new(1);
        if is_lost {
            world.down.insert(1);
        }
        world.want();
        world.run(LATENCY + LATENCY / 2);
        world.down.clear();
        world.network(SENDER, NetworkEvent::AssociationLost);
        world.network(SENDER, NetworkEvent::AssociationLost);
        world.run(Duration::from_millis(700));
        assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 1);
        assert_eq!(world.sender_state() == "Permitted", !is_lost);
        world.run(Duration::from_millis(600));
        assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 1 + usize::from(is_lost));
        assert_eq!(world.states(), ["Permitted"; 3]);
    }
}

#[test]
fn a_lost_first_hop_is_asked_every_second_until_it_answers() {
    // FS-34, X-96: each repair gives GIST a second.
    let mut world = World::granted(1);
    world.run(seconds(2));
    world.disturb();
    world.down.insert(1);
    let queries = world.sent(SENDER, MessageKind::Query).len();
    world.network(SENDER, NetworkEvent::AssociationLost);
    world.run(seconds(4));
    let repairs = world.sent(SENDER, MessageKind::Query).len() - queries;
    assert!((4..=6).contains(&repairs), "{repairs}");
    world.restart_router(1);
    world.down.clear();
    world.run(Duration::from_millis(1100));
    assert_eq!(world.states(), ["Permitted"; 3]);
    let queries = world.sent(SENDER, MessageKind::Query).len();
    world.run(seconds(3));
    assert!(world.sent(SENDER, MessageKind::Query).len() <= queries + 1, "answered: no more repairs, but the next refresh");
}

#[test]
fn a_refresh_that_gist_cannot_deliver_is_repaired_as_well() {
    // FS-34 by the message status.
    let mut world = World::granted(1);
    world.run(T);
    world.undelivered(SendError::AssociationFailed("reset".to_owned()));
    world.run(seconds(2));
    world.took(SENDER, &["FS-34"]);
    assert_eq!(world.states(), ["Permitted"; 3]);
}

#[test]
fn a_notice_that_state_is_missing_makes_the_sender_ask_at_once() {
    // FS-34: Notify 14.
    let mut world = World::granted(1);
    world.run(seconds(2));
    let queries = world.sent(SENDER, MessageKind::Query).len();
    let session = world.session();
    world.tell(SENDER, gist::api::Indication::Received(notice_from(1, session, flow(), NotifyCode::NoState)));
    world.settle();
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 1);
    world.took(SENDER, &["FS-13", "FS-34"]);
}

#[test]
fn a_query_that_meets_old_state_on_its_way_is_repeated_when_a_second_is_over() {
    // FS-34 in S2: a router that the flow comes back to still has state of it, but nobody behind it knows that router any more. What it
    // says brings the next Query forward, and is neither a try nor an answer.
    for code in [NotifyCode::RouteChanged, NotifyCode::NoState] {
        let mut world = World::new(1);
        world.stable = false;
        world.down.insert(2);
        world.want();
        world.run(LATENCY * 2);
        let session = world.session();
        for _ in 0..3 {
            world.tell(SENDER, gist::api::Indication::Received(notice_from(1, session, flow(), code)));
            world.settle();
        }
        assert_eq!((world.sender_state().as_str(), world.sent(SENDER, MessageKind::Query).len()), ("Wait P", 1));
        world.down.clear();
        world.run(Duration::from_millis(1200));
        world.took(SENDER, &["FS-13", "FS-34"]);
        assert_eq!((world.sender_state().as_str(), world.sent(SENDER, MessageKind::Query).len()), ("Permitted", 2));
    }
}

#[test]
fn of_two_queries_that_one_answer_may_be_to_the_first_tells_how_far_the_receiver_is() {
    // FS-34 in S2, X-99: the second one has just gone when the answer to the first comes, which would be from next door.
    for repeated in [false, true] {
        let mut world = World::new(1);
        world.stable = false;
        world.down.insert(2);
        world.want();
        world.run(LATENCY * 2);
        let session = world.session();
        if repeated {
            world.tell(SENDER, gist::api::Indication::Received(notice_from(1, session, flow(), NotifyCode::NoState)));
        }
        world.run(Duration::from_secs(1) - LATENCY);
        let queries = world.sent(SENDER, MessageKind::Query);
        assert_eq!(queries.len(), if repeated { 2 } else { 1 });
        let number = u32::try_from(world.unix()).unwrap();
        let permission = pbs_nslp::wire::Permission { echo: Some(queries[0].query().unwrap().number), ..forge::permission(number) };
        world.tell(SENDER, gist::api::Indication::Received(forge::permission_from(1, session, &permission, &forge::receiver())));
        world.settle();
        world.took(SENDER, &["FS-05"]);
        let answered = world.sender.sessions()[0].answered.unwrap();
        assert!(answered.round_trip >= Duration::from_secs(1), "{:?}, repeated: {repeated}", answered.round_trip);
    }
}

#[test]
fn how_far_the_receiver_is_is_told_from_the_first_query_of_the_attempt_and_not_from_one_that_nobody_answered() {
    // FS-34, X-99.
    let mut world = World::new(1);
    world.stable = false;
    world.down.insert(2);
    world.want();
    world.run(seconds(3));
    world.down.clear();
    world.run(seconds(3));
    world.took(SENDER, &["FS-08", "FS-05"]);
    assert_eq!(world.sender.sessions()[0].answered, None, "an answer to the second try says nothing of how long it took");

    world.down.insert(2);
    world.sender.probe(flow(), world.now);
    world.run(seconds(2));
    world.sender.probe(flow(), world.now);
    let session = world.session();
    world.tell(SENDER, gist::api::Indication::Received(notice_from(1, session, flow(), NotifyCode::NoState)));
    world.run(LATENCY * 4);
    world.down.clear();
    world.run(Duration::from_millis(1200));
    assert_eq!(world.sender.unanswered_since(&flow()), None);
    let round_trip = world.sender.sessions()[0].answered.unwrap().round_trip;
    assert!((seconds(1)..seconds(2)).contains(&round_trip), "{round_trip:?}");
}

#[test]
fn a_restarted_sender_takes_its_flow_over_under_a_new_session() {
    // FR-50, FN-71, INV-17.
    let mut world = World::granted(2);
    let old = world.permissions()[1][0].1;
    let now = world.now + seconds(3);
    world.run(seconds(3));
    world.disturb();
    let signer = ToySigner::new(sender_address(), 1);
    world.sender = Sender::new(sender_config(), signer, world.authority.clone(), entropy(77), world.unix(), now);
    world.datapaths[SENDER] = Datapath { is_sender: true, ..Datapath::default() };
    world.want();
    world.run(seconds(1));
    world.took(3, &["FR-50"]);
    world.took(1, &["FN-71"]);
    assert_eq!(world.states(), ["Permitted"; 4]);
    assert!(world.permissions()[1].iter().any(|entry| entry.1 == old), "make before break: it drains (X-75)");
    world.run(seconds(3));
    for table in world.permissions() {
        assert_eq!(table.len(), 1, "the old epoch is gone");
        assert_ne!(table[0].1, old);
    }
    assert_eq!(world.packet(100), Some(3));
}

#[test]
fn a_newer_attempt_replaces_one_that_still_waits() {
    // FN-71 in Wait P: at most one live and one waiting session for a flow.
    let mut world = World::new(1);
    world.down.insert(2);
    for attempt in 1..=3_u8 {
        let number = u32::try_from(world.unix()).unwrap() + u32::from(attempt);
        let received = query_from(SENDER, gist::wire::SessionId([attempt; 16]), &forge::query(number), &forge::sender());
        world.tell(1, gist::api::Indication::Received(received));
        world.settle();
        assert_eq!(world.routers[0].sessions().len(), 1);
    }
    world.took(1, &["FN-71"]);
}

#[test]
fn a_restarted_receiver_grants_anew_at_the_next_query() {
    // X-100, FR-01 by a Query that only reports; FS-24, FN-23, FN-29 with another SPI.
    let mut world = World::granted(2);
    let old = world.permissions()[1][0].1;
    world.packet(1000);
    world.disturb();
    world.run(seconds(2));
    let signer = ToySigner::new(receiver_address(), 2);
    let (unix, now) = (world.unix(), world.now);
    world.receiver = Receiver::new(receiver_config(), signer, world.authority.clone(), entropy(78), unix, now);
    world.datapaths[3] = Datapath::default();
    assert_eq!(world.packet(100), Some(2), "the receiver does not know the old key");
    world.run(T);
    assert_eq!(world.states(), ["Permitted"; 4]);
    world.took(SENDER, &["FS-24"]);
    world.took(1, &["FN-23"]);
    assert_eq!(world.packet(100), Some(3));
    assert_eq!(world.datapaths[1].table.values().find(|entry| !entry.draining).unwrap().counted, 100, "P-060: a new epoch");
    world.run(seconds(3));
    world.took(1, &["FN-29"]);
    assert!(world.permissions().iter().all(|table| table.len() == 1 && table[0].1 != old));
    // The sender's report about the end of the old epoch, which this receiver never knew, begins no further one.
    let new = world.permissions()[1][0].1;
    world.run(3 * T);
    assert!(world.permissions().iter().all(|table| table.len() == 1 && table[0].1 == new));
}

#[test]
fn a_query_about_an_unknown_epoch_begins_a_new_one_and_the_old_one_drains() {
    // FR-13, FR-19, X-75, X-100.
    let mut world = World::granted(1);
    let session = world.session();
    let old = world.permissions()[2][0].1;
    let context = Some(VolumeContext { spi: 0x7777, highest: 1, permission: 1 });
    let number = u32::try_from(world.unix()).unwrap() + 5;
    let query = pbs_nslp::wire::Query { sent: Some(10_u64.into()), requested: None, context, ..forge::query(number) };
    world.stable = false;
    world.tell(2, gist::api::Indication::Received(query_from(1, session, &query, &forge::sender())));
    world.settle();
    world.took(2, &["FR-13"]);
    assert!(world.trace.iter().any(|line| line.contains("Drain") && line.contains(&old.to_string())));
    assert_eq!(world.datapaths[2].table.len(), 2);
    world.run(seconds(3));
    world.took(2, &["FR-19"]);
    assert_eq!(world.datapaths[2].table.len(), 1);
    assert_eq!(world.states(), ["Permitted"; 3]);
}

#[test]
fn a_new_epoch_leaves_one_draining_association_at_most() {
    // X-75, INV-09, FN-23 twice within the drain time.
    let mut world = World::granted(1);
    world.stable = false;
    let session = world.session();
    let number = u32::try_from(world.unix()).unwrap() + 5;
    for epoch in 0..3_u32 {
        let sa = Some(SaParameters { spi: 0x6000 + epoch, drain: seconds(2), new_epoch: true });
        let defense = Some(forge::key(epoch as u8));
        let permission = pbs_nslp::wire::Permission { sa, defense, ..forge::permission(number + epoch) };
        world.tell(1, gist::api::Indication::Received(permission_from(2, session, &permission, &forge::receiver())));
        world.settle();
        assert_eq!(world.datapaths[1].table.len(), 2);
        assert_eq!(world.datapaths[1].table.values().filter(|entry| entry.draining).count(), 1);
    }
    // Back to the epoch that drains: its sequence numbers would repeat.
    let sa = Some(SaParameters { spi: 0x6001, drain: seconds(2), new_epoch: true });
    let permission = pbs_nslp::wire::Permission { sa, ..forge::permission(number + 9) };
    world.tell(1, gist::api::Indication::Received(permission_from(2, session, &permission, &forge::receiver())));
    world.settle();
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Notifying { code: NotifyCode::SpiCollision, .. })));
    world.run(seconds(3));
    assert_eq!(world.datapaths[1].table.len(), 1);
}

#[test]
fn a_sender_reads_what_it_sent_right_before_each_report() {
    // P-178.
    // the snapshot precedes the Query, and nothing goes without one.
    let mut world = World::granted(1);
    world.datapaths[SENDER].stalled = true;
    world.run(seconds(6));
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 1);
    let snapshots = world.trace.iter().filter(|line| line.contains("Snapshot")).count();
    assert!(snapshots >= 1);
    world.datapaths[SENDER].resume();
    world.run(LATENCY);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 2, "one Query for all the snapshots asked for");
}

#[test]
fn an_answer_about_one_epoch_is_not_told_as_that_of_the_next() {
    // X-38, P-185: the receiver changes the epoch while a refresh waits for its counter.
    let mut world = World::granted(1);
    let old = world.permissions()[SENDER][0].1;
    for _ in 0..8 {
        world.packet(1000);
    }
    world.datapaths[SENDER].stalled = true;
    world.run(T);
    assert_eq!(world.sent(SENDER, MessageKind::Query).len(), 1, "the refresh waits");
    world.stable = false;
    let sa = Some(SaParameters { spi: 0x7777, drain: seconds(0), new_epoch: true });
    let number = u32::try_from(world.unix()).unwrap() + 20;
    let next = pbs_nslp::wire::Permission { sa, allowed: 9000.into(), echo: Some(0), ..forge::permission(number) };
    let session = world.session();
    world.tell(SENDER, gist::api::Indication::Received(permission_from(1, session, &next, &forge::receiver())));
    world.settle();
    world.datapaths[SENDER].resume();
    world.settle();
    let query = world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap();
    assert_eq!(query.context.map(|context| (context.spi, context.highest)), Some((old, 8)), "the end of the one before");
    assert_eq!(query.sent, Some(8000.into()));
}

#[test]
fn refreshes_that_come_more_often_than_gists_make_every_node_ask_who_is_next_on_the_path() {
    // X-114, TMP-12: a path that has moved unseen is known within T.
    for (refresh, asks) in [(T, true), (seconds(29), true), (seconds(30), false), (seconds(60), false)] {
        let mut world = World::new(2);
        let terms = pbs_nslp::receiver::Terms { refresh, ..terms() };
        world.receiver.set_policy(GrantPolicy {
            rules: vec![GrantRule { selector: Selector::default(), terms, signed: false, mac: None }],
            ask: false,
        });
        world.want();
        world.run(seconds(1));
        assert!(world.doubted.is_empty(), "GIST has just asked");
        let queries = world.sent(SENDER, MessageKind::Query).len();
        world.run(refresh);
        assert_eq!(world.sent(SENDER, MessageKind::Query).len(), queries + 1);
        let expected: &[usize] = if asks { &[SENDER, 1, 2] } else { &[] };
        assert_eq!(world.doubted, expected, "T = {refresh:?}");
    }
}

#[test]
fn a_query_that_nobody_has_answered_makes_the_sender_ask_who_is_next_on_the_path() {
    // whatever T is, the first hop may not be on the path any more.
    let mut world = World::new(1);
    world.down.insert(1);
    world.want();
    world.run(seconds(4));
    assert!(world.doubted.is_empty());
    world.run(seconds(2));
    assert_eq!((world.sent(SENDER, MessageKind::Query).len(), &world.doubted[..]), (2, &[SENDER][..]));
}
