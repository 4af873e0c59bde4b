//! Responses: the querying node's part of the handshake after the Query (RFC 5971 §4.4.1, §4.4.3).

use core::net::SocketAddr;

use super::Node;
use super::association::{Association, AssociationInput};
use super::machines::association;
use super::machines::node::{Event, Guards};
use super::machines::querying;
use super::node_machine::NodeInput;
use super::querying::{AcceptedResponse, Plan, QueryingInput};
use super::receive::Received;
use super::routing_state::{Origin, Peer, RoutingKey};
use super::task::Task;
use crate::api::AssociationId;
use crate::time::Instant;
use crate::wire::{NslpId, Response};

impl Node {
    pub(super) fn receive_response(&mut self, response: Response, received: Received, now: Instant) {
        // A Response's MRI is the Query's inverted (G-142).
        let key = RoutingKey::against(received.message.nslp_id, response.session, &response.mri);
        let Some(machine) = self.querying.get(&key) else {
            return self.node_event(Event::RxResponse, Guards::default(), &NodeInput::Stray(Box::new(received)), now);
        };
        // G-087: nothing of the Response counts before its cookie does.
        let Some(asked_at) = machine.asked_at(&response.query_cookie) else {
            self.counters.bad_query_cookies += 1;
            tracing::debug!(session = %key.session, "Response without a cookie of this handshake");
            return;
        };
        let is_own = response.nli.peer == self.config.identity;
        if is_own || response.nat.is_some() || !self.is_from_its_peer(&response, &received.origin) {
            self.counters.address_mismatch += 1;
            return;
        }
        let plan = self.plan(key.nslp_id, &response, &received.origin, asked_at);
        let accepted = AcceptedResponse { response, origin: received.origin, hop_count: received.message.hop_count, plan };
        self.querying_event(&key, querying::Event::RxResponse, QueryingInput::Response(Box::new(accepted)), now);
    }

    /// On an association: whether it is the peer known there that answers.
    fn is_from_its_peer(&self, response: &Response, origin: &Origin) -> bool {
        let Some(id) = origin.association() else { return true };
        let known = self.associations.get(id).and_then(|association| association.peer.as_ref());
        known.is_some_and(|peer| peer.identity == response.nli.peer)
    }

    /// How to reach the peer; `None` if there is no acceptable way.
    fn plan(&mut self, nslp_id: NslpId, response: &Response, origin: &Origin, asked_at: Instant) -> Option<Plan> {
        let registration = self.registration(nslp_id)?;
        let origin = match origin {
            Origin::Association(id) => return Some(Plan::Reuse(*id)),
            Origin::Datagram(origin) => origin,
        };
        if registration.offer.is_empty() {
            return Some(Plan::Datagram(SocketAddr::new(response.nli.address, origin.source.port())));
        }
        let offer = response.responder.as_ref()?.stack.as_ref()?;
        let port = registration.choose(offer)?;
        if let Some(id) = self.common_association(&Peer::from(&response.nli), asked_at) {
            return Some(Plan::Reuse(id));
        }
        if self.associations.len() >= self.config.caps.associations {
            self.counters.refused_when_full += 1;
            return None;
        }
        Some(Plan::Open(SocketAddr::new(response.nli.address, port)))
    }

    /// An association to this peer that was not there, for the peer, when it was asked.
    ///
    /// Had the peer known one, it would have answered over it. So one that was confirmed well before the question is dead
    /// at the other end: it is tested, and not used.
    fn common_association(&mut self, peer: &Peer, asked_at: Instant) -> Option<AssociationId> {
        let grace = self.config.query_timer.saturating_mul(2);
        let is_young = |association: &Association| !association.is_open() || association.confirmed.is_none_or(|at| at + grace >= asked_at);
        let usable = |association: &Association| {
            association.is_open() || association.state == association::State::AwaitingConnection && association.opened_here
        };
        let mut found = None;
        for (id, association) in self.associations.of_peer(peer).filter(|(_, association)| usable(association)) {
            if is_young(association) {
                found = found.or(Some(id));
            } else {
                self.tasks.push_back(Task::Association(id, association::Event::ToSendHello, AssociationInput::None));
            }
        }
        found
    }
}
