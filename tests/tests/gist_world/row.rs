//! Hosts in a row, each on a link with the next one, of both IP versions; and what daemons on them are told.

use std::fmt::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{Family, MTU};
use pbs_lab::pki::{Authority, KeyKind};
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use serde_json::{Value, json};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Port of flows.
pub(crate) const PORT: u16 = 9000;
/// TCP port of associations.
pub(crate) const ASSOCIATION_PORT: u16 = 30270;
/// Networks of the first and the last link, where flows begin and end; those between are numbered from 30 on.
const FIRST: u8 = 20;
const LAST: u8 = 21;

/// A host's address in one of the networks, 192.168.20.1 and fd20::1.
pub(crate) fn both(network: u8, host: u8) -> [(IpAddr, u8); 2] {
    [([192, 168, network, host].into(), 24), (format!("fd{network}::{host:x}").parse().unwrap(), 64)]
}

pub(crate) fn of(family: Family, addresses: [(IpAddr, u8); 2]) -> IpAddr {
    addresses[usize::from(family == Family::Ipv6)].0
}

/// Addresses of a link's two ends, of each IP version, with the length of the network's prefix.
struct Ends {
    left: [(IpAddr, u8); 2],
    right: [(IpAddr, u8); 2],
}

/// Which interface of a host in a row: towards the first one, or towards the last one.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Left,
    Right,
}

/// Hosts in a row. What is called `router…` runs `pbs-router`, the first and the last run `pbs`, others nothing.
pub(crate) struct Row {
    names: Vec<&'static str>,
    hosts: Vec<Namespace>,
    started: Instant,
    directory: PathBuf,
    daemons: Vec<Daemon>,
    _remainder: Remainder,
}

impl Row {
    /// Builds it; `narrow` is the number of a link that carries less, and how much.
    pub(crate) fn build(names: &[&'static str], narrow: Option<(usize, u32)>) -> Self {
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let (remainder, directory) = Remainder::temporary("pbs-gist-world").unwrap();
        let hosts: Vec<_> = names.iter().map(|name| Namespace::create(name).unwrap()).collect();
        let row = Self { names: names.to_vec(), hosts, started: Instant::now(), directory, daemons: Vec::new(), _remainder: remainder };
        let last = names.len() - 1;
        for (at, host) in row.hosts.iter().enumerate() {
            if at > 0 && at < last {
                forward(host);
            }
        }
        for link in 0..last {
            let Ends { left, right } = row.ends(link);
            let mtu = narrow.filter(|(narrow, _)| *narrow == link).map_or(MTU, |(_, mtu)| mtu);
            let left = End { host: &row.hosts[link], interface: &interface(link, Side::Right), addresses: &left };
            link::join(left, End { host: &row.hosts[link + 1], interface: &interface(link + 1, Side::Left), addresses: &right }, mtu)
                .unwrap();
            for (at, side) in [(link, Side::Right), (link + 1, Side::Left)] {
                link::finish_packets(&row.hosts[at], &interface(at, side)).unwrap();
            }
        }
        for (at, host) in row.hosts.iter().enumerate() {
            for version in 0..2 {
                for other in 0..last {
                    let gateway = match other {
                        other if other + 1 < at => row.ends(at - 1).left,
                        other if other > at => row.ends(at).right,
                        _ => continue,
                    };
                    let (network, prefix) = both(row.network(other), 0)[version];
                    link::set_route(host, (network, prefix), gateway[version].0).unwrap();
                }
            }
        }
        row
    }

    /// The network of a link.
    fn network(&self, link: usize) -> u8 {
        match link {
            0 => FIRST,
            link if link + 2 == self.names.len() => LAST,
            link => 30 + u8::try_from(link).unwrap(),
        }
    }

    /// Addresses of both ends of a link; those of the flows' ends are the laboratory's.
    fn ends(&self, link: usize) -> Ends {
        let right = if link + 2 == self.names.len() { 4 } else { 2 };
        Ends { left: both(self.network(link), 1), right: both(self.network(link), right) }
    }

    pub(crate) fn host(&self, name: &str) -> &Namespace {
        &self.hosts[self.place(name)]
    }

    fn place(&self, name: &str) -> usize {
        self.names.iter().position(|other| *other == name).unwrap()
    }

    /// Every address of a host.
    pub(crate) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let at = self.place(name);
        let right = (at + 1 < self.names.len()).then(|| self.ends(at).left);
        let left = at.checked_sub(1).map(|link| self.ends(link).right);
        left.into_iter().chain(right).flatten().map(|(address, _)| address).collect()
    }

    /// The same as arguments of `pbs-lab gist`.
    pub(crate) fn arguments(&self, name: &str) -> Vec<String> {
        self.addresses(name).iter().map(|address| format!("--address={address}")).collect()
    }

    pub(crate) fn capture(&self, name: &str, side: Side) -> Capture {
        Capture::start(self.host(name), &interface(self.place(name), side), self.started).unwrap()
    }

    /// Writes what the daemons are told, with a line more for each `[[grant]]`, and starts them.
    pub(crate) fn start_daemons(&mut self, of_grants: &str) {
        let routers = self.names.iter().copied().filter(|name| name.starts_with("router"));
        let order: Vec<_> = routers.chain([*self.names.last().unwrap(), self.names[0]]).collect();
        let nodes: Vec<_> = order.iter().map(|name| (*name, self.addresses(name))).collect();
        configure(&self.directory, &nodes, of_grants);
        for name in order {
            let program = if name.starts_with("router") { Program::Router } else { Program::Host };
            let daemon = Daemon::start(self.host(name), program, &self.directory, name).unwrap();
            self.daemons.push(daemon);
        }
    }

    /// What a daemon answers.
    pub(crate) fn ask(&self, name: &str, command: &str) -> Value {
        let daemon = self.daemons.iter().find(|daemon| daemon.name() == name).unwrap();
        daemon.ask(&json!({ "command": command })).unwrap()
    }

    /// Sockets of plain programs, connected; a permission is there.
    pub(crate) fn sockets(&self, family: Family, port: u16) -> (UdpSocket, UdpSocket) {
        let receiver = self.host("receiver").run(|| UdpSocket::bind((family.receiver(), port))).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = self.host("sender").run(|| UdpSocket::bind((family.sender(), 0))).unwrap();
        sender.connect((family.receiver(), port)).unwrap();
        sender.send(b"first").unwrap();
        let length = receiver.recv(&mut [0; 16]).unwrap_or_else(|error| panic!("{error}\n{}", self.logs()));
        assert_eq!(length, 5);
        (sender, receiver)
    }

    pub(crate) fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
        self.daemons.iter().map(|daemon| format!("--- {}\n{}", daemon.name(), log(daemon.name()))).collect()
    }
}

/// What the interface of a host is called. Both of a link are made at one end, so that their names must differ from all there.
fn interface(place: usize, side: Side) -> String {
    match side {
        Side::Left => format!("l{place}"),
        Side::Right => format!("r{place}"),
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.logs());
        }
        self.daemons.clear();
    }
}

/// Lets a host forward packets, whichever way they come in by.
pub(crate) fn forward(host: &Namespace) {
    for (setting, value) in [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ] {
        host.write_setting(setting, value).unwrap();
    }
}

/// Writes keys, certificates and configurations. Hosts ask for and grant UDP flows between the first and the last network, both ways.
pub(crate) fn configure(directory: &Path, nodes: &[(&str, Vec<IpAddr>)], of_grants: &str) {
    let authority = Authority::create("authority").unwrap();
    std::fs::write(directory.join("ca.crt"), authority.certificate()).unwrap();
    for (name, addresses) in nodes {
        authority.issue(directory, name, addresses, KeyKind::Ed25519).unwrap();
        let role = if name.starts_with("router") { "router" } else { "host" };
        let mut text = format!(
            "role = \"{role}\"\nname = \"{name}\"\ncontrol_socket = \"{name}.sock\"\n\n\
             [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
             [gist]\nassociation_port = {ASSOCIATION_PORT}\n\n"
        );
        for (router, _) in nodes.iter().filter(|(name, _)| name.starts_with("router")) {
            write!(text, "[[gist.peer]]\ndns_name = \"{router}.pbs.test\"\nrole = \"router\"\nallow = true\n\n").unwrap();
        }
        text += "[[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n";
        for networks in [["192.168.20.0/24", "192.168.21.0/24"], ["fd20::/64", "fd21::/64"]] {
            let other = match *name {
                "sender" => networks[1],
                "receiver" => networks[0],
                _ => continue,
            };
            let flow = "protocol = \"udp\"\ndestination_ports = \"9000-9999\"\nvolume = 33554432\n";
            write!(text, "[[ask]]\ndestination = \"{other}\"\n{flow}\n").unwrap();
            write!(text, "[[grant]]\nsource = \"{other}\"\n{flow}refresh = \"5s\"\n{of_grants}\n").unwrap();
        }
        std::fs::write(directory.join(format!("{name}.toml")), text).unwrap();
    }
}

/// Data packets to a port that a link has carried, which all have AH.
pub(crate) fn data(capture: &Capture, port: u16) -> Vec<usize> {
    capture.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame::read(frame.ip()?)).filter(|seen| seen.ports.1 == port);
        seen.inspect(|seen| assert!(seen.authentication.is_some(), "in the clear: {seen:?}")).map(|seen| seen.length).collect()
    })
}

/// Looks again and again until it is so: what captures show comes a little later than what sockets do.
pub(crate) fn await_that(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
