//! The watch over filter rules that others can change (before Linux 6.9; else see `owner`): whatever anybody else does to the table, it
//! stands again at once; everything else is left alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod ruleset;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use namespace::{Namespace, address, behind_a_router, privileged};
use ruleset::{
    DELETE_CHAIN, DELETE_RULE, DELETE_TABLE, IPV4, IPV6, NEW_CHAIN, NEW_RULE, NEW_TABLE, STANDS, change, change_through, delete_everything,
};
use traffic::netlink::{APPEND, Batch, CREATE, Protocol, Socket};
use traffic::rules::{self, HostRules, Install, Role, RouterRules, Watch};

/// How long a test waits for a notification.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_flushed_rule_set_stands_again_and_the_program_that_flushed_it_is_named() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        for role in [Role::Router, Role::Host] {
            let mut watch = Watch::start(role, install(role)).unwrap();
            let before = names(role);
            change(delete_everything).unwrap();
            assert_eq!(rules::counters(role).unwrap(), []);
            let author = mend(&mut watch);
            assert_eq!(author.name, Some(own_name()));
            assert!(author.process.is_some());
            assert_eq!(names(role), before);
            assert!(watch.is_intact().unwrap());
        }
    });
}

#[test]
fn whatever_is_changed_in_the_table_is_put_back() {
    if !privileged() {
        return;
    }
    type Change = fn(&mut Batch);
    let changes: [(&str, Change); 9] = [
        ("half of it removed", |batch| table(batch, DELETE_TABLE, IPV6, 0)),
        ("put to sleep", |batch| table(batch, NEW_TABLE, IPV4, 1)),
        ("replaced by an empty one", |batch| {
            table(batch, DELETE_TABLE, IPV4, 0);
            table(batch, NEW_TABLE, IPV4, 0);
        }),
        ("a policy turned", |batch| {
            batch.request("accept", NEW_CHAIN, 0, &IPV4, |writer| {
                writer.put_text(1, "pbs-router");
                writer.put_text(3, "forward");
                writer.put_be32(5, 1);
            });
        }),
        ("a chain emptied", |batch| {
            batch.request("empty the chain", DELETE_RULE, 0, &IPV4, |writer| {
                writer.put_text(1, "pbs-router");
                writer.put_text(2, "forward");
            });
        }),
        ("a rule put before the others", |batch| rule(batch, 0)),
        ("a rule put behind the others", |batch| rule(batch, APPEND)),
        ("a chain added", |batch| {
            batch.request("add a chain", NEW_CHAIN, CREATE, &IPV4, |writer| {
                writer.put_text(1, "pbs-router");
                writer.put_text(3, "more");
            });
        }),
        ("a base chain removed", |batch| {
            batch.request("empty the chain", DELETE_RULE, 0, &IPV6, |writer| {
                writer.put_text(1, "pbs-router");
                writer.put_text(2, "interception");
            });
            batch.request("remove the chain", DELETE_CHAIN, 0, &IPV6, |writer| {
                writer.put_text(1, "pbs-router");
                writer.put_text(3, "interception");
            });
        }),
    ];
    Namespace::new().run(|| {
        let mut watch = Watch::start(Role::Router, install(Role::Router)).unwrap();
        let before = names(Role::Router);
        for (what, make) in changes {
            change(make).unwrap();
            assert!(!watch.is_intact().unwrap(), "{what}: the comparison shows it too");
            mend(&mut watch);
            assert_eq!((names(Role::Router), watch.is_intact().unwrap()), (before.clone(), true), "{what}");
        }
    });
}

#[test]
fn neither_own_installations_nor_changes_of_other_tables_are_disturbances() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        let mut watch = Watch::start(Role::Router, install(Role::Router)).unwrap();
        for _ in 0..3 {
            assert!(!watch.is_disturbed().unwrap(), "no loop");
            watch.restore().unwrap();
        }
        install(Role::Host)(&Socket::open(Protocol::Netfilter).unwrap()).unwrap();
        rules::remove(Role::Host).unwrap();
        assert!(watch.wait(SOON).unwrap());
        assert!(!watch.is_disturbed().unwrap());
        assert!(watch.is_intact().unwrap());
        assert!(!watch.wait(Duration::from_millis(100)).unwrap(), "all is read");
    });
}

#[test]
fn a_change_among_more_news_than_the_socket_holds_is_found_all_the_same() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        let mut watch = Watch::start(Role::Router, install(Role::Router)).unwrap();
        let fill = || (0..3000).for_each(|_| change(|batch| named(batch, NEW_TABLE, "other", IPV4, 0)).unwrap());
        fill();
        assert!(!watch.is_disturbed().unwrap(), "much news, but none of the table");
        fill();
        change(delete_everything).unwrap();
        assert!(watch.is_disturbed().unwrap());
        watch.restore().unwrap();
        assert_eq!(rules::installed(Role::Router).unwrap(), STANDS);
        assert!(!watch.is_disturbed().unwrap());
    });
}

#[test]
fn a_watch_that_cannot_put_its_table_back_says_so_and_does_when_it_can() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        let mut watch = Watch::start(Role::Router, install(Role::Router)).unwrap();
        // A table with an owner is nobody else's to replace; it goes with its owner.
        let owner = Socket::open(Protocol::Netfilter).unwrap();
        change(delete_everything).unwrap();
        change_through(&owner, |batch| table(batch, NEW_TABLE, IPV4, 2)).unwrap();
        assert!(watch.is_disturbed().unwrap());
        assert!(watch.restore().is_err());
        assert!(!watch.is_intact().unwrap());
        drop(owner);
        assert!(watch.wait(SOON).unwrap() && watch.is_disturbed().unwrap());
        watch.restore().unwrap();
        assert_eq!(rules::installed(Role::Router).unwrap(), STANDS);
    });
}

/// How long packets pass a router after `nft flush ruleset`. Nobody listens to its queues, so that nothing passes otherwise.
#[test]
fn a_flushed_router_is_open_for_milliseconds() {
    if !privileged() {
        return;
    }
    const TIMES: usize = 20;
    let [sender, router, receiver] = behind_a_router();
    let to = address("192.168.21.4", 5001);
    let (from, receiving) = (sender.udp(address("192.168.20.1", 5000)), receiver.udp(to));
    receiving.set_nonblocking(true).unwrap();
    let mut watch = router.run(|| Watch::start(Role::Router, install(Role::Router)).unwrap());
    let stop = AtomicBool::new(false);
    let mut gaps = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if watch.wait(Duration::from_millis(20)).unwrap() && watch.is_disturbed().unwrap() {
                    watch.restore().unwrap();
                }
            }
        });
        // What is sent, and what comes through, both with the moment.
        let passed = scope.spawn(|| {
            let mut passed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let _ = from.send_to(b"data", to);
                if receiving.recv(&mut [0; 16]).is_ok() {
                    passed.push(Instant::now());
                }
                std::thread::sleep(Duration::from_micros(20));
            }
            passed
        });
        std::thread::sleep(Duration::from_millis(50));
        let flushed: Vec<Instant> = (0..TIMES)
            .map(|_| {
                router.run(|| change(delete_everything).unwrap());
                std::thread::sleep(Duration::from_millis(150));
                Instant::now()
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        watching.join().unwrap();
        let passed = passed.join().unwrap();
        let mut gaps = Vec::new();
        let mut before = None;
        for end in flushed {
            let through: Vec<_> = passed.iter().filter(|at| **at < end && before.is_none_or(|before| **at >= before)).collect();
            gaps.push(through.last().zip(through.first()).map_or(Duration::ZERO, |(last, first)| **last - **first));
            before = Some(end);
        }
        gaps
    });
    gaps.sort();
    println!("packets pass for {:?} (median), {:?} (longest of {TIMES})", gaps[TIMES / 2], gaps[TIMES - 1]);
    assert!(gaps[TIMES / 2] < Duration::from_millis(100), "{gaps:?}");
    assert_eq!(router.run(|| rules::installed(Role::Router).unwrap()), STANDS);
}

/// Waits for the disturbance and mends it.
#[track_caller]
fn mend(watch: &mut Watch) -> rules::Author {
    assert!(watch.wait(SOON).unwrap() && watch.is_disturbed().unwrap());
    let author = watch.restore().unwrap();
    assert!(!watch.is_disturbed().unwrap());
    author
}

/// As on a kernel that keeps nobody from changing the table.
fn install(role: Role) -> Install {
    match role {
        Role::Router => Box::new(|socket| RouterRules { owned: false, ..RouterRules::new(1, 2, 30_270) }.install_through(socket)),
        Role::Host => Box::new(|socket| HostRules { owned: false, ..HostRules::new(3, 4, 30_270) }.install_through(socket)),
    }
}

/// Family, chain and name of every counted rule.
fn names(role: Role) -> BTreeSet<String> {
    let counters = rules::counters(role).unwrap();
    assert!(!counters.is_empty());
    counters.iter().map(|counter| format!("{} {} {}", counter.family, counter.chain, counter.rule)).collect()
}

/// The name of the calling thread, as the kernel knows it.
fn own_name() -> String {
    std::fs::read_to_string("/proc/thread-self/comm").unwrap().trim_end().to_owned()
}

fn table(batch: &mut Batch, kind: u16, family: [u8; 4], flags: u32) {
    named(batch, kind, "pbs-router", family, flags);
}

fn named(batch: &mut Batch, kind: u16, name: &str, family: [u8; 4], flags: u32) {
    let create = if kind == NEW_TABLE { CREATE } else { 0 };
    batch.request("table", kind, create, &family, |writer| {
        writer.put_text(1, name);
        writer.put_be32(2, flags);
    });
}

/// A rule that lets everything pass, before or behind those that stand.
fn rule(batch: &mut Batch, flags: u16) {
    batch.request("accept", NEW_RULE, CREATE | flags, &IPV4, |writer| {
        writer.put_text(1, "pbs-router");
        writer.put_text(2, "forward");
        writer.nest(4, |list| {
            list.nest(1, |element| {
                element.put_text(1, "immediate");
                element.nest(2, |data| {
                    data.put_be32(1, 0);
                    data.nest(2, |nested| nested.nest(2, |verdict| verdict.put_be32(1, 1)));
                });
            });
        });
    });
}
