//! Packets that wait for a permission, or for more of one: bounded in number, octets and time (X-51, appendix A).

use std::collections::{BTreeSet, VecDeque};

use hashbrown::HashMap;
use smoltcp::time::{Duration, Instant};

use crate::flow::Flow;
use crate::processor::PacketId;
use crate::table::after;

/// What may wait. A packet beyond any of these bounds is not taken; none that waits makes room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLimits {
    /// Packets a flow.
    pub packets_per_flow: usize,
    /// Flows.
    pub flows: usize,
    /// Octets of all flows together.
    pub octets: usize,
    /// Longest wait.
    pub time: Duration,
}

impl Default for HeldLimits {
    fn default() -> Self {
        Self { packets_per_flow: 64, flows: 1024, octets: 16 << 20, time: Duration::from_secs(1) }
    }
}

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: PacketId,
    pub(super) bytes: Vec<u8>,
    until: Instant,
}

/// The waiting packets of every flow, each flow in order.
#[derive(Debug)]
pub(super) struct Held {
    limits: HeldLimits,
    flows: HashMap<Flow, VecDeque<Waiting>>,
    /// When the first packet of each flow has waited too long. All wait equally long: the first is the oldest.
    deadlines: BTreeSet<(Instant, Flow)>,
    octets: usize,
}

impl Held {
    pub(super) fn new(limits: HeldLimits) -> Self {
        Self { limits, flows: HashMap::new(), deadlines: BTreeSet::new(), octets: 0 }
    }

    /// Whether anything of the flow waits.
    pub(super) fn has(&self, flow: &Flow) -> bool {
        self.flows.contains_key(flow)
    }

    /// Takes a packet, or answers `false` if it has no room.
    pub(super) fn push(&mut self, flow: Flow, id: PacketId, bytes: &[u8], now: Instant) -> bool {
        let waiting = self.flows.get(&flow).map(VecDeque::len);
        let has_room = match waiting {
            Some(packets) => packets < self.limits.packets_per_flow,
            None => self.flows.len() < self.limits.flows && self.limits.packets_per_flow > 0,
        };
        if !has_room || self.octets.saturating_add(bytes.len()) > self.limits.octets {
            return false;
        }
        let until = after(now, self.limits.time);
        self.octets += bytes.len();
        self.flows.entry(flow).or_default().push_back(Waiting { id, bytes: bytes.to_vec(), until });
        if waiting.is_none() {
            self.deadlines.insert((until, flow));
        }
        true
    }

    /// Takes the first packet of a flow out.
    pub(super) fn pop(&mut self, flow: &Flow) -> Option<Waiting> {
        let queue = self.flows.get_mut(flow)?;
        let first = queue.pop_front()?;
        self.octets = self.octets.saturating_sub(first.bytes.len());
        self.deadlines.remove(&(first.until, *flow));
        match queue.front() {
            Some(second) => {
                self.deadlines.insert((second.until, *flow));
            }
            None => {
                self.flows.remove(flow);
            }
        }
        Some(first)
    }

    /// Puts a packet back to where [`pop`](Self::pop) took it from.
    pub(super) fn put_back(&mut self, flow: Flow, first: Waiting) {
        let queue = self.flows.entry(flow).or_default();
        if let Some(second) = queue.front() {
            self.deadlines.remove(&(second.until, flow));
        }
        self.octets = self.octets.saturating_add(first.bytes.len());
        self.deadlines.insert((first.until, flow));
        queue.push_front(first);
    }

    /// Takes out a packet that has waited too long.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Flow, Waiting)> {
        let (until, flow) = *self.deadlines.first()?;
        if until > now {
            return None;
        }
        self.pop(&flow).map(|waiting| (flow, waiting))
    }

    /// When the next packet has waited too long.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }
}
