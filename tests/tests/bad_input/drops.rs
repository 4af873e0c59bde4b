//! Whatever a node drops is shown by `counters`, wherever it was dropped: by a daemon, by the kernel's queues, or by a filter rule.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, SENDER, SENDER_LINK};
use pbs_lab::process::Program::Router;
use serde_json::Value;

use crate::support::daemon::{Daemon, wait_until};
use crate::support::site::Site;
use crate::support::{command, end};

#[test]
fn what_is_above_a_bucket_and_what_finds_the_signalling_queue_full_is_shown() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let router = site.start_router();
    let attacker = Injector::new(&site.chain.sender, SENDER_LINK, &site.chain.router, LEFT_LINK).unwrap();
    let query = [0x4e, 0x04, 0xbd, 0xa5, 1, 16, 0, 0, 0x7f, 0xc0, 0x80, 0x40];
    let flood = vec![packet::udp((SENDER, 4000), (RECEIVER, 270), &query).unwrap(); 400];
    assert_eq!((above_the_bucket(&router), queue_full(&router)), (0, 0));

    // 2000 a second and 500 at once are let through to a queue of 512, which nobody empties meanwhile.
    kill(router.pid(), Signal::SIGSTOP).unwrap();
    for _ in 0..4 {
        let _ = attacker.send(&flood);
        std::thread::sleep(Duration::from_millis(300));
    }
    for _ in 0..10 {
        let _ = attacker.send(&flood);
    }
    kill(router.pid(), Signal::SIGCONT).unwrap();
    wait_until("both are shown", || {
        // On a busy machine what was sent may have been no more than the bucket gives.
        let _ = attacker.send(&flood);
        above_the_bucket(&router) > 0 && queue_full(&router) > 0
    });

    let shown = end(command(Router, "counters").arg("--control").arg(router.control()));
    assert_eq!(shown.code, Some(0));
    for words in [&["ip ", "signalling", "above the bucket"][..], &["queue_full"]] {
        assert!(shown.output.lines().any(|line| words.iter().all(|word| line.contains(word))), "{words:?}: {}", shown.output);
    }
    let counters = router.ask("counters");
    assert_eq!(counters["data"]["kernel_drops"]["packets"], 0);
    for reason in ["hop_count_exhausted", "taken_and_lost", "queue_full"] {
        let dropped = counters["signalling"]["dropped"].as_array().unwrap();
        assert!(dropped.iter().any(|row| row["reason"] == reason && row["packets"].is_u64()), "{reason}: {counters}");
    }
}

#[track_caller]
fn above_the_bucket(router: &Daemon) -> u64 {
    let counters = router.ask("counters");
    let rules = counters["rules"].as_array().unwrap();
    let found = |rule: &&Value| rule["family"] == "ip" && rule["chain"] == "signalling" && rule["rule"] == "above the bucket";
    rules.iter().find(found).unwrap()["packets"].as_u64().unwrap()
}

#[track_caller]
fn queue_full(router: &Daemon) -> u64 {
    router.ask("counters")["signalling"]["kernel_drops"]["packets"].as_u64().unwrap()
}
