//! The worker: updates before packets, answers never lost, closed when it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use namespace::{A4, B4, Namespace, QUIET, SOON, address, eventually, pair, privileged, receive, set_link};
use smoltcp::time::Instant;
use traffic::counters::{Count, Counters};
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::processor::{PacketId, PacketProcessor, Released, Verdict};
use traffic::queue::{Queue, QueueConfig, kernel_statistics};
use traffic::reason::DropReason;
use traffic::rules::{self, HostRules, Installed, Role};
use traffic::update::{Applied, Refusal, Refused, Update};
use traffic::worker::{Clock, SendError, Stopped, Up, Worker, WorkerConfig};

const IN: u16 = 4;
const OUT: u16 = 3;

/// What the fake processor is told through the token of a snapshot.
const OPEN: u64 = 1;
const REFUSE: u64 = 2;
const RELEASE: u64 = 3;

#[test]
fn an_update_is_in_force_for_the_next_packet_even_while_its_answer_is_unread() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::start(|_| {});
    scene.sender.send_to(b"block", address(B4, 5001)).unwrap();
    scene.wait_until_blocked();
    // The thread is in the middle of a packet. The next one waits already when the update is sent.
    scene.sender.send_to(b"next", address(B4, 5001)).unwrap();
    eventually("both packets wait", || scene.b.run(|| kernel_statistics(IN).unwrap().unwrap().waiting) == 2);
    scene.worker.send(update(OPEN)).unwrap();
    scene.unblock.send(()).unwrap();
    assert_eq!(receive(&scene.receiver, SOON).unwrap(), b"next");
    assert_eq!(scene.next_up(), Up::Applied(applied(OPEN)));
}

#[test]
fn a_sleeping_worker_is_woken_for_an_update() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::start(|_| {});
    std::thread::sleep(QUIET);
    scene.worker.send(update(OPEN)).unwrap();
    scene.worker.send(update(REFUSE)).unwrap();
    assert_eq!(scene.next_up(), Up::Applied(applied(OPEN)));
    assert_eq!(scene.next_up(), Up::Refused(Refused { token: REFUSE, why: Refusal::TableFull }));
    assert!(scene.notified.load(Ordering::Relaxed) >= 2);
}

#[test]
fn unread_answers_are_kept_and_neither_they_nor_events_hold_up_packets() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::start(|config| {
        config.update_capacity = 4;
        config.event_capacity = 3;
    });
    let mut sent = 0;
    let full = loop {
        match scene.worker.send(update(OPEN)) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(sent, 4);
    assert!(matches!(full, SendError::Full(_)));
    for _ in 0..10 {
        scene.sender.send_to(b"event", address(B4, 5001)).unwrap();
        assert_eq!(receive(&scene.receiver, SOON).unwrap(), b"event");
    }
    // An event follows the verdict on its packet: the last may still be under way.
    eventually("the lost events are counted", || scene.worker.faults().events_lost == 7);
    for _ in 0..4 {
        assert_eq!(scene.next_up(), Up::Applied(applied(OPEN)));
    }
    scene.worker.send(update(OPEN)).unwrap();
    assert_eq!((0..4).filter(|_| matches!(scene.next_up(), Up::Event(Event::FirstPacket(_)))).count(), 3);
}

#[test]
fn a_held_packet_gets_its_verdict_from_an_update_or_by_time() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::start(|_| {});
    scene.hold();
    assert_eq!(receive(&scene.receiver, QUIET), None);
    scene.worker.send(update(RELEASE)).unwrap();
    assert_eq!(receive(&scene.receiver, SOON).unwrap(), b"hold");
    assert_eq!(scene.next_up(), Up::Applied(applied(RELEASE)));
    let start = std::time::Instant::now();
    scene.sender.send_to(b"later", address(B4, 5001)).unwrap();
    assert_eq!(receive(&scene.receiver, SOON).unwrap(), b"later");
    assert!(start.elapsed() >= FakeProcessor::DELAY, "{:?}", start.elapsed());
}

#[test]
fn a_panic_closes_the_queue_and_is_told() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::start(|_| {});
    scene.worker.send(update(OPEN)).unwrap();
    assert_eq!(scene.next_up(), Up::Applied(applied(OPEN)));
    scene.sender.send_to(b"hold", address(B4, 5001)).unwrap();
    scene.sender.send_to(b"panic", address(B4, 5001)).unwrap();
    assert_eq!(scene.next_up(), Up::Stopped(Stopped::Panicked("told to panic".into())));
    assert_eq!(scene.worker.receive(), None);
    assert!(matches!(scene.worker.send(update(OPEN)), Err(SendError::Stopped(_))));
    scene.assert_closed();
}

#[test]
fn a_stopped_worker_has_answered_what_was_sent_and_leaves_the_rules() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::start(|_| {});
    scene.worker.send(update(OPEN)).unwrap();
    scene.worker.send(update(OPEN)).unwrap();
    scene.worker.stop();
    assert_eq!(scene.next_up(), Up::Applied(applied(OPEN)));
    assert_eq!(scene.next_up(), Up::Applied(applied(OPEN)));
    assert_eq!(scene.next_up(), Up::Stopped(Stopped::Asked));
    scene.assert_closed();
}

#[test]
fn a_killed_process_leaves_packets_dropped() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    let (sender, receiver) = sockets(&a, &b);
    b.run(|| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "process_with_a_worker_that_accepts"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the worker runs", || {
            rules::installed(Role::Host).unwrap() == Installed { ipv4: true, ipv6: true } && kernel_statistics(IN).unwrap().is_some()
        });
        // Until the worker has been told to accept, it drops.
        eventually("a packet passes", || {
            sender.send_to(b"alive", address(B4, 5001)).unwrap();
            receive(&receiver, QUIET).is_some_and(|packet| packet == b"alive")
        });
        child.kill().unwrap();
        child.wait().unwrap();
    });
    while receive(&receiver, QUIET).is_some() {}
    sender.send_to(b"dead", address(B4, 5001)).unwrap();
    assert_eq!(receive(&receiver, QUIET), None);
    assert_eq!(b.run(|| rules::installed(Role::Host).unwrap()), Installed { ipv4: true, ipv6: true });
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn process_with_a_worker_that_accepts() {
    host_rules().install().unwrap();
    let queue = Queue::open(QueueConfig::new(IN)).unwrap();
    let (processor, _, _unblock) = FakeProcessor::new();
    let config = WorkerConfig::new("inbound".into(), Clock::new(std::time::Instant::now()), Arc::default());
    let mut worker = Worker::spawn(queue, Box::new(processor), config, Box::new(|| {})).unwrap();
    worker.send(update(OPEN)).unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_datagram_over_the_copy_limit_is_dropped_and_counted_without_being_judged() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    let (sender, receiver) = sockets(&a, &b);
    a.run(|| host_rules().install().unwrap());
    let queue = a.run(|| Queue::open(QueueConfig::new(OUT)).unwrap());
    let (processor, _, _unblock) = FakeProcessor::new();
    let counters = Arc::new(Counters::default());
    let config = WorkerConfig::new("outbound".into(), Clock::new(std::time::Instant::now()), Arc::clone(&counters));
    let mut worker = Worker::spawn(queue, Box::new(processor), config, Box::new(|| {})).unwrap();
    worker.send(update(OPEN)).unwrap();
    let _ = sender.send_to(&[1; 65_507], address(B4, 5001));
    sender.send_to(b"small", address(B4, 5001)).unwrap();
    assert_eq!(receive(&receiver, SOON).unwrap(), b"small");
    let dropped = counters.dropped(DropReason::TooLarge);
    assert_eq!((dropped.packets, dropped.bytes), (1, 65_535));
}

/// Whoever takes a link down takes the packets along that wait for a verdict, and the kernel refuses the verdicts.
#[test]
fn a_packet_whose_verdict_the_kernel_refuses_is_counted_as_dropped_and_not_as_accepted() {
    if !privileged() {
        return;
    }
    let counters = Arc::new(Counters::default());
    let mut scene = Scene::start(|config| config.counters = Arc::clone(&counters));
    scene.hold();
    eventually("only that packet waits", || scene.b.run(|| kernel_statistics(IN).unwrap().unwrap().waiting) == 1);
    scene.b.run(|| set_link("right", false));
    // As a processor does before it gives its verdict.
    counters.count_accepted(20 + 8 + 4);
    scene.worker.send(update(RELEASE)).unwrap();
    assert_eq!(scene.next_up(), Up::Applied(applied(RELEASE)));
    eventually("the refusal is heard of", || scene.worker.faults().verdicts == 1);
    eventually("it is counted", || counters.dropped(DropReason::VerdictFailed) == Count { packets: 1, bytes: 32 });
    assert_eq!(counters.accepted(), Count::default());
}

/// A host with a worker on its inbound queue, and a neighbour.
struct Scene {
    b: Namespace,
    sender: UdpSocket,
    receiver: UdpSocket,
    worker: Worker,
    blocked: Receiver<()>,
    unblock: Sender<()>,
    notified: Arc<AtomicUsize>,
}

impl Scene {
    fn start(configure: impl FnOnce(&mut WorkerConfig)) -> Self {
        let (a, b) = pair(1500);
        let (sender, receiver) = sockets(&a, &b);
        b.run(|| host_rules().install().unwrap());
        let queue = b.run(|| Queue::open(QueueConfig::new(IN)).unwrap());
        let (processor, blocked, unblock) = FakeProcessor::new();
        let mut config = WorkerConfig::new("inbound".into(), Clock::new(std::time::Instant::now()), Arc::default());
        configure(&mut config);
        let notified = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&notified);
        let notify = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let worker = Worker::spawn(queue, Box::new(processor), config, notify).unwrap();
        Self { b, sender, receiver, worker, blocked, unblock, notified }
    }

    /// Sends a packet that is held, and one behind it that tells when it is: the kernel counts packets that the worker has not seen yet.
    fn hold(&mut self) {
        for kind in [&b"hold"[..], b"event"] {
            self.sender.send_to(kind, address(B4, 5001)).unwrap();
        }
        assert!(matches!(self.next_up(), Up::Event(Event::FirstPacket(_))));
    }

    fn wait_until_blocked(&self) {
        self.blocked.recv_timeout(SOON).unwrap();
    }

    fn next_up(&mut self) -> Up {
        let mut found = None;
        eventually("the worker says something", || {
            found = self.worker.receive();
            found.is_some()
        });
        found.unwrap()
    }

    /// Packets are dropped, and the rules stand.
    fn assert_closed(&self) {
        self.sender.send_to(b"after the end", address(B4, 5001)).unwrap();
        assert_eq!(receive(&self.receiver, QUIET), None);
        assert_eq!(self.b.run(|| kernel_statistics(IN).unwrap()), None, "nobody listens");
        assert_eq!(self.b.run(|| rules::installed(Role::Host).unwrap()), Installed { ipv4: true, ipv6: true });
    }
}

/// Does what the last word of a packet says; other packets are dropped until it is opened.
struct FakeProcessor {
    open: bool,
    /// When it was asked for anything last.
    last: Instant,
    held: Vec<(PacketId, Vec<u8>)>,
    due: Option<Instant>,
    released: Vec<(PacketId, Released)>,
    events: Vec<Event>,
    blocked: Sender<()>,
    unblock: Receiver<()>,
}

impl FakeProcessor {
    const DELAY: Duration = Duration::from_millis(100);

    fn new() -> (Self, Receiver<()>, Sender<()>) {
        let (blocked, is_blocked) = channel();
        let (unblock, unblocked) = channel();
        let processor = Self {
            open: false,
            last: Instant::ZERO,
            held: Vec::new(),
            due: None,
            released: Vec::new(),
            events: Vec::new(),
            blocked,
            unblock: unblocked,
        };
        (processor, is_blocked, unblock)
    }

    fn release(&mut self) {
        let released = self.held.drain(..).map(|(id, payload)| (id, Released::Replace { payload, mark: None }));
        self.released.extend(released);
    }

    fn goes_on(&mut self, now: Instant) {
        assert!(std::mem::replace(&mut self.last, now) <= now, "time does not go back");
    }
}

impl PacketProcessor for FakeProcessor {
    fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        self.goes_on(now);
        match update.token() {
            OPEN => self.open = true,
            RELEASE => self.release(),
            token => return Err(Refused { token, why: Refusal::TableFull }),
        }
        Ok(applied(update.token()))
    }

    fn process<'a>(&'a mut self, id: PacketId, packet: &[u8], now: Instant) -> Verdict<'a> {
        self.goes_on(now);
        let says = |word: &[u8]| packet.ends_with(word);
        if says(b"panic") {
            panic!("told to panic");
        } else if says(b"block") {
            self.blocked.send(()).unwrap();
            self.unblock.recv().unwrap();
        } else if says(b"hold") {
            self.held.push((id, packet.to_vec()));
            return Verdict::Hold;
        } else if says(b"later") {
            self.held.push((id, packet.to_vec()));
            self.due = Some(now + Self::DELAY.into());
            return Verdict::Hold;
        } else if says(b"event") {
            self.events.push(Event::FirstPacket(flow()));
        }
        if self.open && !says(b"block") { Verdict::Accept } else { Verdict::Drop(DropReason::NoPermission) }
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        self.released.pop()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.goes_on(now);
        assert!(self.due.is_some_and(|due| due <= now), "not before its time");
        self.due = None;
        self.release();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

fn sockets(a: &Namespace, b: &Namespace) -> (UdpSocket, UdpSocket) {
    (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)))
}

fn host_rules() -> HostRules {
    HostRules::new(OUT, IN, 30_270)
}

fn update(token: u64) -> Update {
    Update::Snapshot { token, flow: flow(), spi: 256 }
}

fn applied(token: u64) -> Applied {
    Applied::new(token, 0, 0)
}

fn flow() -> Flow {
    let address = |last| IpAddr::V4(Ipv4Addr::new(192, 168, 20, last));
    Flow { source: address(1), destination: address(2), protocol: 17, source_port: 5000, destination_port: 5001 }
}
