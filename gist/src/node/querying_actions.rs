//! What the querying machine wants done (RFC 5971 §6.2).

use core::time::Duration;

use super::indicate::Sender;
use super::machines::querying::{Action, Event, Timer};
use super::querying::{AcceptedResponse, Plan, QueryingInput};
use super::querying_state::{Found, Passing, Querying};
use super::receive_data::Delivery;
use super::routing_state::{Clocks, Origin, Peer, Route, RoutingKey, User};
use super::task::Task;
use super::{MOST_UNPROVED_VALIDITY, Node};
use crate::api::{NetworkEvent, PeerHandle, SendError, SendMessage};
use crate::time::Instant;

/// The validity that the peer states over the association counts (G-107), up to so many times ours.
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
            Action::Start(timer) => self.start_querying_timer(machine, timer, now),
            Action::Stop(timer) => machine.set_timer(timer, None),
            Action::NewHandshake => {
                machine.start_handshake(now);
            }
            Action::SendQuery => {
                self.send_query(key, machine, now);
                // The time may be up that they had to wait.
                self.repeat_proofs(key, machine, now);
            }
            Action::StoreMessage => {
                if let QueryingInput::Message(message) = input {
                    machine.protected |= message.attributes.secure;
                    self.store(&mut machine.passing_mut().stored, message.clone(), now);
                }
            }
            Action::SendData => {
                if let QueryingInput::Message(message) = input {
                    machine.protected |= message.attributes.secure;
                    self.send_or_store(key, machine, message.clone(), now);
                }
            }
            Action::SendStored => self.send_stored(key, machine, now),
            Action::AdoptPeer => {
                if let Some(accepted) = machine.answer(input) {
                    let since = machine.candidate_of(input).and_then(|candidate| candidate.confirmed).unwrap_or(now);
                    self.adopt_responder(key, machine, &accepted, since);
                }
            }
            Action::OpenCandidate => {
                if let QueryingInput::Response(accepted) = input {
                    self.open_candidate(key, machine, accepted, now);
                }
            }
            Action::ProveCandidate => self.prove_candidate(key, machine, input, now),
            Action::DropCandidate => self.drop_candidate(key, machine, input, now),
            Action::DropCandidates => match input {
                QueryingInput::Path(_) => self.drop_candidates(key, machine),
                _ => self.drop_others(key, machine),
            },
            Action::LeavePeer => self.leave_route(key, machine),
            Action::SendConfirm => {
                if let (Some(route), Some(accepted)) = (machine.route(), machine.answer(input)) {
                    self.send_confirm(key, route, machine.path, &accepted, now);
                }
            }
            Action::DeliverData => {
                if let (QueryingInput::Data(delivery), Some(peer)) = (input, machine.peer()) {
                    self.deliver(key, &Sender::of(peer, machine.ip_distance), delivery.clone());
                }
            }
            Action::NoteEndpoint => machine.passing_mut().found.endpoint = true,
            Action::RefuseResponse => {
                self.counters.responses_refused += 1;
                tracing::debug!(session = %key.session, "the Response offers nothing that can be used");
            }
            Action::MarkSuspect => machine.suspect = true,
            Action::SetPath => {
                if let QueryingInput::Path(path) = input {
                    machine.path = *path;
                }
            }
            Action::SetLifetime => {
                if let QueryingInput::Lifetime(lifetime) = input {
                    machine.set_lifetime(*lifetime);
                }
            }
            Action::ReportNoResponse => self.report_no_response(key, machine),
            Action::ReportRouteDeleted => {
                self.report_stored(&mut machine.passing_mut().stored, &SendError::TimedOut);
                self.report_deleted(key, machine);
            }
            Action::ReportExpired => {
                let Passing { stored, found, .. } = machine.passing_mut();
                self.report_expired(stored, found.setback.as_ref(), now);
            }
            Action::ReportPeerChanged => {
                let new = machine.answer(input).map(|accepted| (self.handle_of_responder(&accepted), route_of(&accepted)));
                self.notify(key, &key.mri(), NetworkEvent::PeerChanged, machine.handle(), new);
            }
            // The peer has lost the state, and may well be the next one again.
            Action::ReportPossibleLoss => {
                let peer = machine.handle().map(|handle| (handle, machine.route()));
                self.notify(key, &key.mri(), NetworkEvent::AssociationLost, machine.handle(), peer);
            }
            Action::ReportAssociationLost => self.notify(key, &key.mri(), NetworkEvent::AssociationLost, machine.handle(), None),
            Action::ReportAssociationFailed => {
                self.report_stored(&mut machine.passing_mut().stored, &association_failed(input));
            }
            Action::ReportNotAuthorised => {
                self.report_stored(&mut machine.passing_mut().stored, &SendError::NotAuthorised);
                self.notify(key, &key.mri(), NetworkEvent::NotAuthorised, machine.handle(), None);
            }
            Action::Destroy => {
                self.leave_route(key, machine);
                self.drop_candidates(key, machine);
                self.drop_stored(&mut machine.passing_mut().stored);
            }
        }
    }

    fn start_querying_timer(&mut self, machine: &mut Querying, timer: Timer, now: Instant) {
        let at = match timer {
            Timer::NoResponse => Some(machine.retransmission(self.config.query_timer, now)),
            Timer::RefreshQNode => Some(now + self.random.refresh_moment(&*self.backend.0, machine.validity.span())),
            Timer::InactiveQNode => Some(now + machine.lifetime()),
            Timer::MessageTimeout => machine.first_deadline(),
        };
        machine.set_timer(timer, at);
    }

    /// What waits keeps its order.
    fn send_or_store(&mut self, key: &RoutingKey, machine: &mut Querying, message: SendMessage, now: Instant) {
        match machine.route() {
            Some(route) if machine.passing().stored.is_empty() && self.has_room(route) => {
                machine.used = true;
                self.send_data(route, (machine.own(), machine.path), machine.validity.span(), message, now);
            }
            route => {
                self.store(&mut machine.passing_mut().stored, message, now);
                if let Some(id) = route.and_then(|route| route.association()) {
                    self.await_querying_turn(id, key, machine);
                }
            }
        }
    }

    fn send_stored(&mut self, key: &RoutingKey, machine: &mut Querying, now: Instant) {
        match machine.route() {
            Some(Route::Association(id)) => self.await_querying_turn(id, key, machine),
            Some(route @ Route::Datagram(_)) => {
                while let Some(message) = self.next_stored(&mut machine.passing_mut().stored) {
                    machine.used = true;
                    self.send_data(route, (machine.own(), machine.path), machine.validity.span(), message, now);
                }
                machine.set_timer(Timer::MessageTimeout, None);
            }
            None => {}
        }
    }

    /// Rule 4: the peer and the way to it, which is open. `since` is when its Confirm goes or went.
    fn adopt_responder(&mut self, key: &RoutingKey, machine: &mut Querying, accepted: &AcceptedResponse, since: Instant) {
        let nli = &accepted.response.nli;
        let Some(route) = route_of(accepted) else { return };
        if machine.route() != Some(route) {
            self.leave_route(key, machine);
        }
        if let Route::Association(id) = route {
            self.associations.add_user(id, User::Querying(key.clone()));
        }
        machine.lead_to(self.hop_to(Peer::from(nli), route, 0));
        if let Some(own) = accepted.own {
            machine.leave_from(self.addresses.share(own));
        }
        machine.note_answer(&accepted.response.query_cookie);
        machine.validity = self.believed_validity(accepted).into();
        machine.valid_until = Some(since + machine.validity.span());
        // RFC 5971 §5.2.2: on an upstream message this is the distance the peer has measured; 0 says nothing.
        machine.ip_distance = (nli.ip_ttl != 0).then_some(nli.ip_ttl);
        machine.suspect = false;
        self.hand_over_response_payload(key, accepted);
    }

    fn handle_of_responder(&self, accepted: &AcceptedResponse) -> PeerHandle {
        let association = match accepted.plan {
            Some(Plan::Reuse(id)) => Some(id),
            Some(Plan::Open { .. } | Plan::Datagram(_)) | None => None,
        };
        self.peer_handle(&Peer::from(&accepted.response.nli), association)
    }

    /// What the Response says, as far as it is believed. By datagram it may be anybody's or have been changed on its way: so long
    /// as the responding node in any case grants it, lest this node refreshes too late.
    pub(super) fn believed_validity(&self, accepted: &AcceptedResponse) -> Duration {
        let most = match (&accepted.origin, accepted.plan) {
            (Origin::Association(_), _) => self.validity().saturating_mul(MAX_VALIDITY_FACTOR),
            (Origin::Datagram(_), Some(Plan::Datagram(_))) => self.agreed_validity(Duration::MAX),
            (Origin::Datagram(_), _) => MOST_UNPROVED_VALIDITY,
        };
        accepted.response.nli.validity.clamp(MIN_VALIDITY, most.max(MIN_VALIDITY))
    }

    /// Rule 4's piggybacked data, as an event of its own (rule 7). Unprotected data is not for an application that
    /// demands protection.
    fn hand_over_response_payload(&mut self, key: &RoutingKey, accepted: &AcceptedResponse) {
        let Some(payload) = accepted.response.payload.clone() else { return };
        if !self.may_deliver(key.nslp_id, &accepted.origin) {
            return;
        }
        let mri = accepted.response.mri.clone();
        let delivery = Delivery { payload, hop_count: accepted.hop_count, origin: accepted.origin, mri, explicit: false };
        self.tasks.push_back(Task::Querying(key.clone(), Event::RxData, QueryingInput::Data(delivery)));
    }

    fn leave_route(&mut self, key: &RoutingKey, machine: &mut Querying) {
        if let Some(Route::Association(id)) = machine.take_route() {
            self.associations.remove_user(id, &User::Querying(key.clone()));
        }
    }

    /// Nobody answered, or nobody that could be taken.
    fn report_no_response(&mut self, key: &RoutingKey, machine: &mut Querying) {
        let Found { endpoint, refusal, setback, .. } = &mut machine.passing_mut().found;
        let (endpoint, refusal, setback) = (*endpoint, refusal.take().map(SendError::Refused), setback.take());
        match &setback {
            Some(SendError::NotAuthorised) => self.notify(key, &key.mri(), NetworkEvent::NotAuthorised, machine.handle(), None),
            None if endpoint => self.notify(key, &key.mri(), NetworkEvent::LastNode, machine.handle(), None),
            _ => {}
        }
        self.report_stored(&mut machine.passing_mut().stored, &setback.or(refusal).unwrap_or(SendError::NoResponse));
        self.report_deleted(key, machine);
    }

    /// Nobody hears of the end of a state that never served.
    fn report_deleted(&mut self, key: &RoutingKey, machine: &Querying) {
        if machine.used {
            self.notify(key, &key.mri(), NetworkEvent::RouteDeleted, machine.handle(), None);
        }
    }
}

/// How the one who answered is reached; what is being opened comes back as [`Plan::Reuse`].
fn route_of(accepted: &AcceptedResponse) -> Option<Route> {
    match accepted.plan? {
        Plan::Reuse(id) => Some(Route::Association(id)),
        Plan::Datagram(address) => Some(Route::Datagram(address)),
        Plan::Open { .. } => None,
    }
}

/// Why the association that the news is about is no use.
pub(super) fn association_failed(input: &QueryingInput) -> SendError {
    let reason = match input {
        QueryingInput::Ended { reason, .. } => reason.clone(),
        QueryingInput::Invalidate { .. } => "the application has given the peer up".to_owned(),
        _ => String::new(),
    };
    SendError::AssociationFailed(reason)
}
