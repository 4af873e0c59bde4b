//! What the receiving host changes in a permission that lives, under a running connection (`pbs change`).

use std::time::Duration;

use pbs_lab::network::topology::Family;
use pbs_lab::pki::KeyKind;
use pbs_lab::process::Daemon;
use serde_json::{Value, json};

use crate::ending::{Talk, flow};
use crate::site::{LARGE, Site, give, take};

const PROMPTLY: Duration = Duration::from_secs(1);

/// FR-18, FS-24, FN-23, TMP-11, TMP-14: a fresh key three times within a few seconds, both ways of the connection.
pub(crate) fn rekeyed() {
    let site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    let there = flow(&site);
    let back = reversed(&there);
    let mut keys = vec![spi(&site, &site.receiver, &there)];
    for _ in 0..3 {
        order(&site.receiver, &there, json!({ "rekey": true }));
        order(&site.sender, &back, json!({ "rekey": true }));
        // Packets under the key before still pass for a while: they are under way. The next key waits for the end of that.
        std::thread::sleep(Duration::from_millis(2300));
        keys.push(spi(&site, &site.receiver, &there));
    }
    talk.must_move(PROMPTLY);
    drop(talk);
    std::thread::sleep(Duration::from_millis(2500));
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 4, "each order has led to another key");
    for daemon in [&site.sender, &site.router, &site.receiver] {
        assert_eq!(spi(&site, daemon, &there), spi(&site, &site.receiver, &there), "TMP-11");
        assert_eq!(spi(&site, daemon, &back), spi(&site, &site.sender, &back), "TMP-11");
        assert_eq!(drops(daemon), [] as [Value; 0], "TMP-14");
    }
    let (left, right) = (site.seen_in_the_end(&site.left, LARGE.port), site.seen_in_the_end(&site.right, LARGE.port));
    assert_eq!(left, right, "what went in at one side of the router came out at the other");
    assert_eq!((left.there.clear, left.back.clear), (0, 0));
}

/// FR-18 with Solution 3: an operator does not wait for an attack.
pub(crate) fn signed() {
    signed_by(KeyKind::Ed25519, "ed25519");
}

/// P-083, P-166, X-70: signatures of 256 octets, and packets that still fit through the links.
pub(crate) fn signed_by_rsa() {
    signed_by(KeyKind::Rsa2048, "rsa-pss-sha256");
}

fn signed_by(key: KeyKind, algorithm: &str) {
    let site = Site::start_with(key);
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    let there = flow(&site);
    order(&site.receiver, &there, json!({ "sign": true }));
    std::thread::sleep(PROMPTLY);
    talk.must_move(PROMPTLY);
    for daemon in [&site.router, &site.receiver] {
        assert_eq!(shown(&site, daemon, &there)["algorithm"], algorithm);
    }
    drop(talk);
    // Full packets of another connection, signed as well.
    let file = [9; 500_000];
    std::thread::sleep(PROMPTLY);
    let server = site.serve(Family::Ipv4, LARGE.port, take);
    let (stream, _) = site.connect(Family::Ipv4, LARGE.port);
    let mut another = there.clone();
    another["source_port"] = json!(stream.local_addr().unwrap().port());
    order(&site.receiver, &another, json!({ "sign": true }));
    std::thread::sleep(PROMPTLY / 2);
    give(stream, &file).unwrap();
    assert_eq!(shown(&site, &site.router, &another)["algorithm"], algorithm);
    assert!(shown(&site, &site.router, &another)["counted"].as_u64().unwrap() > 500_000);
    assert_eq!(server.join().unwrap().unwrap(), file);
    for daemon in [&site.sender, &site.router, &site.receiver] {
        assert_eq!(drops(daemon), [] as [Value; 0]);
    }
}

/// FR-17, P-106, P-107: volume up, then down below what was counted, then up again, and the connection goes on.
pub(crate) fn amended() {
    let site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    let there = flow(&site);
    for allowed in [6_000_000_000_u64, 70 << 20] {
        order(&site.receiver, &there, json!({ "volume": allowed }));
        std::thread::sleep(PROMPTLY / 2);
        for daemon in [&site.sender, &site.router, &site.receiver] {
            assert_eq!(shown(&site, daemon, &there)["allowed"], allowed);
        }
        talk.must_move(PROMPTLY);
    }
    order(&site.receiver, &there, json!({ "refresh_ms": 30_000, "ttl_ms": 60_000 }));
    std::thread::sleep(PROMPTLY / 2);
    let shown = shown(&site, &site.router, &there);
    assert_eq!(shown["refresh_ms"], 30_000, "{shown}");
    talk.must_move(PROMPTLY);
    for daemon in [&site.sender, &site.router, &site.receiver] {
        assert_eq!(drops(daemon), [] as [Value; 0]);
    }
}

fn order(daemon: &Option<Daemon>, flow: &Value, change: Value) {
    let mut request = flow.clone();
    request["command"] = json!("change");
    for (field, value) in change.as_object().unwrap() {
        request[field] = value.clone();
    }
    daemon.as_ref().unwrap().ask(&request).unwrap();
}

fn reversed(flow: &Value) -> Value {
    let mut reversed = flow.clone();
    for (one, other) in [("source", "destination"), ("source_port", "destination_port")] {
        (reversed[one], reversed[other]) = (flow[other].clone(), flow[one].clone());
    }
    reversed
}

fn shown(site: &Site, daemon: &Option<Daemon>, flow: &Value) -> Value {
    let flows = site.flows(daemon);
    flows.iter().find(|shown| shown["flow"] == *flow).unwrap_or_else(|| panic!("{flow} is not among {flows:#?}")).clone()
}

fn spi(site: &Site, daemon: &Option<Daemon>, flow: &Value) -> String {
    let shown = shown(site, daemon, flow);
    shown["spi"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
}

/// Packets that a node has dropped, by reason.
fn drops(daemon: &Option<Daemon>) -> Vec<Value> {
    let counters = daemon.as_ref().unwrap().ask(&json!({ "command": "counters" })).unwrap();
    let queues = counters.as_object().into_iter().flat_map(|queues| queues.values());
    let dropped = queues.flat_map(|queue| queue["dropped"].as_array().cloned().unwrap_or_default());
    dropped.filter(|reason| reason["packets"] != 0).collect()
}
