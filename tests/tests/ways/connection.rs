//! A connection whose routed path swallows everything goes on: what the sender sends over a relay, and behind that through a link that
//! carries less than any before it, what comes back by another next hop of the receiver. What the router with the narrow link says of
//! the size reaches the sender past one that only knows the tunnel.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::overlay::{self, Overlay, addresses};
use pbs_lab::network::relay::{Fate, Relay};
use pbs_lab::network::topology::Family::{self, Ipv4, Ipv6};
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use pbs_lab::transfer::make_file;
use serde_json::{Value, json};

use crate::configuration::{ASSOCIATION_PORT, flows, networks, write};

const PORT: u16 = 9200;
/// MTU of the link behind the relay, in octets.
const NARROW: u32 = 1320;
/// A part of the file goes by the routed path; all of the other over the relay.
const PART: usize = 300_000;
/// A refresh period, two time-outs (4 s and 8 s), and the connection's own wait until it tries again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Those of the network that run, in the order in which they start.
const RUNNING: [&str; 7] = ["router0", "router1", "router2", "router3", "relay1", "receiver", "sender"];

struct Site {
    directory: PathBuf,
    network: Overlay,
    middle: Relay,
    /// Towards the relay, before the router with the narrow link, and behind that.
    tunnel: Capture,
    before: Capture,
    behind: Capture,
    daemons: Vec<Daemon>,
    _remainder: Remainder,
}

impl Site {
    fn start(family: Family) -> Self {
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let (remainder, directory) = Remainder::temporary("pbs-ways").unwrap();
        let network = Overlay::build(family).unwrap();
        let narrow = || traffic::paths::set_mtu(nix::net::if_::if_nametoindex("t1")?, NARROW).map_err(std::io::Error::other);
        network.host("router3").unwrap().run(narrow).unwrap();
        let [asks, grants] = flows(family, "tcp");
        let [senders, receivers] = networks(family);
        // What the receiver sends by its other next hop comes to router0 by another link than leads back.
        network.host("router0").unwrap().write_setting("net/ipv4/conf/all/rp_filter", "2").unwrap();
        let first = |node: &str| addresses(node, family)[0];
        let alone = |address: IpAddr| format!("{address}/{}", if family == Ipv4 { 32 } else { 128 });
        let way =
            format!("[[path]]\nname = \"relay1\"\nrelay = \"{}\"\nvolume = 33554432\ndestination = \"{receivers}\"\n\n", first("relay1"));
        let via = addresses("router3", family)[1];
        let back = format!("[[path]]\nname = \"router3\"\ninterface = \"{}\"\nvia = \"{via}\"\n\n", overlay::LAST_LINK);
        let router3 = alone(first("router3"));
        let exempt = |name: &str, protocol: &str, port: u16| {
            format!(
                "[[exempt]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nport = {port}\nat = \"beyond\"\npeer = \"{router3}\"\n\
                 rate = 200\nburst = 200\n\n"
            )
        };
        let relays = format!(
            "[relay]\nforward_to = [\"{receivers}\", \"{router3}\"]\n\n[[relay.admit]]\nsource = \"{senders}\"\nvolume = 33554432\nrefresh = \"5s\"\n"
        );
        let nodes = RUNNING.map(|name| {
            let own = match name {
                "sender" => format!("{asks}{way}"),
                "receiver" => format!("{grants}{back}"),
                "relay1" => relays.clone(),
                "router0" => exempt("datagrams", "udp", 270) + &exempt("associations", "tcp", ASSOCIATION_PORT),
                _ => String::new(),
            };
            (name, addresses(name, family), own)
        });
        write(&directory, &nodes);
        let started = Instant::now();
        let capture = |host: &str, link: &str| Capture::start(network.host(host).unwrap(), link, started).unwrap();
        let (tunnel, before) = (capture("relay1", overlay::NEAR_LINK), capture("router3", overlay::BEHIND_RELAYS));
        let behind = capture("receiver", overlay::LAST_LINK);
        let middle = Relay::start(&network.middle, overlay::MIDDLE_LEFT, overlay::MIDDLE_RIGHT).unwrap();
        let mut daemons = Vec::new();
        for name in RUNNING {
            let program = if name.starts_with("router") { Program::Router } else { Program::Host };
            daemons.push(Daemon::start(network.host(name).unwrap(), program, &directory, name).unwrap());
        }
        Self { directory, network, middle, tunnel, before, behind, daemons, _remainder: remainder }
    }

    fn ask(&self, name: &str, command: &str) -> Value {
        let daemon = self.daemons.iter().find(|daemon| daemon.name() == name).unwrap();
        daemon.ask(&json!({ "command": command })).unwrap()
    }

    fn path(&self) -> Value {
        self.ask("sender", "status")["paths"][0].clone()
    }

    /// Lengths of the connection's packets to the receiver since a moment, each under AH.
    fn lengths(capture: &Capture, since: Duration) -> Vec<usize> {
        capture.look(|frames| {
            let late = frames.iter().filter(|frame| frame.at >= since);
            let seen = late.filter_map(|frame| frame::read(frame.ip()?)).filter(|seen| seen.ports.1 == PORT);
            seen.inspect(|seen| assert!(seen.authentication.is_some(), "in the clear: {seen:?}")).map(|seen| seen.length).collect()
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = |name: &str| std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
            println!("{}", RUNNING.map(|name| format!("--- {name}\n{}", log(name))).concat());
        }
        self.daemons.clear();
    }
}

#[test]
fn a_connection_over_ipv4_goes_on_over_a_relay_and_a_narrow_link_behind_it() {
    go_on(Ipv4);
}

#[test]
fn a_connection_over_ipv6_goes_on_over_a_relay_and_a_narrow_link_behind_it() {
    go_on(Ipv6);
}

fn go_on(family: Family) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start(family);
    let begun = Instant::now();
    while site.path()["live"] != true {
        assert!(begun.elapsed() < Duration::from_secs(10), "{:#}", site.path());
        std::thread::sleep(Duration::from_millis(50));
    }
    let file = make_file(2 * PART).unwrap();
    let (sender, receiver) = (site.network.host("sender").unwrap(), site.network.host("receiver").unwrap());
    let listener = receiver.run(|| TcpListener::bind((family.receiver(), PORT))).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut file = Vec::new();
        stream.read_to_end(&mut file).map(|_| file)
    });
    let to = SocketAddr::new(family.receiver(), PORT);
    let mut stream = sender.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&file[..PART]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    site.middle.set(|_, _| Fate::Drop);
    let cut = Instant::now();
    stream.write_all(&file[PART..]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap_or_else(|error| panic!("{error} after {:?}: {:#}", cut.elapsed(), site.path()));
    assert!(server.join().unwrap().unwrap() == file, "the file did not arrive intact");
    println!("  {family:?}: done {:?} after the routed path was cut", cut.elapsed());
    assert_eq!((&site.path()["flows"], &site.path()["relay"]["dropped"]), (&json!(1), &json!({})));

    // Before the narrow link both kinds of packets were seen: those that did not fit, and what followed.
    let before = Site::lengths(&site.before, Duration::ZERO);
    let narrow = usize::try_from(NARROW).unwrap();
    let too_long = before.iter().filter(|length| **length > narrow).count();
    println!("  {family:?}: {too_long} of {} packets were too long for the link behind the relay", before.len());
    assert!(too_long > 0 && before.len() > 2 * too_long, "{too_long} of {}", before.len());
    assert!(before.iter().rev().take(20).all(|length| *length <= narrow), "{before:?}");
    let carried = site.tunnel.look(|frames| frames.iter().filter_map(|frame| frame::read(frame.ip()?)).map(|seen| seen.length).max());
    assert!(carried.is_some_and(|longest| longest <= 1500), "{carried:?}");
    let behind = Site::lengths(&site.behind, Duration::ZERO);
    let fitting = behind.iter().filter(|length| **length <= narrow).count();
    assert!(fitting * narrow > PART, "{fitting} of {} packets came through the narrow link", behind.len());
    // What router3 says goes to the sender by router0, which has its own bound of it.
    let passed = &site.ask("router0", "counters")["data"]["passed_errors"];
    println!("  {family:?}: router0 passed {passed}");
    assert!(passed["packets"].as_u64().is_some_and(|packets| packets > 0), "{passed}");
}
