//! The short way through a router, on real links: what has a permission goes by it, what has none dies there, all else goes the kernel's way,
//! and nothing passes when nobody is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant as Wall};

use namespace::{Namespace, QUIET, add_route, eventually, index, link, privileged};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, socket};
use raw::{Raw, packet, with_hop_limit};
use smoltcp::time::Instant;
use smoltcp::wire::Ipv4Packet;
use traffic::af_xdp::{self, AfXdp, AfXdpError, Statistics, Taking};
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::PacketProcessor;
use traffic::queue::{Queue, QueueConfig};
use traffic::reason::DropReason;
use traffic::rules::{self, RouterRules};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Worker, WorkerConfig};

const SIGNALLING: u16 = 1;
const DATA: u16 = 2;
const AH: u8 = 51;
const UDP: u8 = 17;
const SPI: u32 = 4096;

/// Sender, router towards it, router towards the receiver, receiver; and the last two on a second link between these.
const FAMILIES: [[&str; 6]; 2] = [
    ["192.168.20.1", "192.168.20.254", "192.168.21.254", "192.168.21.4", "192.168.22.254", "192.168.22.4"],
    ["fd20::1", "fd20::fe", "fd21::fe", "fd21::4", "fd22::fe", "fd22::4"],
];
/// Addresses of the receiver that are on none of its links.
const BEHIND: [&str; 2] = ["10.9.9.9", "fd99::9"];
/// Interfaces of the router.
const INTERFACES: [&str; 3] = ["near", "far", "side"];
/// Set for the process that is to be killed.
const IS_ROUTER: &str = "PBS_TEST_ROUTER";

#[test]
fn permitted_packets_arrive_as_they_were_but_for_the_hop_and_pass_the_queue_by() {
    // P-146, INV-01, issue 5: one packet a second to each neighbour goes the kernel's way.
    if !privileged() {
        return;
    }
    let path = Path::new(Some(&INTERFACES));
    for [sender, _, _, receiver, ..] in FAMILIES {
        let raw = path.acquaint((sender, receiver), 1);
        let (accepted, queued, began) = (path.counters.accepted().packets, path.queued(), Wall::now());
        let sent: Vec<Vec<u8>> = (11..=60).map(|number| sealed((sender, receiver), SPI, number, 10 * number as usize)).collect();
        sent.iter().for_each(|packet| raw.send(packet));
        for packet in &sent {
            assert_eq!(path.arrives("far2"), Some(expected(packet)), "{sender}");
        }
        assert_eq!(path.counters.accepted().packets - accepted, 50);
        let shown = path.queued() - queued;
        assert!(shown <= 1 + began.elapsed().as_secs(), "{sender}: {shown} of 50 by the queue");
    }
    assert_eq!(path.all_dropped(), []);
    assert_eq!(path.statistics.dropped(), Some(0));
}

#[test]
fn what_is_wrong_is_dropped_for_the_reason_for_which_the_queues_verifier_drops_it() {
    // P-140, P-153, P-157, P-161, X-71.
    if !privileged() {
        return;
    }
    let dropped = |path: &Path, first: u32| {
        for [sender, _, _, receiver, ..] in FAMILIES {
            let ends = (sender, receiver);
            let raw = path.acquaint(ends, first);
            let first = first + 10;
            let mut flipped = sealed(ends, SPI, first + 9, 100);
            *flipped.last_mut().unwrap() ^= 1;
            let good = sealed(ends, SPI, first, 100);
            let (queued, began) = (path.queued(), Wall::now());
            let packets = [
                good.clone(),
                good,
                flipped,
                sealed(ends, SPI + 1, first, 100),
                sealed((receiver, receiver), SPI, first, 100),
                sealed(ends, SPI, 1 << 30, 100),
                packet(ends, AH, vec![UDP, 5, 0, 0], 2),
            ];
            let before = path.judged();
            for (count, packet) in (1..).zip(&packets) {
                raw.send(packet);
                eventually(&format!("packet {count} of {sender} is judged"), || path.judged() == before + count);
            }
            let queued = path.queued() - queued;
            let bound = if path.is_short { 1 + began.elapsed().as_secs() } else { 7 };
            assert!(queued <= bound, "{queued} by the queue");
        }
        (path.counters.accepted(), path.all_dropped())
    };
    let by_af_xdp = dropped(&Path::new(Some(&INTERFACES)), 1);
    let by_queue = dropped(&Path::new(None), 1);
    assert_eq!(by_af_xdp, by_queue);
    let reasons: Vec<DropReason> = by_af_xdp.1.iter().map(|(reason, _)| *reason).collect();
    use DropReason::{BadIcv, FlowMismatch, Malformed, Replayed, TooFarAhead, UnknownSpi};
    assert_eq!(reasons, [UnknownSpi, FlowMismatch, Malformed, BadIcv, Replayed, TooFarAhead]);
}

#[test]
fn fragments_signalling_packets_at_their_last_hop_and_those_for_the_router_go_the_kernels_way() {
    //
    if !privileged() {
        return;
    }
    let path = Path::new(Some(&INTERFACES));
    for [sender, near, _, receiver, ..] in FAMILIES {
        let (raw, ends) = (path.sender.run(|| Raw::open(sender)), (sender, receiver));
        let (queued, judged) = (path.queued(), path.judged() + 1);
        let whole = sealed(ends, SPI, 1, 100);
        raw::fragments(&whole).iter().for_each(|fragment| raw.send(fragment));
        eventually("it is made whole and judged", || path.judged() == judged);
        assert_eq!(path.queued(), queued + 1, "in the queue");
        raw.send(&packet(ends, UDP, [5000_u16, 270, 10, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec(), 6));
        eventually("it is signalling", || path.counted("signalling") > 0);
        raw.send(&with_hop_limit(sealed(ends, SPI, 2, 100), 1));
        eventually("it is answered", || path.counted("own-errors") > 0);
        raw.send(&sealed((sender, near), SPI, 3, 100));
        raw.send(&packet(ends, UDP, [1_u16, 2, 10, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec(), 6));
        eventually("without AH it is judged in the queue", || path.judged() > judged);
        assert_eq!((path.judged(), path.queued()), (judged + 1, queued + 2), "{sender}");
        assert_eq!(path.all_dropped(), [(DropReason::NoPermission, path.queued() / 2)]);
    }
}

#[test]
fn packets_follow_the_route_and_what_is_too_long_for_it_is_answered_by_the_kernel() {
    if !privileged() {
        return;
    }
    let path = Path::new(Some(&INTERFACES));
    for ([sender, _, _, first, _, second], behind) in FAMILIES.into_iter().zip(BEHIND) {
        let (raw, ends) = (path.sender.run(|| Raw::open(sender)), (sender, behind));
        let prefix = if behind.contains(':') { 128 } else { 32 };
        let mut number = 0;
        let mut next = |len| {
            number += 1;
            sealed(ends, SPI + 7, number, len)
        };
        for (gateway, interface) in [(first, "far2"), (second, "side2"), (first, "far2")] {
            add_route(&path.router, behind, prefix, gateway);
            // The neighbour is found first, and shown to the kernel; then the short way.
            for _ in 0..4 {
                let packet = next(100);
                raw.send(&packet);
                assert_eq!(path.arrives(interface), Some(expected(&packet)), "{behind} by {interface}");
            }
        }
        let accepted = path.counters.accepted();
        path.router.run(|| set_mtu("far", 1300));
        raw.send(&next(1300));
        assert_eq!(path.arrives("far2"), None);
        path.router.run(|| set_mtu("far", 1500));
        assert!(path.counted("own-errors-about-size") > 0);
        assert_eq!(path.counters.accepted(), accepted);
    }
}

#[test]
fn nothing_passes_when_the_process_is_killed_and_all_goes_on_when_it_is_there_again() {
    // INV-12: fail closed.
    if !privileged() {
        return;
    }
    let mut path = Path::without_router();
    let mut number = 0;
    for round in 0..2 {
        let mut child = path.start_process();
        for ends in FAMILIES.map(|[sender, _, _, receiver, ..]| (sender, receiver)) {
            let raw = path.sender.run(|| Raw::open(ends.0));
            let mut send = |path: &Path| {
                number += 1;
                raw.send(&sealed(ends, SPI, number, 100));
                path.arrives("far2").is_some()
            };
            eventually("packets pass", || send(&path) && send(&path));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        path.drain();
        for ends in FAMILIES.map(|[sender, _, _, receiver, ..]| (sender, receiver)) {
            let raw = path.sender.run(|| Raw::open(ends.0));
            for _ in 0..200 {
                number += 1;
                raw.send(&sealed(ends, SPI, number, 100));
            }
        }
        assert_eq!(path.arrives("far2"), None, "round {round}");
    }
    // Somebody takes the rules away, but not the program: still nothing goes the short way.
    path.router.run(|| rules::remove(rules::Role::Router).unwrap());
    let (ends, raw) = ((FAMILIES[0][0], FAMILIES[0][3]), path.sender.run(|| Raw::open(FAMILIES[0][0])));
    let mut pass = |path: &Path| {
        for _ in 0..100 {
            number += 1;
            raw.send(&sealed(ends, SPI, number, 100));
        }
        std::iter::from_fn(|| path.arrives("far2")).count()
    };
    let (began, passed) = (Wall::now(), pass(&path));
    assert!(passed as u64 <= 2 + began.elapsed().as_secs(), "{passed}: more than the kernel is shown");
    path.router.run(|| af_xdp::restore().unwrap());
    assert_eq!(pass(&path), 100, "now it is open");
}

/// The router of the test before, as a process: it says that it is ready, and lives until it is killed.
#[test]
fn a_process_that_is_to_be_killed() {
    if std::env::var_os(IS_ROUTER).is_none() {
        return;
    }
    let (counters, _, _worker) = route(Some(&INTERFACES));
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
        assert!(counters.accepted().packets < u64::MAX);
    }
}

#[test]
fn what_cannot_take_part_is_said_and_nothing_is_left_behind() {
    if !privileged() {
        return;
    }
    let path = Path::without_router();
    let open = |names: &[&str]| path.router.run(|| AfXdp::open(&taking(names)).map(drop).unwrap_err());
    assert_eq!(open(&["near", "nowhere"]), AfXdpError::NoInterface("nowhere".to_owned()));
    assert_eq!(open(&["lo"]), AfXdpError::NotEthernet("lo".to_owned()));
    let one = path.router.run(|| AfXdp::open(&taking(&["near", "far"])).unwrap());
    let parts: Vec<(&str, usize, bool)> = one.parts().iter().map(|part| (&*part.name, part.queues, part.zero_copy)).collect();
    assert_eq!(parts, [("near", 1, false), ("far", 1, false)]);
    assert!(matches!(open(&["near"]), AfXdpError::Refused { what: "open an AF_XDP socket", .. }), "its sockets are taken");
}

/// Sender, router and receiver.
struct Path {
    sender: Namespace,
    router: Namespace,
    _receiver: Namespace,
    /// Sees all that comes to the receiver.
    capture: OwnedFd,
    /// Without them its kernel would answer that it knows no AH.
    _taken: [socket2::Socket; 2],
    names: [(u32, &'static str); 2],
    counters: Arc<Counters>,
    statistics: Statistics,
    _worker: Option<Worker>,
    /// Whether there is the short way.
    is_short: bool,
}

impl Path {
    fn without_router() -> Self {
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        let prefix = |address: &str| if address.contains(':') { 64 } else { 24 };
        let end = |position: usize| FAMILIES.map(|addresses| (addresses[position], prefix(addresses[position])));
        link(1500, (&sender, "up", &end(0)), (&router, "near", &end(1)));
        link(1500, (&router, "far", &end(2)), (&receiver, "far2", &end(3)));
        link(1500, (&router, "side", &end(4)), (&receiver, "side2", &end(5)));
        for ([_, near, far, ..], behind) in FAMILIES.into_iter().zip(BEHIND) {
            let any = if near.contains(':') { "::" } else { "0.0.0.0" };
            add_route(&sender, any, 0, near);
            add_route(&receiver, any, 0, far);
            receiver.run(|| namespace::add_address("lo", behind.parse().unwrap(), if behind.contains(':') { 128 } else { 32 }));
        }
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        let capture =
            receiver.run(|| socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll).unwrap());
        let of = |domain| receiver.run(|| socket2::Socket::new(domain, socket2::Type::RAW, Some(i32::from(AH).into())).unwrap());
        let taken = [socket2::Domain::IPV4, socket2::Domain::IPV6].map(of);
        let names = receiver.run(|| ["far2", "side2"].map(|name| (index(name), name)));
        let (counters, statistics, worker) = (Arc::default(), Statistics::default(), None);
        Self { sender, router, _receiver: receiver, capture, _taken: taken, names, counters, statistics, _worker: worker, is_short: false }
    }

    fn new(interfaces: Option<&[&str]>) -> Self {
        let path = Self::without_router();
        let (counters, statistics, worker) = path.router.run(|| route(interfaces));
        Self { counters, statistics, _worker: Some(worker), is_short: interfaces.is_some(), ..path }
    }

    /// Sends packets of these numbers and more, until the router has found the receiver and the kernel has been shown one; what sends.
    fn acquaint(&self, ends: (&str, &str), first: u32) -> Raw {
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
    fn arrives(&self, interface: &str) -> Option<Vec<u8>> {
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
    fn drain(&self) {
        std::thread::sleep(QUIET);
        let mut buffer = [0; 64];
        while nix::sys::socket::recv(self.capture.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    fn queued(&self) -> u64 {
        self.counted("data")
    }

    /// What the rules of this name have counted.
    fn counted(&self, name: &str) -> u64 {
        let counters = self.router.run(|| rules::counters(rules::Role::Router).unwrap());
        counters.iter().filter(|counter| counter.rule == name || counter.chain == name).map(|counter| counter.packets).sum()
    }

    fn judged(&self) -> u64 {
        self.counters.accepted().packets + self.counters.all_dropped().map(|(_, count)| count.packets).sum::<u64>()
    }

    fn all_dropped(&self) -> Vec<(DropReason, u64)> {
        self.counters.all_dropped().map(|(reason, count)| (reason, count.packets)).filter(|(_, packets)| *packets > 0).collect()
    }

    /// The router as another process, once it is ready.
    fn start_process(&mut self) -> Child {
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

fn taking(names: &[&str]) -> Vec<Taking> {
    names.iter().map(|name| Taking { name: (*name).to_owned(), leaves: true }).collect()
}

/// Rules and worker of the router, in the namespace of the calling thread.
fn route(interfaces: Option<&[&str]>) -> (Arc<Counters>, Statistics, Worker) {
    RouterRules::new(SIGNALLING, DATA, 30_270).install().unwrap();
    let counters = Arc::new(Counters::default());
    let mut verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), Arc::clone(&counters)).unwrap();
    for ([sender, _, _, receiver, ..], behind) in FAMILIES.into_iter().zip(BEHIND) {
        for (destination, spi) in [(receiver, SPI), (behind, SPI + 7)] {
            let flow = Flow {
                source: sender.parse().unwrap(),
                destination: destination.parse().unwrap(),
                protocol: UDP,
                source_port: 5000,
                destination_port: 9000,
            };
            let expires_at = Instant::from_secs(1000);
            let grant = Grant { flow, spi, key: key(), allowed: 1 << 20, counted: 0, highest: 0, expires_at };
            verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
        }
    }
    let queue = Queue::open(QueueConfig::new(DATA)).unwrap();
    let af_xdp = interfaces.map(|names| AfXdp::open(&taking(names)).unwrap());
    let statistics = af_xdp.as_ref().map(AfXdp::statistics).unwrap_or_default();
    let config = WorkerConfig::new("router".into(), Clock::new(Wall::now()), Arc::clone(&counters));
    let worker = Worker::spawn_beside(queue, af_xdp, Box::new(verifier), config, Box::new(|| {})).unwrap();
    (counters, statistics, worker)
}

fn key() -> IcvKey {
    IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap()
}

/// A datagram with so many octets of data under AH.
fn sealed(ends: (&str, &str), spi: u32, number: u32, len: usize) -> Vec<u8> {
    let mut udp = [5000_u16, 9000, u16::try_from(8 + len).unwrap(), 0].map(u16::to_be_bytes).as_flattened().to_vec();
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
fn expected(packet: &[u8]) -> Vec<u8> {
    let mut packet = with_hop_limit(packet.to_vec(), 63);
    if packet[0] >> 4 == 4 {
        Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
    }
    packet
}

/// Sets the MTU of a link of the calling thread's namespace.
fn set_mtu(name: &str, mtu: u32) {
    const MTU: u16 = 4;
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index(name).to_ne_bytes());
    namespace::route_request("set an MTU", 16, 0, &fixed, |writer| writer.put_u32(MTU, mtu));
}
