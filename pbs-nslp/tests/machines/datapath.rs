//! The packet side of one node, reduced to what signalling sees of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event, Grant};
use pbs_nslp::flow::FlowId;

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) grant: Grant,
    pub(crate) counted: u64,
    pub(crate) highest: u32,
    /// Sequence numbers used at a sender start over with each SPI.
    pub(crate) draining: bool,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Passed { spi: u32, number: u32 },
    Held,
}

#[derive(Debug, Default)]
pub(crate) struct Datapath {
    pub(crate) is_sender: bool,
    pub(crate) table: BTreeMap<(FlowId, u32), Entry>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) held: BTreeSet<FlowId>,
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
}

impl Datapath {
    pub(crate) fn apply(&mut self, command: &Command) {
        let token = command.token();
        let key = match command {
            Command::Install { grant, .. } => (grant.flow, grant.spi),
            Command::Update { flow, spi, .. }
            | Command::Remove { flow, spi, .. }
            | Command::Drain { flow, spi, .. }
            | Command::Snapshot { flow, spi, .. } => (*flow, *spi),
            Command::Expect { flow, .. } | Command::ReleaseHeld { flow, .. } | Command::DropHeld { flow, .. } => (*flow, 0),
        };
        let before = self.table.get(&key).map_or((0, 0), |entry| (entry.counted, entry.highest));
        let result = self.carry_out(command, key);
        let (counted, highest) = self.table.get(&key).map_or(before, |entry| (entry.counted, entry.highest));
        let event = match result {
            Ok(()) => Event::Applied { token, counted, highest },
            Err(reason) => Event::Failed { token, reason: reason.to_owned() },
        };
        if self.stalled { self.waiting.push_back(event) } else { self.events.push_back(event) }
    }

    pub(crate) fn resume(&mut self) {
        self.stalled = false;
        self.events.append(&mut self.waiting);
    }

    fn carry_out(&mut self, command: &Command, key: (FlowId, u32)) -> Result<(), &'static str> {
        match command {
            Command::Install { .. } if self.full => return Err("the permission table is full"),
            Command::Install { grant, .. } => {
                if self.is_sender {
                    self.table.retain(|(flow, _), _| *flow != grant.flow);
                    self.held.remove(&grant.flow);
                }
                assert!(!self.table.contains_key(&key), "an installed SPI is not installed again");
                let (counted, grant) = (grant.counted, grant.clone());
                self.table.insert(key, Entry { grant, counted, highest: 0, draining: false });
            }
            Command::Update { allowed, expires_at, .. } => {
                let entry = self.table.get_mut(&key).ok_or("no such permission")?;
                if *allowed > entry.grant.allowed {
                    self.held.remove(&key.0);
                }
                (entry.grant.allowed, entry.grant.expires_at) = (*allowed, *expires_at);
            }
            Command::Remove { spi, .. } if self.stubborn || self.sticks == Some(*spi) => return Err("worker gone"),
            Command::Remove { .. } => drop(self.table.remove(&key)),
            Command::Drain { until, .. } => {
                let entry = self.table.get_mut(&key).ok_or("no such permission")?;
                entry.draining = true;
                entry.grant.expires_at = entry.grant.expires_at.min(*until);
            }
            Command::Snapshot { .. } => drop(self.table.get(&key).ok_or("no such permission")?),
            Command::Expect { flow, .. } => drop(self.held.insert(*flow)),
            Command::ReleaseHeld { flow, .. } | Command::DropHeld { flow, .. } => drop(self.held.remove(flow)),
        }
        Ok(())
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
        if entry.grant.expires_at <= now {
            return false;
        }
        if entry.counted + length > entry.grant.allowed {
            self.events.push_back(Event::OverBudget { flow, spi });
            return false;
        }
        entry.counted += length;
        entry.highest = entry.highest.max(number);
        true
    }
}
