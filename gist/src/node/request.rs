//! Requests of the application (RFC 5971 Appendix B).

use super::Node;
use super::association::Association;
use super::machines::node::{Event, Guards};
use super::machines::{querying, responding};
use super::node_machine::NodeInput;
use super::querying::QueryingInput;
use super::responding::RespondingInput;
use super::routing_state::{Route, RoutingKey};
use crate::api::{PathId, PeerHandle, Request, Routing, SendError, SendMessage};
use crate::time::Instant;
use crate::wire::{Direction, MAX_VALUE_LENGTH, Mri, NslpId};

impl Node {
    pub(super) fn request(&mut self, request: Request, now: Instant) {
        match request {
            Request::Send(message) => self.send(message, now),
            Request::SetPeering { nslp_id, willing } => self.set_peering(nslp_id, willing),
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
        match message.routing {
            Routing::State => {}
            Routing::Stateless => return self.send_without_state(along, message, now),
            Routing::Peer(peer) => return self.send_explicitly(peer, message, now),
        }
        // G-258: state that a Query along the flow has made counts more than state of one against it, once somebody has confirmed it.
        let has_better = message.mri.direction() == Direction::Upstream && self.is_shown(&against);
        if has_better {
            self.responding_event(&against, responding::Event::TgNSLPData, RespondingInput::Message(message), now);
        } else if let Some(known) = self.querying.get(&along).map(|machine| machine.path) {
            if known != message.path || self.needs_better_peer(&along, &message) {
                if let Some(machine) = self.querying.get_mut(&along) {
                    machine.protected |= message.attributes.secure;
                }
                self.querying_event(&along, querying::Event::TgOtherPath, QueryingInput::Path(message.path), now);
            }
            self.querying_event(&along, querying::Event::TgNSLPData, QueryingInput::Message(message), now);
        } else if self.may_use_responding(&against, &message) {
            self.responding_event(&against, responding::Event::TgNSLPData, RespondingInput::Message(message), now);
        } else {
            self.send_without_state(along, message, now);
        }
    }

    /// What goes downstream goes to the peer that a Query along the flow has found; state of an upstream Query is used
    /// only where such Queries are wanted, and for what its peer is good enough for.
    fn may_use_responding(&self, key: &RoutingKey, message: &SendMessage) -> bool {
        let Some(route) = self.responding.get(key).map(|machine| machine.hop.route()) else { return false };
        if message.mri.direction() == Direction::Upstream {
            // A peer that this node asks for itself goes before one of whom there is only a Query.
            return self.is_shown(key) || !self.has_query_mode(key.nslp_id, &message.mri);
        }
        self.takes_upstream_queries(message.nslp_id) && !self.asks_for_more(message, route)
    }

    /// Whether there is a responding state that a Confirm has shown to be somebody's.
    pub(super) fn is_shown(&self, key: &RoutingKey) -> bool {
        self.responding.contains_key(key) && !self.early.is_unconfirmed(key)
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
        let is_stateless = message.routing == Routing::Stateless;
        let length = message.payload.len();
        if message.hop_count == Some(0) {
            Some(SendError::HopCountZero)
        } else if self.is_local(end) {
            Some(SendError::SelfDestination)
        } else if length > registration.longest_payload.min(MAX_VALUE_LENGTH) || !length.is_multiple_of(4) {
            Some(SendError::TooLarge)
        } else if demanding && (is_stateless || registration.offer.is_empty()) || is_stateless && registration.is_secure() {
            // G-051: only an association could give that, and this message or application has none.
            Some(SendError::NoEncapsulation)
        } else {
            None
        }
    }

    /// Rule 5 of §6.1.
    fn send_without_state(&mut self, key: RoutingKey, message: SendMessage, now: Instant) {
        let guards = Guards {
            // Without a route there is no address for the NLI.
            query_mode_possible: self.has_query_mode(key.nslp_id, &key.mri()) && self.own_address_for(&key.mri()).is_some(),
            stateless_send: message.routing == Routing::Stateless,
            ..Guards::default()
        };
        let input = NodeInput::Message { key: Box::new(key), message: Box::new(message) };
        self.node_event(Event::TgNSLPData, guards, &input, now);
    }

    /// Whether there is a way to look for a peer in this direction: along the flow by either method, against it along the path only, and
    /// only for an application that wants that (G-062, G-255, G-263).
    fn has_query_mode(&self, nslp_id: NslpId, mri: &Mri) -> bool {
        match (mri.direction(), mri) {
            (Direction::Downstream, _) => true,
            (Direction::Upstream, Mri::PathCoupled(_)) => self.registration(nslp_id).is_some_and(|registration| registration.asks_upstream),
            (Direction::Upstream, Mri::LooseEnd(_)) => false,
        }
    }

    /// Past the routing state, to a peer that the application has heard from (G-314).
    fn send_explicitly(&mut self, peer: PeerHandle, message: SendMessage, now: Instant) {
        let demanding = message.attributes.reliable || message.attributes.secure;
        let route = self.route_to(peer).filter(|route| self.has_room(*route) && (!demanding || route.association().is_some()));
        let Some(route) = route else { return self.report_status(message, SendError::UnknownPeer) };
        let own = if let Route::Datagram(address) = route { self.backend.0.egress_address(address.ip()) } else { None };
        self.send_data(route, (own, PathId::ROUTED), self.config.validity, message, now);
    }

    /// How a peer is reached that a routing state or an association knows by this handle.
    fn route_to(&self, peer: PeerHandle) -> Option<Route> {
        let asked = self.querying.values().filter(|machine| machine.handle() == Some(peer)).filter_map(|machine| machine.route());
        let answered =
            self.responding.values().flat_map(|machine| [Some(&machine.hop), machine.second().map(|second| &second.hop)]).flatten();
        let open = self.associations.iter().filter(|(_, association)| association.is_open());
        let known =
            open.filter(|(id, association)| association.peer.as_ref().is_some_and(|known| self.peer_handle(known, Some(*id)) == peer));
        asked
            .chain(answered.filter(|hop| hop.handle == peer).map(|hop| hop.route()))
            .chain(known.map(|(id, _)| Route::Association(id)))
            .find(|route| route.association().is_none_or(|id| self.associations.get(id).is_some_and(Association::is_open)))
    }
}
