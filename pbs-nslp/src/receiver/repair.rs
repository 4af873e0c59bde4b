//! The last hop of a path that has moved without its ends being asked: the receiver's counterpart to FN-31.

use core::time::Duration;

use gist::api::ReceivedMessage;
use gist::time::Instant;

use super::Receiver;
use super::rows::{Cause, Step};
use super::session::{MARK, Session};
use super::table::{Event, Guards, State};
use crate::node::SessionKey;
use crate::wire::{Query, Signed};

/// A session is repaired so often at most, whoever moves its path.
const BETWEEN: Duration = Duration::from_secs(1);

/// The beginning of a Query's signature, which only who has a copy can show.
pub(super) fn mark(signed: &Signed<Query>) -> Option<[u8; MARK]> {
    signed.signature.first_chunk().copied()
}

impl Session {
    /// Whether a Query is the newest one once more, from another peer upstream. Nothing is done by what it says: that it is the same
    /// is shown by its number and signature.
    fn is_asked_again(&self, received: &ReceivedMessage, signed: &Signed<Query>) -> bool {
        self.peer != received.principal && self.query.number == signed.message.number && self.mark.is_some() && self.mark == mark(signed)
    }
}

impl Receiver {
    /// Takes the newest Query once more, if that is what it is: a router upstream has sent its copy another way.
    pub(super) fn query_again(&mut self, received: &ReceivedMessage, signed: &Signed<Query>, now: Instant) -> bool {
        let key = SessionKey { flow: signed.message.flow, session: received.session };
        let Some(session) = self.sessions.get(&key).filter(|session| session.is_asked_again(received, signed)) else {
            return false;
        };
        let rested = session.repaired.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN);
        // A Permission is about to leave, and goes to the session's peer.
        let leaves = session.state == State::Permitted && session.pending.is_some();
        // Only to whom GIST has taken for the session's peer: the message itself proves nothing.
        let repairs = received.authenticated && !received.tentative && rested && session.epoch.is_some() && !leaves;
        let cause = Cause::Again { received };
        self.take(Event::RxLastQueryAgain, Guards { repairs, ..Guards::default() }, Step::new(key, cause, now));
        true
    }

    pub(super) fn take_peer(&mut self, step: &Step<'_>) {
        if let (Cause::Again { received }, Some(session)) = (&step.cause, self.sessions.get_mut(&step.key)) {
            session.peer = received.principal;
            session.repaired = Some(step.now);
        }
    }
}
