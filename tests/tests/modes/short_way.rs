//! Packets with AH past the packet queue (AF_XDP), with real daemons.

use std::io;

use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, SENDER, SENDER_LINK};
use serde_json::{Value, json};
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::netlink::{Batch, CREATE, EXCLUSIVE, Protocol, Socket};
use traffic::packet::IpPacket;

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
    unknown_must_be_dropped_at_the_interface(&site);
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

#[test]
fn with_more_queues_than_may_take_part_everything_goes_through_the_queue_and_status_says_why() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut site = Site::build("", &SECTION.replace("r1", "many"), true);
    site.kill_router();
    site.chain.router.run(|| add_link("many", 64)).unwrap();
    site.start_router();
    let (sender, receiver) = site.permitted();
    sender.send(b"by the queue").unwrap();
    assert!(receiver.recv(&mut [0; 200]).is_ok());
    let why = "the interfaces have 65 queues together: more than 64";
    assert_eq!(site.ask("status")["datapath"], json!({ "kind": "nfqueue", "not_af_xdp_because": why }));
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
    unknown_must_be_dropped_at_the_interface(&site);
    site.kill_router();
    while receiver.recv(&mut [0; 200]).is_ok() {}
    let _ = sender.send(b"to nobody");
    assert!(receiver.recv(&mut [0; 200]).is_err(), "it passes a router without a daemon");
}

/// A link that receives by so many queues, of the calling thread's namespace.
fn add_link(name: &str, queues: u32) -> io::Result<()> {
    const NEW_LINK: u16 = 16;
    const NAME: u16 = 3;
    const INFORMATION: u16 = 18;
    const KIND: u16 = 1;
    const RECEIVING_QUEUES: u16 = 32;
    let mut batch = Batch::new("add a link");
    batch.request("add a link", NEW_LINK, CREATE | EXCLUSIVE, &[0; 16], |writer| {
        writer.put_text(NAME, name);
        writer.put_u32(RECEIVING_QUEUES, queues);
        writer.nest(INFORMATION, |information| information.put_text(KIND, "veth"));
    });
    Socket::open(Protocol::Route).and_then(|socket| socket.transact(batch)).map_err(io::Error::other)
}

/// INV-12, issue 5: the shield at the ingress goes with the daemon, and the rules stay.
#[test]
fn the_shield_stands_at_the_ingress_unless_told_otherwise_and_nothing_passes_a_router_that_is_killed() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut site = Site::build("", "", true);
    let (sender, receiver) = site.permitted();
    let stands = |site: &Site| {
        let shown = site.ask("status")["ingress_shield"].clone();
        let row = |name: &str| json!({ "interface": name, "takes_part": true });
        let interfaces = shown["interfaces"].as_array().cloned().unwrap_or_default();
        shown["stands"] == true && ["r0", "r1"].iter().all(|name| interfaces.contains(&row(name)))
    };
    assert!(stands(&site), "{}", site.ask("status")["ingress_shield"]);
    sender.send(b"by the queue").unwrap();
    assert!(receiver.recv(&mut [0; 200]).is_ok());
    site.kill_router();
    while receiver.recv(&mut [0; 200]).is_ok() {}
    for _ in 0..200 {
        let _ = sender.send(b"to nobody");
    }
    assert!(receiver.recv(&mut [0; 200]).is_err(), "it passes a router without a daemon");
    site.start_router();
    eventually("it goes on", || {
        let _ = sender.send(b"again");
        receiver.recv(&mut [0; 200]).is_ok()
    });
    assert!(stands(&site), "{}", site.ask("status")["ingress_shield"]);
    let open = Site::build("", "[datapath]\ningress_shield = false\n", true);
    let why = json!({ "stands": false, "because": "ingress_shield is false" });
    assert_eq!(open.ask("status")["ingress_shield"], why);
}

/// What comes between the addresses of the flow under an SPI of nobody's: dropped before any rule sees it, and counted.
#[track_caller]
fn unknown_must_be_dropped_at_the_interface(site: &Site) {
    const PACKETS: u64 = 200;
    let clear = packet::udp((SENDER, 9001), (RECEIVER, 9000), b"made up").unwrap();
    let key = IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap();
    let mut sealed = Vec::new();
    ah::insert(&IpPacket::parse(&clear).unwrap(), 0x7000_0000, Number { low: 1, high: None }, &key, &mut sealed).unwrap();
    let counted = || (dropped_before_queue(&site.ask("counters"), "unknown_spi"), site.dropped_by_rules("unknown_spi"));
    let before = counted();
    let injector = Injector::new(&site.chain.sender, SENDER_LINK, &site.chain.router, LEFT_LINK).unwrap();
    assert_eq!(injector.send(&vec![sealed; PACKETS as usize]).unwrap(), PACKETS);
    eventually("what is dropped at the interface is counted", || counted().0 >= before.0 + PACKETS);
    assert_eq!(counted(), (before.0 + PACKETS, before.1));
}

/// Reasons for which nothing was dropped there have no row.
fn dropped_before_queue(counters: &Value, reason: &str) -> u64 {
    let rows = counters["data"]["dropped_before_queue"].as_array().unwrap();
    rows.iter().filter(|row| row["reason"] == reason).map(|row| row["packets"].as_u64().unwrap()).sum()
}

fn accepted(counters: &Value) -> u64 {
    counters["data"]["accepted"]["packets"].as_u64().unwrap()
}
