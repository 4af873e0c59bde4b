//! Permissions at a router or receiver, by destination address and SPI.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use smoltcp::time::Instant;

use super::carried::{Inside, Tunnels, is_tunnel};
use super::ended::{Ended, Last};
use super::{Deadlines, report_due};
use crate::ah::InboundAssociation;
use crate::budget::FlowLevels;
use crate::common::Common;
use crate::flow::Flow;
use crate::icmp::{Kind, Rates};
use crate::ledger::Ledger;
use crate::replay::{Numbering, Window};
use crate::state::{Aside, Map, Micros};
use crate::update::{Applied, Grant, Refusal, Refused, Tally, Update};

/// At most one active and one draining association a flow (INV-09).
const MAX_PER_FLOW: usize = 2;

/// First SPI that is not reserved (RFC 4302 §2.4, X-74).
pub(super) const FIRST_SPI: u32 = 256;

/// Destination address and SPI.
pub type Key = (IpAddr, u32);

/// One permission with its association.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// Highest AV up to now: below it this node has taken back what it had granted, and packets in flight are no attack.
    pub peak: u64,
    /// What was counted under which numbers; at a receiver only, which compares.
    pub ledger: Option<Ledger>,
    /// Whether two right ICVs came under one number (E4).
    pub second_holder: bool,
    /// Bytes of authenticated packets that came too late for the window, estimated (T3).
    pub late: u64,
    /// Signatures that may still be verified.
    pub(crate) signatures: FlowLevels,
    /// ICMP errors about its packets that may still be passed on.
    pub(crate) errors: Rates,
    /// Octets of its longest verified packet: no true error is about a longer one.
    pub(crate) longest: u32,
    reported_at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Every field is named, so that a new one is not forgotten here.
        let Self {
            flow,
            association,
            allowed,
            counted,
            expires_at,
            draining,
            peak,
            ledger,
            second_holder,
            late,
            signatures,
            errors,
            longest,
            reported_at,
            warned_at,
        } = self;
        (flow, association, allowed, counted, expires_at.in_micros(), draining, peak, ledger).hash(state);
        (second_holder, late, signatures, errors, longest, reported_at.in_micros(), warned_at.in_micros()).hash(state);
    }
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
        let Last { counted, highest } = self.last();
        Applied::new(token, counted, highest)
    }

    fn tally(&self, up_to: u32, then: Instant) -> Tally {
        let covered = self.ledger.as_ref().and_then(|ledger| ledger.up_to(up_to));
        let ahead = self.ledger.as_ref().map_or(0, |ledger| ledger.ahead_of(up_to, then));
        Tally { covered, ahead, second_holder: self.second_holder, late: self.late }
    }

    fn last(&self) -> Last {
        // Numbers are short here: PBS has no extended ones.
        let highest = u32::try_from(self.association.window().highest()).unwrap_or(u32::MAX);
        Last { counted: self.counted, highest }
    }
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundTable {
    capacity: usize,
    window: Window,
    /// What each permission's ledger begins as, if there is to be one.
    ledger: Option<Ledger>,
    entries: Map<Key, Entry>,
    /// How many of them verify signatures.
    signed: usize,
    /// SPIs of each flow, oldest first.
    by_flow: Map<Flow, Vec<u32>>,
    /// Those with packets inside.
    tunnels: Tunnels,
    deadlines: Deadlines<Key>,
    ended: Ended,
    /// What it has in common with the tables of other workers.
    common: Option<Aside<Arc<Common>>>,
}

impl Hash for InboundTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // When an entry is to be deleted, and whether it is one of those signed, says the entry.
        let Self { capacity, window, ledger, entries, signed: _, by_flow, tunnels, deadlines: _, ended, common: _ } = self;
        (capacity, window, ledger, entries, by_flow, tunnels, ended).hash(state);
    }
}

impl InboundTable {
    /// An empty table of at most `capacity` permissions, each beginning with a copy of `window` and, at a receiver, of `ledger`. Of as many that are gone, the
    /// end is remembered.
    pub fn new(capacity: usize, window: Window, ledger: Option<Ledger>) -> Self {
        let (entries, by_flow, tunnels) = (Map::new(), Map::new(), Tunnels::new(capacity));
        let (deadlines, ended) = (Deadlines::new(), Ended::new(capacity));
        Self { capacity, window, ledger, entries, signed: 0, by_flow, tunnels, deadlines, ended, common: None }
    }

    /// The same empty table as that of one of several workers. A clone of it would count its permissions twice: none is made.
    #[must_use]
    pub fn sharing(self, common: Arc<Common>) -> Self {
        Self { common: Some(Aside(common)), ..self }
    }

    /// Number of permissions, ended ones that linger included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of those whose packets are signed; with those of other workers.
    pub fn signed(&self) -> usize {
        self.common.as_ref().map_or(self.signed, |common| common.signed())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of an association.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    /// The same to look at.
    pub fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    /// Takes note of what a verified packet of a tunnel holds.
    pub(crate) fn note_inside(&mut self, tunnel: Key, sender: IpAddr, inner: &[u8]) {
        self.tunnels.note(tunnel, sender, inner);
    }

    /// The tunnel in which a packet from `source` with this destination and SPI was, and what is known of the flow inside.
    pub(crate) fn tunnel_of(&self, source: IpAddr, flow: Key) -> Option<(Key, Inside)> {
        self.tunnels.find(source, flow)
    }

    /// Whether one more error about a permission's packets may be passed on now, or about those of a flow `inside`: of these one a second
    /// about size in any case, and more among those of the permission itself.
    pub(crate) fn take_error(&mut self, key: Key, inside: Option<Key>, kind: Kind, now: Instant) -> bool {
        inside.is_some_and(|flow| self.tunnels.take_error(key, flow, kind, now))
            || self.entries.get_mut(&key).is_some_and(|entry| entry.errors.take(kind, now))
    }

    /// Whether any association belongs to this flow; be it another worker's.
    pub fn covers(&self, flow: &Flow) -> bool {
        self.by_flow.contains_key(flow) || self.common.as_ref().is_some_and(|common| common.covers(flow))
    }

    /// Carries out an update. What only senders know (held packets) is accepted and does nothing.
    ///
    /// # Errors
    ///
    /// See [`Refusal`]; the table is then as it was.
    pub fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        let token = update.token();
        let refuse = |why| Refused { token, why };
        match update {
            Update::Install { grant, .. } => self.install(token, grant, now).map_err(refuse),
            Update::Update { flow, spi, allowed, expires_at, .. } => self
                .change(token, flow, spi, |entry| {
                    entry.allowed = allowed;
                    entry.peak = entry.peak.max(allowed);
                    entry.expires_at = expires_at;
                    entry.reported_at = None;
                })
                .map_err(refuse),
            Update::Drain { flow, spi, until, .. } => self
                .change(token, flow, spi, |entry| {
                    entry.draining = true;
                    entry.expires_at = entry.expires_at.min(until);
                })
                .map_err(refuse),
            Update::Snapshot { flow, spi, .. } => self.change(token, flow, spi, |_| ()).map_err(refuse),
            Update::Compare { flow, spi, up_to, delay, .. } => {
                let key = self.owned(&flow, spi).ok_or(refuse(Refusal::UnknownPermission))?;
                let entry = self.entries.get(&key).ok_or(refuse(Refusal::UnknownPermission))?;
                Ok(Applied { tally: Some(entry.tally(up_to, now - delay)), ..entry.applied(token) })
            }
            Update::Remove { flow, spi, .. } => {
                let removed = self.owned(&flow, spi).and_then(|key| self.remove(key, now));
                Ok(removed.map_or(Applied::new(token, 0, 0), |entry| entry.applied(token)))
            }
            Update::Expect { .. } | Update::ReleaseHeld { .. } | Update::Route { .. } | Update::DropHeld { .. } => {
                Ok(Applied::new(token, 0, 0))
            }
        }
    }

    fn install(&mut self, token: u64, grant: Grant, now: Instant) -> Result<Applied, Refusal> {
        let Grant { flow, spi, key, allowed, counted, highest, expires_at } = grant;
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
            return self.apply(Update::Update { token, flow, spi, allowed, expires_at }, now).map_err(|refused| refused.why);
        }
        self.make_room(&flow, now)?;
        let Last { counted, highest } = self.ended.resume(at, &key, Last { counted, highest });
        let association = InboundAssociation::new(spi, key, self.window.clone().starting_after(highest.into()));
        let entry = Entry {
            flow,
            association,
            allowed,
            counted,
            expires_at,
            draining: false,
            peak: allowed,
            ledger: self.ledger.clone(),
            second_holder: false,
            late: 0,
            signatures: FlowLevels::default(),
            errors: Rates::default(),
            longest: 0,
            reported_at: None,
            warned_at: None,
        };
        let applied = entry.applied(token);
        let is_signed = entry.association.key().weight().is_some();
        self.signed += usize::from(is_signed);
        self.entries.insert(at, entry);
        let spis = self.by_flow.entry(flow).or_default();
        spis.push(spi);
        if let Some(common) = &self.common {
            if spis.len() == 1 {
                common.cover(flow);
            }
            if is_signed {
                common.add_signed();
            }
        }
        if is_tunnel(flow.protocol) {
            self.tunnels.open(flow.source, at);
        }
        self.deadlines.set(at, expires_at);
        Ok(applied)
    }

    /// A third association of one flow ends the draining one early; nothing else ever makes room.
    fn make_room(&mut self, flow: &Flow, now: Instant) -> Result<(), Refusal> {
        let spis = self.by_flow.get(flow).map_or(&[][..], Vec::as_slice);
        if spis.len() >= MAX_PER_FLOW {
            let draining = |spi: &&u32| self.entries.get(&(flow.destination, **spi)).is_some_and(|entry| entry.draining);
            let spi = *spis.iter().find(draining).ok_or(Refusal::TableFull)?;
            self.remove((flow.destination, spi), now);
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

    fn remove(&mut self, key: Key, now: Instant) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        let is_signed = entry.association.key().weight().is_some();
        self.signed -= usize::from(is_signed);
        if let Some(common) = self.common.as_ref().filter(|_| is_signed) {
            common.remove_signed();
        }
        self.ended.remember(key, entry.association.key(), entry.last(), now);
        self.deadlines.clear(key, entry.expires_at);
        if let Some(spis) = self.by_flow.get_mut(&entry.flow) {
            spis.retain(|spi| *spi != key.1);
            if spis.is_empty() {
                self.by_flow.remove(&entry.flow);
                if let Some(common) = &self.common {
                    common.uncover(&entry.flow);
                }
            }
        }
        if is_tunnel(entry.flow.protocol) {
            self.tunnels.close(entry.flow.source, key);
        }
        Some(entry)
    }

    /// Deletes what ended a while ago.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(key) = self.deadlines.pop_due(now) {
            self.remove(key, now);
        }
        self.ended.handle_timeout(now);
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
