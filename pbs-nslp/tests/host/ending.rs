//! How both sessions end, and when only one does.

use gist::api::PathId;
use pbs_nslp::host::Part;
use pbs_nslp::receiver::Terms;
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::Way;
use pbs_nslp::wire::Volume;

use crate::packets::Fate;
use crate::world::{ASKING, L, LATENCY, LIMIT, T, TTL, VOLUME, World, forward, reverse, seconds};

/// Neither host sends a packet of the connection any more.
fn nothing_passes(world: &mut World) {
    let before = world.delivered.len();
    for flow in [forward(), reverse()] {
        assert!(!matches!(world.send(flow, 60), Fate::Sent { .. }));
    }
    assert_eq!(world.delivered.len(), before);
}

#[test]
fn a_released_flow_takes_its_reverse_along() {
    let mut world = World::connected(1);
    let now = world.now;
    world.asking().release(forward(), now);
    world.run(seconds(5));
    world.took(0, Part::Sender, &["FS-35", "FS-50"]);
    world.took(1, Part::Receiver, &["FR-12"]);
    world.took(0, Part::Receiver, &["FR-16"]);
    assert!(world.is_clean(), "{}", world.story());
}

#[test]
fn a_revoked_flow_takes_its_reverse_along() {
    let mut world = World::connected(1);
    let now = world.now;
    assert!(world.granting().revoke(forward(), now));
    assert_eq!(world.permitted()[1], (0, 0), "the granting host gives the reverse back at once");
    world.run(seconds(1));
    world.took(1, Part::Receiver, &["FR-16"]);
    world.took(1, Part::Sender, &["FS-35"]);
    world.took(0, Part::Sender, &["FS-27"]);
    assert_eq!(world.permitted(), [(0, 0), (0, 0)]);
    nothing_passes(&mut world);
    world.run(seconds(90));
    assert!(world.is_clean(), "{}", world.story());
}

/// what was permitted goes on while the answer on another path is awaited, and so does what answers it.
#[test]
fn a_flow_that_takes_another_path_keeps_its_reverse() {
    let mut world = World::connected(1);
    world.asking().set_ways(vec![Way { path: PathId(1), covers: Selector::default(), live: true, relay: None }]);
    // Two Queries go unanswered; the third takes the other path, and its answer comes late.
    let mut queries = 0;
    world.travel = Box::new(move |transit| {
        queries += usize::from(transit.from == ASKING && transit.flow() == forward() && transit.query().is_some());
        match (transit.flow() == forward(), queries) {
            (true, ..3) => None,
            (true, 3) => Some(LATENCY * 20),
            _ => Some(LATENCY),
        }
    });
    world.run(T + seconds(14));
    world.took(0, Part::Sender, &["FS-31"]);
    assert!(!world.rules(0).1.contains("FR-16"), "{}", world.story());
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
}

#[test]
fn an_expired_flow_takes_its_reverse_along() {
    for lost in [forward(), reverse()] {
        let mut world = World::connected(1);
        // Messages about one direction no longer get through.
        world.travel = Box::new(move |transit| (transit.flow() != lost).then_some(crate::world::LATENCY));
        world.run(L + T * 2);
        if lost == forward() {
            world.took(0, Part::Sender, &["FS-29"]);
            world.took(1, Part::Receiver, &["FR-15"]);
            assert_eq!(world.permitted(), [(0, 0), (0, 0)]);
        } else {
            // The flow is refreshed and lives; its reverse is asked for again and again.
            assert_eq!(world.permitted(), [(1, 0), (0, 1)]);
            world.travel = Box::new(|_| Some(crate::world::LATENCY));
            world.run(seconds(70));
            assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
        }
    }
}

#[test]
fn both_end_with_their_time_limit_when_nothing_is_sent() {
    let mut world = World::connected(1);
    world.run(TTL + seconds(5));
    world.took(0, Part::Sender, &["FS-28"]);
    assert!(world.is_clean(), "{}", world.story());
}

#[test]
fn a_flow_in_use_is_renewed_in_both_directions() {
    let mut world = World::connected(1);
    for _ in 0..TTL.as_secs() + 100 {
        world.send(forward(), 1400);
        world.send(reverse(), 60);
        world.run(seconds(1));
    }
    assert_eq!(world.permitted(), [(1, 1), (1, 1)]);
    let lost = 2 * (TTL.as_secs() + 101) - world.got(forward()) - world.got(reverse());
    assert_eq!(lost, 0, "the limits of both are moved in time: X-36");
}

#[test]
fn each_session_has_its_own_refresh() {
    let mut world = World::connected(1);
    world.run(L * 4);
    assert_eq!(world.permitted(), [(1, 1), (1, 1)]);
    world.took(0, Part::Sender, &["FS-21", "FS-22"]);
    world.took(1, Part::Sender, &["FS-21", "FS-22"]);
    let least = (L * 4).as_secs() / T.as_secs();
    for flow in [forward(), reverse()] {
        assert!(world.queries(flow).len() as u64 >= least);
    }
}

#[test]
fn a_reverse_that_was_lost_alone_comes_back() {
    // The packet side of the granting host fails while the reverse is renewed.
    let mut world = World::connected(1);
    let end = world.end();
    let now = world.now;
    let mut events = Vec::new();
    for ((_, spi), entry) in &world.packets[&(end, Part::Sender)].table {
        events.push((*spi, entry.grant.flow));
    }
    assert_eq!(events.len(), 1);
    world.packets.get_mut(&(end, Part::Sender)).unwrap().table.clear();
    world.run(T * 2);
    world.took(1, Part::Sender, &["FS-70"]);
    world.run(seconds(10));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{now} {}", world.story());
    assert!(matches!(world.send(reverse(), 60), Fate::Sent { .. }));
}

#[test]
fn a_reverse_that_a_person_gives_back_stays_away_as_long_as_the_flow_lives() {
    let mut world = World::connected(1);
    let now = world.now;
    world.granting().release(reverse(), now);
    world.run(seconds(60));
    assert_eq!(world.permitted(), [(1, 0), (0, 1)]);
    let now = world.now;
    world.asking().release(forward(), now);
    world.run(seconds(5));
    assert!(world.is_clean());
    world.send(forward(), 60);
    world.run(seconds(1));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "another flow, another reverse");
}

#[test]
fn a_reverse_that_a_person_takes_back_stays_away_as_long_as_the_flow_lives() {
    let mut world = World::connected(1);
    let now = world.now;
    assert!(world.asking().revoke(reverse(), now));
    world.run(seconds(300));
    assert_eq!(world.permitted(), [(1, 0), (0, 1)]);
    let denials = world.permissions(reverse()).iter().filter(|transit| transit.permission().unwrap().is_removal()).count();
    assert!((3..20).contains(&denials), "asked for again ever more rarely: {denials}");
    let now = world.now;
    world.asking().release(forward(), now);
    world.run(seconds(5));
    world.send(forward(), 60);
    world.run(seconds(1));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
}

#[test]
fn a_host_that_stops_leaves_nothing_at_the_other() {
    for stops in [0, 1] {
        let mut world = World::connected(1);
        let now = world.now;
        world.hosts[stops].shutdown(now);
        world.run(seconds(100));
        world.took(stops, Part::Sender, &["FS-60"]);
        world.took(stops, Part::Receiver, &["FR-60"]);
        let rest: usize = world.permitted().iter().map(|(to_send, to_be_sent)| to_send + to_be_sent).sum();
        assert_eq!(rest, 0, "{}", world.story());
    }
}

#[test]
fn a_flow_that_cannot_be_installed_leaves_no_reverse() {
    let mut world = World::new(1);
    let end = world.end();
    world.packets.get_mut(&(end, Part::Receiver)).unwrap().full = true;
    world.send(forward(), 60);
    world.run(seconds(3));
    world.took(1, Part::Receiver, &["FR-70"]);
    assert_eq!(world.permitted(), [(0, 0), (0, 0)]);
    world.run(seconds(100));
    assert!(world.packets.values().all(|packets| !packets.permits(forward()) && !packets.permits(reverse())));
    let _ = ASKING;
}

#[test]
fn a_lowered_flow_keeps_its_reverse() {
    let mut world = World::connected(0);
    let now = world.now;
    let terms = Terms { volume: Volume(1000), limit: Volume(LIMIT), ttl: TTL, refresh: T };
    world.granting().change(forward(), terms, now);
    world.run(seconds(30));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)]);
    assert_eq!(world.allowed(forward()), Some(1000));
    assert!(world.allowed(reverse()).unwrap() <= VOLUME);
}
