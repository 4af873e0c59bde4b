//! The querying end of a routing state (RFC 5971 §6.2): its guards, its events.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Node;
use super::machines::querying::{Event, Guards, Outcome, step};
use super::querying_state::Querying;
use super::receive_data::Delivery;
use super::routing_state::{Clocks, Expired, Origin, Peer, RoutingKey, User, first};
use crate::api::{AssociationId, PathId, RoutingStatus, SendMessage};
use crate::time::Instant;
use crate::wire::Response;

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stored {
    pub(super) message: SendMessage,
    pub(super) deadline: Option<Instant>,
}

/// What comes with an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum QueryingInput {
    None,
    Message(SendMessage),
    Response(Box<AcceptedResponse>),
    Data(Delivery),
    /// The association is open and its peer may serve the flow.
    Connected(AssociationId),
    /// The candidate has answered the request with this Hello-ID, so that it has taken what was sent before.
    Proven {
        association: AssociationId,
        proof: u32,
    },
    /// The association failed or never opened, and why; or its peer may not serve the flow.
    Ended {
        association: AssociationId,
        reason: String,
    },
    Lifetime(Duration),
    /// The application wants the peer on another way out.
    Path(PathId),
    Invalidate {
        status: RoutingStatus,
        urgent: bool,
    },
}

/// A Response whose cookie is right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AcceptedResponse {
    pub(super) response: Response,
    pub(super) origin: Origin,
    pub(super) hop_count: u8,
    pub(super) plan: Option<Plan>,
    /// The node's own address in the Query that it answers: the Responder-Cookie is bound to it, so the Confirm names it too.
    pub(super) own: Option<IpAddr>,
}

/// How the peer of a Response is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Plan {
    Reuse(AssociationId),
    Open {
        remote: SocketAddr,
        /// Over TLS; else over TCP alone.
        protected: bool,
    },
    Datagram(SocketAddr),
}

impl QueryingInput {
    /// The association that the news is about.
    pub(super) fn association(&self) -> Option<AssociationId> {
        match self {
            Self::Connected(association) | Self::Proven { association, .. } | Self::Ended { association, .. } => Some(*association),
            _ => None,
        }
    }
}

impl Node {
    /// Gives an event to the machine. The machine is out of the table while it acts.
    pub(super) fn querying_event(&mut self, key: &RoutingKey, event: Event, input: QueryingInput, now: Instant) {
        let Some((key, mut machine)) = self.querying.remove_entry(key) else { return };
        let due = machine.due();
        let guards = self.querying_guards(&machine, &input, now);
        let state = machine.state;
        match step(state, event, guards) {
            Outcome::Take(transition) => {
                machine.state = transition.next;
                Self::taken("gist-querying", state, event, transition.rule, transition.next);
                for action in transition.actions {
                    self.querying_action(&key, &mut machine, *action, &input, now);
                }
            }
            Outcome::Refuse(rule) => self.refused("gist-querying", state, event, rule),
            Outcome::Ignore => self.ignored("gist-querying", state, event),
        }
        if machine.state.is_final() {
            let other = self.responding.get(&key).and_then(|machine| machine.due());
            self.timers.move_states(&key, first(due, other), other);
            self.forget_cause(machine.cause.as_deref());
        } else {
            self.put_querying(key, machine, due);
        }
    }

    /// Puts the machine back into the table, out of which its first timer was due then.
    pub(super) fn put_querying(&mut self, key: RoutingKey, mut machine: Box<Querying>, due: Option<Instant>) {
        machine.tidy();
        let due_now = machine.due();
        if due_now != due {
            let other = self.responding.get(&key).and_then(|machine| machine.due());
            self.timers.move_states(&key, first(due, other), first(due_now, other));
        }
        self.querying.insert(key, machine);
    }

    /// The first of its timers has run out, and the node knows of none of this name any more; `other` is when the first of the
    /// responding state's is due.
    pub(super) fn querying_expired(&mut self, key: &RoutingKey, other: Option<Instant>, now: Instant) {
        let Some((owned, mut machine)) = self.querying.remove_entry(key) else { return };
        let expired = machine.take_due();
        self.timers.move_states(&owned, None, first(machine.due(), other));
        machine.tidy();
        self.querying.insert(owned, machine);
        match expired {
            Some(Expired::Timer(timer)) => self.querying_event(key, timer.event(), QueryingInput::None, now),
            Some(Expired::Waits) => self.waited_too_long(&User::Querying(key.clone()), now),
            None => {}
        }
    }

    fn querying_guards(&self, machine: &Querying, input: &QueryingInput, now: Instant) -> Guards {
        let timer = self.config.query_timer;
        let response = if let QueryingInput::Response(accepted) = input { Some(&**accepted) } else { None };
        let candidate = machine.candidate_of(input);
        let answered = response.or(candidate.map(|candidate| &candidate.accepted));
        Guards {
            nresp_reached: now >= machine.handshake_deadline(timer),
            reachable: response.is_some_and(|accepted| accepted.plan.is_some()),
            pending: response.is_some_and(Self::is_pending),
            candidate: candidate.is_some_and(|candidate| {
                !matches!(input, QueryingInput::Proven { .. }) || self.may_lead(machine, candidate.association, now)
            }),
            new_peer: answered.is_some_and(|accepted| machine.peer().is_some_and(|peer| *peer != Peer::from(&accepted.response.nli))),
            restart_due: now >= machine.started + timer,
            suspect: machine.suspect,
            urgent: matches!(input, QueryingInput::Invalidate { urgent: true, .. }),
            bad: matches!(input, QueryingInput::Invalidate { status: RoutingStatus::Bad, .. }),
            wanted: matches!(input, QueryingInput::Lifetime(lifetime) if !lifetime.is_zero()),
        }
    }
}
