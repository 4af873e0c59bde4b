//! The daemon's end of one packet worker.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pbs_nslp::datapath::{Command, Event, Token};
use serde_json::{Value, json};
use tokio::sync::Notify;
use traffic::algorithm::PacketSigner;
use traffic::counters::{Count, Counters};
use traffic::flow::Flow;
use traffic::processor::PacketProcessor;
use traffic::queue::{KernelStatistics, Queue, QueueConfig, QueueError, kernel_statistics};
use traffic::reason::DropReason;
use traffic::rules::{Admitted, Ticket};
use traffic::table::LINGER;
use traffic::update::{Grant, Refusal, Update};
use traffic::worker::{SendError, Stopped, Up, Worker, WorkerConfig};

use crate::clock::Clock;
use crate::translate;

/// Why a packet worker cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// Its queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Its thread cannot be started.
    #[error("cannot start a packet worker: {0}")]
    Thread(std::io::Error),
}

/// A path that is narrower than its first link, or as narrow as the first link of a way that routing does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NarrowPath {
    /// Where it leads.
    pub destination: IpAddr,
    /// What it carries, AH included, in octets.
    pub mtu: u32,
    /// The way out that it begins with; 0 is where routing leads.
    pub way: u8,
}

/// One worker with what waits for it.
///
/// Commands that the worker does not take yet wait here in their order, so that no removal is ever lost; while any waits,
/// [`Datapath::is_behind`] tells the daemon to take no further message. Behind a shield each waits until the rules know of it, too: nobody
/// hears that a permission stands or has gone before that is so in the kernel and at the worker.
#[derive(Debug)]
pub struct Datapath {
    name: &'static str,
    number: u16,
    worker: Worker,
    counters: Arc<Counters>,
    /// Each with the request to the rules that must be settled before.
    waiting: VecDeque<(Option<Ticket>, Update)>,
    /// Whether the worker has not taken the first of them.
    is_stalled: bool,
    /// Commands that are not answered yet.
    open: usize,
    /// By token, the permissions that the rules know of, and the worker has not answered about.
    asked: BTreeMap<u64, (Flow, u32)>,
    /// Commands that the rules have refused.
    failed: VecDeque<Event>,
    wake: Arc<Notify>,
    /// Paths that turned out to be narrower than their first link.
    narrow: Vec<NarrowPath>,
    /// Signs the packets of this node's own flows.
    own: Arc<dyn PacketSigner>,
    clock: Clock,
    /// Who is told of its permissions, if it judges what arrives.
    admitted: Option<Admitted>,
    /// Whether nothing comes to the queue but what the rules have been told of.
    is_shielded: bool,
}

/// Commands that may wait for the rules before the daemon takes no further message: the more wait, the more the kernel is told at once.
const MOST_WAITING: usize = 256;

impl Datapath {
    /// Opens a queue and starts a worker named `name` on it; `own` signs the packets of this node's own flows. `wake` is notified when the worker has said something.
    pub fn start(
        name: &'static str,
        queue: QueueConfig,
        processor: Box<dyn PacketProcessor>,
        counters: Arc<Counters>,
        clock: Clock,
        wake: Arc<Notify>,
        own: Arc<dyn PacketSigner>,
    ) -> Result<Self, DatapathError> {
        let (number, modes, queue) = (queue.number, queue.modes, Queue::open(queue)?);
        let config = WorkerConfig { modes, ..WorkerConfig::new(format!("pbs-{name}"), clock.for_packets(), counters.clone()) };
        let waker = wake.clone();
        let worker = Worker::spawn(queue, processor, config, Box::new(move || waker.notify_one())).map_err(DatapathError::Thread)?;
        let (waiting, asked, failed) = (VecDeque::new(), BTreeMap::new(), VecDeque::new());
        let (is_stalled, open, narrow, admitted, is_shielded) = (false, 0, Vec::new(), None, false);
        Ok(Self {
            name,
            number,
            worker,
            counters,
            waiting,
            is_stalled,
            open,
            asked,
            failed,
            wake,
            narrow,
            own,
            clock,
            admitted,
            is_shielded,
        })
    }

    /// Has the rules make whole what arrives in fragments under its permissions, and lets nobody hear of one before they know it if they
    /// shield the queue.
    #[must_use]
    pub fn admitting(self, admitted: Admitted, is_shielded: bool) -> Self {
        let wake = self.wake.clone();
        admitted.notify(Box::new(move || wake.notify_one()));
        Self { admitted: Some(admitted), is_shielded, ..self }
    }

    /// Name of the direction, as `counters` shows it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the worker's thread runs.
    pub fn runs(&self) -> bool {
        self.worker.stopped().is_none()
    }

    /// Gives the worker a command. An answer comes for each, or the worker stops.
    pub fn command(&mut self, command: Command) -> Option<Event> {
        let token = command.token();
        match translate::update(command, &self.own) {
            Ok(update) => {
                let ticket = self.admit(&update);
                self.waiting.push_back((ticket, update));
                self.open = self.open.saturating_add(1);
                self.flush();
                None
            }
            Err(error) => Some(Event::Failed { token, reason: error.to_string() }),
        }
    }

    /// Tells the rules of a permission before the worker is told. They know it as long as its table does, so that packets are dropped for
    /// the same reason. Answers the request that is to be settled first.
    fn admit(&mut self, update: &Update) -> Option<Ticket> {
        let admitted = self.admitted.as_ref()?;
        let now = self.clock.for_packets().now();
        let lasts = |ends: smoltcp::time::Instant| {
            let left = if ends > now { (ends - now).into() } else { Duration::ZERO };
            left.saturating_add(LINGER.into())
        };
        let (ticket, permission) = match update {
            Update::Install { grant: Grant { flow, spi, expires_at, .. }, .. } | Update::Update { flow, spi, expires_at, .. } => {
                (admitted.admit(*flow, *spi, lasts(*expires_at)), Some((*flow, *spi)))
            }
            Update::Drain { flow, spi, until, .. } => (admitted.shorten(*flow, *spi, lasts(*until)), None),
            Update::Remove { flow, spi, .. } => (admitted.forget(*flow, *spi), None),
            _ => return None,
        };
        if !self.is_shielded {
            return None;
        }
        self.asked.extend(permission.map(|permission| (update.token(), permission)));
        Some(ticket)
    }

    /// Hands over what waits, in its order, as far as the rules have been told of it and the worker takes it.
    fn flush(&mut self) {
        while let Some((ticket, update)) = self.waiting.pop_front() {
            let outcome = ticket.zip(self.admitted.as_ref()).map(|(ticket, admitted)| admitted.outcome(ticket));
            match (outcome, &update) {
                (Some(None), _) => {
                    self.waiting.push_front((ticket, update));
                    return;
                }
                (Some(Some(Err(reason))), Update::Install { token, .. } | Update::Update { token, .. }) => {
                    self.open = self.open.saturating_sub(1);
                    self.asked.remove(token);
                    self.failed.push_back(Event::Failed { token: Token(*token), reason });
                    self.wake.notify_one();
                    continue;
                }
                // What the worker does not know passes no more, whatever the rules let up to it.
                (Some(Some(Err(reason))), _) => tracing::warn!(reason, "the filter rules keep a permission that has gone until its end"),
                (None | Some(Some(Ok(()))), _) => {}
            }
            if let Err(SendError::Full(update) | SendError::Stopped(update)) = self.worker.send(update) {
                self.waiting.push_front((None, *update));
                self.is_stalled = true;
                return;
            }
        }
        self.is_stalled = false;
    }

    /// Takes back what the rules have been told of a permission that the worker has refused. One that it has under the same SPI is another
    /// flow's, and stays; or it is the same with another key.
    fn take_back(&mut self, answer: &Up) {
        let (token, gone) = match answer {
            Up::Applied(applied) => (applied.token, false),
            Up::Refused(refused) => (refused.token, refused.why != Refusal::KeyChanged),
            Up::Event(_) | Up::Stopped(_) => return,
        };
        if let (Some((flow, spi)), Some(admitted), true) = (self.asked.remove(&token), &self.admitted, gone) {
            admitted.forget(flow, spi);
        }
    }

    /// Whether commands wait for the worker, or many for the rules.
    pub fn is_behind(&self) -> bool {
        self.is_stalled || self.waiting.len() >= MOST_WAITING
    }

    /// Whether every command has been answered.
    pub fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// The next thing that the worker has said to the NSLP.
    ///
    /// Fails when the worker has ended: its packets are dropped from then on, and the daemon cannot go on.
    pub fn receive(&mut self) -> Result<Option<Event>, Stopped> {
        self.flush();
        if let Some(failed) = self.failed.pop_front() {
            return Ok(Some(failed));
        }
        while let Some(up) = self.worker.receive() {
            if let Up::Stopped(why) = up {
                return Err(why);
            }
            self.take_back(&up);
            if matches!(up, Up::Applied(_) | Up::Refused(_)) {
                self.open = self.open.saturating_sub(1);
            }
            self.flush();
            if let Up::Event(traffic::event::Event::PathMtu { destination, mtu, way }) = up {
                self.narrow.push(NarrowPath { destination, mtu, way });
                continue;
            }
            if let Some(event) = translate::event(up) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Paths that turned out to be narrower than their first link since this was asked last.
    pub fn take_narrow_paths(&mut self) -> Vec<NarrowPath> {
        std::mem::take(&mut self.narrow)
    }

    /// Counters and faults as JSON: what was accepted, what was dropped why.
    pub fn counters(&self) -> Value {
        let count = |count: Count| json!({ "packets": count.packets, "bytes": count.bytes });
        let kernel = KernelDrops::of(self.number);
        let by_rules = self.admitted.as_ref().map_or_else(|| Some(Vec::new()), Admitted::dropped);
        let by_rule =
            |of: DropReason| by_rules.iter().flatten().find(|(reason, _)| *reason == of).map(|(_, count)| *count).unwrap_or_default();
        let dropped: Vec<Value> = self
            .counters
            .all_dropped()
            .map(|(reason, count)| {
                let rule = by_rule(reason);
                let packets = count.packets.saturating_add(rule.packets);
                let packets = if reason == DropReason::QueueFull { kernel.beside(packets) } else { packets.into() };
                json!({ "reason": reason.word(), "packets": packets, "bytes": count.bytes.saturating_add(rule.bytes) })
            })
            .collect();
        let row =
            |(reason, count): &(DropReason, Count)| json!({ "reason": reason.word(), "packets": count.packets, "bytes": count.bytes });
        let before_queue = by_rules.as_ref().map(|rows| rows.iter().map(row).collect::<Vec<Value>>());
        let would_drop: Vec<Value> = self
            .counters
            .all_would_drop()
            .map(|(reason, count)| json!({ "reason": reason.word(), "packets": count.packets, "bytes": count.bytes }))
            .collect();
        let faults = self.worker.faults();
        json!({
            "accepted": count(self.counters.accepted()),
            "dropped": dropped,
            "dropped_before_queue": before_queue,
            "would_drop": would_drop,
            "trickled": count(self.counters.trickled()),
            "passed_errors": count(self.counters.passed_errors()),
            "kernel_drops": kernel.show(),
            "faults": {
                "overruns": faults.overruns,
                "unreadable": faults.unreadable,
                "verdicts": faults.verdicts,
                "events_lost": faults.events_lost,
            },
        })
    }
}

/// What the kernel dropped because a queue or its socket was full: that never reached the daemon, and its bytes are not known. Or why
/// even their number is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelDrops(Result<u64, String>);

impl KernelDrops {
    /// Those of the queue with this number, in the network namespace of the calling thread.
    pub fn of(number: u16) -> Self {
        Self::from(number, kernel_statistics(number))
    }

    fn from(number: u16, read: std::io::Result<Option<KernelStatistics>>) -> Self {
        Self(match read {
            Ok(Some(kernel)) => Ok(kernel.dropped_queue_full.saturating_add(kernel.dropped_socket_full)),
            Ok(None) => Err(format!("the kernel does not list queue {number}")),
            Err(error) => Err(format!("the kernel's list of queues cannot be read: {error}")),
        })
    }

    /// Together with those that the daemon counted itself, as JSON; null if nobody knows.
    pub fn beside(&self, own: u64) -> Value {
        self.0.as_ref().map_or(Value::Null, |drops| drops.saturating_add(own).into())
    }

    /// As JSON: the number, or null and why.
    pub fn show(&self) -> Value {
        match &self.0 {
            Ok(packets) => json!({ "packets": packets }),
            Err(why) => json!({ "packets": null, "not_known_because": why }),
        }
    }
}

#[cfg(test)]
mod tests {
    use gist::time::Instant;
    use pbs_nslp::datapath::{Grant, Protection};
    use pbs_nslp::flow::FlowId;
    use pbs_nslp::wire::{SharedKey, SymmetricAlgorithm};
    use traffic::checks::Strict;
    use traffic::rules::{self, Role, RouterRules};
    use traffic::verifier::{self, Verifier, VerifierConfig};

    use super::*;
    use crate::rules::tests::in_a_namespace;
    use crate::translate::tests::NoSigner;

    const QUEUE: u16 = 7;

    /// INV-11, FN-70; what is revoked passes no more when that is answered.
    #[test]
    fn a_permission_is_answered_for_when_rules_and_worker_both_know_it_and_its_end_when_neither_does() {
        in_a_namespace(|| {
            let install = || RouterRules { shield: true, ..RouterRules::new(1, QUEUE, 30_270) }.install().unwrap();
            install();
            let admitted = Admitted::at_most(Role::Router, 2).unwrap();
            let mut datapath = datapath().admitting(admitted.clone(), true);
            let put_back = || {
                install();
                admitted.refill();
            };
            assert_eq!(datapath.command(Command::Install { token: Token(1), grant: grant(1, 300) }), None);
            assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(1), .. }));
            assert_eq!((admitted.counts(), datapath.is_idle()), ((1, 0), true));
            rules::remove(Role::Router).unwrap();
            datapath.command(Command::Install { token: Token(2), grant: grant(2, 301) });
            is_silent(&mut datapath);
            put_back();
            assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(2), .. }));
            datapath.command(Command::Install { token: Token(3), grant: grant(3, 302) });
            let Event::Failed { token: Token(3), reason } = answer(&mut datapath) else { panic!("there is no room") };
            assert!(reason.contains("2 permissions already"), "{reason}");
            rules::remove(Role::Router).unwrap();
            datapath.command(Command::Remove { token: Token(4), flow: grant(1, 300).flow, spi: 300 });
            is_silent(&mut datapath);
            put_back();
            assert!(matches!(answer(&mut datapath), Event::Applied { token: Token(4), .. }));
            // What the worker refuses the rules are to know no longer, and of what it has they go on to know.
            datapath.command(Command::Install { token: Token(5), grant: grant(4, 301) });
            assert!(matches!(answer(&mut datapath), Event::Failed { token: Token(5), .. }));
            admitted.settled();
            assert_eq!((admitted.counts().0, datapath.is_idle()), (1, true));
            assert_eq!(datapath.counters()["dropped_before_queue"], json!([]));
        });
    }

    fn datapath() -> Datapath {
        let counters = Arc::new(Counters::default());
        let verifier = Verifier::new(VerifierConfig::new(verifier::Role::Router), Arc::new(Strict), counters.clone()).unwrap();
        let (queue, wake) = (QueueConfig::new(QUEUE), Arc::new(Notify::new()));
        Datapath::start("data", queue, Box::new(verifier), counters, Clock::start(), wake, Arc::new(NoSigner)).unwrap()
    }

    /// Of a flow from the host of this number.
    fn grant(host: u8, spi: u32) -> Grant {
        let flow = FlowId::new([192, 0, 2, host].into(), [198, 51, 100, 1].into(), 17, 5000, 9000).unwrap();
        let protection = Protection::Shared {
            algorithm: SymmetricAlgorithm::HmacSha256,
            key: SharedKey::new(SymmetricAlgorithm::HmacSha256, vec![7; 32]).unwrap(),
        };
        Grant { flow, spi, protection, allowed: 1000, counted: 0, highest: 0, expires_at: Instant::from_micros(600_000_000) }
    }

    fn answer(datapath: &mut Datapath) -> Event {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(event) = datapath.receive().unwrap() {
                return event;
            }
            assert!(std::time::Instant::now() < until, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_silent(datapath: &mut Datapath) {
        for _ in 0..20 {
            assert_eq!(datapath.receive().unwrap(), None);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What cannot be read must not look like no drops.
    #[test]
    fn kernel_drops_that_nobody_knows_are_null_and_say_why() {
        let full = KernelStatistics { waiting: 0, dropped_queue_full: 3, dropped_socket_full: 4 };
        let known = KernelDrops::from(7, Ok(Some(full)));
        assert_eq!((known.beside(2), known.show()), (json!(9), json!({ "packets": 7 })));
        let cases = [
            (Ok(None), "the kernel does not list queue 7"),
            (Err(std::io::ErrorKind::PermissionDenied.into()), "the kernel's list of queues cannot be read: permission denied"),
        ];
        for (read, why) in cases {
            let unknown = KernelDrops::from(7, read);
            assert_eq!((unknown.beside(2), unknown.show()), (Value::Null, json!({ "packets": null, "not_known_because": why })));
        }
    }
}
