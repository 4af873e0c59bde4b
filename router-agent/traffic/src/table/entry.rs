//! One permission with its association, and what of it only few need.

use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

use smoltcp::time::Instant;

use super::ended::Last;
use super::inbound::Key;
use super::report_due;
use crate::ah::InboundAssociation;
use crate::budget::FlowLevels;
use crate::flow::Flow;
use crate::icmp::Rates;
use crate::ledger::Ledger;
use crate::state::Micros;
use crate::update::{Applied, Tally};

/// One permission with its association.
///
/// What a look-up compares and counts stands first and together, in the 64 octets that a processor fetches at once; behind it what checking
/// a number needs, and last what a packet that passes needs and few others (`entries` says where an entry begins).
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// The packets it covers.
    pub flow: Flow,
    /// CV in bytes.
    pub counted: u64,
    /// SPI, window, key.
    pub association: InboundAssociation,
    /// When it ends.
    pub expires_at: Instant,
    /// AV in bytes.
    pub allowed: u64,
    /// Highest AV up to now: below it this node has taken back what it had granted, and packets in flight are no attack.
    pub peak: u64,
    /// What was counted under which numbers; at a receiver only, which compares.
    pub ledger: Option<Box<Ledger>>,
    /// What is not needed as long as nothing is wrong.
    pub(crate) seldom: Seldom,
    /// Octets of its longest verified packet: no true error is about a longer one.
    pub(crate) longest: u32,
    /// Whether it belongs to an old epoch that runs out.
    pub draining: bool,
    /// Whether the flow had another association before it that is still there.
    pub(super) is_second: bool,
}

/// What an entry holds of what happens to few: takes up room of its own only once something has happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seldom(Option<Box<Happened>>);

/// What may have happened to a permission.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Happened {
    /// Whether two right ICVs came under one number (E4).
    pub(crate) second_holder: bool,
    /// Bytes of authenticated packets that came too late for the window, estimated (T3).
    pub(crate) late: u64,
    /// Signatures that may still be verified.
    pub(crate) signatures: FlowLevels,
    /// ICMP errors about its packets that may still be passed on.
    pub(crate) errors: Rates,
    reported_at: Option<Instant>,
    warned_at: Option<Instant>,
}

impl Happened {
    const NOTHING: Self =
        Self { second_holder: false, late: 0, signatures: FlowLevels::FULL, errors: Rates::FULL, reported_at: None, warned_at: None };
}

impl Deref for Seldom {
    type Target = Happened;

    fn deref(&self) -> &Happened {
        self.0.as_deref().unwrap_or(const { &Happened::NOTHING })
    }
}

impl DerefMut for Seldom {
    fn deref_mut(&mut self) -> &mut Happened {
        self.0.get_or_insert_default()
    }
}

/// Room in which nothing stands is as good as none.
impl PartialEq for Seldom {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Seldom {}

impl Hash for Seldom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Every field is named, so that a new one is not forgotten here.
        let Happened { second_holder, late, signatures, errors, reported_at, warned_at } = &**self;
        (second_holder, late, signatures, errors, reported_at.in_micros(), warned_at.in_micros()).hash(state);
    }
}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Every field is named, so that a new one is not forgotten here.
        let Self { flow, association, allowed, counted, expires_at, draining, is_second, peak, ledger, seldom, longest } = self;
        (flow, association, allowed, counted, expires_at.in_micros(), draining, is_second).hash(state);
        (peak, ledger, seldom, longest).hash(state);
    }
}

impl Entry {
    /// Destination and SPI, by which it is found.
    pub fn key(&self) -> Key {
        (self.flow.destination, self.association.spi())
    }

    /// Whether a line in the log about this entry is due; if so, the next one is due a while later.
    pub fn take_warning(&mut self, now: Instant) -> bool {
        let due = report_due(self.seldom.warned_at, now);
        if due {
            self.seldom.warned_at = Some(now);
        }
        due
    }

    /// Whether a report about this entry is due; if so, the next one is due a while later.
    pub fn take_report(&mut self, now: Instant) -> bool {
        let due = report_due(self.seldom.reported_at, now);
        if due {
            self.seldom.reported_at = Some(now);
        }
        due
    }

    /// The next report is due at once.
    pub(super) fn let_report(&mut self) {
        if self.seldom.reported_at.is_some() {
            self.seldom.reported_at = None;
        }
    }

    pub(super) fn applied(&self, token: u64) -> Applied {
        let Last { counted, highest } = self.last();
        Applied::new(token, counted, highest)
    }

    pub(super) fn tally(&self, up_to: u32, then: Instant) -> Tally {
        let covered = self.ledger.as_ref().and_then(|ledger| ledger.up_to(up_to));
        let ahead = self.ledger.as_ref().map_or(0, |ledger| ledger.ahead_of(up_to, then));
        Tally { covered, ahead, second_holder: self.seldom.second_holder, late: self.seldom.late }
    }

    pub(super) fn last(&self) -> Last {
        // Numbers are short here: PBS has no extended ones.
        let highest = u32::try_from(self.association.window().highest()).unwrap_or(u32::MAX);
        Last { counted: self.counted, highest }
    }

    /// Something of what a packet is compared with and counted in: who looks at it has that in the processor's cache.
    pub(super) fn touch(&self) -> u64 {
        u64::from(self.flow.protocol) ^ self.counted ^ u64::from(self.association.spi())
    }

    /// Something of window and key, the same way.
    pub(super) fn touch_association(&self) -> u64 {
        u64::from(self.longest) ^ self.association.touch()
    }
}
