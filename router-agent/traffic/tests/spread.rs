//! Several workers with a queue each: packets come to the one whose table has their permission.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Wall};

use namespace::{Namespace, SOON, add_route, address, eventually, link, privileged};
use raw::{Raw, packet};
use smoltcp::time::Instant;
use socket2::{Domain, Protocol, Socket, Type};
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::common::Common;
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::queue::{Decision, Delivery, Queue, QueueConfig, ReceiveBuffer};
use traffic::reason::DropReason;
use traffic::rules::{self, Admitted, Family, Mode, Modes, Role, RouterRules};
use traffic::spread::Spread;
use traffic::update::{Grant, Update};
use traffic::verifier::{self, SignatureBudget, Verifier, VerifierConfig};
use traffic::worker::{Clock, Up, Worker, WorkerConfig, processors};

const SPREAD: Spread = Spread::new(3, 0x1234_5678);
const AH: u8 = 51;
const UDP: u8 = 17;
/// Addresses of sender, router towards it, and receiver.
const FAMILIES: [(&str, &str, &str); 2] = [("192.168.20.1", "192.168.20.254", "192.168.21.4"), ("fd20::1", "fd20::fe", "fd21::4")];

#[test]
fn packets_come_to_the_worker_that_is_computed_for_their_destination_and_spi_in_their_order() {
    if !privileged() {
        return;
    }
    // What leaves by the other interface is observed: its packets go by other chains and other queues.
    let observing = Modes { others: Mode::Closed, interfaces: vec![("up".to_owned(), Mode::Observe)] };
    for modes in [Modes::CLOSED, observing] {
        let path = Path::new(RouterRules { modes: modes.clone(), ..router_rules() });
        let observed = modes.observe();
        let mut queues = path.queues(observed);
        let mut of_bucket = BTreeMap::new();
        for (sender, _, receiver) in FAMILIES {
            let raw = path.sender.run(|| Raw::open(sender));
            let network = receiver.strip_suffix('4').unwrap();
            let receivers = ["4", "5", "77", "200"].map(|host| format!("{network}{host}"));
            for number in 1..=3 {
                for (receiver, spi) in receivers.iter().flat_map(|receiver| (300..310_u32).map(move |spi| (receiver, spi))) {
                    raw.send(&packet((sender, receiver), AH, ah_header(UDP, spi, number), 26));
                }
            }
            let mut numbers: BTreeMap<(IpAddr, u32), Vec<u32>> = BTreeMap::new();
            for (worker, bytes) in take(&mut queues, 120) {
                let packet = IpPacket::parse(&bytes).unwrap();
                let (destination, ah) = (packet.destination(), *packet.ah().unwrap());
                assert_eq!(worker, SPREAD.worker(&flow(sender, &destination.to_string()), ah.spi()), "{destination} {}", ah.spi());
                numbers.entry((destination, ah.spi())).or_default().push(ah.sequence());
                *of_bucket.entry((destination.is_ipv4(), worker)).or_insert(0_u64) += 1;
            }
            assert_eq!(numbers.len(), 40);
            assert!(numbers.values().all(|numbers| *numbers == [1, 2, 3]), "{numbers:?}");
        }
        let chain = if observed { "spread-observed" } else { "spread" };
        let counted = path.router.run(|| rules::counters(Role::Router).unwrap());
        for worker in 0..SPREAD.workers() {
            for family in [Family::Ipv4, Family::Ipv6] {
                let rule = format!("worker {worker}");
                let row = counted.iter().find(|row| (row.family, &*row.chain, &row.rule) == (family, chain, &rule));
                let expected = of_bucket[&(family == Family::Ipv4, worker)];
                assert!(expected > 20, "{of_bucket:?}");
                assert_eq!(row.unwrap().packets, expected, "{family:?} {rule}");
            }
        }
    }
}

#[test]
fn what_has_no_ah_or_packs_packets_comes_to_the_first_and_datagrams_in_fragments_come_whole() {
    if !privileged() {
        return;
    }
    let path = Path::new(router_rules());
    let mut queues = path.queues(false);
    for (sender, _, receiver) in FAMILIES {
        let raw = path.sender.run(|| Raw::open(sender));
        path.sender.udp(address(sender, 5000)).send_to(b"clear", address(receiver, 5001)).unwrap();
        let inside = if sender.contains(':') { 41 } else { 4 };
        let spis: Vec<u32> = (300..400).filter(|spi| SPREAD.worker(&flow(sender, receiver), *spi) == 2).take(4).collect();
        for spi in &spis {
            raw.send(&packet((sender, receiver), AH, ah_header(inside, *spi, 1), 26));
        }
        assert!(take(&mut queues, 5).iter().all(|(worker, _)| *worker == 0));

        let whole = path.sender.run(|| {
            Socket::new(if inside == 41 { Domain::IPV6 } else { Domain::IPV4 }, Type::RAW, Some(Protocol::from(i32::from(AH)))).unwrap()
        });
        for spi in &spis {
            let mut datagram = ah_header(UDP, *spi, 2);
            datagram.resize(4000, 7);
            whole.send_to(&datagram, &address(receiver, 0).into()).unwrap();
        }
        for (worker, bytes) in take(&mut queues, 4) {
            assert_eq!((worker, bytes.len() > 4000), (2, true), "{receiver}");
        }
    }
}

#[test]
fn an_error_comes_to_the_worker_whose_permission_it_is_about_and_others_to_the_first() {
    if !privileged() {
        return;
    }
    let path = Path::new(router_rules());
    let mut queues = path.queues(false);
    let admitted = path.router.run(|| Admitted::open(Role::Router).unwrap());
    for (sender, _, receiver) in FAMILIES {
        let (own, other) = (path.receiver.run(|| Raw::open(sender)), flow(sender, receiver));
        let spis: Vec<u32> = (300..400).filter(|spi| SPREAD.worker(&other, *spi) != 0).collect();
        let error = |spi| {
            let quoted = packet((sender, receiver), AH, ah_header(UDP, spi, 1), 26);
            let kind: u8 = if sender.contains(':') { 1 } else { 3 };
            packet((receiver, sender), if kind == 1 { 58 } else { 1 }, [&[kind, 1, 0, 0, 0, 0, 0, 0], &*quoted].concat(), 2)
        };
        let (known, unknown) = (spis[0], spis[1]);
        admitted.admit(other, known, Duration::from_secs(10));
        admitted.settled();
        for (spi, expected) in [(known, SPREAD.worker(&other, known)), (unknown, 0)] {
            own.send(&error(spi));
            assert_eq!(take(&mut queues, 1)[0].0, expected, "{receiver} {spi}");
        }
    }
}

/// what the rules know of a tunnel's SPI takes its packets and errors about them to the first, and nothing of other flows between the
/// same nodes.
#[test]
fn tunnels_behind_options_and_errors_about_tunnels_come_to_the_first_and_those_about_flows_beside_them_do_not() {
    if !privileged() {
        return;
    }
    const OPTIONS: u8 = 60;
    let path = Path::new(router_rules());
    let mut queues = path.queues(false);
    let admitted = path.router.run(|| Admitted::open(Role::Router).unwrap());
    for (sender, _, receiver) in FAMILIES {
        let is_ipv6 = sender.contains(':');
        let inside = if is_ipv6 { 41 } else { 4 };
        let (raw, back) = (path.sender.run(|| Raw::open(sender)), path.receiver.run(|| Raw::open(sender)));
        let of_hash = |spi| SPREAD.worker(&flow(sender, receiver), spi);
        let spis: Vec<u32> = (0x0001_0300..0x0001_0400).filter(|spi| of_hash(*spi) != 0).collect();
        let (around, beside) = (spis[0], spis[1]);
        let tunnel = Flow { protocol: inside, source_port: 0, destination_port: 0, ..flow(sender, receiver) };
        assert_eq!(SPREAD.worker(&tunnel, around), 0);
        let lasts = Duration::from_secs(10);
        admitted.admit(tunnel, around, lasts);
        admitted.admit(flow(sender, receiver), beside, lasts);
        admitted.settled();
        let error = |protocol, spi| {
            let quoted = packet((sender, receiver), AH, ah_header(protocol, spi, 1), 26);
            let kind: u8 = if is_ipv6 { 1 } else { 3 };
            packet((receiver, sender), if is_ipv6 { 58 } else { 1 }, [&[kind, 1, 0, 0, 0, 0, 0, 0], &*quoted].concat(), 2)
        };
        let mut comes_to = |raw: &Raw, packet: &[u8]| {
            raw.send(packet);
            take(&mut queues, 1)[0].0
        };
        for (protocol, spi, expected) in [(inside, around, 0), (OPTIONS, around, 0), (UDP, beside, of_hash(beside))] {
            assert_eq!(comes_to(&back, &error(protocol, spi)), expected, "{receiver}: an error about {protocol}");
        }
        if is_ipv6 {
            let with_options = |next, spi| {
                let mut sealed = ah_header(OPTIONS, spi, 2);
                sealed.splice(28..28, [next, 0, 1, 4, 0, 0, 0, 0]);
                packet((sender, receiver), AH, sealed, 26)
            };
            assert_eq!(comes_to(&raw, &with_options(inside, around)), 0);
            assert_eq!(comes_to(&raw, &with_options(UDP, beside)), of_hash(beside));
            // With its permission the tunnel is forgotten.
            admitted.forget(tunnel, around);
            admitted.settled();
            assert_ne!(comes_to(&raw, &with_options(inside, around)), 0);
        }
    }
}

/// The control side installs a permission once; no other worker knows it, and each runs on the processor that it is kept to.
#[test]
fn each_worker_passes_the_packets_of_the_permissions_that_it_alone_has() {
    if !privileged() {
        return;
    }
    let path = Path::new(router_rules());
    let common = Common::new(SignatureBudget::NODE);
    let clock = Clock::new(Wall::now());
    let mut workers: Vec<(Worker, Arc<Counters>)> = (0..SPREAD.workers())
        .map(|worker| {
            let counters = Arc::new(Counters::default());
            let verifier = verifier(&counters).sharing(&common);
            let queue = path.router.run(|| Queue::open(QueueConfig::router(router_rules().data_queue_of(worker))).unwrap());
            let config = WorkerConfig {
                processor: processors().last().copied(),
                ..WorkerConfig::new(format!("w{worker}"), clock, counters.clone())
            };
            (Worker::spawn(queue, Box::new(verifier), config, Box::new(|| {})).unwrap(), counters)
        })
        .collect();
    let (sender, _, receiver) = FAMILIES[0];
    let raw = path.sender.run(|| Raw::open(sender));
    // Who takes the packets also keeps the receiver from saying that nobody does.
    let arrived = path.receiver.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(AH)))).unwrap());
    arrived.set_read_timeout(Some(SOON)).unwrap();
    let mut expected = [0_u64; 3];
    for spi in 300..330 {
        let at = usize::from(SPREAD.worker(&flow(sender, receiver), spi));
        expected[at] += 1;
        let (worker, _) = &mut workers[at];
        worker.send(install(sender, receiver, spi, clock.now())).unwrap();
        eventually("the permission is installed", || worker.receive().is_some_and(|up| matches!(up, Up::Applied(_))));
        raw.send(&sealed(sender, receiver, spi));
        let mut packet = [0; 100];
        let len = (&arrived).read(&mut packet).unwrap();
        assert_eq!(IpPacket::parse(&packet[..len]).unwrap().ah().unwrap().spi(), spi);
    }
    assert!(expected.iter().all(|count| *count > 3), "{expected:?}");
    eventually("all have passed", || workers.iter().map(|(_, counters)| counters.accepted().packets).eq(expected));
    assert!(workers.iter().all(|(_, counters)| counters.all_dropped().all(|(_, count)| count.packets == 0)));
}

/// In open mode what claims no permission trickles; a packet of a permitted flow that leaves its AH out must not, whoever has the
/// permission.
#[test]
fn a_packet_without_ah_of_another_workers_flow_is_known_to_lack_it() {
    let common = Common::new(SignatureBudget::NODE);
    let counters = Arc::new(Counters::default());
    let [mut first, mut second] = [(); 2].map(|()| verifier(&counters).sharing(&common));
    let (sender, _, receiver) = FAMILIES[0];
    let clear = packet((sender, receiver), UDP, [5000_u16, 5001, 10, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec(), 6);
    let mut judged = |now| first.process(PacketId(1), &clear, now) == Verdict::Drop(DropReason::MissingAh);
    assert!(!judged(Instant::ZERO));
    second.apply(install(sender, receiver, 300, Instant::ZERO), Instant::ZERO).unwrap();
    assert!(judged(Instant::ZERO));
    second.apply(Update::Remove { token: 2, flow: flow(sender, receiver), spi: 300 }, Instant::ZERO).unwrap();
    assert!(!judged(Instant::ZERO));
}

fn router_rules() -> RouterRules {
    RouterRules { observed_queue: 5, spread: SPREAD, further_queues: 40, ..RouterRules::new(1, 2, 30_270) }
}

fn flow(sender: &str, receiver: &str) -> Flow {
    let (source, destination) = (sender.parse().unwrap(), receiver.parse().unwrap());
    Flow { source, destination, protocol: UDP, source_port: 5000, destination_port: 5001 }
}

fn key() -> IcvKey {
    IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap()
}

fn verifier(counters: &Arc<Counters>) -> Verifier {
    Verifier::new(VerifierConfig::new(verifier::Role::Router), Arc::new(Strict), counters.clone()).unwrap()
}

fn install(sender: &str, receiver: &str, spi: u32, now: Instant) -> Update {
    let expires_at = now + smoltcp::time::Duration::from_secs(100);
    let flow = Flow { source_port: if spi == 300 { 5000 } else { u16::try_from(spi).unwrap() }, ..flow(sender, receiver) };
    Update::Install { token: 1, grant: Grant { flow, spi, key: key(), allowed: 1 << 20, counted: 0, highest: 0, expires_at } }
}

fn sealed(sender: &str, receiver: &str, spi: u32) -> Vec<u8> {
    let source_port = if spi == 300 { 5000 } else { u16::try_from(spi).unwrap() };
    let udp = [source_port, 5001, 10, 0, 0].map(u16::to_be_bytes).as_flattened().to_vec();
    let mut clear = packet((sender, receiver), UDP, udp, 6);
    // The kernel would fill in an identification of 0, behind the ICV.
    clear[5] = 1;
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(&clear).unwrap(), spi, Number { low: 1, high: None }, &key(), &mut out).unwrap();
    out
}

/// AH with an ICV of 16 octets (and on IPv6 padding), and behind it the header of a UDP datagram without data or checksum.
fn ah_header(next: u8, spi: u32, number: u32) -> Vec<u8> {
    let head = [&[next, 5, 0, 0], &spi.to_be_bytes()[..], &number.to_be_bytes(), &[0; 16]].concat();
    [head, [5000_u16, 5001, 8, 0].map(u16::to_be_bytes).as_flattened().to_vec()].concat()
}

/// Waits for so many packets, and drops them all; each with the place of the queue that it came to.
fn take(queues: &mut [Queue], count: usize) -> Vec<(u16, Vec<u8>)> {
    let (mut found, mut buffer) = (Vec::new(), ReceiveBuffer::default());
    let began = Wall::now();
    while found.len() < count {
        assert!(began.elapsed() < SOON, "{} of {count} packets", found.len());
        for (place, queue) in (0..).zip(queues.iter_mut()) {
            let mut ids = Vec::new();
            while let Ok(deliveries) = queue.receive(&mut buffer) {
                for delivery in deliveries {
                    let Delivery::Packet(packet) = delivery else { panic!("{delivery:?}") };
                    found.push((place, packet.payload.to_vec()));
                    ids.push(packet.id);
                }
            }
            ids.into_iter().for_each(|id| queue.verdict(id, Decision::Drop).unwrap());
        }
    }
    found
}

/// Sender, router with its rules, receiver.
struct Path {
    sender: Namespace,
    router: Namespace,
    receiver: Namespace,
}

impl Path {
    fn new(rules: RouterRules) -> Self {
        let path = Self { sender: Namespace::new(), router: Namespace::new(), receiver: Namespace::new() };
        let [(s4, r4, e4), (s6, r6, e6)] = FAMILIES;
        link(1500, (&path.sender, "up", &[(s4, 24), (s6, 64)]), (&path.router, "down", &[(r4, 24), (r6, 64)]));
        link(1500, (&path.router, "up", &[("192.168.21.254", 24), ("fd21::fe", 64)]), (&path.receiver, "down", &[(e4, 24), (e6, 64)]));
        for (host, v4, v6) in [(&path.sender, r4, r6), (&path.receiver, "192.168.21.254", "fd21::fe")] {
            add_route(host, "0.0.0.0", 0, v4);
            add_route(host, "::", 0, v6);
        }
        path.router.sysctl("net/ipv4/ip_forward", "1");
        path.router.sysctl("net/ipv6/conf/all/forwarding", "1");
        path.router.run(|| rules.install().unwrap());
        path
    }

    fn queues(&self, observed: bool) -> Vec<Queue> {
        let number = |worker| if observed { router_rules().observed_queue_of(worker) } else { router_rules().data_queue_of(worker) };
        (0..SPREAD.workers()).map(|worker| self.router.run(|| Queue::open(QueueConfig::router(number(worker))).unwrap())).collect()
    }
}
