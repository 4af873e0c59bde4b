//! What a receiver keeps of one session.

use std::collections::VecDeque;

use gist::api::{Principal, SendMessage};
use gist::time::Instant;
use gist::wire::Mri;

use super::algorithms::Accepted;
use super::former::Former;
use super::policy::{Change, Terms};
use super::table::State;
use super::watch::Watch;
use crate::credentials::CertificatePath;
use crate::datapath::{Protection, SourceKey, Token};
use crate::node::SessionKey;
use crate::report::{Denial, Rekey};
use crate::wire::number::is_newer;
use crate::wire::{Query, Volume, VolumeContext};

/// Former epochs whose SPIs are remembered: more cannot begin while a Query is under way.
pub(super) const PAST_LIMIT: usize = 8;

/// Octets of a signature that nobody guesses.
pub(super) const MARK: usize = 32;

/// Permissions that the log goes back to; a sender names the last one it has.
const LOG_LIMIT: usize = 16;

/// A session from the first Query on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) state: State,
    /// The sender's key.
    pub(super) key_hash: [u8; 32],
    /// The certificates by which the newest Query was believed.
    pub(super) path: CertificatePath,
    /// The newest Query.
    pub(super) query: Asked,
    /// The Query that is being compared, if a newer one has come in its grace time (FR-37); until the next that is compared itself.
    pub(super) compared: Option<Asked>,
    /// Whose message it was.
    pub(super) peer: Principal,
    /// The beginning of its signature: who shows it has a copy of it.
    pub(super) mark: Option<[u8; MARK]>,
    /// Whether it came by another peer than the one before, which itself had not (FR-39).
    pub(super) moved: bool,
    /// When the last hop was repaired last.
    pub(super) repaired: Option<Instant>,
    /// Who sent the first one; the session takes up a part of its share of the table.
    pub(super) owner: Principal,
    /// Upstream.
    pub(super) mri: Mri,
    /// What was decided.
    pub(super) terms: Option<Terms>,
    /// What was changed since by order, which nothing but another order undoes (FR-17).
    pub(super) amended: Change,
    /// Why it was refused, for people.
    pub(super) denial: Option<Denial>,
    /// AV.
    pub(super) allowed: Volume,
    /// Highest AV of the epoch up to now: below it this receiver has taken back what it had granted (FR-27).
    pub(super) peak: Volume,
    pub(super) epoch: Option<Epoch>,
    /// SPI of the epoch that runs out.
    pub(super) draining: Option<u32>,
    /// The epoch before, for one more comparison.
    pub(super) former: Option<Former>,
    /// SPIs of the last epochs before: a Query that names one was under way when it was replaced.
    pub(super) past: VecDeque<u32>,
    /// Another epoch is to begin as soon as possible (FR-18).
    pub(super) rekey: Option<Rekey>,
    /// Whether the packet side has yet to hear of a change.
    pub(super) changed: bool,
    /// Whether the next Permission asks for another path (Solution 4).
    pub(super) other_path: bool,
    /// AV of the epoch to begin, if it takes over from one under attack (FR-40).
    pub(super) unused: Option<Volume>,
    /// With what the sender would sign its packets (Solution 3).
    pub(super) source: Option<SourceKey>,
    /// Number of the Query answered last; another answer to it would be none.
    pub(super) answered: Option<u32>,
    /// Comparisons up to now.
    pub(super) watch: Watch,
    /// The command whose answer is waited for.
    pub(super) pending: Option<(Token, Pending)>,
    /// The permissions sent, with what had been counted before.
    pub(super) log: VecDeque<Sent>,
}

/// What is kept of a Query: whoever may ask can make a receiver keep one for each flow, so nothing that is long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) number: u32,
    /// RV.
    pub(super) requested: Option<Volume>,
    /// SV.
    pub(super) sent: Option<Volume>,
    pub(super) context: Option<VolumeContext>,
    /// How its packets may be authenticated.
    pub(super) accepted: Accepted,
}

impl From<&Query> for Asked {
    fn from(query: &Query) -> Self {
        Self { number: query.number, requested: query.requested, sent: query.sent, context: query.context, accepted: Accepted::of(query) }
    }
}

/// The life of one SPI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Epoch {
    pub(super) spi: u32,
    pub(super) protection: Protection,
    /// CV when the packet side last told it.
    pub(super) counted: Volume,
    /// H when the packet side last told it.
    pub(super) highest: u32,
    pub(super) began_at: Instant,
    /// Whether a Query of the sender has named it, so that it has begun there: no Permission has to say so any more.
    pub(super) confirmed: bool,
    /// Number of its first Permission.
    pub(super) first: Option<u32>,
}

/// What the answer of the packet side is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pending {
    /// To send the first Permission of an epoch.
    Installed,
    /// To compare.
    Counted,
    /// To compare once more, after the grace time.
    Recounted,
    /// To begin another epoch (FR-18).
    Volume,
    /// To begin an epoch with what another one, whose allowed volume is this now, has been made to leave.
    Shared {
        /// The other one.
        spi: u32,
        /// Its AV from now on.
        allowed: Volume,
    },
    /// To send a Permission that answers the newest Query.
    Answer,
    /// To send a Permission that nobody asked for.
    Announcement,
}

/// A Permission sent, and the counter before it was handed to GIST (appendix E).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Sent {
    pub(super) number: u32,
    pub(super) counted: Volume,
    pub(super) highest: u32,
}

/// What happens when a flow's removals are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Then {
    /// The denial leaves.
    Deny(Box<Farewell>),
    /// It is known what former epochs have counted, and another may begin.
    Begin(SessionKey),
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Farewell {
    pub(super) key: SessionKey,
    pub(super) denial: SendMessage,
    /// The Query that gave the permission back, for the last comparison.
    pub(super) release: Option<Asked>,
}

impl Session {
    pub(super) fn new(state: State, (key_hash, path): ([u8; 32], CertificatePath), query: Asked, peer: Principal, mri: Mri) -> Self {
        Self {
            state,
            key_hash,
            path,
            query,
            compared: None,
            peer,
            mark: None,
            moved: false,
            repaired: None,
            owner: peer,
            mri,
            terms: None,
            amended: Change::default(),
            denial: None,
            allowed: Volume::ZERO,
            peak: Volume::ZERO,
            epoch: None,
            draining: None,
            former: None,
            past: VecDeque::new(),
            rekey: None,
            changed: false,
            source: None,
            answered: None,
            watch: Watch::default(),
            other_path: false,
            unused: None,
            pending: None,
            log: VecDeque::new(),
        }
    }

    /// The Query that is held against the counter.
    pub(super) fn claim(&self) -> &Asked {
        self.compared.as_ref().unwrap_or(&self.query)
    }

    /// Whether the Query to be compared reports about the live epoch.
    pub(super) fn is_comparable(&self) -> bool {
        self.is_about_epoch(self.claim())
    }

    /// Whether a Query reports about the live epoch. Without Vol-Context it is taken to.
    pub(super) fn is_about_epoch(&self, query: &Asked) -> bool {
        let Some(epoch) = &self.epoch else {
            return false;
        };
        query.sent.is_some() && query.context.is_none_or(|context| context.spi == epoch.spi)
    }

    /// Whether a Query by this peer shows that the path has moved (FR-39).
    pub(super) fn is_moved_by(&self, peer: Principal) -> bool {
        self.peer != peer && !self.moved
    }

    /// Whether a Query reports about an epoch that is not known here, from a sender that does not know the one in use.
    pub(super) fn is_unknown_epoch(&self, query: &Query) -> bool {
        let live = [self.epoch.as_ref().map(|epoch| epoch.spi), self.draining];
        let is_known = |spi: u32| live.contains(&Some(spi)) || self.past.contains(&spi);
        query.context.is_some_and(|context| !is_known(context.spi) && !self.knows_epoch(&context))
    }

    /// Whether a sender has accepted a Permission of the epoch in use. It has stopped using any other then, whatever it still reports.
    pub(super) fn knows_epoch(&self, context: &VolumeContext) -> bool {
        let first = self.epoch.as_ref().and_then(|epoch| epoch.first);
        first.is_some_and(|first| !is_newer(first, context.permission))
    }

    /// Whether this receiver has taken back a part of what it had granted, so that packets beyond it are no attack.
    pub(super) fn is_lowered(&self) -> bool {
        self.allowed < self.peak
    }

    pub(super) fn allow(&mut self, allowed: Volume) {
        self.allowed = allowed;
        self.peak = self.peak.max(allowed);
    }

    pub(super) fn note(&mut self, sent: Sent) {
        if self.log.len() >= LOG_LIMIT {
            self.log.pop_front();
        }
        self.log.push_back(sent);
    }
}
