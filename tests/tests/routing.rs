//! Links that come and go, addresses and routes that are added: a host that runs goes on with what is there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::pki::{Authority, KeyKind};
use pbs_lab::process::{self, Daemon, Program};
use serde_json::{Value, json};

const LEFT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 30, 1));
const RIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 30, 2));
/// Addresses that both hosts get later, and that their certificates name.
const LATER: [(IpAddr, IpAddr, u8); 2] = [
    (IpAddr::V4(Ipv4Addr::new(192, 168, 31, 1)), IpAddr::V4(Ipv4Addr::new(192, 168, 31, 2)), 24),
    (IpAddr::V6(Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, 2)), 64),
];
const PORT: u16 = 9000;
/// What fits a link of 1500 octets behind IPv4, AH with a signature, and UDP.
const FITS: usize = 1500 - 20 - 76 - 8;

struct Hosts {
    directory: PathBuf,
    left: Namespace,
    right: Namespace,
    daemons: Vec<Daemon>,
}

impl Hosts {
    fn start(name: &str) -> Self {
        process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
        let directory = std::env::temp_dir().join(format!("pbs-routing-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (left, right) = (Namespace::create("left").unwrap(), Namespace::create("right").unwrap());
        let end = |host, interface, addresses| End { host, interface, addresses };
        link::join(end(&left, "l0", &[(LEFT, 24)]), end(&right, "q0", &[(RIGHT, 24)]), 1500).unwrap();
        let authority = Authority::create("routing").unwrap();
        std::fs::write(directory.join("ca.crt"), authority.certificate()).unwrap();
        let [(left4, right4, _), (left6, right6, _)] = LATER;
        authority.issue(&directory, "left", &[LEFT, left4, left6], KeyKind::Ed25519).unwrap();
        authority.issue(&directory, "right", &[RIGHT, right4, right6], KeyKind::Ed25519).unwrap();
        let any = |section: &str, end: &str| {
            ["0.0.0.0/0", "::/0"].map(|any| format!("[[{section}]]\n{end} = \"{any}\"\nprotocol = \"udp\"\nvolume = 4194304\n")).concat()
        };
        configure(&directory, "left", &any("ask", "destination"));
        configure(&directory, "right", &any("grant", "source"));
        let daemons = vec![
            Daemon::start(&right, Program::Host, &directory, "right").unwrap(),
            Daemon::start(&left, Program::Host, &directory, "left").unwrap(),
        ];
        Self { directory, left, right, daemons }
    }

    fn routes(&self) -> Value {
        self.daemons[1].ask(&json!({ "command": "status" })).unwrap()["routes"].clone()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.daemons.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn configure(directory: &Path, name: &str, policy: &str) {
    let text = format!(
        "role = \"host\"\nname = \"{name}\"\ncontrol_socket = \"{name}.sock\"\n\
         [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\
         [[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n{policy}"
    );
    std::fs::write(directory.join(format!("{name}.toml")), text).unwrap();
}

fn socket(host: &Namespace, address: IpAddr, port: u16) -> UdpSocket {
    let socket = host.run(|| UdpSocket::bind((address, port))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// Socket options that the library does not name.
mod option {
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(PathMtuDiscovery, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int);
}

/// Sends a datagram of this size that must not be fragmented, and waits for it.
fn crosses(hosts: &Hosts, (from, to): (IpAddr, IpAddr), octets: usize) {
    let (sender, receiver) = (socket(&hosts.left, from, 0), socket(&hosts.right, to, PORT));
    if from.is_ipv4() {
        setsockopt(&sender, option::PathMtuDiscovery, &nix::libc::IP_PMTUDISC_DO).unwrap();
    }
    sender.send_to(&vec![7; octets], (to, PORT)).unwrap();
    assert_eq!(receiver.recv(&mut [0; 2000]).unwrap(), octets, "{from} > {to}");
}

#[test]
fn addresses_that_are_added_later_ask_and_grant() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let hosts = Hosts::start("addresses");
    crosses(&hosts, (LEFT, RIGHT), 100);
    for (left, right, prefix) in LATER {
        link::add_address(&hosts.left, "l0", left, prefix).unwrap();
        link::add_address(&hosts.right, "q0", right, prefix).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let before = Instant::now();
        crosses(&hosts, (left, right), 1000);
        assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    }
}

#[test]
fn packets_of_full_size_cross_a_link_that_has_been_down_a_second_after_it_is_up() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let hosts = Hosts::start("link");
    crosses(&hosts, (LEFT, RIGHT), FITS);
    assert_eq!(hosts.routes()["lowered"], 1);
    link::take_down(&hosts.left, "l0").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(hosts.routes()["lowered"], 0);
    link::bring_up(&hosts.left, "l0").unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(hosts.routes()["lowered"], 1);
    crosses(&hosts, (LEFT, RIGHT), FITS);
    let sender = socket(&hosts.left, LEFT, 0);
    setsockopt(&sender, option::PathMtuDiscovery, &nix::libc::IP_PMTUDISC_DO).unwrap();
    let error = sender.send_to(&[7; FITS + 1], (RIGHT, PORT)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EMSGSIZE), "one octet more does not fit with AH");
}

#[test]
fn what_has_been_opened_is_not_lowered_again() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let hosts = Hosts::start("open");
    let answer = hosts.daemons[1].ask(&json!({ "command": "open" })).unwrap();
    assert_eq!(answer, json!({ "opened": true, "not_undone": null }));
    let [(left, ..), _] = LATER;
    link::add_address(&hosts.left, "l0", left, 24).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(hosts.routes()["lowered"], 0);
    let sender = socket(&hosts.left, LEFT, 0);
    setsockopt(&sender, option::PathMtuDiscovery, &nix::libc::IP_PMTUDISC_DO).unwrap();
    sender.send_to(&[7; 1472], (RIGHT, PORT)).unwrap();
}
