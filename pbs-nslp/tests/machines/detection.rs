//! Detection and reaction: what a receiver makes of the volumes that its senders report, and what follows at every node.

use std::sync::Arc;
use std::time::Duration;

use gist::api::Indication;
use gist::time::Instant;
use pbs_nslp::credentials::Signer;
use pbs_nslp::datapath::{Event, Protection};
use pbs_nslp::detection::{Finding, Test};
use pbs_nslp::receiver::{Ladder, Overrun, Reactions, Receiver, ReceiverConfig, Terms};
use pbs_nslp::report::{Attack, Reaction, ReportEvent};
use pbs_nslp::wire::{Defense, MessageKind, Query, Volume};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::datapath::Fate;
use crate::forge;
use crate::world::{Place, SENDER, START_UNIX, T, TTL, World, entropy, flow, receiver_address, receiver_config, seconds};

const MB: u64 = 1_000_000;
const PACKET: u64 = 50_000;

fn want(world: &mut World) {
    let now = world.now;
    world.sender.want(flow(), Volume(40 * MB), now).unwrap();
    world.settle();
}

/// A world in which 40 MB are granted over two routers, and 400 in all.
fn busy(reactions: Reactions) -> World {
    busy_within(400 * MB, reactions)
}

/// The same with another limit over all epochs.
fn busy_within(limit: u64, reactions: Reactions) -> World {
    let mut world = World::new(2);
    let mut config = ReceiverConfig { reactions, ..receiver_config() };
    config.policy.rules[0].terms = Terms { volume: Volume(40 * MB), limit: Volume(limit), ttl: TTL, refresh: T };
    let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, Arc::new(ToyAuthority::default()), entropy(9), START_UNIX, world.now);
    want(&mut world);
    world.run(seconds(1));
    world
}

fn spi(world: &World) -> u32 {
    world.receiver.sessions()[0].permission.as_ref().unwrap().spi
}

/// The application sends at 1 MB/s, and the path carries each packet or not.
fn send(world: &mut World, bytes: u64, mut passes: impl FnMut(u64) -> bool) {
    for count in 0..bytes / PACKET {
        let Fate::Passed { spi, number } = world.datapaths[SENDER].send(flow(), PACKET, world.now) else {
            panic!("held: {}", world.trace.join("\n"));
        };
        if passes(count) {
            world.carry(spi, number, PACKET);
        }
        world.run(Duration::from_millis(50));
    }
}

/// Somebody with the shared key injects packets behind the last router, under numbers of his own choice.
fn inject(world: &mut World, numbers: std::ops::Range<u32>) {
    let (spi, end, now) = (spi(world), world.end(), world.now);
    for number in numbers {
        assert!(world.datapaths[end].verify(flow(), spi, number, PACKET, now));
    }
    world.settle();
}

fn evidence(world: &World) -> Vec<Attack> {
    let attack = |event: &ReportEvent| if let ReportEvent::Evidence(attack) = event { Some(*attack) } else { None };
    world.events(world.end()).into_iter().filter_map(attack).collect()
}

fn reactions(world: &World) -> Vec<Reaction> {
    let reaction = |event: &ReportEvent| if let ReportEvent::Attacked { reaction } = event { Some(*reaction) } else { None };
    world.events(world.end()).into_iter().filter_map(reaction).collect()
}

fn protection(world: &World, place: Place, spi: u32) -> Option<&Protection> {
    world.datapaths[place].table.get(&(flow(), spi)).map(|entry| &entry.grant.protection)
}

fn until(world: &mut World, span: Duration, done: impl Fn(&World) -> bool) -> Instant {
    let end = world.now + span;
    while !done(world) && world.now < end {
        world.run(Duration::from_millis(20));
    }
    assert!(done(world), "{}", world.trace.join("\n"));
    world.now
}

/// Until the next Query has been answered.
fn period(world: &mut World) {
    let asked = |world: &World| world.events(world.end()).iter().filter(|event| matches!(event, ReportEvent::Asked { .. })).count();
    let before = asked(world);
    until(world, 2 * T, |world| asked(world) > before && world.receiver_state() == "Permitted");
    world.run(Duration::from_millis(100));
}

#[test]
fn an_honest_flow_is_never_suspected_however_long_it_lives() {
    // P-173, P-179, P-180, P-181.
    // FR-32, INV-13, TMP-08: every 20th packet is lost on the way, one twentieth of each MB.
    let mut world = busy(Reactions::default());
    for _ in 0..30 {
        send(&mut world, MB, |count| count % 20 != 7);
        world.run(T - seconds(1));
    }
    assert_eq!((evidence(&world), reactions(&world)), (vec![], vec![]));
    world.took(world.end(), &["FR-32"]);
    assert_eq!(world.states(), ["Permitted"; 4]);
}

#[test]
fn a_query_that_was_held_back_on_its_way_accuses_nobody() {
    // P-184.
    // T1: a burst arrives while the Query that knows nothing of it is late by 3 s, again and again.
    let mut world = busy(Reactions::default());
    for _ in 0..6 {
        send(&mut world, MB, |_| true);
        let late = until(&mut world, 2 * T, |world| world.wires.iter().any(|transit| transit.kind() == MessageKind::Query));
        world.wires.iter_mut().for_each(|transit| transit.arrives_at = late + seconds(3));
        send(&mut world, 2 * MB, |_| true);
        period(&mut world);
    }
    let suspicion = |event: &ReportEvent| matches!(event, ReportEvent::Compared { finding: Finding::Suspicion { .. }, .. });
    assert!(world.saw(world.end(), suspicion), "suspected,");
    assert_eq!((evidence(&world), reactions(&world)), (vec![], vec![]), "and cleared");
}

#[test]
fn injected_packets_make_the_sender_sign_its_own_within_two_periods() {
    // P-115, P-131, P-139, P-164, P-170, P-171, P-188.
    // FR-31, FR-40, FS-24, FN-23; draft-04 figure 4: 1 MB sent and 2 MB injected; TMP-04.
    let mut world = busy(Reactions::default());
    let old = spi(&world);
    send(&mut world, MB, |_| true);
    inject(&mut world, 5000..5040);
    let began = world.now;
    let ended = until(&mut world, 2 * T, |world| !reactions(world).is_empty());
    assert!(ended.saturating_duration_since(began) <= 2 * T);
    // The first Query after it gives a suspicion, which the second one proves.
    let suspicion = |event: &ReportEvent| matches!(event, ReportEvent::Compared { finding: Finding::Suspicion { excess, .. }, .. } if *excess == 2 * MB);
    assert!(world.saw(world.end(), suspicion));
    assert!(matches!(evidence(&world)[..], [Attack::Injection { test: Test::E2, .. }]), "{:?}", evidence(&world));
    let findings = &world.receiver.counters().findings;
    let shown = |test: &str| findings.get(test).map(|found| (found.times, found.last.as_str())).unwrap_or_default();
    assert!(shown("T1").0 == 1 && shown("T1").1.contains("2000000 bytes ahead"), "{findings:?}");
    assert!(shown("E2").0 == 1 && shown("E2").1.contains("E2: ") && shown("E2").1.contains("too many"), "{findings:?}");
    let new = spi(&world);
    assert_ne!(new, old);
    assert_eq!(reactions(&world), [Reaction::Escalated { spi: new, algorithm: "ed25519" }]);
    world.run(seconds(1));
    // Every node verifies with the sender's public key, which nobody needs to keep secret; the sender signs (P-165).
    assert_eq!(protection(&world, SENDER, new), Some(&Protection::Signing));
    for place in 1..=3 {
        let Some(Protection::SignedBy(key)) = protection(&world, place, new) else {
            panic!("{place}: {:?}", protection(&world, place, new));
        };
        assert_eq!(key.public_key, [1][..]);
    }
    // AV' = AV - SV (FR-40), and what the key holder injects is not taken from it.
    assert_eq!(world.receiver.sessions()[0].permission.as_ref().unwrap().allowed, Volume(39 * MB));
    world.took(SENDER, &["FS-24"]);
    world.took(1, &["FN-23"]);
    world.took(world.end(), &["FR-31", "FR-40"]);
    // The old epoch has run out, and the flow goes on (TMP-11, FR-19, FN-29).
    world.run(seconds(3));
    assert!((1..=3).all(|place| protection(&world, place, old).is_none()));
    send(&mut world, MB, |_| true);
    world.run(2 * T);
    assert_eq!(reactions(&world).len(), 1, "nothing more");
    assert_eq!(world.states(), ["Permitted"; 4]);
}

/// A Query as a sender makes it that knows no Vol-Context, brought to the receiver in place of the sender's own.
fn without_context(world: &mut World, sent: u64) {
    world.stable = false;
    world.loses = Box::new(|transit| transit.from == SENDER);
    let number = u32::try_from(world.unix()).unwrap() + 1;
    let query = Query { requested: None, sent: Some(Volume(sent)), ..forge::query(number) };
    let received = forge::query_from(2, world.session(), &query, &forge::sender());
    world.tell(world.end(), Indication::Received(received));
    world.run(seconds(3));
}

#[test]
fn a_sender_that_names_no_context_is_held_against_the_totals_twice() {
    // P-184, X-39.
    // FR-31 by T1: E1 to E3 rest on what such a sender does not say, so that one period proves nothing and two do.
    for catches_up in [true, false] {
        let mut world = busy(Reactions::default());
        send(&mut world, MB, |_| true);
        inject(&mut world, 5000..5040);
        world.run(seconds(1));
        without_context(&mut world, MB);
        let suspicion =
            |event: &ReportEvent| matches!(event, ReportEvent::Compared { sent_highest: None, finding: Finding::Suspicion { .. }, .. });
        assert!(world.saw(world.end(), suspicion), "{}", world.story());
        assert_eq!((evidence(&world), reactions(&world)), (vec![], vec![]));
        without_context(&mut world, if catches_up { 3 * MB } else { MB });
        if catches_up {
            assert_eq!((evidence(&world), reactions(&world)), (vec![], vec![]), "it was late");
        } else {
            assert!(matches!(evidence(&world)[..], [Attack::Injection { test: Test::T1, .. }]), "{:?}", evidence(&world));
            assert!(matches!(reactions(&world)[..], [Reaction::Escalated { .. }]), "{:?}", reactions(&world));
            world.took(world.end(), &["FR-31", "FR-40"]);
        }
    }
}

#[test]
fn refreshes_of_a_signed_flow_repeat_the_solution_and_never_fall_back() {
    // INV-09, X-84: the level of protection only rises, whatever happens within a session or soon after it.
    let mut world = busy(Reactions::default());
    send(&mut world, MB, |_| true);
    inject(&mut world, 5000..5040);
    until(&mut world, 2 * T, |world| !reactions(world).is_empty());
    world.run(4 * T);
    let end = world.end();
    let signed = world.sent(end, MessageKind::Permission).into_iter().rev().take(3);
    assert!(signed.clone().count() == 3);
    for transit in signed {
        assert!(matches!(transit.permission().unwrap().defense, Some(Defense::PublicKey { .. })));
    }
    let now = world.now;
    world.sender.release(flow(), now);
    world.run(seconds(30));
    want(&mut world);
    world.run(seconds(2));
    assert_eq!(world.states(), ["Permitted"; 4], "{}", world.trace.join("\n"));
    assert!(matches!(protection(&world, end, spi(&world)), Some(Protection::SignedBy(_))), "X-108: the next session too");
}

#[test]
fn who_signs_and_still_does_not_fit_its_own_figures_is_revoked_and_refused() {
    // P-131, P-187.
    // FR-41, X-43: under signatures only the sender can make packets count.
    let mut world = busy(Reactions::default());
    for start in [5000, 6000] {
        send(&mut world, MB, |_| true);
        inject(&mut world, start..start + 40);
        let count = reactions(&world).len();
        until(&mut world, 2 * T, |world| reactions(world).len() > count);
        world.run(seconds(1));
    }
    assert_eq!(reactions(&world)[1], Reaction::Revoked);
    world.took(world.end(), &["FR-41"]);
    world.run(seconds(2));
    assert!(world.is_clean(), "{:?}", world.states());
    world.run(seconds(120));
    want(&mut world);
    world.run(seconds(5));
    assert_eq!(world.sender_state(), "Idle", "hold-down");
}

#[test]
fn two_holders_of_one_key_are_told_by_a_number_used_twice() {
    // FR-21, E4, X-42: volumes agree to the byte.
    let mut world = busy(Reactions::default());
    send(&mut world, MB, |_| true);
    let (spi, end) = (spi(&world), world.end());
    world.datapaths[end].events.push_back(Event::SecondHolder { flow: flow(), spi });
    world.settle();
    assert_eq!(evidence(&world), [Attack::Injection { test: Test::E4, excess: 0, tolerated: 0 }]);
    assert!(matches!(reactions(&world)[..], [Reaction::Escalated { .. }]), "at once, without waiting for a Query");
    world.took(end, &["FR-21", "FR-40"]);
}

#[test]
fn data_that_vanishes_makes_the_receiver_ask_for_another_path_after_two_periods() {
    // P-172, P-188.
    // FR-33, FR-35, FR-36, FR-42, FN-25, FS-26; draft-04 figure 6; TMP-07: all data is lost, signalling is not.
    let mut world = busy(Reactions::default());
    send(&mut world, MB, |_| true);
    period(&mut world);
    let before = spi(&world);
    for _ in 0..2 {
        send(&mut world, MB, |_| false);
        period(&mut world);
    }
    assert!(matches!(evidence(&world)[..], [Attack::Drop { deficit: MB, tolerated: 65_536 }]), "{:?}", evidence(&world));
    let findings = &world.receiver.counters().findings;
    assert!(findings["T2"].times == 2 && findings["T2"].last.contains("T2: 1000000 bytes missing, 65536 are tolerated"), "{findings:?}");
    assert_eq!(reactions(&world), [Reaction::OtherPathAsked { times: 1 }]);
    world.took(world.end(), &["FR-33", "FR-35", "FR-36", "FR-42"]);
    world.took(1, &["FN-25"]);
    // There is no other path here; the sender says so and goes on under the same association.
    world.took(SENDER, &["FS-26"]);
    assert!(world.saw(SENDER, |event| *event == ReportEvent::NoOtherPath));
    assert_eq!(spi(&world), before);
    assert_eq!(world.states(), ["Permitted"; 4]);
}

/// The application, or its kernel, sends packets of 1500 bytes.
fn send_small(world: &mut World, count: u64, passes: bool) {
    const SMALL: u64 = 1500;
    for _ in 0..count {
        let Fate::Passed { spi, number } = world.datapaths[SENDER].send(flow(), SMALL, world.now) else {
            panic!("held: {}", world.trace.join("\n"));
        };
        if passes {
            world.carry(spi, number, SMALL);
        }
    }
    world.settle();
}

#[test]
fn a_connection_that_stalls_is_found_out_however_little_it_sends_again() {
    // P-172, P-188.
    // FR-33, FR-36, FR-42, X-40 (T4): a TCP connection whose data is lost in the middle of a file sends what its window has left, and then
    // one packet after twice the time of the one before: never a tenth of the 64 KiB that T2 tolerates in a period.
    let mut world = busy(Reactions::default());
    send(&mut world, MB, |_| true);
    send_small(&mut world, 10, false);
    let (began, mut pause) = (world.now, Duration::from_millis(200));
    while reactions(&world).is_empty() {
        assert!(world.now < began + 4 * T, "{}", world.trace.join("\n"));
        send_small(&mut world, 1, false);
        let again = world.now + pause;
        while world.now < again && reactions(&world).is_empty() {
            world.run(Duration::from_millis(100));
        }
        pause *= 2;
    }
    assert!(matches!(evidence(&world)[..], [Attack::Silence { packets: 11..20, tolerated: 8 }]), "{:?}", evidence(&world));
    assert_eq!(reactions(&world), [Reaction::OtherPathAsked { times: 1 }]);
    assert!(world.now > began + 3 * T / 2, "in two periods");
    world.took(world.end(), &["FR-33", "FR-36", "FR-42"]);
}

#[test]
fn a_flow_that_rests_or_sends_little_over_a_bad_path_is_not_taken_for_stalled() {
    // X-40 (T4), TMP-08.
    let mut world = busy(Reactions::default());
    send(&mut world, MB, |_| true);
    // The last packets before a long rest are lost, and the first one after it.
    send_small(&mut world, 20, false);
    world.run(10 * T);
    send_small(&mut world, 1, false);
    world.run(10 * T);
    // Seven of eight are lost, one in each period.
    for count in 0..80 {
        send_small(&mut world, 1, count % 8 == 0);
        world.run(T);
    }
    assert_eq!((evidence(&world), reactions(&world)), (vec![], vec![]));
}

#[test]
fn path_changes_end_at_their_limit_and_are_two_periods_apart() {
    // P-187.
    // FR-43, INV-09, TMP-06.
    let mut world = busy(Reactions::default());
    let mut asked = Vec::new();
    for _ in 0..30 {
        send(&mut world, MB / 2, |_| false);
        let count = reactions(&world).len();
        world.run(T + Duration::from_millis(100));
        asked.extend(reactions(&world)[count..].iter().map(|reaction| (world.now, *reaction)));
    }
    let paths: Vec<_> = asked.iter().filter(|(_, reaction)| matches!(reaction, Reaction::OtherPathAsked { .. })).collect();
    assert_eq!(paths.len(), 2, "{asked:?}");
    assert!(paths[1].0.saturating_duration_since(paths[0].0) >= 2 * T);
    assert!(asked.iter().any(|(_, reaction)| *reaction == Reaction::Tolerated));
    world.took(world.end(), &["FR-43"]);
    assert_eq!(world.states(), ["Permitted"; 4], "tolerated");
}

#[test]
fn one_period_with_losses_is_not_two() {
    // P-173.
    // FR-35, X-40: a single one is what a restart looks like.
    let mut world = busy(Reactions::default());
    for period in 0..12 {
        send(&mut world, MB, |_| period % 2 == 0);
        self::period(&mut world);
    }
    assert_eq!((evidence(&world), reactions(&world)), (vec![], vec![]));
    world.took(world.end(), &["FR-33", "FR-35"]);
}

#[test]
fn the_grace_time_blocks_neither_newer_queries_nor_ends_nor_revocation() {
    // FR-34, FR-37.
    let mut world = busy(Reactions::default());
    send(&mut world, MB, |_| false);
    until(&mut world, 2 * T, |world| world.receiver_state() == "Grace");
    send(&mut world, PACKET, |_| true);
    let now = world.now;
    assert!(world.receiver.revoke(flow(), now));
    world.run(seconds(1));
    world.took(world.end(), &["FR-33", "FR-37"]);
    assert!(world.is_clean(), "{:?}", world.states());
}

#[test]
fn with_escalation_chosen_a_key_holder_cannot_end_a_flow_by_using_up_its_volume() {
    // FR-25, X-52; and without it FR-24 revokes.
    for on_overrun in [Overrun::Escalate, Overrun::Revoke] {
        let mut world = busy(Reactions { on_overrun, ..Reactions::default() });
        send(&mut world, MB, |_| true);
        world.run(T);
        inject(&mut world, 5000..5000 + u32::try_from(39 * MB / PACKET).unwrap());
        let (spi, end, now) = (spi(&world), world.end(), world.now);
        assert!(!world.datapaths[end].verify(flow(), spi, 9000, PACKET, now), "the excess packet is dropped always");
        world.run(seconds(1));
        if on_overrun == Overrun::Escalate {
            assert!(evidence(&world).contains(&Attack::Overrun));
            assert!(matches!(reactions(&world)[..], [Reaction::Escalated { .. }]));
            world.took(end, &["FR-25", "FR-40"]);
            assert_eq!(world.states(), ["Permitted"; 4]);
        } else {
            world.took(end, &["FR-24"]);
            assert!(world.is_clean());
        }
    }
}

#[test]
fn an_operator_may_choose_to_revoke_at_the_first_evidence() {
    // FR-44.
    let mut world = busy(Reactions { ladder: Ladder::Revoke, ..Reactions::default() });
    send(&mut world, MB, |_| true);
    inject(&mut world, 5000..5040);
    world.run(2 * T);
    world.took(world.end(), &["FR-31", "FR-44"]);
    assert!(world.is_clean());
}

#[test]
fn whoever_drops_packets_cannot_end_a_flow_under_any_policy() {
    // FR-42, FR-43, X-43: a node on the way that loses a tenth, for as long as it likes, to a receiver that revokes at evidence.
    let mut world = busy(Reactions { ladder: Ladder::Revoke, ..Reactions::default() });
    let mut sent = 0;
    for _ in 0..20 {
        send(&mut world, MB, |_| {
            sent += 1;
            sent % 10 != 0
        });
        world.run(T + Duration::from_millis(100));
        assert_eq!(world.states(), ["Permitted"; 4], "{:?}", reactions(&world));
    }
    assert!(reactions(&world).contains(&Reaction::OtherPathAsked { times: 2 }));
    assert!(reactions(&world).contains(&Reaction::Tolerated));
    world.took(world.end(), &["FR-42", "FR-43"]);
}

/// P-177, X-40: a queue that overflows is seen by the same comparison as somebody who drops, and accuses nobody of holding the key; one that
/// loses less than the threshold is not seen at all.
#[test]
fn heavy_congestion_shows_as_missing_packets_and_light_congestion_does_not() {
    // FR-36, FR-42. What comes in a burst that the queue has no room for is lost: the last of each ten, or one in fifty.
    for (burst, room, seen) in [(10, 6, true), (50, 49, false)] {
        let mut world = busy(Reactions::default());
        let mut sent = 0;
        for _ in 0..4 {
            send(&mut world, MB, |_| {
                sent += 1;
                sent % burst < room
            });
            world.run(T + Duration::from_millis(100));
        }
        assert_eq!(world.states(), ["Permitted"; 4], "{:?}", reactions(&world));
        let asked = reactions(&world).iter().filter(|reaction| matches!(reaction, Reaction::OtherPathAsked { .. })).count();
        assert_eq!(asked > 0, seen, "{:?}", reactions(&world));
        assert!(evidence(&world).iter().all(|attack| matches!(attack, Attack::Drop { .. })), "{:?}", evidence(&world));
        assert!(
            !reactions(&world).iter().any(|reaction| matches!(reaction, Reaction::Escalated { .. } | Reaction::Revoked)),
            "{:?}",
            reactions(&world)
        );
    }
}

#[test]
fn an_escalation_that_must_wait_for_the_end_of_the_old_epoch_is_reported_all_the_same() {
    // FR-40 with the default limit, the volume itself: nothing is left for two epochs at a time.
    let mut world = busy_within(40 * MB, Reactions::default());
    send(&mut world, MB, |_| true);
    inject(&mut world, 5000..5040);
    // The old one ends at once: for a round trip the sender still uses what the receiver has taken away.
    world.stable = false;
    until(&mut world, 2 * T, |world| !reactions(world).is_empty());
    let spi = spi(&world);
    assert!(matches!(reactions(&world)[..], [Reaction::Escalated { spi: new, .. }] if new == spi), "{:?}", reactions(&world));
    assert!(matches!(protection(&world, world.end(), spi), Some(Protection::SignedBy(_))));
}

#[test]
fn after_a_suspicion_the_sender_is_asked_at_once_for_the_query_that_decides() {
    // T1, X-40, Notify 14 "refresh needed", FS-34: a second or two instead of another period of a minute.
    let mut world = World::new(2);
    let mut config = receiver_config();
    config.policy.rules[0].terms = Terms { volume: Volume(40 * MB), limit: Volume(400 * MB), ttl: TTL, refresh: seconds(60) };
    let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, Arc::new(ToyAuthority::default()), entropy(9), START_UNIX, world.now);
    want(&mut world);
    world.run(seconds(1));
    send(&mut world, MB, |_| true);
    inject(&mut world, 5000..5040);
    let suspicion = |event: &ReportEvent| matches!(event, ReportEvent::Compared { finding: Finding::Suspicion { .. }, .. });
    let suspected = until(&mut world, seconds(70), |world| world.saw(world.end(), suspicion));
    let proven = until(&mut world, seconds(5), |world| !evidence(world).is_empty());
    assert!(proven.saturating_duration_since(suspected) <= seconds(2));
    world.took(SENDER, &["FS-34"]);
}

#[test]
fn a_path_on_which_queries_are_late_is_asked_for_one_more_in_each_period() {
    // A Query that is held back is suspected each time: one notice in a period, and nothing follows.
    let mut world = busy(Reactions::default());
    for _ in 0..6 {
        send(&mut world, MB, |_| true);
        let late = until(&mut world, 2 * T, |world| world.wires.iter().any(|transit| transit.kind() == MessageKind::Query));
        world.wires.iter_mut().for_each(|transit| transit.arrives_at = late + seconds(3));
        send(&mut world, 2 * MB, |_| true);
        period(&mut world);
    }
    let notices = world.sent(world.end(), MessageKind::Notify).len();
    assert!((1..=8).contains(&notices), "{notices}");
    assert_eq!((evidence(&world), reactions(&world)), (vec![], vec![]));
}

#[test]
fn an_attack_that_shows_when_all_is_used_up_does_not_end_the_flow() {
    // FR-40 where AV' = AV - SV is nothing: the Query asks for more, and would have been given it.
    let mut world = busy_within(400 * MB, Reactions::default());
    send(&mut world, 40 * MB - 20 * PACKET, |_| true);
    world.run(2 * T);
    let allowed = |world: &World| world.receiver.sessions()[0].permission.as_ref().unwrap().allowed.0;
    let left = allowed(&world) - (40 * MB - 20 * PACKET);
    send(&mut world, left, |_| true);
    let spi = spi(&world);
    world.receiver.handle_datapath(Event::SecondHolder { flow: flow(), spi }, world.now);
    world.settle();
    assert!(matches!(reactions(&world)[..], [Reaction::Escalated { .. }]), "{:?}", reactions(&world));
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 4]);
    send(&mut world, MB, |_| true);
}

#[test]
fn no_packet_in_flight_is_lost_when_packets_must_be_signed_and_the_limit_leaves_nothing_besides() {
    // FR-40, X-75: the sender has used 10 of its 40 MB, which are all there is.
    let mut world = busy_within(40 * MB, Reactions::default());
    send(&mut world, 10 * MB, |_| true);
    world.run(2 * T);
    let old = spi(&world);
    let mut flying = Vec::new();
    for _ in 0..4 {
        let Fate::Passed { spi, number } = world.datapaths[SENDER].send(flow(), PACKET, world.now) else { panic!("held") };
        flying.push((spi, number));
    }
    world.receiver.handle_datapath(Event::SecondHolder { flow: flow(), spi: old }, world.now);
    world.run(crate::world::LATENCY * 2);
    assert!(matches!(reactions(&world)[..], [Reaction::Escalated { .. }]), "{:?}", reactions(&world));
    for (spi, number) in flying {
        assert_eq!(world.carry(spi, number, PACKET), world.end(), "make before break");
    }
    world.run(seconds(3));
    let allowed = world.receiver.sessions()[0].permission.as_ref().unwrap().allowed.0;
    assert!(allowed <= 30 * MB && allowed > 29 * MB, "most of the 30 MB left: {allowed}");
    let counted: u64 = 10 * MB + 4 * PACKET;
    send(&mut world, 40 * MB - counted - 2 * PACKET, |_| true);
    assert_eq!(evidence(&world).len(), 1);
}

#[test]
fn what_a_holder_of_the_key_takes_while_the_old_epoch_drains_stays_within_the_flows_volume() {
    // P-168.
    // INV-14: the volume that it keeps is that of packets in flight, and what was counted meanwhile is not given once more.
    let mut world = busy_within(40 * MB, Reactions::default());
    send(&mut world, 10 * MB, |_| true);
    world.run(2 * T);
    let old = spi(&world);
    world.receiver.handle_datapath(Event::SecondHolder { flow: flow(), spi: old }, world.now);
    world.settle();
    let taken = (5000..7000).filter(|number| world.carry(old, *number, PACKET) == world.end()).count();
    assert!(taken as u64 * PACKET <= 256 * 1024, "{taken}");
    world.run(seconds(4));
    let last = world.end();
    let total: u64 = world.datapaths[last].table.values().map(|entry| entry.grant.allowed).sum();
    assert!(total + 10 * MB + taken as u64 * PACKET <= 40 * MB, "{total}");
}

#[test]
fn what_is_tolerated_in_a_period_is_not_granted_anew_to_each_of_many_comparisons() {
    // FR-32, FR-35, FR-36, FR-42: a sender asks every second whether its relay lives, and somebody drops every other packet,
    // 50 KB a second, which is less than what one comparison tolerates.
    let mut world = busy(Reactions::default());
    let began = world.now;
    while reactions(&world).is_empty() {
        assert!(world.now < began + 4 * T, "{}", world.trace.join("\n"));
        send(&mut world, 2 * PACKET, |count| count == 0);
        world.run(seconds(1));
        let now = world.now;
        world.sender.probe(flow(), now);
        world.settle();
    }
    assert!(matches!(reactions(&world)[..], [Reaction::OtherPathAsked { .. }]), "{:?}", reactions(&world));
    assert!(world.now >= began + T, "and a second or two of it are no two periods");
}
