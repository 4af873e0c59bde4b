//! One seed, one story; and a core is a value.

use core::time::Duration;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use gist::api::NetworkEvent;
use pbs_nslp::receiver::Terms;
use pbs_nslp::wire::{MessageKind, Volume};

use crate::world::{SENDER, Transit, World, flow, seconds, terms};

fn story(seed: u8) -> Vec<String> {
    let mut world = World::with_seed(2, seed);
    let mut count = 0_u32;
    world.loses = Box::new(move |_: &Transit| {
        count += 1;
        count.is_multiple_of(7)
    });
    for step in 0..60 {
        world.packet(300);
        world.run(seconds(1));
        if step == 40 {
            world.receiver.revoke(flow(), world.now);
        }
    }
    world.trace
}

#[test]
fn the_same_seed_gives_the_same_story() {
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(5), "another seed gives other keys and other times");
}

#[test]
fn a_core_is_a_value_that_can_be_copied_compared_and_hashed() {
    fn hash(value: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    }
    let mut world = World::granted(1);
    let (sender, router, receiver) = (world.sender.clone(), world.routers[0].clone(), world.receiver.clone());
    assert_eq!((hash(&sender), hash(&router)), (hash(&world.sender), hash(&world.routers[0])));
    assert!(sender == world.sender && router == world.routers[0] && receiver == world.receiver);
    world.run(seconds(6));
    assert!(sender != world.sender && router != world.routers[0] && receiver != world.receiver);
    assert_ne!(hash(&receiver), hash(&world.receiver));
    let shown = format!("{:?}{:?}{:?}", world.sender, world.routers, world.receiver);
    let permission = world.sent(2, MessageKind::Permission)[0].permission().unwrap();
    let Some(pbs_nslp::wire::Defense::SymmetricKey { key, .. }) = permission.defense else {
        panic!("a symmetric key");
    };
    let decimal = format!("{:?}", &key.expose()[..8]);
    assert!(!shown.contains(decimal.trim_matches(['[', ']'])), "X-83: keys are not printed");
}

#[test]
fn losing_a_third_of_all_messages_only_slows_things_down() {
    // TMP-02 under loss; every invariant is checked at every step.
    let mut world = World::new(2);
    let mut count = 0_u32;
    world.loses = Box::new(move |_: &Transit| {
        count += 1;
        (count.wrapping_mul(2_654_435_761) >> 16).is_multiple_of(3)
    });
    let mut delivered = 0;
    for _ in 0..300 {
        delivered += u64::from(world.packet(10) == Some(3));
        world.run(seconds(1));
    }
    assert!(delivered > 100, "{delivered} of 300, {:?}", world.rules(SENDER));
}

/// Small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn whatever_happens_invariants_hold_and_data_flows_again_afterwards() {
    // INV-02, INV-08: checked after every step.
    // TMP-13, fsm.md scenario 11: loss, restarts, wishes and changes at any time, then quiet.
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let mut world = World::with_seed(2, u8::try_from(seed).unwrap());
        let mut loss = Dice(seed + 1000);
        world.loses = Box::new(move |_: &Transit| loss.roll(4) == 0);
        for _ in 0..150 {
            disturb(&mut world, &mut dice);
            world.run(Duration::from_millis(dice.roll(1500)));
        }
        world.loses = Box::new(|_: &Transit| false);
        world.down.clear();
        assert!(world.receiver.expect(flow(), ample()));
        let mut last = None;
        for _ in 0..200 {
            last = world.packet(10);
            world.run(seconds(1));
        }
        assert_eq!(last, Some(3), "seed {seed}: {:?}\n{}", world.states(), world.trace.join("\n"));
    }
}

fn ample() -> Terms {
    Terms { volume: Volume(100_000), limit: Volume(1_000_000), ..terms() }
}

fn disturb(world: &mut World, dice: &mut Dice) {
    match dice.roll(12) {
        0 => world.want(),
        1 => world.sender.release(flow(), world.now),
        2 => drop(world.receiver.revoke(flow(), world.now)),
        3 => drop(world.receiver.expect(flow(), ample())),
        4 => {
            let volume = Volume(dice.roll(20_000) + 1);
            world.receiver.change(flow(), Terms { volume, ..terms() }, world.now);
        }
        5 => world.restart_router(1 + usize::try_from(dice.roll(2)).unwrap()),
        6 => drop(world.down.insert(1 + usize::try_from(dice.roll(3)).unwrap())),
        7 => world.down.clear(),
        8 => world.network(usize::try_from(dice.roll(3)).unwrap(), NetworkEvent::AssociationLost),
        _ => drop(world.packet(dice.roll(3000) + 40)),
    }
    world.settle();
}
