//! Responses: the querying node's part of the handshake after the Query (RFC 5971 §4.4.1, §4.4.3).

use core::net::{IpAddr, SocketAddr};

use super::Node;
use super::association::Association;
use super::machines::association;
use super::machines::node::{Event, Guards};
use super::machines::querying;
use super::node_machine::NodeInput;
use super::querying::{AcceptedResponse, Plan, QueryingInput};
use super::querying_state::Querying;
use super::receive::Received;
use super::routing_state::{Origin, Peer, Route, RoutingKey};
use super::stack::Choice;
use crate::api::{AssociationId, PathId, SendError};
use crate::time::Instant;
use crate::wire::{MaProtocol, Response};

/// What an association has to be to do for a Response.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    path: PathId,
    /// By which address of this node the peer finds it.
    named: Option<IpAddr>,
    /// Over TLS.
    protected: bool,
    /// Whether the peer would have answered over one of TCP alone, had it known one.
    answers_over_plain: bool,
}

impl Node {
    pub(super) fn receive_response(&mut self, mut response: Response, received: Received, now: Instant) {
        // What a NAT has changed is known here by its original (G-324).
        if let Some(nat) = response.nat.as_ref().filter(|_| self.config.behind_nats) {
            response.mri = nat.original.inverted();
        }
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
        if machine.is_outdated(&response.query_cookie) {
            self.counters.bad_query_cookies += 1;
            tracing::debug!(session = %key.session, "Response to a Query that went by a former route");
            return;
        }
        let is_own = self.is_own_identity(&response.nli.peer);
        if is_own || response.nat.is_some() && !self.config.behind_nats || !self.is_from_its_peer(&response, &received.origin) {
            self.counters.address_mismatch += 1;
            return;
        }
        let named = machine.own_for(&response.query_cookie);
        let own = machine.route().and_then(|route| route.association()).filter(|_| machine.peer() == Some(&Peer::from(&response.nli)));
        // Its peer does not know it by another address (G-105), and has answered by datagram because of that.
        let own = own.filter(|id| self.associations.get(*id).is_some_and(|association| association.is_known_by(named)));
        let plan = self.plan(&key, &response, &received.origin, (asked_at, now), own, named);
        let accepted = AcceptedResponse { response, origin: received.origin, hop_count: received.message.hop_count, plan, own: named };
        self.querying_event(&key, querying::Event::RxResponse, QueryingInput::Response(Box::new(accepted)), now);
    }

    /// On an association: whether it is the peer known there that answers.
    fn is_from_its_peer(&self, response: &Response, origin: &Origin) -> bool {
        let Some(id) = origin.association() else { return true };
        let known = self.associations.get(id).filter(|association| association.peer.is_some());
        known.is_some_and(|association| association.may_claim(&Peer::from(&response.nli)))
    }

    /// The peer has answered over an association, and counts at once. Over TCP alone it does not go before somebody who may yet
    /// authenticate itself, unless it is the peer that the state has: that one keeps the state until it is replaced.
    fn answered_over(&mut self, key: &RoutingKey, id: AssociationId, now: Instant) -> Option<Plan> {
        let is_late = |machine: &Querying| machine.route() != Some(Route::Association(id)) && self.awaits_protected(machine, now);
        if !self.is_protected(id) && self.querying.get(key).is_some_and(|machine| is_late(machine)) {
            self.counters.unprotected += 1;
            return None;
        }
        self.reuse(key, id)
    }

    /// An association that is open already: whether its peer may be the next node of the flow. If not, the application
    /// hears why nobody else was found.
    fn reuse(&mut self, key: &RoutingKey, id: AssociationId) -> Option<Plan> {
        let path = self.querying.get(key)?.path;
        if self.associations.get(id).is_some_and(|association| association.path != path) {
            tracing::debug!(session = %key.session, %id, %path, "answered over an association that leaves by another way");
            return None;
        }
        if self.associations.get(id).is_some_and(|association| !association.protected) {
            let demanding = self.querying.get(key).is_some_and(|machine| self.demands_protection(machine));
            if demanding || !self.takes_unprotected(key.nslp_id) {
                self.counters.unprotected += 1;
                return None;
            }
        }
        if self.associations.get(id).is_some_and(|association| association.is_open()) && !self.may_serve(id, &key.mri()) {
            tracing::warn!(session = %key.session, %id, "the peer that answered may not serve this flow");
            self.counters.flows_refused += 1;
            if let Some(machine) = self.querying.get_mut(key) {
                machine.note_setback(SendError::NotAuthorised);
            }
            return None;
        }
        Some(Plan::Reuse(id))
    }

    /// How to reach the peer; `None` if there is no acceptable way. `own` is the association that the state has to it, and `named` the address
    /// that this node has named in the Query.
    fn plan(
        &mut self,
        key: &RoutingKey,
        response: &Response,
        origin: &Origin,
        (asked_at, now): (Instant, Instant),
        own: Option<AssociationId>,
        named: Option<IpAddr>,
    ) -> Option<Plan> {
        let registration = self.registration(key.nslp_id)?;
        let origin = match origin {
            // Nor does a peer of this application have an association for it.
            Origin::Association(_) if registration.offer.is_empty() => {
                self.counters.wrong_encapsulation += 1;
                return None;
            }
            Origin::Association(id) => return self.answered_over(key, *id, now),
            Origin::Datagram(origin) => origin,
        };
        if registration.offer.is_empty() {
            return Some(Plan::Datagram(SocketAddr::new(response.nli.address, origin.source.port())));
        }
        let demanding = self.querying.get(key).is_some_and(|machine| self.demands_protection(machine));
        let offer = response.responder.as_ref().and_then(|responder| responder.stack.as_ref());
        let Some(Choice { port, protected }) = offer.and_then(|offer| registration.choose(offer, demanding)) else {
            self.counters.stacks_refused += 1;
            return None;
        };
        let remote = SocketAddr::new(response.nli.address, port);
        if !self.may_be_opened_to(remote.ip(), &key.mri()) {
            self.counters.opens_refused += 1;
            return None;
        }
        let path = self.querying.get(key)?.path;
        // It answers over what stands, unless that is less than it offers.
        let answers_over_plain =
            !offer.is_some_and(|offer| offer.proposal.profiles.iter().any(|profile| profile.contains(MaProtocol::Tls)));
        let wanted = Wanted { path, named, protected, answers_over_plain };
        let common = self.common_association(&Peer::from(&response.nli), remote, wanted, (asked_at, now));
        let is_good =
            |association: &Association| association.is_open() && association.protected >= protected && !self.is_suspect(association, now);
        if own.and_then(|id| self.associations.get(id)).is_some_and(is_good) {
            // The state's own peer would answer over the association. If that was there before the question it is being
            // tested; unless it is suspect, this Response is somebody else's, or answers an earlier transmission.
            self.counters.answered_elsewhere += 1;
            return None;
        }
        if let Some(id) = common {
            return self.reuse(key, id);
        }
        if !self.has_part_of_associations(protected) || !self.make_room(None, protected, now) {
            self.counters.refused_when_full += 1;
            return None;
        }
        Some(Plan::Open { remote, protected })
    }

    /// An association to this peer that was not there, for the peer, when it was asked.
    ///
    /// Had the peer known one, it would have answered over it. So one that was confirmed well before the question is dead
    /// at the other end: it is tested, and not used. Nor is one that is suspect already.
    ///
    /// One that is still being opened proves nothing yet: it counts only if it goes to the same place.
    ///
    /// One that leaves by another way out than the Query did, or whose peer knows this node by another address, is none of either.
    ///
    /// One that protects less than what would be opened is none either (G-228), and one that protects more is taken first.
    fn common_association(
        &mut self,
        peer: &Peer,
        remote: SocketAddr,
        wanted: Wanted,
        (asked_at, now): (Instant, Instant),
    ) -> Option<AssociationId> {
        let Wanted { path, named, protected, answers_over_plain } = wanted;
        let grace = self.config.query_timer.saturating_mul(2);
        let is_young = |association: &Association| {
            let is_unused = !association.is_open() || association.confirmed.is_none_or(|at| at + grace >= asked_at);
            is_unused || !association.protected && !answers_over_plain
        };
        let usable = |association: &Association| {
            let opens = association.state == association::State::AwaitingConnection && association.remote == remote;
            let is_fit = association.path == path && association.is_known_by(named) && association.protected >= protected;
            is_fit && (association.is_open() || opens)
        };
        let usable = self.associations.of_peer(peer).filter(|(_, association)| usable(association));
        let (young, old): (Vec<_>, Vec<_>) = usable.partition(|(_, association)| is_young(association));
        let trusted = || young.iter().filter(|(_, association)| !self.is_suspect(association, now));
        let found = trusted().find(|(_, association)| association.protected).or_else(|| trusted().next()).map(|(id, _)| *id);
        let old: Vec<_> = old.into_iter().map(|(id, _)| id).collect();
        old.into_iter().for_each(|id| self.doubt(id, now));
        found
    }
}
