//! Sender, router with AF_XDP, and receiver, as the tests of the short way need them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as Wall};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, socket};
use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Packet;
use traffic::af_xdp::{self, AfXdp, Shield, Standing, Statistics, Taking};
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::PacketProcessor;
use traffic::queue::{Queue, QueueConfig};
use traffic::reason::DropReason;
use traffic::rules::{self, Admitted, Front, Mode, Modes, RouterRules};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Worker, WorkerConfig};

use crate::namespace::{Namespace, QUIET, add_address, add_route, eventually, index, link_with_queues, route_request};
use crate::raw::{Raw, packet, with_hop_limit};

const SIGNALLING: u16 = 1;
const DATA: u16 = 2;
pub const AH: u8 = 51;
pub const UDP: u8 = 17;
/// Of the flow to the receiver; seven more, of the one to an address behind it.
pub const SPI: u32 = 4096;
/// Of further flows to the receiver, each from the port of its number.
pub const FURTHER: std::ops::Range<u32> = 5000..5016;

/// Sender, router towards it, router towards the receiver, receiver; and the last two on a second link between these.
pub const FAMILIES: [[&str; 6]; 2] = [
    ["192.168.20.1", "192.168.20.254", "192.168.21.254", "192.168.21.4", "192.168.22.254", "192.168.22.4"],
    ["fd20::1", "fd20::fe", "fd21::fe", "fd21::4", "fd22::fe", "fd22::4"],
];
/// Addresses of the receiver that are on none of its links.
pub const BEHIND: [&str; 2] = ["10.9.9.9", "fd99::9"];
/// Interfaces of the router.
pub const INTERFACES: [&str; 3] = ["near", "far", "side"];
/// Set for the process that is to be killed.
pub const IS_ROUTER: &str = "PBS_TEST_ROUTER";

/// What the router does.
#[derive(Clone, Copy)]
pub enum Way {
    /// Everything goes through the queue.
    Queue,
    /// By AF_XDP, between these interfaces.
    Short(&'static [&'static str]),
    /// The same between all, and the worker takes in itself what waits there.
    Polling,
    /// The same behind a shield; `side` is observed, or all interfaces are closed.
    Shielded { observed: bool },
    /// Everything that passes the XDP program's shield goes through the queue.
    Shield,
}

/// Sender, router and receiver.
pub struct Path {
    pub sender: Namespace,
    pub router: Namespace,
    pub receiver: Namespace,
    /// Sees all that comes to the receiver.
    pub capture: OwnedFd,
    /// Without them its kernel would answer that it knows no AH.
    _taken: [socket2::Socket; 2],
    names: [(u32, &'static str); 2],
    pub counters: Arc<Counters>,
    pub statistics: Statistics,
    pub made: Option<Made>,
    /// Whether there is the short way.
    pub is_short: bool,
}

impl Path {
    pub fn without_router() -> Self {
        Self::with_queues(1)
    }

    /// Each link with so many queues either way.
    pub fn with_queues(queues: u32) -> Self {
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        let prefix = |address: &str| if address.contains(':') { 64 } else { 24 };
        let end = |position: usize| FAMILIES.map(|addresses| (addresses[position], prefix(addresses[position])));
        link_with_queues(queues, 1500, (&sender, "up", &end(0)), (&router, "near", &end(1)));
        link_with_queues(queues, 1500, (&router, "far", &end(2)), (&receiver, "far2", &end(3)));
        link_with_queues(queues, 1500, (&router, "side", &end(4)), (&receiver, "side2", &end(5)));
        for ([_, near, far, ..], behind) in FAMILIES.into_iter().zip(BEHIND) {
            let any = if near.contains(':') { "::" } else { "0.0.0.0" };
            add_route(&sender, any, 0, near);
            add_route(&receiver, any, 0, far);
            receiver.run(|| add_address("lo", behind.parse().unwrap(), if behind.contains(':') { 128 } else { 32 }));
        }
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        let capture =
            receiver.run(|| socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).unwrap());
        let of = |domain| receiver.run(|| socket2::Socket::new(domain, socket2::Type::RAW, Some(i32::from(AH).into())).unwrap());
        let taken = [socket2::Domain::IPV4, socket2::Domain::IPV6].map(of);
        let names = receiver.run(|| ["far2", "side2"].map(|name| (index(name), name)));
        let (counters, statistics) = (Arc::default(), Statistics::default());
        Self { sender, router, receiver, capture, _taken: taken, names, counters, statistics, made: None, is_short: false }
    }

    pub fn new(way: Way) -> Self {
        Self::without_router().routing(way)
    }

    /// With the router at work.
    pub fn routing(mut self, way: Way) -> Self {
        let made = self.router.run(|| route(way));
        (self.counters, self.statistics) = (Arc::clone(&made.counters), made.statistics.clone());
        self.is_short = matches!(way, Way::Short(_) | Way::Polling | Way::Shielded { .. });
        self.made = Some(made);
        self
    }

    /// What the router's shield is told through.
    pub fn admitted(&self) -> &Admitted {
        self.made.as_ref().unwrap().admitted.as_ref().unwrap()
    }

    /// What the XDP programs have dropped.
    pub fn dropped_by_xdp(&self) -> u64 {
        self.made.as_ref().unwrap().shield.as_ref().unwrap().dropped().unwrap().packets
    }

    /// Has the shield know the flow under an SPI.
    pub fn admit(&self, (source, destination): (&str, &str), spi: u32, lasts: Duration) {
        self.admitted().admit(flow(source, destination), spi, lasts);
        self.admitted().settled();
    }

    /// And know it no longer.
    pub fn forget(&self, (source, destination): (&str, &str), spi: u32) {
        self.admitted().forget(flow(source, destination), spi);
        self.admitted().settled();
    }

    /// Sends packets of these numbers and more, until the router has found the receiver and the kernel has been shown one; what sends.
    pub fn acquaint(&self, ends: (&str, &str), first: u32) -> Raw {
        let raw = self.sender.run(|| Raw::open(ends.0));
        for number in first..first + 3 {
            let packet = sealed(ends, SPI, number, 1);
            raw.send(&packet);
            // Others that have come before may not have been looked at.
            eventually("it arrives", || self.arrives("far2") == Some(expected(&packet)));
        }
        raw
    }

    /// The next packet with AH that comes to the receiver by this interface; `None` if none comes for a while.
    pub fn arrives(&self, interface: &str) -> Option<Vec<u8>> {
        let began = Wall::now();
        let mut buffer = vec![0; 4096];
        while began.elapsed() < Duration::from_millis(500) {
            let timeout = PollTimeout::try_from(QUIET).unwrap();
            if poll(&mut [PollFd::new(self.capture.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 0 {
                continue;
            }
            let (len, from) = recvfrom::<LinkAddr>(self.capture.as_raw_fd(), &mut buffer).unwrap();
            let packet = &buffer[..len];
            let protocol = if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
            let by = from.unwrap().ifindex();
            if protocol == AH && self.names.iter().any(|(index, name)| *index as usize == by && *name == interface) {
                return Some(packet.to_vec());
            }
        }
        None
    }

    /// Forgets what has come.
    pub fn drain(&self) {
        std::thread::sleep(QUIET);
        let mut buffer = [0; 64];
        while nix::sys::socket::recv(self.capture.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    pub fn queued(&self) -> u64 {
        self.counted("data") + self.counted("permitted")
    }

    /// What the rules of this name have counted.
    pub fn counted(&self, name: &str) -> u64 {
        let counters = self.router.run(|| rules::counters(rules::Role::Router).unwrap());
        counters.iter().filter(|counter| counter.rule == name || counter.chain == name).map(|counter| counter.packets).sum()
    }

    pub fn judged(&self) -> u64 {
        self.counters.accepted().packets + self.counters.all_dropped().map(|(_, count)| count.packets).sum::<u64>()
    }

    pub fn all_dropped(&self) -> Vec<(DropReason, u64)> {
        self.counters.all_dropped().map(|(reason, count)| (reason, count.packets)).filter(|(_, packets)| *packets > 0).collect()
    }

    /// The router as another process, once it is ready.
    pub fn start_process(&mut self) -> Child {
        let program = std::env::current_exe().unwrap();
        let mut child = self.router.run(|| {
            let arguments = ["--exact", "a_process_that_is_to_be_killed", "--nocapture"];
            Command::new(program).args(arguments).env(IS_ROUTER, "1").stdout(Stdio::piped()).spawn().unwrap()
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("ready")));
        child
    }
}

pub fn taking(names: &[&str]) -> Vec<Taking> {
    names.iter().map(|name| Taking { name: (*name).to_owned(), leaves: true }).collect()
}

fn source_port(spi: u32) -> u16 {
    if FURTHER.contains(&spi) { u16::try_from(spi).unwrap() } else { 5000 }
}

/// The flow of all packets here whose SPI is not a further one.
pub fn flow(source: &str, destination: &str) -> Flow {
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    Flow { source, destination, protocol: UDP, source_port: 5000, destination_port: 9000 }
}

/// Workers that tests of this process have had.
static WORKERS: AtomicU32 = AtomicU32::new(0);

/// A router at work.
pub struct Made {
    pub counters: Arc<Counters>,
    pub statistics: Statistics,
    pub standing: Option<Standing>,
    pub admitted: Option<Admitted>,
    pub shield: Option<Shield>,
    /// Of the worker's thread.
    pub name: String,
    _worker: Mutex<Worker>,
}

/// Rules and worker of the router, in the namespace of the calling thread.
pub fn route(way: Way) -> Made {
    let observed = matches!(way, Way::Shielded { observed: true });
    let interfaces = if observed { vec![("side".to_owned(), Mode::Observe)] } else { Vec::new() };
    let modes = Modes { others: Mode::Closed, interfaces };
    let is_shielded = matches!(way, Way::Shielded { .. } | Way::Shield);
    RouterRules { shield: is_shielded, modes, ..RouterRules::new(SIGNALLING, DATA, 30_270) }.install().unwrap();
    let counters = Arc::new(Counters::default());
    let mut verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), Arc::clone(&counters)).unwrap();
    for ([sender, _, _, receiver, ..], behind) in FAMILIES.into_iter().zip(BEHIND) {
        let further = FURTHER.map(|spi| (receiver, spi));
        for (destination, spi) in [(receiver, SPI), (behind, SPI + 7)].into_iter().chain(further) {
            let flow = Flow { source_port: source_port(spi), ..flow(sender, destination) };
            let expires_at = Instant::from_secs(1000);
            let grant = Grant { flow, spi, key: key(), allowed: 1 << 20, counted: 0, highest: 0, expires_at };
            verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
        }
    }
    let admitted = is_shielded.then(|| Admitted::open(rules::Role::Router).unwrap());
    let shield = is_shielded.then(|| Shield::new(65_536, !observed).unwrap());
    if let (Some(admitted), Some(shield)) = (&admitted, &shield) {
        admitted.stand_behind(Arc::new(shield.clone()));
    }
    let taking: Vec<Taking> = match way {
        Way::Queue | Way::Shield => Vec::new(),
        Way::Short(names) => taking(names),
        Way::Polling => taking(&INTERFACES),
        Way::Shielded { .. } => INTERFACES.map(|name| Taking { name: name.to_owned(), leaves: !observed || name != "side" }).into(),
    };
    let name = format!("router-{}", WORKERS.fetch_add(1, Ordering::Relaxed));
    let queue = Queue::open(QueueConfig { modes: observed, ..QueueConfig::router(DATA) }).unwrap();
    let (mut af_xdp, standing) = (!taking.is_empty()).then(|| AfXdp::open(&taking, shield.as_ref()).unwrap()).unzip();
    if let (Way::Polling, Some(af_xdp)) = (way, &mut af_xdp) {
        af_xdp.poll_interfaces().unwrap();
    }
    let standing = match (way, &shield) {
        (Way::Shield, Some(shield)) => Some(af_xdp::stand(&INTERFACES.map(str::to_owned), shield).unwrap()),
        _ => standing,
    };
    let statistics = af_xdp.as_ref().map(AfXdp::statistics).unwrap_or_default();
    let config = WorkerConfig { modes: observed, ..WorkerConfig::new(name.clone(), Clock::new(Wall::now()), Arc::clone(&counters)) };
    let worker = Worker::spawn_beside(queue, af_xdp, Box::new(verifier), config, Box::new(|| {})).unwrap();
    Made { counters, statistics, standing, admitted, shield, name, _worker: Mutex::new(worker) }
}

fn key() -> IcvKey {
    IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap()
}

/// A datagram with so many octets of data under AH.
pub fn sealed(ends: (&str, &str), spi: u32, number: u32, len: usize) -> Vec<u8> {
    let mut udp = [source_port(spi), 9000, u16::try_from(8 + len).unwrap(), 0].map(u16::to_be_bytes).as_flattened().to_vec();
    udp.resize(8 + len, 0x5a);
    let mut clear = packet(ends, UDP, udp, 6);
    if clear[0] >> 4 == 4 {
        // That of the fragments made of it: the ICV covers it.
        clear[4..6].copy_from_slice(&[0x77; 2]);
    }
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(&clear).unwrap(), spi, Number { low: number, high: None }, &key(), &mut out).unwrap();
    out
}

/// The packet as it arrives behind one router.
pub fn expected(packet: &[u8]) -> Vec<u8> {
    let mut packet = with_hop_limit(packet.to_vec(), 63);
    if packet[0] >> 4 == 4 {
        Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
    }
    packet
}

/// Sets the MTU of a link of the calling thread's namespace.
pub fn set_mtu(name: &str, mtu: u32) {
    const MTU: u16 = 4;
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index(name).to_ne_bytes());
    route_request("set an MTU", 16, 0, &fixed, |writer| writer.put_u32(MTU, mtu));
}
