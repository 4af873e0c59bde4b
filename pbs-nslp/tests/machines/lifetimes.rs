//! How long GIST is told to keep the way of a session's messages: while somebody waits or is permitted, and no longer (X-114,
//! X-82, G-113).

use core::time::Duration;

use gist::api::Indication;
use gist::wire::SessionId;
use pbs_nslp::receiver::{GrantPolicy, Terms};
use pbs_nslp::wire::Volume;

use crate::forge::{self, query, query_from};
use crate::world::{L, LATENCY, SENDER, World, flow, flow_to, seconds, terms};

/// How long a router waits for a Permission.
const WAIT: Duration = Duration::from_secs(30);

/// What GIST was told last at a node about the only session there has been.
/// How long a router keeps the way of a session that has ended.
const LINGER: Duration = Duration::from_secs(1);

fn wanted(world: &World, place: usize) -> Option<Duration> {
    let mut of_place = world.lifetimes.iter().filter(|((at, _), _)| *at == place).map(|(_, lifetime)| *lifetime);
    let lifetime = of_place.next();
    assert_eq!(of_place.next(), None, "one session");
    lifetime
}

fn unanswered(routers: usize) -> World {
    let mut world = World::new(routers);
    world.down.insert(routers + 1);
    world.want();
    world.run(LATENCY * 5);
    world
}

#[test]
fn the_way_is_wanted_while_a_permission_lives_and_not_when_it_is_revoked() {
    let mut world = World::granted(1);
    assert_eq!((wanted(&world, SENDER), wanted(&world, 1)), (Some(L), Some(L)));
    world.receiver.revoke(flow(), world.now);
    world.run(seconds(3));
    assert_eq!((wanted(&world, SENDER), wanted(&world, 1)), (Some(Duration::ZERO), Some(LINGER)));
}

#[test]
fn the_way_of_a_denied_question_is_given_up_at_once() {
    // FN-07, FS-06.
    let mut world = World::new(2);
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: false });
    world.want();
    world.run(LATENCY * 8);
    for router in [1, 2] {
        world.took(router, &["FN-07"]);
        assert_eq!(wanted(&world, router), Some(LINGER), "router {router}");
    }
    world.took(SENDER, &["FS-06"]);
    assert_eq!(wanted(&world, SENDER), Some(Duration::ZERO));
}

#[test]
fn the_way_of_an_unanswered_question_is_wanted_for_as_long_as_the_answer_is_waited_for() {
    // FN-01, FN-09, FS-10.
    let mut world = unanswered(1);
    assert_eq!(wanted(&world, 1), Some(WAIT));
    world.run(seconds(50));
    world.took(1, &["FN-09"]);
    world.took(SENDER, &["FS-10"]);
    assert_eq!((wanted(&world, SENDER), wanted(&world, 1)), (Some(Duration::ZERO), Some(LINGER)));
}

#[test]
fn the_way_of_a_question_that_a_newer_one_replaces_is_given_up() {
    // FN-71.
    let mut world = unanswered(1);
    let old = world.session();
    world.stable = false;
    let number = u32::try_from(world.unix()).unwrap() + 5;
    let newer = SessionId([7; 16]);
    world.tell(1, Indication::Received(query_from(SENDER, newer, &query(number), &forge::sender())));
    world.settle();
    world.took(1, &["FN-71"]);
    assert_eq!(world.lifetimes.get(&(1, old)), Some(&LINGER));
    assert_eq!(world.lifetimes.get(&(1, newer)), Some(&WAIT));
}

#[test]
fn the_way_of_a_release_is_given_up_when_it_is_answered_or_given_up() {
    // FS-16, FS-50 and FS-53, with nothing ever accepted.
    for answered in [true, false] {
        let mut world = World::new(1);
        if !answered {
            world.down.insert(1);
        }
        world.want();
        world.sender.release(flow(), world.now);
        world.settle();
        assert_ne!(wanted(&world, SENDER), Some(Duration::ZERO), "the release has yet to go");
        world.run(seconds(40));
        assert_eq!(world.sender_state(), "Idle");
        assert_eq!(wanted(&world, SENDER), Some(Duration::ZERO));
    }
}

#[test]
fn a_longer_period_in_a_refresh_makes_the_way_last_longer_too() {
    // Otherwise GIST gives up the way before the next Query.
    let mut world = World::granted(1);
    let longer = Terms { refresh: seconds(100), ..terms() };
    assert!(world.receiver.change(flow(), longer, world.now));
    world.run(LATENCY * 5);
    world.took(1, &["FN-22"]);
    assert_eq!((wanted(&world, SENDER), wanted(&world, 1)), (Some(seconds(350)), Some(seconds(350))));
}

#[test]
fn a_wish_that_never_left_gives_nothing_up() {
    let mut world = World::new(1);
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: false });
    world.sender.want(flow_to(1), Volume(1), world.now).unwrap();
    world.settle();
    assert!(world.lifetimes.iter().all(|((place, _), _)| *place != SENDER), "{:?}", world.lifetimes);
}
