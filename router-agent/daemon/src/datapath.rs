//! The daemon's end of the packet workers of one direction.

mod counted;
mod lane;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use pbs_nslp::datapath::{Command, Event, Token};
use tokio::sync::Notify;
use traffic::algorithm::PacketSigner;
use traffic::flow::Flow;
use traffic::queue::QueueError;
use traffic::rules::{Admitted, Ticket};
use traffic::spread::Spread;
use traffic::table::LINGER;
use traffic::update::{Grant, Refusal, Update};
use traffic::worker::{Stopped, Up, processors};

pub use self::counted::KernelDrops;
use self::lane::Lane;
pub use self::lane::Lead;
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

/// A packet worker has ended: what the kernel has for its queue is dropped from then on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("packet worker `{worker}` ended: {why}")]
pub struct WorkerEnded {
    /// Which, as `status` and `counters` call it.
    pub worker: String,
    /// Why.
    pub why: Stopped,
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

/// A direction's workers, with what waits for each.
///
/// Each permission is in the table of one worker, to whom the filter rules lead its packets ([`Spread`]). Commands that a worker does not
/// take yet wait here in their order, so that no removal is ever lost; while any waits, [`Datapath::is_behind`] tells the daemon to take no
/// further message. Behind a shield each waits until the rules know of it, too: nobody hears that a permission stands or has gone before
/// that is so in the kernel and at the worker.
#[derive(Debug)]
pub struct Datapath {
    name: &'static str,
    lanes: Vec<Lane>,
    spread: Spread,
    /// Commands that are not answered yet.
    open: usize,
    /// By token, the permissions that the rules know of, and no worker has answered about.
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
    /// Whether nothing comes to the queues but what the rules have been told of.
    is_shielded: bool,
}

/// Commands that may wait for the rules before the daemon takes no further message: the more wait, the more the kernel is told at once.
const MOST_WAITING: usize = 256;

impl Datapath {
    /// Opens a queue for each worker and starts it: one for [`Spread::ALONE`], else as many as `spread` says, each kept to a processor
    /// of its own as far as there are so many. The first is named `name`, and the others have their number behind it. `own` signs the
    /// packets of this node's own flows. `wake` is notified when a worker has said something.
    ///
    /// # Errors
    ///
    /// See [`DatapathError`].
    pub fn start(
        name: &'static str,
        leads: Vec<Lead>,
        spread: Spread,
        clock: Clock,
        wake: &Arc<Notify>,
        own: Arc<dyn PacketSigner>,
    ) -> Result<Self, DatapathError> {
        let processors = if leads.len() > 1 { processors() } else { Vec::new() };
        // From the last processor on: what arrives is the first one's business where nobody says otherwise.
        let processors = processors.iter().rev().copied().cycle().map(Some).chain(std::iter::repeat(None));
        let start = |((place, lead), processor)| {
            let name = if place == 0 { name.to_owned() } else { format!("{name}-{place}") };
            Lane::start(name, lead, processor, clock, Arc::clone(wake))
        };
        let lanes = leads.into_iter().enumerate().zip(processors).map(start).collect::<Result<_, _>>()?;
        let (asked, failed, narrow, wake) = (BTreeMap::new(), VecDeque::new(), Vec::new(), Arc::clone(wake));
        Ok(Self { name, lanes, spread, open: 0, asked, failed, wake, narrow, own, clock, admitted: None, is_shielded: false })
    }

    /// Has the rules make whole what arrives in fragments under its permissions, and lets nobody hear of one before they know it if they
    /// shield the queues.
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

    /// Each worker's name, and whether its thread runs.
    pub fn threads(&self) -> impl Iterator<Item = (String, bool)> + '_ {
        self.lanes.iter().map(|lane| (lane.name().to_owned(), lane.runs()))
    }

    /// Gives the worker that it concerns a command. An answer comes for each, or the worker stops.
    pub fn command(&mut self, command: Command) -> Option<Event> {
        let token = command.token();
        match translate::update(command, &self.own) {
            Ok(update) => {
                let ticket = self.admit(&update);
                let worker = update.association().map_or(0, |(flow, spi)| self.spread.worker(flow, spi));
                // There are as many as the spread says.
                let Some(lane) = self.lanes.get_mut(usize::from(worker)) else {
                    return Some(Event::Failed { token, reason: format!("there is no worker {worker}") });
                };
                lane.push(ticket, update);
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

    /// Hands over what waits, as far as the rules have been told of it and each worker takes it.
    fn flush(&mut self) {
        for lane in &mut self.lanes {
            lane.flush(self.admitted.as_ref(), &mut |token, reason| {
                self.open = self.open.saturating_sub(1);
                self.asked.remove(&token);
                self.failed.push_back(Event::Failed { token: Token(token), reason });
                self.wake.notify_one();
            });
        }
    }

    /// Takes back what the rules have been told of a permission that the worker has refused. One that it has under the same SPI is another
    /// flow's, and stays; or it is the same with another key.
    fn take_back(&mut self, answer: &Up) {
        let (token, gone) = match answer {
            Up::Applied(applied) => (applied.token, false),
            Up::Refused(refused) => (refused.token, refused.why != Refusal::KeyChanged),
            Up::Event(_) | Up::Stopped(_) => return,
        };
        let Some(permission @ (flow, spi)) = self.asked.remove(&token) else { return };
        // One that has been asked for again meanwhile stays until that is answered.
        if let (Some(admitted), true) = (&self.admitted, gone && !self.asked.values().any(|later| *later == permission)) {
            admitted.forget(flow, spi);
        }
    }

    /// Whether commands wait for a worker, or many for the rules.
    pub fn is_behind(&self) -> bool {
        self.lanes.iter().any(Lane::is_stalled) || self.lanes.iter().map(Lane::waiting).sum::<usize>() >= MOST_WAITING
    }

    /// Whether every command has been answered.
    pub fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// The next thing that a worker has said to the NSLP.
    ///
    /// Fails when one has ended: its packets are dropped from then on. What its windows and counters held went with it, so that nobody can
    /// take over from it, and the daemon cannot go on.
    pub fn receive(&mut self) -> Result<Option<Event>, WorkerEnded> {
        self.flush();
        if let Some(failed) = self.failed.pop_front() {
            return Ok(Some(failed));
        }
        while let Some((worker, up)) = self.lanes.iter_mut().find_map(|lane| lane.receive().map(|up| (lane.name(), up))) {
            if let Up::Stopped(why) = up {
                return Err(WorkerEnded { worker: worker.to_owned(), why });
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
}

#[cfg(test)]
mod tests;
