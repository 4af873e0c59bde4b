//! The shield of a router on real links: when a permission begins and ends there, and what becomes of it when rules are full, new or gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;
mod shield_path;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use namespace::{QUIET, admit, eventually, flow_of, privileged};
use raw::Raw;
use shield_path::{FAMILIES, LASTING, Path, SPI, both, received, sealed, settled, shielded};
use traffic::queue::{Queue, QueueConfig};
use traffic::reason::DropReason;
use traffic::rules::{self, Admitted, Install, Role, RouterRules, Ticket, Watch};

/// INV-11: who has been told that a permission stands may send; who has been told that it is gone is right.
#[test]
fn what_is_settled_holds_for_the_very_next_packet() {
    if !privileged() {
        return;
    }
    for rules in both() {
        let mut path = Path::new(rules);
        for family @ [sender, _, _, receiver] in FAMILIES {
            let (from, to, raw) = path.ends(family);
            for round in 0..30 {
                let (spi, packet) = (SPI + round, sealed((sender, receiver), SPI + round, 100));
                let flow = flow_of(from, to, spi);
                settled(&path.admitted, path.admitted.admit(flow, spi, LASTING)).unwrap();
                raw.send(&packet);
                assert!(path.came().is_some(), "{spi}");
                let counted = path.counted(DropReason::UnknownSpi);
                settled(&path.admitted, path.admitted.forget(flow, spi)).unwrap();
                raw.send(&packet);
                eventually("it is dropped", || path.counted(DropReason::UnknownSpi) == counted + 1);
            }
        }
        assert_eq!(path.came(), None);
        assert_eq!(path.admitted.counts(), (0, 0));
    }
}

/// What is refreshed lives on, what is shortened ends sooner, and another flow cannot end it.
#[test]
fn a_permission_ends_in_the_kernel_although_nobody_removes_it() {
    if !privileged() {
        return;
    }
    const SHORT: Duration = Duration::from_millis(400);
    for rules in both() {
        let mut path = Path::new(rules);
        let family @ [sender, _, _, receiver] = FAMILIES[0];
        let (from, to, raw) = path.ends(family);
        let [refreshed, shortened, left] = [SPI, SPI + 1, SPI + 2].map(|spi| (flow_of(from, to, spi), spi));
        path.admitted.admit(refreshed.0, refreshed.1, SHORT);
        path.admitted.admit(shortened.0, shortened.1, LASTING);
        path.admitted.admit(left.0, left.1, SHORT);
        path.admitted.settled();
        path.admitted.admit(refreshed.0, refreshed.1, LASTING);
        path.admitted.shorten(shortened.0, shortened.1, SHORT);
        path.admitted.forget(shortened.0, refreshed.1);
        path.admitted.settled();
        let mut come = |spi| {
            raw.send(&sealed((sender, receiver), spi, 100));
            path.came().is_some()
        };
        eventually("both have ended", || !come(shortened.1) && !come(left.1));
        assert!(come(refreshed.1));
    }
}

#[test]
fn a_full_set_refuses_and_lets_nothing_in() {
    if !privileged() {
        return;
    }
    // The kernel's own set has room for 1024, and nobody tells the other side so.
    let mut path = Path::new(RouterRules { permissions: 0, ..shielded() });
    let family @ [sender, _, _, receiver] = FAMILIES[0];
    let (from, to, raw) = path.ends(family);
    let admitted = path.router.run(|| Admitted::at_most(Role::Router, 1500).unwrap());
    let tickets: Vec<Ticket> = (SPI..SPI + 1600).map(|spi| admitted.admit(flow_of(from, to, spi), spi, LASTING)).collect();
    let refused: Vec<String> = tickets.iter().filter_map(|ticket| settled(&admitted, *ticket).err()).collect();
    assert_eq!(refused.len(), 1600 - 1024, "{:?}", refused.first());
    // Its own cap is met only as long as the kernel's refusals have not come.
    let of_either = |why: &String| ["1500 permissions already", "refused to change set"].iter().any(|cap| why.contains(cap));
    assert!(refused.iter().all(of_either), "{refused:?}");
    assert!(refused.iter().any(|why| why.contains("refused to change set")), "the kernel's: {:?}", refused.first());
    let mut come = |spi| {
        raw.send(&sealed((sender, receiver), spi, 100));
        path.came().is_some()
    };
    assert!(come(SPI) && !come(SPI + 1599));
    // One goes, one comes.
    settled(&admitted, admitted.forget(flow_of(from, to, SPI), SPI)).unwrap();
    settled(&admitted, admitted.admit(flow_of(from, to, SPI + 1599), SPI + 1599, LASTING)).unwrap();
    assert!(!come(SPI) && come(SPI + 1599));
}

#[test]
fn rules_that_are_installed_anew_know_no_permission_until_they_are_told_and_those_removed_under_a_flood_are_put_back() {
    if !privileged() {
        return;
    }
    let mut path = Path::new(shielded());
    let family @ [sender, _, _, receiver] = FAMILIES[0];
    let (from, to, raw) = path.ends(family);
    let permitted = sealed((sender, receiver), SPI, 100);
    admit(&path.admitted, from, to, SPI, LASTING);
    raw.send(&permitted);
    assert!(path.came().is_some());
    // As a daemon does that starts again after a crash.
    path.router.run(|| shielded().install().unwrap());
    raw.send(&permitted);
    assert_eq!(path.came(), None, "nothing of before is believed");
    let install: Install = Box::new(|socket| RouterRules { owned: false, ..shielded() }.install_through(socket));
    let owner = path.admitted.owner().clone();
    let mut watch = path.router.run(|| Watch::start_through(Role::Router, install, owner).unwrap());
    path.admitted.refill();
    path.admitted.settled();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flooding = path.sender.run(|| Raw::open(sender));
        let done = &done;
        let flood = scope.spawn(move || {
            for spi in 1_000_000.. {
                flooding.send(&sealed((sender, receiver), spi, 20));
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        path.router.run(|| rules::remove(Role::Router).unwrap());
        // Somebody asks meanwhile; it waits for the rules.
        let meanwhile = path.admitted.admit(flow_of(from, to, SPI + 1), SPI + 1, LASTING);
        std::thread::sleep(QUIET / 4);
        assert_eq!(path.admitted.outcome(meanwhile), None);
        assert!(watch.is_disturbed().unwrap());
        path.router.run(|| watch.restore().unwrap());
        path.admitted.refill();
        assert_eq!(settled(&path.admitted, meanwhile), Ok(()));
        path.admitted.settled();
        assert!(!watch.is_disturbed().unwrap(), "what a daemon tells its rules is no disturbance");
        path.accept_all();
        for spi in [SPI, SPI + 1] {
            raw.send(&sealed((sender, receiver), spi, 100));
            assert!(path.came().is_some(), "{spi}");
        }
        done.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    assert_eq!(path.came(), None);
    // Without a daemon the permitted packets are dropped, too.
    drop(std::mem::replace(&mut path.queue, path.router.run(|| Queue::open(QueueConfig::new(99)).unwrap())));
    let before = path.receiver.run(received);
    (0..20).for_each(|_| raw.send(&permitted));
    std::thread::sleep(QUIET / 4);
    assert!(path.receiver.run(received) - before < 10);
    // Opened on purpose there is nothing to tell, and nobody waits for it.
    path.router.run(|| rules::remove(Role::Router).unwrap());
    path.admitted.open_up();
    assert_eq!(path.admitted.outcome(path.admitted.admit(flow_of(from, to, 9999), 9999, LASTING)), Some(Ok(())));
}
