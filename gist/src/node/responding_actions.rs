//! What the responding machine wants done (RFC 5971 §6.3).

use super::Node;
use super::indicate::Sender;
use super::machines::responding::{Action, Timer};
use super::receive_data::Delivery;
use super::responding::{AcceptedConfirm, Path, Responding, RespondingInput};
use super::routing_state::{Clocks, Hop, Origin, Peer, Route, RoutingKey, User};
use crate::api::{NetworkEvent, PathId, SendError, SendMessage};
use crate::time::Instant;
use crate::wire::ErrorCause;

impl Node {
    pub(super) fn responding_action(
        &mut self,
        key: &RoutingKey,
        machine: &mut Responding,
        action: Action,
        input: &RespondingInput,
        now: Instant,
    ) {
        match action {
            Action::Start(timer) => self.start_responding_timer(key, machine, timer, now),
            Action::Stop(timer) => machine.set_timer(timer, None),
            Action::AdoptPeer => {
                if let RespondingInput::Confirm(accepted) = input {
                    self.adopt_querier(key, machine, accepted);
                    self.await_turn_upstream(key, machine);
                }
            }
            Action::RefreshState => {
                if let RespondingInput::Confirm(accepted) = input {
                    machine.lead_to(self.path_of(accepted));
                    self.early.confirmed(key);
                }
            }
            Action::KeepSecond => {
                if let RespondingInput::Confirm(accepted) = input {
                    self.keep_second(key, machine, accepted, now);
                }
            }
            Action::DropSecond => self.drop_second(key, machine),
            Action::AdoptSecond => {
                if let Some(second) = machine.passing_mut().second.take() {
                    machine.lead_to(second);
                    self.await_turn_upstream(key, machine);
                }
            }
            Action::TestPeer => self.test_peer(machine, now),
            Action::LeavePeer => self.leave_querier(key, &machine.hop),
            Action::SendResponse => self.respond_to(key, machine, input, now),
            Action::SendNoRoutingState => {
                if let RespondingInput::Early(received) = input {
                    self.counters.no_routing_state += 1;
                    self.answer(received, ErrorCause::NoRoutingState, Vec::new(), now);
                }
            }
            Action::StoreMessage => {
                if let RespondingInput::Message(message) = input {
                    self.store(&mut machine.passing_mut().stored, message.clone(), now);
                    machine.set_waits(machine.passing().stored.first_deadline());
                }
            }
            Action::SendStored => self.send_stored_upstream(machine, now),
            Action::SendData => {
                if let RespondingInput::Message(message) = input {
                    self.send_upstream(key, machine, message.clone(), now);
                }
            }
            Action::DeliverData => {
                if let RespondingInput::Data(delivery) = input {
                    self.deliver(key, &sender(machine, &delivery.origin), delivery.clone());
                }
            }
            Action::DeliverPayload => {
                if let RespondingInput::Confirm(accepted) = input {
                    self.hand_over_confirm_payload(key, machine, accepted);
                }
            }
            Action::ReportPeerChanged => {
                let new = match input {
                    RespondingInput::Confirm(accepted) => Some(self.path_of(accepted)),
                    _ => machine.second().cloned(),
                };
                self.tell(key, machine, NetworkEvent::PeerChanged, new.as_ref());
            }
            Action::ReportPathChanged => self.tell(key, machine, NetworkEvent::PeerChanged, Some(&machine.path())),
            Action::ReportUnconfirmed => self.report_stored(&mut machine.passing_mut().stored, &SendError::TimedOut),
            Action::ReportRouteDeleted => {
                self.report_stored(&mut machine.passing_mut().stored, &SendError::TimedOut);
                self.tell(key, machine, NetworkEvent::RouteDeleted, None);
            }
            Action::ReportAssociationLost => {
                self.report_stored(
                    &mut machine.passing_mut().stored,
                    &SendError::AssociationFailed("it ended before the peer took the message".to_owned()),
                );
                self.tell(key, machine, NetworkEvent::AssociationLost, None);
            }
            Action::ReportNotAuthorised => {
                self.report_stored(&mut machine.passing_mut().stored, &SendError::NotAuthorised);
                self.tell(key, machine, NetworkEvent::NotAuthorised, None);
            }
            Action::Destroy => {
                self.leave_querier(key, &machine.hop);
                self.drop_second(key, machine);
                self.drop_stored(&mut machine.passing_mut().stored);
            }
        }
    }

    fn start_responding_timer(&mut self, key: &RoutingKey, machine: &mut Responding, timer: Timer, now: Instant) {
        let span = match timer {
            Timer::ExpireRNode => machine.validity.span(),
            Timer::NoConfirm => {
                let at = self.early.next_repetition(key, self.config.query_timer, now);
                return machine.set_timer(timer, at);
            }
            // There may have been no room for a second peer.
            Timer::Tentative => match machine.second() {
                Some(second) => second.validity.span(),
                None => return,
            },
        };
        machine.set_timer(timer, Some(now + span));
    }

    fn tell(&mut self, key: &RoutingKey, machine: &Responding, event: NetworkEvent, peer: Option<&Path>) {
        let peer = peer.map(|path| (path.hop.handle, Some(path.hop.route())));
        self.notify(key, &key.mri().inverted(), event, Some(machine.hop.handle), peer);
    }

    /// What waits keeps its order.
    fn send_upstream(&mut self, key: &RoutingKey, machine: &mut Responding, message: SendMessage, now: Instant) {
        let route = machine.hop.route();
        if machine.passing().stored.is_empty() && self.has_room(route) {
            let own = self.backend.0.egress_address(machine.hop.peer.address);
            return self.send_data(route, (own, PathId::ROUTED), machine.validity.span(), message, now);
        }
        self.store(&mut machine.passing_mut().stored, message, now);
        self.await_turn_upstream(key, machine);
    }

    /// What has waited for the Confirm of a peer that is reached by datagrams.
    fn send_stored_upstream(&mut self, machine: &mut Responding, now: Instant) {
        let (route, validity) = (machine.hop.route(), machine.validity.span());
        let own = self.backend.0.egress_address(machine.hop.peer.address);
        while let Some(message) = self.next_stored(&mut machine.passing_mut().stored) {
            self.send_data(route, (own, PathId::ROUTED), validity, message, now);
        }
        machine.set_waits(None);
    }

    fn await_turn_upstream(&mut self, key: &RoutingKey, machine: &mut Responding) {
        if let Route::Association(id) = machine.hop.route() {
            self.await_responding_turn(id, key, machine);
        }
    }

    fn adopt_querier(&mut self, key: &RoutingKey, machine: &mut Responding, accepted: &AcceptedConfirm) {
        machine.lead_to(self.path_of(accepted));
        self.early.confirmed(key);
        if let Route::Association(id) = machine.hop.route() {
            self.associations.add_user(id, User::Responding(key.clone()));
        }
    }

    /// What only a Confirm may say: who sent it, the way of the Query that it answers for, out of its cookie, and the validity.
    pub(super) fn path_of(&mut self, accepted: &AcceptedConfirm) -> Path {
        Path {
            hop: self.hop_to(Peer::from(&accepted.confirm.nli), accepted.route, accepted.arrival.interface),
            ip_distance: accepted.arrival.ip_distance,
            validity: self.agreed_validity(accepted.confirm.nli.validity).into(),
        }
    }

    /// The Confirm's peer becomes the second one, in place of any other, if it has a share of the table left.
    fn keep_second(&mut self, key: &RoutingKey, machine: &mut Responding, accepted: &AcceptedConfirm, now: Instant) {
        self.counters.takeovers_refused += 1;
        let Some(id) = accepted.route.association() else { return };
        if machine.second().is_none_or(|second| second.hop.route() != accepted.route) {
            if !self.has_share_of_states(id) {
                return self.refuse_for_want_of_room(&accepted.received, now);
            }
            self.drop_second(key, machine);
            self.associations.add_user(id, User::Responding(key.clone()));
        }
        machine.passing_mut().second = Some(self.path_of(accepted));
        self.hand_over_confirm_payload(key, machine, accepted);
    }

    fn drop_second(&mut self, key: &RoutingKey, machine: &mut Responding) {
        let route = machine.hop.route();
        if let Some(second) = machine.passing_mut().second.take().filter(|second| second.hop.route() != route) {
            self.leave_querier(key, &second.hop);
        }
    }

    /// Somebody else claims the flow: if the state's peer does not answer any more, its association fails and the heir takes it.
    fn test_peer(&mut self, machine: &Responding, now: Instant) {
        if let Some(id) = machine.hop.route().association() {
            self.doubt(id, now);
        }
    }

    fn leave_querier(&mut self, key: &RoutingKey, hop: &Hop) {
        if let Route::Association(id) = hop.route() {
            self.associations.remove_user(id, &User::Responding(key.clone()));
        }
    }

    fn hand_over_confirm_payload(&mut self, key: &RoutingKey, machine: &Responding, accepted: &AcceptedConfirm) {
        let origin = accepted.received.origin;
        let Some(payload) = accepted.confirm.payload.clone() else { return };
        if self.may_deliver(key.nslp_id, &origin) {
            let hop_count = accepted.received.message.hop_count;
            let delivery = Delivery { payload, hop_count, origin, mri: accepted.confirm.mri.clone(), explicit: false };
            self.deliver(key, &sender(machine, &origin), delivery);
        }
    }
}

/// Which of the state's peers a message is from.
fn sender<'a>(machine: &'a Responding, origin: &Origin) -> Sender<'a> {
    match machine.second() {
        Some(second) if second.hop.route().association() == origin.association() => Sender::tentative(&second.hop.peer, second.ip_distance),
        _ => Sender::of(&machine.hop.peer, machine.ip_distance),
    }
}
