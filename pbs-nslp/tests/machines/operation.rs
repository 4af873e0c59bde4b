//! What every node keeps of a Permission, and what it is worth (P-098, P-099).

use core::time::Duration;

use gist::api::Indication;
use pbs_nslp::status::SessionStatus;
use pbs_nslp::wire::{MessageKind, Permission, Volume};

use crate::forge::{self, permission, permission_from};
use crate::world::{LATENCY, SENDER, T, TTL, VOLUME, World, flow, seconds};

/// The flow as the nodes see it, from the sender on.
fn seen(world: &World) -> Vec<SessionStatus> {
    let mut seen = vec![world.sender.sessions()[0].clone()];
    seen.extend(world.routers.iter().map(|router| router.sessions()[0].clone()));
    seen.push(world.receiver.sessions()[0].clone());
    seen
}

#[test]
fn every_node_keeps_flow_volume_time_limit_and_period_as_the_permission_says_them() {
    // P-098, P-056, P-057, P-058, P-079: as values in milliseconds from the receipt on.
    let world = World::granted(2);
    let said = world.sent(3, MessageKind::Permission)[0].permission().unwrap();
    for status in seen(&world) {
        let kept = status.permission.unwrap();
        assert_eq!((status.flow, kept.allowed, kept.refresh), (flow(), said.allowed, said.refresh));
        assert_eq!((kept.spi, kept.algorithm), (said.sa.unwrap().spi, "hmac-sha-256-128"));
        let left = kept.expires_at.unwrap().saturating_duration_since(world.now);
        assert!(left <= TTL && left + seconds(1) >= TTL, "{left:?}");
    }
    assert_eq!((said.allowed, said.ttl, said.refresh), (Volume(VOLUME), TTL, T));
}

#[test]
fn a_sender_sends_what_it_was_allowed_to_the_last_byte_and_no_node_counts_more() {
    // P-099, P-117, P-119, P-192, INV-02: and another packet waits, or goes no further than the first router.
    let mut world = World::granted(2);
    world.receiver.amend(flow(), pbs_nslp::receiver::Change { limit: Some(Volume(VOLUME)), ..Default::default() }, world.now);
    world.run(LATENCY * 6);
    for _ in 0..9 {
        assert_eq!(world.packet(1000), Some(3));
    }
    assert_eq!(world.packet(999), Some(3));
    assert_eq!(world.packet(1), Some(3), "the last byte");
    assert!(world.datapaths.iter().all(|datapath| datapath.table.values().all(|entry| entry.counted == VOLUME)));
    let spi = world.permissions()[SENDER][0].1;
    assert_eq!(world.carry(spi, 500, 1), SENDER, "not past the first router");
    assert_eq!(world.packet(1), None);
}

#[test]
fn a_time_limit_of_0_takes_a_permission_back_whatever_volume_stands_beside_it() {
    // P-065, X-25: at the router and at the sender.
    let mut world = World::granted(1);
    world.stable = false;
    world.run(seconds(3));
    let number = u32::try_from(world.unix()).unwrap();
    let removal = Permission { ttl: Duration::ZERO, ..permission(number) };
    world.tell(1, Indication::Received(permission_from(2, world.session(), &removal, &forge::receiver())));
    world.run(LATENCY * 2);
    world.took(1, &["FN-26"]);
    world.took(SENDER, &["FS-27"]);
    assert!(world.datapaths[1].table.is_empty() && world.datapaths[SENDER].table.is_empty());
}

#[test]
fn a_receiver_that_takes_everything_back_says_so_and_keeps_nothing() {
    // P-132, P-142: time limit, missing refresh; AV = 0 is announced at each.
    for missing_refresh in [false, true] {
        let mut world = World::granted(1);
        let before = world.sent(2, MessageKind::Permission).len();
        if missing_refresh {
            world.loses = Box::new(|transit| transit.kind() == MessageKind::Query);
            world.run(seconds(20));
        } else {
            world.receiver.amend(flow(), pbs_nslp::receiver::Change { ttl: Some(seconds(6)), ..Default::default() }, world.now);
            world.run(seconds(8));
        }
        let said = world.sent(2, MessageKind::Permission).len() > before;
        assert!(said && world.sent(2, MessageKind::Permission).last().unwrap().permission().unwrap().is_removal());
        assert!(world.datapaths[2].table.is_empty());
    }
}

#[test]
fn a_session_has_one_random_name_on_the_whole_path_and_each_message_its_signers_certificate() {
    // P-011, P-068.
    let mut world = World::granted(2);
    world.sender.want(crate::world::flow_to(9001), Volume(VOLUME), world.now).unwrap();
    world.run(seconds(1));
    let of = |world: &World, place: usize| world.routers[place].sessions().iter().map(|status| status.session).collect::<Vec<_>>();
    let names: Vec<_> = world.sender.sessions().iter().map(|status| status.session).collect();
    assert_eq!((of(&world, 0), of(&world, 1)), (names.clone(), names.clone()));
    let (first, second) = (names[0].0, names[1].0);
    let differ = first.iter().zip(second).filter(|(a, b)| **a != *b).count();
    assert!(differ > 8, "{first:?} {second:?}: nothing that could be guessed");
    let query = world.sent(SENDER, MessageKind::Query)[0].query().unwrap();
    let permission = world.sent(3, MessageKind::Permission)[0].permission().unwrap();
    assert_eq!(query.credential, forge::credential(&forge::sender()));
    assert_eq!(permission.credential, forge::credential(&forge::receiver()));
}
