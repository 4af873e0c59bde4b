//! The packet side of one node, reduced to what signalling sees of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gist::api::PathId;
use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event, Grant};
use pbs_nslp::detection::{Count, Covered};
use pbs_nslp::flow::FlowId;

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) grant: Grant,
    pub(crate) counted: u64,
    /// What may be counted at most: the allowed volume, or where a receiver lowered that below what had been counted,
    /// just that.
    pub(crate) ceiling: u64,
    pub(crate) highest: u32,
    /// Numbers that have passed, with their packets' lengths and times.
    pub(crate) seen: BTreeMap<u32, (u64, Instant)>,
    /// Whether two right ICVs came under one number (E4).
    pub(crate) second_holder: bool,
    /// Sequence numbers used at a sender start over with each SPI.
    pub(crate) draining: bool,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed { spi: u32, number: u32 },
    Held,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Datapath {
    pub(crate) is_sender: bool,
    pub(crate) table: BTreeMap<(FlowId, u32), Entry>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) held: BTreeSet<FlowId>,
    /// By which way packets leave, where not by the routed one.
    pub(crate) ways: BTreeMap<FlowId, PathId>,
    /// Flows whose packets are held until the nodes on their way know of them.
    pub(crate) between: BTreeSet<FlowId>,
    /// Answers stay away while set.
    pub(crate) stalled: bool,
    pub(crate) waiting: VecDeque<Event>,
    /// Installs fail while set.
    pub(crate) full: bool,
    /// Removals fail while set.
    pub(crate) stubborn: bool,
    /// The removal of this SPI fails while set.
    pub(crate) sticks: Option<u32>,
    /// Numbers that were used under an SPI, to show that none is used twice (INV-07).
    pub(crate) used: BTreeSet<(u32, u32)>,
    /// What a sender sent in the epoch before, and its last number.
    pub(crate) previous: BTreeMap<(FlowId, u32), (u64, u32)>,
}

impl Datapath {
    pub(crate) fn apply(&mut self, command: &Command, now: Instant) {
        let token = command.token();
        let key = match command {
            Command::Install { grant, .. } => (grant.flow, grant.spi),
            Command::Update { flow, spi, .. }
            | Command::Remove { flow, spi, .. }
            | Command::Drain { flow, spi, .. }
            | Command::Compare { flow, spi, .. }
            | Command::Snapshot { flow, spi, .. } => (*flow, *spi),
            Command::Expect { flow, .. }
            | Command::ReleaseHeld { flow, .. }
            | Command::Route { flow, .. }
            | Command::DropHeld { flow, .. } => (*flow, 0),
        };
        let before = self.table.get(&key).map_or((0, 0), |entry| (entry.counted, entry.highest));
        let result = self.carry_out(command, key);
        let previous = self.previous.get(&key).copied().unwrap_or(before);
        let (counted, highest) = self.table.get(&key).map_or(previous, |entry| (entry.counted, entry.highest));
        let event = match result {
            Ok(()) => match command {
                Command::Compare { up_to, delay, .. } => {
                    Event::Compared { token, count: self.count(key, *up_to, now.saturating_sub(*delay)) }
                }
                _ => Event::Applied { token, counted, highest },
            },
            Err(reason) => Event::Failed { token, reason: reason.to_owned() },
        };
        if self.stalled { self.waiting.push_back(event) } else { self.events.push_back(event) }
    }

    /// What the packet side of a receiver would tell, to the byte.
    fn count(&self, key: (FlowId, u32), up_to: u32, then: Instant) -> Count {
        let Some(entry) = self.table.get(&key) else {
            return Count::default();
        };
        let exact = entry.seen.range(..=up_to).map(|(_, (length, _))| length).sum();
        let ahead = entry.seen.iter().filter(|(number, (_, at))| **number > up_to && *at < then).map(|(_, (length, _))| length).sum();
        let covered = Some(Covered { at_least: exact, at_most: exact });
        Count { counted: entry.counted, highest: entry.highest, covered, ahead, second_holder: entry.second_holder, late: 0 }
    }

    pub(crate) fn resume(&mut self) {
        self.stalled = false;
        self.events.append(&mut self.waiting);
    }

    fn carry_out(&mut self, command: &Command, key: (FlowId, u32)) -> Result<(), &'static str> {
        match command {
            Command::Install { .. } if self.full => return Err("the permission table is full"),
            Command::Install { grant, .. } => {
                self.between.remove(&grant.flow);
                if self.is_sender {
                    let former = self.table.iter().filter(|((flow, _), _)| *flow == grant.flow);
                    let former: Vec<_> = former.map(|(key, entry)| (*key, (entry.counted, entry.highest))).collect();
                    self.previous.retain(|(flow, _), _| *flow != grant.flow);
                    self.previous.extend(former);
                    self.table.retain(|(flow, _), _| *flow != grant.flow);
                    self.held.remove(&grant.flow);
                }
                assert!(!self.table.contains_key(&key), "an installed SPI is not installed again");
                let (counted, highest, grant) = (grant.counted, grant.highest, grant.clone());
                let ceiling = grant.allowed.max(counted);
                let (seen, second_holder, draining) = (BTreeMap::new(), false, false);
                self.table.insert(key, Entry { grant, counted, ceiling, highest, seen, second_holder, draining });
            }
            Command::Update { allowed, expires_at, .. } => {
                let entry = self.table.get_mut(&key).ok_or("no such permission")?;
                self.between.remove(&key.0);
                if *allowed > entry.grant.allowed {
                    self.held.remove(&key.0);
                }
                (entry.grant.allowed, entry.grant.expires_at) = (*allowed, *expires_at);
                entry.ceiling = entry.counted.max(*allowed);
            }
            Command::Remove { spi, .. } if self.stubborn || self.sticks == Some(*spi) => return Err("worker gone"),
            Command::Remove { .. } => {
                self.between.remove(&key.0);
                self.table.remove(&key);
            }
            Command::Route { flow, path, waits, .. } => {
                self.ways.remove(flow);
                self.ways.extend((*path != PathId::ROUTED).then_some((*flow, *path)));
                self.between.remove(flow);
                self.between.extend(waits.then_some(*flow));
            }
            Command::Drain { until, .. } => {
                let entry = self.table.get_mut(&key).ok_or("no such permission")?;
                entry.draining = true;
                entry.grant.expires_at = entry.grant.expires_at.min(*until);
            }
            Command::Snapshot { .. } if self.previous.contains_key(&key) => {}
            Command::Compare { .. } | Command::Snapshot { .. } => drop(self.table.get(&key).ok_or("no such permission")?),
            Command::Expect { flow, .. } => drop(self.held.insert(*flow)),
            Command::ReleaseHeld { flow, .. } | Command::DropHeld { flow, .. } => drop(self.held.remove(flow)),
        }
        Ok(())
    }

    /// Whether it may lag behind what it is told: then what waits for it has not gone on either.
    pub(crate) fn lags(&self) -> bool {
        self.stalled || self.stubborn || self.full || self.sticks.is_some()
    }

    /// An application's packet at the sender.
    pub(crate) fn send(&mut self, flow: FlowId, length: u64, now: Instant) -> Fate {
        let entry = self.table.iter_mut().find(|((of, _), entry)| *of == flow && entry.grant.expires_at > now);
        let Some(((_, spi), entry)) = entry else {
            if self.held.insert(flow) {
                self.events.push_back(Event::FirstPacket { flow });
            }
            return Fate::Held;
        };
        let spi = *spi;
        if self.between.contains(&flow) {
            return Fate::Held;
        }
        if entry.counted + length > entry.grant.allowed {
            self.held.insert(flow);
            self.events.push_back(Event::OverBudget { flow, spi });
            return Fate::Held;
        }
        entry.counted += length;
        entry.highest += 1;
        let number = entry.highest;
        assert!(self.used.insert((spi, number)), "INV-07: number {number} twice under SPI {spi:#x}");
        Fate::Passed { spi, number }
    }

    /// A packet on its way or at its destination.
    pub(crate) fn verify(&mut self, flow: FlowId, spi: u32, number: u32, length: u64, now: Instant) -> bool {
        let Some(entry) = self.table.get_mut(&(flow, spi)) else {
            return false;
        };
        if entry.grant.expires_at <= now || number <= entry.grant.highest || entry.seen.contains_key(&number) {
            return false;
        }
        if entry.counted + length > entry.grant.allowed {
            self.events.push_back(Event::OverBudget { flow, spi });
            return false;
        }
        entry.counted += length;
        entry.highest = entry.highest.max(number);
        entry.seen.insert(number, (length, now));
        true
    }
}
