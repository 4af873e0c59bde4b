//! The node's own machine: messages for which no other machine exists (RFC 5971 §6.1).

use super::Node;
use super::machines::node::{Action, Event, Guards, Outcome, State, step};
use super::machines::{querying, responding};
use super::querying::QueryingInput;
use super::querying_state::Querying;
use super::receive::Received;
use super::responding::{AcceptedConfirm, AcceptedQuery, Responding, RespondingInput};
use super::routing_state::RoutingKey;
use crate::api::{PathId, SendError, SendMessage};
use crate::time::Instant;
use crate::wire::ErrorCause;

/// What comes with an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum NodeInput {
    Query(Box<AcceptedQuery>),
    /// A Confirm whose cookie is right.
    Confirm(Box<AcceptedConfirm>),
    /// A Confirm whose cookie is wrong, a Response, Data, or an Error.
    Stray(Box<Received>),
    /// A peer is wanted, and there is no message for it yet.
    Wanted(Box<RoutingKey>),
    Message {
        key: Box<RoutingKey>,
        message: Box<SendMessage>,
    },
}

impl Node {
    pub(super) fn node_event(&mut self, event: Event, guards: Guards, input: &NodeInput, now: Instant) {
        let state = State::Idle;
        match step(state, event, guards) {
            Outcome::Take(transition) => {
                Self::taken("gist-node", state, event, transition.rule, transition.next);
                transition.actions.iter().for_each(|action| self.node_action(*action, input, now));
            }
            Outcome::Refuse(rule) => self.refused("gist-node", state, event, rule),
            Outcome::Ignore => self.ignored("gist-node", state, event),
        }
    }

    fn node_action(&mut self, action: Action, input: &NodeInput, now: Instant) {
        match (action, input) {
            (Action::SendResponse, NodeInput::Query(accepted)) => self.send_response(&accepted.asked, None, now),
            (Action::PropagateQuery, NodeInput::Query(accepted)) => self.propagate(&accepted.received, now),
            (Action::CreateResponding, NodeInput::Confirm(accepted)) => self.create_responding(accepted, now),
            (Action::CreateResponding, NodeInput::Query(accepted)) => self.create_early(accepted, now),
            (Action::CreateQuerying, NodeInput::Message { key, message }) => self.create_querying(key, message, now),
            (Action::FindPeer, NodeInput::Wanted(key)) => self.find_peer(key, now),
            (Action::RejectMessage, NodeInput::Message { message, .. }) => {
                self.report_status(SendMessage::clone(message), SendError::NoEncapsulation);
            }
            (Action::SendStateless, NodeInput::Message { message, .. }) => self.send_stateless(message, now),
            (Action::DeliverUnvalidated, NodeInput::Stray(received)) => self.deliver_unvalidated(received),
            (Action::RefuseConfirm, NodeInput::Stray(received)) => self.refuse_confirm(received, now),
            (Action::SendNoRoutingState, NodeInput::Stray(received)) => {
                self.counters.no_routing_state += 1;
                self.answer(received, ErrorCause::NoRoutingState, Vec::new(), now);
            }
            (Action::Discard, NodeInput::Stray(received)) => {
                self.counters.stray += 1;
                tracing::debug!(kind = ?received.message.message_type(), "stray message");
            }
            (
                Action::SendResponse
                | Action::PropagateQuery
                | Action::CreateResponding
                | Action::CreateQuerying
                | Action::FindPeer
                | Action::RejectMessage
                | Action::SendStateless
                | Action::DeliverUnvalidated
                | Action::RefuseConfirm
                | Action::SendNoRoutingState
                | Action::Discard,
                input,
            ) => debug_assert!(false, "{action:?} does not go with {input:?}"),
        }
    }

    fn create_querying(&mut self, key: &RoutingKey, message: &SendMessage, now: Instant) {
        let cause = message.on_behalf_of;
        if !self.has_share_to_cause(cause) || !self.make_room_for_state(now) {
            self.counters.refused_when_full += 1;
            return self.report_status(message.clone(), SendError::QueueFull);
        }
        let cause = self.note_cause(cause);
        let key = self.shared_key(key.clone());
        self.querying.insert(key.clone(), Box::new(Querying::new(self.config.inactivity, cause, message.path, now)));
        self.querying_event(&key, querying::Event::TgNSLPData, QueryingInput::Message(message.clone()), now);
    }

    /// A routing state that nothing waits for yet (G-069).
    fn find_peer(&mut self, key: &RoutingKey, now: Instant) {
        if !self.has_share_to_cause(None) || !self.make_room_for_state(now) {
            self.counters.refused_when_full += 1;
            return;
        }
        let machine = Querying::new(self.config.inactivity, None, PathId::ROUTED, now);
        let key = self.shared_key(key.clone());
        self.querying.insert(key.clone(), Box::new(machine));
        self.querying_event(&key, querying::Event::TgEstablish, QueryingInput::None, now);
    }

    /// Late installation: nothing was kept for this peer before (G-128).
    fn create_responding(&mut self, accepted: &AcceptedConfirm, now: Instant) {
        let has_share = accepted.route.association().is_none_or(|id| self.has_share_of_states(id));
        if !has_share || !self.make_room_for_state(now) {
            return self.refuse_for_want_of_room(&accepted.received, now);
        }
        let message = &accepted.received.message;
        let key = self.shared_key(RoutingKey::along(message.nslp_id, accepted.confirm.session, &accepted.confirm.mri));
        let path = self.path_of(accepted);
        self.responding.insert(key.clone(), Box::new(Responding::new(path)));
        self.responding_event(&key, responding::Event::RxConfirm, RespondingInput::Confirm(Box::new(accepted.clone())), now);
    }

    /// The name by which the session's other state is known, if there is one: a router mostly has both.
    pub(super) fn shared_key(&self, key: RoutingKey) -> RoutingKey {
        let known = self.querying.get_key_value(&key).map(|(known, _)| known);
        known.or_else(|| self.responding.get_key_value(&key).map(|(known, _)| known)).cloned().unwrap_or(key)
    }
}
