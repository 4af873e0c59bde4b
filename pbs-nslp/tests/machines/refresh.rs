//! What keeps a permission alive and changes it.

use core::time::Duration;

use gist::time::Instant;
use pbs_nslp::detection::Finding;
use pbs_nslp::receiver::Terms;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{MessageKind, Volume};

use crate::world::{L, LATENCY, LIMIT, SENDER, T, TTL, Transit, VOLUME, World, flow, seconds, terms};

#[test]
fn the_exchange_repeats_within_every_soft_state_period() {
    // P-114, P-130, P-138.
    // Draft Fig. 2, P-100, X-45: the next Query comes uniformly in [0.8 T, T].
    let mut world = World::granted(1);
    world.run(seconds(60));
    let sent_at: Vec<Instant> = world.sent(SENDER, MessageKind::Query).iter().map(|transit| transit.arrives_at).collect();
    let gaps: Vec<Duration> = sent_at.windows(2).skip(1).map(|pair| pair[1].saturating_duration_since(pair[0])).collect();
    assert!(gaps.len() >= 11);
    assert!(gaps.iter().all(|gap| *gap >= T * 4 / 5 && *gap <= T), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "the spread is not a constant");
    assert_eq!(world.states(), ["Permitted"; 3]);
    world.took(SENDER, &["FS-21", "FS-22"]);
    world.took(1, &["FN-21", "FN-22"]);
    world.took(2, &["FR-11", "FR-32"]);
}

/// G-021: a flow has one session, however often it is asked for and refreshed.
#[test]
fn a_flow_keeps_its_one_session() {
    let mut world = World::granted(1);
    let session = world.session();
    for _ in 0..3 {
        world.want();
        world.run(seconds(20));
    }
    let queries = world.sent(SENDER, MessageKind::Query);
    assert!(queries.len() > 5);
    assert!(queries.iter().all(|transit| transit.received.session == session));
    assert_eq!(world.sender.sessions().len(), 1);
}

#[test]
fn a_refresh_repeats_everything_and_counts_nothing_anew() {
    // P-060, P-061: same SPI and key, same AV, counters go on.
    let mut world = World::granted(1);
    for _ in 0..5 {
        assert_eq!(world.packet(1000), Some(2));
    }
    world.run(seconds(20));
    let permissions: Vec<_> = world.sent(2, MessageKind::Permission).iter().map(|transit| transit.permission().unwrap()).collect();
    assert!(permissions.len() >= 4);
    assert!(permissions.windows(2).all(|pair| pair[0].defense == pair[1].defense && pair[0].sa.unwrap().spi == pair[1].sa.unwrap().spi));
    let new: Vec<bool> = permissions.iter().map(|permission| permission.sa.unwrap().new_epoch).collect();
    assert!(new[0] && new[1..].iter().all(|new| !new), "NEW until the sender has named the epoch: {new:?}");
    assert!(permissions.iter().all(|permission| permission.allowed == Volume(VOLUME)));
    assert!(permissions.windows(2).all(|pair| pair[0].ttl > pair[1].ttl), "X-46: the remaining time");
    assert_eq!(world.datapaths[1].table.values().next().unwrap().counted, 5000);
}

#[test]
fn the_receiver_reports_sent_and_counted_volume_of_every_refresh() {
    // P-059, P-130, P-170.
    // FR-32: both values, exact, although data moves up to the moment of the Query.
    let mut world = World::granted(1);
    let mut total = 0;
    for _ in 0..20 {
        world.packet(100);
        total += 100;
        world.run(Duration::from_millis(731));
    }
    let compared: Vec<_> = world
        .events(2)
        .into_iter()
        .filter_map(|event| match event {
            ReportEvent::Compared { sent, counted, sent_highest, counted_highest, finding: Finding::Agreement } => {
                Some((sent.0, counted.0, sent_highest.unwrap(), *counted_highest))
            }
            _ => None,
        })
        .collect();
    assert!(compared.len() >= 2, "{compared:?}");
    for (sent, counted, sent_highest, counted_highest) in compared {
        assert!(sent <= total && sent > 0);
        assert_eq!((sent, sent_highest), (u64::from(sent_highest) * 100, sent_highest), "SV and N belong together");
        assert!(counted >= sent && counted_highest >= sent_highest, "INV-13: nothing was lost");
    }
}

#[test]
fn a_query_alone_prolongs_nothing_at_routers_and_sender() {
    // P-103, X-45: Permissions get lost from now on; L after the last one the permission ends.
    let mut world = World::granted(1);
    let start = world.now;
    world.loses = Box::new(|transit: &Transit| transit.kind() == MessageKind::Permission && transit.from == 2);
    world.run(seconds(16));
    assert_eq!(world.router_state(1), "Permitted");
    world.run(seconds(3));
    assert!(world.sent(SENDER, MessageKind::Query).len() >= 3, "it asked, in vain");
    assert!(world.saw(1, |event| *event == ReportEvent::Expired { clock: "no refresh" }));
    assert!(world.now.saturating_duration_since(start) < seconds(20));
    world.took(1, &["FN-28"]);
    world.took(SENDER, &["FS-29", "FS-30"]);
}

#[test]
fn an_unanswered_refresh_is_repeated_and_then_reported_while_the_grant_lives() {
    // FS-30, FS-32: two tries, then wait for TTL or LIFE.
    let mut world = World::new(1);
    let long = Terms { refresh: seconds(20), ..terms() };
    world.receiver.expect(flow(), long);
    world.want();
    world.run(seconds(1));
    world.down.insert(2);
    world.run(seconds(40));
    world.took(SENDER, &["FS-21", "FS-30", "FS-32"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::Unanswered));
    assert_eq!(world.sender_state(), "Permitted");
    assert_eq!(world.datapaths[SENDER].table.len(), 1, "the grant is still live");
}

#[test]
fn with_the_shortest_period_too_both_tries_fail_before_the_permission_ends() {
    // FS-31, FS-32: T = 5 s, L = 17.5 s; whatever the phase of the next Query.
    for seed in 1..20 {
        let mut world = World::with_seed(1, seed);
        world.want();
        world.run(seconds(1));
        world.down.insert(2);
        world.run(L);
        world.took(SENDER, &["FS-30", "FS-32"]);
    }
}

#[test]
fn a_busy_flow_asks_for_more_time_and_an_idle_one_ends() {
    // P-120.
    // TTL left < 2 T. FS-28, FR-14 for the idle flow.
    for busy in [true, false] {
        let mut world = World::granted(1);
        for _ in 0..125 {
            world.run(seconds(5));
            if busy {
                assert!(world.packet(10).is_some(), "at {}", world.now);
            }
        }
        let states = if busy { ["Permitted"; 3] } else { ["Idle"; 3] };
        assert_eq!(world.states(), states);
        assert_eq!(world.rules(SENDER).contains("FS-28") || world.rules(2).contains("FR-14"), !busy);
        assert!(TTL < seconds(625));
    }
}

#[test]
fn a_packet_beyond_the_allowed_volume_waits_for_an_extension() {
    // P-117, P-118.
    // FS-41, FS-22, FR-32, FN-22, X-36, X-51: AV grows up to the receiver's limit, same SPI, counters go on.
    let mut world = World::granted(1);
    let spi = world.permissions()[SENDER][0].1;
    let mut delivered = 0;
    for _ in 0..200 {
        match world.packet(990) {
            Some(place) => {
                assert_eq!(place, 2);
                delivered += 990;
            }
            None => world.run(LATENCY * 5),
        }
        if world.sender_state() != "Permitted" {
            break;
        }
    }
    world.took(SENDER, &["FS-41"]);
    assert_eq!(delivered, LIMIT / 990 * 990, "P-119: all that fits into the limit and no more");
    assert!(world.saw(2, |event| matches!(event, ReportEvent::Refreshed { allowed: Volume(LIMIT), .. })));
    // FS-42: the limit is reached, the answer does not grant more.
    world.took(SENDER, &["FS-42"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::Exhausted { spi }));
    assert_eq!(world.sender_state(), "Idle");
    assert!(world.datapaths[SENDER].table.is_empty());
}

#[test]
fn the_application_may_ask_for_more_before_it_is_needed() {
    // FS-33.
    let mut world = World::granted(1);
    world.want();
    world.run(seconds(1));
    world.took(SENDER, &["FS-33"]);
    assert!(world.permissions().iter().all(|table| table[0].2 == VOLUME), "0 sent and 10,000 wanted is what there is");
    for _ in 0..5 {
        world.packet(1000);
    }
    world.want();
    world.run(seconds(1));
    assert!(world.permissions().iter().all(|table| table[0].2 == VOLUME + 5000), "{:?}", world.permissions());
}

#[test]
fn the_receiver_changes_volume_and_time_unasked() {
    // FR-17, P-106, P-107: up, then down below what was counted (X-50, FR-27).
    let mut world = World::granted(2);
    for _ in 0..5 {
        world.packet(1000);
    }
    let up = Terms { volume: Volume(20_000), ttl: seconds(60), ..terms() };
    assert!(world.receiver.change(flow(), up, world.now));
    world.run(LATENCY * 5);
    assert!(world.permissions().iter().all(|table| table[0].2 == 20_000));
    let announced = world.sent(3, MessageKind::Permission).last().unwrap().permission().unwrap();
    assert_eq!((announced.echo, announced.ttl), (Some(0), seconds(60)));
    let down = Terms { volume: Volume(4000), ..up };
    assert!(world.receiver.change(flow(), down, world.now));
    world.run(LATENCY * 5);
    assert!(world.permissions().iter().all(|table| table[0].2 == 4000));
    world.took(3, &["FR-17"]);
    // No more data passes; what is in flight is no attack.
    let spi = world.permissions()[0][0].1;
    world.datapaths[3].verify(flow(), spi, 6, 1000, world.now);
    world.settle();
    assert_eq!(world.receiver_state(), "Permitted");
    assert!(!world.receiver.change(crate::world::flow_to(9001), up, world.now), "no such permission");
}

#[test]
fn a_query_and_an_unsolicited_permission_that_cross_do_no_harm() {
    // P-108, X-55: the highest number of the receiver wins at every node.
    let mut world = World::granted(2);
    world.run(Duration::from_millis(2900));
    for _ in 0..400 {
        world.run(Duration::from_millis(5));
        if world.wires.iter().any(|transit| transit.kind() == MessageKind::Query && transit.to == 2) {
            break;
        }
    }
    assert!(!world.wires.is_empty(), "a Query is on its way");
    let up = Terms { volume: Volume(20_000), ..terms() };
    world.receiver.change(flow(), up, world.now);
    world.run(seconds(1));
    assert!(world.permissions().iter().all(|table| table[0].2 == 20_000));
    assert_eq!(world.states(), ["Permitted"; 4]);
}

#[test]
fn a_change_while_the_counter_is_read_goes_into_the_answer() {
    // FR-17 in Compare Sv; FR-11 again for a newer Query there.
    let mut world = World::granted(1);
    world.datapaths[2].stalled = true;
    world.run(seconds(5));
    assert_eq!(world.receiver_state(), "Compare Sv");
    let sent = world.sent(2, MessageKind::Permission).len();
    let up = Terms { volume: Volume(20_000), ..terms() };
    world.receiver.change(flow(), up, world.now);
    world.run(seconds(5));
    assert_eq!(world.sent(2, MessageKind::Permission).len(), sent);
    world.datapaths[2].resume();
    world.run(LATENCY * 4);
    assert_eq!(world.sent(2, MessageKind::Permission).len(), sent + 1, "one answer, to the newest Query");
    assert!(world.permissions().iter().all(|table| table[0].2 == 20_000));
    assert_eq!(world.receiver_state(), "Permitted");
}

#[test]
fn a_shorter_period_counts_at_once() {
    // T is the receiver's stated maximum.
    let mut world = World::new(1);
    world.receiver.expect(flow(), Terms { refresh: seconds(60), ..terms() });
    world.want();
    world.run(seconds(1));
    world.receiver.change(flow(), terms(), world.now);
    world.run(seconds(30));
    assert_eq!(world.states(), ["Permitted"; 3]);
    assert!(world.sent(SENDER, MessageKind::Query).len() >= 6);
}
