//! Making messages and handing them out (RFC 5971 §4.3.3, §5.3).

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use super::association::AssociationInput;
use super::machines::association::Event;
use super::machines::querying::State;
use super::querying::AcceptedResponse;
use super::querying_state::Querying;
use super::rate::{Admission, Purpose};
use super::receive_query::query_destination;
use super::routing_state::{Route, RoutingKey};
use super::task::Task;
use super::{MOST_STATELESS, Node, Output, Transmit};
use crate::api::{AssociationId, PathId, Routing, SendError, SendMessage, Transport};
use crate::time::Instant;
use crate::wire::datagram::{self, GIST_PORT};
use crate::wire::{
    Body, CommonHeader, Confirm, Cookie, Data, Direction, Message, Mri, Nli, NslpId, PeerIdentity, Query, StackConfiguration, header_bytes,
};

/// GIST hop count of messages made here if the application gives none.
pub(super) const HOP_COUNT: u8 = 64;

/// IP TTL of Queries, told in their NLI so that the next node can measure its distance (G-160).
const QUERY_TTL: u8 = 64;

/// IP TTL of upstream Queries, which reach one link only (G-260).
const UPSTREAM_TTL: u8 = 255;

/// What of a packet's length is not left to a GIST message in a datagram (G-053).
const ENCAPSULATION: usize = 64;

/// The packet that every path takes (G-055), in bytes.
pub const SMALLEST_PATH_MTU: u16 = 576;

/// What has to take a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way {
    /// The path to this peer.
    To(IpAddr),
    /// A path of unknown end, which begins as the one to this address does.
    Towards(IpAddr),
}

impl Node {
    /// The address to be reached at for a flow: that of the interface the flow leaves by, or for a Query against it comes by (G-158).
    pub(super) fn own_address_for(&self, mri: &Mri) -> Option<IpAddr> {
        let (near, far) = match mri.direction() {
            Direction::Downstream => (mri.source(), mri.destination()),
            Direction::Upstream => (mri.destination(), mri.source()),
        };
        if self.is_local(near) { Some(near) } else { self.backend.0.egress_address(far) }
    }

    /// Bytes of the longest message in a datagram this way: as the path takes, if its MTU is known, else as every path and the first link
    /// do (G-054, G-055). To whom a message in Q-mode goes is not known, nor the path.
    fn longest_message(&self, way: Way) -> usize {
        let (Way::To(address) | Way::Towards(address)) = way;
        let known = if let Way::To(peer) = way { self.backend.0.path_mtu(peer) } else { None };
        let first_hop = || self.backend.0.link_mtu(address).map_or(self.config.first_hop_mtu, |mtu| mtu.min(self.config.first_hop_mtu));
        usize::from(known.unwrap_or_else(|| SMALLEST_PATH_MTU.min(first_hop()))).saturating_sub(ENCAPSULATION)
    }

    pub(super) fn nli(&self, address: IpAddr, ip_ttl: u8, validity: Duration) -> Nli {
        Nli { ip_ttl, validity, peer: self.config.identity.clone(), address }
    }

    /// The same on one of the ways out, where this node is somebody else (G-101): whoever is next on two of them would answer over
    /// the association that it knows, which leaves by the other one and may lead nowhere. No message asks for a new one (G-105).
    fn nli_on(&self, path: PathId, address: IpAddr, ip_ttl: u8, validity: Duration) -> Nli {
        let nli = self.nli(address, ip_ttl, validity);
        if path == PathId::ROUTED {
            return nli;
        }
        let other = PeerIdentity::new([nli.peer.as_bytes(), &[path.0]].concat());
        Nli { peer: other.unwrap_or(nli.peer), ..nli }
    }

    /// Whether this is what the node calls itself, on any way out. Another node's identity may begin with this one's.
    pub(super) fn is_own_identity(&self, identity: &PeerIdentity) -> bool {
        match identity.as_bytes().strip_prefix(self.config.identity.as_bytes()) {
            Some([]) => true,
            Some([path]) => (1..=PathId::GREATEST.0).contains(path),
            _ => false,
        }
    }

    /// Sends the next Query of the handshake. The first has the flow's source address, every second retransmission the
    /// node's own (G-251); the cookie is a new one each time (G-194).
    pub(super) fn send_query(&mut self, key: &RoutingKey, machine: &mut Querying, now: Instant) {
        let Some(own) = self.own_address_for(&key.mri()).or_else(|| machine.own()) else { return };
        machine.leave_from(self.addresses.share(own));
        let Some(registration) = self.registration(key.nslp_id) else { return };
        let is_downstream = key.mri().direction() == Direction::Downstream;
        let destination = query_destination(&key.mri());
        let router_alert = registration.router_alert(destination, &self.config.without_router_alert);
        let stack = registration.query_offer(self.config.hold_time, self.demands_protection(machine));
        let random = self.random.bytes(&*self.backend.0);
        let Some(cookie) = Cookie::new(random.to_vec()) else { return };
        let retransmissions = machine.transmissions();
        // Against the flow it is always the node's own (G-259), and so far beyond the flow's way no distance is told (G-162).
        let source = if retransmissions % 2 == 1 || !is_downstream { own } else { key.mri().source() };
        let (ip_ttl, told_ttl) = if is_downstream { (QUERY_TTL, QUERY_TTL) } else { (UPSTREAM_TTL, 0) };
        machine.note_transmission(random, now);
        let message = Message {
            hop_count: HOP_COUNT,
            nslp_id: key.nslp_id,
            source_is_signalling: source == own,
            body: Body::Query(Query {
                nat: None,
                mri: key.mri(),
                session: key.session,
                nli: self.nli_on(machine.path, own, told_ttl, self.validity()),
                cookie,
                stack,
                payload: None,
            }),
            unknown: Vec::new(),
        };
        let Some(payload) = self.encode_datagram(&message, Way::Towards(destination)) else { return };
        self.counters.queries_sent += 1;
        machine.words =
            datagram::message(&payload).and_then(|raw| header_bytes(&raw)).map_or(0, |header| CommonHeader::from_bytes(header).words);
        let (ds_field, flow_label) = flow_fields(&key.mri());
        let transmit = Transmit::QueryMode {
            source,
            destination,
            source_port: GIST_PORT,
            ip_ttl,
            ds_field,
            flow_label,
            router_alert,
            path: machine.path,
            payload,
        };
        let purpose = if machine.state == State::AwaitingRefresh { Purpose::Refresh } else { Purpose::Own };
        self.transmit(transmit, purpose, now);
    }

    /// Confirms, over the association if there is one (G-145), where it is the first message for the flow (G-084).
    pub(super) fn send_confirm(&mut self, key: &RoutingKey, route: Route, path: PathId, accepted: &AcceptedResponse, now: Instant) {
        let response = &accepted.response;
        let Some(own) = accepted.own else { return };
        if !response.confirm_requested {
            return;
        }
        let association = route.association();
        let responder = response.responder.as_ref();
        let proposal = responder.and_then(|responder| responder.stack.as_ref()).map(|stack| stack.proposal.clone());
        let first = association.and_then(|id| self.associations.get_mut(id)).is_some_and(|association| {
            let first = association.opened_here && association.confirmed.is_none();
            association.confirmed.get_or_insert(now);
            first
        });
        // G-085: the first Confirm on a new association tells the hold time.
        let configuration =
            (first && proposal.is_some()).then(|| StackConfiguration { hold_time: self.config.hold_time, options: Vec::new() });
        let ip_ttl = if association.is_none() && key.mri().direction() == Direction::Downstream { QUERY_TTL } else { 0 };
        let body = Body::Confirm(Confirm {
            mri: key.mri(),
            session: key.session,
            // The validity that counts is the Response's (G-107), as far as it is believed; repeated for a responder that kept
            // nothing.
            nli: self.nli_on(path, own, ip_ttl, self.believed_validity(accepted)),
            responder_cookie: responder.map(|responder| responder.cookie.clone()),
            proposal: proposal.filter(|_| association.is_some()),
            configuration,
            payload: None,
        });
        self.send_on_route(route, Some(own), key.nslp_id, HOP_COUNT, body, now);
    }

    /// Sends the application's message to the peer.
    pub(super) fn send_data(
        &mut self,
        route: Route,
        (own, path): (Option<IpAddr>, PathId),
        validity: Duration,
        message: SendMessage,
        now: Instant,
    ) {
        if self.asks_for_more(&message, route) {
            let reason = "the peer is not authenticated, and the message is to go to no other".to_owned();
            return self.report_status(message, SendError::AssociationFailed(reason));
        }
        let transport = self.transport(route.association());
        if message.carriage.asks_about(transport) {
            return self.propose(message, transport);
        }
        let nli = match (route, own) {
            (Route::Association(_), _) => None,
            (Route::Datagram(_), Some(own)) => Some(self.nli_on(path, own, 0, validity.max(Duration::from_millis(1)))),
            (Route::Datagram(_), None) => return self.report_status(message, SendError::NoEncapsulation),
        };
        let body = Body::Data(Data {
            nat: None,
            mri: self.peer_form(message.nslp_id, message.session, &message.mri),
            session: message.session,
            nli,
            payload: message.payload.clone(),
            explicit: matches!(message.routing, Routing::Peer(_)),
            context_free: false,
        });
        if !self.send_on_route(route, own, message.nslp_id, message.hop_count.unwrap_or(HOP_COUNT), body, now) {
            self.report_status(message, SendError::TooLarge);
        }
    }

    /// Sends the application's message in Q-mode, without any routing state (G-018, G-061).
    pub(super) fn send_stateless(&mut self, message: &SendMessage, now: Instant) {
        if message.carriage.asks_about(Transport::Datagram) {
            return self.propose(message.clone(), Transport::Datagram);
        }
        let Some(own) = self.own_address_for(&message.mri) else { return };
        let is_downstream = message.mri.direction() == Direction::Downstream;
        let destination = query_destination(&message.mri);
        let source = if is_downstream { message.mri.source() } else { own };
        let (ip_ttl, told_ttl) = if is_downstream { (QUERY_TTL, QUERY_TTL) } else { (UPSTREAM_TTL, 0) };
        let router_alert = self
            .registration(message.nslp_id)
            .and_then(|registration| registration.router_alert(destination, &self.config.without_router_alert));
        let body = Body::Data(Data {
            nat: None,
            mri: message.mri.clone(),
            session: message.session,
            nli: Some(self.nli_on(message.path, own, told_ttl, self.validity())),
            payload: message.payload.clone(),
            explicit: false,
            context_free: true,
        });
        let hop_count = message.hop_count.unwrap_or(HOP_COUNT);
        let data = Message { hop_count, nslp_id: message.nslp_id, source_is_signalling: source == own, body, unknown: Vec::new() };
        let Some(payload) = self.encode_datagram(&data, Way::Towards(destination)) else {
            return self.report_status(message.clone(), SendError::TooLarge);
        };
        self.note_stateless(message, &payload);
        let (ds_field, flow_label) = flow_fields(&message.mri);
        let path = message.path;
        let transmit =
            Transmit::QueryMode { source, destination, source_port: GIST_PORT, ip_ttl, ds_field, flow_label, router_alert, path, payload };
        self.transmit(transmit, Purpose::Own, now);
    }

    fn note_stateless(&mut self, message: &SendMessage, payload: &Bytes) {
        let header = datagram::message(payload).and_then(|raw| header_bytes(&raw)).map(CommonHeader::from_bytes);
        if self.stateless.len() >= MOST_STATELESS {
            self.stateless.pop_front();
        }
        let key = RoutingKey::along(message.nslp_id, message.session, &message.mri);
        self.stateless.extend(header.map(|header| (key, header.words)));
    }

    /// `false` if the message cannot be written or is too long for a datagram.
    fn send_on_route(&mut self, route: Route, own: Option<IpAddr>, nslp_id: NslpId, hop_count: u8, body: Body, now: Instant) -> bool {
        let message = Message { hop_count, nslp_id, source_is_signalling: true, body, unknown: Vec::new() };
        match route {
            Route::Association(id) => self.send_on_association(id, &message),
            Route::Datagram(destination) => {
                let purpose = if matches!(message.body, Body::Confirm(_)) { Purpose::Refresh } else { Purpose::Own };
                self.send_normal(destination, own, &message, purpose, now)
            }
        }
    }

    /// `false` if the message cannot be written. Whoever asked asks again, so answers are not for a peer that takes nothing.
    pub(super) fn send_on_association(&mut self, id: AssociationId, message: &Message) -> bool {
        if matches!(message.body, Body::Response(_) | Body::Error(_)) && !self.has_room(Route::Association(id)) {
            self.counters.withheld += 1;
            return false;
        }
        self.say_on_association(id, message)
    }

    /// The same of what goes in any case, whatever the peer has yet to take.
    pub(super) fn say_on_association(&mut self, id: AssociationId, message: &Message) -> bool {
        let Some(bytes) = Self::encode(message) else { return false };
        self.tasks.push_back(Task::Association(id, Event::TgRawData, AssociationInput::Raw(bytes)));
        true
    }

    /// `false` if the message cannot be written or is too long for a datagram.
    pub(super) fn send_normal(
        &mut self,
        destination: SocketAddr,
        source: Option<IpAddr>,
        message: &Message,
        purpose: Purpose,
        now: Instant,
    ) -> bool {
        let Some(payload) = self.encode_datagram(message, Way::To(destination.ip())) else { return false };
        self.transmit(Transmit::Normal { destination, source, payload }, purpose, now);
        true
    }

    /// Hands a datagram to the rate limiter.
    fn transmit(&mut self, datagram: Transmit, purpose: Purpose, now: Instant) {
        self.limiter.scale(self.querying.len(), self.config.validity, now);
        match self.limiter.submit(datagram, purpose, now) {
            Admission::Send(datagram) => self.emit(datagram),
            Admission::Wait => self.counters.rate_delayed += 1,
            Admission::Drop => self.counters.rate_dropped += 1,
        }
        self.watch_limiter();
    }

    /// Some waiting datagrams may go.
    pub(super) fn release_datagrams(&mut self, now: Instant) {
        while let Some(datagram) = self.limiter.release(now) {
            self.emit(datagram);
        }
        self.watch_limiter();
    }

    fn watch_limiter(&mut self) {
        self.timers.set_datagrams(self.limiter.next_release());
    }

    /// Past the rate limiter: also for what is only forwarded (G-202).
    pub(super) fn emit(&mut self, datagram: Transmit) {
        self.counters.datagrams_sent += 1;
        self.outputs.push_back(Output::Transmit(datagram));
    }

    /// A message that cannot be written is a mistake made here; it is logged and not sent.
    pub(super) fn encode(message: &Message) -> Option<Bytes> {
        debug_assert!(message.hop_count != 0, "G-034");
        match message.to_bytes() {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::error!(%error, "message cannot be written");
                None
            }
        }
    }

    /// Magic number and message, unless they are too long for the path (G-053…G-055).
    fn encode_datagram(&self, message: &Message, way: Way) -> Option<Bytes> {
        let mut out = BytesMut::new();
        match datagram::encode(message, &mut out) {
            Ok(()) if out.len() <= self.longest_message(way) + datagram::MAGIC_LENGTH => Some(out.freeze()),
            Ok(()) => {
                tracing::warn!(length = out.len(), "message too long for a datagram");
                None
            }
            Err(error) => {
                tracing::error!(%error, "message cannot be written");
                None
            }
        }
    }
}

/// The fields of the flow's packets that a Query for it has too (G-252): Diffserv byte and flow label. The loose-end method asks for none (G-265).
pub(super) fn flow_fields(mri: &Mri) -> (u8, u32) {
    match mri {
        Mri::PathCoupled(mri) => (mri.ds_field.unwrap_or(0) << 2, mri.flow_label.unwrap_or(0)),
        Mri::LooseEnd(_) => (0, 0),
    }
}
