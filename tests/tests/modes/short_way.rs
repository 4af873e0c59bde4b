//! Packets with AH past the packet queue (AF_XDP), with real daemons.

use serde_json::{Value, json};

use crate::site::{Site, eventually};

const SECTION: &str = "[datapath]\nkind = \"af_xdp\"\ninterfaces = [\"r0\", \"r1\"]\n";

/// INV-01: what has a permission passes by the short way while the daemon lives, and not when it is killed.
#[test]
fn a_permitted_flow_passes_the_queue_by_and_nothing_passes_a_router_that_is_killed_until_it_is_there_again() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    const PACKETS: u64 = 200;
    let mut site = Site::build("", SECTION, true);
    let (sender, receiver) = site.permitted();
    let status = site.ask("status");
    let part = |name: &str| json!({ "interface": name, "program": "driver", "queues": 1, "zero_copy": false, "takes_part": true });
    assert_eq!(status["datapath"], json!({ "kind": "af_xdp", "shield": true, "interfaces": [part("r0"), part("r1")] }));
    let counted = |site: &Site| (accepted(&site.ask("counters")), site.rule("forward", "data"));
    let before = counted(&site);
    for _ in 0..PACKETS {
        sender.send(&[1; 100]).unwrap();
        assert!(receiver.recv(&mut [0; 200]).is_ok());
    }
    let after = counted(&site);
    assert_eq!(after.0 - before.0, PACKETS);
    assert!(after.1 - before.1 < PACKETS / 2, "{} of {PACKETS} by the queue", after.1 - before.1);
    site.kill_router();
    while receiver.recv(&mut [0; 200]).is_ok() {}
    for _ in 0..PACKETS {
        let _ = sender.send(&[1; 100]);
    }
    assert!(receiver.recv(&mut [0; 200]).is_err(), "it passes a router without a daemon");
    site.start_router();
    eventually("it goes on", || {
        let _ = sender.send(&[1; 100]);
        receiver.recv(&mut [0; 200]).is_ok()
    });
    assert_eq!(site.ask("status")["datapath"]["kind"], "af_xdp");
}

#[test]
fn without_what_it_needs_everything_goes_through_the_queue_and_status_says_why() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut site = Site::build("", &SECTION.replace("r1", "r9"), true);
    let (sender, receiver) = site.permitted();
    sender.send(b"by the queue").unwrap();
    assert!(receiver.recv(&mut [0; 200]).is_ok());
    assert_eq!(site.ask("status")["datapath"], json!({ "kind": "nfqueue", "not_af_xdp_because": "there is no interface r9" }));
}

/// Issue 5: the shield at the interfaces, and the queue behind it.
#[test]
fn the_shield_may_stand_at_the_interfaces_while_everything_goes_through_the_queue() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut site = Site::build("", "[datapath]\nkind = \"xdp_shield\"\ninterfaces = [\"r0\", \"r1\"]\n", true);
    let (sender, receiver) = site.permitted();
    let before = accepted(&site.ask("counters"));
    sender.send(b"by the queue").unwrap();
    assert!(receiver.recv(&mut [0; 200]).is_ok());
    assert_eq!(accepted(&site.ask("counters")), before + 1);
    let part = |name: &str| json!({ "interface": name, "program": "driver", "takes_part": true });
    assert_eq!(site.ask("status")["datapath"], json!({ "kind": "xdp_shield", "interfaces": [part("r0"), part("r1")] }));
    site.kill_router();
    while receiver.recv(&mut [0; 200]).is_ok() {}
    let _ = sender.send(b"to nobody");
    assert!(receiver.recv(&mut [0; 200]).is_err(), "it passes a router without a daemon");
}

fn accepted(counters: &Value) -> u64 {
    counters["data"]["accepted"]["packets"].as_u64().unwrap()
}
