//! Five hosts in a row, daemons on four of them, captures on both sides of the narrow link's router.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::Family::{self, Ipv4, Ipv6};
use pbs_lab::network::topology::{MTU, RECEIVER, RECEIVER6, SENDER, SENDER6};
use pbs_lab::pki::{Authority, KeyKind};
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use rtnetlink::RouteMessageBuilder;
use serde_json::{Value, json};

const ASSOCIATION_PORT: u16 = 30270;
/// MTU of the narrow link, in octets.
pub(crate) const NARROW: usize = 1400;
/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Site {
    directory: PathBuf,
    pub(crate) sender: Namespace,
    pub(crate) receiver: Namespace,
    /// The hosts that forward.
    routers: [Namespace; 3],
    /// Where the sender's packets come in.
    pub(crate) first: Capture,
    /// The narrow link.
    pub(crate) narrow: Capture,
    daemons: Vec<Daemon>,
    _remainder: Remainder,
}

/// An address of each family.
fn both(net: u8, host: u8, host6: u16) -> [(IpAddr, u8); 2] {
    [([192, 168, net, host].into(), 24), ([0xfd00 + u16::from(net / 10 * 16 + net % 10), 0, 0, 0, 0, 0, 0, host6].into(), 64)]
}

impl Site {
    pub(crate) fn start() -> Self {
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let (remainder, directory) = Remainder::temporary("pbs-small-link").unwrap();
        let [sender, router1, router2, plain, receiver] =
            ["sender", "router1", "router2", "plain", "receiver"].map(|name| Namespace::create(name).unwrap());
        for router in [&router1, &router2, &plain] {
            router.write_setting("net/ipv4/ip_forward", "1").unwrap();
            router.write_setting("net/ipv6/conf/all/forwarding", "1").unwrap();
        }
        let narrow = u32::try_from(NARROW).unwrap();
        let links = [
            ((&sender, "s0", both(20, 1, 1)), (&router1, "p0", both(20, 254, 0xfe)), MTU),
            ((&router1, "p1", both(22, 1, 1)), (&router2, "q0", both(22, 2, 2)), MTU),
            ((&router2, "q1", both(23, 1, 1)), (&plain, "n0", both(23, 2, 2)), narrow),
            ((&plain, "n1", both(21, 254, 0xfe)), (&receiver, "d0", both(21, 4, 4)), MTU),
        ];
        for ((left, left_link, left_addresses), (right, right_link, right_addresses), mtu) in &links {
            let end = |host, interface, addresses| End { host, interface, addresses };
            link::join(end(left, left_link, left_addresses), end(right, right_link, right_addresses), *mtu).unwrap();
        }
        for at in 0..2 {
            let gateway = |net, host, host6| both(net, host, host6)[at].0;
            link::add_default_route(&sender, gateway(20, 254, 0xfe)).unwrap();
            link::add_default_route(&router1, gateway(22, 2, 2)).unwrap();
            link::add_default_route(&router2, gateway(23, 2, 2)).unwrap();
            add_route(&router2, both(20, 0, 0)[at], gateway(22, 1, 1)).unwrap();
            link::add_default_route(&plain, gateway(23, 1, 1)).unwrap();
            link::add_default_route(&receiver, gateway(21, 254, 0xfe)).unwrap();
        }
        let started = Instant::now();
        let first = Capture::start(&router1, "p0", started).unwrap();
        let narrow = Capture::start(&plain, "n0", started).unwrap();
        let mut site = Self {
            directory,
            sender,
            receiver,
            routers: [router1, router2, plain],
            first,
            narrow,
            daemons: Vec::new(),
            _remainder: remainder,
        };
        site.write_files();
        for (name, program) in
            [("router1", Program::LeakingRouter), ("router2", Program::Router), ("receiver", Program::Host), ("sender", Program::Host)]
        {
            let host = match name {
                "router1" => &site.routers[0],
                "router2" => &site.routers[1],
                "receiver" => &site.receiver,
                _ => &site.sender,
            };
            site.daemons.push(Daemon::start(host, program, &site.directory, name).unwrap());
        }
        site
    }

    fn write_files(&self) {
        let authority = Authority::create("authority").unwrap();
        std::fs::write(self.directory.join("ca.crt"), authority.certificate()).unwrap();
        let of = |addresses: &[[(IpAddr, u8); 2]]| addresses.iter().flatten().map(|(address, _)| *address).collect::<Vec<_>>();
        let nodes = [
            ("sender", vec![SENDER, SENDER6]),
            ("router1", of(&[both(20, 254, 0xfe), both(22, 1, 1)])),
            ("router2", of(&[both(22, 2, 2), both(23, 1, 1)])),
            ("receiver", vec![RECEIVER, RECEIVER6]),
        ];
        for (node, addresses) in nodes {
            authority.issue(&self.directory, node, &addresses, KeyKind::Ed25519).unwrap();
            let role = if node.starts_with("router") { "router" } else { "host" };
            let mut text = format!(
                "role = \"{role}\"\nname = \"{node}\"\ncontrol_socket = \"{node}.sock\"\n\n\
                 [identity]\ncertificate = \"{node}.crt\"\nkey = \"{node}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
                 [gist]\nassociation_port = {ASSOCIATION_PORT}\n\n"
            );
            for router in ["router1", "router2"] {
                write!(text, "[[gist.peer]]\ndns_name = \"{router}.pbs.test\"\nrole = \"router\"\nallow = true\n\n").unwrap();
            }
            text += "[[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n";
            for (source, destination) in [("192.168.20.0/24", "192.168.21.0/24"), ("fd20::/64", "fd21::/64")] {
                let ask = |to: &str, flow: &str| format!("[[ask]]\ndestination = \"{to}\"\n{flow}\n");
                let grant = |from: &str, flow: &str| format!("[[grant]]\nsource = \"{from}\"\n{flow}ttl = \"600s\"\nrefresh = \"5s\"\n\n");
                for protocol in ["tcp", "udp", "icmp", "icmpv6", "50", "253"] {
                    let ports = if ["tcp", "udp"].contains(&protocol) { "destination_ports = \"9000-9999\"\n" } else { "" };
                    let flow = format!("protocol = \"{protocol}\"\n{ports}volume = 33554432\n");
                    // Answers to pings are a flow of their own.
                    let answers = protocol.starts_with("icmp");
                    text += &match node {
                        "sender" if answers => ask(destination, &flow) + &grant(destination, &flow),
                        "receiver" if answers => grant(source, &flow) + &ask(source, &flow),
                        "sender" => ask(destination, &flow),
                        "receiver" => grant(source, &flow),
                        _ => String::new(),
                    };
                }
            }
            std::fs::write(self.directory.join(format!("{node}.toml")), text).unwrap();
        }
    }

    /// Sockets of plain programs, connected; a permission is there, so that no later packet waits for one.
    pub(crate) fn sockets(&self, family: Family, port: u16) -> (UdpSocket, UdpSocket) {
        let receiver = self.receiver.run(|| UdpSocket::bind((family.receiver(), port))).unwrap();
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = self.sender.run(|| UdpSocket::bind((family.sender(), 0))).unwrap();
        sender.connect((family.receiver(), port)).unwrap();
        sender.send(b"first").unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap_or_else(|error| panic!("{error}\n{}", self.logs())), 5);
        (sender, receiver)
    }

    /// Sends what is too big for the path, so that nothing later is lost by that.
    pub(crate) fn learn_the_path(&self, sender: &UdpSocket, receiver: &UdpSocket) {
        sender.send(&[0; 2_000]).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while receiver.recv(&mut [0; 2_000]).is_ok() {}
        receiver.set_read_timeout(Some(PATIENCE)).unwrap();
        // A connected socket is told once.
        let _ = sender.take_error();
    }

    /// What a daemon answers.
    pub(crate) fn ask(&self, name: &str, command: &str) -> Value {
        let daemon = self.daemons.iter().find(|daemon| daemon.name() == name).unwrap();
        daemon.ask(&json!({ "command": command })).unwrap()
    }

    /// How many packets a node has dropped for a reason.
    pub(crate) fn dropped(&self, name: &str, reason: &str) -> u64 {
        let counters = self.ask(name, "counters");
        let queues = counters.as_object().unwrap().values().filter_map(|queue| queue["dropped"].as_array());
        queues.flatten().filter(|entry| entry["reason"] == reason).map(|entry| entry["packets"].as_u64().unwrap()).sum()
    }

    /// How many ICMP errors about its flows a router has passed on, and with how many octets.
    pub(crate) fn passed_errors(&self, name: &str) -> (u64, u64) {
        let counters = self.ask(name, "counters");
        let passed = || counters.as_object().unwrap().values().map(|queue| &queue["passed_errors"]);
        let sum = |field| passed().filter_map(|count| count[field].as_u64()).sum();
        (sum("packets"), sum("bytes"))
    }

    /// The file in which the first router gives shared keys away.
    pub(crate) fn leaked(&self) -> PathBuf {
        self.directory.join("router1.leaked")
    }

    /// The first router.
    pub(crate) fn router1(&self) -> &Namespace {
        &self.routers[0]
    }

    /// The last router, which knows nothing of permissions.
    pub(crate) fn plain(&self) -> &Namespace {
        &self.routers[2]
    }

    /// What the daemons have written.
    pub(crate) fn logs(&self) -> String {
        let log = |name: &str| std::fs::read_to_string(self.directory.join(format!("{name}.log"))).unwrap_or_default();
        ["sender", "router1", "router2", "receiver"].map(|name| format!("--- {name}\n{}", log(name))).concat()
    }

    /// Length of each packet to the receiver's `port` on a link, without later fragments.
    pub(crate) fn lengths(capture: &Capture, port: u16) -> Vec<usize> {
        capture.look(|frames| {
            let seen = frames.iter().filter_map(|frame| frame::read(frame.ip()?)).filter(|seen| seen.ports.1 == port);
            let seen = seen.inspect(|seen| assert!(seen.authentication.is_some(), "in the clear: {seen:?}"));
            seen.map(|seen| seen.length).collect()
        })
    }

    /// ICMP "too big" that the first router has sent on to the sender.
    pub(crate) fn errors(&self, family: Family) -> usize {
        self.first.look(|frames| {
            let is_error = |ip: &&[u8]| match family {
                Ipv4 => ip.len() > 28 && ip[0] == 0x45 && ip[9] == 1 && (ip[20], ip[21]) == (3, 4),
                Ipv6 => ip.len() > 48 && ip[0] >> 4 == 6 && ip[6] == 58 && ip[40] == 2,
            };
            frames.iter().filter_map(|frame| frame.ip()).filter(is_error).count()
        })
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

fn add_route(host: &Namespace, (address, prefix): (IpAddr, u8), gateway: IpAddr) -> io::Result<()> {
    host.run_async(|| async move {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let message = match (address, gateway) {
            (IpAddr::V4(address), IpAddr::V4(gateway)) => {
                RouteMessageBuilder::<std::net::Ipv4Addr>::new().destination_prefix(address, prefix).gateway(gateway).build()
            }
            (IpAddr::V6(address), IpAddr::V6(gateway)) => {
                RouteMessageBuilder::<std::net::Ipv6Addr>::new().destination_prefix(address, prefix).gateway(gateway).build()
            }
            _ => unreachable!("both are of one family"),
        };
        netlink.route().add(message).execute().await.map_err(io::Error::other)
    })
}
