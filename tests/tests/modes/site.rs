//! Sender and receiver with PBS, and two hosts without, around one router whose interfaces have the modes that a test wants.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{Chain, RECEIVER, RECEIVER6, ROUTER_LEFT, ROUTER_LEFT6, ROUTER_RIGHT, ROUTER_RIGHT6, SENDER, SENDER6};
use pbs_lab::pki::{Authority, KeyKind};
use pbs_lab::process::{self, Daemon, Program};
use serde_json::{Value, json};

/// The router's interfaces towards the hosts without PBS.
pub(crate) const LEFT_LEGACY: &str = "r2";
pub(crate) const RIGHT_LEGACY: &str = "r3";
/// Interface of the host without PBS on the left.
pub(crate) const LEGACY_LINK: &str = "h0";
/// Of each link to a host without PBS: the host's address and the router's, for both IP versions.
pub(crate) const LEFT: [(IpAddr, IpAddr); 2] = [(v4(40, 1), v4(40, 254)), (v6(0x40, 1), v6(0x40, 0xfe))];
pub(crate) const RIGHT: [(IpAddr, IpAddr); 2] = [(v4(41, 1), v4(41, 254)), (v6(0x41, 1), v6(0x41, 0xfe))];

const fn v4(net: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, net, host))
}

const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00 | net, 0, 0, 0, 0, 0, 0, host))
}

/// How long anything may take that is to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Site {
    pub(crate) directory: PathBuf,
    pub(crate) authority: Authority,
    pub(crate) chain: Chain,
    pub(crate) left: Namespace,
    pub(crate) right: Namespace,
    pub(crate) router: Option<Daemon>,
    hosts: Vec<Daemon>,
}

impl Site {
    /// Builds the network; `modes` goes into the router's configuration, before its sections and behind them. The host on the left
    /// has addresses or not.
    pub(crate) fn build(top: &str, sections: &str, addresses: bool) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("pbs-modes-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let chain = Chain::build().unwrap();
        let (left, right) = (Namespace::create("left").unwrap(), Namespace::create("right").unwrap());
        for (host, ends, here, there) in [(&left, LEFT, LEGACY_LINK, LEFT_LEGACY), (&right, RIGHT, "h0", RIGHT_LEGACY)] {
            let [(own4, router4), (own6, router6)] = ends;
            let own: &[(IpAddr, u8)] = if addresses || there == RIGHT_LEGACY { &[(own4, 24), (own6, 64)] } else { &[] };
            let routers = [(router4, 24), (router6, 64)];
            link::join(
                End { host, interface: here, addresses: own },
                End { host: &chain.router, interface: there, addresses: &routers },
                1500,
            )
            .unwrap();
            if !own.is_empty() {
                link::add_default_route(host, router4).unwrap();
                link::add_default_route(host, router6).unwrap();
            }
        }
        let authority = Authority::create("modes").unwrap();
        std::fs::write(directory.join("ca.crt"), authority.certificate()).unwrap();
        let routers = [ROUTER_LEFT, ROUTER_RIGHT, ROUTER_LEFT6, ROUTER_RIGHT6, LEFT[0].1, LEFT[1].1];
        authority.issue(&directory, "sender", &[SENDER, SENDER6], KeyKind::Ed25519).unwrap();
        authority.issue(&directory, "receiver", &[RECEIVER, RECEIVER6], KeyKind::Ed25519).unwrap();
        authority.issue(&directory, "router", &routers, KeyKind::Ed25519).unwrap();
        let configure = |name: &str, role: &str, top: &str, rest: &str| {
            let text = format!(
                "role = \"{role}\"\nname = \"{name}\"\ncontrol_socket = \"{name}.sock\"\n{top}\n\
                 [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\
                 [[gist.peer]]\ndns_name = \"router.pbs.test\"\nrole = \"router\"\nallow = true\n\
                 [[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n{rest}"
            );
            std::fs::write(directory.join(format!("{name}.toml")), text).unwrap();
        };
        configure("sender", "host", "", "[[ask]]\ndestination = \"192.168.21.0/24\"\nprotocol = \"udp\"\nvolume = 10000000\n");
        let grants = ["192.168.20.0/24", "192.168.40.0/24"]
            .map(|source| format!("[[grant]]\nsource = \"{source}\"\nprotocol = \"udp\"\nvolume = 10000000\n"));
        configure("receiver", "host", "", &grants.concat());
        configure("left", "host", "", "[[ask]]\ndestination = \"192.168.21.0/24\"\nprotocol = \"udp\"\nvolume = 100000\n");
        configure("router", "router", top, sections);
        let mut site = Self { directory, authority, chain, left, right, router: None, hosts: Vec::new() };
        site.start_router();
        site
    }

    pub(crate) fn start_router(&mut self) {
        self.router = Some(Daemon::start(&self.chain.router, Program::Router, &self.directory, "router").unwrap());
    }

    /// Ends the router's daemon as a crash would. Its rules stay.
    pub(crate) fn kill_router(&mut self) {
        self.router.take().unwrap().kill().unwrap();
    }

    /// Starts the daemons of sender and receiver, and sends until a permission is there.
    pub(crate) fn permitted(&mut self) -> (UdpSocket, UdpSocket) {
        self.permitted_from("sender", SENDER)
    }

    /// The same with another sender: `left`.
    pub(crate) fn permitted_from(&mut self, name: &str, address: IpAddr) -> (UdpSocket, UdpSocket) {
        let from = if name == "left" { &self.left } else { &self.chain.sender };
        for (host, name) in [(&self.chain.receiver, "receiver"), (from, name)] {
            self.hosts.push(Daemon::start(host, Program::Host, &self.directory, name).unwrap());
        }
        let receiver = self.chain.receiver.run(|| UdpSocket::bind((RECEIVER, 9000))).unwrap();
        let sender = from.run(|| UdpSocket::bind((address, 9001))).unwrap();
        sender.connect((RECEIVER, 9000)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        eventually("the permission comes", || {
            let _ = sender.send(b"application");
            receiver.recv(&mut [0; 64]).is_ok()
        });
        while receiver.recv(&mut [0; 64]).is_ok() {}
        (sender, receiver)
    }

    pub(crate) fn ask(&self, command: &str) -> Value {
        self.router.as_ref().unwrap().ask(&json!({ "command": command })).unwrap()
    }

    /// What the router's data queue counted under a list of reasons.
    pub(crate) fn counted(&self, list: &str, reason: &str) -> u64 {
        let counters = self.ask("counters");
        let rows = counters["data"][list].as_array().unwrap();
        rows.iter().find(|row| row["reason"] == reason).unwrap()["packets"].as_u64().unwrap()
    }

    /// Packets that rules of this name have counted in this chain, in both families.
    pub(crate) fn rule(&self, chain: &str, rule: &str) -> u64 {
        self.rules(|row| row["chain"] == chain && row["rule"] == rule)
    }

    /// The same in all chains: what the rules have dropped for this reason.
    pub(crate) fn dropped_by_rules(&self, reason: &str) -> u64 {
        self.rules(|row| row["rule"] == reason)
    }

    fn rules(&self, which: impl Fn(&Value) -> bool) -> u64 {
        let counters = self.ask("counters");
        let rows = counters["rules"].as_array().unwrap();
        rows.iter().filter(|row| which(row)).map(|row| row["packets"].as_u64().unwrap()).sum()
    }

    /// Octets of IP packets that have come to the host without PBS on the right, as its link has counted them.
    pub(crate) fn arrived_on_the_right(&self) -> u64 {
        const ETHERNET: u64 = 14;
        let counted = counted(&self.right, "h0");
        counted[0] - ETHERNET * counted[1]
    }

    /// Packets that the router has sent there.
    pub(crate) fn left_on_the_right(&self) -> u64 {
        counted(&self.chain.router, RIGHT_LEGACY)[9]
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("router.log")).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.hosts.clear();
        self.router = None;
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What a link counts: octets and packets that came are the first two, those that went the ninth and tenth.
fn counted(host: &Namespace, interface: &str) -> Vec<u64> {
    let devices = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap();
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix(interface)?.strip_prefix(':')).unwrap();
    line.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// A socket of a host without PBS.
pub(crate) fn socket(host: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// Datagrams that come until none does for a while, and their octets with IP and UDP headers.
pub(crate) fn received(socket: &UdpSocket) -> (u64, u64) {
    let headers = if socket.local_addr().unwrap().is_ipv4() { 28 } else { 48 };
    let mut buffer = [0; 2000];
    let (mut packets, mut octets) = (0, 0);
    while let Ok(length) = socket.recv(&mut buffer) {
        packets += 1;
        octets += length as u64 + headers;
    }
    (packets, octets)
}

#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
