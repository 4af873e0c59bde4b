//! Whatever is lost, delayed, restarted or ended: at most one reverse for a flow, never one without its cause, and nothing left.

use core::time::Duration;

use proptest::prelude::*;

use crate::world::{ASKING, L, T, TTL, World, forward, reverse, seconds};

#[derive(Debug, Clone)]
enum Step {
    Send {
        back: bool,
        length: u64,
    },
    Wait(u64),
    Release,
    Revoke,
    ReleaseReverse,
    RevokeReverse,
    WantReverse,
    Restart {
        asking: bool,
    },
    /// The message in the way at this place is delivered once more.
    Again(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 1..200_000_u64).prop_map(|(back, length)| Step::Send { back, length }),
        6 => (0..8000_u64).prop_map(Step::Wait),
        1 => Just(Step::Release),
        1 => Just(Step::Revoke),
        1 => Just(Step::ReleaseReverse),
        1 => Just(Step::RevokeReverse),
        1 => Just(Step::WantReverse),
        1 => any::<bool>().prop_map(|asking| Step::Restart { asking }),
        2 => any::<prop::sample::Index>().prop_map(Step::Again),
    ]
}

/// Loses about one message in `one_in`, delays the others by up to 2 s, so that they overtake each other.
fn rough(mut state: u64, one_in: u64) -> impl FnMut(&crate::world::Transit) -> Option<Duration> {
    move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = state >> 33;
        (!drawn.is_multiple_of(one_in)).then(|| Duration::from_millis(drawn % 7 * (drawn % 300)))
    }
}

/// The invariants are checked after every event by `World::settle`.
fn live_through(seed: u64, one_in: u64, steps: Vec<Step>) -> World {
    let mut world = World::new(1);
    world.travel = Box::new(rough(seed, one_in));
    for step in steps {
        let now = world.now;
        match step {
            Step::Send { back, length } => drop(world.send(if back { reverse() } else { forward() }, length)),
            Step::Wait(millis) => world.run(Duration::from_millis(millis)),
            Step::Release => world.asking().release(forward(), now),
            Step::Revoke => drop(world.granting().revoke(forward(), now)),
            Step::ReleaseReverse => world.granting().release(reverse(), now),
            Step::RevokeReverse => drop(world.asking().revoke(reverse(), now)),
            Step::WantReverse => world.want_reverse(9000),
            Step::Restart { asking } => {
                let place = if asking { ASKING } else { world.end() };
                world.restart(place);
            }
            Step::Again(index) if !world.recorded.is_empty() => {
                let again = index.get(&world.recorded).clone();
                world.deliver(again);
            }
            Step::Again(_) => {}
        }
        world.settle();
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn a_reverse_is_single_has_its_cause_and_ends_with_it(seed in any::<u64>(), one_in in 2..20_u64, steps in prop::collection::vec(step(), 1..40)) {
        let mut world = live_through(seed, one_in, steps);
        // From here on everything works, nobody sends, and the flow is given back.
        world.travel = Box::new(|_| Some(Duration::from_millis(10)));
        world.run(seconds(30));
        let now = world.now;
        world.asking().release(forward(), now);
        world.granting().release(reverse(), now);
        world.run(TTL + L + seconds(100));
        prop_assert!(world.is_clean(), "{:#?}\n{}", world.permitted(), world.story());
    }

    #[test]
    fn a_connection_that_is_used_comes_back_whatever_was(seed in any::<u64>(), steps in prop::collection::vec(step(), 1..20)) {
        let mut world = live_through(seed, 5, steps);
        world.travel = Box::new(|_| Some(Duration::from_millis(10)));
        // A revocation holds for ten minutes.
        world.run(seconds(700));
        for _ in 0..70 {
            world.send(forward(), 1000);
            world.run(seconds(1));
        }
        world.run(T);
        let given_up = world.permitted() == [(1, 0), (0, 1)];
        prop_assert!(world.permitted() == [(1, 1), (1, 1)] || given_up, "{:?}\n{}", world.permitted(), world.story());
    }
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let steps = || {
        vec![
            Step::Send { back: false, length: 60 },
            Step::Wait(3000),
            Step::Send { back: true, length: 60 },
            Step::Restart { asking: true },
            Step::Wait(9000),
            Step::Send { back: false, length: 60 },
            Step::Wait(30_000),
        ]
    };
    assert_eq!(live_through(42, 6, steps()).story(), live_through(42, 6, steps()).story());
}
