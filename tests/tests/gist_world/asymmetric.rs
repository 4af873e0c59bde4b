//! Routes that are not the same in both directions.
//!
//! ```text
//!                +-- router1 -->-+
//! sender -- near                 far -- receiver
//!                +--<-- router2 -+
//! ```
//!
//! `near` and `far` know nothing of permissions. What goes to the receiver's network takes the upper way, what goes to the sender's the
//! lower one.

use std::net::UdpSocket;
use std::time::Instant;

use pbs_lab::network::capture::Capture;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::Family::{Ipv4, Ipv6};
use pbs_lab::network::topology::MTU;
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use serde_json::{Value, json};

use crate::row::{PATIENCE, PORT, await_that, both, configure, data, forward, of};

/// Each direction's permission is found, kept and counted on its own way, and only there.
#[test]
fn flows_in_both_directions_have_their_permissions_on_the_routers_that_they_go_over() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
    let (_remainder, directory) = Remainder::temporary("pbs-gist-world").unwrap();
    let [sender, near, router1, router2, far, receiver] =
        ["sender", "near", "router1", "router2", "far", "receiver"].map(|name| Namespace::create(name).unwrap());
    [&near, &router1, &router2, &far].into_iter().for_each(forward);
    let links = [
        ((&sender, "s0", both(20, 1)), (&near, "n0", both(20, 254))),
        ((&near, "n1", both(31, 1)), (&router1, "p0", both(31, 2))),
        ((&router1, "p1", both(32, 1)), (&far, "f1", both(32, 2))),
        ((&near, "n2", both(33, 1)), (&router2, "q0", both(33, 2))),
        ((&router2, "q1", both(34, 1)), (&far, "f2", both(34, 2))),
        ((&far, "f0", both(21, 254)), (&receiver, "d0", both(21, 4))),
    ];
    for ((left, left_link, left_addresses), (right, right_link, right_addresses)) in &links {
        let end = |host, interface, addresses| End { host, interface, addresses };
        link::join(end(left, left_link, left_addresses), end(right, right_link, right_addresses), MTU).unwrap();
    }
    for family in [Ipv4, Ipv6] {
        let at = |network, host| of(family, both(network, host));
        let prefix = both(0, 0)[usize::from(family == Ipv6)].1;
        link::add_default_route(&sender, at(20, 254)).unwrap();
        link::add_default_route(&receiver, at(21, 254)).unwrap();
        // The routers' own networks are reached over themselves; the flows' ends as the picture says.
        for (host, network, gateway) in [
            (&near, 21, at(31, 2)),
            (&near, 32, at(31, 2)),
            (&near, 34, at(33, 2)),
            (&far, 20, at(34, 1)),
            (&far, 31, at(32, 1)),
            (&far, 33, at(34, 1)),
            (&router1, 21, at(32, 2)),
            (&router1, 20, at(31, 1)),
            (&router2, 20, at(33, 1)),
            (&router2, 21, at(34, 2)),
        ] {
            link::set_route(host, (at(network, 0), prefix), gateway).unwrap();
        }
    }
    let all =
        |networks: &[(u8, u8)]| networks.iter().flat_map(|(network, host)| both(*network, *host)).map(|(address, _)| address).collect();
    let nodes = [
        ("router1", all(&[(31, 2), (32, 1)])),
        ("router2", all(&[(33, 2), (34, 1)])),
        ("receiver", all(&[(21, 4)])),
        ("sender", all(&[(20, 1)])),
    ];
    configure(&directory, &nodes, "");
    let started = Instant::now();
    let captures = [(&router1, "p1"), (&router2, "q0")].map(|(host, interface)| Capture::start(host, interface, started).unwrap());
    let daemons = [("router1", &router1), ("router2", &router2), ("receiver", &receiver), ("sender", &sender)].map(|(name, host)| {
        let program = if name.starts_with("router") { Program::Router } else { Program::Host };
        Daemon::start(host, program, &directory, name).unwrap()
    });
    let logs = || daemons.iter().map(|daemon| format!("--- {}\n{}\n", daemon.name(), daemon.last_words())).collect::<String>();
    let flows = |at: usize| -> Vec<u64> {
        let flows = daemons[at].ask(&json!({ "command": "flows" })).unwrap();
        let ports = flows.as_array().unwrap().iter().filter_map(|flow| flow.pointer("/flow/destination_port").and_then(Value::as_u64));
        ports.collect()
    };
    for (number, family) in [Ipv4, Ipv6].into_iter().enumerate() {
        let [there, back] = [PORT + 10 * u16::try_from(number).unwrap(), PORT + 1 + 10 * u16::try_from(number).unwrap()];
        let left = sender.run(|| UdpSocket::bind((family.sender(), back))).unwrap();
        let right = receiver.run(|| UdpSocket::bind((family.receiver(), there))).unwrap();
        for socket in [&left, &right] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        left.send_to(b"there", (family.receiver(), there)).unwrap();
        assert_eq!(right.recv(&mut [0; 16]).unwrap_or_else(|error| panic!("{family:?} there: {error}\n{}", logs())), 5);
        right.send_to(b"and back", (family.sender(), back)).unwrap();
        assert_eq!(left.recv(&mut [0; 16]).unwrap_or_else(|error| panic!("{family:?} back: {error}\n{}", logs())), 8);

        await_that("packets that are not seen", || data(&captures[0], there).len() + data(&captures[1], back).len() == 2);
        let carried = captures.each_ref().map(|capture| (data(capture, there).len(), data(capture, back).len()));
        assert_eq!(carried, [(1, 0), (0, 1)], "{family:?}: packets there and back on each way");
        let known = [flows(0), flows(1)].map(|ports| (ports.contains(&there.into()), ports.contains(&back.into())));
        assert_eq!(known, [(true, false), (false, true)], "{family:?}: permissions there and back at each router");
    }
}
