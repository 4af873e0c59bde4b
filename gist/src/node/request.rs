//! Requests of the application (RFC 5971 Appendix B).

use super::Node;
use super::machines::node::{Event, Guards};
use super::machines::{querying, responding};
use super::node_machine::NodeInput;
use super::querying::QueryingInput;
use super::responding::RespondingInput;
use super::routing_state::RoutingKey;
use crate::api::{Request, SendError, SendMessage};
use crate::time::Instant;
use crate::wire::{Direction, MAX_VALUE_LENGTH};

impl Node {
    pub(super) fn request(&mut self, request: Request, now: Instant) {
        match request {
            Request::Send(message) => self.send(message, now),
            Request::SetStateLifetime { nslp_id, session, mri, lifetime } => {
                let along = RoutingKey::along(nslp_id, session, &mri);
                let against = RoutingKey::against(nslp_id, session, &mri);
                self.querying_event(&along, querying::Event::TgSetLifetime, QueryingInput::Lifetime(lifetime), now);
                self.responding_event(&against, responding::Event::TgSetLifetime, RespondingInput::Lifetime(lifetime), now);
            }
            Request::InvalidateRoutingState { nslp_id, session, mri, status, urgent } => {
                let key = RoutingKey::along(nslp_id, session, &mri);
                self.querying_event(&key, querying::Event::TgInvalidate, QueryingInput::Invalidate { status, urgent }, now);
            }
            Request::AdoptPeer { nslp_id, session, mri, peer } => {
                let key = RoutingKey::against(nslp_id, session, &mri);
                self.responding_event(&key, responding::Event::TgAdoptPeer, RespondingInput::Adopt(peer), now);
            }
        }
    }

    fn send(&mut self, message: SendMessage, now: Instant) {
        if let Some(error) = self.objection(&message) {
            return self.report_status(message, error);
        }
        let along = RoutingKey::along(message.nslp_id, message.session, &message.mri);
        let against = RoutingKey::against(message.nslp_id, message.session, &message.mri);
        if let Some(known) = self.querying.get(&along).map(|machine| machine.path) {
            if known != message.path {
                self.querying_event(&along, querying::Event::TgOtherPath, QueryingInput::Path(message.path), now);
            }
            self.querying_event(&along, querying::Event::TgNSLPData, QueryingInput::Message(message), now);
        } else if self.responding.contains_key(&against) && self.may_use_responding(&message) {
            self.responding_event(&against, responding::Event::TgNSLPData, RespondingInput::Message(message), now);
        } else {
            self.send_without_state(along, message, now);
        }
    }

    /// What goes downstream goes to the peer that a Query along the flow has found; state of an upstream Query is used
    /// only where such Queries are wanted.
    fn may_use_responding(&self, message: &SendMessage) -> bool {
        message.mri.direction() == Direction::Upstream || self.takes_upstream_queries(message.nslp_id)
    }

    /// What speaks against sending the message at all.
    fn objection(&self, message: &SendMessage) -> Option<SendError> {
        let Some(registration) = self.registration(message.nslp_id) else { return Some(SendError::NoEncapsulation) };
        // G-024, G-048: the end the message travels towards.
        let end = match message.mri.direction() {
            Direction::Downstream => message.mri.destination(),
            Direction::Upstream => message.mri.source(),
        };
        let demanding = message.attributes.reliable || message.attributes.secure;
        let length = message.payload.len();
        if message.hop_count == Some(0) {
            Some(SendError::HopCountZero)
        } else if self.is_local(end) {
            Some(SendError::SelfDestination)
        } else if length > registration.longest_payload.min(MAX_VALUE_LENGTH) || !length.is_multiple_of(4) {
            Some(SendError::TooLarge)
        } else if demanding && registration.offer.is_empty() {
            // G-051: only an association could give that, and this application has none.
            Some(SendError::NoEncapsulation)
        } else {
            None
        }
    }

    /// Rule 5 of §6.1.
    fn send_without_state(&mut self, key: RoutingKey, message: SendMessage, now: Instant) {
        let guards = Guards {
            // Upstream Queries are optional (G-255) and not sent here; without a route there is no address for the NLI.
            query_mode_possible: key.mri.direction() == Direction::Downstream && self.own_address_for(&key.mri).is_some(),
            ..Guards::default()
        };
        let input = NodeInput::Message { key: Box::new(key), message: Box::new(message) };
        self.node_event(Event::TgNSLPData, guards, &input, now);
    }
}
