//! Three hosts in a row with firewalls of their own, the daemons on them, and a capture of each link.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pbs_lab::network::capture::Capture;
use pbs_lab::network::topology::{self, Chain, Family};
use pbs_lab::network::{firewall, frame};
use pbs_lab::pki::{Authority, KeyKind};
use pbs_lab::process::{Daemon, Program};
use pbs_lab::remains::Remainder;
use serde_json::{Value, json};

const ASSOCIATION_PORT: u16 = 30270;
/// Refresh period T.
pub(crate) const REFRESH: Duration = Duration::from_secs(5);
/// Longest wait for anything that a socket does.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is granted for connections to one port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) port: u16,
    pub(crate) volume: u64,
    pub(crate) limit: u64,
}

/// A port whose permission is larger than any file here.
pub(crate) const LARGE: Terms = Terms { port: 9100, volume: 64 << 20, limit: 64 << 20 };
/// A port whose permission is used up again and again.
pub(crate) const SMALL: Terms = Terms { port: 9101, volume: 1 << 20, limit: 64 << 20 };

pub(crate) struct Site {
    directory: PathBuf,
    pub(crate) chain: Chain,
    pub(crate) left: Capture,
    pub(crate) right: Capture,
    pub(crate) router: Option<Daemon>,
    pub(crate) sender: Option<Daemon>,
    pub(crate) receiver: Option<Daemon>,
    /// Removes the directory.
    _remainder: Remainder,
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::start_with(KeyKind::Ed25519)
    }

    /// The sender cuts super-packets itself.
    pub(crate) fn start_with_super_packets() -> Self {
        Self::start_as(KeyKind::Ed25519, "super_packets = true\n")
    }

    /// The sender has a key of this kind.
    pub(crate) fn start_with(key: KeyKind) -> Self {
        Self::start_as(key, if key == KeyKind::Rsa2048 { "largest_protection = \"rsa-2048\"\n" } else { "" })
    }

    /// Packets come to both hosts past their queues; to what is called like that.
    pub(crate) fn start_past_the_queue(receiver_link: &str, set_up: impl FnOnce(&Chain)) -> Self {
        let section = |link: &str| format!("kind = \"af_xdp\"\ninterfaces = [\"{link}\"]\n");
        Self::start_in(set_up, KeyKind::Ed25519, &section(topology::SENDER_LINK), &section(receiver_link))
    }

    fn start_as(key: KeyKind, datapath: &str) -> Self {
        Self::start_in(|_| {}, key, datapath, "")
    }

    fn start_in(set_up: impl FnOnce(&Chain), key: KeyKind, of_sender: &str, of_receiver: &str) -> Self {
        let (remainder, directory) = Remainder::temporary("pbs-tcp").unwrap();
        let chain = Chain::build().unwrap();
        set_up(&chain);
        let open = [(270, 270), (ASSOCIATION_PORT, ASSOCIATION_PORT)];
        firewall::set(&chain.sender, &open).unwrap();
        firewall::set(&chain.receiver, &[open[0], open[1], (9000, 9999)]).unwrap();
        let started = Instant::now();
        let left = Capture::start(&chain.router, topology::LEFT_LINK, started).unwrap();
        let right = Capture::start(&chain.router, topology::RIGHT_LINK, started).unwrap();
        let (router, sender, receiver) = (None, None, None);
        let mut site = Self { directory, chain, left, right, router, sender, receiver, _remainder: remainder };
        site.write_files(key, [of_sender, of_receiver]);
        site.router = Some(Daemon::start(&site.chain.router, Program::Router, &site.directory, "router").unwrap());
        site.start_receiver();
        site.start_sender();
        site
    }

    fn write_files(&self, key: KeyKind, [of_sender, of_receiver]: [&str; 2]) {
        let authority = Authority::create("authority").unwrap();
        std::fs::write(self.directory.join("ca.crt"), authority.certificate()).unwrap();
        let router = [topology::ROUTER_LEFT, topology::ROUTER_RIGHT, topology::ROUTER_LEFT6, topology::ROUTER_RIGHT6];
        let nodes: [(&str, &[IpAddr]); 3] = [
            ("sender", &[topology::SENDER, topology::SENDER6]),
            ("router", &router),
            ("receiver", &[topology::RECEIVER, topology::RECEIVER6]),
        ];
        for (node, addresses) in nodes {
            let kind = if node == "sender" { key } else { KeyKind::Ed25519 };
            authority.issue(&self.directory, node, addresses, kind).unwrap();
            let role = if node == "router" { "router" } else { "host" };
            let mut text = format!(
                "role = \"{role}\"\nname = \"{node}\"\ncontrol_socket = \"{node}.sock\"\n\n\
                 [identity]\ncertificate = \"{node}.crt\"\nkey = \"{node}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
                 [gist]\nassociation_port = {ASSOCIATION_PORT}\n\n[[gist.peer]]\ndns_name = \"router.pbs.test\"\nrole = \"router\"\nallow = true\n\n\
                 [[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n"
            );
            if let Some(datapath) = [("sender", of_sender), ("receiver", of_receiver)].iter().find(|(name, _)| *name == node) {
                write!(text, "[datapath]\n{}\n", datapath.1).unwrap();
            }
            for (source, destination) in [("192.168.20.0/24", "192.168.21.0/24"), ("fd20::/64", "fd21::/64")] {
                for Terms { port, volume, limit } in [LARGE, SMALL] {
                    let flow = format!("protocol = \"tcp\"\ndestination_ports = \"{port}\"\nvolume = {volume}\n");
                    if node == "sender" {
                        write!(text, "[[ask]]\ndestination = \"{destination}\"\n{flow}\n").unwrap();
                    }
                    // The sender grants nothing by any rule: what comes back to it, it grants because it has asked itself.
                    if node == "receiver" {
                        let times = format!("ttl = \"600s\"\nrefresh = \"{}s\"\n", REFRESH.as_secs());
                        write!(text, "[[grant]]\nsource = \"{source}\"\n{flow}limit = {limit}\n{times}\n").unwrap();
                    }
                }
            }
            std::fs::write(self.directory.join(format!("{node}.toml")), text).unwrap();
        }
    }

    pub(crate) fn start_sender(&mut self) {
        self.sender = None;
        self.sender = Some(Daemon::start(&self.chain.sender, Program::Host, &self.directory, "sender").unwrap());
    }

    pub(crate) fn start_receiver(&mut self) {
        self.receiver = None;
        self.receiver = Some(Daemon::start(&self.chain.receiver, Program::Host, &self.directory, "receiver").unwrap());
    }

    /// A server on the receiver that does its part with every connection it gets.
    pub(crate) fn serve<T: Send + 'static>(
        &self,
        family: Family,
        port: u16,
        serve: impl FnOnce(TcpStream) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        // A program that another test starts has what this process has open, a listener of a moment ago too, until it runs.
        let until = Instant::now() + Duration::from_secs(2);
        let listener = loop {
            match self.chain.receiver.run(|| TcpListener::bind((family.receiver(), port))) {
                Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < until => {}
                bound => break bound.unwrap(),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            patient(&stream);
            serve(stream)
        })
    }

    /// A connection of the sender, and how long it took.
    pub(crate) fn connect(&self, family: Family, port: u16) -> (TcpStream, Duration) {
        let started = Instant::now();
        let to = SocketAddr::new(family.receiver(), port);
        let stream = self.chain.sender.run(|| TcpStream::connect_timeout(&to, PATIENCE));
        let stream = stream.unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        let took = started.elapsed();
        patient(&stream);
        (stream, took)
    }

    /// All sessions that a host shows, as (state, flow from, allowed, counted).
    pub(crate) fn flows(&self, daemon: &Option<Daemon>) -> Vec<Value> {
        let flows = daemon.as_ref().unwrap().ask(&json!({ "command": "flows" })).unwrap();
        flows.as_array().unwrap().clone()
    }

    /// What the daemons have written.
    pub(crate) fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
        ["sender", "router", "receiver"].map(|name| format!("--- {name}\n{}", log(name))).concat()
    }

    /// The packets of connections to a port on a link, when the capture has caught up with them.
    pub(crate) fn seen_in_the_end(&self, capture: &Capture, port: u16) -> Seen {
        let mut before = Seen::default();
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let seen = self.seen(capture, port);
            if seen == before {
                return seen;
            }
            before = seen;
        }
    }

    /// The packets of connections to a port that a link has seen so far.
    pub(crate) fn seen(&self, capture: &Capture, port: u16) -> Seen {
        capture.look(|frames| {
            let mut seen = Seen::default();
            for packet in frames.iter().filter_map(|frame| frame::read(frame.ip()?)).filter(|packet| packet.protocol == 6) {
                let there = packet.ports.1 == port;
                if !there && packet.ports.0 != port {
                    continue;
                }
                let way = if there { &mut seen.there } else { &mut seen.back };
                way.packets += 1;
                way.clear += u64::from(packet.authentication.is_none());
                way.longest = way.longest.max(packet.length);
            }
            seen
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.logs();
            println!("{}", lines.lines().filter(|line| !line.contains("TRACE")).collect::<Vec<_>>().join("\n"));
        }
        (self.sender, self.router, self.receiver) = (None, None, None);
    }
}

/// What a link has seen of the connections to one port.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) there: Way,
    pub(crate) back: Way,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) packets: u64,
    pub(crate) clear: u64,
    pub(crate) longest: usize,
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
}

/// Writes everything, and waits until the other end has closed.
pub(crate) fn give(mut stream: TcpStream, file: &[u8]) -> io::Result<()> {
    stream.write_all(file)?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// Reads everything.
pub(crate) fn take(mut stream: TcpStream) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    stream.read_to_end(&mut file).map(|_| file)
}
