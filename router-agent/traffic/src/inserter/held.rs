//! Packets that wait for a permission, or for more of one: bounded in number, octets and time (X-51, X-113, appendix A).

use std::collections::{BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use smoltcp::time::{Duration, Instant};

use super::holders::{Change, Holders, Owner};
use crate::flow::Flow;
use crate::processor::PacketId;
use crate::queue;
use crate::state::{Map, Micros};
use crate::table::after;

/// A packet takes up one place for each so many octets begun.
const PLACE: usize = 8192;

/// What may wait.
///
/// A packet beyond the share of its flow is not taken. One beyond all places together takes the place of the oldest packet
/// of the biggest holder: of the user who has most waiting, and of that user's destinations the one that has most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLimits {
    /// Places of all flows together; a packet takes one for each 8 KiB begun. To be well below the queue's capacity: a packet
    /// that waits here still takes up room there, and what is permitted must not find the queue full.
    pub places: usize,
    /// Packets a flow.
    pub packets_per_flow: usize,
    /// Longest wait.
    pub time: Duration,
}

impl Hash for HeldLimits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { places, packets_per_flow, time } = self;
        (places, packets_per_flow, time.in_micros()).hash(state);
    }
}

impl Default for HeldLimits {
    /// Half of the outbound queue; 64 packets a flow and a second.
    fn default() -> Self {
        let places = usize::try_from(queue::OUTBOUND_CAPACITY / 2).unwrap_or(usize::MAX);
        Self { places, packets_per_flow: 64, time: Duration::from_secs(1) }
    }
}

/// A packet that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) id: PacketId,
    pub(super) bytes: Vec<u8>,
    /// When it has waited too long.
    pub(super) until: Instant,
    /// The smaller, the older.
    age: u64,
}

impl Hash for Waiting {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { id, bytes, until, age } = self;
        (id, bytes, until.in_micros(), age).hash(state);
    }
}

/// The waiting packets of a flow, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    owner: Owner,
    packets: VecDeque<Waiting>,
    /// When the flow's permission ends, if it has one.
    ends: Option<Instant>,
}

impl Hash for Line {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { owner, packets, ends } = self;
        (owner, packets, ends.in_micros()).hash(state);
    }
}

impl Line {
    fn front(&self) -> Option<u64> {
        self.packets.front().map(|first| first.age)
    }

    /// When the first packet has waited too long or the permission has ended. All wait equally long: the first is the oldest.
    fn due(&self) -> Option<Instant> {
        let until = self.packets.front()?.until;
        Some(self.ends.map_or(until, |ends| until.min(ends)))
    }
}

/// The waiting packets of every flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    limits: HeldLimits,
    lines: Map<Flow, Line>,
    deadlines: BTreeSet<(Instant, Flow)>,
    holders: Holders,
    taken: usize,
    ages: u64,
}

impl Hash for Held {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // What is due when and who holds how much follows from the lines.
        let Self { limits, lines, deadlines: _, holders: _, taken: _, ages } = self;
        (limits, lines, ages).hash(state);
    }
}

impl Held {
    pub(super) fn new(limits: HeldLimits) -> Self {
        Self { limits, lines: Map::new(), deadlines: BTreeSet::new(), holders: Holders::default(), taken: 0, ages: 0 }
    }

    /// Whether anything of the flow waits.
    pub(super) fn has(&self, flow: &Flow) -> bool {
        self.lines.contains_key(flow)
    }

    /// Whether the flow may have one more packet of `len` octets waiting, be it in the place of others.
    pub(super) fn may_hold(&self, flow: &Flow, len: usize) -> bool {
        let waiting = self.lines.get(flow).map_or(0, |line| line.packets.len());
        waiting < self.limits.packets_per_flow && places(len) <= self.limits.places
    }

    /// Takes out the packet that has to go before one of `len` octets finds room, `None` if there is room.
    pub(super) fn make_room(&mut self, len: usize) -> Option<(Flow, Waiting)> {
        if self.taken.saturating_add(places(len)) <= self.limits.places {
            return None;
        }
        let flow = self.holders.biggest()?;
        self.pop(&flow).map(|waiting| (flow, waiting))
    }

    /// Takes a packet. `ends` is when the flow's permission ends, if it has one.
    pub(super) fn push(&mut self, flow: Flow, owner: Owner, id: PacketId, bytes: &[u8], ends: Option<Instant>, now: Instant) {
        let until = after(now, self.limits.time);
        self.ages = self.ages.saturating_add(1);
        let waiting = Waiting { id, bytes: bytes.to_vec(), until, age: self.ages };
        self.change(flow, owner, places(bytes.len()), 0, |line| {
            line.ends = ends;
            line.packets.push_back(waiting);
        });
    }

    /// Takes the first packet of a flow out.
    pub(super) fn pop(&mut self, flow: &Flow) -> Option<Waiting> {
        let line = self.lines.get(flow)?;
        let (owner, len) = (line.owner, line.packets.front()?.bytes.len());
        self.change(*flow, owner, 0, places(len), |line| line.packets.pop_front())
    }

    /// Puts a packet back to where [`pop`](Self::pop) took it from. `ends` as in [`push`](Self::push).
    pub(super) fn put_back(&mut self, flow: Flow, owner: Owner, first: Waiting, ends: Option<Instant>) {
        self.change(flow, owner, places(first.bytes.len()), 0, |line| {
            line.ends = ends;
            line.packets.push_front(first);
        });
    }

    /// Whose packets of a flow wait.
    pub(super) fn owner(&self, flow: &Flow) -> Owner {
        self.lines.get(flow).and_then(|line| line.owner)
    }

    /// Takes note of when the flow's permission ends, if it has one.
    pub(super) fn set_end(&mut self, flow: &Flow, ends: Option<Instant>) {
        if let Some(owner) = self.lines.get(flow).map(|line| line.owner) {
            self.change(*flow, owner, 0, 0, |line| line.ends = ends);
        }
    }

    /// Whether the first packet of the flow has waited too long.
    pub(super) fn has_waited_too_long(&self, flow: &Flow, now: Instant) -> bool {
        self.lines.get(flow).and_then(|line| line.packets.front()).is_some_and(|first| first.until <= now)
    }

    /// A flow of which the first packet has waited too long, or whose permission has ended.
    pub(super) fn due(&self, now: Instant) -> Option<Flow> {
        self.deadlines.first().filter(|(due, _)| *due <= now).map(|(_, flow)| *flow)
    }

    /// When the next flow is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Changes a flow's line and everything that is ordered by it.
    fn change<T>(&mut self, flow: Flow, owner: Owner, more: usize, less: usize, change: impl FnOnce(&mut Line) -> T) -> T {
        let line = self.lines.entry(flow).or_insert_with(|| Line { owner, packets: VecDeque::new(), ends: None });
        let (owner, front_before, due_before) = (line.owner, line.front(), line.due());
        let outcome = change(line);
        let (front, due) = (line.front(), line.due());
        self.holders.change(Change { owner, flow, more, less, front_before, front });
        self.taken = self.taken.saturating_add(more).saturating_sub(less);
        if due_before != due {
            due_before.inspect(|due| {
                self.deadlines.remove(&(*due, flow));
            });
            due.inspect(|due| {
                self.deadlines.insert((*due, flow));
            });
        }
        if front.is_none() {
            self.lines.remove(&flow);
        }
        outcome
    }
}

fn places(len: usize) -> usize {
    len.div_ceil(PLACE).max(1)
}
