//! The responding end of a routing state (RFC 5971 §6.3): its data, its guards, its events.

use core::time::Duration;

use super::Node;
use super::cookie::Arrival;
use super::machines::responding::{Event, Guards, Outcome, State, step};
use super::receive::Received;
use super::receive_data::Delivery;
use super::routing_state::{Peer, Route, RoutingKey};
use crate::api::SendMessage;
use crate::time::Instant;
use crate::wire::{Confirm, Query};

/// A routing state that another node asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Responding {
    pub(super) state: State,
    pub(super) peer: Peer,
    pub(super) route: Route,
    pub(super) ip_distance: Option<u8>,
    /// The interface the Query came in by.
    pub(super) interface: u32,
    pub(super) validity: Duration,
}

/// What comes with an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RespondingInput {
    None,
    /// A Query of the state's own peer.
    Query(Box<AcceptedQuery>),
    /// A Confirm whose cookie is right.
    Confirm(Box<AcceptedConfirm>),
    Message(SendMessage),
    Data(Delivery),
    Lifetime(Duration),
}

/// A Query with what its way here showed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AcceptedQuery {
    pub(super) query: Query,
    pub(super) received: Received,
    pub(super) arrival: Arrival,
}

/// A Confirm with what its cookie brought back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AcceptedConfirm {
    pub(super) confirm: Confirm,
    pub(super) route: Route,
    pub(super) received: Received,
    pub(super) arrival: Arrival,
}

impl Responding {
    pub(super) fn new(accepted: &AcceptedConfirm) -> Self {
        Self {
            state: State::INITIAL,
            peer: Peer::from(&accepted.confirm.nli),
            route: accepted.route,
            ip_distance: accepted.arrival.ip_distance,
            interface: accepted.arrival.interface,
            validity: accepted.confirm.nli.validity,
        }
    }

    /// Whether peer and association are those of the state.
    fn is_path_of(&self, accepted: &AcceptedConfirm) -> bool {
        self.route == accepted.route && self.peer == Peer::from(&accepted.confirm.nli)
    }
}

impl Node {
    /// Gives an event to the machine. The machine is out of the table while it acts.
    pub(super) fn responding_event(&mut self, key: &RoutingKey, event: Event, input: RespondingInput, now: Instant) {
        let Some((key, mut machine)) = self.responding.remove_entry(key) else { return };
        let guards = Guards {
            // A Query proves nothing, whomever it names (note 1 of the table).
            confirm_required: true,
            state_on_query: false,
            nconf_reached: false,
            same_path: matches!(&input, RespondingInput::Confirm(accepted) if machine.is_path_of(accepted)),
            held: matches!(&input, RespondingInput::Confirm(accepted) if self.is_held(&machine, accepted)),
            wanted: matches!(&input, RespondingInput::Lifetime(lifetime) if !lifetime.is_zero()),
        };
        let state = machine.state;
        match step(state, event, guards) {
            Outcome::Take(transition) => {
                machine.state = transition.next;
                Self::taken("gist-responding", state, event, transition.rule, transition.next);
                for action in transition.actions {
                    self.responding_action(&key, &mut machine, *action, &input, now);
                }
            }
            Outcome::Refuse(rule) => self.refused("gist-responding", state, event, rule),
            Outcome::Ignore => self.ignored("gist-responding", state, event),
        }
        if !machine.state.is_final() {
            self.responding.insert(key, machine);
        }
    }
}

impl Node {
    /// Whether the state is somebody else's who may well be there still: the association is open. Only the state's peer by
    /// its key, or the host whose own flow it is, need not wait until that peer is gone (note G-128 of the table).
    fn is_held(&self, machine: &Responding, accepted: &AcceptedConfirm) -> bool {
        let (Some(old), Some(new)) = (machine.route.association(), accepted.route.association()) else { return false };
        let is_open = self.associations.get(old).is_some_and(|association| association.is_open());
        let is_own = self.have_same_principal(old, new) || self.is_end_of(new, &accepted.confirm.mri.inverted());
        is_open && !is_own
    }
}
