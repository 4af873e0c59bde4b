//! Hosts with a router of permissions each, a GIST router of another application between these, and a way back that none of them is on.
//!
//! ```text
//! sender -- router1 -- between -- router2 -- receiver
//!    +--------------<-- back --<------------------+
//! ```

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Instant;

use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame::{self, Seen};
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::MTU;
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use serde_json::{Value, json};

use crate::console::Console;
use crate::row::{ASSOCIATION_PORT, PATIENCE, PORT, configure};

const SIGNALLING: u16 = 270;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// In every certificate, and so in every message of PBS that brings one.
const NAME: &[u8] = b"pbs.test";

const SENDER: IpAddr = address(20, 1);
const RECEIVER: IpAddr = address(21, 4);
/// The nodes of PBS with their addresses.
const NODES: [(&str, &[IpAddr]); 4] = [
    ("router1", &[address(20, 254), address(22, 1)]),
    ("router2", &[address(23, 2), address(21, 254)]),
    ("receiver", &[RECEIVER, address(24, 4)]),
    ("sender", &[SENDER, address(25, 1)]),
];

const fn address(network: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, network, host))
}

/// P-001: nodes that do not host PBS are no peers, though they host GIST. P-002: the Query visits the routers that the data visits. P-003: the
/// Permission goes back over the nodes that the Query went over, whichever way IP packets of the receiver take. P-008: no Query of GIST
/// carries one of PBS, which would not fit into 512 octets. P-012: all that is closed, and signalling needs no permission. P-013: a
/// router between that knows nothing of PBS forwards what is permitted. P-093: between neighbours nothing of PBS is to be read, the key
/// and the SPI least of all.
#[test]
fn a_permission_goes_back_over_the_routers_that_the_query_went_over_past_one_without_pbs_and_whatever_the_way_back_is() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut site = Site::start();
    let receiver = site.socket("receiver", RECEIVER, PORT);
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let sender = site.socket("sender", SENDER, 5000);
    let mut buffer = [0; 100];
    for number in 0..20u8 {
        sender.send_to(&[number; 100], (RECEIVER, PORT)).unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}\n{}", site.logs())), 100);
    }
    // The receiver's own packets go the other way. Nobody has asked for them.
    let there: Vec<Value> = ["router1", "router2"].map(|node| site.ask(node, "flows")).into();
    for (node, flows) in ["router1", "router2"].iter().zip(&there) {
        let flows = flows.as_array().unwrap();
        assert_eq!(flows.len(), 1, "{node}: {flows:?}");
        assert!(!flows[0]["spi"].is_null(), "{node} has the permission: {flows:?}");
        let accepted = site.ask(node, "counters")["data"]["accepted"]["packets"].as_u64().unwrap();
        assert!(accepted >= 20, "{node} has judged the data: {accepted}");
    }

    let spi = site.between.look(|frames| {
        let of_flow = |seen: &Seen<'_>| (seen.ports.1 == PORT).then(|| seen.authentication.as_ref().map(|ah| ah.spi)).flatten();
        frames.iter().filter_map(|frame| of_flow(&frame::read(frame.ip()?)?)).next().expect("the data goes through the node between")
    });
    let own: Vec<IpAddr> = vec![address(22, 3), address(23, 3)];
    let (mut queries, mut segments) = (0, 0);
    site.between.look(|frames| {
        for seen in frames.iter().filter_map(|frame| frame::read(frame.ip()?)) {
            let ports = [seen.ports.0, seen.ports.1];
            let signalling =
                (seen.protocol == UDP && ports.contains(&SIGNALLING)) || (seen.protocol == TCP && ports.contains(&ASSOCIATION_PORT));
            if !signalling {
                continue;
            }
            assert!(seen.authentication.is_none(), "signalling is under no AH: {seen:?}");
            assert!(!own.contains(&seen.source) && !own.contains(&seen.destination), "the node between is nobody's peer: {seen:?}");
            let holds = |octets: &[u8]| seen.payload.windows(octets.len()).any(|window| window == octets);
            assert!(!holds(NAME) && !holds(&spi.to_be_bytes()), "nothing of PBS in the clear: {seen:?}");
            if seen.protocol == UDP {
                assert!(seen.payload.len() <= 512, "{} octets", seen.payload.len());
                queries += 1;
            } else {
                assert!(seen.source == address(22, 1) || seen.destination == address(22, 1), "from router to router: {seen:?}");
                segments += 1;
            }
        }
    });
    assert!(queries >= 2 && segments >= 10, "{queries} datagrams and {segments} segments of signalling");
    site.console.say("show routing");
    assert_eq!(site.console.event("shown")["content"], json!([]), "no state of PBS at a node that does not host it");
    // Of signalling nothing has come back by the receiver's way.
    let by_the_way_back = site.back.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame::read(frame.ip()?));
        seen.filter(|seen| [seen.ports.0, seen.ports.1].iter().any(|port| [SIGNALLING, ASSOCIATION_PORT].contains(port))).count()
    });
    assert_eq!(by_the_way_back, 0);
    // It is the way back, though.
    assert!(site.host("receiver").run(|| route_leads_by("h0")).unwrap(), "the receiver's route to the sender");
}

/// Whether the route to the sender's network leads by this interface of the calling thread's namespace.
fn route_leads_by(interface: &str) -> std::io::Result<bool> {
    // Destination in the order of this machine's octets.
    let network = format!("{:08X}", u32::from_ne_bytes([192, 168, 20, 0]));
    let routes = std::fs::read_to_string("/proc/thread-self/net/route")?;
    Ok(routes.lines().any(|line| line.starts_with(&format!("{interface}\t{network}\t"))))
}

struct Site {
    directory: std::path::PathBuf,
    hosts: Vec<Namespace>,
    /// Where the node between meets the first router.
    between: Capture,
    /// On the receiver's side of the way back.
    back: Capture,
    console: Console,
    daemons: Vec<Daemon>,
    /// Removes the directory.
    _remainder: Remainder,
}

const HOSTS: [&str; 6] = ["sender", "router1", "between", "router2", "receiver", "back"];

impl Site {
    fn start() -> Self {
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let (remainder, directory) = Remainder::temporary("pbs-gist-world").unwrap();
        let hosts: Vec<Namespace> = HOSTS.iter().map(|name| Namespace::create(name).unwrap()).collect();
        let [sender, router1, between, router2, receiver, back] = &hosts[..] else { unreachable!("six of them") };
        for host in &hosts {
            // Ways differ by direction.
            host.write_setting("net/ipv4/conf/all/rp_filter", "0").unwrap();
            host.write_setting("net/ipv4/conf/default/rp_filter", "0").unwrap();
        }
        for router in [router1, between, router2, back] {
            router.write_setting("net/ipv4/ip_forward", "1").unwrap();
        }
        let links = [
            ((sender, "s0", address(20, 1)), (router1, "p0", address(20, 254))),
            ((router1, "p1", address(22, 1)), (between, "m0", address(22, 3))),
            ((between, "m1", address(23, 3)), (router2, "q0", address(23, 2))),
            ((router2, "q1", address(21, 254)), (receiver, "d0", RECEIVER)),
            ((receiver, "h0", address(24, 4)), (back, "x0", address(24, 254))),
            ((back, "x1", address(25, 254)), (sender, "s1", address(25, 1))),
        ];
        for ((left, left_link, left_address), (right, right_link, right_address)) in links {
            let (left_addresses, right_addresses) = ([(left_address, 24)], [(right_address, 24)]);
            link::join(
                End { host: left, interface: left_link, addresses: &left_addresses },
                End { host: right, interface: right_link, addresses: &right_addresses },
                MTU,
            )
            .unwrap();
        }
        for (host, gateway) in [
            (sender, address(20, 254)),
            (router1, address(22, 3)),
            (between, address(23, 2)),
            (router2, address(23, 3)),
            (receiver, address(21, 254)),
            (back, address(25, 1)),
        ] {
            link::add_default_route(host, gateway).unwrap();
        }
        link::set_route(between, (address(20, 0), 24), address(22, 1)).unwrap();
        link::set_route(receiver, (address(20, 0), 24), address(24, 254)).unwrap();
        configure(&directory, &NODES.map(|(name, addresses)| (name, addresses.to_vec())), "");
        let started = Instant::now();
        let captured = Capture::start(between, "m0", started).unwrap();
        let way_back = Capture::start(back, "x0", started).unwrap();
        let own = ["--address=192.168.22.3", "--address=192.168.23.3"].map(str::to_owned);
        let console = Console::start(between, &own, &["--nslp-id=32720", "--intercept"]);
        let programs = [(router1, Program::Router), (router2, Program::Router), (receiver, Program::Host), (sender, Program::Host)];
        let daemons =
            NODES.iter().zip(programs).map(|((name, _), (host, program))| Daemon::start(host, program, &directory, name).unwrap());
        let daemons = daemons.collect();
        Self { directory, hosts, between: captured, back: way_back, console, daemons, _remainder: remainder }
    }

    fn host(&self, name: &str) -> &Namespace {
        &self.hosts[HOSTS.iter().position(|host| *host == name).unwrap()]
    }

    fn socket(&self, host: &str, address: IpAddr, port: u16) -> UdpSocket {
        self.host(host).run(|| UdpSocket::bind((address, port))).unwrap()
    }

    fn ask(&self, node: &str, command: &str) -> Value {
        self.daemons.iter().find(|daemon| daemon.name() == node).unwrap().ask(&json!({ "command": command })).unwrap()
    }

    fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
        NODES.map(|(name, _)| format!("--- {name}\n{}", log(name))).concat()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.daemons.clear();
    }
}
