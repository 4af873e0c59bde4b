//! What a router keeps of one session.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use gist::api::SendMessage;
use gist::wire::{Mri, PeerIdentity};

use super::table::State;
use crate::association::Association;
use crate::datapath::Token;
use crate::wire::{Query, Volume};

/// A session from the first Query on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) state: State,
    /// What the flow's source has signed.
    pub(super) asked: Option<Asked>,
    /// What the flow's destination has signed.
    pub(super) granted: Option<Granted>,
    /// SPI of the epoch that runs out.
    pub(super) draining: Option<u32>,
    /// The Permission that goes on when the packet side has acknowledged it.
    pub(super) held: Option<Held>,
    /// The peer whose share of the pending table the session takes up.
    pub(super) pending_for: Option<PeerIdentity>,
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

/// The newest Query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) key_hash: [u8; 32],
    pub(super) query: Query,
    /// As received, to recognise it.
    pub(super) raw: Bytes,
    pub(super) upstream: PeerIdentity,
    /// Downstream.
    pub(super) mri: Mri,
}

/// The newest Permission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Granted {
    pub(super) key_hash: [u8; 32],
    pub(super) number: u32,
    pub(super) association: Association,
    pub(super) allowed: Volume,
    pub(super) refresh: Duration,
    pub(super) downstream: PeerIdentity,
    /// Upstream.
    pub(super) mri: Mri,
}

impl Session {
    pub(super) fn new(state: State) -> Self {
        Self { state, asked: None, granted: None, draining: None, held: None, pending_for: None }
    }

    /// Where the counted volume of an epoch starts: what the source says it has sent in it already.
    pub(super) fn base(&self, association: &Association) -> u64 {
        let Some(asked) = &self.asked else {
            return 0;
        };
        let same_epoch = match asked.query.context {
            Some(context) => context.spi == association.spi(),
            None => !association.parameters.new_epoch,
        };
        asked.query.sent.filter(|_| same_epoch).map_or(0, |sent| sent.0)
    }
}
