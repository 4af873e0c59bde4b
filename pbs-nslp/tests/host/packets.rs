//! One table of the packet side: what leaves a host, what arrives at one, or what crosses a router.

use std::collections::{BTreeMap, VecDeque};

use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event, Grant};
use pbs_nslp::detection::{Count, Covered};
use pbs_nslp::flow::FlowId;

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) grant: Grant,
    pub(crate) counted: u64,
    pub(crate) highest: u32,
    /// Length of each packet, in the order of their numbers: none is lost or overtaken here.
    pub(crate) lengths: Vec<u64>,
}

/// What became of a packet that wants to leave a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent { spi: u32 },
    Held,
    Dropped,
}

#[derive(Debug, Default)]
pub(crate) struct Packets {
    /// Whether it is what leaves a host, and which ports of the destination ask by themselves.
    pub(crate) asks_for: Option<u16>,
    pub(crate) table: BTreeMap<(FlowId, u32), Entry>,
    pub(crate) expected: BTreeMap<FlowId, Instant>,
    /// Lengths of the packets that wait.
    pub(crate) held: BTreeMap<FlowId, Vec<u64>>,
    pub(crate) events: VecDeque<Event>,
    /// Installs fail while set.
    pub(crate) full: bool,
    /// What was sent in the epoch before, and its last number.
    pub(crate) previous: BTreeMap<(FlowId, u32), (u64, u32)>,
}

impl Packets {
    /// Carries out a command; gives the packets that may leave now.
    pub(crate) fn apply(&mut self, command: &Command, now: Instant) -> Vec<(FlowId, u64)> {
        let token = command.token();
        let flow = command.flow();
        let mut released = Vec::new();
        let counters = |entry: Option<&Entry>| entry.map_or((0, 0), |entry| (entry.counted, entry.highest));
        let answer = match command {
            Command::Install { .. } if self.full => Err("the permission table is full"),
            Command::Install { grant, .. } => {
                if self.asks_for.is_some() {
                    let former = self.table.iter().filter(|((other, _), _)| *other == flow);
                    self.previous = former.map(|(key, entry)| (*key, (entry.counted, entry.highest))).collect();
                    self.table.retain(|(other, _), _| *other != flow);
                }
                let entry = Entry { grant: grant.clone(), counted: grant.counted, highest: 0, lengths: Vec::new() };
                self.table.insert((flow, grant.spi), entry);
                self.expected.remove(&flow);
                released = self.held.remove(&flow).unwrap_or_default();
                Ok((grant.counted, 0))
            }
            Command::Update { spi, allowed, expires_at, .. } => match self.table.get_mut(&(flow, *spi)) {
                Some(entry) => {
                    (entry.grant.allowed, entry.grant.expires_at) = (*allowed, *expires_at);
                    released = self.held.remove(&flow).unwrap_or_default();
                    Ok((entry.counted, entry.highest))
                }
                None => Err("no such permission"),
            },
            Command::Remove { spi, .. } => Ok(counters(self.table.remove(&(flow, *spi)).as_ref())),
            Command::Drain { spi, until, .. } => match self.table.get_mut(&(flow, *spi)) {
                Some(entry) => {
                    entry.grant.expires_at = entry.grant.expires_at.min(*until);
                    Ok((entry.counted, entry.highest))
                }
                None => Err("no such permission"),
            },
            Command::Compare { spi, up_to, .. } => {
                let Some(entry) = self.table.get(&(flow, *spi)) else {
                    self.events.push_back(Event::Failed { token, reason: "no such permission".to_owned() });
                    return Vec::new();
                };
                let exact = entry.lengths.iter().take(*up_to as usize).sum();
                let covered = Some(Covered { at_least: exact, at_most: exact });
                let count = Count { counted: entry.counted, highest: entry.highest, covered, ..Count::default() };
                self.events.push_back(Event::Compared { token, count });
                return Vec::new();
            }
            Command::Snapshot { spi, .. } => match self.table.get(&(flow, *spi)) {
                Some(entry) => Ok((entry.counted, entry.highest)),
                None if self.previous.contains_key(&(flow, *spi)) => Ok(self.previous[&(flow, *spi)]),
                None => Err("no such permission"),
            },
            Command::Expect { until, .. } => {
                assert!(*until > now);
                self.expected.insert(flow, *until);
                Ok((0, 0))
            }
            Command::Route { .. } => Ok((0, 0)),
            Command::ReleaseHeld { .. } => {
                released = self.held.remove(&flow).unwrap_or_default();
                Ok((0, 0))
            }
            Command::DropHeld { .. } => {
                self.expected.remove(&flow);
                self.held.remove(&flow);
                Ok((0, 0))
            }
        };
        self.events.push_back(match answer {
            Ok((counted, highest)) => Event::Applied { token, counted, highest },
            Err(reason) => Event::Failed { token, reason: reason.to_owned() },
        });
        released.into_iter().map(|length| (flow, length)).collect()
    }

    /// A packet of an application wants to leave.
    pub(crate) fn send(&mut self, flow: FlowId, length: u64, now: Instant) -> Fate {
        if let Some(held) = self.held.get_mut(&flow) {
            held.push(length);
            return Fate::Held;
        }
        let entry = self.table.iter_mut().find(|((of, _), entry)| *of == flow && entry.grant.expires_at > now);
        let Some(((_, spi), entry)) = entry else {
            if self.expected.get(&flow).is_some_and(|until| *until > now) {
                self.held.insert(flow, vec![length]);
                return Fate::Held;
            }
            if self.asks_for == Some(flow.destination_port) {
                self.held.insert(flow, vec![length]);
                self.events.push_back(Event::FirstPacket { flow });
                return Fate::Held;
            }
            return Fate::Dropped;
        };
        let spi = *spi;
        if entry.counted + length > entry.grant.allowed {
            self.held.insert(flow, vec![length]);
            self.events.push_back(Event::OverBudget { flow, spi });
            return Fate::Held;
        }
        let mark = entry.grant.allowed - entry.grant.allowed / 4;
        if (entry.counted..entry.counted + length).contains(&(mark.max(1) - 1)) {
            self.events.push_back(Event::NearlyUsedUp { flow, spi });
        }
        entry.counted += length;
        entry.highest += 1;
        Fate::Sent { spi }
    }

    /// A packet on its way or at its destination.
    pub(crate) fn verify(&mut self, flow: FlowId, spi: u32, length: u64, now: Instant) -> bool {
        let Some(entry) = self.table.get_mut(&(flow, spi)).filter(|entry| entry.grant.expires_at > now) else {
            return false;
        };
        if entry.counted + length > entry.grant.allowed {
            self.events.push_back(Event::OverBudget { flow, spi });
            return false;
        }
        entry.counted += length;
        entry.highest += 1;
        entry.lengths.push(length);
        true
    }

    pub(crate) fn permits(&self, flow: FlowId) -> bool {
        self.table.keys().any(|(of, _)| *of == flow)
    }

    /// Whether nothing of any flow is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty() && self.expected.is_empty() && self.held.is_empty()
    }
}
