//! Copies of the last messages of a session, which repair a path that moves without asking its ends.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;
use gist::api::ReceivedMessage;
use gist::time::Instant;

use super::Router;
use super::rows::{Cause, Step};
use super::session::Session;
use crate::node::{Envelope, SessionKey};
use crate::wire::number;

/// Octets of the longest message of which a copy is kept. One with a chain of certificates is shorter.
const LONGEST: usize = 8192;

/// A session is repaired so often at most, whoever moves its path.
const BETWEEN: Duration = Duration::from_secs(1);

/// Refreshed more slowly than this, copies are too old when they are wanted: half of [`number::WINDOW_PAST`].
const LONGEST_REFRESH: Duration = Duration::from_secs(150);

/// A message as it was passed on. That of a Permission contains the key; its octets are wiped when nobody holds them any more.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Copy {
    payload: Bytes,
    /// As received.
    hop_count: u8,
}

impl fmt::Debug for Copy {
    /// Leaves the message out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").field("octets", &self.payload.len()).finish_non_exhaustive()
    }
}

impl Session {
    /// Octets of its copies.
    pub(super) fn copied(&self) -> usize {
        let asked = self.asked.as_ref().and_then(|asked| asked.copy.as_ref());
        let granted = self.granted.as_ref().and_then(|granted| granted.copy.as_ref());
        [asked, granted].into_iter().flatten().map(|copy| copy.payload.len()).fold(0, usize::saturating_add)
    }
}

impl Router {
    /// A copy of a message, if there is room for it beside those of all sessions. `instead` octets become free by it.
    pub(super) fn copy(&self, received: &ReceivedMessage, forwarded: &Bytes, instead: usize) -> Option<Copy> {
        let others = self.copied.saturating_sub(instead);
        let fits = forwarded.len() <= LONGEST && others.saturating_add(forwarded.len()) <= self.config.copies;
        fits.then(|| Copy { payload: forwarded.clone(), hop_count: received.hop_count })
    }

    /// Whether the session can be repaired with its copies now: of the Query if the way downstream is another one, else of the
    /// Permission.
    pub(super) fn repairs(&self, key: SessionKey, downstream: bool, now: Instant) -> bool {
        let Some(session) = self.sessions.get(&key) else {
            return false;
        };
        let (Some(asked), Some(granted)) = (&session.asked, &session.granted) else {
            return false;
        };
        let (copy, number) = if downstream { (&asked.copy, asked.number) } else { (&granted.copy, granted.number) };
        copy.is_some() && granted.refresh <= LONGEST_REFRESH && self.is_repairable(session, number, now)
    }

    /// Whether a copy of the Query that waits for a Permission can go once more (FN-33).
    pub(super) fn may_ask_again(&self, key: SessionKey, now: Instant) -> bool {
        let Some(session) = self.sessions.get(&key) else {
            return false;
        };
        session.asked.as_ref().is_some_and(|asked| asked.copy.is_some() && self.is_repairable(session, asked.number, now))
    }

    fn is_repairable(&self, session: &Session, number: u32, now: Instant) -> bool {
        let rested = session.repaired.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN);
        rested && number::is_fresh(number, self.node.unix(now))
    }

    /// Sends the last Query to the new peer downstream, byte for byte.
    pub(super) fn resend_query(&mut self, step: &Step<'_>) {
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        session.repaired = Some(step.now);
        if let Some((mri, copy)) = session.asked.as_ref().and_then(|asked| Some((asked.mri.clone(), asked.copy.clone()?))) {
            let envelope = Envelope::repeated(step.key.session, mri, copy.hop_count);
            self.node.send(envelope, copy.payload);
        }
    }

    /// Sends the last Permission to the new peer upstream, unless it waits for the packet side and goes there anyway.
    pub(super) fn resend_permission(&mut self, step: &Step<'_>) {
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        session.repaired = Some(step.now);
        if let (Cause::Again { received }, Some(asked)) = (&step.cause, &mut session.asked) {
            asked.upstream = received.principal;
        }
        let waits = session.held.is_some();
        let granted = session.granted.as_ref().filter(|_| !waits);
        if let Some((mri, copy)) = granted.and_then(|granted| Some((granted.mri.clone(), granted.copy.clone()?))) {
            let envelope = Envelope::repeated(step.key.session, mri, copy.hop_count);
            self.node.send(envelope, copy.payload);
        }
    }
}
