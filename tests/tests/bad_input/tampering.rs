//! A router with a good certificate, between sender and receiver, that changes, moves and repeats what they sign (real daemons, real
//! sockets): nothing comes of it, every message is refused and counted, and the flow beside is as it was.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use pbs_lab::network::topology::{RECEIVER, SENDER};
use pbs_lab::process::Program;
use serde_json::Value;

use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::common;
use crate::support::site::Site;

/// A flow that the router lets alone.
const BESIDE: u16 = 9000;
/// As in the laboratory's tampering router.
const PERMISSIONS_CHANGED: u16 = 9042;
const QUERIES_CHANGED: u16 = 9043;
const QUERIES_MOVED: u16 = 9044;
const ALL_REPEATED: u16 = 9045;

#[test]
fn a_router_that_changes_moves_or_repeats_messages_brings_nobody_to_anything() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let ask = "[[ask]]\ndestination = \"192.168.21.0/24\"\nprotocol = \"udp\"\nvolume = 100000\n";
    site.files.write("sender.toml", common("sender") + ask);
    let receiver = site.start_receiver();
    let router = Daemon::start(&site.chain.router, Program::TamperingRouter, &site.files, "router");
    let sender = site.start_sender();
    let flow = |port| {
        let receiving = site.chain.receiver.run(|| UdpSocket::bind((RECEIVER, port))).unwrap();
        receiving.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let sending = site.chain.sender.run(|| UdpSocket::bind((SENDER, 0))).unwrap();
        sending.connect((RECEIVER, port)).unwrap();
        (sending, receiving)
    };
    let beside = flow(BESIDE);
    assert!(passes(&beside, Duration::from_secs(10)), "{}", router.log());
    let permitted = |daemon: &Daemon| {
        let permissions = daemon.permissions().into_iter().filter(|flow| flow["flow"]["destination_port"] == BESIDE);
        permissions.map(|flow| (flow["session"].clone(), flow["spi"].clone(), flow["allowed"].clone())).collect::<Vec<_>>()
    };
    let nodes = [&sender, &router, &receiver];
    let before = nodes.map(permitted);
    assert!(before.iter().all(|permissions| permissions.len() == 1), "{before:?}");

    for (port, who) in [(PERMISSIONS_CHANGED, &sender), (QUERIES_CHANGED, &receiver), (QUERIES_MOVED, &receiver)] {
        let counted = refused(who);
        assert!(!passes(&flow(port), Duration::from_millis(2500)), "{port}");
        wait_until("it is refused and counted", || refused(who) > counted);
        let of_the_flow = sender.permissions().into_iter().filter(|flow| flow["flow"]["destination_port"] == port).count();
        assert_eq!(of_the_flow, 0, "{port}: the sender has no permission");
    }
    // What is repeated takes effect once: the flow lives on what was granted, and each copy is refused as old.
    let counted = [refused(&sender), refused(&receiver)];
    let repeated = flow(ALL_REPEATED);
    assert!(passes(&repeated, Duration::from_secs(10)));
    wait_until("copies are refused at both ends", || refused(&sender) > counted[0] && refused(&receiver) > counted[1]);
    for node in nodes {
        let of_the_flow: Vec<Value> =
            node.permissions().into_iter().filter(|flow| flow["flow"]["destination_port"] == ALL_REPEATED).collect();
        assert_eq!(of_the_flow.len(), 1, "{of_the_flow:?}");
        assert_eq!(of_the_flow[0]["allowed"], 100_000, "{of_the_flow:?}");
    }
    assert_eq!(nodes.map(permitted), before, "the flow beside");
    assert!(passes(&beside, Duration::from_secs(2)));
}

/// Whether a packet arrives in time; the program goes on sending.
fn passes((sending, receiving): &(UdpSocket, UdpSocket), patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        // What the host drops on the way out may come back as an error; that is not an arrival.
        let _ = sending.send(b"application");
        if receiving.recv(&mut [0; 64]).is_ok() {
            return true;
        }
    }
    false
}

/// Messages that a node has refused, of all codes, in whatever parts of its status they are counted.
fn refused(daemon: &Daemon) -> u64 {
    fn sum(status: &Value) -> u64 {
        let Value::Object(fields) = status else { return 0 };
        let of_codes = |codes: &Value| codes.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum::<u64>();
        fields.iter().map(|(name, value)| if name == "refused" { of_codes(value) } else { sum(value) }).sum()
    }
    sum(&daemon.ask("status"))
}
