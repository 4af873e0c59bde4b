//! Table updates: what the control side tells a packet processor, and what it answers.
//!
//! Every update carries the caller's token, which comes back in the answer; the caller forwards or sends a
//! Permission only after the answer (INV-11, P-144).

use std::fmt;

use smoltcp::time::{Duration, Instant};

use crate::algorithm::IcvKey;
use crate::flow::Flow;
use crate::ledger::Covered;

/// One change to the permission table of a packet processor.
#[derive(Debug, Clone)]
pub enum Update {
    /// Adds a permission with its security association. The same flow, SPI and key again is an [`Update::Update`]
    /// (idempotent, X-117); another key under a known SPI is refused. An association that was removed goes on where it
    /// ended if it comes back with the same key: neither its numbers nor its volume begin anew.
    Install {
        /// Comes back in the answer.
        token: u64,
        /// The permission.
        grant: Grant,
    },
    /// Changes how much and how long; key, counter and window stay (FN-22, FS-22).
    Update {
        /// Comes back in the answer.
        token: u64,
        /// The permission's flow.
        flow: Flow,
        /// The permission's SPI.
        spi: u32,
        /// New absolute allowed volume in bytes since the start of the epoch.
        allowed: u64,
        /// New end of the permission.
        expires_at: Instant,
    },
    /// Removes the permission and wipes its key. Removing what is not there succeeds.
    Remove {
        /// Comes back in the answer.
        token: u64,
        /// The permission's flow.
        flow: Flow,
        /// The permission's SPI.
        spi: u32,
    },
    /// Lets an old epoch run out: it stays valid for packets in flight, with its own volume, until `until`.
    Drain {
        /// Comes back in the answer.
        token: u64,
        /// The permission's flow.
        flow: Flow,
        /// SPI of the old epoch.
        spi: u32,
        /// When the old epoch ends at the latest.
        until: Instant,
    },
    /// Reads what a sender's volume is compared with, without changing anything (appendix E of the requirements; receiver only:
    /// elsewhere nothing beyond counter and highest number is known).
    Compare {
        /// Comes back in the answer.
        token: u64,
        /// The permission's flow.
        flow: Flow,
        /// The permission's SPI.
        spi: u32,
        /// The sender's last number N.
        up_to: u32,
        /// How much longer than data the Query that named it may have travelled.
        delay: Duration,
    },
    /// Reads counter and highest number without changing anything.
    Snapshot {
        /// Comes back in the answer.
        token: u64,
        /// The permission's flow.
        flow: Flow,
        /// The permission's SPI.
        spi: u32,
    },
    /// Signalling asks for this flow already: its packets are held without a further [`FirstPacket`]
    /// event until `until`, whatever the ask rules say (sender only; the reverse flow of X-57).
    ///
    /// [`FirstPacket`]: crate::event::Event::FirstPacket
    Expect {
        /// Comes back in the answer.
        token: u64,
        /// The flow asked for.
        flow: Flow,
        /// When the question is over at the latest.
        until: Instant,
    },
    /// Sends what is held for the flow as far as its permission allows (sender only; an install or update does it too).
    ReleaseHeld {
        /// Comes back in the answer.
        token: u64,
        /// The flow whose packets wait.
        flow: Flow,
    },
    /// Has the flow's packets leave by another way from now on (sender only): with that way's mark, see
    /// [`paths`](crate::paths).
    Route {
        /// Comes back in the answer.
        token: u64,
        /// The flow.
        flow: Flow,
        /// The way, 0 for wherever routing leads.
        path: u8,
        /// Whether its packets are held until the permission is installed, updated or removed.
        waits: bool,
    },
    /// Drops what is held for the flow: it was refused or nobody answered (sender only; FS-06, FS-10, FS-42).
    DropHeld {
        /// Comes back in the answer.
        token: u64,
        /// The flow whose packets wait.
        flow: Flow,
    },
}

impl Update {
    /// The association that it is about, or none if it is about a flow before its packets have any.
    pub const fn association(&self) -> Option<(&Flow, u32)> {
        match self {
            Update::Install { grant, .. } => Some((&grant.flow, grant.spi)),
            Update::Update { flow, spi, .. }
            | Update::Remove { flow, spi, .. }
            | Update::Drain { flow, spi, .. }
            | Update::Compare { flow, spi, .. }
            | Update::Snapshot { flow, spi, .. } => Some((flow, *spi)),
            Update::Expect { .. } | Update::ReleaseHeld { .. } | Update::Route { .. } | Update::DropHeld { .. } => None,
        }
    }

    /// The caller's token.
    pub const fn token(&self) -> u64 {
        match self {
            Update::Install { token, .. }
            | Update::Update { token, .. }
            | Update::Remove { token, .. }
            | Update::Drain { token, .. }
            | Update::Compare { token, .. }
            | Update::Snapshot { token, .. }
            | Update::Expect { token, .. }
            | Update::ReleaseHeld { token, .. }
            | Update::Route { token, .. }
            | Update::DropHeld { token, .. } => *token,
        }
    }
}

/// A permission as the packet side needs it.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Which packets it covers.
    pub flow: Flow,
    /// The receiver's SPI, 256 or higher.
    pub spi: u32,
    /// Algorithm and key of the ICV.
    pub key: IcvKey,
    /// Allowed volume AV in bytes, absolute since the start of the epoch.
    pub allowed: u64,
    /// Start value of the counted volume in bytes (X-44: the SV of the Query at a router, 0 elsewhere).
    pub counted: u64,
    /// Highest sequence number used before (X-39, X-71: the N of the Query at a router, 0 elsewhere). Where the association is
    /// new, no number up to it is let through; where it is there already, its window says more and stays.
    pub highest: u32,
    /// When the permission ends.
    pub expires_at: Instant,
}

/// An update has been carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The caller's token.
    pub token: u64,
    /// Counted volume in bytes (CV; at a sender SV) after the update, for a removal the final one; 0 if there is no entry.
    pub counted: u64,
    /// Highest sequence number verified (at a sender: used) so far, or the one the association began after; 0 before the first.
    pub highest: u32,
    /// The answer to [`Update::Compare`].
    pub tally: Option<Tally>,
}

impl Applied {
    /// An answer that compares nothing.
    pub const fn new(token: u64, counted: u64, highest: u32) -> Self {
        Self { token, counted, highest, tally: None }
    }
}

/// What the packet side knows beyond the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How much was counted up to the number asked for; `None` if that is no longer known.
    pub covered: Option<Covered>,
    /// Bytes under numbers beyond it that had come even before the delay.
    pub ahead: u64,
    /// Whether two right ICVs came under one number (E4, X-42).
    pub second_holder: bool,
    /// Bytes of authenticated packets that came too late for the window and are no copies, estimated from a sample (T3).
    pub late: u64,
}

/// An update could not be carried out; the table is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The caller's token.
    pub token: u64,
    /// Why not.
    pub why: Refusal,
}

/// Why an update was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The table has reached its cap; no entry makes room for another (INV-12).
    TableFull,
    /// This destination and SPI belong to another flow (FN-06, X-73).
    SpiTaken,
    /// The same SPI with another key or algorithm.
    KeyChanged,
    /// There is no such permission.
    UnknownPermission,
    /// There is no such way out.
    UnknownPath,
    /// The SPI lies in the range that RFC 4302 §2.4 reserves (0–255).
    ReservedSpi,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::TableFull => "the permission table is full",
            Refusal::SpiTaken => "the SPI belongs to another flow",
            Refusal::KeyChanged => "the SPI is known with another key",
            Refusal::UnknownPermission => "no such permission",
            Refusal::UnknownPath => "there is no such way out",
            Refusal::ReservedSpi => "the SPI is reserved (0-255)",
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "update {} refused: {}", self.token, self.why)
    }
}

impl std::error::Error for Refused {}
