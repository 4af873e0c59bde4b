//! What a sender keeps of one flow.

use core::time::Duration;

use gist::api::{MessageHandle, Principal};
use gist::time::Instant;
use gist::wire::{Mri, SessionId};

use super::paths::Course;
use super::table::State;
use crate::association::Association;
use crate::credentials::CertificatePath;
use crate::datapath::Token;
use crate::report::Setback;
use crate::status::Answered;
use crate::wire::number::is_newer;
use crate::wire::{Volume, VolumeContext};

/// GIST hop count of messages at their maker, that of GIST itself.
const HOP_COUNT: u8 = 64;

/// A flow from the first wish to send on; in Idle only while a hold-down runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Session {
    pub(super) state: State,
    pub(super) session: SessionId,
    /// Downstream.
    pub(super) mri: Mri,
    /// Whether GIST keeps the way downstream.
    pub(super) wants_route: bool,
    /// How much is asked for at a time.
    pub(super) wanted: Volume,
    pub(super) attempt: Attempt,
    /// The receiver's signature last accepted.
    pub(super) accepted: Option<Accepted>,
    pub(super) epoch: Option<Epoch>,
    /// The epoch before, until a Query that reports its end has been answered.
    pub(super) former: Option<Former>,
    /// What had been sent when the session was given up, for repeated releases.
    pub(super) last_report: Option<(Volume, VolumeContext)>,
    /// The snapshot that a Query waits for.
    pub(super) reading: Option<Token>,
    /// The next Query asks for more volume.
    pub(super) ask_more: bool,
    /// A packet beyond the allowed volume is held.
    pub(super) data_waits: bool,
    /// More volume was asked for and not given (FS-42).
    pub(super) renewal_refused: bool,
    /// How long the flow may not ask, once it is in hold-down.
    pub(super) hold: Duration,
    /// How the flow came into hold-down, for people.
    pub(super) outcome: Option<String>,
    pub(super) course: Course,
    /// The receiver's last answer.
    pub(super) answered: Option<Answered>,
    /// When the first Query left that has not been answered since.
    pub(super) unanswered_since: Option<Instant>,
}

/// The Queries since the last one that was not a repetition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Attempt {
    pub(super) tries: u32,
    /// Numbers of the first and the last Query of the attempt.
    pub(super) numbers: Option<(u32, u32)>,
    pub(super) last_handle: Option<MessageHandle>,
    pub(super) first_sent_at: Option<Instant>,
    pub(super) last_sent_at: Option<Instant>,
    /// Whether it asks for more than is allowed.
    pub(super) asks_more: bool,
    /// Whether it reports the end of the epoch before.
    pub(super) reports_former: bool,
    /// Whether the Query before was only just sent.
    pub(super) in_haste: bool,
    /// What was heard last about why it may not have been answered.
    pub(super) setback: Option<Setback>,
    /// Whether repairs repeat until an answer comes, the first hop being lost.
    pub(super) first_hop_lost: bool,
}

/// The last Permission accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Accepted {
    pub(super) key_hash: [u8; 32],
    pub(super) path: CertificatePath,
    pub(super) number: u32,
    pub(super) peer: Principal,
}

/// What is left of an epoch that another has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Former {
    pub(super) spi: u32,
    /// SV, final when the packet side has told it.
    pub(super) sent: Volume,
    /// N, final when the packet side has told it.
    pub(super) highest: u32,
}

/// The life of one SPI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Epoch {
    pub(super) association: Association,
    /// AV.
    pub(super) allowed: Volume,
    /// T.
    pub(super) refresh: Duration,
    /// SV when the packet side last told it.
    pub(super) sent: Volume,
    /// N when the packet side last told it.
    pub(super) highest: u32,
    /// SV in the last Query.
    pub(super) reported: Volume,
}

impl Session {
    pub(super) fn new(session: SessionId, mri: Mri, wanted: Volume) -> Self {
        Self {
            state: State::INITIAL,
            session,
            mri,
            wants_route: false,
            wanted,
            attempt: Attempt::default(),
            accepted: None,
            epoch: None,
            former: None,
            last_report: None,
            reading: None,
            ask_more: false,
            data_waits: false,
            renewal_refused: false,
            hold: Duration::ZERO,
            outcome: None,
            course: Course::default(),
            answered: None,
            unanswered_since: None,
        }
    }

    /// Whether a Permission answers this attempt.
    pub(super) fn echo_fits(&self, echo: Option<u32>) -> bool {
        let Some(echo) = echo else {
            return true;
        };
        self.attempt.numbers.is_some_and(|(first, last)| !is_newer(first, echo) && !is_newer(echo, last))
    }

    /// Takes down that the receiver has answered, if it is an answer to a Query that was not tried again. Where a repair has repeated it
    /// nobody can tell which of them is answered, so that the time of the attempt's first counts. `hop_count` is what is left of the
    /// answer's.
    pub(super) fn note_answer(&mut self, echo: Option<u32>, hop_count: u8, now: Instant) {
        if self.echo_fits(echo) {
            self.unanswered_since = None;
        }
        let Some((first, last)) = self.attempt.numbers.filter(|_| self.attempt.tries == 1) else { return };
        let asked_at = if first == last { self.attempt.last_sent_at } else { self.attempt.first_sent_at };
        if let (Some(asked_at), true) = (asked_at, echo.is_some() && self.echo_fits(echo)) {
            let round_trip = now.saturating_duration_since(asked_at);
            let shortest = self.answered.map_or(round_trip, |before| before.round_trip.min(round_trip));
            self.answered = Some(Answered { at: now, round_trip: shortest, hops: HOP_COUNT.saturating_sub(hop_count) });
        }
    }

    /// What a sent volume refers to.
    pub(super) fn context(&self) -> Option<VolumeContext> {
        let epoch = self.epoch.as_ref()?;
        let permission = self.accepted.as_ref()?.number;
        Some(VolumeContext { spi: epoch.association.spi(), highest: epoch.highest, permission })
    }

    /// What the next Query reports: the end of the epoch before as long as nobody has answered such a Query, else the epoch in use
    ///
    pub(super) fn report(&self) -> (Option<Volume>, Option<VolumeContext>) {
        match self.former.as_ref().zip(self.accepted.as_ref()) {
            Some((&Former { spi, sent, highest }, accepted)) => {
                (Some(sent), Some(VolumeContext { spi, highest, permission: accepted.number }))
            }
            None => (self.epoch.as_ref().map(|epoch| epoch.sent), self.context()),
        }
    }

    /// The epoch in use, and the one before that is reported first.
    pub(super) fn spis(&self) -> [Option<u32>; 2] {
        let live = self.epoch.as_ref().map(|epoch| epoch.association.spi());
        [live, self.former.as_ref().map(|former| former.spi).filter(|_| live.is_some())]
    }
}

impl Epoch {
    /// Whether no packet can be sent any more for want of numbers.
    pub(super) fn is_out_of_numbers(&self) -> bool {
        self.highest == u32::MAX
    }

    /// Whether data moved since the last Query.
    pub(super) fn is_busy(&self) -> bool {
        self.sent > self.reported
    }

    /// Whether three quarters of the volume are used up.
    pub(super) fn is_nearly_used_up(&self) -> bool {
        let quarter = self.allowed.0 / 4;
        self.sent.0 >= self.allowed.0.saturating_sub(quarter)
    }
}
