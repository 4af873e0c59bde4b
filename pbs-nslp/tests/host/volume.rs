//! How much the reverse flow gets, and how it gets more.

use core::time::Duration;

use pbs_nslp::host::Part;
use pbs_nslp::receiver::{Change, Terms};
use pbs_nslp::wire::Volume;

use crate::packets::Fate;
use crate::world::{LATENCY, LIMIT, SHARE, T, TTL, VOLUME, World, forward, reverse, seconds};

/// The granting host sends much more than it was first allowed, as a server does.
#[test]
fn the_reverse_is_extended_as_often_as_it_is_used_up() {
    let mut world = World::connected(1);
    let sent = 10 * SHARE;
    for _ in 0..sent / 50_000 {
        world.send(reverse(), 50_000);
        world.run(LATENCY * 5);
    }
    assert_eq!(world.got(reverse()), 1 + sent / 50_000, "X-36: everything arrives");
    world.took(1, Part::Sender, &["FS-33", "FS-22"]);
    world.took(0, Part::Receiver, &["FR-11", "FR-32"]);
    assert_eq!(world.queries(reverse())[0].received.session, world.queries(reverse()).last().unwrap().received.session);
}

#[test]
fn no_extension_goes_further_than_has_been_counted_once_more() {
    let mut world = World::connected(0);
    for _ in 0..60 {
        let now = world.now;
        world.granting().want(reverse(), Volume(u64::MAX / 2), now).unwrap();
        world.run(seconds(1));
        let counted = world.octets(reverse());
        assert_eq!(world.allowed(reverse()), Some(counted + counted.max(4 * SHARE)), "whatever is asked for");
        for _ in 0..10 {
            world.send(reverse(), 50_000);
        }
    }
    assert!(world.octets(reverse()) > 8 * SHARE);
}

#[test]
fn more_is_asked_for_at_three_quarters_so_that_nothing_waits() {
    let mut world = World::connected(1);
    let before = world.queries(reverse()).len();
    for _ in 0..SHARE * 3 / 4 / 10_000 {
        assert!(matches!(world.send(reverse(), 10_000), Fate::Sent { .. }));
    }
    assert_eq!(world.queries(reverse()).len(), before);
    assert!(matches!(world.send(reverse(), 10_000), Fate::Sent { .. }));
    assert_eq!(world.queries(reverse()).len(), before + 1, "FS-33: at once, not with the next refresh");
    world.run(LATENCY * 4);
    assert!(world.allowed(reverse()) > Some(SHARE), "FR-32");
    for _ in 0..SHARE / 10_000 {
        assert!(matches!(world.send(reverse(), 10_000), Fate::Sent { .. }));
    }
}

#[test]
fn a_fast_flow_asks_for_ever_more_at_a_time_and_its_numbers_stay_near_the_clock() {
    // a router that restarts takes no Query from more than 30 s in the future.
    let mut world = World::connected(1);
    let sent = 400 * SHARE;
    for _ in 0..sent / 50_000 {
        world.send(reverse(), 50_000);
        world.run(Duration::from_millis(1));
    }
    assert!(world.octets(reverse()) > sent * 9 / 10);
    let last = world.queries(reverse()).last().unwrap().query().unwrap().number;
    assert!(u64::from(last) < world.unix() + 10, "{} s ahead", u64::from(last) - world.unix());
}

#[test]
fn the_share_grows_with_the_flow() {
    let mut world = World::connected(1);
    let now = world.now;
    let terms = Terms { volume: Volume(LIMIT), limit: Volume(LIMIT), ttl: TTL, refresh: T };
    assert!(world.granting().change(forward(), terms, now));
    world.run(seconds(1));
    assert_eq!(world.allowed(forward()), Some(LIMIT), "FR-17");
    for _ in 0..SHARE / 50_000 {
        world.send(reverse(), 50_000);
    }
    world.run(T + seconds(1));
    assert!(world.allowed(reverse()) >= Some(LIMIT / 8), "an eighth of the new volume was asked for and given");
}

#[test]
fn the_reverse_lives_as_long_as_the_flow_and_is_refreshed_as_often() {
    let world = World::connected(1);
    let [asking, _] = &world.hosts;
    let (own, given) = (asking.sender().sessions(), asking.receiver().sessions());
    let (own, given) = (own[0].permission.clone().unwrap(), given[0].permission.clone().unwrap());
    assert_eq!(given.refresh, own.refresh);
    assert!(given.expires_at.unwrap() >= own.expires_at.unwrap());
    assert!(given.expires_at.unwrap().saturating_duration_since(own.expires_at.unwrap()) < seconds(1));
    assert_eq!(own.allowed, Volume(VOLUME));
}

#[test]
fn the_flow_itself_gets_no_more_than_the_policy_says() {
    let mut world = World::connected(1);
    for _ in 0..LIMIT / 500_000 * 2 {
        world.send(forward(), 500_000);
        world.run(LATENCY * 5);
        assert!(world.allowed(forward()).unwrap_or_default() <= LIMIT, "having a reverse is no reason for more");
    }
    assert!(world.octets(forward()) > LIMIT * 9 / 10);
    world.took(0, Part::Sender, &["FS-42"]);
}

/// FR-17: what a person says about the reverse of a connection is not undone by what follows from the other direction.
#[test]
fn a_change_by_order_of_the_reverse_flow_stays_whatever_happens_to_the_flow() {
    let mut world = World::connected(0);
    let change = Change { volume: Some(Volume(SHARE / 2)), ..Change::default() };
    let now = world.now;
    assert!(world.asking().amend(reverse(), change, now));
    world.run(seconds(1));
    assert_eq!(world.allowed(reverse()), Some(SHARE / 2));
    for _ in 0..3 {
        // The flow is refreshed, which has its reverse looked at, and the reverse asks for more.
        world.run(T);
        let now = world.now;
        world.granting().want(reverse(), Volume(10 * SHARE), now).unwrap();
        world.run(seconds(1));
        assert_eq!(world.allowed(reverse()), Some(SHARE / 2));
    }
    let change = Change { volume: Some(Volume(SHARE)), limit: Some(Volume(3 * SHARE)), ..Change::default() };
    let now = world.now;
    assert!(world.asking().amend(reverse(), change, now));
    world.run(seconds(1));
    let now = world.now;
    world.granting().want(reverse(), Volume(10 * SHARE), now).unwrap();
    world.run(seconds(1));
    assert_eq!(world.allowed(reverse()), Some(3 * SHARE), "up to its new limit");
}
