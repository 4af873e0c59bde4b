//! What a router keeps of one session.

use core::fmt;
use core::time::Duration;

use gist::api::{Principal, SendMessage};
use gist::time::Instant;
use gist::wire::Mri;

use super::copies::Copy;
use super::table::State;
use crate::association::Association;
use crate::credentials::{CertificatePath, sha256};
use crate::datapath::{SourceKey, Token};
use crate::shares::Owner;
use crate::wire::{Query, Signed, Volume, VolumeContext};

/// A session from the first Query on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) state: State,
    /// What the flow's source has signed.
    pub(super) asked: Option<Asked>,
    /// What the flow's destination has signed.
    pub(super) granted: Option<Granted>,
    /// The epoch that runs out.
    pub(super) draining: Option<Draining>,
    /// The Permission that goes on when the packet side has acknowledged it.
    pub(super) held: Option<Held>,
    /// When a copy of a message was sent to a new peer last.
    pub(super) repaired: Option<Instant>,
    /// Whose share of the table it takes up.
    pub(super) owner: Owner,
    /// Whether it takes up a part of the owner's share of the pending table too.
    pub(super) is_pending: bool,
    /// AV as it is counted for the hosts of the flow.
    pub(super) reserved: u64,
}

/// An old epoch that still lets packets pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Draining {
    pub(super) spi: u32,
    /// When it ends: after the time that the Permission names, and never later than it would have ended anyway.
    pub(super) until: Instant,
}

/// A Permission and the command that it waits for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) token: Token,
    pub(super) message: SendMessage,
}

impl fmt::Debug for Held {
    /// Leaves the message out: it contains the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("token", &self.token).finish_non_exhaustive()
    }
}

/// What is kept of the newest Query: whoever has a certificate can make a router keep one for each flow, so nothing that is
/// long but the copy, which has a bound for all flows together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) key_hash: [u8; 32],
    pub(super) path: CertificatePath,
    /// With what the source would sign its packets (Solution 3).
    pub(super) source: Option<SourceKey>,
    pub(super) number: u32,
    /// SV.
    pub(super) sent: Option<Volume>,
    pub(super) context: Option<VolumeContext>,
    /// SHA-256 of the bytes received, to recognise them.
    pub(super) digest: [u8; 32],
    pub(super) upstream: Principal,
    /// Downstream.
    pub(super) mri: Mri,
    /// The message itself, if there was room for it.
    pub(super) copy: Option<Copy>,
}

/// The newest Permission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Granted {
    pub(super) key_hash: [u8; 32],
    pub(super) path: CertificatePath,
    pub(super) number: u32,
    pub(super) association: Association,
    pub(super) allowed: Volume,
    pub(super) refresh: Duration,
    pub(super) downstream: Principal,
    /// Upstream.
    pub(super) mri: Mri,
    /// The message itself, if there was room for it.
    pub(super) copy: Option<Copy>,
}

impl Session {
    pub(super) fn new(state: State, owner: Owner) -> Self {
        Self { state, asked: None, granted: None, draining: None, held: None, repaired: None, owner, is_pending: false, reserved: 0 }
    }

    /// Where the counted volume of an epoch starts: what the source says it has sent in it already.
    pub(super) fn base(&self, association: &Association) -> u64 {
        let Some(asked) = &self.asked else {
            return 0;
        };
        let same_epoch = match asked.context {
            Some(context) => context.spi == association.spi(),
            None => !association.parameters.new_epoch,
        };
        asked.sent.filter(|_| same_epoch).map_or(0, |sent| sent.0)
    }

    /// Where the numbers of an epoch start: no packet up to the last one that the source says it has used in it is let through
    /// by a router that joins in mid-flow, or it would take a capture for the flow itself. Whoever says nothing of it may not
    /// know how (the object is not mandatory); then the first verified packet decides.
    pub(super) fn highest(&self, association: &Association) -> u32 {
        let context = self.asked.as_ref().and_then(|asked| asked.context);
        context.filter(|context| context.spi == association.spi()).map_or(0, |context| context.highest)
    }
}

impl Asked {
    /// Whether a Query is this one, byte for byte.
    pub(super) fn is(&self, signed: &Signed<Query>) -> bool {
        self.number == signed.message.number && self.digest == sha256(&signed.raw)
    }
}
