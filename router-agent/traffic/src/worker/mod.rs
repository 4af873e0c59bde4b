//! The thread that judges the packets of one queue: it owns its [`PacketProcessor`] and shares no lock with anyone.
//!
//! ```text
//!            updates (bounded; refused when full)            packets
//! daemon ─────────────────────────────────────────▶ thread ◀──────── kernel
//!        ◀─────────────────────────────────────────        ────────▶
//!            answers (never lost), events (bounded, lossy)   verdicts
//! ```
//!
//! Updates are carried out before the next packet is judged. There is room for an answer to every update that was taken:
//! [`Worker::send`] takes no more updates than there are answers not yet read, so that the thread never waits for the daemon (`handover`,
//! where every order of both sides' steps is put to the proof).
//! If the thread ends, for whatever reason, its queue closes and the kernel drops every packet; the rules stay.
//!
//! A worker of what arrives may judge frames besides that come past the queue ([`AfXdp`]): with the same table, in turn with the queue's packets.
//!
//! There may be several, each with its queue and its table ([`crate::spread`]). When one ends the daemon ends with it, and is started anew as
//! a whole: windows and counters have ended with the thread's table, and without them another could not take over.

mod frames;
mod gathering;
mod handover;
mod leniency;
mod passed;
mod thread;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;
use smoltcp::time::Instant;

use crate::af_xdp::AfXdp;
use crate::counters::Counters;
use crate::event::Event;
use crate::processor::PacketProcessor;
use crate::queue::Queue;
use crate::update::{Applied, Refused, Update};

use self::handover::{Far, Said};

/// The clock that a worker's `now` comes from: microseconds since a moment that all workers of a process share.
#[derive(Debug, Clone, Copy)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// A clock that shows 0 at `epoch`.
    pub const fn new(epoch: std::time::Instant) -> Self {
        Self(epoch)
    }

    /// What the clock shows.
    pub fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

/// How a worker is set up.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Name of the thread, at most 15 octets are shown.
    pub name: String,
    /// Where `now` comes from.
    pub clock: Clock,
    /// Counters of this direction, the same that the processor counts in.
    pub counters: Arc<Counters>,
    /// Updates that may be under way or answered and not yet read.
    pub update_capacity: usize,
    /// Events that may wait to be read; further ones are lost and counted.
    pub event_capacity: usize,
    /// Whether the packet mark says how to treat what would be dropped ([`crate::mode`]): only behind the rules of a router that write
    /// it there.
    pub modes: bool,
    /// The only processor that the thread runs on, by the kernel's number; any if there is none, or it may not be used.
    pub processor: Option<usize>,
}

/// The processors that this process may use, by the kernel's numbers, the lowest first. None if the kernel does not tell.
pub fn processors() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false)).collect()
}

/// Keeps the calling thread on a processor.
fn keep_to(processor: usize) {
    let mut one = CpuSet::new();
    let kept = one.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &one));
    if let Err(errno) = kept {
        tracing::warn!(processor, %errno, "a packet worker cannot be kept on its processor");
    }
}

impl WorkerConfig {
    /// Room for 256 updates and 1024 events.
    pub const fn new(name: String, clock: Clock, counters: Arc<Counters>) -> Self {
        Self { name, clock, counters, update_capacity: 256, event_capacity: 1024, modes: false, processor: None }
    }
}

/// What a worker tells the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Up {
    /// An update has been carried out: no later packet is judged without it.
    Applied(Applied),
    /// An update has been refused; nothing changed.
    Refused(Refused),
    /// Something that signalling should know.
    Event(Event),
    /// The thread has ended; its packets are dropped. Comes once, as the last.
    Stopped(Stopped),
}

/// Why a thread has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was asked to.
    #[error("asked to stop")]
    Asked,
    /// A defect in the program.
    #[error("panicked: {0}")]
    Panicked(String),
    /// The queue does not work any more.
    #[error("the packet queue failed: {0}")]
    Queue(String),
}

/// Why an update was not taken. It comes back to be sent later.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Too many updates are under way or wait to be read.
    #[error("too many updates under way")]
    Full(Box<Update>),
    /// The thread has ended.
    #[error("the worker has stopped")]
    Stopped(Box<Update>),
}

/// What went wrong in a thread without ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Times that the socket buffer was full. What the kernel dropped then it counts itself
    /// ([`KernelStatistics`](crate::queue::KernelStatistics)): packets, or once in a while nothing but its answer that below a run nothing
    /// waited to be dropped, which nobody misses.
    pub overruns: u64,
    /// Messages from the kernel that could not be understood.
    pub unreadable: u64,
    /// Verdicts that could not be sent or that the kernel refused; their packets did not pass, and those that were to pass are counted
    /// as dropped ([`DropReason::VerdictFailed`](crate::reason::DropReason::VerdictFailed)).
    pub verdicts: u64,
    /// Events lost because nobody read them.
    pub events_lost: u64,
}

/// The faults as the thread counts them.
#[derive(Debug, Default)]
struct FaultCounters {
    overruns: AtomicU64,
    unreadable: AtomicU64,
    verdicts: AtomicU64,
    events_lost: AtomicU64,
}

impl Faults {
    /// Those of two threads.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            overruns: self.overruns.saturating_add(other.overruns),
            unreadable: self.unreadable.saturating_add(other.unreadable),
            verdicts: self.verdicts.saturating_add(other.verdicts),
            events_lost: self.events_lost.saturating_add(other.events_lost),
        }
    }
}

impl FaultCounters {
    fn read(&self) -> Faults {
        Faults {
            overruns: self.overruns.load(Ordering::Relaxed),
            unreadable: self.unreadable.load(Ordering::Relaxed),
            verdicts: self.verdicts.load(Ordering::Relaxed),
            events_lost: self.events_lost.load(Ordering::Relaxed),
        }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What thread and handle have in common besides the channels.
#[derive(Debug)]
struct Shared {
    wake: EventFd,
    stop: AtomicBool,
    faults: FaultCounters,
    stopped: OnceLock<Stopped>,
}

impl Shared {
    fn new() -> std::io::Result<Arc<Self>> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Arc::new(Self { wake, stop: AtomicBool::new(false), faults: FaultCounters::default(), stopped: OnceLock::new() }))
    }

    fn wake(&self) {
        // It fails only when the counter is about to overflow, and then the thread is awake anyway.
        let _ = self.wake.write(1);
    }

    fn ask_to_stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }
}

/// Called by the thread whenever there is something to read; must not block.
pub type Notify = Box<dyn Fn() + Send>;

/// An answer to an update.
type Answer = Result<Applied, Refused>;

/// The daemon's end of a worker. Dropping it stops the thread.
#[derive(Debug)]
pub struct Worker {
    channels: Channels,
    account: handover::Account,
    thread: Option<JoinHandle<()>>,
}

/// The thread as the handle reaches it.
#[derive(Debug)]
struct Channels {
    updates: SyncSender<Update>,
    answers: Receiver<Answer>,
    events: Receiver<Event>,
    shared: Arc<Shared>,
}

impl Far for Channels {
    type Update = Update;
    type Answer = Answer;
    type Event = Event;

    fn stopped(&self) -> Option<Stopped> {
        self.shared.stopped.get().cloned()
    }

    fn offer(&self, update: Update) -> Result<(), TrySendError<Update>> {
        self.updates.try_send(update)
    }

    fn wake(&self) {
        self.shared.wake();
    }

    fn take_answer(&self) -> Option<Answer> {
        self.answers.try_recv().ok()
    }

    fn take_event(&self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

impl Worker {
    /// Starts the thread. `notify` is called after something has become readable with [`receive`](Self::receive).
    pub fn spawn(queue: Queue, processor: Box<dyn PacketProcessor>, config: WorkerConfig, notify: Notify) -> std::io::Result<Self> {
        Self::spawn_beside(queue, None, processor, config, notify)
    }

    /// The same, for a thread that judges besides what comes by the short way. The processor must give each packet its verdict at once, as
    /// verifiers do: a frame that it would hold is dropped.
    pub fn spawn_beside(
        queue: Queue,
        af_xdp: Option<AfXdp>,
        processor: Box<dyn PacketProcessor>,
        config: WorkerConfig,
        notify: Notify,
    ) -> std::io::Result<Self> {
        let capacity = config.update_capacity.max(1);
        let (updates, incoming) = sync_channel(capacity);
        let (answered, answers) = sync_channel(capacity);
        let (told, events) = sync_channel(config.event_capacity);
        let shared = Shared::new()?;
        let gathering = gathering::Gathering::new(queue.rest(), queue.capacity());
        let work = thread::Work {
            passed: passed::Passed::new(queue.capacity()),
            queue,
            af_xdp: af_xdp.map(Box::new),
            processor,
            marks: hashbrown::HashMap::new(),
            clock: config.clock,
            received_at: None,
            gathering,
            on: config.processor,
            counters: config.counters,
            leniency: config.modes.then(leniency::Leniency::default),
            updates: incoming,
            answers: answered,
            events: told,
            shared: Arc::clone(&shared),
            notify,
        };
        let thread = spawn_guarded(config.name, work)?;
        let channels = Channels { updates, answers, events, shared };
        Ok(Self { channels, account: handover::Account::new(capacity), thread: Some(thread) })
    }

    /// Hands over an update and wakes the thread. Its answer comes through [`receive`](Self::receive).
    pub fn send(&mut self, update: Update) -> Result<(), SendError> {
        self.account.send(&self.channels, update).map_err(|error| match error {
            TrySendError::Full(update) => SendError::Full(Box::new(update)),
            TrySendError::Disconnected(update) => SendError::Stopped(Box::new(update)),
        })
    }

    /// The next thing that the worker says, `None` if there is none now. Answers come in the order of the updates, and
    /// before events. After [`Up::Stopped`] no answer to an open update comes any more.
    pub fn receive(&mut self) -> Option<Up> {
        Some(match self.account.receive(&self.channels)? {
            Said::Answer(answer) => answer.map_or_else(Up::Refused, Up::Applied),
            Said::Event(event) => Up::Event(event),
            Said::Stopped(why) => Up::Stopped(why),
        })
    }

    /// What went wrong so far without ending the thread.
    pub fn faults(&self) -> Faults {
        self.channels.shared.faults.read()
    }

    /// Why the thread has ended, `None` while it runs.
    pub fn stopped(&self) -> Option<Stopped> {
        self.channels.stopped()
    }

    /// Ends the thread after it has answered the updates already sent, and waits for its end. Packets that wait for a verdict
    /// are dropped, and all later ones, since the rules stay.
    pub fn stop(&mut self) {
        self.channels.shared.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts a thread that closes its queue and then tells why it has ended, even if it panics.
fn spawn_guarded(name: String, mut work: thread::Work) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name).spawn(move || {
        // What is left of the work after a panic is only dropped.
        let why = catch_unwind(AssertUnwindSafe(|| work.run())).unwrap_or_else(|panic| Stopped::Panicked(panic_words(panic.as_ref())));
        if why != Stopped::Asked {
            tracing::error!(%why, "packet worker ended: its packets are dropped");
        }
        let shared = Arc::clone(&work.shared);
        let notify = catch_unwind(AssertUnwindSafe(|| work.close()));
        let _ = shared.stopped.set(why);
        if let Ok(notify) = notify {
            let _ = catch_unwind(AssertUnwindSafe(notify));
        }
    })
}

/// What a panic said.
pub fn panic_words(panic: &(dyn std::any::Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    literal.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
