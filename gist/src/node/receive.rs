//! Reception: what every message goes through before its type matters (RFC 5971 §4.3.1, §5.3, §5.5).

use bytes::Bytes;

use super::Node;
use super::association::AssociationInput;
use super::input::Datagram;
use super::machines::association::Event;
use super::routing_state::{DatagramOrigin, Origin};
use crate::api::AssociationId;
use crate::time::Instant;
use crate::wire::datagram::{self, DatagramError};
use crate::wire::{
    Body, Direction, ErrorCause, HEADER_LENGTH, HeaderFault, Message, MessageType, NslpId, ObjectType, ObjectTypeFault, header_bytes,
};

/// A message that decodes, with its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Received {
    /// As it came, without magic number.
    pub(super) raw: Bytes,
    /// Its hop count already is reduced (G-033).
    pub(super) message: Message,
    pub(super) origin: Origin,
}

impl Received {
    /// The common header as it came.
    pub(super) fn header(&self) -> [u8; HEADER_LENGTH] {
        header_bytes(&self.raw).unwrap_or_default()
    }
}

impl Node {
    pub(super) fn receive_datagram(&mut self, datagram: Datagram, now: Instant) {
        self.counters.datagrams_received += 1;
        let Datagram { source, destination, ip_ttl, interface, query_mode, router_alert, payload } = datagram;
        let intercepted = query_mode && !self.is_local(destination);
        let origin = DatagramOrigin { source, destination, ip_ttl, interface, intercepted, query_mode, router_alert };
        if let Some((raw, header)) = self.not_for_us(&payload, &origin) {
            return self.pass_by(&raw, header, &origin, now);
        }
        let message = match datagram::decode(payload.clone()) {
            Ok(message) => message,
            Err(DatagramError::NoMagic) => {
                self.counters.no_magic += 1;
                return;
            }
            Err(DatagramError::Message(error)) => return self.answer_undecodable(&error, Origin::Datagram(origin), now),
        };
        let raw = datagram::message(&payload).unwrap_or_default();
        let Some(received) = self.take_hop(Received { raw, message, origin: Origin::Datagram(origin) }, now) else { return };
        if let Some((cause, object)) = self.wrong_envelope(&received, &origin) {
            let info = object.map(|object| crate::wire::ErrorInfo::ObjectType(object.number()));
            self.counters.wrong_encapsulation += 1;
            return self.answer(&received, cause, info.into_iter().collect(), now);
        }
        if self.is_address_wrong(&received, &origin) {
            self.counters.address_mismatch += 1;
            return self.answer_untranslated(&received, &origin, now);
        }
        self.dispatch(received, now);
    }

    pub(super) fn receive_on_association(&mut self, id: AssociationId, raw: Bytes, now: Instant) {
        let Some(association) = self.associations.get_mut(id).filter(|association| association.is_open()) else { return };
        association.last_heard = now;
        association.doubt.end();
        self.counters.association_messages_received += 1;
        let origin = Origin::Association(id);
        let message = match Message::decode(raw.clone()) {
            Ok(message) => message,
            Err(error) => return self.answer_undecodable(&error, origin, now),
        };
        let Some(received) = self.take_hop(Received { raw, message, origin }, now) else { return };
        match &received.message.body {
            // Each would ask for a Confirm that the peer does not take. It is as if it were still on its way.
            Body::Response(_) if self.is_overloaded(id) => self.counters.withheld += 1,
            Body::Query(_) => {
                self.counters.wrong_encapsulation += 1;
                self.answer(&received, ErrorCause::IncorrectEncapsulation, Vec::new(), now);
            }
            Body::Hello(hello) => {
                self.proven(id, hello, now);
                let input = AssociationInput::Hello(*hello);
                self.association_event(id, Event::RxMAHello, input, now);
            }
            Body::Error(_) => self.dispatch(received, now),
            Body::Response(_) | Body::Confirm(_) | Body::Data(_) => {
                let input = AssociationInput::Message(Box::new(received));
                self.association_event(id, Event::RxMessage, input, now);
            }
        }
    }

    /// Refuses hop count 0 and takes one hop off (G-032, G-033).
    fn take_hop(&mut self, mut received: Received, now: Instant) -> Option<Received> {
        if let Some(left) = received.message.hop_count.checked_sub(1) {
            received.message.hop_count = left;
            return Some(received);
        }
        self.counters.hop_count_zero += 1;
        self.answer(&received, ErrorCause::HopLimitExceeded, Vec::new(), now);
        None
    }

    /// By type.
    pub(super) fn dispatch(&mut self, received: Received, now: Instant) {
        let nslp_id = received.message.nslp_id;
        // GIST itself is no application, whatever is registered.
        let serves = match &received.message.body {
            Body::Error(_) | Body::Hello(_) if nslp_id == NslpId::NONE => true,
            _ => nslp_id != NslpId::NONE && self.registration(nslp_id).is_some(),
        };
        if !serves {
            return self.refuse_unknown_application(&received, now);
        }
        match received.message.body.clone() {
            Body::Query(query) => self.receive_query(query, received, now),
            Body::Response(response) => self.receive_response(response, received, now),
            Body::Confirm(confirm) => self.receive_confirm(confirm, received, now),
            Body::Data(data) => self.receive_data(data, received, now),
            Body::Error(body) => self.receive_error(body, received, now),
            Body::Hello(_) => {}
        }
    }

    /// §5.5: whether the message type may come in a datagram of this kind; the error, and the object at fault if any.
    fn wrong_envelope(&self, received: &Received, origin: &DatagramOrigin) -> Option<(ErrorCause, Option<ObjectType>)> {
        let encapsulation = Some((ErrorCause::IncorrectEncapsulation, None));
        match &received.message.body {
            Body::Query(query) => {
                // G-250: a downstream Query is addressed to the flow's destination, wherever it is met. That the packet is of
                // another IP version than the flow is a fault with a name of its own.
                let end = super::receive_query::query_destination(&query.mri);
                let is_upstream = query.mri.direction() == Direction::Upstream && origin.query_mode;
                let is_addressed = origin.destination == end || origin.destination.is_ipv4() != end.is_ipv4();
                if is_upstream || is_addressed { None } else { encapsulation }
            }
            Body::Hello(_) => encapsulation,
            Body::Response(_) | Body::Confirm(_) if origin.intercepted => encapsulation,
            Body::Data(data) if data.context_free != origin.query_mode && (data.context_free || origin.intercepted) => {
                Some((ErrorCause::CommonHeaderParse(HeaderFault::InvalidCFlag), None))
            }
            Body::Data(data) if data.nli.is_none() => {
                Some((ErrorCause::ObjectType(ObjectTypeFault::Missing), Some(ObjectType::NetworkLayerInformation)))
            }
            Body::Response(_) | Body::Confirm(_) | Body::Data(_) | Body::Error(_) => None,
        }
    }

    /// S=1 says that the IP source is the signalling address; if it is not, a NAT has been at work (G-171, G-185).
    fn is_address_wrong(&self, received: &Received, origin: &DatagramOrigin) -> bool {
        let message = &received.message;
        message.source_is_signalling && message.nli().is_some_and(|nli| nli.address != origin.source.ip())
    }

    /// Nobody here serves the application (§4.3.4 cases 4 and 5).
    fn refuse_unknown_application(&mut self, received: &Received, now: Instant) {
        self.counters.unknown_nslp_id += 1;
        let cause = match (received.message.message_type(), &received.origin) {
            // On the way, somebody further may serve it: see `pass_by`.
            (MessageType::Query | MessageType::Data, Origin::Datagram(origin)) if origin.query_mode => ErrorCause::EndpointFound,
            (MessageType::Query, _) => ErrorCause::EndpointFound,
            // G-127: nothing is said about an unexpected Response.
            (MessageType::Response, _) => return,
            _ => ErrorCause::UnknownNslpId,
        };
        self.answer(received, cause, Vec::new(), now);
    }
}
