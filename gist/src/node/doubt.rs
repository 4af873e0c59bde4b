//! Associations whose peer may be gone without a word, as after a crash (RFC 5971 §4.4.3, §4.4.5; X-119).
//!
//! TCP tells a node late, or never, that the other end has forgotten a connection. Who answers over it is not heard, and who asks over it
//! is not answered. So an association is *doubted* when what should have come over it does not: the peer repeats its Query although it has
//! been answered over the association, or answers by datagram what it would have answered over it. Then it is asked by MA-Hello whether it
//! is there, one request at a time, whoever makes this node doubt. What does not answer within three quarters of T1 is *suspect*: no
//! handshake goes over it, so that the peer can open another. It goes on being used and listened to all the same, and whatever is heard
//! over it ends the doubt. It fails at once when its peer has confirmed over another one, which nobody else can do; else when the
//! MA-Hello has stayed unanswered for long enough.

use core::time::Duration;

use super::Node;
use super::association::{Association, AssociationInput};
use super::machines::association::Event;
use super::task::Task;
use crate::api::AssociationId;
use crate::time::Instant;

/// What an association's silence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Doubt {
    /// The first Response that went over it since something was heard: a Confirm should follow.
    answered: Option<Instant>,
    /// Since when an MA-Hello asks whether its peer is there.
    since: Option<Instant>,
}

impl Doubt {
    /// Something was heard.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// A Response goes over it.
    pub(super) fn note_response(&mut self, now: Instant) {
        self.answered = self.answered.or(Some(now));
    }

    fn is_older_than(since: Option<Instant>, span: Duration, now: Instant) -> bool {
        since.is_some_and(|at| at + span <= now)
    }
}

impl Node {
    /// Whether the peer does not answer over the association, although it was asked: no handshake should rely on it. Not one that has yet
    /// to take what was written to it: how long that may last is for the shell to say.
    pub(super) fn is_suspect(&self, association: &Association, now: Instant) -> bool {
        let Some(reading_since) = self.reading_since.filter(|_| association.unwritten == 0) else { return false };
        let since = association.doubt.since.map(|since| since.max(reading_since));
        Doubt::is_older_than(since, self.config.query_timer * 3 / 4, now)
    }

    /// Whether what peers have said may not have been read yet: nothing is at present, or it is again for less than T1.
    pub(super) fn is_deaf(&self, now: Instant) -> bool {
        self.reading_since.is_none_or(|since| now < since + self.config.query_timer)
    }

    /// Asks by MA-Hello whether the peer is there, unless that is being asked already.
    pub(super) fn doubt(&mut self, id: AssociationId, now: Instant) {
        let reads = self.reading_since.is_some();
        let doubted = |association: &&mut Association| reads && association.is_open() && association.doubt.since.is_none();
        let Some(association) = self.associations.get_mut(id).filter(doubted) else { return };
        association.doubt.since = Some(now);
        if association.hello.is_none() {
            self.tasks.push_back(Task::Association(id, Event::TgTest, AssociationInput::None));
        }
    }

    /// A Query would be answered over the association. Whoever repeats one that was answered so has not heard it.
    pub(super) fn doubt_if_unheard(&mut self, id: AssociationId, now: Instant) {
        let unheard = self.associations.get(id).map(|association| association.doubt.answered);
        if unheard.is_some_and(|since| Doubt::is_older_than(since, self.config.query_timer / 2, now)) {
            self.doubt(id, now);
        }
    }

    /// The peer has confirmed over this association, or taken a Confirm: what it had before it should not have needed to replace.
    pub(super) fn doubt_predecessors(&mut self, id: AssociationId, now: Instant) {
        let Some((peer, path, protected)) = self.associations.get(id).and_then(|it| Some((it.peer.clone()?, it.path, it.protected))) else {
            return;
        };
        let is_before = |(old, association): &(AssociationId, &Association)| {
            *old < id && association.is_open() && association.path == path && protected >= association.protected
        };
        let older: Vec<_> = self.associations.of_peer(&peer).filter(is_before).map(|(old, it)| (old, self.is_suspect(it, now))).collect();
        for (old, is_suspect) in older {
            if is_suspect && self.have_same_principal(old, id) {
                let reason = "its peer does not answer over it, and has opened another".to_owned();
                self.tasks.push_back(Task::Association(old, Event::ErReplaced, AssociationInput::Reason(reason)));
            } else {
                self.doubt(old, now);
            }
        }
    }
}
