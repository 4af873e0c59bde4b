//! TCP from the application of one host to that of another, by a router: what programs feel of all of it.
//!
//! ```text
//!  sender ──── near ──── router ──── far ──── receiver
//!  inserter              verifier             verifier, which takes AH out
//!  verifier (acknowledgements)                inserter (acknowledgements)
//! ```
//!
//! One connection, both directions under permissions, with the workers, queues, rules and routes of the daemons; what signalling would tell
//! the workers is told by this program. Everything is on the two processors that there are, wherever the scheduler puts it: five workers, the
//! two programs that send and receive, and the network stacks of three nodes, which run in the threads that give verdicts. So the nodes take
//! from each other what they need, and the figure says what one byte costs on all of its way rather than how fast the slowest node is.
//!
//! Measured (AVX-512, release build, two times seven pairs): 0.75 of accepting everything, 0.19 of no PBS. The inserter had 4.3 µs of a
//! packet, the router 2.9, the receiver 2.4, where accepting took 3.0, 2.2 and 1.6; the rest are the programs, their TCP and the way back. Of
//! the receiver's time a sixth was the MAC, a tenth the kernel's copies, a tenth TCP.
//!
//! Super-packets that the daemon cuts (`super_packets`): 1.11 and 1.10 of what the kernel cuts, 1.11 and 1.07 over IPv6 (two times seven
//! pairs each, 1.05 to 1.15). They are of 45 segments here. The inserter has 3.1 to 3.2 µs of a packet then instead of 3.6 to 3.7, and what
//! the kernel cut in the sending program is saved besides. Of these 3.1 µs the router's receiving, which runs in the same thread, has 43 %
//! (half of that its queue), the MAC 18 %, room and copies for the frame 9 %, to receive the super-packet 6 %, all else of ours 6 %. The same
//! by a raw socket, with the kernel's look-ups and filter rules for each segment: 1.05 and 1.03 (seven pairs each).
//!
//! Tried, and not there because it does not pay: all threads as batch work (`SCHED_BATCH`, one run of seven pairs beside one without) made 1.01
//! and 1.00 of the packets that the kernel cuts, and 1.03 and 0.99 of those that the daemon cuts.
//!
//! What comes to hosts past their queues (`kind = "af_xdp"`), put together and written to a device: 0.227 of no PBS where only the hosts do so,
//! 0.235 where the router does too (seven pairs each). The receiver had 1.7 µs of a packet then instead of 2.4; the inserter has most of the rest.
//!
//! Tried at the receiver's host, and not there because it does not pay: consecutive segments of a batch put together, with checksums looked
//! at, to go on as one packet by one verdict of the queue, as the kernel does it where there is no AH (GRO). Of 14.6 packets came one, and goodput was 0.97
//! (0.93 to 1.00, 19 pairs) of without; 2.60 µs a packet instead of 2.51. With one of 4.5, so that no large buffers are asked for, 0.89 (0.71
//! to 1.03, 13 pairs). What TCP saves goes into a second copy, the sums, and the kernel's new buffer for each long packet; acknowledgements are
//! few already where program and worker share processors. A host that forwards (containers) may not do it at all, and the kernel's log
//! suspects the driver.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant as Wall};

use socket2::{Domain, Socket, Type};
use traffic::af_xdp::{AfXdp, Inlet};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::inserter::{IdentificationKey, Inserter, InserterConfig};
use traffic::processor::PacketProcessor;
use traffic::queue::{Queue, QueueConfig};
use traffic::routes::MtuPlan;
use traffic::rules::{self, Admitted, Bucket, HostRules, RouterRules, Whole};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Up, Worker, WorkerConfig};

use super::consumer::AcceptAll;
use super::past;
use crate::bench::pairs::{Goal, Measure, Sample, Trial};
use crate::bench::processor::Thread;
use crate::network::link::{self, End};
use crate::network::namespace::Namespace;

/// How long octets are counted, and how long they flow before that.
const COUNTED: Duration = Duration::from_secs(2);
const BEFORE: Duration = Duration::from_millis(500);
/// Queues of the nodes, each in a namespace of its own.
const DATA: u16 = 2;
const OUT: u16 = 3;
const IN: u16 = 4;
const WHOLE: u16 = 6;
const ASSOCIATIONS: u16 = 30_270;
const TCP: u8 = 6;
const PORT: u16 = 9000;
const MTU: u32 = 1500;
/// So many that no bucket decides anything where nothing is under AH.
const PLENTY: Bucket = Bucket::new(10_000_000, 10_000_000);

/// Sender, router towards it, router towards the receiver, receiver, and the length of their prefix.
const IPV4: ([&str; 4], u8) = (["192.168.20.1", "192.168.20.254", "192.168.21.254", "192.168.21.4"], 24);
const IPV6: ([&str; 4], u8) = (["fd20::1", "fd20::fe", "fd21::fe", "fd21::4"], 64);

/// What is in the packets' way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The product.
    Permitted,
    /// The product with `super_packets`.
    SuperPackets,
    /// The product, and what comes to hosts passes their queues by.
    HostsPast,
    /// The same at the router besides.
    AllPast,
    /// The same with `super_packets`: all that the product has for it.
    All,
    /// Queues in the same places, without super-packets, and workers that accept everything. Since nothing is under AH, nothing is made
    /// narrower for it (TCP fills the whole MTU), the router has no shield, and no bucket for those that ask decides anything.
    AcceptAll,
    /// No rule, and interfaces that are given finished packets, one at a time.
    Bare,
}

impl Kind {
    const fn is_permitted(self) -> bool {
        !matches!(self, Self::AcceptAll | Self::Bare)
    }

    /// Whether TCP comes to the inserter in super-packets.
    const fn is_whole(self) -> bool {
        matches!(self, Self::SuperPackets | Self::All)
    }

    /// Whether what comes passes the queue by at hosts, and at the router.
    const fn is_past(self) -> [bool; 2] {
        [matches!(self, Self::HostsPast | Self::AllPast | Self::All), matches!(self, Self::AllPast | Self::All)]
    }
}

/// Namespaces of each kind, made when they are first needed.
#[derive(Default)]
struct Chains([OnceLock<Chain>; 7]);

/// The rows.
pub(super) fn trials() -> Vec<Trial> {
    let chains = Arc::new(Chains::default());
    let run = |kind: Kind, (addresses, _): ([&'static str; 4], u8)| -> Measure {
        let chains = Arc::clone(&chains);
        Box::new(move || chains.get(kind)?.goodput(addresses))
    };
    let compared = |what: &str, goal, bound_is, ours, bound, family| Trial {
        name: format!("TCP goodput sender host, router, receiver host: {what}"),
        unit: "Mbit/s of one connection's payload, all on two processors",
        goal,
        bound_is,
        ours: run(ours, family),
        bound: run(bound, family),
    };
    let trial = |what, goal, bound_is, bound, family| compared(what, goal, bound_is, Kind::Permitted, bound, family);
    let by_kernel = "super-packets cut by the kernel";
    let queues = "the same queues accepting everything, batched";
    let bare = "no PBS, no offload at any interface";
    vec![
        trial("accept-all queues", Goal::RatioAtLeast(0.9), queues, Kind::AcceptAll, IPV4),
        trial("no PBS", Goal::RatioAtLeast(0.4), bare, Kind::Bare, IPV4),
        trial("accept-all queues, IPv6", Goal::RatioAtLeast(0.9), queues, Kind::AcceptAll, IPV6),
        trial("no PBS, IPv6", Goal::RatioAtLeast(0.4), bare, Kind::Bare, IPV6),
        compared("all past the queue, super-packets: accept-all queues", Goal::RatioAtLeast(0.9), queues, Kind::All, Kind::AcceptAll, IPV4),
        compared("all past the queue, super-packets: no PBS", Goal::RatioAtLeast(0.4), bare, Kind::All, Kind::Bare, IPV4),
        compared(
            "all past the queue, super-packets: accept-all queues, IPv6",
            Goal::RatioAtLeast(0.9),
            queues,
            Kind::All,
            Kind::AcceptAll,
            IPV6,
        ),
        compared("all past the queue, super-packets: no PBS, IPv6", Goal::RatioAtLeast(0.4), bare, Kind::All, Kind::Bare, IPV6),
        compared("hosts receive past the queue", Goal::Told, "by the queue", Kind::HostsPast, Kind::Permitted, IPV4),
        compared("hosts receive past the queue, IPv6", Goal::Told, "by the queue", Kind::HostsPast, Kind::Permitted, IPV6),
        compared("hosts and router past the queue", Goal::Told, "by the queue", Kind::AllPast, Kind::Permitted, IPV4),
        compared("hosts and router past the queue, IPv6", Goal::Told, "by the queue", Kind::AllPast, Kind::Permitted, IPV6),
        compared("super-packets cut by the daemon", Goal::Told, by_kernel, Kind::SuperPackets, Kind::Permitted, IPV4),
        compared("super-packets cut by the daemon, IPv6", Goal::Told, by_kernel, Kind::SuperPackets, Kind::Permitted, IPV6),
    ]
}

impl Chains {
    fn get(&self, kind: Kind) -> io::Result<&Chain> {
        let place = self.0.get(kind as usize).ok_or_else(|| io::Error::other("no such chain"))?;
        if let Some(chain) = place.get() {
            return Ok(chain);
        }
        let chain = Chain::new(kind)?;
        Ok(place.get_or_init(|| chain))
    }
}

/// Three nodes and what judges their packets.
struct Chain {
    sender: Namespace,
    _router: Namespace,
    receiver: Namespace,
    /// The sender's, the router's and the receiver's; none without PBS.
    judges: Vec<Judge>,
    /// Of each node, if its rules know permissions.
    admitted: Vec<Admitted>,
    clock: Clock,
    /// Each connection has a port of its own.
    port: AtomicU16,
}

/// A worker.
struct Judge {
    /// What it does, and what its figure is called.
    place: Place,
    /// Only ever taken by the one thread that measures.
    worker: Mutex<Worker>,
    thread: Thread,
    counters: Arc<Counters>,
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Insert,
    Verify,
    Remove,
    /// Acknowledgements, where they leave and where they come.
    Back,
}

impl Place {
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Insert => Some("insert, ns a packet"),
            Self::Verify => Some("verify, ns a packet"),
            Self::Remove => Some("remove, ns a packet"),
            Self::Back => None,
        }
    }
}

impl Chain {
    fn new(kind: Kind) -> io::Result<Self> {
        let [sender, router, receiver] = [Namespace::create("sender")?, Namespace::create("router")?, Namespace::create("receiver")?];
        let at = |place: usize| [IPV4, IPV6].map(|(addresses, prefix)| (address(&addresses, place), prefix));
        let ends = [at(0), at(1), at(2), at(3)];
        let end = |host, interface, place: usize| End { host, interface, addresses: ends.get(place).map_or(&[], |end| &end[..]) };
        for [left, right] in [[end(&sender, "near0", 0), end(&router, "near1", 1)], [end(&router, "far0", 2), end(&receiver, "far1", 3)]] {
            link::join(left, right, MTU)?;
            for end in [left, right].into_iter().filter(|_| kind == Kind::Bare) {
                link::finish_packets(end.host, end.interface)?;
            }
        }
        for ((addresses, _), forwarding) in [(IPV4, "net/ipv4/ip_forward"), (IPV6, "net/ipv6/conf/all/forwarding")] {
            link::add_default_route(&sender, address(&addresses, 1))?;
            link::add_default_route(&receiver, address(&addresses, 2))?;
            router.write_setting(forwarding, "1")?;
        }
        let clock = Clock::new(Wall::now());
        let (mut judges, mut admitted) = (Vec::new(), Vec::new());
        if kind != Kind::Bare {
            let inlets = set_rules(kind, &sender, &router, &receiver)?;
            if kind.is_permitted() {
                for (node, role) in [(&sender, rules::Role::Host), (&router, rules::Role::Router), (&receiver, rules::Role::Host)] {
                    admitted.push(node.run(|| Admitted::open(role).map_err(io::Error::other))?);
                }
            }
            let [to_sender, to_router, to_receiver] = past::open([&sender, &router, &receiver], &admitted, inlets, kind.is_past())?;
            judges = vec![
                Judge::start(kind, Place::Insert, &sender, (outbound(kind), None), clock)?,
                Judge::start(kind, Place::Back, &sender, (QueueConfig::new(IN), to_sender), clock)?,
                Judge::start(kind, Place::Verify, &router, (QueueConfig::router(DATA), to_router), clock)?,
                Judge::start(kind, Place::Remove, &receiver, (QueueConfig::new(IN), to_receiver), clock)?,
                Judge::start(kind, Place::Back, &receiver, (outbound(kind), None), clock)?,
            ];
        }
        Ok(Self { sender, _router: router, receiver, judges, admitted, clock, port: AtomicU16::new(20_000) })
    }

    /// Megabits a second of a new connection.
    fn goodput(&self, addresses: [&str; 4]) -> io::Result<Sample> {
        let port = self.port.fetch_add(1, Ordering::Relaxed);
        let from = SocketAddr::new(address(&addresses, 0), port);
        let to = SocketAddr::new(address(&addresses, 3), PORT);
        for (from, to) in [(to, from), (from, to)] {
            self.permit(from, to)?;
        }
        let listener = self.receiver.run(|| TcpListener::bind(to))?;
        let mut client = self.sender.run(|| {
            let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), Duration::from_secs(5))?;
            socket.set_write_timeout(Some(Duration::from_secs(5)))?;
            Ok(std::net::TcpStream::from(socket))
        })?;
        let (mut server, _) = listener.accept()?;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| -> io::Result<()> {
                let octets = vec![0x5a; 1 << 17];
                while !done.load(Ordering::Relaxed) {
                    client.write_all(&octets)?;
                }
                client.shutdown(Shutdown::Write)
            });
            let measured = self.receive(&mut server);
            done.store(true, Ordering::Relaxed);
            // What is still under way has to be read, or the writer would wait for room.
            if measured.is_ok() {
                io::copy(&mut server, &mut io::sink())?;
            }
            drop(server);
            let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
            match (measured, written) {
                // Either may be why the other failed.
                (Err(reading), Err(writing)) => Err(io::Error::other(format!("{reading}, and the writer: {writing}"))),
                (measured, written) => written.and(measured),
            }
        })
    }

    fn receive(&self, server: &mut impl Read) -> io::Result<Sample> {
        let mut buffer = vec![0; 1 << 17];
        let mut flowing = |limit: Duration| -> io::Result<(usize, Duration)> {
            let (began, mut octets) = (Wall::now(), 0);
            while began.elapsed() < limit {
                let read = server.read(&mut buffer)?;
                if read == 0 {
                    return Err(io::Error::other("the connection has ended"));
                }
                octets += read;
            }
            Ok((octets, began.elapsed()))
        };
        flowing(BEFORE)?;
        let had = self.judges.iter().map(Judge::read).collect::<io::Result<Vec<_>>>()?;
        let (octets, took) = flowing(COUNTED)?;
        let mut sample = Sample::of(octets as f64 * 8e-6 / took.as_secs_f64());
        for (judge, (busy, packets)) in self.judges.iter().zip(had) {
            let (busy_now, packets_now) = judge.read()?;
            if let Some(name) = judge.place.name() {
                sample = sample.with(name, (busy_now - busy).as_nanos() as f64 / packets_now.saturating_sub(packets).max(1) as f64);
            }
        }
        Ok(sample)
    }

    /// Installs a permission at every node that asks for one, the receiver first.
    fn permit(&self, from: SocketAddr, to: SocketAddr) -> io::Result<()> {
        const HOUR: Duration = Duration::from_secs(3600);
        let (client, is_back) = if to.port() == PORT { (from.port(), 0) } else { (to.port(), 1) };
        let grant = Grant {
            flow: flow(from, to),
            spi: 0x0001_0000 + u32::from(client) * 2 + is_back,
            key: IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).map_err(io::Error::other)?,
            allowed: 1 << 50,
            counted: 0,
            highest: 0,
            expires_at: self.clock.now() + HOUR.into(),
        };
        for admitted in &self.admitted {
            admitted.admit(grant.flow, grant.spi, HOUR);
            admitted.settled();
        }
        let (leaves, arrives) = if is_back == 0 { (0, 3) } else { (4, 1) };
        for place in [arrives, 2, leaves].into_iter().filter(|_| !self.admitted.is_empty()) {
            let judge = self.judges.get(place).ok_or_else(|| io::Error::other("no such worker"))?;
            judge.carry_out(Update::Install { token: 1, grant: grant.clone() })?;
        }
        Ok(())
    }
}

impl Judge {
    fn start(kind: Kind, place: Place, node: &Namespace, (queue, past): (QueueConfig, Option<AfXdp>), clock: Clock) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let processor: Box<dyn PacketProcessor> = match (kind, queue.number) {
            (Kind::AcceptAll, _) => Box::new(AcceptAll(Some(Arc::clone(&counters)))),
            (_, OUT) => {
                let identifications = Some(IdentificationKey::new(&[9; 32]).map_err(io::Error::other)?);
                let config = InserterConfig { mark: Some(plan().mark), identifications, ..InserterConfig::default() };
                Box::new(Inserter::new(config, Arc::new(Strict), Arc::clone(&counters)))
            }
            (_, number) => {
                let role = if number == DATA { Role::Router } else { Role::Receiver };
                let verifier = Verifier::new(VerifierConfig::new(role), Arc::new(Strict), Arc::clone(&counters));
                Box::new(verifier.map_err(io::Error::other)?)
            }
        };
        let queue = node.run(|| Queue::open(queue).map_err(io::Error::other))?;
        let name = format!("{place:?}-{}", node.name());
        let others = Thread::named(&name)?;
        let config = WorkerConfig::new(name.clone(), clock, Arc::clone(&counters));
        let worker = Worker::spawn_beside(queue, past, processor, config, Box::new(|| {}))?;
        let deadline = Wall::now() + Duration::from_secs(5);
        let thread = loop {
            if let Some(thread) = Thread::named(&name)?.into_iter().find(|thread| !others.contains(thread)) {
                break thread;
            }
            if Wall::now() > deadline {
                return Err(io::Error::other(format!("the worker {name} does not run")));
            }
            thread::sleep(Duration::from_millis(1));
        };
        Ok(Self { place, worker: Mutex::new(worker), thread, counters })
    }

    /// Its time on a processor, and the packets that it has let pass.
    fn read(&self) -> io::Result<(Duration, u64)> {
        Ok((self.thread.time()?, self.counters.accepted().packets))
    }

    fn carry_out(&self, update: Update) -> io::Result<()> {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.send(update).map_err(io::Error::other)?;
        loop {
            match worker.receive() {
                Some(Up::Applied(_)) => return Ok(()),
                Some(Up::Refused(refused)) => return Err(io::Error::other(format!("the permission is refused: {refused:?}"))),
                Some(Up::Stopped(why)) => return Err(io::Error::other(why)),
                Some(Up::Event(_)) => {}
                None => thread::sleep(Duration::from_micros(100)),
            }
        }
    }
}

/// Rules of the three nodes, and at hosts room for AH where there will be any.
fn set_rules(kind: Kind, sender: &Namespace, router: &Namespace, receiver: &Namespace) -> io::Result<[Option<Inlet>; 2]> {
    let shield = kind.is_permitted();
    router.run(|| RouterRules { shield, ..RouterRules::new(1, DATA, ASSOCIATIONS) }.install().map_err(io::Error::other))?;
    let inlet = |host: &Namespace| kind.is_past()[0].then(|| host.run(|| Inlet::open().map_err(io::Error::other))).transpose();
    let inlets = [inlet(sender)?, inlet(receiver)?];
    for (host, inlet) in [sender, receiver].into_iter().zip(&inlets) {
        let rules = HostRules::new(OUT, IN, ASSOCIATIONS);
        let whole = kind.is_whole().then(|| Whole { queue: WHOLE, mark: plan().mark });
        let rules = if shield {
            HostRules { whole, inlet: inlet.as_ref().map(Inlet::index), ..rules }
        } else {
            HostRules { asking: PLENTY, ..rules }
        };
        host.run(|| rules.install().map_err(io::Error::other))?;
        if shield {
            host.run(|| plan().apply().map(drop).map_err(io::Error::other))?;
        }
    }
    Ok(inlets)
}

fn outbound(kind: Kind) -> QueueConfig {
    QueueConfig { whole: kind.is_whole().then_some(WHOLE), ..QueueConfig::outbound(OUT) }
}

const fn plan() -> MtuPlan {
    MtuPlan::new(28, 32)
}

fn flow(from: SocketAddr, to: SocketAddr) -> Flow {
    Flow { source: from.ip(), destination: to.ip(), protocol: TCP, source_port: from.port(), destination_port: to.port() }
}

fn address(addresses: &[&str; 4], place: usize) -> IpAddr {
    addresses.get(place).and_then(|address| address.parse().ok()).unwrap_or(IpAddr::from([127, 0, 0, 1]))
}
