//! Queries, and the Responses to them (RFC 5971 §4.4.1): answering one costs no memory.

use core::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::association::Association;
use super::bypass::is_too_wild;
use super::cookie::{Arrival, Bound};
use super::error_reply::mri_info;
use super::machines::node::{Event, Guards};
use super::machines::responding;
use super::node_machine::NodeInput;
use super::rate::Purpose;
use super::receive::Received;
use super::reply::LONGEST_QUERY_COOKIE;
use super::responding::{AcceptedQuery, RespondingInput};
use super::routing_state::{DatagramOrigin, Origin, Peer, Route, RoutingKey};
use super::stack::Ports;
use super::translation::{Translation, original};
use super::transmit::flow_fields;
use super::{AddressPrefix, Node, Registration, Transmit};
use crate::api::{AssociationId, PathId};
use crate::time::Instant;
use crate::wire::datagram::MAGIC;
use crate::wire::{
    Body, Cookie, Direction, ErrorCause, ErrorInfo, Message, Mri, MriFault, NatTraversal, NslpId, ObjectType, ObjectTypeFault, Profile,
    Query, ResponderPart, Response,
};

/// Below this an upstream Query has crossed more than one link (G-261).
const MIN_UPSTREAM_TTL: u8 = 254;

/// How the state of a refresh is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Existing {
    pub(super) route: Route,
    /// What the Response counts against.
    pub(super) account: Account,
    /// Whether a Confirm is asked for.
    pub(super) confirm: bool,
}

/// What a Response counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// The state has an answer to give, whatever else asks; see [`super::responding::Responding::take_answer`].
    State,
    /// The state is that of a neighbour that has shown to be there.
    Neighbour,
    /// Anybody's.
    Strangers,
}

/// A Query, and what its way here showed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Asked {
    pub(super) nslp_id: NslpId,
    pub(super) query: Query,
    pub(super) origin: DatagramOrigin,
    pub(super) arrival: Arrival,
}

impl Asked {
    /// What a Response needs of it where no association is offered, in memory of its own.
    pub(super) fn detached(&self) -> Self {
        let query = &self.query;
        let cookie = Cookie::new(query.cookie.as_bytes().to_vec()).unwrap_or_else(|| query.cookie.clone());
        let nli = query.nli.clone();
        let nat = query.nat.as_ref().map(NatTraversal::detached);
        let query = Query { nat, mri: query.mri.clone(), session: query.session, nli, cookie, stack: None, payload: None };
        Self { query, ..self.clone() }
    }
}

/// Where a Query for this flow is sent to (RFC 5971 §5.8.1.2, §5.8.1.3).
pub(super) fn query_destination(mri: &Mri) -> IpAddr {
    match mri.direction() {
        Direction::Downstream => mri.destination(),
        Direction::Upstream => mri.source(),
    }
}

impl Node {
    pub(super) fn receive_query(&mut self, query: Query, received: Received, now: Instant) {
        let Origin::Datagram(origin) = received.origin else { return };
        // One's own Query come back.
        if self.is_own_identity(&query.nli.peer) {
            self.counters.stray += 1;
            return;
        }
        if query.cookie.as_bytes().len() > LONGEST_QUERY_COOKIE {
            self.counters.long_query_cookies += 1;
            return;
        }
        if !self.takes_answers(query.nli.address) {
            return;
        }
        if let Some((cause, info)) = self.objection_to(&query, &origin) {
            return self.answer(&received, cause, vec![info].into_iter().flatten().collect(), now);
        }
        if query.mri.direction() == Direction::Upstream && !self.takes_upstream_queries(received.message.nslp_id) {
            self.counters.upstream_queries_refused += 1;
            return;
        }
        let arrival = Arrival { interface: origin.interface, ip_distance: ip_distance(&query, &origin) };
        let asked = Asked { nslp_id: received.message.nslp_id, query, origin, arrival };
        let key = RoutingKey::along(asked.nslp_id, asked.query.session, &asked.query.mri);
        // G-035: the Query's destination always peers.
        let peering = self.ends_here(query_destination(&asked.query.mri)) || !self.declining.contains(&key.nslp_id);
        let accepted = Box::new(AcceptedQuery { asked, received });
        if self.is_refresh(&key, &accepted) {
            self.responding_event(&key, responding::Event::RxQuery, RespondingInput::Query(accepted), now);
        } else {
            // Somebody else's Query about a state that there is makes no second one.
            let state_on_query = !self.responding.contains_key(&key) && self.installs_on_query(&accepted.asked, now);
            let guards = Guards { peering, state_on_query, ..Guards::default() };
            self.node_event(Event::RxQuery, guards, &NodeInput::Query(accepted), now);
        }
    }

    /// Whether the Query names the peer that the state has, and the way to it is open.
    fn is_refresh(&self, key: &RoutingKey, accepted: &AcceptedQuery) -> bool {
        self.responding.get(key).is_some_and(|machine| {
            let open = match machine.hop.route() {
                Route::Association(id) => self.associations.get(id).is_some_and(|association| association.is_open()),
                Route::Datagram(_) => true,
            };
            open && machine.hop.peer == Peer::from(&accepted.asked.query.nli)
        })
    }

    /// An upstream Query has not followed the flow, so it cannot show who is next on the flow's way (G-256): where messages
    /// may be protected, it is not answered unless the application asks for it.
    pub(super) fn takes_upstream_queries(&self, nslp_id: NslpId) -> bool {
        self.registration(nslp_id).is_some_and(|registration| !registration.offers_tls() || registration.upstream_queries)
    }

    /// A Response, over the state's route if there is one, else as rule 1 of §6.1 says. Nothing is kept: the Responder-Cookie says it all,
    /// where a Confirm must answer.
    pub(super) fn send_response(&mut self, asked: &Asked, existing: Option<Existing>, now: Instant) {
        let Asked { nslp_id, query, origin, arrival } = asked;
        let nslp_id = *nslp_id;
        let Some(registration) = self.registration(nslp_id) else { return };
        let full_offer = registration.response_offer(self.config.hold_time, self.ports());
        let account = existing.map_or(Account::Strangers, |existing| existing.account);
        let reused = existing
            .map(|existing| existing.route)
            .filter(|route| !self.falls_short(nslp_id, query, *route) && !self.is_suspect_route(*route, now))
            .or_else(|| self.reusable(nslp_id, query, now).filter(|_| full_offer.is_some()).map(Route::Association));
        if let Some(Route::Association(id)) = reused {
            self.doubt_if_unheard(id, now);
        }
        let stack = full_offer.filter(|_| reused.is_none());
        let bound = Bound {
            nslp_id,
            session: query.session,
            mri: original(query.nat.as_ref(), &query.mri),
            peer: &query.nli.peer,
            address: query.nli.address,
            proposal: stack.as_ref().map(|stack| &stack.proposal),
        };
        let confirm = existing.is_none_or(|existing| existing.confirm);
        let responder = if confirm {
            let translation = Translation::of(query);
            let Some(cookie) = self.cookies.make(&*self.backend.0, &bound, *arrival, translation.as_ref(), now) else { return };
            Some(ResponderPart { cookie, stack })
        } else {
            None
        };
        let route = reused.unwrap_or_else(|| Route::Datagram(origin.reply_to(query.nli.address)));
        self.respond(Existing { route, account, confirm }, asked, responder, now);
    }

    fn respond(
        &mut self,
        Existing { route, account, confirm }: Existing,
        Asked { nslp_id, query, origin, arrival }: &Asked,
        responder: Option<ResponderPart>,
        now: Instant,
    ) {
        let Some(own) = self.backend.0.egress_address(query.nli.address) else {
            tracing::warn!(peer = %query.nli.address, "no route to the querying node");
            return;
        };
        // G-162: a Response to a downstream Query goes upstream and tells the distance measured.
        let ip_ttl = if query.mri.direction() == Direction::Downstream { arrival.ip_distance.unwrap_or(0) } else { 0 };
        let message = Message {
            hop_count: super::transmit::HOP_COUNT,
            nslp_id: *nslp_id,
            source_is_signalling: true,
            body: Body::Response(Response {
                nat: query.nat.clone(),
                mri: query.mri.inverted(),
                session: query.session,
                nli: self.nli(own, ip_ttl, self.agreed_validity(query.nli.validity)),
                query_cookie: query.cookie.clone(),
                confirm_requested: confirm,
                responder,
                payload: None,
            }),
            unknown: Vec::new(),
        };
        self.counters.responses_sent += 1;
        match route {
            Route::Association(id) if account != Account::State && !self.takes_allowance(id, now) => self.counters.rate_dropped += 1,
            Route::Association(id) => {
                if let Some(association) = self.associations.get_mut(id) {
                    association.doubt.note_response(now);
                }
                self.send_on_association(id, &message);
            }
            Route::Datagram(destination) => {
                let asker = origin.asker(query.nli.address);
                let purpose = match account {
                    Account::State => Purpose::Refresh,
                    Account::Neighbour => Purpose::Neighbour(asker),
                    Account::Strangers => Purpose::Answer(asker),
                };
                self.send_normal(destination, Some(own), &message, purpose, now);
            }
        }
    }

    fn takes_allowance(&mut self, id: AssociationId, now: Instant) -> bool {
        let rate = self.config.datagram_rate;
        self.associations.get_mut(id).is_some_and(|association| association.allowance.take(rate, now))
    }

    /// An association that may carry the rest of the handshake: to exactly this NLI (G-103, G-105), and as good as our
    /// full offer and as one of the Query's (G-228, G-229), which TLS over TCP with both ends authenticated always is, and TCP alone where
    /// both offer it. But where this node offers TLS as well the Query does not decide that, which anybody on the way may have changed: it
    /// is told of the full offer, and echoes that with its choice. Not one whose peer may be gone: it gets a full Response by datagram
    ///
    fn reusable(&self, nslp_id: NslpId, query: &Query, now: Instant) -> Option<AssociationId> {
        let asked = query.stack.as_ref()?;
        let offers_tls = self.registration(nslp_id).is_some_and(Registration::offers_tls);
        let plain = self.takes_unprotected(nslp_id) && !offers_tls && asked.proposal.profiles.contains(&Profile::tcp());
        let peer = Peer::from(&query.nli);
        // One that leaves by another way out knows this node by another name.
        let is_known = |association: &Association| {
            let is_fit = association.is_open() && association.confirmed.is_some() && association.path == PathId::ROUTED;
            is_fit && !self.is_suspect(association, now)
        };
        let known = || self.associations.of_peer(&peer).filter(|(_, association)| is_known(association));
        let protected = known().find(|(_, association)| association.protected);
        protected.or_else(|| known().next().filter(|_| plain)).map(|(id, _)| id)
    }

    /// Whether the state's association is less than the Query demands and this node offers: the flow is to get an authenticated peer.
    fn falls_short(&self, nslp_id: NslpId, query: &Query, route: Route) -> bool {
        let is_plain = route.association().is_some_and(|id| !self.is_protected(id));
        let demands = query.stack.as_ref().is_some_and(|stack| !stack.proposal.profiles.contains(&Profile::tcp()));
        is_plain && demands && self.registration(nslp_id).is_some_and(Registration::offers_tls)
    }

    fn is_suspect_route(&self, route: Route, now: Instant) -> bool {
        let association = route.association().and_then(|id| self.associations.get(id));
        association.is_some_and(|association| self.is_suspect(association, now))
    }

    fn ports(&self) -> Ports {
        Ports { tls: self.config.association_port, plain: self.config.plain_association_port }
    }

    /// The application does not want to peer: the Query goes on as it came, one hop less (G-038, G-040).
    pub(super) fn propagate(&mut self, received: &Received, now: Instant) {
        let (Origin::Datagram(origin), Body::Query(query)) = (&received.origin, &received.message.body) else { return };
        if received.message.hop_count == 0 {
            self.counters.hop_count_zero += 1;
            return self.answer(received, ErrorCause::HopLimitExceeded, Vec::new(), now);
        }
        let Some(ip_ttl) = origin.ip_ttl.and_then(|ttl| ttl.checked_sub(1)).filter(|ttl| *ttl != 0) else { return };
        self.send_on(origin, Some(&query.mri), ip_ttl, with_hop_count(&received.raw, received.message.hop_count));
    }

    /// The packet again, as it came but for what `payload` and `ip_ttl` say.
    pub(super) fn send_on(&mut self, origin: &DatagramOrigin, mri: Option<&Mri>, ip_ttl: u8, payload: Bytes) {
        let (ds_field, flow_label) = mri.map_or((0, 0), flow_fields);
        self.emit(Transmit::QueryMode {
            source: origin.source.ip(),
            destination: origin.destination,
            source_port: origin.source.port(),
            ip_ttl,
            ds_field,
            flow_label,
            router_alert: origin.router_alert,
            path: PathId::ROUTED,
            payload,
        });
    }

    /// What is wrong with the Query for this place.
    fn objection_to(&self, query: &Query, origin: &DatagramOrigin) -> Option<(ErrorCause, Option<ErrorInfo>)> {
        // A NAT that knows GIST has been at work, and this node has no role in that (G-321).
        if query.nat.is_some() && !self.config.behind_nats {
            let info = ErrorInfo::ObjectType(ObjectType::MessageRoutingInformation.number());
            return Some((ErrorCause::ObjectType(ObjectTypeFault::Untranslated), Some(info)));
        }
        // G-072.
        if is_too_wild(&query.mri) {
            return Some((ErrorCause::MriValidation(MriFault::TooWild), mri_info(&query.mri, 0)));
        }
        objection(query, origin).or_else(|| self.ingress_objection(query, origin))
    }

    /// G-254: that the sources of the flow cannot be where the Query came from.
    fn ingress_objection(&self, query: &Query, origin: &DatagramOrigin) -> Option<(ErrorCause, Option<ErrorInfo>)> {
        let Mri::PathCoupled(mri) = &query.mri else { return None };
        let sources = AddressPrefix::new(mri.source, mri.source_prefix)?;
        let is_expected = query.mri.direction() == Direction::Upstream || self.backend.0.may_come_from(sources, origin.interface);
        (!is_expected).then(|| (ErrorCause::MriValidation(MriFault::IngressFilterFailure), mri_info(&query.mri, 0)))
    }
}

/// What is wrong with the Query wherever it is met.
fn objection(query: &Query, origin: &DatagramOrigin) -> Option<(ErrorCause, Option<ErrorInfo>)> {
    let is_path_coupled = matches!(query.mri, Mri::PathCoupled(_));
    // G-254, G-329.
    if is_path_coupled && query.mri.destination().is_ipv4() != origin.source.is_ipv4() {
        return Some((ErrorCause::MriValidation(MriFault::IpVersionMismatch), mri_info(&query.mri, 0)));
    }
    if query.mri.direction() == Direction::Upstream {
        // G-266: the loose-end method has no upstream Queries.
        if !is_path_coupled {
            return Some((ErrorCause::IncorrectEncapsulation, None));
        }
        if origin.ip_ttl.is_some_and(|ttl| ttl < MIN_UPSTREAM_TTL) {
            return Some((ErrorCause::InvalidIpTtl, None));
        }
    }
    None
}

/// G-161: how many IP hops lie between, if the Query tells its TTL and the datagram shows what is left of it.
fn ip_distance(query: &Query, origin: &DatagramOrigin) -> Option<u8> {
    let sent = Some(query.nli.ip_ttl).filter(|ttl| *ttl != 0)?;
    sent.checked_sub(origin.ip_ttl?)
}

/// The datagram again, byte for byte but for the hop count.
pub(super) fn with_hop_count(raw: &Bytes, hop_count: u8) -> Bytes {
    let mut out = BytesMut::with_capacity(raw.len() + 4);
    out.put_u32(MAGIC);
    let (version, rest) = raw.split_at(raw.len().min(1));
    out.put_slice(version);
    out.put_u8(hop_count);
    out.put_slice(rest.get(1..).unwrap_or_default());
    out.freeze()
}
