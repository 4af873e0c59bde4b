//! How the second session follows from the first.

use core::time::Duration;

use gist::time::Instant;
use pbs_nslp::host::{Host, Part};
use pbs_nslp::receiver::{Decision, GrantPolicy, GrantRule, Terms};
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::AskRule;
use pbs_nslp::wire::Volume;

use crate::packets::Fate;
use crate::world::{LATENCY, SHARE, START_UNIX, T, TTL, VOLUME, World, flow_of, forward, granting_address, host, reverse, seconds};

#[test]
fn the_granting_host_asks_for_the_reverse_at_the_moment_it_grants() {
    let mut world = World::new(1);
    world.send(forward(), 60);
    world.run(seconds(1));
    let query = world.queries(reverse())[0].clone();
    let permission = world.permissions(forward())[0].clone();
    assert_eq!(query.left_at, permission.left_at, "X-57: at the same time");
    assert_ne!(query.received.session, permission.received.session, "a session of its own");
    assert_eq!(query.query().unwrap().requested, Some(Volume(SHARE)), "an eighth of what it has granted");
    world.took(0, Part::Sender, &["FS-01", "FS-05"]);
    world.took(1, Part::Receiver, &["FR-01", "FR-05"]);
    world.took(1, Part::Sender, &["FS-01", "FS-05"]);
    world.took(0, Part::Receiver, &["FR-01", "FR-05"]);
}

#[test]
fn a_small_flow_gets_at_least_256_kib_back() {
    let mut world = World::new(0);
    world.asking().want(forward(), Volume(10_000), Instant::from_micros(1_000_000)).unwrap();
    world.run(seconds(1));
    assert_eq!(world.allowed(forward()), Some(10_000));
    assert_eq!(world.allowed(reverse()), Some(256 * 1024), "X-57");
}

#[test]
fn the_first_packet_waits_for_its_grant_and_the_answer_for_its_own() {
    let mut world = World::new(1);
    let started = world.now;
    assert_eq!(world.send(forward(), 60), Fate::Held, "the SYN is held: X-113");
    world.run_until_got(forward());
    // Query and Permission, one hop each, both ways.
    assert_eq!(world.now.saturating_duration_since(started), LATENCY * 4);
    // Nothing asks for the granting host's packets by any rule, and yet they are held, not dropped.
    assert_eq!(world.send(reverse(), 60), Fate::Held, "the SYN-ACK waits: X-57");
    world.run_until_got(reverse());
    assert_eq!(world.now.saturating_duration_since(started), LATENCY * 6, "it has been asked for since the grant, half way");
    assert!(world.asked.is_empty());
}

#[test]
fn there_are_two_sessions_and_never_a_third() {
    let mut world = World::connected(1);
    for _ in 0..60 {
        world.send(forward(), 1400);
        world.send(reverse(), 60);
        world.run(seconds(1));
    }
    let sessions: std::collections::BTreeSet<_> = world.recorded.iter().map(|transit| transit.received.session.0).collect();
    assert_eq!(sessions.len(), 2, "X-57: a reverse session starts no other");
    assert_eq!(world.permitted(), [(1, 1), (1, 1)]);
    assert_eq!(world.routers[0].sessions().len(), 2);
}

#[test]
fn only_connections_have_a_reverse() {
    for (protocol, has_reverse) in [(6, true), (33, true), (132, true), (17, false), (136, false), (1, false)] {
        let mut world = World::new(0);
        let flow = flow_of(protocol);
        let selector = Selector { protocol: Some(protocol), ..Selector::default() };
        let terms = Terms { volume: Volume(VOLUME), limit: Volume(VOLUME), ttl: TTL, refresh: T };
        let policy = GrantPolicy { rules: vec![GrantRule { selector, terms, signed: false, mac: None }], ask: false };
        world.hosts[1] = host(granting_address(), Vec::new(), policy, 9, START_UNIX, world.now);
        world.hosts[0].want(flow, Volume(1000), world.now).unwrap();
        world.run(seconds(1));
        assert_eq!(world.allowed(flow), Some(1000));
        assert_eq!(!world.queries(flow.reversed()).is_empty(), has_reverse, "protocol {protocol}");
        assert_eq!(world.allowed(flow.reversed()).is_some(), has_reverse, "protocol {protocol}");
    }
}

#[test]
fn a_reverse_query_that_overtakes_the_permission_waits_for_it() {
    let mut world = World::new(0);
    world.travel = Box::new(|transit| {
        let overtaken = transit.permission().is_some_and(|permission| permission.flow == forward());
        Some(if overtaken { seconds(1) } else { LATENCY })
    });
    world.send(forward(), 60);
    world.run(Duration::from_millis(500));
    assert_eq!(world.queries(reverse()).len(), 1);
    assert!(world.permissions(reverse()).is_empty(), "neither granted nor declined yet");
    world.run(seconds(1));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)]);
    assert_eq!(world.queries(reverse()).len(), 1, "one Query was enough");
    assert!(world.asked.is_empty(), "nobody was bothered");
}

/// A world in which the reverse Query waits at the asking host, and then the flow is refused.
fn refused_while_the_reverse_waits(world: &mut World) {
    world.travel = Box::new(|transit| {
        let granted = transit.permission().is_some_and(|permission| permission.flow == forward() && !permission.is_removal());
        let given_back = transit.query().is_some_and(|query| query.is_release());
        // The grant is lost, and the refusal overtakes what the granting host says about the reverse.
        (!granted).then_some(if given_back { seconds(1) } else { LATENCY })
    });
    world.send(forward(), 60);
    world.run(Duration::from_millis(500));
    assert_eq!(world.queries(reverse()).len(), 1);
    assert!(world.permissions(reverse()).is_empty());
    let now = world.now;
    world.granting().revoke(forward(), now);
    world.run(Duration::from_millis(500));
}

#[test]
fn a_reverse_query_that_waits_is_declined_when_the_flow_is() {
    let mut world = World::new(0);
    refused_while_the_reverse_waits(&mut world);
    world.took(0, Part::Sender, &["FS-06"]);
    world.took(0, Part::Receiver, &["FR-06"]);
    world.run(seconds(90));
    assert!(world.is_clean());
}

#[test]
fn a_reverse_query_that_waits_is_for_people_to_decide_when_the_flow_is_refused_and_they_decide_at_all() {
    let mut world = World::new(0);
    let policy = GrantPolicy { rules: Vec::new(), ask: true };
    let rule = AskRule { selector: Selector::default(), volume: Volume(VOLUME), signed: false, mac: None };
    world.hosts[0] = host(forward().source, vec![rule], policy, 8, START_UNIX, world.now);
    refused_while_the_reverse_waits(&mut world);
    let [ask] = world.asked[..] else { panic!("{}", world.story()) };
    let now = world.now;
    let terms = Terms { volume: Volume(700), limit: Volume(700), ttl: TTL, refresh: T };
    world.asking().decide(ask.flow, ask.session, Decision::Grant(terms), now);
    world.took(0, Part::Receiver, &["FR-05"]);
}

#[test]
fn two_hosts_that_wait_for_each_other_wait_only_as_long_as_a_decision_may_take() {
    let mut world = World::new(0);
    world.hosts[1] = host(granting_address(), Vec::new(), GrantPolicy::default(), 9, START_UNIX, world.now);
    world.send(forward(), 60);
    world.want_reverse(1000);
    world.run(seconds(12));
    world.took(0, Part::Receiver, &["FR-07"]);
    world.took(1, Part::Receiver, &["FR-07"]);
    assert_eq!(world.permitted(), [(0, 0), (0, 0)]);
}

#[test]
fn without_a_flow_of_its_own_a_host_declines_the_reverse() {
    let mut world = World::new(1);
    world.want_reverse(1000);
    world.run(seconds(1));
    world.took(0, Part::Receiver, &["FR-06"]);
    world.took(1, Part::Sender, &["FS-06"]);
    assert_eq!(world.permitted(), [(0, 0), (0, 0)]);
}

#[test]
fn without_a_flow_of_its_own_a_hosts_policy_decides_as_about_any_flow() {
    let mut world = World::new(1);
    let terms = Terms { volume: Volume(5000), limit: Volume(5000), ttl: TTL, refresh: T };
    let policy = GrantPolicy { rules: vec![GrantRule { selector: Selector::default(), terms, signed: false, mac: None }], ask: false };
    world.hosts[0] = host(forward().source, Vec::new(), policy, 9, START_UNIX, world.now);
    let now = world.now;
    world.want_reverse(1000);
    world.run(seconds(1));
    assert_eq!(world.allowed(reverse()), Some(1000));
    // Now the roles are the other way round: this is the flow, and the other one its reverse.
    assert_eq!(world.allowed(forward()), Some(256 * 1024));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)]);
    world.granting().release(reverse(), now);
    world.run(seconds(2));
    assert_eq!(world.permitted(), [(0, 0), (0, 0)]);
}

#[test]
fn both_ends_may_begin_at_once() {
    // TCP's simultaneous open: each host asks for its direction itself, and each grants the other by its policy.
    let mut world = World::new(1);
    let terms = Terms { volume: Volume(VOLUME), limit: Volume(VOLUME), ttl: TTL, refresh: T };
    let policy = GrantPolicy { rules: vec![GrantRule { selector: Selector::default(), terms, signed: false, mac: None }], ask: false };
    world.hosts[0] = host(forward().source, Vec::new(), policy.clone(), 7, START_UNIX, world.now);
    world.hosts[1] = host(granting_address(), Vec::new(), policy, 8, START_UNIX, world.now);
    let now = world.now;
    world.asking().want(forward(), Volume(VOLUME), now).unwrap();
    world.want_reverse(VOLUME);
    world.run(seconds(30));
    let sessions: std::collections::BTreeSet<_> = world.recorded.iter().map(|transit| transit.received.session.0).collect();
    assert_eq!(sessions.len(), 2);
    assert_eq!([world.allowed(forward()), world.allowed(reverse())], [Some(VOLUME); 2], "by the rules, which give more");
}

#[test]
fn news_of_messages_reach_the_part_they_are_about() {
    use gist::api::{Indication, NetworkEvent};
    use gist::wire::Direction;
    let mut world = World::connected(0);
    let session = world.queries(reverse())[0].received.session;
    let mri = reverse().to_mri(Direction::Downstream);
    let event = NetworkEvent::AssociationLost;
    let lost = Indication::NetworkNotification {
        nslp_id: crate::world::NSLP_ID,
        session,
        mri,
        event,
        former: None,
        peer: None,
        authenticated: false,
    };
    let now = world.now;
    let host: &mut Host = world.granting();
    host.handle_gist(lost, now);
    world.run(seconds(1));
    world.took(1, Part::Sender, &["FS-34"]);
    assert_eq!(world.got(forward()), 1);
}
