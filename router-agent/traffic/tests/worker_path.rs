//! Sender's host, router and receiver's host with the real processors: plain sockets talk under AH without knowing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use namespace::{
    Namespace, QUIET, SOON, add_route, address, connect, eventually, forbid_fragments, index, link, octets, privileged, receive,
    route_request,
};
use nix::sys::socket::{setsockopt, sockopt};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::inserter::{Inserter, InserterConfig};
use traffic::netlink::{Batch, CREATE, EXCLUSIVE, Protocol, Socket};
use traffic::processor::PacketProcessor;
use traffic::queue::{Queue, QueueConfig};
use traffic::reason::DropReason;
use traffic::routes::MtuPlan;
use traffic::rules::{self, Admitted, HostRules, RouterRules};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Up, Worker, WorkerConfig};

const DATA: u16 = 2;
const OUT: u16 = 3;
const IN: u16 = 4;
const WHOLE: u16 = 6;
const UDP: u8 = 17;
const TCP: u8 = 6;
const PLAN: MtuPlan = MtuPlan::new(28, 32);

/// Sender, router towards it, router towards the receiver, receiver; prefix length; largest datagram that fits the link under AH.
const FAMILIES: [([&str; 4], u8, usize); 2] = [
    (["192.168.20.1", "192.168.20.254", "192.168.21.254", "192.168.21.4"], 24, 1444),
    (["fd20::1", "fd20::fe", "fd21::fe", "fd21::4"], 64, 1420),
];

#[test]
fn datagrams_of_every_size_arrive_under_a_permission_and_none_without() {
    // P-146, P-147, P-149; P-163: by this project's own AH behind the kernel's packet queue.
    if !privileged() {
        return;
    }
    let mut path = Path::new();
    for ([sender, _, _, receiver], _, fits) in FAMILIES {
        let (from, to) = (address(sender, 5000), address(receiver, 5001));
        let (sending, receiving) = (path.sender.space.udp(from), path.receiver.space.udp(to));
        let _ = sending.send_to(b"before", to);
        assert_eq!(receive(&receiving, QUIET), None);
        path.permit(UDP, from, to);
        for size in [1, 100, fits, fits + 1, 1472, 4000, 20_000, 65_000] {
            sending.send_to(&vec![7; size], to).unwrap();
            assert_eq!(receive(&receiving, SOON).expect("it arrives").len(), size, "{from} > {to}");
        }
        forbid_fragments(&sending);
        sending.send_to(&vec![7; fits], to).unwrap();
        assert_eq!(receive(&receiving, SOON).unwrap().len(), fits);
        assert_eq!(sending.send_to(&vec![7; fits + 1], to).unwrap_err().raw_os_error(), Some(nix::libc::EMSGSIZE));
        path.revoke(UDP, from, to);
        let _ = sending.send_to(b"after", to);
        assert_eq!(receive(&receiving, QUIET), None);
    }
    // Each family's datagram before its permission, and the one after its removal.
    assert_eq!(path.sender.out_counters.dropped(DropReason::NotAsked).packets, 4);
    assert_eq!(path.admitted[0].dropped(), Some(Vec::new()), "nothing without AH comes to the router");
    assert_eq!(path.router_counters.all_dropped().map(|(_, count)| count.packets).sum::<u64>(), 0);
}

/// Such as the packets of a tunnel, which must not enter the tunnel themselves: WireGuard tells them by their mark.
#[test]
fn a_packet_with_ah_keeps_the_mark_of_its_program_whether_it_has_waited_or_not() {
    const TUNNEL: u32 = 51_820;
    if !privileged() {
        return;
    }
    let mut path = Path::new();
    path.sender.space.run(|| {
        for (family, destination) in [(2, "0.0.0.0"), (10, "::")] {
            let into_the_tunnel = routing::Route { destination, kind: 6, table: TUNNEL, ..routing::Route::default() };
            into_the_tunnel.add();
            routing::add_rule(family, 100, Some(TUNNEL), TUNNEL, false);
        }
        PLAN.apply().unwrap();
    });
    for ([sender, _, _, receiver], ..) in FAMILIES {
        let (from, to) = (address(sender, 5000), address(receiver, 5001));
        let (sending, receiving) = (path.sender.space.udp(from), path.receiver.space.udp(to));
        setsockopt(&sending, sockopt::Mark, &TUNNEL).unwrap();
        let until = path.clock.now() + Duration::from_secs(600).into();
        carry_out(&mut path.sender.out, Update::Expect { token: 1, flow: flow(UDP, from, to), until });
        sending.send_to(b"waits", to).unwrap();
        assert_eq!(receive(&receiving, QUIET), None);
        path.permit(UDP, from, to);
        assert_eq!(receive(&receiving, SOON).unwrap(), b"waits");
        sending.send_to(b"does not wait", to).unwrap();
        assert_eq!(receive(&receiving, SOON).unwrap(), b"does not wait");
    }
}

#[test]
fn a_tcp_connection_runs_at_full_segments_with_a_permission_each_way() {
    if !privileged() {
        return;
    }
    const LEN: usize = 4 << 20;
    let mut path = Path::new();
    for ([sender, _, _, receiver], ..) in FAMILIES {
        let (from, to) = (address(sender, 6000), address(receiver, 7000));
        path.permit(TCP, from, to);
        path.permit(TCP, to, from);
        let listener = path.receiver.space.run(|| TcpListener::bind(to).unwrap());
        let mut client = path.sender.space.run(|| connect(from, to));
        let (mut server, _) = listener.accept().unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_write_timeout(Some(SOON)).unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        let before = path.router_counters.accepted();
        let start = Instant::now();
        let writer = std::thread::spawn(move || {
            client.write_all(&[0x5a; LEN]).unwrap();
            client
        });
        let mut got = 0;
        let mut buffer = vec![0; 1 << 16];
        while got < LEN {
            let len = server.read(&mut buffer).unwrap();
            assert!(len > 0 && buffer[..len].iter().all(|octet| *octet == 0x5a));
            got += len;
        }
        writer.join().unwrap();
        let (after, elapsed) = (path.router_counters.accepted(), start.elapsed());
        let (packets, bytes) = (after.packets - before.packets, after.bytes - before.bytes);
        println!(
            "{from} > {to}: {} Mbit/s, {packets} packets of {} octets",
            LEN * 8 / elapsed.as_micros().max(1) as usize,
            bytes / packets
        );
        // Segments fill the link; the packets back are acknowledgements only.
        assert!(packets < 2 * (LEN / 1380) as u64, "{packets}");
    }
    assert_eq!(path.receiver.in_counters.all_dropped().map(|(_, count)| count.packets).sum::<u64>(), 0);
}

/// What a socket of the host has to send goes down in super-packets, and leaves in segments cut by its worker.
#[test]
fn super_packets_leave_in_full_segments_with_a_seal_each_and_nothing_is_lost_when_volume_runs_out_in_one() {
    if !privileged() {
        return;
    }
    // Frames, which no filter rule sees; but where IPsec policies stand, whoever's they are, packets, which the kernel looks at.
    for is_seen in [false, true] {
        let path = Path::with(Some(WHOLE));
        if is_seen {
            path.sender.space.run(set_ipsec_policy);
        }
        send_super_packets(path, is_seen);
    }
}

fn send_super_packets(mut path: Path, is_seen: bool) {
    const LEN: usize = 6 << 20;
    const AT_FIRST: u64 = 1_000_000;
    for ([sender, _, _, receiver], ..) in FAMILIES {
        let (from, to) = (address(sender, 6000), address(receiver, 7000));
        path.permit_volume(TCP, from, to, AT_FIRST);
        path.permit(TCP, to, from);
        let listener = path.receiver.space.run(|| TcpListener::bind(to).unwrap());
        let mut client = path.sender.space.run(|| connect(from, to));
        let (mut server, _) = listener.accept().unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_write_timeout(Some(SOON)).unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        let before = path.router_counters.accepted();
        let data: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
        let writer = std::thread::spawn(move || {
            client.write_all(&data).unwrap();
            client
        });
        let (mut got, mut buffer, mut is_extended) = (0, vec![0; 1 << 16], false);
        while got < LEN {
            let len = server.read(&mut buffer).unwrap();
            assert!(len > 0 && buffer[..len].iter().enumerate().all(|(at, octet)| *octet == ((got + at) % 251) as u8));
            got += len;
            if !is_extended && got + 200_000 > AT_FIRST as usize {
                // What is beyond the volume waits by now, or is about to.
                std::thread::sleep(QUIET);
                assert!(path.sender.out_counters.accepted().bytes <= path.sent_before + AT_FIRST);
                path.extend(TCP, from, to, 1 << 30);
                is_extended = true;
            }
        }
        drop((writer.join().unwrap(), server));
        // The ends of a connection are counted too.
        std::thread::sleep(QUIET);
        path.sent_before = path.sender.out_counters.accepted().bytes;
        let after = path.router_counters.accepted();
        let (packets, bytes) = (after.packets - before.packets, after.bytes - before.bytes);
        assert!(packets < 2 * (LEN / 1380) as u64, "{packets} packets of {} octets", bytes / packets);
    }
    let of_segments = path.sender.space.run(|| rules::counters(rules::Role::Host).unwrap());
    for family in [rules::Family::Ipv4, rules::Family::Ipv6] {
        let seen: u64 = of_segments
            .iter()
            .filter(|counter| counter.family == family && counter.chain == "outbound" && counter.rule == "own segments")
            .map(|counter| counter.packets)
            .sum();
        // The first frames wait until the neighbour is known.
        let is_most = seen > (LEN / 1448 / 2) as u64;
        assert_eq!(is_most, is_seen, "{family:?}: {seen} segments of {}", LEN / 1448);
    }
    for counters in [&path.router_counters, &path.receiver.in_counters] {
        let dropped: Vec<_> = counters.all_dropped().filter(|(_, count)| count.packets > 0).collect();
        assert_eq!(dropped, [], "each is sealed under a number of its own");
    }
    assert_eq!(path.sender.out_counters.dropped(DropReason::NotTransmitted).packets, 0);
}

/// Frames go where the kernel's answers of the last second say, and what they say changes.
#[test]
fn super_packets_go_on_by_other_ways_when_their_neighbour_is_forgotten_and_when_their_link_carries_less() {
    if !privileged() {
        return;
    }
    const LEN: usize = 12 << 20;
    let mut path = Path::with(Some(WHOLE));
    for ([sender, near, _, receiver], ..) in FAMILIES {
        path.sender.space.run(|| set_mtu("up", 1500));
        let (from, to) = (address(sender, 6000), address(receiver, 7000));
        path.permit(TCP, from, to);
        path.permit(TCP, to, from);
        let listener = path.receiver.space.run(|| TcpListener::bind(to).unwrap());
        let mut client = path.sender.space.run(|| connect(from, to));
        let (mut server, _) = listener.accept().unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_write_timeout(Some(SOON)).unwrap();
        server.set_read_timeout(Some(SOON)).unwrap();
        let data: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
        let writer = std::thread::spawn(move || {
            client.write_all(&data).unwrap();
            client
        });
        let (mut got, mut buffer, mut changes) = (0, vec![0; 1 << 16], 0);
        while got < LEN {
            let len = server.read(&mut buffer).unwrap();
            assert!(len > 0 && buffer[..len].iter().enumerate().all(|(at, octet)| *octet == ((got + at) % 251) as u8));
            got += len;
            if got > LEN / 4 * (changes + 1) {
                changes += 1;
                match changes {
                    1 => path.sender.space.run(|| forget_neighbour("up", near)),
                    2 => path.sender.space.run(|| set_mtu("up", 1400)),
                    _ => {}
                }
            }
        }
        writer.join().unwrap();
    }
    for counters in [&path.router_counters, &path.receiver.in_counters] {
        let dropped: Vec<_> = counters.all_dropped().filter(|(_, count)| count.packets > 0).collect();
        assert_eq!(dropped, [], "each is sealed");
    }
    for admitted in &path.admitted[..1] {
        assert_eq!(admitted.dropped(), Some(Vec::new()), "and none comes without AH");
    }
}

/// Sets a link's MTU, and the routes that follow it.
fn set_mtu(name: &str, mtu: u32) {
    let [a, b, c, d] = index(name).to_ne_bytes();
    route_request("set the MTU", 16, 0, &[0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0], |writer| writer.put_u32(4, mtu));
    PLAN.apply().unwrap();
}

/// Has the kernel ask for a neighbour anew.
fn forget_neighbour(name: &str, neighbour: &str) {
    let ([a, b, c, d], neighbour) = (index(name).to_ne_bytes(), neighbour.parse::<IpAddr>().unwrap());
    let family = if neighbour.is_ipv4() { 2 } else { 10 };
    route_request("forget a neighbour", 29, 0, &[family, 0, 0, 0, a, b, c, d, 0, 0, 0, 0], |writer| writer.put(1, &octets(neighbour)));
}

/// What is for somebody else is to be dropped for want of IPsec (`XFRM_MSG_NEWPOLICY` with `struct xfrm_userpolicy_info`).
fn set_ipsec_policy() {
    let mut policy = [0; 168];
    policy[..4].copy_from_slice(&[203, 0, 113, 1]);
    // Its prefix and family; no limits; outwards; to be dropped.
    (policy[42], policy[40]) = (32, 2);
    policy[56..88].fill(0xff);
    (policy[160], policy[161]) = (1, 1);
    let mut batch = Batch::new("set an IPsec policy");
    batch.request("set an IPsec policy", 0x13, CREATE | EXCLUSIVE, &policy, |_| {});
    Socket::open(Protocol::Policies).unwrap().transact(batch).unwrap();
}

/// A host with its two workers.
struct Host {
    space: Namespace,
    out: Worker,
    inn: Worker,
    out_counters: Arc<Counters>,
    in_counters: Arc<Counters>,
}

impl Host {
    fn new(space: Namespace, clock: Clock, whole: Option<u16>) -> Self {
        let (out_counters, in_counters) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
        let config = InserterConfig { mark: Some(PLAN.mark), ..InserterConfig::default() };
        let inserter = Inserter::new(config, Arc::new(Strict), Arc::clone(&out_counters));
        let verifier = Verifier::new(VerifierConfig::new(Role::Receiver), Arc::new(Strict), Arc::clone(&in_counters)).unwrap();
        let whole_rules = whole.map(|queue| rules::Whole { queue, mark: PLAN.mark });
        let rules = HostRules { whole: whole_rules, ..HostRules::new(OUT, IN, 30_270) };
        space.run(|| rules.install().unwrap());
        space.run(|| PLAN.apply().unwrap());
        let out = worker(&space, QueueConfig { whole, ..QueueConfig::new(OUT) }, Box::new(inserter), clock, &out_counters);
        let inn = worker(&space, QueueConfig::new(IN), Box::new(verifier), clock, &in_counters);
        Self { space, out, inn, out_counters, in_counters }
    }
}

/// A host, a router and another host.
struct Path {
    sender: Host,
    router: Worker,
    router_counters: Arc<Counters>,
    receiver: Host,
    clock: Clock,
    /// Of router and both hosts.
    admitted: [Admitted; 3],
    /// Octets that the sender had sent before the connection that is looked at.
    sent_before: u64,
}

impl Path {
    fn new() -> Self {
        Self::with(None)
    }

    /// With a queue of super-packets at the hosts.
    fn with(whole: Option<u16>) -> Self {
        let clock = Clock::new(Instant::now());
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        let end = |position: usize| FAMILIES.map(|(addresses, prefix, _)| (addresses[position], prefix));
        link(1500, (&sender, "up", &end(0)), (&router, "down", &end(1)));
        link(1500, (&router, "up", &end(2)), (&receiver, "down", &end(3)));
        for ([_, near, far, _], ..) in FAMILIES {
            let any = if near.contains(':') { "::" } else { "0.0.0.0" };
            add_route(&sender, any, 0, near);
            add_route(&receiver, any, 0, far);
        }
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        router.run(|| RouterRules { shield: true, ..RouterRules::new(1, DATA, 30_270) }.install().unwrap());
        let router_counters = Arc::new(Counters::default());
        let verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), Arc::clone(&router_counters)).unwrap();
        let worker = worker(&router, QueueConfig::router(DATA), Box::new(verifier), clock, &router_counters);
        let of = |space: &Namespace, role| space.run(|| Admitted::open(role).unwrap());
        let admitted = [of(&router, rules::Role::Router), of(&sender, rules::Role::Host), of(&receiver, rules::Role::Host)];
        let (sender, receiver) = (Host::new(sender, clock, whole), Host::new(receiver, clock, whole));
        Self { sender, router: worker, router_counters, receiver, clock, admitted, sent_before: 0 }
    }

    /// Installs a permission at every node, the receiver first.
    fn permit(&mut self, protocol: u8, from: SocketAddr, to: SocketAddr) {
        self.permit_volume(protocol, from, to, 1 << 30);
    }

    /// Has a permission allow more.
    fn extend(&mut self, protocol: u8, from: SocketAddr, to: SocketAddr, allowed: u64) {
        let expires_at = self.clock.now() + Duration::from_secs(600).into();
        let (flow, spi) = (flow(protocol, from, to), 4096 + u32::from(to.port()));
        for worker in self.workers(from) {
            carry_out(worker, Update::Update { token: 2, flow, spi, allowed, expires_at });
        }
    }

    fn permit_volume(&mut self, protocol: u8, from: SocketAddr, to: SocketAddr, allowed: u64) {
        let grant = Grant {
            flow: flow(protocol, from, to),
            spi: 4096 + u32::from(to.port()),
            key: IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap(),
            allowed,
            counted: 0,
            highest: 0,
            expires_at: self.clock.now() + Duration::from_secs(600).into(),
        };
        for admitted in &self.admitted {
            admitted.admit(grant.flow, grant.spi, Duration::from_secs(600));
            admitted.settled();
        }
        let install = || Update::Install { token: 1, grant: grant.clone() };
        for worker in self.workers(from) {
            carry_out(worker, install());
        }
    }

    /// Removes it at the sender.
    fn revoke(&mut self, protocol: u8, from: SocketAddr, to: SocketAddr) {
        let [.., sender] = self.workers(from);
        carry_out(sender, Update::Remove { token: 1, flow: flow(protocol, from, to), spi: 4096 + u32::from(to.port()) });
    }

    fn workers(&mut self, from: SocketAddr) -> [&mut Worker; 3] {
        let forth = FAMILIES.iter().any(|(addresses, ..)| addresses[0].parse() == Ok(from.ip()));
        let (near, far) = if forth { (&mut self.sender, &mut self.receiver) } else { (&mut self.receiver, &mut self.sender) };
        [&mut far.inn, &mut self.router, &mut near.out]
    }
}

fn worker(space: &Namespace, queue: QueueConfig, processor: Box<dyn PacketProcessor>, clock: Clock, counters: &Arc<Counters>) -> Worker {
    let queue = space.run(|| Queue::open(queue).unwrap());
    Worker::spawn(queue, processor, WorkerConfig::new("worker".into(), clock, Arc::clone(counters)), Box::new(|| {})).unwrap()
}

fn carry_out(worker: &mut Worker, update: Update) {
    worker.send(update).unwrap();
    let mut answer = None;
    eventually("the update is answered", || {
        // Events are nobody's business here.
        answer = worker.receive().filter(|up| !matches!(up, Up::Event(_)));
        answer.is_some()
    });
    assert!(matches!(answer, Some(Up::Applied(_))), "{answer:?}");
}

fn flow(protocol: u8, from: SocketAddr, to: SocketAddr) -> Flow {
    Flow { source: from.ip(), destination: to.ip(), protocol, source_port: from.port(), destination_port: to.port() }
}
