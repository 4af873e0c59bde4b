//! Permissions at a router or receiver, by destination address and SPI.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use smoltcp::time::Instant;

use super::carried::{Inside, Tunnels, is_tunnel};
use super::ended::{Ended, Last};
use super::entries::Entries;
pub use super::entries::Place;
pub use super::entry::Entry;
use super::entry::Seldom;
use crate::ah::InboundAssociation;
use crate::common::Common;
use crate::flow::Flow;
use crate::icmp::Kind;
use crate::ledger::Ledger;
use crate::replay::{Numbering, Window};
use crate::state::Aside;
use crate::update::{Applied, Grant, Refusal, Refused, Update};

/// At most one active and one draining association a flow (INV-09). With several workers each counts its own: signalling, whenever it lets
/// one drain, has the one before removed, so that there is one more only until the other worker has taken that.
const MAX_PER_FLOW: usize = 2;

/// First SPI that is not reserved (RFC 4302 §2.4, X-74).
pub(super) const FIRST_SPI: u32 = 256;

/// Destination address and SPI.
pub type Key = (IpAddr, u32);

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundTable {
    capacity: usize,
    window: Window,
    /// What each permission's ledger begins as, if there is to be one.
    ledger: Option<Ledger>,
    entries: Entries,
    /// How many of them verify signatures.
    signed: usize,
    /// Those with packets inside.
    tunnels: Tunnels,
    ended: Ended,
    /// What it has in common with the tables of other workers.
    common: Option<Aside<Arc<Common>>>,
}

impl Hash for InboundTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Whether an entry is one of those signed, says the entry.
        let Self { capacity, window, ledger, entries, signed: _, tunnels, ended, common: _ } = self;
        (capacity, window, ledger, entries, tunnels, ended).hash(state);
    }
}

impl InboundTable {
    /// An empty table of at most `capacity` permissions, each beginning with a copy of `window` and, at a receiver, of `ledger`. Of as many
    /// that are gone, the end is remembered.
    pub fn new(capacity: usize, window: Window, ledger: Option<Ledger>) -> Self {
        let (entries, tunnels, ended) = (Entries::default(), Tunnels::new(capacity), Ended::new(capacity));
        Self { capacity, window, ledger, entries, signed: 0, tunnels, ended, common: None }
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
        self.entries.len() == 0
    }

    /// The entry of an association.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    /// The same to look at.
    pub fn get(&self, key: Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Where the entries of many keys probably lie. All are fetched from memory at the same time: looked at one after the other, each would
    /// be waited for.
    pub fn locate(&self, keys: &[Option<Key>], places: &mut [Option<Place>]) {
        self.entries.locate(keys, places);
    }

    /// Has windows and keys of many entries fetched at the same time, which lie elsewhere.
    pub fn fetch(&self, places: &[Option<Place>]) {
        self.entries.fetch(places);
    }

    /// [`get`](Self::get) where [`locate`](Self::locate) has told the place.
    pub fn get_at(&self, place: Option<Place>, key: Key) -> Option<&Entry> {
        self.entries.get_at(place, key)
    }

    /// [`get_mut`](Self::get_mut) where [`locate`](Self::locate) has told the place.
    pub fn get_mut_at(&mut self, place: Option<Place>, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut_at(place, key)
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
            || self.entries.get_mut(key).is_some_and(|entry| entry.seldom.errors.take(kind, now))
    }

    /// Whether any association belongs to this flow; be it another worker's.
    pub fn covers(&self, flow: &Flow) -> bool {
        self.entries.of_flow(flow).next().is_some() || self.common.as_ref().is_some_and(|common| common.covers(flow))
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
                    entry.let_report();
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
                let entry = self.entries.get(key).ok_or(refuse(Refusal::UnknownPermission))?;
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
        if let Some(known) = self.entries.get(at) {
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
        let is_second = self.entries.of_flow(&flow).next().is_some();
        let entry = Entry {
            flow,
            association,
            allowed,
            counted,
            expires_at,
            draining: false,
            is_second,
            peak: allowed,
            ledger: self.ledger.clone().map(Box::new),
            seldom: Seldom::default(),
            longest: 0,
        };
        let applied = entry.applied(token);
        let is_signed = entry.association.key().weight().is_some();
        self.signed += usize::from(is_signed);
        self.entries.insert(entry);
        if let Some(common) = &self.common {
            if !is_second {
                common.cover(flow);
            }
            if is_signed {
                common.add_signed();
            }
        }
        if is_tunnel(flow.protocol) {
            self.tunnels.open(flow.source, at);
        }
        Ok(applied)
    }

    /// A third association of one flow ends the draining one early; nothing else ever makes room.
    fn make_room(&mut self, flow: &Flow, now: Instant) -> Result<(), Refusal> {
        if self.entries.of_flow(flow).count() >= MAX_PER_FLOW {
            let draining = self.entries.of_flow(flow).find(|entry| entry.draining).map(Entry::key);
            self.remove(draining.ok_or(Refusal::TableFull)?, now);
        }
        if self.entries.len() < self.capacity { Ok(()) } else { Err(Refusal::TableFull) }
    }

    fn change(&mut self, token: u64, flow: Flow, spi: u32, change: impl FnOnce(&mut Entry)) -> Result<Applied, Refusal> {
        let key = self.owned(&flow, spi).ok_or(Refusal::UnknownPermission)?;
        self.entries.change(key, change).map(|entry| entry.applied(token)).ok_or(Refusal::UnknownPermission)
    }

    /// The key of an entry, if it is this flow's.
    fn owned(&self, flow: &Flow, spi: u32) -> Option<Key> {
        let key = (flow.destination, spi);
        self.entries.get(key).filter(|entry| entry.flow == *flow).map(|_| key)
    }

    fn remove(&mut self, key: Key, now: Instant) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        let is_signed = entry.association.key().weight().is_some();
        self.signed -= usize::from(is_signed);
        if let Some(common) = self.common.as_ref().filter(|_| is_signed) {
            common.remove_signed();
        }
        self.ended.remember(key, entry.association.key(), entry.last(), now);
        let left = self.entries.of_flow(&entry.flow).next().map(Entry::key);
        if let Some(left) = left {
            self.entries.change(left, |left| left.is_second = false);
        } else if let Some(common) = &self.common {
            common.uncover(&entry.flow);
        }
        if is_tunnel(entry.flow.protocol) {
            self.tunnels.close(entry.flow.source, key);
        }
        Some(entry)
    }

    /// Deletes what ended a while ago.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, key)) = self.entries.first_due()
            && at <= now
        {
            self.remove(key, now);
        }
        self.ended.handle_timeout(now);
    }

    /// When the next deletion is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.entries.first_due().map(|(at, _)| at)
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
