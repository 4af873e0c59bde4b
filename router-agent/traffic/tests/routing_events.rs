//! Whoever follows the routing events keeps room for AH whatever happens to links, addresses and routes, within a second.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use namespace::{A4, A6, B4, B6, Namespace, add_address, address, forbid_fragments, pair, privileged, receive, set_link};
use nix::sys::socket::{setsockopt, sockopt};
use routing::{MARKED, Route, add_rule, main_routes, routes, rules};
use traffic::routes::{MtuPlan, Routes};
use traffic::routing_events::{RoutingEvents, Settled};

const PLAN: MtuPlan = MtuPlan::new(28, 32);
const PAUSE: Duration = Duration::from_millis(100);
const QUIET: Duration = Duration::from_secs(60);

/// Follows the events in a namespace while `work` runs there. Answers how often everything was looked at.
fn following(namespace: &Namespace, work: impl FnOnce() + Send) -> usize {
    let (stop, times) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut events, mut kept) = namespace.run(|| (RoutingEvents::listen().unwrap(), Routes::open(PLAN).unwrap()));
    kept.apply().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let own = Some(kept.port().unwrap());
            while !stop.load(Ordering::Relaxed) {
                if events.settled(own, PAUSE, Duration::from_millis(20)).unwrap() == Settled::Changed {
                    times.fetch_add(1, Ordering::Relaxed);
                    kept.apply().unwrap();
                }
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| namespace.run(work)));
        stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    times.into_inner()
}

/// Waits for what must be so within a second, with all that the machine needs besides.
#[track_caller]
fn within_a_second(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "did not happen within a second: {what}\n{:#?}\n{:#?}",
            main_routes(""),
            routes(MARKED)
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lowered(start: &str, mtu: u32) -> bool {
    let (end, kept) = (format!("mtu {mtu}"), routes(MARKED));
    let main = main_routes(start);
    !main.is_empty()
        && main.iter().all(|line| line.ends_with(&end))
        && kept.iter().any(|line| line.starts_with(start) && !line.contains("mtu"))
}

#[test]
fn a_link_that_goes_down_and_comes_back_has_room_for_ah_again() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    following(&a, || {
        Route { via: Some(B4), ..Route::default() }.add();
        within_a_second("the default route is lowered", || lowered("default", 1472));
        for _ in 0..3 {
            set_link("left", false);
            std::thread::sleep(Duration::from_millis(50));
            set_link("left", true);
            within_a_second("the link's route is lowered", || lowered("192.168.20.0/24", 1472));
            // The kernel forgets the address as well.
            add_address("left", A6.parse().unwrap(), 64);
            within_a_second("the link's IPv6 route is lowered", || lowered("fd20::/64", 1468));
            Route { via: Some(B4), ..Route::default() }.add();
            within_a_second("the default route is lowered", || lowered("default", 1472));
        }
    });
    // And packets of full size with AH go their way.
    for (from, to, full) in [(A4, B4, 1472), (A6, B6, 1452)] {
        let (sender, receiver) = (a.udp(address(from, 5000)), b.udp(address(to, 5001)));
        forbid_fragments(&sender);
        assert!(sender.send_to(&vec![1; full], address(to, 5001)).is_err());
        setsockopt(&sender, sockopt::Mark, &PLAN.mark).unwrap();
        sender.send_to(&vec![1; full], address(to, 5001)).unwrap();
        assert_eq!(receive(&receiver, namespace::SOON).unwrap().len(), full);
    }
}

#[test]
fn what_is_added_or_removed_later_is_taken_in_and_own_changes_give_no_work() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    let times = following(&a, || {
        Route { destination: "10.9.0.0", prefix: 16, via: Some(B4), ..Route::default() }.add();
        Route { destination: "2001:db8::", prefix: 32, via: Some(B6), ..Route::default() }.add();
        within_a_second("routes added later are lowered", || lowered("10.9.0.0/16", 1472) && lowered("2001:db8::/32", 1468));
        add_address("left", "192.168.77.1".parse().unwrap(), 24);
        add_address("left", "fd77::1".parse().unwrap(), 64);
        within_a_second("addresses added later have lowered routes", || lowered("192.168.77.0/24", 1472) && lowered("fd77::/64", 1468));
        Route { destination: "10.9.0.0", prefix: 16, via: Some(B4), ..Route::default() }.remove();
        within_a_second("a removed route has no copy", || !routes(MARKED).iter().any(|line| line.starts_with("10.9")));
        add_rule(2, 100, Some(7), 100, false);
        within_a_second("a rule has its copy", || rules(2).iter().filter(|(_, table)| *table == 100).count() == 2);
        std::thread::sleep(5 * PAUSE);
    });
    assert!((4..=12).contains(&times), "looked at {times} times for four changes");
}

#[test]
fn more_changes_than_the_socket_holds_are_one_change() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    let (mut events, mut kept) = a.run(|| (RoutingEvents::listen().unwrap(), Routes::open(PLAN).unwrap()));
    kept.apply().unwrap();
    let own = Some(kept.port().unwrap());
    assert!(!events.has_changed(own).unwrap(), "own changes do not count");
    let route = Route { destination: "10.9.0.0", prefix: 16, via: Some(B4), ..Route::default() };
    a.run(|| {
        for _ in 0..3000 {
            route.add();
            route.remove();
        }
        route.add();
    });
    assert_eq!(events.settled(own, PAUSE, QUIET).unwrap(), Settled::Changed);
    kept.apply().unwrap();
    assert!(a.run(|| lowered("10.9.0.0/16", 1472)));
    assert_eq!(events.settled(own, PAUSE, Duration::from_millis(50)).unwrap(), Settled::Quiet);
}
