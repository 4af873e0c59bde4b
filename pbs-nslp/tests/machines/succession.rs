//! A session that takes over from an older one: what was permitted goes on until the new permission stands.

use gist::api::Indication;
use gist::wire::SessionId;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::wire::{NotifyCode, Permission, Query, SaParameters};

use crate::datapath::Datapath;
use crate::forge::{self, permission, permission_from, query, query_from};
use crate::world::{LATENCY, SENDER, World, flow, flow_to, router_config, seconds};

const NEWER: SessionId = SessionId([9; 16]);

fn number(world: &World) -> u32 {
    u32::try_from(world.unix()).unwrap() + 5
}

fn granted(number: u32, spi: u32) -> Permission {
    let sa = Some(SaParameters { spi, drain: seconds(2), new_epoch: true });
    Permission { sa, defense: Some(forge::key(spi as u8)), ..permission(number) }
}

/// A router that permits a flow is given the Query and the Permission of a newer session.
fn taken_over() -> (World, u32) {
    let mut world = World::granted(1);
    world.stable = false;
    world.down.insert(2);
    let old = world.permissions()[1][0].1;
    let number = number(&world);
    world.tell(1, Indication::Received(query_from(SENDER, NEWER, &query(number), &forge::sender())));
    world.settle();
    assert!(world.datapaths[1].verify(flow(), old, 50, 10, world.now), "a Query alone ends nothing");
    world.tell(1, Indication::Received(permission_from(2, NEWER, &granted(number, 0x6000), &forge::receiver())));
    world.settle();
    (world, old)
}

#[test]
fn the_old_permission_of_a_flow_drains_when_that_of_a_newer_session_stands() {
    // FN-05, FN-71, X-75: make before break.
    let (mut world, old) = taken_over();
    world.took(1, &["FN-71"]);
    assert!(world.datapaths[1].verify(flow(), old, 51, 10, world.now), "what is under way still passes");
    assert!(world.datapaths[1].verify(flow(), 0x6000, 1, 10, world.now));
    assert_eq!(world.routers[0].sessions().len(), 1, "INV-17");
    let commands: Vec<_> = world.trace.iter().filter(|line| line.contains(" 1 Install") || line.contains(" 1 Remove")).collect();
    assert!(commands.last().unwrap().contains("Install"), "nothing is removed meanwhile: {commands:?}");
    world.run(seconds(3));
    assert_eq!(world.permissions()[1].iter().map(|entry| entry.1).collect::<Vec<_>>(), [0x6000]);
    assert!(!world.datapaths[1].verify(flow(), old, 52, 10, world.now));
}

#[test]
fn a_takeover_leaves_one_draining_association_at_most() {
    // X-75, INV-09: the old session had one that drained already, and so has the newest.
    let (mut world, _) = taken_over();
    for (attempt, spi) in [(1, 0x6001), (2, 0x6002)] {
        let session = SessionId([10 + attempt; 16]);
        let number = number(&world) + 2 * u32::from(attempt);
        world.tell(1, Indication::Received(query_from(SENDER, session, &query(number), &forge::sender())));
        world.tell(1, Indication::Received(permission_from(2, session, &granted(number, spi), &forge::receiver())));
        world.settle();
        assert_eq!(world.datapaths[1].table.len(), 2);
        assert_eq!(world.datapaths[1].table.values().filter(|entry| entry.draining).count(), 1);
    }
}

#[test]
fn a_denial_ends_what_drains_from_an_older_session_too() {
    // TMP-01, P-144.
    let (mut world, _) = taken_over();
    let denial = permission_from(2, NEWER, &forge::denial(number(&world) + 1), &forge::receiver());
    world.tell(1, Indication::Received(denial));
    world.settle();
    world.took(1, &["FN-26"]);
    assert!(world.permissions()[1].is_empty());
}

#[test]
fn a_new_session_may_not_take_the_spi_of_the_one_it_replaces() {
    // Its numbers would repeat (FN-06).
    let mut world = World::granted(1);
    world.stable = false;
    world.down.insert(2);
    let old = world.permissions()[1][0].1;
    let number = number(&world);
    world.tell(1, Indication::Received(query_from(SENDER, NEWER, &query(number), &forge::sender())));
    world.tell(1, Indication::Received(permission_from(2, NEWER, &granted(number, old), &forge::receiver())));
    world.settle();
    assert!(world.saw(1, |event| matches!(event, ReportEvent::Notifying { code: NotifyCode::SpiCollision, .. })));
    assert_eq!(world.permissions()[1].iter().map(|entry| entry.1).collect::<Vec<_>>(), [old]);
}

/// A router with room for two questions.
fn crowded() -> World {
    let mut world = World::new(1);
    let config = RouterConfig { pending: 2, pending_per_peer: 4, ..router_config() };
    world.routers[0] = Router::new(config, world.authority.clone(), world.unix(), world.now);
    world.datapaths[1] = Datapath::default();
    world.stable = false;
    world.down.insert(2);
    world
}

#[test]
fn a_query_that_is_refused_for_want_of_room_has_ended_nothing() {
    // FN-02: the flow's first question came from another neighbour, and the place of the second is taken.
    let mut world = crowded();
    let number = number(&world);
    let from = |neighbour: usize, session: SessionId, query: &Query| {
        let received = query_from(SENDER, session, query, &forge::sender());
        Indication::Received(gist::api::ReceivedMessage { principal: crate::world::principal(neighbour), ..received })
    };
    let first = SessionId([1; 16]);
    world.tell(1, from(SENDER, first, &query(number)));
    world.tell(1, from(SENDER, SessionId([2; 16]), &Query { flow: flow_to(9001), ..query(number) }));
    world.settle();
    assert_eq!(world.routers[0].sessions().len(), 2);
    world.tell(1, from(77, NEWER, &query(number + 1)));
    world.settle();
    world.took(1, &["FN-02"]);
    let sessions: Vec<_> = world.routers[0].sessions().iter().map(|session| session.session).collect();
    assert!(sessions.contains(&first), "{sessions:?}");
}

#[test]
fn whoever_asks_anew_for_its_flow_takes_its_own_place() {
    // FN-01, FN-71: a sender that has restarted is not shut out by its own former question.
    let mut world = crowded();
    let number = number(&world);
    for port in [9000, 9001] {
        let asked = Query { flow: flow_to(port), ..query(number) };
        world.tell(1, Indication::Received(query_from(SENDER, SessionId([1; 16]), &asked, &forge::sender())));
    }
    let other = Query { flow: flow_to(9002), ..query(number) };
    world.tell(1, Indication::Received(query_from(SENDER, SessionId([1; 16]), &other, &forge::sender())));
    world.settle();
    let before = world.routers[0].sessions().len();
    world.tell(1, Indication::Received(query_from(SENDER, NEWER, &query(number + 1), &forge::sender())));
    world.settle();
    let sessions: Vec<_> = world.routers[0].sessions().iter().map(|session| session.session).collect();
    assert_eq!((sessions.len(), sessions.contains(&NEWER)), (before, true));
}

#[test]
fn a_removal_that_is_tried_again_does_not_take_what_was_installed_since() {
    // The router's clock ended the permission, its packet side failed to remove it, and the ends go on with the same SPI.
    let mut world = World::granted(1);
    world.stable = false;
    world.leftovers = true;
    let session = world.session();
    let spi = world.permissions()[1][0].1;
    let first = world.sent(2, pbs_nslp::wire::MessageKind::Permission)[0].permission().unwrap();
    world.datapaths[1].stubborn = true;
    world.down.extend([SENDER, 2]);
    world.run(seconds(20));
    assert_eq!(world.router_state(1), "Idle");
    assert_eq!(world.datapaths[1].table.len(), 1, "it is still there");
    let number = number(&world);
    let again = Permission { number, ..first };
    world.tell(1, Indication::Received(query_from(SENDER, session, &query(number), &forge::sender())));
    world.tell(1, Indication::Received(permission_from(2, session, &again, &forge::receiver())));
    world.settle();
    world.took(1, &["FN-06"]);
    world.datapaths[1].stubborn = false;
    world.run(seconds(2));
    assert!(world.datapaths[1].table.is_empty());
    // When that is over, the SPI is free.
    let again = Permission { number: number + 5, ..again };
    world.tell(1, Indication::Received(permission_from(2, session, &again, &forge::receiver())));
    world.settle();
    assert_eq!(world.router_state(1), "Permitted");
    world.run(LATENCY);
    assert_eq!(world.permissions()[1].iter().map(|entry| entry.1).collect::<Vec<_>>(), [spi]);
}

#[test]
fn denials_that_wait_for_a_stuck_packet_side_are_bounded() {
    let mut world = World::granted(1);
    world.stable = false;
    world.leftovers = true;
    let session = world.session();
    world.datapaths[1].stalled = true;
    let number = number(&world);
    for n in 0..1000 {
        let denial = permission_from(2, session, &forge::denial(number + n % 250), &forge::receiver());
        world.tell(1, Indication::Received(denial));
        world.settle();
        if n % 25 == 0 {
            world.now += seconds(1);
        }
    }
    let before = world.sent(1, pbs_nslp::wire::MessageKind::Permission).len();
    world.datapaths[1].resume();
    world.settle();
    let passed_on = world.sent(1, pbs_nslp::wire::MessageKind::Permission).len() - before;
    assert!((1..=16).contains(&passed_on), "{passed_on}");
}
