//! A router with a good certificate, between sender and receiver, that says notices of everything in the name of somebody else, in every
//! state that a flow goes through, and each of them again: nobody gives up anything for them, and Queries become no more than one a
//! second.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use pbs_lab::network::topology::{RECEIVER, SENDER};
use pbs_lab::process::Program;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::common;
use crate::support::site::Site;

/// As in the laboratory's tampering router.
const NOTICES: u16 = 9046;
const SOURCE: u16 = 9047;

#[test]
fn notices_forged_and_repeated_in_every_state_end_nothing_and_are_counted() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let ask = "[[ask]]\ndestination = \"192.168.21.0/24\"\nprotocol = \"udp\"\nvolume = 100000\n";
    site.files.write("sender.toml", common("sender") + ask);
    let receiver = site.start_receiver();
    let router = Daemon::start(&site.chain.router, Program::TamperingRouter, &site.files, "router");
    let sender = site.start_sender();
    let application = site.application(RECEIVER);
    wait_until("the flow beside is permitted", || {
        application.send();
        application.arrives(Duration::from_millis(100))
    });
    let running = application.run();

    // Wait P: they come before the answer does.
    let receiving = site.chain.receiver.run(|| UdpSocket::bind((RECEIVER, NOTICES))).unwrap();
    let sending = site.chain.sender.run(|| UdpSocket::bind((SENDER, SOURCE))).unwrap();
    sending.connect((RECEIVER, NOTICES)).unwrap();
    receiving.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    wait_until("it is permitted nevertheless", || {
        let _ = sending.send(b"application");
        receiving.recv(&mut [0; 64]).is_ok()
    });
    let permission = |daemon: &Daemon| {
        let found = daemon.permissions().into_iter().find(|flow| flow["flow"]["destination_port"] == NOTICES);
        found.map(|flow| (flow["session"].clone(), flow["spi"].clone(), flow["allowed"].clone()))
    };
    let nodes = [&sender, &router, &receiver];
    let stands = nodes.map(permission);
    assert!(stands.iter().all(Option::is_some), "{stands:?}");

    // Permitted: those that ask for a refresh are answered by Queries, which bring the next notices.
    let (began, asked) = (Instant::now(), taken(&router, "FN-21"));
    std::thread::sleep(Duration::from_secs(4));
    let (more, seconds) = (taken(&router, "FN-21") - asked, began.elapsed().as_secs());
    println!("{more} Queries in {seconds} s; sender {}; receiver {}", nslp(&sender), nslp(&receiver));
    assert_eq!(nodes.map(permission), stands, "nothing ends, nothing changes");
    // Two flows ask, each on its own account besides.
    assert!(taken(&sender, "FS-34") > 0 && more <= 2 * seconds + 4, "one Query a second at most for each flow");
    let (heard, silently) = (taken(&sender, "FS-13"), sender.ask("status")["sending"]["nslp"]["refused_silently"].as_u64().unwrap());
    assert!(heard > 1000 && silently + 200 > heard / 2, "all of {heard} are counted, and few are told of: {silently} are not");
    let misdirected = |node: &Daemon| node.ask("status")["receiving"]["nslp"]["refused"]["FlowMismatch"].as_u64().unwrap_or(0);
    assert!(misdirected(&receiver) > 200, "{}", nslp(&receiver));
    running.must_lose_nothing("notices under a permission");

    // Releasing, and Idle when it is over.
    let released = json!({
        "command": "release", "source": SENDER, "destination": RECEIVER, "protocol": 17, "source_port": SOURCE, "destination_port": NOTICES,
    });
    sender.ask_with(&released);
    wait_until("it is given back at every node", || nodes.iter().all(|node| permission(node).is_none()));
    running.must_lose_nothing("notices about a release");
}

fn nslp(daemon: &Daemon) -> String {
    let status = daemon.ask("status");
    let found = [&status["nslp"], &status["sending"]["nslp"], &status["receiving"]["nslp"]].map(Value::to_string);
    found.join(" ")
}

/// How often a node has taken a row.
fn taken(daemon: &Daemon, rule: &str) -> u64 {
    let status = daemon.ask("status");
    ["/nslp/rules", "/sending/nslp/rules", "/receiving/nslp/rules"]
        .iter()
        .filter_map(|place| status.pointer(&format!("{place}/{rule}"))?.as_u64())
        .sum()
}
