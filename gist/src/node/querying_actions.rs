//! What the querying machine wants done (RFC 5971 §6.2).

use core::time::Duration;
use std::collections::VecDeque;

use super::Node;
use super::association::Association;
use super::machines::querying::{Action, Event, Timer};
use super::querying::{AcceptedResponse, Handshake, Plan, Querying, QueryingInput, Stored};
use super::receive_data::Delivery;
use super::routing_state::{Peer, Route, RoutingKey, User};
use super::task::Task;
use super::timers::TimerKey;
use crate::api::{NetworkEvent, SendError, SendMessage};
use crate::time::Instant;

/// The peer's validity counts (G-107), up to so many times ours.
const MAX_VALIDITY_FACTOR: u32 = 20;

/// A peer that forgets faster is not refreshed as fast as it would like.
const MIN_VALIDITY: Duration = Duration::from_secs(1);

impl Node {
    pub(super) fn querying_action(
        &mut self,
        key: &RoutingKey,
        machine: &mut Querying,
        action: Action,
        input: &QueryingInput,
        now: Instant,
    ) {
        match action {
            Action::Start(timer) => self.start_querying_timer(key, machine, timer, now),
            Action::Stop(timer) => self.timers.stop(&TimerKey::Querying(key.clone(), timer)),
            Action::NewHandshake => {
                let own = self.own_address_for(&key.mri).or(machine.handshake.own);
                machine.handshake = Handshake::new(now, own);
            }
            Action::SendQuery => self.send_query(key, machine, now),
            Action::StoreMessage => {
                if let QueryingInput::Message(message) = input {
                    self.store(machine, message.clone(), now);
                }
            }
            Action::SendData => {
                if let QueryingInput::Message(message) = input {
                    self.send_or_store(machine, message.clone(), now);
                }
            }
            Action::SendStored => {
                if self.is_ready(machine) {
                    let stored = core::mem::take(&mut machine.stored);
                    stored.into_iter().for_each(|stored| self.send_or_store(machine, stored.message, now));
                    self.timers.stop(&TimerKey::Querying(key.clone(), Timer::MessageTimeout));
                }
            }
            Action::AdoptPeer => {
                if let Some(accepted) = machine.answer(input) {
                    self.adopt_responder(key, machine, &accepted, now);
                }
            }
            Action::OpenCandidate => {
                if let QueryingInput::Response(accepted) = input {
                    self.open_candidate(key, machine, accepted, now);
                }
            }
            Action::DropCandidate => self.drop_candidate(key, machine, input),
            Action::DropCandidates => self.drop_candidates(key, machine),
            Action::LeavePeer => self.leave_route(key, machine),
            Action::SendConfirm => {
                if let Some(accepted) = machine.answer(input) {
                    self.send_confirm(key, machine, &accepted, now);
                }
            }
            Action::DeliverData => {
                if let (QueryingInput::Data(delivery), Some(peer)) = (input, &machine.peer) {
                    self.deliver(key, &peer.identity, machine.ip_distance, delivery.clone());
                }
            }
            Action::NoteEndpoint => machine.handshake.endpoint_found = true,
            Action::RefuseResponse => {
                tracing::warn!(session = %key.session, "the Response offers nothing that can be used");
            }
            Action::MarkSuspect => machine.suspect = true,
            Action::SetLifetime => {
                if let QueryingInput::Lifetime(lifetime) = input {
                    machine.lifetime = *lifetime;
                }
            }
            Action::ReportNoResponse => self.report_no_response(key, machine),
            Action::ReportRouteDeleted => {
                self.report_stored(machine, &SendError::TimedOut);
                self.report_deleted(key, machine);
            }
            Action::ReportExpired => self.report_expired(machine, now),
            Action::ReportPeerChanged => self.notify(key, &key.mri, NetworkEvent::PeerChanged),
            Action::ReportPossibleLoss | Action::ReportAssociationLost => {
                self.notify(key, &key.mri, NetworkEvent::AssociationLost);
            }
            Action::ReportAssociationFailed => {
                self.report_stored(machine, &association_failed(input));
            }
            Action::ReportNotAuthorised => {
                self.report_stored(machine, &SendError::NotAuthorised);
                self.notify(key, &key.mri, NetworkEvent::NotAuthorised);
            }
            Action::Destroy => {
                self.leave_route(key, machine);
                self.drop_candidates(key, machine);
                Timer::ALL.iter().for_each(|timer| self.timers.stop(&TimerKey::Querying(key.clone(), *timer)));
            }
        }
    }

    fn start_querying_timer(&mut self, key: &RoutingKey, machine: &Querying, timer: Timer, now: Instant) {
        let timer_key = TimerKey::Querying(key.clone(), timer);
        let at = match timer {
            Timer::NoResponse => Some(machine.retransmission(self.config.query_timer, now)),
            Timer::RefreshQNode => Some(now + self.random.refresh_moment(&*self.backend.0, machine.validity)),
            Timer::InactiveQNode => Some(now + machine.lifetime),
            Timer::MessageTimeout => machine.first_deadline(),
        };
        match at {
            Some(at) => self.timers.start(timer_key, at),
            None => self.timers.stop(&timer_key),
        }
    }

    fn is_ready(&self, machine: &Querying) -> bool {
        match machine.route {
            Some(Route::Association(id)) => self.associations.get(id).is_some_and(Association::is_open),
            Some(Route::Datagram(_)) => true,
            None => false,
        }
    }

    fn send_or_store(&mut self, machine: &mut Querying, message: SendMessage, now: Instant) {
        match machine.route {
            Some(route) if self.is_ready(machine) => {
                machine.used = true;
                self.send_data(route, machine.handshake.own, machine.validity, message, now);
            }
            _ => self.store(machine, message, now),
        }
    }

    fn store(&mut self, machine: &mut Querying, message: SendMessage, now: Instant) {
        if machine.stored.len() >= self.config.caps.queued_messages_per_state {
            self.counters.refused_when_full += 1;
            self.report_status(message, SendError::QueueFull);
            return;
        }
        let deadline = message.timeout.map(|timeout| now + timeout);
        machine.stored.push_back(Stored { message, deadline });
    }

    /// Rule 4: the peer and the way to it, which is open.
    fn adopt_responder(&mut self, key: &RoutingKey, machine: &mut Querying, accepted: &AcceptedResponse, now: Instant) {
        let nli = &accepted.response.nli;
        let peer = Peer::from(nli);
        let route = match accepted.plan {
            Some(Plan::Reuse(id)) => Route::Association(id),
            Some(Plan::Datagram(address)) => Route::Datagram(address),
            // What is being opened comes back as [`Plan::Reuse`].
            Some(Plan::Open(_)) | None => return,
        };
        if machine.route != Some(route) {
            self.leave_route(key, machine);
        }
        if let Route::Association(id) = route {
            self.associations.add_user(id, User::Querying(key.clone()));
        }
        machine.peer = Some(peer);
        machine.route = Some(route);
        // The Response may be anybody's: too long a validity would keep this node from refreshing in time.
        machine.validity = nli.validity.clamp(MIN_VALIDITY, self.validity().saturating_mul(MAX_VALIDITY_FACTOR).max(MIN_VALIDITY));
        machine.valid_until = Some(now + machine.validity);
        // RFC 5971 §5.2.2: on an upstream message this is the distance the peer has measured; 0 says nothing.
        machine.ip_distance = (nli.ip_ttl != 0).then_some(nli.ip_ttl);
        machine.suspect = false;
        self.hand_over_response_payload(key, accepted);
    }

    /// Rule 4's piggybacked data, as an event of its own (rule 7). Unprotected data is not for an application that
    /// demands protection.
    fn hand_over_response_payload(&mut self, key: &RoutingKey, accepted: &AcceptedResponse) {
        let Some(payload) = accepted.response.payload.clone() else { return };
        if !self.may_deliver(key.nslp_id, &accepted.origin) {
            return;
        }
        let mri = accepted.response.mri.clone();
        let delivery = Delivery { payload, hop_count: accepted.hop_count, origin: accepted.origin, mri };
        self.tasks.push_back(Task::Querying(key.clone(), Event::RxData, QueryingInput::Data(delivery)));
    }

    fn leave_route(&mut self, key: &RoutingKey, machine: &mut Querying) {
        if let Some(Route::Association(id)) = machine.route.take() {
            self.associations.remove_user(id, &User::Querying(key.clone()));
        }
    }

    /// Nobody answered, or nobody that could be taken.
    fn report_no_response(&mut self, key: &RoutingKey, machine: &mut Querying) {
        let setback = machine.handshake.setback.take();
        match &setback {
            Some(SendError::NotAuthorised) => self.notify(key, &key.mri, NetworkEvent::NotAuthorised),
            None if machine.handshake.endpoint_found => self.notify(key, &key.mri, NetworkEvent::LastNode),
            _ => {}
        }
        self.report_stored(machine, &setback.unwrap_or(SendError::NoResponse));
        self.report_deleted(key, machine);
    }

    fn report_stored(&mut self, machine: &mut Querying, error: &SendError) {
        let stored = core::mem::take(&mut machine.stored);
        stored.into_iter().for_each(|stored| self.report_status(stored.message, error.clone()));
    }

    fn report_expired(&mut self, machine: &mut Querying, now: Instant) {
        let is_late = |stored: &Stored| stored.deadline.is_some_and(|deadline| deadline <= now);
        let (late, waiting): (VecDeque<_>, _) = core::mem::take(&mut machine.stored).into_iter().partition(is_late);
        machine.stored = waiting;
        late.into_iter().for_each(|stored| self.report_status(stored.message, SendError::TimedOut));
    }

    /// Nobody hears of the end of a state that never served.
    fn report_deleted(&mut self, key: &RoutingKey, machine: &Querying) {
        if machine.used {
            self.notify(key, &key.mri, NetworkEvent::RouteDeleted);
        }
    }
}

/// Why the association that the news is about is no use.
pub(super) fn association_failed(input: &QueryingInput) -> SendError {
    let reason = if let QueryingInput::Ended { reason, .. } = input { reason.clone() } else { String::new() };
    SendError::AssociationFailed(reason)
}
