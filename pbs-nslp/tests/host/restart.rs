//! One of the hosts forgets everything.

use pbs_nslp::host::Part;

use pbs_nslp::receiver::{GrantPolicy, GrantRule, Terms};
use pbs_nslp::selector::Selector;
use pbs_nslp::wire::Volume;

use crate::world::{ASKING, L, START_UNIX, T, TTL, VOLUME, World, forward, granting_address, host, reverse, seconds};

#[test]
fn after_the_asking_host_restarts_its_next_packet_brings_both_back() {
    let mut world = World::connected(1);
    world.restart(ASKING);
    assert_eq!(world.permitted(), [(0, 0), (1, 1)]);
    let before = world.delivered.len();
    world.send(forward(), 1400);
    world.run(seconds(1));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
    world.took(1, Part::Receiver, &["FR-50"]);
    world.took(1, Part::Sender, &["FS-33", "FS-24"]);
    world.send(reverse(), 60);
    assert_eq!(world.delivered.len(), before + 2, "within a second, not within T");
}

#[test]
fn after_the_asking_host_restarts_and_stays_silent_both_expire() {
    let mut world = World::connected(1);
    world.restart(ASKING);
    world.run(L + T);
    world.took(0, Part::Receiver, &["FR-03"]);
    world.took(1, Part::Receiver, &["FR-15"]);
    assert_eq!(world.permitted(), [(0, 0), (0, 0)]);
    world.run(seconds(100));
    assert!(world.is_clean(), "{}", world.story());
}

#[test]
fn after_the_granting_host_restarts_the_next_refresh_brings_both_back() {
    let mut world = World::connected(1);
    let end = world.end();
    world.restart(end);
    assert_eq!(world.permitted(), [(1, 1), (0, 0)]);
    world.run(T + seconds(1));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
    world.took(0, Part::Sender, &["FS-24"]);
    world.took(0, Part::Receiver, &["FR-50"]);
    let before = world.delivered.len();
    world.send(forward(), 1400);
    world.send(reverse(), 60);
    assert_eq!(world.delivered.len(), before + 2);
}

#[test]
fn after_the_asking_host_restarts_in_mid_handshake_the_connection_comes_up() {
    let mut world = World::new(1);
    world.send(forward(), 60);
    world.run(crate::world::LATENCY * 5);
    world.restart(ASKING);
    world.run(seconds(2));
    world.send(forward(), 60);
    world.run(seconds(20));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
}

#[test]
fn a_flow_that_is_replaced_only_after_its_old_permission_has_ended_keeps_its_reverse() {
    // The policy has no room for the old permission and the new one at once.
    let mut world = World::new(1);
    let terms = Terms { volume: Volume(VOLUME), limit: Volume(VOLUME), ttl: TTL, refresh: T };
    let policy = GrantPolicy { rules: vec![GrantRule { selector: Selector::default(), terms, signed: false, mac: None }], ask: false };
    world.hosts[1] = host(granting_address(), Vec::new(), policy, 9, START_UNIX, world.now);
    world.send(forward(), 60);
    world.run(seconds(1));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)]);
    let session = world.queries(reverse())[0].received.session;
    world.restart(ASKING);
    world.send(forward(), 60);
    world.run(seconds(1));
    assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
    let releases = world.queries(reverse()).iter().filter(|transit| transit.query().unwrap().is_release()).count();
    assert_eq!(releases, 0);
    assert_eq!(world.queries(reverse()).last().unwrap().received.session, session);
}
