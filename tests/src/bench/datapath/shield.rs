//! The shield of a router: what drops and what passes on one processor, and what a permitted flow feels of a flood.
//!
//! Sender, router and sink share a processor in the first two rows, softirqs included, so that the sender's own time is that of all.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant as Wall};

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use smoltcp::time::Instant;
use socket2::{Domain, Protocol as Raw, Socket as RawSocket, Type};
use traffic::af_xdp::ingress::Ingress;
use traffic::ah::{self, Number};
use traffic::algorithm::MacAlgorithm;
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::flow::Flow;
use traffic::netlink::{Batch, CREATE, Protocol, Socket};
use traffic::packet::IpPacket;
use traffic::processor::PacketProcessor;
use traffic::queue::{Queue, QueueConfig};
use traffic::rules::{Admitted, Role, RouterRules};
use traffic::update::{Grant, Update};
use traffic::verifier::{self, Verifier, VerifierConfig};
use traffic::worker::{Clock, Worker, WorkerConfig};

use super::consumer::{Told, Watched};
use super::generator::{self, SPI};
use super::way::{self, DESTINATION, QUEUE, SOURCE};
use crate::bench::pairs::{Goal, Measure, Sample, Trial};
use crate::bench::processor::{self, Thread};
use crate::network::firewall::{compare, element};
use crate::network::namespace::Namespace;

/// Permissions that the shield knows.
const PERMISSIONS: u32 = 100_000;
/// Packets of one run of the first two rows.
const PACKETS: usize = 200_000;
/// Different packets among them.
const KINDS: usize = 8192;
/// Octets of each, AH included.
const SHORT: usize = 64;
/// Packets a second of a permitted flow, and of how many it consists.
const PACE: u32 = 10_000;
const FLOW: usize = 5000;
/// Octets of each before AH.
const LEN: usize = 500;
/// Packets of a flood sent with one call.
const TOGETHER: usize = 32;
/// SPIs that nobody has.
const MADE_UP: u32 = 0x4000_0000;

/// What the router of a field does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It forwards, without any rule.
    Plain,
    /// What passes the shield, all of its rules, is forwarded without a queue.
    ShieldAlone,
    /// What passes the shield goes to the queue.
    Shielded,
    /// Everything goes to the queue.
    Unshielded,
    /// As the second, without what stands before the rules.
    RulesAlone,
}

/// Namespaces of each kind, made when they are first needed.
#[derive(Default)]
struct Fields([OnceLock<Field>; 5]);

struct Field {
    sender: Namespace,
    router: Namespace,
    sink: Namespace,
    /// What stands before the rules.
    _ingress: Option<Ingress>,
}

/// The SPI of each packet, by its number.
type Spis = fn(u32) -> u32;

/// The rows.
pub(super) fn trials() -> Vec<Trial> {
    let fields = Arc::new(Fields::default());
    let one_core = |kind: Kind, spis: Spis, arrive: bool| -> Measure {
        let fields = Arc::clone(&fields);
        Box::new(move || fields.get(kind)?.rate(spis, arrive))
    };
    let permitted = |kind: Kind, flood: Flood, watched: Watch| -> Measure {
        let fields = Arc::clone(&fields);
        Box::new(move || fields.get(kind)?.delivered(flood, watched))
    };
    let made_up: Spis = |number| MADE_UP + number;
    let known: Spis = |number| SPI + number * 12 % PERMISSIONS;
    // So few that the processor has what the look-up reads at hand; of the others it must be fetched.
    let few: Spis = |number| SPI + number % 64 * 1500;
    let rate = "packets per second of the one processor that does everything";
    let share = "share of the packets of a flow at 10,000 a second that the verifier lets pass";
    let told = |name: &str, kind, spis, arrive| Trial {
        name: name.to_owned(),
        unit: rate,
        goal: Goal::Told,
        bound_is: "plain forwarding, without any rule",
        ours: one_core(kind, spis, arrive),
        bound: one_core(Kind::Plain, spis, true),
    };
    let flooded = |name: &str, goal, kind, flood, watched| Trial {
        name: name.to_owned(),
        unit: share,
        goal,
        bound_is: "the same without the flood",
        ours: permitted(kind, flood, watched),
        bound: permitted(kind, Flood::None, watched),
    };
    vec![
        Trial {
            name: "shield: dropped, of 100,000 permissions".to_owned(),
            unit: rate,
            goal: Goal::RatioAtLeast(1.3),
            bound_is: "plain forwarding, without any rule",
            ours: one_core(Kind::ShieldAlone, made_up, false),
            bound: one_core(Kind::Plain, made_up, true),
        },
        Trial {
            name: "shield: passed, of 100,000 permissions".to_owned(),
            unit: rate,
            goal: Goal::RatioAtLeast(0.85),
            bound_is: "plain forwarding, without any rule",
            ours: one_core(Kind::ShieldAlone, known, true),
            bound: one_core(Kind::Plain, known, true),
        },
        told("shield: passed, of 64 flows at once", Kind::ShieldAlone, few, true),
        told("shield of the rules alone: dropped, of 100,000 permissions", Kind::RulesAlone, made_up, false),
        told("shield of the rules alone: passed, of 100,000 permissions", Kind::RulesAlone, known, true),
        flooded("permitted flow beside a flood", Goal::RatioAtLeast(0.999), Kind::Shielded, Flood::MadeUp, Watch::First),
        flooded("permitted flow beside a flood, no shield", Goal::Told, Kind::Unshielded, Flood::MadeUp, Watch::First),
        flooded("permitted flow whose SPI is flooded", Goal::RatioAtLeast(0.9), Kind::Shielded, Flood::WrongIcv, Watch::First),
        flooded("flow beside one whose SPI is flooded", Goal::RatioAtLeast(0.99), Kind::Shielded, Flood::WrongIcv, Watch::Second),
    ]
}

/// What comes beside the permitted flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flood {
    None,
    /// SPIs that nobody has, as fast as the sender can.
    MadeUp,
    /// The SPI of the first flow with wrong ICVs, at the verifier's capacity.
    WrongIcv,
}

/// Which flow is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    First,
    Second,
}

impl Fields {
    fn get(&self, kind: Kind) -> io::Result<&Field> {
        let place = self.0.get(kind as usize).ok_or_else(|| io::Error::other("no such field"))?;
        if let Some(field) = place.get() {
            return Ok(field);
        }
        let field = Field::new(kind)?;
        Ok(place.get_or_init(|| field))
    }
}

impl Field {
    fn new(kind: Kind) -> io::Result<Self> {
        let [sender, router, sink] = way::namespaces()?;
        let shield = kind != Kind::Unshielded;
        let permissions = PERMISSIONS as usize;
        let ingress = matches!(kind, Kind::ShieldAlone | Kind::Shielded);
        let (admitted, ingress) = router.run(|| {
            if kind == Kind::Plain {
                return Ok((None, None));
            }
            let rules = RouterRules { shield, permissions, ingress, ..RouterRules::new(QUEUE + 1, QUEUE, 30_270) };
            rules.install().map_err(io::Error::other)?;
            if matches!(kind, Kind::ShieldAlone | Kind::RulesAlone) {
                Socket::open(Protocol::Netfilter).and_then(|socket| socket.transact(forward_permitted())).map_err(io::Error::other)?;
            }
            let admitted = Admitted::at_most(Role::Router, permissions).map_err(io::Error::other)?;
            let ingress = ingress.then(|| Ingress::open(permissions)).transpose().map_err(io::Error::other)?;
            ingress.iter().for_each(|ingress| admitted.stand_behind(ingress.front()));
            Ok((Some(admitted), ingress))
        })?;
        if let Some(admitted) = &admitted {
            let hour = Duration::from_secs(3600);
            for number in 0..PERMISSIONS {
                admitted.admit(flow(number), SPI + number, hour);
            }
            admitted.settled();
            if admitted.counts() != (permissions, 0) {
                return Err(io::Error::other(format!("the rules have not taken all permissions: {:?}", admitted.counts())));
            }
        }
        // What the kernel has been told stays there.
        Ok(Self { sender, router, sink, _ingress: ingress })
    }

    /// Packets a second of the sender's processor time, in which everything happens. All of them must arrive, or none.
    fn rate(&self, spis: Spis, arrive: bool) -> io::Result<Sample> {
        let packets: Vec<Vec<u8>> = (0..KINDS as u32).map(|number| under(spis(number))).collect::<io::Result<_>>()?;
        let before = self.arrived()?;
        let busy = self.sender.run(|| {
            processor::pin(0)?;
            let mut sending = Sending::new()?;
            let thread = Thread::current();
            let had = thread.time()?;
            for at in (0..PACKETS / TOGETHER).map(|turn| turn * TOGETHER % KINDS) {
                sending.send(packets.get(at..at + TOGETHER).unwrap_or_default())?;
            }
            Ok(thread.time()?.saturating_sub(had))
        })?;
        let (sent, arrived) = ((PACKETS / TOGETHER * TOGETHER) as f64, (self.arrived()? - before) as f64);
        // What a link carries by itself is next to nothing.
        if (arrived / sent - f64::from(u8::from(arrive))).abs() > 0.01 {
            return Err(io::Error::other(format!("{arrived} of {sent} packets have arrived")));
        }
        Ok(Sample::of(sent / busy.as_secs_f64()).with("share that arrived", arrived / sent))
    }

    /// The share of a flow's packets that the verifier lets pass.
    fn delivered(&self, flood: Flood, watched: Watch) -> io::Result<Sample> {
        let flows = [sealed(0)?, sealed(1)?];
        let flooding: Vec<Vec<u8>> = match flood {
            Flood::None => Vec::new(),
            Flood::MadeUp => (0..KINDS as u32).map(|number| under(MADE_UP + number)).collect::<io::Result<_>>()?,
            Flood::WrongIcv => flows.first().into_iter().flatten().map(|packet| spoilt(packet)).collect(),
        };
        let capacity = if flood == Flood::WrongIcv { Some(self.capacity(&flooding)?) } else { None };
        let guard = Guarded::start(self)?;
        let before = guard.counters.accepted().packets;
        let (sent, took) = self.sender.run(|| send(&flows, watched, &flooding, capacity))?;
        guard.drained()?;
        let passed = guard.counters.accepted().packets - before;
        let judged = guard.told.packets.load(Ordering::Relaxed);
        let delivered = passed as f64 / FLOW as f64;
        let sample = Sample::of(delivered).with("flood, packets a second", sent as f64 / took.as_secs_f64());
        Ok(sample.with("packets judged", judged as f64))
    }

    /// Packets a second that the verifier judges when more come.
    fn capacity(&self, packets: &[Vec<u8>]) -> io::Result<f64> {
        let guard = Guarded::start(self)?;
        let took = self.sender.run(|| {
            processor::pin(0)?;
            let (mut sending, began) = (Sending::new()?, Wall::now());
            for _ in 0..4 {
                packets.chunks(TOGETHER).try_for_each(|these| sending.send(these))?;
            }
            Ok(began.elapsed())
        })?;
        guard.drained()?;
        Ok(guard.told.packets.load(Ordering::Relaxed) as f64 / took.as_secs_f64())
    }

    /// Frames that have come to the sink.
    fn arrived(&self) -> io::Result<u64> {
        way::arrived(&self.sink)
    }
}

/// The product's worker with the product's verifier, on the second processor.
struct Guarded<'f> {
    field: &'f Field,
    worker: Worker,
    counters: Arc<Counters>,
    told: Arc<Told>,
}

impl<'f> Guarded<'f> {
    fn start(field: &'f Field) -> io::Result<Self> {
        let (counters, told) = (Arc::new(Counters::default()), Arc::new(Told::default()));
        let config = VerifierConfig::new(verifier::Role::Router);
        let mut verifier = Verifier::new(config, Arc::new(Strict), Arc::clone(&counters)).map_err(io::Error::other)?;
        for number in 0..2 {
            let (key, expires_at) = (generator::key(MacAlgorithm::HmacSha256_128)?, Instant::from_secs(1_000_000));
            let grant = Grant { flow: flow(number), spi: SPI + number, key, allowed: 1 << 50, counted: 0, highest: 0, expires_at };
            let installed = verifier.apply(Update::Install { token: 1, grant }, Instant::ZERO);
            installed.map_err(|refused| io::Error::other(refused.to_string()))?;
        }
        let queue = field.router.run(|| Queue::open(QueueConfig::router(QUEUE)).map_err(io::Error::other))?;
        let processor = Box::new(Watched { processor: Box::new(verifier), told: Arc::clone(&told) });
        let config = WorkerConfig::new("bench".to_owned(), Clock::new(Wall::now()), Arc::clone(&counters));
        let worker = Worker::spawn(queue, processor, config, Box::new(|| {}))?;
        Ok(Self { field, worker, counters, told })
    }

    fn drained(&self) -> io::Result<()> {
        if self.worker.stopped().is_some() {
            return Err(io::Error::other("the worker has ended"));
        }
        super::consumer::drained(&self.field.router)
    }
}

/// A raw socket.
struct Sending(RawSocket);

impl Sending {
    fn new() -> io::Result<Self> {
        let socket = RawSocket::new(Domain::IPV4, Type::RAW, Some(Raw::from(255)))?;
        socket.set_send_buffer_size(8 << 20)?;
        Ok(Self(socket))
    }

    fn send(&mut self, packets: &[Vec<u8>]) -> io::Result<()> {
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(DESTINATION.into(), 0));
        let parts: Vec<[io::IoSlice<'_>; 1]> = packets.iter().map(|packet| [io::IoSlice::new(packet)]).collect();
        let mut headers = MultiHeaders::preallocate(packets.len(), None);
        let addresses = vec![Some(to); packets.len()];
        match sendmmsg(self.0.as_raw_fd(), &mut headers, &parts, &addresses, [], MsgFlags::empty()) {
            Ok(_) | Err(nix::errno::Errno::ENOBUFS) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Sends the watched flow at its pace, and the flood in between, at a rate or as fast as it goes. How many packets of it, and the time.
fn send(flows: &[Vec<Vec<u8>>; 2], watched: Watch, flood: &[Vec<u8>], rate: Option<f64>) -> io::Result<(usize, Duration)> {
    processor::pin(0)?;
    let mut sending = Sending::new()?;
    let [first, second] = flows;
    let flow = if watched == Watch::First { first } else { second };
    let (began, mut sent, mut flooded) = (Wall::now(), 0, 0);
    while sent < flow.len() {
        let elapsed = began.elapsed().as_secs_f64();
        let due = (elapsed * f64::from(PACE)) as usize;
        let now = due.saturating_sub(sent).min(TOGETHER).min(flow.len() - sent);
        if now > 0 {
            sending.send(flow.get(sent..sent + now).unwrap_or_default())?;
            sent += now;
        }
        if !flood.is_empty() && rate.is_none_or(|rate| (flooded as f64) < elapsed * rate) {
            let at = flooded % (flood.len() / TOGETHER * TOGETHER);
            sending.send(flood.get(at..at + TOGETHER).unwrap_or_default())?;
            flooded += TOGETHER;
        } else if now == 0 {
            std::hint::spin_loop();
        }
    }
    Ok((flooded, began.elapsed()))
}

/// One of the permitted flows.
fn flow(number: u32) -> Flow {
    let [.., high, low] = (number % 60_000 + 1).to_be_bytes();
    let (destination_port, source_port) = (u16::try_from(9000 + number / 60_000).unwrap_or(u16::MAX), u16::from_be_bytes([high, low]));
    Flow { source: SOURCE.into(), destination: DESTINATION.into(), protocol: 17, source_port, destination_port }
}

/// The packets of one of the first flows.
fn sealed(number: u32) -> io::Result<Vec<Vec<u8>>> {
    let mut clear = generator::datagram(LEN);
    let Flow { source_port, destination_port, .. } = flow(number);
    let ports = [source_port, destination_port].map(u16::to_be_bytes);
    if let Some(place) = clear.get_mut(20..24) {
        place.copy_from_slice(ports.as_flattened());
    }
    let packet = IpPacket::parse(&clear).map_err(io::Error::other)?;
    let key = generator::key(MacAlgorithm::HmacSha256_128)?;
    (1..).take(FLOW).map(|low| seal(&packet, SPI + number, low, &key)).collect()
}

fn seal(packet: &IpPacket<'_>, spi: u32, low: u32, key: &traffic::algorithm::IcvKey) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    ah::insert(packet, spi, Number { low, high: None }, key, &mut out).map_err(io::Error::other)?;
    Ok(out)
}

/// A short packet under an SPI, whose ICV nobody looks at.
fn under(spi: u32) -> io::Result<Vec<u8>> {
    const AH: usize = 28;
    let clear = generator::datagram(SHORT - AH);
    let packet = IpPacket::parse(&clear).map_err(io::Error::other)?;
    seal(&packet, spi, 1, &generator::key(MacAlgorithm::HmacSha256_128)?)
}

/// The same under a number that is yet to come, so that its ICV must be looked at.
fn spoilt(packet: &[u8]) -> Vec<u8> {
    const NUMBER: usize = 20 + 8;
    let mut spoilt = packet.to_vec();
    if let Some(number) = spoilt.get_mut(NUMBER..NUMBER + 4) {
        number.copy_from_slice(&1_000_000u32.to_be_bytes());
    }
    spoilt
}

/// A rule before all others of FORWARD that accepts what the shield's own, which it stands for, would lead into the queue.
fn forward_permitted() -> Batch {
    const FRAME: [u8; 4] = [0, 0, 0, 10];
    const IPV4: [u8; 4] = [2, 0, 0, 0];
    const AH: u8 = 51;
    // Register, network header, offset, length.
    const PROTOCOL: [u32; 4] = [1, 1, 9, 1];
    let mut batch = Batch::new("forward without a queue");
    batch.unanswered(0x10, &FRAME);
    batch.request("accept before the queue", 0x0a06, CREATE, &IPV4, |rule| {
        rule.put_text(1, Role::Router.table());
        rule.put_text(2, "forward");
        rule.nest(4, |list| {
            element(list, "payload", |data| (1..).zip(PROTOCOL).for_each(|(kind, value)| data.put_be32(kind, value)));
            compare(list, 0, &[AH]);
            element(list, "counter", |_| {});
            element(list, "immediate", |data| {
                data.put_be32(1, 0);
                data.nest(2, |value| value.nest(2, |verdict| verdict.put_be32(1, 1)));
            });
        });
    });
    batch.unanswered(0x11, &FRAME);
    batch
}
