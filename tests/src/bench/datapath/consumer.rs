//! Who takes packets out of the queue.

use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant as Wall};

use nix::sys::eventfd::EventFd;
use smoltcp::time::Instant;
use traffic::af_xdp::{self, AfXdp, Taking};
use traffic::ah::{InsertError, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::budget::SignatureBudget;
use traffic::checks::{Checks, Strict};
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::packet::IpPacket;
use traffic::processor::{Arrival, PacketId, PacketProcessor, Released, Verdict};
use traffic::queue::{Decision, Delivery, MANY, Queue, QueueConfig, ReceiveBuffer, ReceiveError, kernel_statistics};
use traffic::update::{Applied, Grant, Refused, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};
use traffic::worker::{Clock, Worker, WorkerConfig};

use super::generator::{self, Pace, SPI, Stock};
use super::way::{Made, QUEUE, Way};
use crate::bench::pairs::Sample;
use crate::bench::processor::{self, Thread};
use crate::network::namespace::{Lifetime, Namespace};
use crate::remains::Remainder;

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consumer {
    /// The product's worker with a processor that accepts everything, and its queue as a router has it.
    AcceptAll,
    /// The same where each packet has a verdict of its own and nothing rests.
    AcceptEach,
    /// The product's worker with the product's verifier.
    Verify(MacAlgorithm, Checked),
    /// The same with packets that come past the queue (AF_XDP).
    PastTheQueue(MacAlgorithm),
    /// The same, and the worker takes in itself what waits at the interface.
    Polling(MacAlgorithm),
    /// The product's queue with one receive and one verdict for each packet.
    OneByOne,
    /// The nfq crate.
    Crate,
    /// `bare_loop.c`: a verdict for each packet.
    BareC,
    /// The same with one verdict for all that came with a call.
    BareCTogether,
}

/// How ICVs are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// Those of a batch side by side.
    Together,
    /// Each when its turn comes.
    Singly,
}

/// The queue as a router has it: verdicts on packets one behind the other go together, and packets gather.
const ROUTERS: QueueConfig = QueueConfig::router(QUEUE);
/// The same without either.
const EACH: QueueConfig = QueueConfig { rest: Duration::ZERO, in_turn: false, ..ROUTERS };

/// What a consumer did.
struct Done {
    packets: u64,
    busy: Duration,
}

/// Sends the stock through the queue once: packets a second of the consumer's processor time.
///
/// # Errors
///
/// Namespaces or the queue cannot be had, `cc` is missing for the bare loop, or a packet was refused that is right.
pub(super) fn measure(way: &Way, stock: &Stock, consumer: Consumer, pace: Pace) -> io::Result<Sample> {
    measured(way, stock, consumer, pace).map(|(sample, _)| sample)
}

fn measured(way: &Way, stock: &Stock, consumer: Consumer, pace: Pace) -> io::Result<(Sample, u64)> {
    let made = way.get()?;
    let algorithm = match consumer {
        Consumer::Verify(algorithm, _) | Consumer::PastTheQueue(algorithm) | Consumer::Polling(algorithm) => algorithm,
        _ => MacAlgorithm::HmacSha256_128,
    };
    let packets = stock.sealed(algorithm)?;
    let flood = || {
        let took = made.send(packets, pace)?;
        drained(&made.router)?;
        Ok(took)
    };
    let (done, took) = match consumer {
        Consumer::AcceptAll => by_worker(made, ROUTERS, None, Box::new(AcceptAll(None)), flood)?,
        Consumer::AcceptEach => by_worker(made, EACH, None, Box::new(AcceptAll(None)), flood)?,
        Consumer::Verify(algorithm, checked) => by_worker(made, ROUTERS, None, verifier(generator::key(algorithm)?, checked)?, flood)?,
        Consumer::PastTheQueue(algorithm) | Consumer::Polling(algorithm) => {
            let past = ["near1", "far0"].map(|name| Taking { name: name.to_owned(), leaves: true });
            let (mut past, _) = made.router.run(|| AfXdp::open(&past, None).map_err(io::Error::other))?;
            if let Consumer::Polling(_) = consumer {
                past.poll_interfaces().map_err(io::Error::other)?;
            }
            let done = by_worker(made, ROUTERS, Some(past), verifier(generator::key(algorithm)?, Checked::Together)?, flood);
            made.router.run(|| af_xdp::restore().map_err(io::Error::other))?;
            done?
        }
        Consumer::OneByOne => one_by_one(made, flood)?,
        Consumer::Crate => by_crate(made, packets.get(..1).unwrap_or_default(), flood)?,
        Consumer::BareC => by_bare_loop(made, &[], flood)?,
        Consumer::BareCTogether => by_bare_loop(made, &["together"], flood)?,
    };
    if done.packets == 0 {
        return Err(io::Error::other("no packet has come through the queue"));
    }
    let rate = done.packets as f64 / done.busy.as_secs_f64();
    let offered = packets.len() as f64 / took.as_secs_f64();
    let lost = (packets.len() as u64).saturating_sub(done.packets);
    Ok((Sample::of(rate).with("packets judged", done.packets as f64).with("offered a second", offered), lost))
}

/// The same, where no packet may be lost: tried again if another process has taken the processor for so long.
///
/// # Errors
///
/// As [`measure`], or one was lost.
pub(super) fn measure_all(way: &Way, stock: &Stock, consumer: Consumer, pace: Pace) -> io::Result<Sample> {
    const ATTEMPTS: usize = 5;
    let mut lost = 0;
    for _ in 0..ATTEMPTS {
        let (sample, missing) = measured(way, stock, consumer, pace)?;
        if missing == 0 {
            return Ok(sample);
        }
        lost = missing;
    }
    Err(io::Error::other(format!("{lost} packets were lost, and some in each attempt before")))
}

/// How many of the stock's packets do not arrive, and what [`measure`] gives.
///
/// # Errors
///
/// As [`measure`].
pub(super) fn lost(way: &Way, stock: &Stock, consumer: Consumer, pace: Pace) -> io::Result<(u64, Sample)> {
    let before = way.get()?.arrived()?;
    let (sample, not_judged) = measured(way, stock, consumer, pace)?;
    let arrived = way.get()?.arrived()?.saturating_sub(before);
    Ok((not_judged.max((stock.count() as u64).saturating_sub(arrived)), sample))
}

/// Waits until nothing waits in the queue any more.
pub(super) fn drained(router: &Namespace) -> io::Result<()> {
    let limit = Wall::now() + Duration::from_secs(10);
    while router.run(|| kernel_statistics(QUEUE))?.is_some_and(|queue| queue.waiting > 0) {
        if Wall::now() > limit {
            return Err(io::Error::other("the queue does not get empty"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// What the product's worker makes of a flood; how long that took, as the flood says. No packet may be refused.
///
/// # Errors
///
/// As [`measure`].
pub(super) fn judged(made: &Made, key: IcvKey, flood: impl Fn() -> io::Result<Duration>) -> io::Result<Duration> {
    by_worker(made, ROUTERS, None, verifier(key, Checked::Together)?, flood).map(|(_, took)| took)
}

fn by_worker(
    made: &Made,
    config: QueueConfig,
    past: Option<AfXdp>,
    processor: Box<dyn PacketProcessor>,
    flood: impl Fn() -> io::Result<Duration>,
) -> io::Result<(Done, Duration)> {
    let queue = made.router.run(|| Queue::open(config).map_err(io::Error::other))?;
    let counters = Arc::new(Counters::default());
    let told = Arc::new(Told::default());
    let processor = Box::new(Watched { processor, told: Arc::clone(&told) });
    let config = WorkerConfig::new("bench".to_owned(), Clock::new(Wall::now()), counters);
    let mut worker = Worker::spawn_beside(queue, past, processor, config, Box::new(|| {}))?;
    let took = flood()?;
    told.settled();
    let done = told.read()?;
    worker.stop();
    if told.refused.load(Ordering::Relaxed) > 0 {
        return Err(io::Error::other("a packet was refused that is right"));
    }
    Ok((done, took))
}

/// What is known of a worker's thread from outside.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// It, and its time on a processor before the first packet.
    thread: OnceLock<(Thread, Duration)>,
    pub(super) packets: AtomicU64,
    refused: AtomicU64,
}

impl Told {
    /// Waits until no packet has come for a while.
    fn settled(&self) {
        let mut before = u64::MAX;
        loop {
            let now = self.packets.load(Ordering::Relaxed);
            if now == before {
                return;
            }
            before = now;
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn read(&self) -> io::Result<Done> {
        let (thread, before) = self.thread.get().ok_or_else(|| io::Error::other("no packet has come through the queue"))?;
        Ok(Done { packets: self.packets.load(Ordering::Relaxed), busy: thread.time()?.saturating_sub(*before) })
    }
}

/// A processor whose thread keeps to the second processor, and whose packets are counted once a batch.
pub(super) struct Watched {
    pub(super) processor: Box<dyn PacketProcessor>,
    pub(super) told: Arc<Told>,
}

impl PacketProcessor for Watched {
    fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        self.processor.apply(update, now)
    }

    fn process<'a>(&'a mut self, id: PacketId, packet: &[u8], now: Instant) -> Verdict<'a> {
        self.processor.process(id, packet, now)
    }

    fn batch_size(&self) -> usize {
        self.processor.batch_size()
    }

    fn process_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        self.told.thread.get_or_init(|| {
            let _ = processor::pin(1);
            let thread = Thread::current();
            (thread, thread.time().unwrap_or_default())
        });
        let mut refused = 0;
        self.processor.process_batch(packets, now, &mut |at, verdict| {
            refused += u64::from(verdict != Verdict::Accept);
            give(at, verdict);
        });
        self.told.packets.fetch_add(packets.len() as u64, Ordering::Relaxed);
        self.told.refused.fetch_add(refused, Ordering::Relaxed);
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        self.processor.poll_released()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.processor.poll_event()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.processor.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.processor.poll_timeout()
    }
}

/// Accepts everything, and counts it if there is where.
#[derive(Debug)]
pub(super) struct AcceptAll(pub(super) Option<Arc<Counters>>);

impl PacketProcessor for AcceptAll {
    fn apply(&mut self, update: Update, _: Instant) -> Result<Applied, Refused> {
        Ok(Applied::new(update.token(), 0, 0))
    }

    fn process<'a>(&'a mut self, _: PacketId, packet: &[u8], _: Instant) -> Verdict<'a> {
        if let Some(counters) = &self.0 {
            counters.count_accepted(packet.len());
        }
        Verdict::Accept
    }

    fn batch_size(&self) -> usize {
        MANY
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// A router's with one permission, for whose packets it may check as many signatures as there are.
fn verifier(key: IcvKey, checked: Checked) -> io::Result<Box<dyn PacketProcessor>> {
    let checks: Arc<dyn Checks> = match checked {
        Checked::Together => Arc::new(Strict),
        Checked::Singly => Arc::new(Singly),
    };
    let plenty = SignatureBudget::per_second(10_000_000);
    let config = VerifierConfig { signatures: plenty, node_signatures: plenty, ..VerifierConfig::new(Role::Router) };
    let mut verifier = Verifier::new(config, checks, Arc::default()).map_err(io::Error::other)?;
    let expires_at = Instant::from_secs(1_000_000);
    let grant = Grant { flow: generator::flow(), spi: SPI, key, allowed: 1 << 50, counted: 0, highest: 0, expires_at };
    verifier
        .apply(Update::Install { token: 1, grant }, Instant::ZERO)
        .map_err(|refused| io::Error::other(format!("the permission is refused: {refused:?}")))?;
    Ok(Box::new(verifier))
}

/// The real checks, which look at nothing ahead.
#[derive(Debug)]
struct Singly;

impl Checks for Singly {
    fn icv_matches(&self, packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
        Strict.icv_matches(packet, key, high)
    }

    fn seal(&self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, out: &mut Vec<u8>) -> Result<(), InsertError> {
        Strict.seal(packet, spi, number, key, out)
    }
}

fn one_by_one(made: &Made, flood: impl Fn() -> io::Result<Duration>) -> io::Result<(Done, Duration)> {
    let mut queue = made.router.run(|| Queue::open(QueueConfig::new(QUEUE)).map_err(io::Error::other))?;
    let (stop, wake) = (AtomicBool::new(false), EventFd::new()?);
    thread::scope(|scope| {
        let consumer = scope.spawn(|| -> io::Result<Done> {
            processor::pin(1)?;
            let (mut buffer, mut packets) = (ReceiveBuffer::default(), 0);
            let before = Thread::current().time()?;
            while !stop.load(Ordering::Relaxed) {
                match queue.receive(&mut buffer) {
                    Ok(deliveries) => {
                        for delivery in deliveries {
                            if let Delivery::Packet(packet) = delivery {
                                queue.verdict(packet.id, Decision::Accept)?;
                                packets += 1;
                            }
                        }
                    }
                    Err(ReceiveError::Empty) => queue.wait(std::os::fd::AsFd::as_fd(&wake), None)?,
                    Err(ReceiveError::Overrun) => {}
                    Err(ReceiveError::Failed(errno)) => return Err(errno.into()),
                }
            }
            Ok(Done { packets, busy: Thread::current().time()?.saturating_sub(before) })
        });
        let took = flood();
        stop.store(true, Ordering::Relaxed);
        wake.write(1)?;
        let done = consumer.join().unwrap_or_else(|_| Err(io::Error::other("the consumer panicked")))?;
        Ok((done, took?))
    })
}

fn by_crate(made: &Made, end: &[Vec<u8>], flood: impl Fn() -> io::Result<Duration>) -> io::Result<(Done, Duration)> {
    let mut queue = made.router.run(|| {
        let mut queue = nfq::Queue::open()?;
        queue.bind(QUEUE)?;
        queue.set_copy_range(QUEUE, u16::MAX)?;
        queue.set_queue_max_len(QUEUE, 1024)?;
        Ok(queue)
    })?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let consumer = scope.spawn(|| -> io::Result<Done> {
            processor::pin(1)?;
            let mut packets = 0;
            let before = Thread::current().time()?;
            // It can wait for nothing but a packet: those that come after the flood end it.
            while !stop.load(Ordering::Relaxed) {
                match queue.recv() {
                    Ok(mut message) => {
                        message.set_verdict(nfq::Verdict::Accept);
                        queue.verdict(message)?;
                        packets += 1;
                    }
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(Done { packets, busy: Thread::current().time()?.saturating_sub(before) })
        });
        let took = flood();
        stop.store(true, Ordering::Relaxed);
        while !consumer.is_finished() {
            made.send(end, Pace::AsFastAsItCan)?;
            thread::sleep(Duration::from_millis(5));
        }
        let done = consumer.join().unwrap_or_else(|_| Err(io::Error::other("the consumer panicked")))?;
        Ok((done, took?))
    })
}

/// Compiles the bare loop into a directory that goes when the value does.
fn bare_loop() -> io::Result<(Remainder, PathBuf)> {
    let (remainder, directory) = Remainder::temporary("pbs-bench")?;
    let program = directory.join("bare_loop");
    let compiler = Command::new("cc").args(["-O2", "-x", "c", "-o"]).arg(&program).arg("-").stdin(Stdio::piped()).spawn();
    let mut compiler = compiler.map_err(|error| io::Error::new(error.kind(), format!("cc, which the bare loop needs: {error}")))?;
    if let Some(mut input) = compiler.stdin.take() {
        io::Write::write_all(&mut input, include_bytes!("bare_loop.c"))?;
    }
    if compiler.wait()?.success() { Ok((remainder, program)) } else { Err(io::Error::other("cc refused bare_loop.c")) }
}

fn by_bare_loop(made: &Made, how: &[&str], flood: impl Fn() -> io::Result<Duration>) -> io::Result<(Done, Duration)> {
    let (_remainder, program) = bare_loop()?;
    let mut command = Command::new(program);
    command.arg(QUEUE.to_string()).args(how).stdin(Stdio::piped()).stdout(Stdio::piped());
    made.router.contain(&mut command, Lifetime::Laboratory)?;
    let mut child = command.spawn()?;
    let missing = || io::Error::other("the bare loop said nothing");
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(missing)?).lines();
    lines.next().ok_or_else(missing)??;
    let took = flood();
    drop(child.stdin.take());
    let said = lines.next().ok_or_else(missing)??;
    child.wait()?;
    let mut figures = said.split(' ').filter_map(|figure| figure.parse::<u64>().ok());
    let (Some(packets), Some(busy)) = (figures.next(), figures.next()) else { return Err(io::Error::other(said)) };
    Ok((Done { packets, busy: Duration::from_nanos(busy) }, took?))
}
