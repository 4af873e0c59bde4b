//! Messages of the application that wait: for a peer, for its association, or until the peer takes more (G-011, G-193).
//!
//! The shell reports what it has written of each association ([`super::AssociationEvent::Written`]). While
//! [`Caps::unwritten_bytes`](super::Caps::unwritten_bytes) are outstanding, messages stay with their routing states, and when
//! that ends the states get turns, one message each. So a peer that is slow costs only the sessions that send to it, each
//! for itself: the association goes on.

use std::collections::VecDeque;

use super::Node;
use super::association::Association;
use super::machines::querying::{State, Timer};
use super::querying::Stored;
use super::querying_state::{Passing, Querying};
use super::responding::Responding;
use super::routing_state::{Clocks, Route, RoutingKey, User};
use crate::api::{AssociationId, PathId, SendError, SendMessage};
use crate::time::Instant;

/// What GIST itself says on an association may take so many times what the application's messages may; past that the peer's
/// Responses go unheard, since each would ask for a Confirm.
const OVERLOAD_FACTOR: usize = 4;

/// Messages of one routing state that wait, in their order. Mostly none, which takes one word instead of four.
#[allow(clippy::box_collection)]
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Waiting(Option<Box<VecDeque<Stored>>>);

impl Waiting {
    pub(super) const NONE: Self = Self(None);

    /// When the first of them has waited long enough, if any is bound to.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.iter().filter_map(|stored| stored.deadline).min()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stored> {
        self.0.iter().flat_map(|waiting| waiting.iter())
    }

    fn push_back(&mut self, stored: Stored) {
        self.0.get_or_insert_default().push_back(stored);
    }

    fn pop_front(&mut self) -> Option<Stored> {
        let first = self.0.as_mut()?.pop_front();
        self.0.take_if(|waiting| waiting.is_empty());
        first
    }

    fn all(self) -> impl Iterator<Item = Stored> {
        self.0.into_iter().flat_map(|waiting| *waiting)
    }
}

/// None is never an empty queue, so that equal ones are equal.
impl From<VecDeque<Stored>> for Waiting {
    fn from(waiting: VecDeque<Stored>) -> Self {
        Self((!waiting.is_empty()).then(|| Box::new(waiting)))
    }
}

impl Node {
    /// Whether the application's messages may go this way at present.
    pub(super) fn has_room(&self, route: Route) -> bool {
        let Some(id) = route.association() else { return true };
        self.associations.get(id).is_some_and(|association| self.may_write(association))
    }

    fn may_write(&self, association: &Association) -> bool {
        association.is_open() && association.unwritten < self.config.caps.unwritten_bytes
    }

    /// Whether the peer takes not even what GIST itself says.
    pub(super) fn is_overloaded(&self, id: AssociationId) -> bool {
        let most = self.config.caps.unwritten_bytes.saturating_mul(OVERLOAD_FACTOR);
        self.associations.get(id).is_some_and(|association| association.unwritten >= most)
    }

    /// Keeps the message with its routing state; a full queue is told.
    pub(super) fn store(&mut self, waiting: &mut Waiting, message: SendMessage, now: Instant) {
        let length = message.payload.len();
        let is_full = waiting.len() >= self.config.caps.queued_messages_per_state;
        if is_full || self.queued_bytes.saturating_add(length) > self.config.caps.queued_bytes {
            self.counters.refused_when_full += 1;
            return self.report_status(message, SendError::QueueFull);
        }
        self.queued_bytes += length;
        let deadline = message.timeout.map(|timeout| now + timeout);
        waiting.push_back(Stored { message, deadline });
    }

    /// The first message that waits.
    pub(super) fn next_stored(&mut self, waiting: &mut Waiting) -> Option<SendMessage> {
        let stored = waiting.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(stored.message.payload.len());
        Some(stored.message)
    }

    /// Tells the application of every message that waits what has become of it.
    pub(super) fn report_stored(&mut self, waiting: &mut Waiting, error: &SendError) {
        while let Some(message) = self.next_stored(waiting) {
            self.report_status(message, error.clone());
        }
    }

    /// The messages that have waited long enough, and what is known of the reason.
    pub(super) fn report_expired(&mut self, waiting: &mut Waiting, setback: Option<&SendError>, now: Instant) {
        let is_late = |stored: &Stored| stored.deadline.is_some_and(|deadline| deadline <= now);
        let (late, left): (VecDeque<_>, VecDeque<_>) = core::mem::take(waiting).all().partition(is_late);
        let mut late = Waiting::from(late);
        *waiting = Waiting::from(left);
        self.report_stored(&mut late, setback.unwrap_or(&SendError::TimedOut));
    }

    /// Nobody wants to hear of them any more.
    pub(super) fn drop_stored(&mut self, waiting: &mut Waiting) {
        while self.next_stored(waiting).is_some() {}
    }

    /// What waits goes over this association as soon as the peer takes more.
    pub(super) fn await_querying_turn(&mut self, id: AssociationId, key: &RoutingKey, machine: &mut Querying) {
        machine.set_waits(machine.first_deadline());
        if !machine.passing().stored.is_empty() {
            self.associations.await_turn(id, User::Querying(key.clone()));
        }
    }

    /// The same for a responding state.
    pub(super) fn await_responding_turn(&mut self, id: AssociationId, key: &RoutingKey, machine: &mut Responding) {
        machine.set_waits(machine.passing().stored.first_deadline());
        if !machine.passing().stored.is_empty() {
            self.associations.await_turn(id, User::Responding(key.clone()));
        }
    }

    /// A message has waited long enough for the peer to take more.
    pub(super) fn waited_too_long(&mut self, user: &User, now: Instant) {
        match user {
            User::Querying(key) => {
                let Some((key, mut machine)) = self.querying.remove_entry(key) else { return };
                let due = machine.due();
                let Passing { stored, found, .. } = machine.passing_mut();
                self.report_expired(stored, found.setback.as_ref(), now);
                if let Some(Route::Association(id)) = machine.route() {
                    self.await_querying_turn(id, &key, &mut machine);
                }
                self.put_querying(key, machine, due);
            }
            User::Responding(key) => {
                let Some((key, mut machine)) = self.responding.remove_entry(key) else { return };
                let due = machine.due();
                self.report_expired(&mut machine.passing_mut().stored, None, now);
                match machine.hop.route() {
                    Route::Association(id) => self.await_responding_turn(id, &key, &mut machine),
                    Route::Datagram(_) => machine.set_waits(machine.passing().stored.first_deadline()),
                }
                self.put_responding(key, machine, due);
            }
        }
    }

    /// Sends one message of a state whose turn it is; `false` if nobody's is.
    pub(super) fn take_turn(&mut self, now: Instant) -> bool {
        let most = self.config.caps.unwritten_bytes;
        let Some((id, user)) = self.associations.next_turn(most) else { return false };
        match &user {
            User::Querying(key) => self.take_querying_turn(id, key, now),
            User::Responding(key) => self.take_responding_turn(id, key, now),
        }
        true
    }

    fn take_querying_turn(&mut self, id: AssociationId, key: &RoutingKey, now: Instant) {
        let Some((key, mut machine)) = self.querying.remove_entry(key) else { return };
        let due = machine.due();
        let is_settled = matches!(machine.state, State::Established | State::AwaitingRefresh);
        if machine.route() == Some(Route::Association(id)) && is_settled {
            if let Some(message) = self.next_stored(&mut machine.passing_mut().stored) {
                machine.used = true;
                self.send_data(Route::Association(id), (None, machine.path), machine.validity.span(), message, now);
            }
            if machine.passing().stored.is_empty() {
                machine.set_timer(Timer::MessageTimeout, None);
            }
            self.await_querying_turn(id, &key, &mut machine);
        }
        self.put_querying(key, machine, due);
    }

    fn take_responding_turn(&mut self, id: AssociationId, key: &RoutingKey, now: Instant) {
        let Some((key, mut machine)) = self.responding.remove_entry(key) else { return };
        let due = machine.due();
        if machine.hop.route() == Route::Association(id) {
            if let Some(message) = self.next_stored(&mut machine.passing_mut().stored) {
                self.send_data(machine.hop.route(), (None, PathId::ROUTED), machine.validity.span(), message, now);
            }
            self.await_responding_turn(id, &key, &mut machine);
        }
        self.put_responding(key, machine, due);
    }
}
