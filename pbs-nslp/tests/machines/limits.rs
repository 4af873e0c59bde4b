//! What the operator of a router lets two hosts permit each other: Notify 18 (FN-72).

use gist::api::Indication;
use gist::wire::SessionId;
use pbs_nslp::receiver::Terms;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::router::{LimitRule, Limits, Router, RouterConfig, RouterPolicy};
use pbs_nslp::selector::{Prefix, Selector};
use pbs_nslp::wire::{Defense, MessageKind, NotifyCode, Permission, Volume};

use crate::forge::{self, permission, permission_from};
use crate::world::{LATENCY, SENDER, TTL, VOLUME, World, flow, flow_to, router_config, seconds, sender_address, terms};

/// A world whose first router goes by these rules.
fn limited(rules: Vec<LimitRule>) -> World {
    let mut world = World::new(2);
    let config = RouterConfig { policy: RouterPolicy { rules }, ..router_config() };
    world.routers[0] = Router::new(config, world.authority.clone(), world.unix(), world.now);
    world
}

fn pair(limits: Option<Limits>) -> LimitRule {
    let selector = Selector { source: Prefix::new(sender_address(), 32), destination_ports: Some(9000..=9000), ..Selector::default() };
    LimitRule { selector, limits }
}

fn refused(world: &World) -> bool {
    world.saw(SENDER, |event| matches!(event, ReportEvent::Notified { code: NotifyCode::LocalPolicy, detail: 0, .. }))
}

#[test]
fn a_query_between_hosts_that_may_not_permit_each_other_anything_goes_no_further() {
    let mut world = limited(vec![pair(None)]);
    world.want();
    world.run(seconds(1));
    world.took(1, &["FN-72"]);
    assert!(refused(&world));
    assert_eq!(world.states(), ["Wait P", "Idle", "Idle", "Idle"]);
    assert!(world.sent(1, MessageKind::Query).is_empty());
    // Another pair of ports is not the rule's.
    world.sender.want(flow_to(9001), Volume(VOLUME), world.now).unwrap();
    world.run(seconds(1));
    assert_eq!(world.router_state(1), "Permitted");
}

#[test]
fn a_permission_beyond_volume_or_time_is_neither_installed_nor_passed_on() {
    let enough = Limits { volume: Volume(VOLUME), ttl: TTL, ..Limits::default() };
    let cases = [
        (enough, true),
        (Limits::default(), true),
        (Limits { volume: Volume(VOLUME - 1), ..enough }, false),
        (Limits { ttl: TTL - seconds(1), ..enough }, false),
    ];
    for (limits, passes) in cases {
        let mut world = limited(vec![pair(Some(limits)), pair(None)]);
        world.want();
        world.run(seconds(1));
        assert_eq!((world.router_state(1) == "Permitted", refused(&world)), (passes, !passes), "{limits:?}");
        assert_eq!(world.sender_state() == "Permitted", passes);
        assert_eq!(world.datapaths[1].table.is_empty(), !passes);
        assert_eq!(world.sent(1, MessageKind::Permission).is_empty(), !passes);
    }
}

#[test]
fn an_extension_beyond_the_limit_is_refused_and_what_is_permitted_goes_on_until_it_ends() {
    let mut world = limited(vec![pair(Some(Limits { volume: Volume(VOLUME), ttl: TTL, ..Limits::default() }))]);
    world.want();
    world.run(seconds(1));
    let more = Terms { volume: Volume(VOLUME + 1), ..terms() };
    assert!(world.receiver.change(flow(), more, world.now));
    world.run(LATENCY * 6);
    world.took(1, &["FN-72"]);
    assert!(refused(&world));
    assert_eq!((world.permissions()[1][0].2, world.permissions()[SENDER][0].2), (VOLUME, VOLUME));
    assert_eq!(world.packet(100), Some(3));
    // A lesser one is taken, and a removal always.
    assert!(world.receiver.change(flow(), terms(), world.now));
    world.run(LATENCY * 6);
    assert_eq!(world.states(), ["Permitted"; 4]);
    world.receiver.revoke(flow(), world.now);
    world.run(LATENCY * 6);
    assert!(world.permissions().iter().all(Vec::is_empty));
}

#[test]
fn an_advice_to_change_the_path_does_not_carry_more_past_the_limit() {
    let mut world = limited(vec![pair(Some(Limits { volume: Volume(VOLUME), ttl: TTL, ..Limits::default() }))]);
    world.want();
    world.run(seconds(1));
    world.stable = false;
    let session: SessionId = world.session();
    let number = u32::try_from(world.unix()).unwrap() + 5;
    let advice = Permission { defense: Some(Defense::ChangePath), sa: None, allowed: Volume(VOLUME + 1), ..permission(number) };
    world.tell(1, Indication::Received(permission_from(2, session, &advice, &forge::receiver())));
    world.settle();
    world.took(1, &["FN-72"]);
    assert_eq!(world.permissions()[1][0].2, VOLUME);
}

#[test]
fn all_flows_between_two_hosts_together_get_no_more_than_the_pair_may_have() {
    let limits = Limits { pair_volume: Volume(2 * VOLUME), ..Limits::default() };
    let of_pair =
        LimitRule { selector: Selector { source: Prefix::new(sender_address(), 32), ..Selector::default() }, limits: Some(limits) };
    let mut world = limited(vec![of_pair]);
    let ask = |world: &mut World, port: u16| {
        world.sender.want(flow_to(port), Volume(VOLUME), world.now).unwrap();
        world.run(seconds(1));
    };
    ask(&mut world, 9000);
    ask(&mut world, 9001);
    assert!(!refused(&world));
    let at_router = |world: &World| world.permissions()[1].iter().map(|(_, _, allowed)| allowed).sum::<u64>();
    assert_eq!(at_router(&world), 2 * VOLUME);
    ask(&mut world, 9002);
    assert!(refused(&world), "Notify 18");
    assert_eq!((world.permissions()[1].len(), at_router(&world)), (2, 2 * VOLUME));
    // Refreshes of what is permitted are not counted twice, and what is given back makes room.
    world.run(seconds(20));
    assert_eq!(at_router(&world), 2 * VOLUME);
    world.sender.release(flow_to(9001), world.now);
    world.run(seconds(90));
    ask(&mut world, 9003);
    let flows: Vec<_> = world.permissions()[1].iter().map(|(flow, ..)| flow.destination_port).collect();
    assert_eq!(flows, [9000, 9003]);
    assert_eq!(at_router(&world), 2 * VOLUME);
}
