//! While a receiver gives packets under way the time to come (Grace), or its counter is read, everything else goes on: each order,
//! clock and message is acted upon as if nothing were compared (FR-37).

use gist::api::Indication;
use gist::wire::SessionId;
use pbs_nslp::datapath::Event;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Ladder, Overrun, Reactions, Receiver, ReceiverConfig, Strength, Terms};
use pbs_nslp::report::{Attack, Reaction, ReportEvent};
use pbs_nslp::selector::Selector;
use pbs_nslp::wire::{Defense, Permission, Query, Volume, VolumeContext};

use crate::credentials::ToySigner;
use crate::datapath::Fate;
use crate::forge::{self, permission, permission_from, query, query_from};
use crate::world::{L, LATENCY, SENDER, START_UNIX, T, TTL, World, entropy, flow, receiver_address, receiver_config, seconds};

const MB: u64 = 1_000_000;
const PACKET: u64 = 50_000;
const NEWER: SessionId = SessionId([9; 16]);

fn generous() -> Terms {
    Terms { volume: Volume(10 * MB), limit: Volume(100 * MB), ttl: TTL, refresh: T }
}

/// A world whose flow has many bytes.
fn granted(reactions: Reactions, terms: Terms) -> World {
    let mut world = World::new(1);
    let rule = GrantRule { selector: Selector::default(), terms, signed: false, mac: None };
    let config = ReceiverConfig { reactions, policy: GrantPolicy { rules: vec![rule], ask: false }, ..receiver_config() };
    let signer = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, world.authority.clone(), entropy(9), START_UNIX, world.now);
    world.sender.want(flow(), Volume(10 * MB), world.now).unwrap();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3]);
    world
}

/// The sender sends what never arrives.
fn lose(world: &mut World, bytes: u64) {
    for _ in 0..bytes / PACKET {
        assert!(matches!(world.datapaths[SENDER].send(flow(), PACKET, world.now), Fate::Passed { .. }));
    }
    world.settle();
}

fn run_to(world: &mut World, state: &str) {
    for _ in 0..2000 {
        if world.receiver_state() == state {
            return;
        }
        world.run(LATENCY);
    }
    panic!("not {state} but {}: {}", world.receiver_state(), world.story());
}

/// A world whose receiver waits for what is missing.
fn waiting(reactions: Reactions, terms: Terms) -> World {
    let mut world = granted(reactions, terms);
    lose(&mut world, MB);
    run_to(&mut world, "Grace");
    world
}

pub(crate) fn grace() -> World {
    waiting(Reactions::default(), generous())
}

/// A world whose receiver has asked its packet side, which does not answer.
pub(crate) fn counting(reactions: Reactions) -> World {
    let mut world = granted(reactions, generous());
    world.datapaths[2].stalled = true;
    run_to(&mut world, "Compare Sv");
    world
}

fn spi(world: &World) -> u32 {
    world.datapaths[2].table.iter().find(|(_, entry)| !entry.draining).unwrap().0.1
}

fn number(world: &World) -> u32 {
    u32::try_from(world.unix()).unwrap() + 10
}

fn ask(world: &mut World, session: SessionId, query: &Query) {
    world.stable = false;
    world.tell(2, Indication::Received(query_from(1, session, query, &forge::sender())));
    world.settle();
}

/// A Query that reports about an epoch.
fn report(world: &World, spi: u32) -> Query {
    let context = Some(VolumeContext { spi, highest: 20, permission: 1 });
    Query { requested: None, sent: Some(Volume(MB)), context, ..query(number(world)) }
}

fn over_budget(world: &mut World) {
    let event = Event::OverBudget { flow: flow(), spi: spi(world) };
    world.receiver.handle_datapath(event, world.now);
    world.settle();
}

fn second_holder(world: &mut World) {
    let event = Event::SecondHolder { flow: flow(), spi: spi(world) };
    world.receiver.handle_datapath(event, world.now);
    world.settle();
}

fn reactions(world: &World) -> Vec<Reaction> {
    let of_event = |event: &&ReportEvent| match event {
        ReportEvent::Attacked { reaction, .. } => Some(*reaction),
        _ => None,
    };
    world.events(2).iter().filter_map(of_event).collect()
}

#[test]
fn a_bad_message_changes_nothing() {
    // FR-00.
    let mut world = grace();
    let session = world.session();
    let bad = forge::spoiled(query_from(1, session, &query(number(&world)), &forge::sender()));
    world.stable = false;
    world.tell(2, Indication::Received(bad));
    world.settle();
    world.took(2, &["FR-00"]);
    assert_eq!(world.receiver_state(), "Grace");
}

#[test]
fn a_second_holder_of_the_key_is_reacted_to_at_once() {
    // FR-21, FR-40 in Grace and in Compare Sv.
    for mut world in [grace(), counting(Reactions::default())] {
        let old = spi(&world);
        second_holder(&mut world);
        world.took(2, &["FR-21", "FR-40"]);
        assert!(matches!(reactions(&world)[..], [Reaction::Escalated { .. }]), "{:?}", reactions(&world));
        assert_ne!(spi(&world), old);
        assert_eq!(world.receiver_state(), "Permitted");
    }
}

#[test]
fn more_than_the_allowed_volume_is_reacted_to_at_once() {
    // FR-24 in Grace; FR-25 in Grace and in Compare Sv.
    let mut world = grace();
    over_budget(&mut world);
    world.took(2, &["FR-24"]);
    assert_eq!(world.receiver_state(), "Idle");
    let escalate = Reactions { on_overrun: Overrun::Escalate, ..Reactions::default() };
    for mut world in [waiting(escalate, generous()), counting(escalate)] {
        over_budget(&mut world);
        world.took(2, &["FR-25", "FR-40"]);
        assert_eq!(world.receiver_state(), "Permitted");
    }
}

#[test]
fn packets_that_nobody_sent_are_found_when_the_counter_is_read_again() {
    // P-183.
    // FR-31 at the end of Grace: under the numbers that were missing far more has come than was sent (E1).
    let mut world = grace();
    let (old, now) = (spi(&world), world.now);
    let injected = (1..=20).filter(|number| world.datapaths[2].verify(flow(), old, *number, 10 * PACKET, now)).count();
    assert!(injected >= 5, "{injected}");
    world.run(seconds(2));
    world.took(2, &["FR-31", "FR-40"]);
    let evidence = |event: &ReportEvent| matches!(event, ReportEvent::Evidence(Attack::Injection { .. }));
    assert!(world.saw(2, evidence));
    assert_ne!(spi(&world), old);
}

#[test]
fn newer_queries_are_taken_as_ever() {
    // FR-37: a refresh, one about an unknown epoch, whose predecessor drains, and a release.
    let mut world = grace();
    let (session, live) = (world.session(), spi(&world));
    let refresh = report(&world, live);
    ask(&mut world, session, &refresh);
    world.took(2, &["FR-37"]);
    let mut world = grace();
    let unknown = report(&world, 0x7777);
    let session = world.session();
    ask(&mut world, session, &unknown);
    assert_eq!(world.receiver_state(), "Permitted");
    assert_eq!(world.datapaths[2].table.len(), 2, "the old epoch drains");
    let mut world = grace();
    world.sender.release(flow(), world.now);
    world.run(seconds(1));
    assert!(world.is_clean(), "{:?}", world.states());
}

#[test]
fn a_sender_that_repeats_its_query_faster_than_the_grace_time_is_answered_when_that_of_the_first_is_over() {
    // FR-37, FR-35: with its first router started again, a sender repeats every second what that router did not hear the answer to (FS-34).
    let mut world = grace();
    let (session, live) = (world.session(), spi(&world));
    let compared = |event: &ReportEvent| matches!(event, ReportEvent::Compared { .. });
    let answered = world.events(2).iter().filter(|event| compared(event)).count();
    for _ in 0..3 {
        world.run(seconds(1) / 5 * 2);
        let repeated = report(&world, live);
        ask(&mut world, session, &repeated);
    }
    assert_eq!(world.receiver_state(), "Permitted", "{}", world.story());
    world.took(2, &["FR-37", "FR-35"]);
    assert_eq!(world.events(2).iter().filter(|event| compared(event)).count(), answered + 1, "{}", world.story());
}

#[test]
fn a_query_by_another_peer_in_the_grace_time_is_answered_at_once() {
    // FR-37, FR-39: the nodes on the new path wait for it.
    let mut world = grace();
    let (session, live) = (world.session(), spi(&world));
    let moved = report(&world, live);
    world.stable = false;
    world.tell(2, Indication::Received(query_from(7, session, &moved, &forge::sender())));
    world.settle();
    world.took(2, &["FR-37", "FR-39"]);
    assert_eq!(world.receiver_state(), "Permitted");
}

#[test]
fn the_drain_time_of_an_older_epoch_ends_as_ever() {
    // FR-37 with to_Drain: another epoch began shortly before.
    let mut world = granted(Reactions::default(), generous());
    let session = world.session();
    let unknown = report(&world, 0x7777);
    ask(&mut world, session, &unknown);
    let live = spi(&world);
    let missing = Query { number: unknown.number + 1, ..report(&world, live) };
    ask(&mut world, session, &missing);
    assert_eq!((world.receiver_state().as_str(), world.datapaths[2].table.len()), ("Grace", 2));
    // The grace time is over before the drain time; the packet side does not say what it counts.
    world.datapaths[2].stalled = true;
    world.run(seconds(3));
    assert_eq!((world.receiver_state().as_str(), world.datapaths[2].table.len()), ("Grace", 1));
}

#[test]
fn a_change_of_terms_goes_into_the_answer() {
    // FR-37 with tg_Change.
    let mut world = grace();
    assert!(world.receiver.change(flow(), Terms { volume: Volume(20 * MB), ..generous() }, world.now));
    world.run(seconds(2));
    world.took(2, &["FR-37", "FR-35"]);
    assert!(world.permissions().iter().all(|table| table[0].2 == 20 * MB), "{:?}", world.permissions());
}

#[test]
fn clocks_end_the_session_as_ever() {
    // FR-37 with to_Ttl and to_Life, the packet side being silent.
    let mut world = waiting(Reactions::default(), Terms { ttl: seconds(12), ..generous() });
    world.datapaths[2].stalled = true;
    world.loses = Box::new(|transit| transit.from == SENDER);
    world.run(seconds(8));
    assert!(world.saw(2, |event| *event == ReportEvent::Expired { clock: "time limit" }), "{}", world.story());
    assert!(world.datapaths[2].table.is_empty());
    let mut world = grace();
    world.datapaths[2].stalled = true;
    world.loses = Box::new(|transit| transit.from == SENDER);
    world.run(L + seconds(1));
    assert!(world.saw(2, |event| *event == ReportEvent::Expired { clock: "no refresh" }), "{}", world.story());
    assert!(world.datapaths[2].table.is_empty());
}

#[test]
fn ends_from_outside_end_the_session_as_ever() {
    // FR-60, FR-70.
    let mut world = grace();
    world.receiver.shutdown(world.now);
    world.run(seconds(1));
    world.took(2, &["FR-60"]);
    assert!(world.permissions().iter().all(Vec::is_empty));
    let mut world = grace();
    world.datapaths[2].stalled = true;
    world.run(seconds(2));
    let Some(Event::Applied { token, .. } | Event::Compared { token, .. }) = world.datapaths[2].waiting.pop_back() else {
        panic!("{:?}", world.datapaths[2].waiting)
    };
    world.receiver.handle_datapath(Event::Failed { token, reason: "worker gone".to_owned() }, world.now);
    world.settle();
    world.took(2, &["FR-70"]);
    assert!(world.datapaths[2].table.is_empty());
}

#[test]
fn a_newer_session_takes_over_as_ever() {
    // FR-50.
    let mut world = grace();
    let old = spi(&world);
    let asked = Query { requested: Some(Volume(MB)), ..query(number(&world)) };
    ask(&mut world, NEWER, &asked);
    world.took(2, &["FR-50"]);
    assert_eq!(world.receiver.sessions().len(), 1);
    // what is under way still passes, for a while.
    assert!(world.datapaths[2].table[&(flow(), old)].draining);
    world.run(seconds(3));
    assert!(!world.datapaths[2].table.contains_key(&(flow(), old)));
}

#[test]
fn an_order_for_another_epoch_is_carried_out_with_the_answer() {
    // FR-37, FR-18.
    let mut world = grace();
    let old = spi(&world);
    assert!(world.receiver.rekey(flow(), Strength::Same, world.now));
    world.settle();
    assert_eq!((world.receiver_state(), spi(&world)), ("Grace".to_owned(), old));
    run_to(&mut world, "Permitted");
    world.took(2, &["FR-35", "FR-18"]);
    assert_ne!(spi(&world), old);
}

#[test]
fn missing_packets_lead_to_another_path_though_the_operator_chose_to_revoke_at_attacks() {
    // FR-42 after the second period, not FR-44: a node on the way that drops must not be able to end the flow.
    let mut world = waiting(Reactions { ladder: Ladder::Revoke, ..Reactions::default() }, generous());
    world.run(seconds(2));
    lose(&mut world, MB);
    run_to(&mut world, "Grace");
    world.run(seconds(2));
    world.took(2, &["FR-36", "FR-42"]);
    assert!(world.permissions().iter().all(|permissions| permissions.len() == 1));
}

#[test]
fn an_advice_to_change_the_path_that_answers_nothing_is_a_refresh_at_the_sender_all_the_same() {
    // FS-26 without an Echo that fits.
    let mut world = granted(Reactions::default(), generous());
    world.stable = false;
    let session = world.session();
    let volume = Volume(11 * MB);
    let advice = Permission { defense: Some(Defense::ChangePath), sa: None, allowed: volume, echo: Some(1), ..permission(number(&world)) };
    world.tell(SENDER, Indication::Received(permission_from(1, session, &advice, &forge::receiver())));
    world.settle();
    world.took(SENDER, &["FS-26"]);
    assert_eq!(world.permissions()[SENDER][0].2, 11 * MB);
}
