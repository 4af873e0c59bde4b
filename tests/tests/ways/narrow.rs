//! A connection whose routed path loses everything goes on over a second uplink that carries less.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::graph::{self, Addresses, Place, TwoRouters};
use pbs_lab::network::relay::{Fate, Relay};
use pbs_lab::network::topology::Family::{self, Ipv4, Ipv6};
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use pbs_lab::transfer::make_file;
use serde_json::{Value, json};

use crate::configuration::{flows, write};

const PORT: u16 = 9100;
/// MTU of the second uplink, in octets.
const NARROW: u32 = 1400;
/// A part of the file goes by the routed path; all of the other by the second uplink.
const PART: usize = 300_000;
/// A refresh period, two time-outs (4 s and 8 s), and the connection's own wait until it tries again.
const PATIENCE: Duration = Duration::from_secs(45);

struct Site {
    directory: PathBuf,
    hosts: TwoRouters,
    relay: Relay,
    spare: Capture,
    daemons: Vec<Daemon>,
    _remainder: Remainder,
}

impl Site {
    fn start(family: Family) -> Self {
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let (remainder, directory) = Remainder::temporary("pbs-ways").unwrap();
        let hosts = TwoRouters::build(Place::BesideSpare, family).unwrap();
        let third = &hosts.spares[0];
        for (host, interface) in [(&hosts.sender, graph::SENDER_SPARE_LINKS[0]), (third, graph::SPARE_LEFT_LINKS[0])] {
            let set = || traffic::paths::set_mtu(nix::net::if_::if_nametoindex(interface)?, NARROW).map_err(std::io::Error::other);
            host.run(set).unwrap();
        }
        let Addresses { router1, router2, beside: [spare, _] } = Addresses::of(family);
        let [asks, grants] = flows(family, "tcp");
        // What comes back is a flow of its own, and moves by itself.
        let [there, back] = [(graph::SENDER_SPARE_LINKS[0], spare.router[0]), (graph::RECEIVER_SPARE_LINKS[0], spare.router[1])]
            .map(|(link, via)| format!("[[path]]\nname = \"spare\"\ninterface = \"{link}\"\nvia = \"{via}\"\n\n"));
        let nodes: [(&str, Vec<IpAddr>, String); 5] = [
            ("sender", vec![family.sender(), spare.sender], asks + &there),
            ("router1", router1.into(), String::new()),
            ("router2", router2.into(), String::new()),
            ("router3", spare.router.into(), String::new()),
            ("receiver", vec![family.receiver(), spare.receiver], grants + &back),
        ];
        write(&directory, &nodes);
        let started = Instant::now();
        let capture = Capture::start(third, graph::SPARE_LEFT_LINKS[0], started).unwrap();
        let relay = Relay::start(&hosts.middle, graph::MIDDLE_LEFT, graph::MIDDLE_RIGHT).unwrap();
        let mut daemons = Vec::new();
        for (name, host) in [
            ("router1", &hosts.router1),
            ("router2", &hosts.router2),
            ("router3", third),
            ("receiver", &hosts.receiver),
            ("sender", &hosts.sender),
        ] {
            let program = if name.starts_with("router") { Program::Router } else { Program::Host };
            daemons.push(Daemon::start(host, program, &directory, name).unwrap());
        }
        Self { directory, hosts, relay, spare: capture, daemons, _remainder: remainder }
    }

    fn path(&self) -> Value {
        let sender = self.daemons.iter().find(|daemon| daemon.name() == "sender").unwrap();
        sender.ask(&json!({ "command": "status" })).unwrap()["paths"][0].clone()
    }

    fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
        ["sender", "router1", "router3", "receiver"].map(|name| format!("--- {name}\n{}", log(name))).concat()
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
fn a_connection_over_ipv4_goes_on_by_an_uplink_that_carries_less() {
    go_on(Ipv4, 76, 28);
}

#[test]
fn a_connection_over_ipv6_goes_on_by_an_uplink_that_carries_less() {
    go_on(Ipv6, 80, 32);
}

/// `room` is left for the largest AH; `present` is what AH takes.
fn go_on(family: Family, room: usize, present: usize) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start(family);
    let file = make_file(2 * PART).unwrap();
    let listener = site.hosts.receiver.run(|| TcpListener::bind((family.receiver(), PORT))).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut file = Vec::new();
        stream.read_to_end(&mut file).map(|_| file)
    });
    let to = SocketAddr::new(family.receiver(), PORT);
    let mut stream = site.hosts.sender.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&file[..PART]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    site.relay.set(|_, _| Fate::Drop);
    let cut = Instant::now();
    stream.write_all(&file[PART..]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap_or_else(|error| panic!("{error} after {:?}: {:#}", cut.elapsed(), site.path()));
    assert!(server.join().unwrap().unwrap() == file, "the file did not arrive intact");
    println!("  {family:?}: done {:?} after the routed path was cut", cut.elapsed());
    assert_eq!(site.path()["flows"], 1);

    let lengths: Vec<usize> = site.spare.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame::read(frame.ip()?)).filter(|seen| seen.ports.1 == PORT);
        seen.inspect(|seen| assert!(seen.authentication.is_some(), "in the clear: {seen:?}")).map(|seen| seen.length).collect()
    });
    let full = NARROW as usize - room + present;
    let whole = lengths.iter().filter(|length| **length == full).count();
    println!("  {family:?}: {whole} of {} packets of {full} octets", lengths.len());
    assert_eq!(lengths.iter().max(), Some(&full));
    assert!(whole * 2 > lengths.len(), "{whole} of {} packets are of full size", lengths.len());
}
