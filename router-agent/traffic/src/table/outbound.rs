//! Permissions at a sender, by flow.

use std::hash::{Hash, Hasher};

use smoltcp::time::Instant;

use super::ended::{Ended, Last};
use super::inbound::{FIRST_SPI, Key};
use super::{Deadlines, report_due};
use crate::algorithm::IcvKey;
use crate::flow::Flow;
use crate::icmp::Rates;
use crate::state::{Map, Micros};
use crate::update::{Applied, Grant, Refusal, Refused, Update};

/// The number from which on a sender asks for another epoch; the last one is 2³² − 1.
const NUMBERS_HALF_USED: u32 = 1 << 31;

/// One permission with its association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// SPI to send under.
    pub spi: u32,
    /// Key to send under.
    pub key: IcvKey,
    /// AV in bytes.
    pub allowed: u64,
    /// SV in bytes.
    pub counted: u64,
    /// Last sequence number used, 0 before the first.
    pub highest: u32,
    /// When it ends.
    pub expires_at: Instant,
    /// Whether the request for more was refused or not answered.
    pub renewal_refused: bool,
    /// Allowed volume whose near end has been reported.
    warned_about: Option<u64>,
    /// ICMP errors about its packets that may still be passed on.
    pub(crate) errors: Rates,
    /// Octets of the longest packet with AH: no true error is about a longer one.
    pub(crate) longest: u32,
    reported_at: Option<Instant>,
    /// Last state of the epoch before, for one more report.
    previous: Option<Final>,
}

/// What is left of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Final {
    spi: u32,
    counted: u64,
    highest: u32,
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Every field is named, so that a new one is not forgotten here.
        let Self { spi, key, allowed, counted, highest, expires_at, renewal_refused, warned_about, errors, longest, reported_at, previous } =
            self;
        (spi, key, allowed, counted, highest, expires_at.in_micros()).hash(state);
        (renewal_refused, warned_about, errors, longest, reported_at.in_micros(), previous).hash(state);
    }
}

impl Entry {
    /// Whether a report about this entry is due; if so, the next one is due a while later.
    pub fn take_report(&mut self, now: Instant) -> bool {
        let due = report_due(self.reported_at, now);
        if due {
            self.reported_at = Some(now);
        }
        due
    }

    /// Takes the next number. Whether it is the one from which on another epoch should be asked for.
    pub fn take_number(&mut self) -> bool {
        self.take_numbers(1)
    }

    /// The same for so many, one after the other.
    pub fn take_numbers(&mut self, count: u32) -> bool {
        let before = self.highest;
        self.highest = before.saturating_add(count);
        before < NUMBERS_HALF_USED && self.highest >= NUMBERS_HALF_USED
    }

    /// Whether three quarters of the allowed volume are used up and nobody has been told.
    pub fn take_warning(&mut self) -> bool {
        let nearly = self.counted >= self.allowed - self.allowed / 4;
        nearly && self.warned_about.replace(self.allowed) != Some(self.allowed)
    }

    fn now(&self) -> Final {
        Final { spi: self.spi, counted: self.counted, highest: self.highest }
    }
}

impl Final {
    const fn applied(self, token: u64) -> Applied {
        Applied::new(token, self.counted, self.highest)
    }
}

/// The table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundTable {
    capacity: usize,
    entries: Map<Flow, Entry>,
    deadlines: Deadlines<Flow>,
    /// Numbers go on where they ended: none is used twice under a key (INV-07).
    ended: Ended,
}

impl Hash for OutboundTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // When an entry is to be deleted says the entry.
        let Self { capacity, entries, deadlines: _, ended } = self;
        (capacity, entries, ended).hash(state);
    }
}

impl OutboundTable {
    /// An empty table of at most `capacity` permissions. Of as many that are gone, the end is remembered.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: Map::new(), deadlines: Deadlines::new(), ended: Ended::new(capacity) }
    }

    /// Number of permissions, ended ones that linger included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a flow.
    pub fn get_mut(&mut self, flow: &Flow) -> Option<&mut Entry> {
        self.entries.get_mut(flow)
    }

    /// Carries out an update of a permission.
    ///
    /// A new SPI takes over from the one before at once (make before break is the receiver's part, X-75); the last
    /// numbers of the epoch before can still be read under its SPI.
    ///
    /// # Errors
    ///
    /// See [`Refusal`]; the table is then as it was.
    pub fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        let token = update.token();
        let nothing = Applied::new(token, 0, 0);
        let refuse = |why| Refused { token, why };
        match update {
            Update::Install { grant, .. } => self.install(token, grant, now).map_err(refuse),
            Update::Update { flow, spi, allowed, expires_at, .. } => self.change(token, flow, spi, allowed, expires_at).map_err(refuse),
            Update::Snapshot { flow, spi, .. } | Update::Compare { flow, spi, .. } => {
                self.read(&flow, spi).map(|read| read.applied(token)).ok_or(refuse(Refusal::UnknownPermission))
            }
            Update::Remove { flow, spi, .. } => {
                let read = self.read(&flow, spi).map_or(nothing, |read| read.applied(token));
                if self.entries.get(&flow).is_some_and(|entry| entry.spi == spi) {
                    self.remove(&flow, now);
                }
                Ok(read)
            }
            Update::DropHeld { flow, .. } => {
                if let Some(entry) = self.entries.get_mut(&flow) {
                    entry.renewal_refused = true;
                }
                Ok(nothing)
            }
            // A sender does not drain: it stops using the old association.
            Update::Drain { .. } | Update::Expect { .. } | Update::ReleaseHeld { .. } | Update::Route { .. } => Ok(nothing),
        }
    }

    fn install(&mut self, token: u64, grant: Grant, now: Instant) -> Result<Applied, Refusal> {
        let Grant { flow, spi, key, allowed, counted, highest, expires_at } = grant;
        if spi < FIRST_SPI {
            return Err(Refusal::ReservedSpi);
        }
        let previous = match self.entries.get(&flow) {
            Some(known) if known.spi == spi && known.key != key => return Err(Refusal::KeyChanged),
            // The same association goes on counting and numbering: a number never repeats under a key (INV-07).
            Some(known) if known.spi == spi => return self.change(token, flow, spi, allowed, expires_at),
            Some(known) => Some(known.now()),
            None if self.entries.len() >= self.capacity => return Err(Refusal::TableFull),
            None => None,
        };
        self.remove(&flow, now);
        let Last { counted, highest } = self.ended.resume((flow.destination, spi), &key, Last { counted, highest });
        let entry = Entry {
            spi,
            key,
            allowed,
            counted,
            highest,
            expires_at,
            renewal_refused: false,
            warned_about: None,
            errors: Rates::default(),
            longest: 0,
            reported_at: None,
            previous,
        };
        let applied = entry.now().applied(token);
        self.entries.insert(flow, entry);
        self.deadlines.set(flow, expires_at);
        Ok(applied)
    }

    fn change(&mut self, token: u64, flow: Flow, spi: u32, allowed: u64, expires_at: Instant) -> Result<Applied, Refusal> {
        let entry = self.entries.get_mut(&flow).filter(|entry| entry.spi == spi).ok_or(Refusal::UnknownPermission)?;
        self.deadlines.clear(flow, entry.expires_at);
        self.deadlines.set(flow, expires_at);
        entry.allowed = allowed;
        entry.expires_at = expires_at;
        entry.renewal_refused = false;
        entry.reported_at = None;
        Ok(entry.now().applied(token))
    }

    /// Counter and number of this epoch or the one before.
    fn read(&self, flow: &Flow, spi: u32) -> Option<Final> {
        let entry = self.entries.get(flow)?;
        if entry.spi == spi { Some(entry.now()) } else { entry.previous.filter(|previous| previous.spi == spi) }
    }

    fn remove(&mut self, flow: &Flow, now: Instant) {
        if let Some(entry) = self.entries.remove(flow) {
            self.deadlines.clear(*flow, entry.expires_at);
            let at: Key = (flow.destination, entry.spi);
            self.ended.remember(at, &entry.key, Last { counted: entry.counted, highest: entry.highest }, now);
        }
    }

    /// Deletes what ended a while ago.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(flow) = self.deadlines.pop_due(now) {
            self.remove(&flow, now);
        }
        self.ended.handle_timeout(now);
    }

    /// When the next deletion is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}
