//! Rules that a daemon holds: nobody else changes them, a flush of everything passes them by, they outlive their daemon, and the next one
//! takes their place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod ruleset;

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use namespace::{Namespace, QUIET, SOON, address, admit, behind_a_router, eventually, flow_of, privileged};
use nix::errno::Errno;
use ruleset::{
    DELETE_ELEMENT, DELETE_RULE, DELETE_TABLE, IPV4, LIST_TABLES, NEW_CHAIN, NEW_ELEMENT, NEW_RULE, NEW_TABLE, STANDS, change,
    delete_everything,
};
use traffic::netlink::{APPEND, Batch, CREATE, Protocol, Socket, attributes};
use traffic::rules::{self, Admitted, HostRules, Install, Owner, Role, RouterRules, Watch};

#[test]
fn a_flush_of_everything_takes_what_is_others_and_leaves_what_a_daemon_holds() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        for role in [Role::Router, Role::Host] {
            let mut watch = Watch::start(role, install(role)).unwrap();
            assert!(rules::held(role).unwrap());
            let before = rules::counters(role).unwrap();
            for _ in 0..3 {
                change(|batch| of_table(batch, NEW_TABLE, "another", CREATE, |_| {})).unwrap();
                change(delete_everything).unwrap();
                assert_eq!(tables(), [role.table(), role.table()]);
                assert!(watch.is_intact().unwrap() && !watch.is_disturbed().unwrap());
            }
            assert!(!before.is_empty() && rules::counters(role).unwrap() == before);
            watch.restore().unwrap();
            assert!(rules::held(role).unwrap() && watch.is_intact().unwrap(), "its own socket changes it");
            drop(watch);
            assert_eq!((rules::installed(role).unwrap(), rules::held(role).unwrap()), (STANDS, false));
            rules::remove(role).unwrap();
        }
    });
}

/// INV-01: whoever could put an element into the set of permissions would pass the shield.
#[test]
fn nobody_else_changes_rules_or_permissions_that_a_daemon_holds() {
    if !privileged() {
        return;
    }
    type Change<'a> = &'a (dyn Fn(&mut Batch) + Sync);
    let element = |batch: &mut Batch, kind: u16| {
        of_table(batch, kind, "pbs-router", CREATE, |writer| {
            writer.put_text(2, "permissions");
            writer.nest(3, |elements| elements.nest(1, |element| element.nest(1, |key| key.put(1, &[7; 12]))));
        });
    };
    let changes: [(&str, Change<'_>); 8] = [
        ("removed", &|batch| of_table(batch, DELETE_TABLE, "pbs-router", 0, |_| {})),
        ("put to sleep", &|batch| of_table(batch, NEW_TABLE, "pbs-router", CREATE, |writer| writer.put_be32(2, 1))),
        ("taken over", &|batch| of_table(batch, NEW_TABLE, "pbs-router", CREATE, |writer| writer.put_be32(2, 6))),
        ("a policy turned", &|batch| {
            of_table(batch, NEW_CHAIN, "pbs-router", 0, |writer| {
                writer.put_text(3, "forward");
                writer.put_be32(5, 1);
            });
        }),
        ("a chain emptied", &|batch| of_table(batch, DELETE_RULE, "pbs-router", 0, |writer| writer.put_text(2, "forward"))),
        ("a rule added", &|batch| of_table(batch, NEW_RULE, "pbs-router", CREATE | APPEND, |writer| writer.put_text(2, "forward"))),
        ("a permission added", &|batch| element(batch, NEW_ELEMENT)),
        ("a permission removed", &|batch| element(batch, DELETE_ELEMENT)),
    ];
    Namespace::new().run(|| {
        let admitted = Admitted::open(Role::Router).unwrap();
        let mut watch = Watch::start_through(Role::Router, install(Role::Router), admitted.owner().clone()).unwrap();
        let standing = rules::counters(Role::Router).unwrap();
        for (what, make) in changes {
            assert_eq!(change(make).unwrap_err().errno(), Some(Errno::EPERM), "{what}");
            assert!(watch.is_intact().unwrap() && !watch.is_disturbed().unwrap(), "{what}");
        }
        for refused in [rules::remove(Role::Router), install(Role::Router)(&Socket::open(Protocol::Netfilter).unwrap())] {
            let said = refused.unwrap_err().to_string();
            assert!(said.ends_with("(a running daemon holds the filter rules)"), "{said}");
        }
        assert_eq!(rules::counters(Role::Router).unwrap(), standing);
        assert_eq!(rules::close(Role::Router), Ok(false));
        // The daemon itself can.
        let [from, to] = ["192.0.2.1", "198.51.100.1"].map(|address| address.parse().unwrap());
        admit(&admitted, from, to, 4096, Duration::from_secs(600));
        admitted.forget(flow_of(from, to, 4096), 4096);
        admitted.settled();
        assert_eq!(admitted.counts(), (0, 0));
        assert!(!watch.is_disturbed().unwrap());
        admitted.owner().remove(Role::Router).unwrap();
        assert_eq!(tables(), [""; 0]);
    });
}

/// X-58, INV-01. Nobody listens to the queues, so that nothing passes; `watch` measures what passes where the kernel cannot hold a table.
#[test]
fn no_packet_of_a_flood_passes_a_router_while_its_rules_are_flushed_and_its_daemon_dies() {
    if !privileged() {
        return;
    }
    let [sender, router, receiver] = behind_a_router();
    let to = address("192.168.21.4", 5001);
    let (from, receiving) = (sender.udp(address("192.168.20.1", 5000)), receiver.udp(to));
    // Without rules they arrive.
    from.send_to(b"data", to).unwrap();
    receiving.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(receiving.recv(&mut [0; 16]).unwrap(), 4);
    receiving.set_nonblocking(true).unwrap();

    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let more = || {
        let before = sent.load(Ordering::Relaxed);
        eventually("the flood goes on", || sent.load(Ordering::Relaxed) > before + 500);
    };
    let mut daemon = router.run(holder);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sent.fetch_add(u64::from(from.send_to(b"data", to).is_ok()), Ordering::Relaxed);
            }
        });
        for _ in 0..2 {
            for _ in 0..10 {
                more();
                router.run(|| change(delete_everything)).unwrap();
            }
            let before = router.run(names);
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            more();
            assert_eq!(router.run(|| (rules::installed(Role::Router).unwrap(), rules::held(Role::Router).unwrap())), (STANDS, false));
            daemon = router.run(holder);
            assert_eq!(router.run(|| (tables(), names())), (vec!["pbs-router".to_owned(); 2], before), "what there was, once");
        }
        std::thread::sleep(QUIET);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(receiving.recv(&mut [0; 16]).is_err(), "something of {} packets has passed", sent.load(Ordering::Relaxed));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// A process that holds the router's rules of this network namespace.
fn holder() -> std::process::Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "process_that_holds_rules_until_it_is_killed", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the child holds the rules", || rules::held(Role::Router).unwrap());
    child
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn process_that_holds_rules_until_it_is_killed() {
    let _watch = Watch::start_through(Role::Router, install(Role::Router), Owner::open().unwrap()).unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

fn install(role: Role) -> Install {
    match role {
        Role::Router => Box::new(|socket| RouterRules::new(1, 2, 30_270).install_through(socket)),
        Role::Host => Box::new(|socket| HostRules::new(3, 4, 30_270).install_through(socket)),
    }
}

/// Family, chain and name of every counted rule of a router.
fn names() -> Vec<String> {
    let counters = rules::counters(Role::Router).unwrap();
    counters.iter().map(|counter| format!("{} {} {}", counter.family, counter.chain, counter.rule)).collect()
}

/// The names of all tables that there are.
fn tables() -> Vec<String> {
    let socket = Socket::open(Protocol::Netfilter).unwrap();
    let name = |message: &traffic::netlink::Message<'_>| {
        let name = attributes(message.after(4)?).find(1)?.map(|name| name.text()).transpose()?;
        Ok(name.map(str::to_owned))
    };
    socket.dump("list the tables", LIST_TABLES, &[0; 4], |_| {}, name).unwrap()
}

fn of_table(batch: &mut Batch, kind: u16, name: &str, flags: u16, fill: impl FnOnce(&mut traffic::netlink::Writer)) {
    batch.request("change", kind, flags, &IPV4, |writer| {
        writer.put_text(1, name);
        fill(writer);
    });
}
