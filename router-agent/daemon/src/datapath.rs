//! The daemon's end of one packet worker.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pbs_nslp::datapath::{Command, Event};
use serde_json::{Value, json};
use tokio::sync::Notify;
use traffic::algorithm::PacketSigner;
use traffic::counters::{Count, Counters};
use traffic::processor::PacketProcessor;
use traffic::queue::{KernelStatistics, Queue, QueueConfig, QueueError, kernel_statistics};
use traffic::reason::DropReason;
use traffic::rules::Admitted;
use traffic::update::Update;
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
/// [`Datapath::is_behind`] tells the daemon to take no further message.
#[derive(Debug)]
pub struct Datapath {
    name: &'static str,
    number: u16,
    worker: Worker,
    counters: Arc<Counters>,
    waiting: VecDeque<Update>,
    /// Commands that are not answered yet.
    open: usize,
    /// Paths that turned out to be narrower than their first link.
    narrow: Vec<NarrowPath>,
    /// Signs the packets of this node's own flows.
    own: Arc<dyn PacketSigner>,
    clock: Clock,
    /// Who is told of its permissions, if it judges what arrives.
    admitted: Option<Admitted>,
}

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
        let worker = Worker::spawn(queue, processor, config, Box::new(move || wake.notify_one())).map_err(DatapathError::Thread)?;
        Ok(Self { name, number, worker, counters, waiting: VecDeque::new(), open: 0, narrow: Vec::new(), own, clock, admitted: None })
    }

    /// Has the rules make whole what arrives in fragments under its permissions.
    #[must_use]
    pub fn admitting(self, admitted: Admitted) -> Self {
        Self { admitted: Some(admitted), ..self }
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
                self.admit(&update);
                self.waiting.push_back(update);
                self.open = self.open.saturating_add(1);
                self.flush();
                None
            }
            Err(error) => Some(Event::Failed { token, reason: error.to_string() }),
        }
    }

    /// Tells the rules whose fragments are to be made whole: before the first packet under a permission can come.
    fn admit(&self, update: &Update) {
        let Some(admitted) = &self.admitted else { return };
        let now = self.clock.for_packets().now();
        let lasts = |ends: smoltcp::time::Instant| if ends > now { (ends - now).into() } else { Duration::ZERO };
        match update {
            Update::Install { grant, .. } => {
                admitted.admit(grant.flow.source, grant.flow.destination, grant.spi, lasts(grant.expires_at));
            }
            Update::Update { flow, spi, expires_at, .. } => admitted.admit(flow.source, flow.destination, *spi, lasts(*expires_at)),
            Update::Remove { flow, spi, .. } => admitted.forget(flow.source, flow.destination, *spi),
            _ => {}
        }
    }

    /// Hands over what waits, as far as the worker takes it.
    fn flush(&mut self) {
        while let Some(update) = self.waiting.pop_front() {
            if let Err(SendError::Full(update) | SendError::Stopped(update)) = self.worker.send(update) {
                self.waiting.push_front(*update);
                return;
            }
        }
    }

    /// Whether commands wait for the worker.
    pub fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
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
        while let Some(up) = self.worker.receive() {
            if let Up::Stopped(why) = up {
                return Err(why);
            }
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
        let dropped: Vec<Value> = self
            .counters
            .all_dropped()
            .map(|(reason, count)| {
                let packets = if reason == DropReason::QueueFull { kernel.beside(count.packets) } else { count.packets.into() };
                json!({ "reason": reason.word(), "packets": packets, "bytes": count.bytes })
            })
            .collect();
        let would_drop: Vec<Value> = self
            .counters
            .all_would_drop()
            .map(|(reason, count)| json!({ "reason": reason.word(), "packets": count.packets, "bytes": count.bytes }))
            .collect();
        let faults = self.worker.faults();
        json!({
            "accepted": count(self.counters.accepted()),
            "dropped": dropped,
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
    use super::*;

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
