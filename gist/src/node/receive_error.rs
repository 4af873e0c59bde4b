//! Error messages received (RFC 5971 §4.4.6, §5.6): none is ever answered.

use super::Node;
use super::machines::node::{Event, Guards};
use super::machines::{querying, responding};
use super::node_machine::NodeInput;
use super::querying::QueryingInput;
use super::receive::Received;
use super::responding::RespondingInput;
use super::routing_state::{Origin, Route, RoutingKey};
use super::translation::original;
use crate::api::AssociationId;
use crate::time::Instant;
use crate::wire::{CommonHeader, ErrorBody, ErrorCause, MessageType, ObjectValueFault};

impl Node {
    pub(super) fn receive_error(&mut self, body: ErrorBody, received: Received, now: Instant) {
        self.counters.errors_received += 1;
        let error = body.error;
        let header = CommonHeader::from_bytes(error.header);
        let cause = error.cause();
        let shown = cause.map(|cause| cause.to_string());
        tracing::debug!(code = error.code, subcode = error.subcode, cause = shown, comment = error.comment, "Error received");
        // What a NAT has changed is known here by its original (G-324).
        let nat = body.nat.as_ref().filter(|_| self.config.behind_nats);
        let (Some(session), Some(mri)) = (error.session, error.mri.as_ref().map(|mri| original(nat, mri))) else { return };
        let mri = &self.local_form(header.nslp_id, session, mri);
        let along = RoutingKey::along(header.nslp_id, session, mri);
        // Whatever a Confirm is refused for, such as its cookie by a debugging peer (G-337): the answer behind it proves nothing.
        let is_refusal = header.message_type == Ok(MessageType::Confirm) || cause.is_some_and(ends_routing_state);
        if let Some(association) = received.origin.association().filter(|id| is_refusal && self.is_candidate(&along, *id)) {
            let input = QueryingInput::Ended { association, reason: "the peer refused the Confirm".to_owned() };
            return self.querying_event(&along, querying::Event::ErRefused, input, now);
        }
        match cause {
            Some(cause) if ends_routing_state(cause) => {
                let against = RoutingKey::against(header.nslp_id, session, mri);
                let route = self.querying.get(&along).and_then(|machine| machine.route());
                // It would end the responding end, which cannot ask: in a datagram it is nobody's word there, and what is gone ends with its
                // validity (G-135).
                let other = received.origin.association().filter(|_| {
                    self.responding.get(&against).is_some_and(|machine| machine.hop_by(|route| concerns(route, &received)).is_some())
                });
                if route.is_some_and(|route| concerns(&route, &received)) {
                    self.querying_event(&along, querying::Event::ErNoRSM, QueryingInput::None, now);
                } else if let Some(association) = other {
                    self.responding_event(&against, responding::Event::ErNoRSM, RespondingInput::Ended(association), now);
                } else {
                    self.node_event(Event::ErNoRSM, Guards::default(), &NodeInput::Stray(Box::new(received)), now);
                }
            }
            // Anybody who has seen the Query can write this too: a hint at most.
            Some(ErrorCause::EndpointFound)
                if self.querying.get(&along).is_some_and(|machine| machine.has_sent(&header, nat.is_some())) =>
            {
                self.counters.endpoints_found += 1;
                self.querying_event(&along, querying::Event::ErEndpointFound, QueryingInput::None, now);
            }
            Some(ErrorCause::MessageTooLarge) if self.take_stateless(&along, &header) => self.begin_handshake(along, now),
            // A Query answers no cookie that could be wrong.
            Some(ErrorCause::ObjectValue(ObjectValueFault::InvalidCookie)) | None => {}
            Some(cause) => self.note_refusal(&along, &header, nat.is_some(), cause),
        }
    }

    /// A Query of this node was refused, somebody says. The handshake goes on, since another may take it; if nobody does, this is why.
    fn note_refusal(&mut self, along: &RoutingKey, header: &CommonHeader, translated: bool, cause: ErrorCause) {
        if let Some(machine) = self.querying.get_mut(along).filter(|machine| machine.has_sent(header, translated)) {
            machine.note_refusal(cause);
        }
    }

    /// Whether a message of this header and flow went without routing state lately; each is remembered for one Error.
    fn take_stateless(&mut self, along: &RoutingKey, header: &CommonHeader) -> bool {
        let is_it = |(key, words): &(RoutingKey, u16)| key == along && *words == header.words;
        let is_data = header.message_type == Ok(MessageType::Data) && header.context_free;
        let place = self.stateless.iter().position(is_it).filter(|_| is_data);
        place.and_then(|place| self.stateless.remove(place)).is_some()
    }

    /// G-069: what is too long for a datagram on this path needs an association. The message is lost; the next one finds a peer.
    fn begin_handshake(&mut self, along: RoutingKey, now: Instant) {
        let has_stack = self.registration(along.nslp_id).is_some_and(|registration| !registration.offer.is_empty());
        if has_stack && !self.querying.contains_key(&along) {
            let guards = Guards { query_mode_possible: self.own_address_for(&along.mri()).is_some(), ..Guards::default() };
            self.node_event(Event::TgEstablish, guards, &NodeInput::Wanted(Box::new(along)), now);
        }
    }
}

impl Node {
    fn is_candidate(&self, key: &RoutingKey, id: AssociationId) -> bool {
        self.querying.get(key).is_some_and(|machine| machine.candidate(id).is_some())
    }
}

/// The peer has other ideas of the session's way, or none, or its application is gone: for the node that it tells the state is gone either way.
pub(super) fn ends_routing_state(cause: ErrorCause) -> bool {
    matches!(cause, ErrorCause::NoRoutingState | ErrorCause::IncorrectlyDelivered | ErrorCause::UnknownNslpId)
}

/// Only the peer itself, over the state's own route, can say that it has lost the state (G-135).
fn concerns(route: &Route, received: &Received) -> bool {
    match (route, &received.origin) {
        (Route::Association(own), Origin::Association(id)) => own == id,
        (Route::Datagram(own), Origin::Datagram(origin)) => *own == origin.source,
        _ => false,
    }
}
