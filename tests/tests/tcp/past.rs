//! Packets that come to hosts past their queues (AF_XDP), and from the daemon to programs by a device of its own.

use std::fs;
use std::time::Duration;

use pbs_lab::attack::injector::Injector;
use pbs_lab::network::frame;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{Family, MTU, RECEIVER_LINK, RIGHT_LINK, SENDER_LINK};
use pbs_lab::process::Daemon;
use serde_json::{Value, json};
use traffic::af_xdp::INLET;

use crate::ending::Talk;
use crate::site::{LARGE, REFRESH, Site};
use crate::transfer::{FILE, upload_over};

const FULL_SIZE: [(Family, usize); 2] = [(Family::Ipv4, MTU as usize - 76 + 28), (Family::Ipv6, MTU as usize - 80 + 32)];
const AH: usize = 20;
const COPIES: usize = 20;

pub(crate) fn files() {
    for (family, full_size) in FULL_SIZE {
        let site = Site::start_past_the_queue(RECEIVER_LINK, |_| {});
        for (daemon, link) in [(&site.sender, SENDER_LINK), (&site.receiver, RECEIVER_LINK)] {
            let part = json!({ "interface": link, "program": "generic", "queues": 1, "zero_copy": false, "takes_part": true });
            assert_eq!(datapath(daemon), json!({ "kind": "af_xdp", "interfaces": [part] }));
        }
        upload_over(&site, family, LARGE, full_size);
        let (octets, packets) = came(&site.chain.receiver, INLET).unwrap();
        println!("  {family:?}: {packets} packets with {octets} octets by {INLET}, {} by the queue", queued(&site));
        assert!(octets > FILE as u64);
        assert!((10..FILE as u64 / full_size as u64 / 2).contains(&packets), "put together");
        assert!(came(&site.chain.sender, INLET).unwrap().1 > 10, "acknowledgements");
        assert!(queued(&site) < 100);
    }
}

pub(crate) fn strict_reverse_path() {
    let site = Site::start_past_the_queue(RECEIVER_LINK, |chain| {
        chain.receiver.write_setting("net/ipv4/conf/all/rp_filter", "1").unwrap();
    });
    upload_over(&site, Family::Ipv4, LARGE, FULL_SIZE[0].1);
    assert!(came(&site.chain.receiver, INLET).unwrap().0 > FILE as u64);
}

/// P-140, P-157: judged as what comes by the queue.
pub(crate) fn forged_and_replayed() {
    let site = Site::start_past_the_queue(RECEIVER_LINK, |_| {});
    let talk = Talk::start(&site);
    talk.must_move(Duration::from_secs(5));
    drop(talk);
    site.seen_in_the_end(&site.right, LARGE.port);
    let with_data =
        |ip: &[u8]| frame::read(ip).is_some_and(|seen| seen.ports.1 == LARGE.port && seen.authentication.is_some() && seen.length > 150);
    let good = site.right.look(|frames| frames.iter().rev().filter_map(|frame| frame.ip()).find(|ip| with_data(ip)).unwrap().to_vec());
    let mut forged = good.clone();
    let number = u32::from_be_bytes(good[AH + 8..AH + 12].try_into().unwrap());
    forged[AH + 8..AH + 12].copy_from_slice(&(number + 50).to_be_bytes());
    let injector = Injector::new(&site.chain.router, RIGHT_LINK, &site.chain.receiver, RECEIVER_LINK).unwrap();
    let state = || (came(&site.chain.receiver, INLET), queued(&site), accepted(&site.receiver));
    let (before, counted) = (state(), ["replayed", "bad_icv"].map(|reason| dropped(&site.receiver, reason)));
    injector.send(&vec![good; COPIES]).unwrap();
    injector.send(&vec![forged; COPIES]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let now = ["replayed", "bad_icv"].map(|reason| dropped(&site.receiver, reason));
    assert_eq!(now, counted.map(|packets| packets + COPIES as u64));
    assert_eq!(state(), before, "nothing of it goes on, nor comes by the queue");
}

/// INV-12: fail closed.
pub(crate) fn killed() {
    let mut site = Site::start_past_the_queue(RECEIVER_LINK, |_| {});
    let talk = Talk::start(&site);
    talk.must_move(Duration::from_secs(5));
    site.receiver.as_mut().unwrap().kill().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let state = || (site.seen_in_the_end(&site.right, LARGE.port).there.packets, segments(&site.chain.receiver));
    let before = state();
    std::thread::sleep(Duration::from_secs(3));
    let after = state();
    println!("  {} packets more at its link, {} at its TCP", after.0 - before.0, after.1 - before.1);
    assert!(after.0 > before.0, "its link brings packets");
    assert_eq!(after.1, before.1, "and its stack has none of them");
    assert_eq!(came(&site.chain.receiver, INLET), None, "the device is gone");
    site.start_receiver();
    talk.must_move(REFRESH * 3);
    assert!(came(&site.chain.receiver, INLET).unwrap().1 > 0);
}

pub(crate) fn refused() {
    let site = Site::start_past_the_queue("nowhere", |_| {});
    assert_eq!(datapath(&site.receiver), json!({ "kind": "nfqueue", "not_af_xdp_because": "there is no interface nowhere" }));
    upload_over(&site, Family::Ipv4, LARGE, FULL_SIZE[0].1);
    assert!(queued(&site) > FILE as u64 / FULL_SIZE[0].1 as u64);
    assert_eq!(came(&site.chain.receiver, INLET), None);
    let site = Site::start_past_the_queue(RECEIVER_LINK, |chain| {
        let end = |host, interface| End { host, interface, addresses: &[] };
        link::join(end(&chain.receiver, INLET), end(&chain.router, "other"), MTU).unwrap();
    });
    let shown = datapath(&site.receiver);
    assert_eq!(shown["kind"], "nfqueue");
    assert!(shown["not_af_xdp_because"].as_str().unwrap().starts_with("cannot make the device pbs-in0"), "{shown}");
}

fn ask(daemon: &Option<Daemon>, command: &str) -> Value {
    daemon.as_ref().unwrap().ask(&json!({ "command": command })).unwrap()
}

fn datapath(daemon: &Option<Daemon>) -> Value {
    ask(daemon, "status")["datapath"].clone()
}

fn accepted(daemon: &Option<Daemon>) -> u64 {
    ask(daemon, "counters")["inbound"]["accepted"]["packets"].as_u64().unwrap()
}

fn dropped(daemon: &Option<Daemon>, reason: &str) -> u64 {
    let counters = ask(daemon, "counters");
    let rows = counters["inbound"]["dropped"].as_array().unwrap();
    rows.iter().find(|row| row["reason"] == reason).unwrap()["packets"].as_u64().unwrap()
}

/// Octets and packets that have come by an interface, as the kernel has counted them; nothing if there is none.
fn came(host: &Namespace, interface: &str) -> Option<(u64, u64)> {
    let devices = host.run(|| fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect();
    Some((numbers[0], numbers[1]))
}

/// TCP segments that have come to a host, as its kernel has counted them.
fn segments(host: &Namespace) -> u64 {
    let counted = host.run(|| fs::read_to_string("/proc/thread-self/net/snmp")).unwrap();
    let lines: Vec<Vec<&str>> = counted.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split(' ').collect()).collect();
    let place = lines[0].iter().position(|name| *name == "InSegs").unwrap();
    lines[1][place].parse().unwrap()
}

/// Packets that have come to the receiver's inbound queue.
fn queued(site: &Site) -> u64 {
    let queues = site.chain.receiver.run(|| fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue")).unwrap();
    let lines = queues.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.filter(|columns| columns[0] == "4").map(|columns| columns[7].parse::<u64>().unwrap()).sum()
}
