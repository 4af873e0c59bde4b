//! Two hosts on one link: no router stands between them, so each protects itself.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::pki::{Authority, KeyKind};
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use pbs_lab::transfer;
use serde_json::{Value, json};

const LEFT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 30, 1));
const RIGHT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 30, 2));
/// The flow that has a permission.
const GRANTED: u16 = 9000;
/// A port that nobody has a permission for.
const OTHER: u16 = 9500;
/// Packets of each attack.
const PACKETS: usize = 20;

struct Neighbours {
    left: Namespace,
    right: Namespace,
    capture: Capture,
    daemons: Vec<Daemon>,
    /// Removes the directory.
    _remainder: Remainder,
}

impl Neighbours {
    fn start() -> Self {
        let (remainder, directory) = Remainder::temporary("pbs-neighbours").unwrap();
        let (left, right) = (Namespace::create("left").unwrap(), Namespace::create("right").unwrap());
        let end = |host, interface, address| End { host, interface, addresses: address };
        link::join(end(&left, "l0", &[(LEFT, 24)]), end(&right, "q0", &[(RIGHT, 24)]), 1500).unwrap();
        let authority = Authority::create("neighbours").unwrap();
        std::fs::write(directory.join("ca.crt"), authority.certificate()).unwrap();
        for (name, address) in [("left", LEFT), ("right", RIGHT)] {
            authority.issue(&directory, name, &[address], KeyKind::Ed25519).unwrap();
        }
        configure(&directory, "left", "[[ask]]\ndestination = \"192.168.30.0/24\"\nprotocol = \"udp\"\nvolume = 4194304\n");
        configure(&directory, "right", "[[grant]]\nsource = \"192.168.30.0/24\"\ndestination_ports = \"9000\"\nvolume = 4194304\n");
        let capture = Capture::start(&right, "q0", Instant::now()).unwrap();
        let daemons = vec![
            Daemon::start(&right, Program::Host, &directory, "right").unwrap(),
            Daemon::start(&left, Program::Host, &directory, "left").unwrap(),
        ];
        Self { left, right, capture, daemons, _remainder: remainder }
    }

    /// Inbound packets that the receiver has dropped for `reason`.
    fn dropped(&self, reason: &str) -> u64 {
        let counters = self.daemons[0].ask(&json!({ "command": "counters" })).unwrap();
        let dropped = counters["inbound"]["dropped"].as_array().unwrap();
        dropped.iter().find(|entry| entry["reason"] == reason).and_then(|entry| entry["packets"].as_u64()).unwrap()
    }

    /// The newest packets of the granted flow as they were on the link.
    fn captured(&self) -> Vec<Vec<u8>> {
        let of_flow = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.ports.1 == GRANTED && seen.authentication.is_some());
        let packets: Vec<_> =
            self.capture.look(|frames| frames.iter().filter_map(|frame| frame.ip()).filter(of_flow).map(<[u8]>::to_vec).collect());
        packets[packets.len() - PACKETS..].to_vec()
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.daemons.clear();
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
    host.run(|| UdpSocket::bind((address, port))).unwrap()
}

/// P-162, INV-01 at the receiver, `decisions.md` X-41.
#[test]
fn a_neighbour_with_permission_is_heard_and_forged_packets_are_dropped_by_the_host_itself() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
    let site = Neighbours::start();
    let (sender, receiver) = (socket(&site.left, LEFT, 29_000), socket(&site.right, RIGHT, GRANTED));
    let file = transfer::make_file(100_000).unwrap();
    let octets = file.len();
    let receiving = std::thread::spawn(move || (transfer::receive_file(&receiver, octets, Duration::from_secs(5)), receiver));
    transfer::send_file(&sender, (RIGHT, GRANTED).into(), &file, Duration::from_millis(1)).unwrap();
    let (received, receiver) = receiving.join().unwrap();
    assert_eq!(received.unwrap().file, file);

    let genuine = site.captured();
    let clear = packet::udp((LEFT, 29_000), (RIGHT, GRANTED), b"no header").unwrap();
    let other = packet::udp((LEFT, 29_500), (RIGHT, OTHER), b"no permission").unwrap();
    let mut spoilt = genuine.clone();
    for packet in &mut spoilt {
        packet[30] ^= 0xff; // the sequence number: outside the window, and the ICV is wrong for it
        *packet.last_mut().unwrap() ^= 1;
    }
    let attacker = Injector::new(&site.left, "l0", &site.right, "q0").unwrap();
    let elsewhere = socket(&site.right, RIGHT, OTHER);
    let attacks: [(Vec<Vec<u8>>, &str); 4] =
        [(vec![clear; PACKETS], "missing_ah"), (vec![other; PACKETS], "no_permission"), (spoilt, "bad_icv"), (genuine, "replayed")];
    for (packets, reason) in attacks {
        let before = site.dropped(reason);
        attacker.send(&packets).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(site.dropped(reason) - before, PACKETS as u64, "{reason}");
    }
    for silent in [&receiver, &elsewhere] {
        assert_eq!(transfer::count_datagrams(silent, Duration::from_millis(200)).unwrap(), 0, "nothing forged was delivered");
    }
    let flows = site.daemons[0].ask(&json!({ "command": "flows" })).unwrap();
    let permission = flows.as_array().unwrap().iter().find(|flow| flow["flow"]["destination_port"] == GRANTED).unwrap().clone();
    let on_link: u64 = site.capture.look(|frames| {
        let of_flow = |ip: &[u8]| {
            frame::read(ip).filter(|seen| seen.ports.1 == GRANTED && seen.authentication.is_some()).map(|seen| seen.length as u64)
        };
        frames.iter().filter_map(|frame| frame.ip()).filter_map(of_flow).sum()
    });
    let counted = permission.get("counted").and_then(Value::as_u64).unwrap();
    assert!(counted > 0 && counted < on_link, "only genuine packets are counted (X-41): {counted} of {on_link} octets on the link");
}
