//! Error messages received (RFC 5971 §4.4.6, §5.6): none is ever answered.

use super::Node;
use super::machines::node::{Event, Guards};
use super::machines::{querying, responding};
use super::node_machine::NodeInput;
use super::querying::QueryingInput;
use super::receive::Received;
use super::responding::RespondingInput;
use super::routing_state::{Origin, Route, RoutingKey};
use crate::api::AssociationId;
use crate::time::Instant;
use crate::wire::{CommonHeader, ErrorBody, ErrorCause, ObjectValueFault};

impl Node {
    pub(super) fn receive_error(&mut self, body: ErrorBody, received: Received, now: Instant) {
        self.counters.errors_received += 1;
        let error = body.error;
        let header = CommonHeader::from_bytes(error.header);
        let cause = error.cause();
        let shown = cause.map(|cause| cause.to_string());
        tracing::debug!(code = error.code, subcode = error.subcode, cause = shown, comment = error.comment, "Error received");
        let (Some(session), Some(mri)) = (error.session, &error.mri) else { return };
        let along = RoutingKey::along(header.nslp_id, session, mri);
        match cause {
            // The peer has other ideas of the session's way, or none: for this node the state is gone either way.
            Some(ErrorCause::NoRoutingState | ErrorCause::IncorrectlyDelivered) => {
                let against = RoutingKey::against(header.nslp_id, session, mri);
                let route = self.querying.get(&along).and_then(|machine| machine.route);
                let candidate = received.origin.association().filter(|id| self.is_candidate(&along, *id));
                let other = self.responding.get(&against).and_then(|machine| machine.path_by(|route| concerns(route, &received)));
                if let Some(association) = candidate {
                    let input = QueryingInput::Ended { association, reason: "the peer refused the Confirm".to_owned() };
                    self.querying_event(&along, querying::Event::ErRefused, input, now);
                } else if route.is_some_and(|route| concerns(&route, &received)) {
                    self.querying_event(&along, querying::Event::ErNoRSM, QueryingInput::None, now);
                } else if other.is_some() {
                    let input = received.origin.association().map_or(RespondingInput::None, RespondingInput::Ended);
                    self.responding_event(&against, responding::Event::ErNoRSM, input, now);
                } else {
                    self.node_event(Event::ErNoRSM, Guards::default(), &NodeInput::Stray(Box::new(received)), now);
                }
            }
            // A debugging peer's way to refuse a Confirm (G-337).
            Some(ErrorCause::ObjectValue(ObjectValueFault::InvalidCookie)) => {
                if let Some(association) = received.origin.association().filter(|id| self.is_candidate(&along, *id)) {
                    let input = QueryingInput::Ended { association, reason: "the peer refused the Responder-Cookie".to_owned() };
                    self.querying_event(&along, querying::Event::ErRefused, input, now);
                }
            }
            // Anybody who has seen the Query can write this too: a hint at most.
            Some(ErrorCause::EndpointFound) if self.querying.get(&along).is_some_and(|machine| machine.handshake.has_sent(&header)) => {
                self.counters.endpoints_found += 1;
                self.querying_event(&along, querying::Event::ErEndpointFound, QueryingInput::None, now);
            }
            _ => {}
        }
    }
}

impl Node {
    fn is_candidate(&self, key: &RoutingKey, id: AssociationId) -> bool {
        self.querying.get(key).is_some_and(|machine| machine.candidate(id).is_some())
    }
}

/// Only the peer itself, over the state's own route, can say that it has lost the state (G-135).
fn concerns(route: &Route, received: &Received) -> bool {
    match (route, &received.origin) {
        (Route::Association(own), Origin::Association(id)) => own == id,
        (Route::Datagram(own), Origin::Datagram(origin)) => *own == origin.source,
        _ => false,
    }
}
