//! Wall clocks that step, and messages that somebody on the path holds back (X-63, X-109, TMP-01, TMP-10).

use gist::api::{Indication, ReceivedMessage};
use gist::wire::SessionId;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{MessageKind, NotifyCode};

use crate::forge::{self, permission, permission_from, query, query_from};
use crate::world::{SENDER, START_UNIX, Transit, World, flow, flow_to, seconds};

fn tell(world: &mut World, received: ReceivedMessage) {
    world.tell(1, Indication::Received(received));
    world.settle();
}

/// A world whose flow was revoked a while ago, with what came to the router while it was permitted.
fn revoked(since: u64) -> (World, Vec<Transit>) {
    let mut world = World::granted(1);
    let old = world.delivered.iter().filter(|transit| transit.to == 1 && transit.kind() != MessageKind::Notify);
    let old = old.cloned().collect();
    world.receiver.revoke(flow(), world.now);
    world.run(seconds(since));
    world.stable = false;
    assert!(world.permissions().iter().all(Vec::is_empty));
    (world, old)
}

/// Has the router bury another number, so that it forgets what it may.
fn sweep(world: &mut World) {
    let number = u32::try_from(world.unix()).unwrap();
    let asked = pbs_nslp::wire::Query { flow: flow_to(9001), ..query(number) };
    tell(world, query_from(SENDER, SessionId([3; 16]), &asked, &forge::sender()));
    world.run(seconds(40));
}

#[test]
fn a_clock_put_back_lets_nothing_in_again() {
    let (mut world, old) = revoked(400);
    sweep(&mut world);
    let (now, back) = (world.now, world.unix() - 440);
    world.routers[0].set_wall_clock(back, now);
    for transit in old {
        tell(&mut world, transit.received);
    }
    assert_eq!(world.router_state(1), "Idle");
    assert!(world.permissions()[1].is_empty());
}

#[test]
fn a_clock_put_forward_for_a_moment_ends_nothing_early() {
    let (mut world, old) = revoked(10);
    let (now, unix) = (world.now, world.unix());
    world.routers[0].set_wall_clock(unix + 400, now);
    let number = u32::try_from(unix).unwrap() + 400;
    let asked = pbs_nslp::wire::Query { flow: flow_to(9001), ..query(number) };
    tell(&mut world, query_from(SENDER, SessionId([3; 16]), &asked, &forge::sender()));
    world.run(seconds(40));
    let (now, unix) = (world.now, world.unix());
    world.routers[0].set_wall_clock(unix, now);
    for transit in old {
        tell(&mut world, transit.received);
    }
    assert_eq!(world.router_state(1), "Idle");
}

#[test]
fn a_clock_that_is_told_over_and_over_changes_nothing() {
    let mut world = World::granted(1);
    for _ in 0..20 {
        world.run(seconds(3));
        // A second of rounding either way.
        for unix in [world.unix() + 1, world.unix() - 1, world.unix()] {
            world.routers[0].set_wall_clock(unix, world.now);
        }
    }
    assert_eq!(world.states(), ["Permitted"; 3]);
    world.sender.want(flow_to(9001), 10.into(), world.now).unwrap();
    world.run(seconds(1));
    assert_eq!(world.routers[0].sessions().len(), 2, "and new sessions are still taken");
}

#[test]
fn permissions_held_back_do_not_outlive_a_revocation() {
    // TMP-01: each is newer than the one before, but they come out of the window.
    let mut world = World::new(1);
    world.stable = false;
    world.down.insert(2);
    world.run(seconds(1000));
    let start = u32::try_from(START_UNIX + 1000).unwrap();
    let session = SessionId([5; 16]);
    tell(&mut world, query_from(SENDER, session, &query(start), &forge::sender()));
    tell(&mut world, permission_from(2, session, &permission(start), &forge::receiver()));
    assert_eq!(world.router_state(1), "Permitted");
    // Those of 60 refreshes in 300 s, until the receiver took the permission back. One is let go every 17 s.
    let mut last_permitted = 0;
    for held_back in 1..60_u64 {
        world.run(seconds(17));
        let number = start + u32::try_from(5 * held_back).unwrap();
        tell(&mut world, permission_from(2, session, &permission(number), &forge::receiver()));
        if world.router_state(1) == "Permitted" {
            last_permitted = 17 * held_back;
        }
    }
    assert!((300..=300 + 300 + 18).contains(&last_permitted), "{last_permitted} s");
    let refused = |event: &ReportEvent| matches!(event, ReportEvent::Refused(refusal) if refusal.code == NotifyCode::Stale);
    assert!(world.saw(1, refused));
    assert!(world.permissions()[1].is_empty());
}
