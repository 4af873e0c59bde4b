//! A flow whose routed path is dead from the start goes over a relay.
//!
//! ```text
//! sender -- access --- router1 -- × -- receiver
//!              |                          |
//!              +------- back -------------+
//!                        |
//!                      relay1
//! ```
//!
//! `access` and `back` know nothing of permissions, and the link between them carries less than the others. What goes to the receiver's address is routed over router1; the receiver's way
//! back leads over `back`.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::Family::{self, Ipv4, Ipv6};
use pbs_lab::network::topology::{MTU, RECEIVER, SENDER};
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use serde_json::{Value, json};
use traffic::netlink::{Protocol, Socket, attributes};
use traffic::paths::PROTOCOL;

use crate::configuration::{address, flows, networks, prefix, write};

const PORT: u16 = 9000;
const SOURCE_PORT: u16 = 9001;
/// The link between `access` and `back`, and what it carries: less than the first link.
const BETWEEN: usize = 3;
const NARROW: u32 = 1440;
/// Two time-outs of a first Query, 5 s and 10 s, and the handshakes then.
const PATIENCE: Duration = Duration::from_secs(22);
const AH: u8 = 51;
/// Numbers of rtnetlink(7).
const GET_RULE: u16 = 34;
const RULE_PROTOCOL: u16 = 21;

struct Site {
    directory: PathBuf,
    sender: Namespace,
    receiver: Namespace,
    _others: [Namespace; 3],
    _relay: Namespace,
    /// On the sender's link, and towards the receiver behind the relay.
    first: Capture,
    last: Capture,
    daemons: Vec<Daemon>,
    _remainder: Remainder,
}

impl Site {
    fn start(family: Family) -> Self {
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let (remainder, directory) = Remainder::temporary("pbs-ways").unwrap();
        let [sender, access, router1, back, relay1, receiver] =
            ["sender", "access", "router1", "back", "relay1", "receiver"].map(|name| Namespace::create(name).unwrap());
        for host in [&access, &router1, &back] {
            host.write_setting("net/ipv4/ip_forward", "1").unwrap();
            host.write_setting("net/ipv6/conf/all/forwarding", "1").unwrap();
        }
        // Strict at the sender and the receiver; the sender's address comes in from the relay behind another link than leads to it.
        for (host, filter) in [(&sender, "1"), (&receiver, "1"), (&back, "0"), (&access, "0")] {
            host.write_setting("net/ipv4/conf/all/rp_filter", filter).unwrap();
            host.write_setting("net/ipv4/conf/default/rp_filter", filter).unwrap();
        }
        let at = |network, host| address(family, network, host);
        let links = [
            ((&sender, "s0", 20, 1), (&access, "a0", 20, 254)),
            ((&access, "a1", 22, 1), (&router1, "p0", 22, 2)),
            ((&router1, "p1", 24, 1), (&receiver, "d0", 24, 4)),
            ((&access, "a2", 26, 1), (&back, "b0", 26, 2)),
            ((&back, "b1", 27, 254), (&relay1, "l0", 27, 1)),
            ((&back, "b2", 25, 254), (&receiver, "d1", 25, 4)),
        ];
        for (place, ((left, left_link, network, host), (right, right_link, other_network, other_host))) in links.into_iter().enumerate() {
            let end = |host, interface, address| End { host, interface, addresses: address };
            let (a, b) = ([(at(network, host), prefix(family))], [(at(other_network, other_host), prefix(family))]);
            let mtu = if place == BETWEEN { NARROW } else { MTU };
            link::join(end(left, left_link, &a), end(right, right_link, &b), mtu).unwrap();
        }
        link::add_address(&receiver, "d1", family.receiver(), if family == Ipv4 { 32 } else { 128 }).unwrap();
        let gateways = [
            (&sender, at(20, 254)),
            (&access, at(26, 2)),
            (&router1, at(22, 1)),
            (&back, at(26, 1)),
            (&relay1, at(27, 254)),
            (&receiver, at(25, 254)),
        ];
        gateways.into_iter().for_each(|(host, gateway)| link::add_default_route(host, gateway).unwrap());
        for (host, gateway) in [(&access, at(22, 2)), (&router1, at(24, 4)), (&back, at(25, 4))] {
            link::set_route(host, (at(21, 0), prefix(family)), gateway).unwrap();
        }
        let started = Instant::now();
        let (first, last) = (Capture::start(&access, "a0", started).unwrap(), Capture::start(&back, "b2", started).unwrap());
        let [asks, grants] = flows(family, "udp");
        let [senders, receivers] = networks(family);
        let (near, far, beside) = (at(27, 1), at(27, 77), at(25, 0));
        let ways = format!(
            "[[path]]\nname = \"nobody\"\nrelay = \"{far}\"\nvolume = 10485760\n\n\
             [[path]]\nname = \"relay1\"\nrelay = \"{near}\"\nvolume = 10485760\ndestination = \"{receivers}\"\n\n"
        );
        let admits = format!(
            "[relay]\nforward_to = [\"{receivers}\", \"{beside}/{}\"]\n\n[[relay.admit]]\nsource = \"{senders}\"\nvolume = 10485760\nrefresh = \"5s\"\n",
            prefix(family)
        );
        let nodes = [
            ("sender", vec![family.sender()], "[datapath]\nlargest_protection = \"symmetric\"\n\n".to_owned() + &asks + &ways),
            ("router1", vec![at(22, 2), at(24, 1)], String::new()),
            ("relay1", vec![near], admits),
            ("receiver", vec![family.receiver(), at(24, 4), at(25, 4)], grants),
        ];
        write(&directory, &nodes);
        let mut daemons = Vec::new();
        for (name, host) in [("router1", &router1), ("relay1", &relay1), ("receiver", &receiver), ("sender", &sender)] {
            let program = if name == "router1" { Program::Router } else { Program::Host };
            daemons.push(Daemon::start(host, program, &directory, name).unwrap());
        }
        link::take_down(&router1, "p1").unwrap();
        Self { directory, sender, receiver, _others: [access, router1, back], _relay: relay1, first, last, daemons, _remainder: remainder }
    }

    fn ask(&self, name: &str, request: &Value) -> Value {
        self.daemons.iter().find(|daemon| daemon.name() == name).unwrap().ask(request).unwrap()
    }

    fn paths(&self) -> Vec<Value> {
        self.ask("sender", &json!({ "command": "status" }))["paths"].as_array().unwrap().clone()
    }

    /// Counted volume of the flow of a protocol at a node.
    fn counted(&self, name: &str, protocol: u64) -> Option<u64> {
        let flows = self.ask(name, &json!({ "command": "flows" }));
        flows.as_array().unwrap().iter().find(|flow| flow["flow"]["protocol"] == protocol)?["counted"].as_u64()
    }

    /// Routing rules of ways in the sender's kernel, of either IP version.
    fn rules(&self) -> usize {
        let count = |family: u8| {
            let mut fixed = [0; 12];
            fixed[0] = family;
            let socket = Socket::open(Protocol::Route).unwrap();
            let own = socket.dump(
                "list rules",
                GET_RULE,
                &fixed,
                |_| {},
                |message| {
                    let protocol = attributes(message.after(12)?).find(RULE_PROTOCOL)?.map(|value| value.value.to_vec());
                    Ok((protocol.as_deref() == Some(&[PROTOCOL])).then_some(()))
                },
            );
            own.unwrap().len()
        };
        self.sender.run(|| Ok(count(2) + count(10))).unwrap()
    }

    /// Whether the device of the way is there.
    fn has_device(&self) -> bool {
        self.sender.run(|| Ok(nix::net::if_::if_nametoindex("pbs-relay2").is_ok())).unwrap()
    }

    fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
        ["sender", "router1", "relay1", "receiver"].map(|name| format!("--- {name}\n{}", log(name))).concat()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
        self.daemons.clear();
    }
}

#[test]
fn a_flow_over_ipv4_goes_over_the_relay_that_lives_and_comes_back_at_its_release() {
    let Some(site) = relayed(Ipv4) else { return };
    site.ask(
        "sender",
        &json!({ "command": "release", "source": SENDER, "destination": RECEIVER, "protocol": 17,
        "source_port": SOURCE_PORT, "destination_port": PORT }),
    );
    let begun = Instant::now();
    while site.paths()[1]["flows"] != 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:#?}", site.paths());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!((site.rules(), site.has_device()), (0, true));
    assert_eq!(site.paths()[1]["live"], true, "the relay is kept");
}

#[test]
fn a_flow_over_ipv6_goes_over_the_relay_that_lives_and_nothing_is_left_of_the_way_of_a_killed_daemon() {
    let Some(mut site) = relayed(Ipv6) else { return };
    assert_eq!((site.rules(), site.has_device()), (1, true));
    site.daemons.iter_mut().find(|daemon| daemon.name() == "sender").unwrap().kill().unwrap();
    assert_eq!((site.rules(), site.has_device()), (1, false), "the device goes with the process, the rule not");
    site.daemons.retain(|daemon| daemon.name() != "sender");
    site.daemons.push(Daemon::start(&site.sender, Program::Host, &site.directory, "sender").unwrap());
    assert_eq!((site.rules(), site.has_device()), (0, true), "its successor has made a device, and nothing leads there");
}

/// A flow that has gone over the relay; none without the privilege to make networks.
fn relayed(family: Family) -> Option<Site> {
    if !pbs_lab::may_make_networks() {
        return None;
    }
    let site = Site::start(family);
    let receiver = site.receiver.run(|| UdpSocket::bind((family.receiver(), PORT))).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let sender = site.sender.run(|| UdpSocket::bind((family.sender(), SOURCE_PORT))).unwrap();
    sender.connect((family.receiver(), PORT)).unwrap();
    let (begun, mut arrived) = (Instant::now(), 0);
    while arrived < 50 {
        assert!(begun.elapsed() < PATIENCE, "{arrived} arrived\n{:#?}", site.paths());
        let _ = sender.send(&[7; 1000]);
        arrived += usize::from(receiver.recv(&mut [0; 2000]).is_ok());
    }
    println!("  {family:?}: after {:?} the flow is over the relay", begun.elapsed());
    let [nobody, relay1] = &site.paths()[..] else { panic!("two ways") };
    assert_eq!((&nobody["live"], &relay1["live"], &relay1["flows"]), (&json!(false), &json!(true), &json!(1)));
    assert_eq!((&relay1["relay"]["hops"], &relay1["relay"]["dropped"]), (&json!(1), &json!({})), "{relay1:#}");
    assert!(relay1["relay"]["round_trip_ms"].as_f64().unwrap() > 0.0);
    let packed = relay1["relay"]["packed"]["packets"].as_u64().unwrap();
    assert!(packed >= 50, "{relay1:#}");

    // Two budgets: that of the tunnel at the relay, that of the flow at the receiver.
    let tunnel = if family == Ipv4 { 4 } else { 41 };
    let (outer, inner) = (site.counted("relay1", tunnel).unwrap(), site.counted("receiver", 17).unwrap());
    assert!(inner > 50 * 1000 && outer > inner, "{outer} and {inner}");
    // On the first link every packet of the sender is AH or signalling, and none of its AH goes to the receiver.
    let to = |capture: &Capture, whom: IpAddr, since: Duration| {
        let is_it = |ip: &[u8]| frame::read(ip).is_some_and(|seen| seen.destination == whom && seen.authentication.is_some());
        capture.look(|frames| frames.iter().filter(|frame| frame.at >= since && frame.ip().is_some_and(is_it)).count())
    };
    let relay = address(family, 27, 1);
    let none = Duration::ZERO;
    assert_eq!((to(&site.first, family.receiver(), none), to(&site.first, relay, none) >= 50), (0, true), "packed on the sender's link");
    assert!(to(&site.last, family.receiver(), none) >= 50, "unpacked behind the relay, with its AH");
    assert_eq!(to(&site.last, relay, none), 0);
    assert!(site.first.look(|frames| frames.iter().filter_map(|frame| frame.ip()).any(|ip| ip.contains(&AH))));
    learns_what_the_path_to_the_relay_carries(&site, family, &sender, &receiver);
    Some(site)
}

/// A router before the relay says that it carries less: the way does then too, and what fills it arrives.
fn learns_what_the_path_to_the_relay_carries(site: &Site, family: Family, sender: &UdpSocket, receiver: &UdpSocket) {
    let (headers, ah, tunnel) = if family == Ipv4 { (28, 28, 20) } else { (48, 32, 40) };
    let carried = |link: u32| u64::from(link) - ah - tunnel;
    let full = |link: u32| vec![7; usize::try_from(carried(link) - headers - ah).unwrap()];
    let mtu = || site.paths()[1]["mtu"].as_u64().unwrap();
    assert_eq!(mtu(), carried(MTU));
    let begun = Instant::now();
    while mtu() != carried(NARROW) {
        assert!(begun.elapsed() < Duration::from_secs(5), "{:#?}", site.paths());
        let _ = sender.send(&full(MTU));
        let _ = receiver.recv(&mut [0; 2000]);
    }
    let arrived = (0..20).find_map(|_| {
        let _ = sender.send(&full(NARROW));
        receiver.recv(&mut [0; 2000]).ok().filter(|length| *length == full(NARROW).len())
    });
    assert!(arrived.is_some(), "a datagram that fills the way");
    // What may be fragmented and fits into nothing goes over in parts: some of the tunnel, some of the datagram.
    let whole: Vec<u8> = (0..4000_u32).map(|place| place.to_be_bytes()[3]).collect();
    let (mut arrived, mut buffer) = (0, vec![0; 5000]);
    for _ in 0..20 {
        let _ = sender.send(&whole);
        arrived += usize::from(receiver.recv(&mut buffer).is_ok_and(|length| buffer[..length] == whole));
    }
    assert!(arrived >= 18, "{arrived} of 20 datagrams in parts: {}", site.ask("relay1", &json!({ "command": "counters" }))["relay"]);
    assert_eq!(site.paths()[1]["live"], true);
}
