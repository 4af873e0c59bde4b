//! Another epoch in the middle of a permission: make before break, the volume shared, the end of the one before compared once more
//! (FR-18, FS-24, FN-23, X-36, X-38, X-72, X-75).

use core::time::Duration;
use std::sync::Arc;

use gist::api::Indication;
use pbs_nslp::credentials::Signer;
use pbs_nslp::datapath::Protection;
use pbs_nslp::detection::{Finding, Test};
use pbs_nslp::receiver::{Receiver, ReceiverConfig, Strength, Terms};
use pbs_nslp::report::{Attack, Rekey, ReportEvent};
use pbs_nslp::wire::{MessageKind, Permission, SaParameters, Volume};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::datapath::Fate;
use crate::forge::{self, permission_from};
use crate::world::{LATENCY, SENDER, START_UNIX, T, TTL, World, entropy, flow, receiver_address, receiver_config, seconds, terms};

const MB: u64 = 1_000_000;
const PACKET: u64 = 10_000;

/// A world in which `volume` is granted over two routers, and `limit` over all epochs.
fn granted(volume: u64, limit: u64, set: impl FnOnce(&mut ReceiverConfig)) -> World {
    let mut world = World::new(2);
    let mut config = receiver_config();
    config.policy.rules[0].terms = Terms { volume: Volume(volume), limit: Volume(limit), ttl: TTL, refresh: T };
    set(&mut config);
    let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, Arc::new(ToyAuthority::default()), entropy(9), START_UNIX, world.now);
    world.sender.want(flow(), Volume(volume), world.now).unwrap();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 4], "{}", world.story());
    world
}

fn spi(world: &World) -> u32 {
    world.receiver.sessions()[0].permission.as_ref().unwrap().spi
}

/// The application sends steadily for a while; every packet must arrive, some of them a link's latency later (TMP-14).
fn send_steadily(world: &mut World, span: Duration) -> u64 {
    let end = world.now + span;
    let (mut sent, mut flying) = (0, Vec::new());
    while world.now < end {
        if let Fate::Passed { spi, number } = world.datapaths[SENDER].send(flow(), PACKET, world.now) {
            sent += 1;
            flying.push((world.now + LATENCY * 3, spi, number));
        }
        world.run(Duration::from_millis(3));
        let now = world.now;
        for (_, spi, number) in flying.extract_if(.., |(at, ..)| *at <= now) {
            assert_eq!(world.carry(spi, number, PACKET), 3, "TMP-14: lost under {spi:#x}, {}", world.story());
        }
    }
    world.run(LATENCY * 3);
    for (_, spi, number) in flying {
        assert_eq!(world.carry(spi, number, PACKET), 3, "TMP-14: lost under {spi:#x}");
    }
    world.settle();
    sent
}

fn rekeys(world: &World) -> Vec<(Rekey, Volume)> {
    let rekeyed = |event: &ReportEvent| match event {
        ReportEvent::Rekeyed { why, allowed, .. } => Some((*why, *allowed)),
        _ => None,
    };
    world.events(world.end()).into_iter().filter_map(rekeyed).collect()
}

fn evidence(world: &World) -> Vec<Attack> {
    let attack = |event: &ReportEvent| if let ReportEvent::Evidence(attack) = event { Some(*attack) } else { None };
    world.events(world.end()).into_iter().filter_map(attack).collect()
}

#[test]
fn no_packet_of_an_honest_flow_is_lost_by_a_rekey() {
    // P-115, P-139, P-168, INV-10.
    // FR-18, FR-19, FN-23, FN-29, FS-24, TMP-11, TMP-14, X-75: with room for more, and with none.
    for (volume, limit) in [(40 * MB, 400 * MB), (40 * MB, 40 * MB)] {
        let mut world = granted(volume, limit, |_| ());
        let old = spi(&world);
        send_steadily(&mut world, seconds(1));
        assert!(world.receiver.rekey(flow(), Strength::Same, world.now));
        world.settle();
        send_steadily(&mut world, seconds(5));
        let new = spi(&world);
        assert_ne!(new, old);
        assert!(world.permissions().iter().all(|table| table.len() == 1 && table[0].1 == new), "TMP-11");
        world.took(3, &["FR-18", "FR-19"]);
        world.took(1, &["FN-23", "FN-29"]);
        world.took(SENDER, &["FS-24"]);
        assert_eq!(rekeys(&world).len(), 1);
        assert_eq!(evidence(&world), []);
        let announced = world.sent(3, MessageKind::Permission).into_iter().map(|transit| transit.permission().unwrap());
        let first = announced.into_iter().find(|permission| permission.sa.unwrap().spi == new).unwrap();
        assert_eq!((first.echo, first.sa.unwrap().new_epoch), (Some(0), true), "X-54: it answers nothing");
    }
}

#[test]
fn both_epochs_together_get_no_more_than_the_one_had() {
    // P-119: the limit is all there is, and the flow uses it to the end over several epochs.
    let mut world = granted(10 * MB, 10 * MB, |_| ());
    let mut sent = 0;
    for _ in 0..3 {
        sent += send_steadily(&mut world, Duration::from_millis(600)) * PACKET;
        world.receiver.rekey(flow(), Strength::Same, world.now);
        world.settle();
    }
    sent += send_steadily(&mut world, seconds(20)) * PACKET;
    assert!(sent <= 10 * MB, "{sent}");
    assert!(sent > 9 * MB, "what the old epochs did not use comes back: {sent}");
}

#[test]
fn the_end_of_the_epoch_before_is_reported_and_compared_once_more() {
    // X-38, FR-19, FR-30: the Query after the switch names the old epoch and its final volume, the next one the new epoch.
    let mut world = granted(40 * MB, 400 * MB, |_| ());
    let old = spi(&world);
    let sent = send_steadily(&mut world, Duration::from_millis(300)) * PACKET;
    world.receiver.rekey(flow(), Strength::Same, world.now);
    world.run(3 * T);
    let queries: Vec<_> = world.sent(SENDER, MessageKind::Query).into_iter().filter_map(|transit| transit.query()).collect();
    let named: Vec<_> = queries.iter().filter_map(|query| Some((query.context?.spi, query.sent?))).collect();
    assert_eq!(named[0], (old, Volume(sent)));
    assert!(named.len() >= 2 && named[1..].iter().all(|(spi, sent)| *spi != old && sent.is_zero()), "{named:?}");
    let compared = |event: &ReportEvent| matches!(event, ReportEvent::Compared { sent: s, counted, finding: Finding::Agreement, .. } if s.0 == sent && counted.0 == sent);
    assert!(world.saw(3, compared));
    assert_eq!(rekeys(&world).len(), 1, "FR-13 does not take it for an epoch that is not known");
    assert_eq!(evidence(&world), []);
}

#[test]
fn the_report_is_repeated_until_it_is_answered() {
    // its answer is lost.
    let mut world = granted(40 * MB, 400 * MB, |_| ());
    let old = spi(&world);
    send_steadily(&mut world, Duration::from_millis(300));
    world.receiver.rekey(flow(), Strength::Same, world.now);
    world.run(seconds(1));
    let mut lost = 0;
    world.loses = Box::new(move |transit| {
        lost += u32::from(transit.from == 3 && transit.kind() == MessageKind::Permission);
        transit.from == 3 && lost == 1
    });
    world.run(4 * T);
    let queries = world.sent(SENDER, MessageKind::Query).into_iter().filter_map(|transit| transit.query()?.context);
    assert_eq!(queries.filter(|context| context.spi == old).count(), 2);
    assert_eq!(world.states(), ["Permitted"; 4]);
}

#[test]
fn packets_injected_into_the_epoch_before_are_found_by_its_last_comparison() {
    // FR-31, FR-40, X-38: injected while it drained, after the last Query about it.
    let mut world = granted(40 * MB, 400 * MB, |_| ());
    let old = spi(&world);
    send_steadily(&mut world, Duration::from_millis(300));
    world.receiver.rekey(flow(), Strength::Same, world.now);
    world.run(Duration::from_millis(200));
    for number in 5000..5003 {
        assert!(world.datapaths[3].verify(flow(), old, number, PACKET, world.now));
    }
    world.run(2 * T);
    assert!(matches!(evidence(&world)[..], [Attack::Injection { test: Test::E1 | Test::E2, .. }]), "{:?}", evidence(&world));
    let new = spi(&world);
    let protection = &world.datapaths[3].table[&(flow(), new)].grant.protection;
    assert!(matches!(protection, Protection::SignedBy(_)), "from now on the sender signs: {protection:?}");
    world.run(3 * T);
    assert_eq!(evidence(&world).len(), 1, "nothing follows twice");
    assert_eq!(world.states(), ["Permitted"; 4]);
}

#[test]
fn evidence_about_weaker_packets_than_those_of_now_has_no_second_consequence() {
    // INV-09: the operator has had packets signed meanwhile; what was injected under the shared key says nothing about signatures.
    let mut world = granted(40 * MB, 400 * MB, |_| ());
    let old = spi(&world);
    send_steadily(&mut world, Duration::from_millis(300));
    assert!(world.receiver.rekey(flow(), Strength::Signed, world.now));
    world.run(Duration::from_millis(200));
    assert!(world.datapaths[3].verify(flow(), old, 5000, PACKET, world.now));
    world.run(3 * T);
    assert_eq!(evidence(&world), []);
    assert!(world.saw(3, |event| matches!(event, ReportEvent::Compared { finding: Finding::Injection { .. }, .. })), "but it is told");
    assert_eq!(world.states(), ["Permitted"; 4]);
    send_steadily(&mut world, Duration::from_millis(300));
    assert!(matches!(world.datapaths[3].table[&(flow(), spi(&world))].grant.protection, Protection::SignedBy(_)));
}

#[test]
fn an_order_that_comes_while_the_counter_is_read_is_carried_out_with_the_answer() {
    // FR-18 in Compare Sv; the answer is the new epoch.
    let mut world = granted(40 * MB, 400 * MB, |_| ());
    let old = spi(&world);
    world.datapaths[3].stalled = true;
    world.run(T);
    assert_eq!(world.receiver_state(), "Compare Sv");
    assert!(world.receiver.rekey(flow(), Strength::Same, world.now));
    world.settle();
    world.datapaths[3].resume();
    world.run(LATENCY * 8);
    world.took(3, &["FR-18"]);
    assert_ne!(spi(&world), old);
    let answer = world.sent(3, MessageKind::Permission).last().unwrap().permission().unwrap();
    let asked = world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap();
    assert_eq!(answer.echo, Some(asked.number));
    assert_eq!(world.states(), ["Permitted"; 4]);
}

#[test]
fn an_order_and_a_query_that_cross_do_no_harm() {
    // P-108, X-55, X-38: the Query names the epoch that has just been replaced, and is not its last word.
    for delay in 0..10 {
        let mut world = granted(40 * MB, 400 * MB, |_| ());
        world.sender.want(flow(), Volume(MB), world.now).unwrap();
        world.run(Duration::from_millis(5 * delay));
        assert!(world.receiver.rekey(flow(), Strength::Same, world.now));
        world.settle();
        send_steadily(&mut world, seconds(12));
        assert_eq!((rekeys(&world).len(), evidence(&world)), (1, vec![]), "{delay}");
        assert_eq!(world.states(), ["Permitted"; 4]);
    }
}

#[test]
fn an_old_key_is_replaced_with_the_next_query() {
    // FR-18, X-36: key age.
    let mut world = granted(400 * MB, 4000 * MB, |config| config.key_age = seconds(30));
    send_steadily(&mut world, seconds(100));
    let rekeys = rekeys(&world);
    assert!((2..=3).contains(&rekeys.len()) && rekeys.iter().all(|(why, _)| *why == Rekey::KeyAge), "{rekeys:?}");
    assert_eq!(evidence(&world), []);
    assert_eq!(world.states(), ["Permitted"; 4]);
}

/// Lets a flow's numbers go on from `highest`, at every node.
fn skip_to(world: &mut World, highest: u32) {
    for datapath in &mut world.datapaths {
        datapath.table.values_mut().for_each(|entry| entry.highest = highest);
    }
}

#[test]
fn half_used_up_numbers_call_for_another_epoch() {
    // FS-33, FR-18, X-72: the sender asks at 2^31, not before.
    let mut world = granted(400 * MB, 4000 * MB, |_| ());
    skip_to(&mut world, (1 << 31) - 20);
    send_steadily(&mut world, Duration::from_millis(30));
    world.run(2 * T);
    assert_eq!(rekeys(&world), [], "a few are left to the half");
    skip_to(&mut world, (1 << 31) - 1);
    send_steadily(&mut world, seconds(6));
    assert!(matches!(rekeys(&world)[..], [(Rekey::Numbers, _)]), "{:?}", rekeys(&world));
    assert!(world.datapaths[SENDER].table.values().all(|entry| entry.highest < 1 << 20), "numbers begin anew");
    assert_eq!((evidence(&world), world.states()), (vec![], vec!["Permitted".to_owned(); 4]));
}

#[test]
fn a_volume_that_would_go_on_under_another_spi_is_not_taken_up() {
    // FS-24: only NEW says that the counters begin anew.
    let mut world = World::granted(1);
    world.stable = false;
    let (session, before) = (world.session(), world.permissions());
    let number = u32::try_from(world.unix()).unwrap() + 5;
    let sa = Some(SaParameters { spi: 0x7777, drain: seconds(1), new_epoch: false });
    let forged = Permission { sa, echo: Some(0), ..forge::permission(number) };
    world.tell(SENDER, Indication::Received(permission_from(1, session, &forged, &forge::receiver())));
    world.settle();
    assert!(world.saw(SENDER, |event| *event == ReportEvent::NotANewEpoch { spi: 0x7777 }));
    assert_eq!(world.permissions(), before);
    let again = Permission { sa: sa.map(|sa| SaParameters { new_epoch: true, ..sa }), ..forged };
    world.tell(SENDER, Indication::Received(permission_from(1, session, &again, &forge::receiver())));
    world.settle();
    world.took(SENDER, &["FS-24"]);
    assert_eq!(world.permissions()[SENDER][0].1, 0x7777);
}

#[test]
fn a_flow_without_permission_or_volume_gets_no_other_epoch() {
    let mut world = World::granted(1);
    assert!(!world.receiver.rekey(crate::world::flow_to(9001), Strength::Same, world.now));
    // All that there is has been used: a new epoch would have nothing.
    let all = Terms { limit: Volume(10_000), ..terms() };
    world.receiver.change(flow(), all, world.now);
    world.run(seconds(1));
    assert_eq!(world.packet(10_000), Some(2));
    let old = spi(&world);
    assert!(world.receiver.rekey(flow(), Strength::Same, world.now), "it is noted,");
    world.run(seconds(1));
    assert_eq!(spi(&world), old, "but not yet carried out");
    assert_eq!(world.states(), ["Permitted"; 3]);
}
