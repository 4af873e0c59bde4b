//! The daemon's end of one packet worker.

use std::collections::VecDeque;
use std::sync::Arc;

use pbs_nslp::datapath::{Command, Event};
use serde_json::{Value, json};
use tokio::sync::Notify;
use traffic::algorithm::PacketSigner;
use traffic::counters::{Count, Counters};
use traffic::processor::PacketProcessor;
use traffic::queue::{Queue, QueueConfig, QueueError, kernel_statistics};
use traffic::reason::DropReason;
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
    /// Signs the packets of this node's own flows.
    own: Arc<dyn PacketSigner>,
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
        let (number, queue) = (queue.number, Queue::open(queue)?);
        let config = WorkerConfig::new(format!("pbs-{name}"), clock.for_packets(), counters.clone());
        let worker = Worker::spawn(queue, processor, config, Box::new(move || wake.notify_one())).map_err(DatapathError::Thread)?;
        Ok(Self { name, number, worker, counters, waiting: VecDeque::new(), own })
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
                self.waiting.push_back(update);
                self.flush();
                None
            }
            Err(error) => Some(Event::Failed { token, reason: error.to_string() }),
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

    /// The next thing that the worker has said to the NSLP.
    ///
    /// Fails when the worker has ended: its packets are dropped from then on, and the daemon cannot go on.
    pub fn receive(&mut self) -> Result<Option<Event>, Stopped> {
        self.flush();
        while let Some(up) = self.worker.receive() {
            if let Up::Stopped(why) = up {
                return Err(why);
            }
            self.flush();
            if let Some(event) = translate::event(up) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Counters and faults as JSON: what was accepted, what was dropped why.
    ///
    /// What the kernel dropped because queue or socket were full never reached the worker; it is counted here, without bytes.
    pub fn counters(&self) -> Value {
        let count = |count: Count| json!({ "packets": count.packets, "bytes": count.bytes });
        let kernel = kernel_statistics(self.number).ok().flatten();
        let never_seen = kernel.map_or(0, |kernel| kernel.dropped_queue_full.saturating_add(kernel.dropped_socket_full));
        let dropped: Vec<Value> = self
            .counters
            .all_dropped()
            .map(|(reason, count)| {
                let more = if reason == DropReason::QueueFull { never_seen } else { 0 };
                json!({ "reason": reason.word(), "packets": count.packets.saturating_add(more), "bytes": count.bytes })
            })
            .collect();
        let faults = self.worker.faults();
        json!({
            "accepted": count(self.counters.accepted()),
            "dropped": dropped,
            "faults": {
                "overruns": faults.overruns,
                "unreadable": faults.unreadable,
                "verdicts": faults.verdicts,
                "events_lost": faults.events_lost,
            },
        })
    }
}
