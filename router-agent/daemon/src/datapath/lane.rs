//! One packet worker.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;
use traffic::af_xdp::{AfXdp, Statistics};
use traffic::counters::Counters;
use traffic::processor::PacketProcessor;
use traffic::queue::{Queue, QueueConfig};
use traffic::rules::{Admitted, Ticket};
use traffic::update::Update;
use traffic::worker::{Faults, SendError, Up, Worker, WorkerConfig};

use super::DatapathError;
use crate::clock::Clock;

/// What a worker is started with.
pub struct Lead {
    /// Its queue.
    pub queue: QueueConfig,
    /// What passes the queue by, if anything does.
    pub af_xdp: Option<AfXdp>,
    /// What judges its packets.
    pub processor: Box<dyn PacketProcessor>,
    /// Where that one counts.
    pub counters: Arc<Counters>,
}

/// One worker, with what waits for it.
#[derive(Debug)]
pub(super) struct Lane {
    name: String,
    pub(super) number: u16,
    /// Its queue of super-packets, if it has one.
    pub(super) whole: Option<u16>,
    /// What the kernel has dropped of what does not come through the queue.
    pub(super) past_the_queue: Statistics,
    worker: Worker,
    pub(super) counters: Arc<Counters>,
    /// Each with the request to the rules that must be settled before.
    waiting: VecDeque<(Option<Ticket>, Update)>,
    /// Whether the worker has not taken the first of them.
    is_stalled: bool,
}

impl Lane {
    pub(super) fn start(
        name: String,
        lead: Lead,
        processor: Option<usize>,
        clock: Clock,
        wake: Arc<Notify>,
    ) -> Result<Self, DatapathError> {
        let Lead { queue, af_xdp, processor: judge, counters } = lead;
        let past_the_queue = af_xdp.as_ref().map(AfXdp::statistics).unwrap_or_default();
        let (number, whole, modes, queue) = (queue.number, queue.whole, queue.modes, Queue::open(queue)?);
        let config = WorkerConfig::new(format!("pbs-{name}"), clock.for_packets(), counters.clone());
        let config = WorkerConfig { modes, processor, ..config };
        let notify = Box::new(move || wake.notify_one());
        let worker = Worker::spawn_beside(queue, af_xdp, judge, config, notify).map_err(DatapathError::Thread)?;
        Ok(Self { name, number, whole, past_the_queue, worker, counters, waiting: VecDeque::new(), is_stalled: false })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn runs(&self) -> bool {
        self.worker.stopped().is_none()
    }

    pub(super) fn faults(&self) -> Faults {
        self.worker.faults()
    }

    /// Has an update wait for its turn, and for what the rules are asked before it.
    pub(super) fn push(&mut self, ticket: Option<Ticket>, update: Update) {
        self.waiting.push_back((ticket, update));
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the worker has not taken what it could be given.
    pub(super) const fn is_stalled(&self) -> bool {
        self.is_stalled
    }

    /// The next thing that the worker has said.
    pub(super) fn receive(&mut self) -> Option<Up> {
        self.worker.receive()
    }

    /// Hands over what waits, in its order, as far as the rules have been told of it and the worker takes it. Tells of whatever the rules
    /// have refused, by its token, and why.
    pub(super) fn flush(&mut self, admitted: Option<&Admitted>, refused: &mut dyn FnMut(u64, String)) {
        while let Some((ticket, update)) = self.waiting.pop_front() {
            let outcome = ticket.zip(admitted).map(|(ticket, admitted)| admitted.outcome(ticket));
            match (outcome, &update) {
                (Some(None), _) => {
                    self.waiting.push_front((ticket, update));
                    // The worker has taken all before it.
                    self.is_stalled = false;
                    return;
                }
                (Some(Some(Err(reason))), Update::Install { token, .. } | Update::Update { token, .. }) => {
                    refused(*token, reason);
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
}
