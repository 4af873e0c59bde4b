//! A local program floods the host's own queue with flows that nobody answers: what is permitted goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use namespace::{A4, A6, B4, B6, Namespace, SOON, address, eventually, pair, privileged, receive};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::flow::Flow;
use traffic::inserter::{AskRule, Inserter, InserterConfig};
use traffic::processor::{PacketProcessor, UserId};
use traffic::queue::{Delivery, OUTBOUND_CAPACITY, Queue, QueueConfig, ReceiveBuffer, kernel_statistics};
use traffic::reason::DropReason;
use traffic::rules::{Bucket, HostRules};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Up, Worker, WorkerConfig};

const OUT: u16 = 3;
const IN: u16 = 4;
const UDP: u8 = 17;
/// What the flooding process is run as.
const NOBODY: u32 = 65_534;
/// Packets of the permitted flow, and how far apart they are at least.
const PACKETS: u32 = 3000;
const PACE: Duration = Duration::from_millis(1);
/// Packets a second of the flood: twice what may wait for a second, and far less than the queue can carry while the machine does much else.
const RATE: u32 = 4000;
/// For so long a flood that a busy machine has kept from sending sends more afterwards: all of it would be a burst that no queue stands.
const MADE_UP_FOR: Duration = Duration::from_millis(50);

#[test]
fn a_permitted_flow_keeps_its_goodput_while_an_unprivileged_program_floods_thousands_of_flows() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::new();
    let Some(flood) = Flood::start(&scene.a, RATE) else { return };
    eventually("the flood has begun", || scene.asks() > 0);
    let refused = |scene: &Scene| scene.out_counters.dropped(DropReason::QueueFull).packets;
    eventually("what may wait is used up", || refused(&scene) > 1000);
    let waiting = || scene.a.run(|| kernel_statistics(OUT).unwrap().unwrap().waiting);
    eventually("the flood holds all it can", || waiting() >= u64::from(OUTBOUND_CAPACITY / 2));
    let arrived = scene.send_and_count();
    let kernel = scene.a.run(|| kernel_statistics(OUT).unwrap().unwrap());
    drop(flood);
    println!("{arrived} of {PACKETS} arrive beside {} packets of the flood that found no room; {kernel:?}", refused(&scene));
    assert!(arrived * 100 >= PACKETS * 95, "{arrived} of {PACKETS}");
}

#[test]
fn another_user_asks_is_granted_and_sends_while_a_program_floods() {
    if !privileged() {
        return;
    }
    let mut scene = Scene::new();
    let Some(_flood) = Flood::start(&scene.a, RATE) else { return };
    eventually("what may wait is used up", || scene.out_counters.dropped(DropReason::QueueFull).packets > 1000);
    let asked = scene.asks();
    assert!((100..256).contains(&asked), "the flood may not have all questions: {asked}");
    for port in 6000..6020 {
        let (from, to) = (address(A4, port), address(B4, port));
        let (sending, receiving) = (scene.a.udp(from), scene.b.udp(to));
        sending.send_to(b"first", to).unwrap();
        eventually("the flow asks", || {
            std::iter::from_fn(|| scene.out.receive()).any(|up| up == Up::Event(Event::FirstPacket(flow(from, to))))
        });
        // As long as an answer may take.
        std::thread::sleep(Duration::from_millis(100));
        scene.permit(from, to);
        assert_eq!(receive(&receiving, SOON).unwrap(), b"first", "what waited for the answer leaves with it");
    }
}

/// Most of a flood ends in the kernel: each user has so many packets a second that may ask, and what is permitted needs none.
#[test]
fn a_flood_of_one_user_reaches_the_queue_within_its_bucket_and_takes_nothing_from_what_is_permitted() {
    if !privileged() {
        return;
    }
    const ASKING: Bucket = Bucket::new(200, 100);
    let mut scene = Scene::with(ASKING);
    let began = Instant::now();
    let Some(flood) = Flood::start(&scene.a, RATE) else { return };
    eventually("the flood fills its bucket", || scene.count("out-asking", "above the bucket") > 1000);
    let arrived = scene.send_and_count();
    drop(flood);
    let most = f64::from(ASKING.burst) + began.elapsed().as_secs_f64() * f64::from(ASKING.rate);
    let (asked, refused) = (scene.count("out-asking", "within the bucket"), scene.count("out-asking", "above the bucket"));
    println!("{arrived} of {PACKETS} arrive; {asked} packets of others came to the queue, {refused} were dropped before it");
    assert!(arrived * 100 >= PACKETS * 95, "{arrived} of {PACKETS}");
    assert!(asked as f64 <= most + 100.0, "{asked}, at most {most}");
    assert!(scene.count("out-flow", "permitted lately") >= u64::from(PACKETS) * 95 / 100, "they went by the set of permitted flows");
}

/// In the other direction: what leaves without an owner, or under the preferred flow's ports to another address, has no preference.
#[test]
fn only_the_permitted_flow_itself_is_preferred() {
    if !privileged() {
        return;
    }
    for (from, to, elsewhere) in [(A4, B4, "192.168.20.77"), (A6, B6, "fd20::77")] {
        let mut scene = Scene::with(Bucket::new(1, 3));
        let (here, there) = (address(from, 5010), address(to, 5011));
        let (sending, receiving) = (scene.a.udp(here), scene.b.udp(there));
        scene.permit(here, there);
        let preferred = |scene: &Scene| scene.count("out-flow", "permitted lately");
        let before = preferred(&scene);
        sending.send_to(b"first", there).unwrap();
        assert!(receive(&receiving, SOON).is_some());
        assert_eq!(preferred(&scene), before, "nobody knows it yet");
        for sent in 1..=20 {
            sending.send_to(b"more", there).unwrap();
            assert!(receive(&receiving, SOON).is_some(), "{sent}");
        }
        assert_eq!(preferred(&scene), before + 20);
        let (other_port, other_source) = (scene.a.udp(address(from, 5012)), address(elsewhere, 5011));
        for _ in 0..10 {
            let _ = other_port.send_to(b"other source port", there);
            let _ = sending.send_to(b"other destination port", address(to, 5013));
            let _ = sending.send_to(b"other destination", other_source);
        }
        assert_eq!(preferred(&scene), before + 20);
        assert!(scene.count("out-asking", "above the bucket") >= 20);
    }
}

/// `cargo test --release -p traffic --test flood -- --ignored --nocapture goodput`
#[test]
#[ignore = "a measurement"]
fn goodput_of_a_user_while_two_others_flood() {
    if !privileged() {
        return;
    }
    const ALL: Bucket = Bucket::new(1_000_000_000, 1_000_000_000);
    const NONE: Bucket = Bucket::new(1, 1);
    for round in 0..3 {
        for (name, asking, floods) in [
            ("no flood", ALL, 0),
            ("two floods, every packet to the queue", ALL, 2),
            ("two floods, 1000 packets a second of each user", Bucket::new(1000, 1000), 2),
            ("two floods, hardly a packet to the queue", NONE, 2),
        ] {
            let mut scene = Scene::with(asking);
            let floods: Vec<_> = (0..floods).filter_map(|_| Flood::start(&scene.a, 1_000_000_000)).collect();
            std::thread::sleep(Duration::from_millis(500));
            let arrived = scene.blast(Duration::from_secs(2));
            println!("round {round}, {name}: {:.0} packets a second arrive", f64::from(arrived) / 2.0);
            drop(floods);
        }
    }
}

#[test]
fn the_kernel_says_whose_socket_a_packet_comes_from() {
    if !privileged() {
        return;
    }
    let (a, _b) = pair(1500);
    a.run(|| rules(Bucket::new(1000, 1000)).install().unwrap());
    let queue = a.run(|| Queue::open(QueueConfig::outbound(OUT)).unwrap());
    let mut buffer = ReceiveBuffer::default();
    a.udp(address(A4, 5000)).send_to(b"mine", address(B4, 5001)).unwrap();
    let mut user = None;
    eventually("the packet is queued", || {
        let packets = queue.receive(&mut buffer).into_iter().flatten();
        user = packets.filter_map(|delivery| if let Delivery::Packet(packet) = delivery { packet.user } else { None }).next();
        user.is_some()
    });
    assert_eq!(user, Some(UserId(nix::unistd::geteuid().as_raw())));
    let Some(_flood) = Flood::start(&a, 1000) else { return };
    eventually("a packet of the other user is queued", || {
        let packets = queue.receive(&mut buffer).into_iter().flatten();
        packets.into_iter().any(|delivery| matches!(delivery, Delivery::Packet(packet) if packet.user == Some(UserId(NOBODY))))
    });
}

/// Run in a process of its own by [`Flood`]: sends to thousands of destinations and ports until it is ended.
#[test]
#[ignore = "run as a process of its own by another test"]
fn flooding_process() {
    let rate: u32 = std::env::var("FLOOD_RATE").unwrap().parse().unwrap();
    let sockets: Vec<UdpSocket> = (0..200).map(|_| UdpSocket::bind((A4.parse::<Ipv4Addr>().unwrap(), 0)).unwrap()).collect();
    for socket in &sockets {
        socket.set_nonblocking(true).unwrap();
    }
    let start = Instant::now();
    let mut due = start;
    for sent in 0_u32.. {
        let to = SocketAddr::from(([192, 168, 20, 3 + (sent % 250) as u8], 1024 + (sent / 250 % 60_000) as u16));
        // A full send buffer is no reason to stop.
        let _ = sockets[sent as usize % sockets.len()].send_to(&[0; 20], to);
        due = (due + Duration::from_secs(1) / rate).max(Instant::now() - MADE_UP_FOR);
        while Instant::now() < due {
            std::thread::sleep(Duration::from_micros(500));
        }
        if start.elapsed() > Duration::from_secs(60) {
            return;
        }
    }
}

/// A process of another user that floods.
struct Flood(Child);

impl Flood {
    /// Starts it in a namespace; `None`, and a word about it, if another user cannot run the test's program.
    fn start(space: &Namespace, rate: u32) -> Option<Self> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "flooding_process"]).env("FLOOD_RATE", rate.to_string());
        command.stdout(Stdio::null()).uid(NOBODY).gid(NOBODY);
        match space.run(|| command.spawn()) {
            Ok(child) => Some(Self(child)),
            Err(error) => {
                eprintln!("skipped: the test's program cannot be run by another user ({error})");
                None
            }
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two hosts on a link; the left one asks for everything and has one permission.
struct Scene {
    a: Namespace,
    b: Namespace,
    sending: UdpSocket,
    receiving: UdpSocket,
    out: Worker,
    inn: Worker,
    out_counters: Arc<Counters>,
    clock: Clock,
    asks: u64,
}

impl Scene {
    /// The bucket of each user is so large that only user space stands between a flood and the others.
    fn new() -> Self {
        Self::with(Bucket::new(1_000_000, 1_000_000))
    }

    fn with(asking: Bucket) -> Self {
        let clock = Clock::new(Instant::now());
        let (a, b) = pair(1500);
        let (out_counters, in_counters) = (Arc::new(Counters::default()), Arc::new(Counters::default()));
        let config = InserterConfig { ask: vec![AskRule::default()], ..InserterConfig::default() };
        let inserter = Inserter::new(config, Arc::new(Strict), Arc::clone(&out_counters));
        let verifier = Verifier::new(VerifierConfig::new(Role::Receiver), Arc::new(Strict), Arc::clone(&in_counters)).unwrap();
        for space in [&a, &b] {
            space.run(|| rules(asking).install().unwrap());
        }
        let out = worker(&a, QueueConfig::outbound(OUT), Box::new(inserter), clock, &out_counters);
        let inn = worker(&b, QueueConfig::new(IN), Box::new(verifier), clock, &in_counters);
        let (from, to) = (address(A4, 5000), address(B4, 5001));
        let (sending, receiving) = (a.udp(from), b.udp(to));
        let mut scene = Self { a, b, sending, receiving, out, inn, out_counters, clock, asks: 0 };
        scene.permit(from, to);
        scene.sending.send_to(b"ready", to).unwrap();
        assert!(receive(&scene.receiving, SOON).is_some());
        scene
    }

    /// Installs a permission at both ends, the receiver first.
    fn permit(&mut self, from: SocketAddr, to: SocketAddr) {
        let grant = Grant {
            flow: flow(from, to),
            spi: 4096 + u32::from(to.port()),
            key: IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap(),
            allowed: 1 << 30,
            counted: 0,
            highest: 0,
            expires_at: self.clock.now() + Duration::from_secs(600).into(),
        };
        for worker in [&mut self.inn, &mut self.out] {
            worker.send(Update::Install { token: 1, grant: grant.clone() }).unwrap();
            eventually("the update is answered", || {
                std::iter::from_fn(|| worker.receive()).any(|up| matches!(up, Up::Applied(applied) if applied.token == 1))
            });
        }
    }

    /// Questions that the packet side has put so far.
    fn asks(&mut self) -> u64 {
        while let Some(up) = self.out.receive() {
            self.asks += u64::from(matches!(up, Up::Event(Event::FirstPacket(_))));
        }
        self.asks
    }

    /// Packets of both families that a rule of the sending host has counted.
    fn count(&self, chain: &str, rule: &str) -> u64 {
        let counters = self.a.run(|| traffic::rules::counters(traffic::rules::Role::Host).unwrap());
        let of_rule = counters.iter().filter(|counter| counter.chain == chain && counter.rule == rule);
        of_rule.map(|counter| counter.packets).sum()
    }

    /// Sends the permitted flow's packets as fast as may be for so long; answers how many arrive.
    fn blast(&mut self, time: Duration) -> u32 {
        let receiving = self.receiving.try_clone().unwrap();
        let counting = std::thread::spawn(move || std::iter::from_fn(|| receive(&receiving, Duration::from_millis(500))).count());
        let start = Instant::now();
        while start.elapsed() < time {
            let _ = self.sending.send_to(&[1; 1000], address(B4, 5001));
        }
        self.asks();
        u32::try_from(counting.join().unwrap()).unwrap()
    }

    /// Sends the permitted flow's packets at their pace; answers how many arrive.
    fn send_and_count(&mut self) -> u32 {
        let receiving = self.receiving.try_clone().unwrap();
        let counting = std::thread::spawn(move || std::iter::from_fn(|| receive(&receiving, Duration::from_secs(2))).count());
        for _ in 0..PACKETS {
            // Nobody waits for room in the socket's buffer: what has none is lost like any other packet.
            self.sending.set_nonblocking(true).unwrap();
            let _ = self.sending.send_to(&[1; 100], address(B4, 5001));
            self.asks();
            std::thread::sleep(PACE);
        }
        u32::try_from(counting.join().unwrap()).unwrap()
    }
}

fn rules(asking: Bucket) -> HostRules {
    HostRules { asking, ..HostRules::new(OUT, IN, 30_270) }
}

fn flow(from: SocketAddr, to: SocketAddr) -> Flow {
    Flow { source: from.ip(), destination: to.ip(), protocol: UDP, source_port: from.port(), destination_port: to.port() }
}

fn worker(space: &Namespace, config: QueueConfig, processor: Box<dyn PacketProcessor>, clock: Clock, counters: &Arc<Counters>) -> Worker {
    let queue = space.run(|| Queue::open(config).unwrap());
    Worker::spawn(queue, processor, WorkerConfig::new("worker".into(), clock, Arc::clone(counters)), Box::new(|| {})).unwrap()
}
