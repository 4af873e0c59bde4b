//! What one machine wants of another, and the loop that does it.

use core::fmt;

use super::Node;
use super::association::AssociationInput;
use super::machines::{association, querying, responding};
use super::querying::QueryingInput;
use super::receive::Received;
use super::responding::RespondingInput;
use super::routing_state::{Clocks, RoutingKey};
use super::timers::Due;
use crate::api::AssociationId;
use crate::time::Instant;

/// An event for a machine, or a message to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Task {
    Querying(RoutingKey, querying::Event, QueryingInput),
    Responding(RoutingKey, responding::Event, RespondingInput),
    Association(AssociationId, association::Event, AssociationInput),
    Message(Box<Received>),
}

impl Node {
    /// Does all tasks, in order, then sends what waits and may go; then lets go of associations that nobody uses any more.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(task) = self.tasks.pop_front() {
                match task {
                    Task::Querying(key, event, input) => self.querying_event(&key, event, input, now),
                    Task::Responding(key, event, input) => self.responding_event(&key, event, input, now),
                    Task::Association(id, event, input) => self.association_event(id, event, input, now),
                    Task::Message(received) => self.dispatch(*received, now),
                }
            }
            if self.take_turn(now) {
                continue;
            }
            let Some(id) = self.associations.pop_unused() else { break };
            self.association_event(id, association::Event::TgMAIdle, AssociationInput::None, now);
        }
    }

    /// A timer fired.
    pub(super) fn expired(&mut self, due: Due, now: Instant) {
        match due {
            Due::State(key) => self.state_expired(key, now),
            // The request itself may be among what the peer has not taken yet; the shell knows how long that may last.
            Due::Association(id, association::Timer::HelloReply) if self.associations.get(id).is_some_and(|it| it.unwritten > 0) => {
                self.timers.start(id, association::Timer::HelloReply, now + self.config.hello_timeout);
            }
            // What they wait for may be among what the shell has not read, as the application is slow (G-011).
            Due::Association(
                id,
                timer @ (association::Timer::HelloReply | association::Timer::NoHello | association::Timer::Unconfirmed),
            ) if self.is_deaf(now) => {
                self.start_association_timer(id, timer, now);
            }
            Due::Association(id, timer) => {
                let input = match timer {
                    association::Timer::Connect => AssociationInput::Reason("no connection in time".to_owned()),
                    association::Timer::HelloReply => AssociationInput::Reason("the peer does not answer".to_owned()),
                    association::Timer::SendHello
                    | association::Timer::NoHello
                    | association::Timer::Silence
                    | association::Timer::Unconfirmed
                    | association::Timer::CertificateEnd => AssociationInput::None,
                };
                self.association_event(id, timer.event(), input, now);
            }
            Due::Datagrams => self.release_datagrams(now),
        }
    }

    /// The first timer of one of a name's states has run out; of two at the same moment the querying one's.
    fn state_expired(&mut self, key: RoutingKey, now: Instant) {
        let querying = self.querying.get(&key).and_then(|machine| machine.due());
        let responding = self.responding.get(&key).and_then(|machine| machine.due());
        match (querying, responding) {
            (Some(first), other) if other.is_none_or(|other| first <= other) => self.querying_expired(&key, other, now),
            (other, _) => self.responding_expired(&key, other, now),
        }
    }

    /// A table knows the case and this code does not act upon it yet: somebody should hear of it.
    pub(super) fn refused(&mut self, machine: &str, state: impl fmt::Display, event: impl fmt::Display, rule: &str) {
        self.counters.events_refused += 1;
        tracing::error!(machine, %state, %event, rule, "not acted upon yet");
    }

    /// No row applies (G-282).
    pub(super) fn ignored(&mut self, machine: &str, state: impl fmt::Display, event: impl fmt::Display) {
        self.counters.events_ignored += 1;
        tracing::trace!(machine, %state, %event, "ignored");
    }

    /// A row applies.
    pub(super) fn taken(machine: &str, from: impl fmt::Display, event: impl fmt::Display, rule: &str, to: impl fmt::Display) {
        tracing::debug!(machine, %from, %event, rule, %to, "transition");
    }
}
