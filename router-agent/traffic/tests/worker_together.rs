//! A router's worker with its verifier, which has verdicts put together: of packets in a row each passes as it is judged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::io::Read;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant as Wall;

use namespace::{Namespace, QUIET, SOON, add_route, eventually, link, privileged, set_link};
use raw::{Raw, packet};
use smoltcp::time::Instant;
use socket2::{Domain, Protocol, Socket, Type};
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::packet::IpPacket;
use traffic::processor::{Arrival, PacketId, PacketProcessor, Released, Verdict};
use traffic::queue::{Queue, QueueConfig, kernel_statistics};
use traffic::reason::DropReason;
use traffic::rules::RouterRules;
use traffic::update::{Applied, Grant, Refused, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Faults, Worker, WorkerConfig};

const DATA: u16 = 2;
const AH: u8 = 51;
const UDP: u8 = 17;
const SENDER: &str = "192.168.20.1";
const RECEIVER: &str = "192.168.21.4";
const SPI: u32 = 4096;
/// Longer packets are cut.
const LONGEST: usize = 1280;
/// Octets of data in a packet, and in one that is cut.
const SHORT: usize = 100;
const LONG: usize = 1400;

#[test]
fn in_the_midst_of_a_row_what_is_cut_or_refused_does_not_pass_and_all_others_do_in_their_order() {
    if !privileged() {
        return;
    }
    let scene = Scene::start();
    // As many as come with several calls: what is wrong comes alone, in twos, and at the end of a call and the beginning of the next.
    let wrong = |number: u32| match number {
        20 | 41 | 80 | 81 => Some(DropReason::BadIcv),
        30 | 90 => Some(DropReason::TooLarge),
        31 => Some(DropReason::UnknownSpi),
        50 | 82 => Some(DropReason::Replayed),
        _ => None,
    };
    const LAST: u32 = 150;
    scene.wait_in_the_queue(2..=LAST, |number| match wrong(number) {
        Some(DropReason::TooLarge) => sealed(SPI, number, LONG),
        Some(DropReason::UnknownSpi) => sealed(SPI + 1, number, SHORT),
        Some(DropReason::Replayed) => sealed(SPI, number - 1, SHORT),
        Some(_) => {
            let mut packet = sealed(SPI, number, SHORT);
            *packet.last_mut().unwrap() ^= 1;
            packet
        }
        None => sealed(SPI, number, SHORT),
    });
    scene.go.send(()).unwrap();
    eventually("none waits", || scene.waiting() == 0);
    // 49 and 81 once more; the latter was wrong the first time.
    let passes = |number: &u32| wrong(*number).is_none() || *number == 81;
    assert_eq!(scene.arrived(), (1..=LAST).filter(passes).collect::<Vec<_>>());
    let dropped: Vec<_> = scene.counters.all_dropped().filter(|(_, count)| count.packets > 0).collect();
    let of = |reason| dropped.iter().find(|(other, _)| *other == reason).map_or(0, |(_, count)| count.packets);
    let expected = [(DropReason::BadIcv, 4), (DropReason::TooLarge, 2), (DropReason::UnknownSpi, 1), (DropReason::Replayed, 1)];
    assert_eq!(expected.map(|(reason, _)| (reason, of(reason))), expected, "{dropped:?}");
    assert_eq!((dropped.len(), scene.counters.accepted().packets), (4, u64::from(LAST) - 8));
    assert_eq!(scene.worker.faults(), Faults::default());
}

/// A link that goes down takes along what waits; the kernel refuses one message for many packets.
#[test]
fn packets_of_a_row_that_is_refused_are_counted_as_dropped_each_and_what_follows_passes() {
    if !privileged() {
        return;
    }
    const LOST: u64 = 40;
    let scene = Scene::start();
    scene.wait_in_the_queue(2..=LOST as u32, |number| sealed(SPI, number, SHORT));
    scene.router.run(|| {
        set_link("down", false);
        set_link("down", true);
    });
    assert_eq!(scene.waiting(), 0);
    scene.go.send(()).unwrap();
    eventually("each is counted", || scene.counters.dropped(DropReason::VerdictFailed).packets == LOST);
    assert_eq!((scene.counters.accepted().packets, scene.worker.faults().verdicts), (0, LOST));
    assert!(scene.arrived().is_empty());
    let mut number = LOST as u32;
    eventually("packets pass again", || {
        number += 1;
        scene.raw.send(&sealed(SPI, number, SHORT));
        scene.arrived().contains(&number)
    });
    let passed = scene.counters.accepted().packets;
    assert_eq!((scene.counters.dropped(DropReason::VerdictFailed).packets, scene.worker.faults().verdicts), (LOST, LOST));
    assert!(passed > 0 && scene.counters.all_dropped().map(|(_, count)| count.packets).sum::<u64>() == LOST);
}

/// Sender, router and receiver; the router's worker stands still at the first packet.
struct Scene {
    _sender: Namespace,
    router: Namespace,
    _receiver: Namespace,
    raw: Raw,
    sees: Socket,
    worker: Worker,
    counters: Arc<Counters>,
    go: Sender<()>,
}

impl Scene {
    fn start() -> Self {
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        link(1500, (&sender, "up", &[(SENDER, 24)]), (&router, "down", &[("192.168.20.254", 24)]));
        link(1500, (&router, "up", &[("192.168.21.254", 24)]), (&receiver, "down", &[(RECEIVER, 24)]));
        add_route(&sender, "0.0.0.0", 0, "192.168.20.254");
        add_route(&receiver, "0.0.0.0", 0, "192.168.21.254");
        router.sysctl("net/ipv4/ip_forward", "1");
        router.run(|| RouterRules::new(1, DATA, 30_270).install().unwrap());
        let counters = Arc::new(Counters::default());
        let mut verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), Arc::clone(&counters)).unwrap();
        let grant =
            Grant { flow: flow(), spi: SPI, key: key(), allowed: 1 << 30, counted: 0, highest: 0, expires_at: Instant::from_secs(1000) };
        verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO).unwrap();
        let ((stands, is_standing), (go, gone)) = (channel(), channel());
        let processor = Box::new(StandsStill { verifier, until: Some((stands, gone)) });
        let queue = router.run(|| Queue::open(QueueConfig { copy_range: LONGEST, ..QueueConfig::router(DATA) }).unwrap());
        let config = WorkerConfig::new("router".into(), Clock::new(Wall::now()), Arc::clone(&counters));
        let worker = Worker::spawn(queue, processor, config, Box::new(|| {})).unwrap();
        let raw = sender.run(|| Raw::open(SENDER));
        // Who takes the packets also keeps the receiver from saying that nobody does.
        let sees = receiver.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(AH)))).unwrap());
        raw.send(&sealed(SPI, 1, SHORT));
        is_standing.recv_timeout(SOON).unwrap();
        Self { _sender: sender, router, _receiver: receiver, raw, sees, worker, counters, go }
    }

    fn waiting(&self) -> u64 {
        self.router.run(|| kernel_statistics(DATA).unwrap().unwrap().waiting)
    }

    /// Sends packets, and waits until they wait behind the one that the worker stands still at.
    fn wait_in_the_queue(&self, numbers: std::ops::RangeInclusive<u32>, packet: impl Fn(u32) -> Vec<u8>) {
        for number in numbers.clone() {
            self.raw.send(&packet(number));
        }
        eventually("all wait", || self.waiting() == u64::from(*numbers.end()));
    }

    /// The numbers of what has arrived.
    fn arrived(&self) -> Vec<u32> {
        self.sees.set_read_timeout(Some(QUIET)).unwrap();
        let mut packet = [0; 2000];
        let next = || (&self.sees).read(&mut packet).ok().map(|len| IpPacket::parse(&packet[..len]).unwrap().ah().unwrap().sequence());
        std::iter::from_fn(next).collect()
    }
}

/// Tells when the first packets have come, and does not judge them before it may.
struct StandsStill {
    verifier: Verifier,
    until: Option<(Sender<()>, Receiver<()>)>,
}

impl PacketProcessor for StandsStill {
    fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        self.verifier.apply(update, now)
    }

    fn process<'a>(&'a mut self, id: PacketId, packet: &[u8], now: Instant) -> Verdict<'a> {
        self.verifier.process(id, packet, now)
    }

    fn batch_size(&self) -> usize {
        self.verifier.batch_size()
    }

    fn process_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        if let Some((stands, gone)) = self.until.take() {
            stands.send(()).unwrap();
            gone.recv().unwrap();
        }
        self.verifier.process_batch(packets, now, give);
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        self.verifier.poll_released()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.verifier.poll_event()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.verifier.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.verifier.poll_timeout()
    }
}

fn flow() -> Flow {
    let (source, destination) = (SENDER.parse().unwrap(), RECEIVER.parse().unwrap());
    Flow { source, destination, protocol: UDP, source_port: 5000, destination_port: 5001 }
}

fn key() -> IcvKey {
    IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap()
}

/// A datagram under AH.
fn sealed(spi: u32, number: u32, len: usize) -> Vec<u8> {
    let mut udp = [5000, 5001, u16::try_from(8 + len).unwrap(), 0].map(u16::to_be_bytes).as_flattened().to_vec();
    udp.resize(8 + len, 7);
    let mut clear = packet((SENDER, RECEIVER), UDP, udp, 6);
    // The kernel would fill in an identification of 0, behind the ICV.
    clear[5] = 1;
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(&clear).unwrap(), spi, Number { low: number, high: None }, &key(), &mut out).unwrap();
    out
}
