//! Permissions at a router or receiver, by destination address and SPI.

use std::net::IpAddr;

use hashbrown::HashMap;
use smoltcp::time::Instant;

use super::{Deadlines, report_due};
use crate::ah::InboundAssociation;
use crate::flow::Flow;
use crate::replay::{Numbering, Window};
use crate::update::{Applied, Grant, Refusal, Refused, Update};

/// At most one active and one draining association a flow (INV-09).
const MAX_PER_FLOW: usize = 2;

/// First SPI that is not reserved (RFC 4302 §2.4, X-74).
pub(super) const FIRST_SPI: u32 = 256;

/// Destination address and SPI.
pub type Key = (IpAddr, u32);

/// One permission with its association.
#[derive(Debug)]
pub struct Entry {
    /// The packets it covers.
    pub flow: Flow,
    /// SPI, key, window.
    pub association: InboundAssociation,
    /// AV in bytes.
    pub allowed: u64,
    /// CV in bytes.
    pub counted: u64,
    /// When it ends.
    pub expires_at: Instant,
    /// Whether it belongs to an old epoch that runs out.
    pub draining: bool,
    /// Whether the last change of AV lowered it.
    pub lowered: bool,
    reported_at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl Entry {
    /// Whether a line in the log about this entry is due; if so, the next one is due a while later.
    pub fn take_warning(&mut self, now: Instant) -> bool {
        let due = report_due(self.warned_at, now);
        if due {
            self.warned_at = Some(now);
        }
        due
    }

    /// Whether a report about this entry is due; if so, the next one is due a while later.
    pub fn take_report(&mut self, now: Instant) -> bool {
        let due = report_due(self.reported_at, now);
        if due {
            self.reported_at = Some(now);
        }
        due
    }

    fn applied(&self, token: u64) -> Applied {
        // Numbers are short here: PBS has no extended ones.
        let highest = u32::try_from(self.association.window().highest()).unwrap_or(u32::MAX);
        Applied { token, counted: self.counted, highest }
    }
}

/// The table.
#[derive(Debug)]
pub struct InboundTable {
    capacity: usize,
    window: Window,
    entries: HashMap<Key, Entry>,
    /// SPIs of each flow, oldest first.
    by_flow: HashMap<Flow, Vec<u32>>,
    deadlines: Deadlines<Key>,
}

impl InboundTable {
    /// An empty table of at most `capacity` permissions, each beginning with a copy of `window`.
    pub fn new(capacity: usize, window: Window) -> Self {
        Self { capacity, window, entries: HashMap::new(), by_flow: HashMap::new(), deadlines: Deadlines::new() }
    }

    /// Number of permissions, ended ones that linger included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of an association.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    /// Whether any association belongs to this flow.
    pub fn covers(&self, flow: &Flow) -> bool {
        self.by_flow.contains_key(flow)
    }

    /// Carries out an update. What only senders know (held packets) is accepted and does nothing.
    ///
    /// # Errors
    ///
    /// See [`Refusal`]; the table is then as it was.
    pub fn apply(&mut self, update: Update) -> Result<Applied, Refused> {
        let token = update.token();
        let refuse = |why| Refused { token, why };
        match update {
            Update::Install { grant, .. } => self.install(token, grant).map_err(refuse),
            Update::Update { flow, spi, allowed, expires_at, .. } => {
                self.change(token, flow, spi, |entry| {
                    // An unchanged AV says nothing new about whether it was lowered.
                    if allowed != entry.allowed {
                        entry.lowered = allowed < entry.allowed;
                    }
                    entry.allowed = allowed;
                    entry.expires_at = expires_at;
                    entry.reported_at = None;
                })
                .map_err(refuse)
            }
            Update::Drain { flow, spi, until, .. } => self
                .change(token, flow, spi, |entry| {
                    entry.draining = true;
                    entry.expires_at = entry.expires_at.min(until);
                })
                .map_err(refuse),
            Update::Snapshot { flow, spi, .. } => self.change(token, flow, spi, |_| ()).map_err(refuse),
            Update::Remove { flow, spi, .. } => {
                let removed = self.owned(&flow, spi).and_then(|key| self.remove(key));
                Ok(removed.map_or(Applied { token, counted: 0, highest: 0 }, |entry| entry.applied(token)))
            }
            Update::Expect { .. } | Update::ReleaseHeld { .. } | Update::DropHeld { .. } => Ok(Applied { token, counted: 0, highest: 0 }),
        }
    }

    fn install(&mut self, token: u64, grant: Grant) -> Result<Applied, Refusal> {
        let Grant { flow, spi, key, allowed, counted, expires_at } = grant;
        if spi < FIRST_SPI {
            return Err(Refusal::ReservedSpi);
        }
        let at = (flow.destination, spi);
        if let Some(known) = self.entries.get(&at) {
            if known.flow != flow {
                return Err(Refusal::SpiTaken);
            }
            if *known.association.key() != key {
                return Err(Refusal::KeyChanged);
            }
            return self.apply(Update::Update { token, flow, spi, allowed, expires_at }).map_err(|refused| refused.why);
        }
        self.make_room(&flow)?;
        let association = InboundAssociation::new(spi, key, self.window.clone());
        let entry =
            Entry { flow, association, allowed, counted, expires_at, draining: false, lowered: false, reported_at: None, warned_at: None };
        let applied = entry.applied(token);
        self.entries.insert(at, entry);
        self.by_flow.entry(flow).or_default().push(spi);
        self.deadlines.set(at, expires_at);
        Ok(applied)
    }

    /// A third association of one flow ends the draining one early; nothing else ever makes room.
    fn make_room(&mut self, flow: &Flow) -> Result<(), Refusal> {
        let spis = self.by_flow.get(flow).map_or(&[][..], Vec::as_slice);
        if spis.len() >= MAX_PER_FLOW {
            let draining = |spi: &&u32| self.entries.get(&(flow.destination, **spi)).is_some_and(|entry| entry.draining);
            let spi = *spis.iter().find(draining).ok_or(Refusal::TableFull)?;
            self.remove((flow.destination, spi));
        }
        if self.entries.len() < self.capacity { Ok(()) } else { Err(Refusal::TableFull) }
    }

    fn change(&mut self, token: u64, flow: Flow, spi: u32, change: impl FnOnce(&mut Entry)) -> Result<Applied, Refusal> {
        let key = self.owned(&flow, spi).ok_or(Refusal::UnknownPermission)?;
        let entry = self.entries.get_mut(&key).ok_or(Refusal::UnknownPermission)?;
        let before = entry.expires_at;
        change(entry);
        if entry.expires_at != before {
            self.deadlines.clear(key, before);
            self.deadlines.set(key, entry.expires_at);
        }
        Ok(entry.applied(token))
    }

    /// The key of an entry, if it is this flow's.
    fn owned(&self, flow: &Flow, spi: u32) -> Option<Key> {
        let key = (flow.destination, spi);
        self.entries.get(&key).filter(|entry| entry.flow == *flow).map(|_| key)
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.deadlines.clear(key, entry.expires_at);
        if let Some(spis) = self.by_flow.get_mut(&entry.flow) {
            spis.retain(|spi| *spi != key.1);
            if spis.is_empty() {
                self.by_flow.remove(&entry.flow);
            }
        }
        Some(entry)
    }

    /// Deletes what ended a while ago.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.pop_due(now) {
            self.remove(key);
        }
    }

    /// When the next deletion is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

/// Window of an association without extended numbers.
///
/// # Errors
///
/// A size that [`Window::new`] refuses.
pub fn window(size: u32, keep_tags: bool) -> Result<Window, crate::replay::SizeError> {
    let window = Window::new(size, Numbering::Short)?;
    Ok(if keep_tags { window.with_tags() } else { window })
}
