//! What is missing at the end of an epoch is judged like what is missing in the middle of one (T2, X-38, FR-45, FR-46): whoever drops
//! packets gains nothing when the receiver takes up another key.

use core::time::Duration;
use std::sync::Arc;

use pbs_nslp::credentials::Signer;
use pbs_nslp::receiver::{Receiver, Strength, Terms};
use pbs_nslp::report::{Attack, Reaction, ReportEvent};
use pbs_nslp::wire::Volume;

use crate::credentials::{ToyAuthority, ToySigner};
use crate::datapath::Fate;
use crate::world::{LATENCY, SENDER, START_UNIX, T, TTL, World, entropy, flow, receiver_address, receiver_config, seconds};

const MB: u64 = 1_000_000;
const PACKET: u64 = 50_000;

fn granted(drain: Duration) -> World {
    let mut world = World::new(1);
    let mut config = receiver_config();
    config.policy.rules[0].terms = Terms { volume: Volume(40 * MB), limit: Volume(400 * MB), ttl: TTL, refresh: T };
    config.drain = drain;
    let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, Arc::new(ToyAuthority::default()), entropy(9), START_UNIX, world.now);
    world.sender.want(flow(), Volume(40 * MB), world.now).unwrap();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3], "{}", world.story());
    world
}

/// The sender sends, and what it sends arrives or not.
fn send(world: &mut World, bytes: u64, arrives: bool) {
    for _ in 0..bytes / PACKET {
        let Fate::Passed { spi, number } = world.datapaths[SENDER].send(flow(), PACKET, world.now) else { panic!("held") };
        if arrives {
            world.carry(spi, number, PACKET);
        }
    }
    world.settle();
}

fn rekey(world: &mut World) {
    assert!(world.receiver.rekey(flow(), Strength::Same, world.now));
    world.run(LATENCY * 4);
}

fn verdicts(world: &World) -> Vec<u64> {
    let verdict = |event: &ReportEvent| if let ReportEvent::Evidence(Attack::Drop { deficit, .. }) = event { Some(*deficit) } else { None };
    world.events(2).into_iter().filter_map(verdict).collect()
}

fn suspicions(world: &World) -> u64 {
    let rules = &world.receiver.counters().rules;
    ["FR-35", "FR-45"].iter().filter_map(|rule| rules.get(rule)).sum()
}

#[test]
fn what_is_missing_at_the_end_of_an_epoch_is_the_second_period_if_some_was_in_the_one_before() {
    // FR-46, FR-36.
    let mut world = granted(seconds(2));
    send(&mut world, MB, false);
    world.run(T + seconds(2));
    assert_eq!((suspicions(&world), verdicts(&world)), (1, vec![]));
    send(&mut world, MB, false);
    rekey(&mut world);
    send(&mut world, MB, true);
    world.run(T + seconds(3));
    assert_eq!(verdicts(&world), [MB], "{}", world.story());
    assert!(world.saw(2, |event| matches!(event, ReportEvent::Attacked { reaction: Reaction::OtherPathAsked { times: 1 } })));
    world.run(4 * T);
    assert_eq!(verdicts(&world), [MB], "once");
}

#[test]
fn what_is_missing_at_the_end_of_an_epoch_is_the_first_period_for_the_next_epoch() {
    // FR-45.
    let mut world = granted(seconds(2));
    send(&mut world, MB, false);
    rekey(&mut world);
    send(&mut world, MB, false);
    world.run(2 * T);
    assert_eq!(suspicions(&world), 1, "of the epoch before: {}", world.story());
    world.run(T + seconds(2));
    assert_eq!(verdicts(&world), [MB], "{}", world.story());
}

#[test]
fn an_end_that_lacks_nothing_and_packets_in_flight_at_the_switch_are_no_suspicion() {
    let mut world = granted(seconds(2));
    for _ in 0..4 {
        send(&mut world, MB, true);
        rekey(&mut world);
        send(&mut world, MB, true);
        world.run(2 * T);
    }
    // Sent just before the switch, arrived just before the end of the drain time.
    let mut late = Vec::new();
    for _ in 0..20 {
        let Fate::Passed { spi, number } = world.datapaths[SENDER].send(flow(), PACKET, world.now) else { panic!("held") };
        late.push((spi, number));
    }
    rekey(&mut world);
    world.run(seconds(1));
    for (spi, number) in late {
        assert_eq!(world.carry(spi, number, PACKET), 2);
    }
    world.run(3 * T);
    assert_eq!((suspicions(&world), verdicts(&world)), (0, vec![]), "{}", world.story());
}

#[test]
fn an_epoch_may_end_while_the_next_one_is_compared_or_waits_for_packets_under_way() {
    // FR-45 in Compare Sv and in Grace: with the drain time at every moment of the comparison, the suspicion is not lost.
    for tenths in 40..110 {
        let mut world = granted(Duration::from_millis(tenths * 100));
        send(&mut world, MB, false);
        rekey(&mut world);
        send(&mut world, MB, false);
        world.run(3 * T);
        let before = (suspicions(&world), verdicts(&world).len());
        send(&mut world, MB, false);
        world.run(3 * T);
        assert!(!verdicts(&world).is_empty(), "drain {tenths}00 ms, {before:?}: {}", world.story());
    }
    // The packet side is slow: the last count of the old epoch comes while the next Query waits for that of the new one.
    let mut world = granted(seconds(6));
    send(&mut world, MB, false);
    rekey(&mut world);
    world.run(seconds(5));
    world.datapaths[2].stalled = true;
    world.run(seconds(4));
    assert_eq!(world.receiver_state(), "Compare Sv");
    world.datapaths[2].resume();
    world.settle();
    assert_eq!(suspicions(&world), 1, "{}", world.story());
}
