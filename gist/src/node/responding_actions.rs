//! What the responding machine wants done (RFC 5971 §6.3).

use core::time::Duration;

use super::Node;
use super::association::AssociationInput;
use super::machines::association;
use super::machines::responding::{Action, Timer};
use super::receive_data::Delivery;
use super::responding::{AcceptedConfirm, Responding, RespondingInput};
use super::routing_state::{Peer, Route, RoutingKey, User};
use super::task::Task;
use super::timers::TimerKey;
use crate::api::NetworkEvent;
use crate::time::Instant;

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
            Action::Stop(timer) => self.timers.stop(&TimerKey::Responding(key.clone(), timer)),
            Action::AdoptPeer => {
                if let RespondingInput::Confirm(accepted) = input {
                    self.adopt_querier(key, machine, accepted);
                }
            }
            Action::RefreshState => {
                if let RespondingInput::Confirm(accepted) = input {
                    self.note_path(machine, accepted);
                }
            }
            Action::TestPeer => self.test_peer(machine),
            Action::LeavePeer => self.leave_querier(key, machine),
            Action::SendResponse => {
                if let RespondingInput::Query(accepted) = input {
                    self.send_response(accepted, Some(machine.route), now);
                }
            }
            Action::SendData => {
                if let RespondingInput::Message(message) = input {
                    let own = self.backend.0.egress_address(machine.peer.address);
                    self.send_data(machine.route, own, machine.validity, message.clone(), now);
                }
            }
            Action::DeliverData => {
                if let RespondingInput::Data(delivery) = input {
                    self.deliver(key, &machine.peer.identity, machine.ip_distance, delivery.clone());
                }
            }
            Action::DeliverPayload => {
                if let RespondingInput::Confirm(accepted) = input {
                    self.hand_over_confirm_payload(key, machine, accepted);
                }
            }
            Action::Discard => {}
            Action::ReportPeerChanged => self.notify(key, &key.mri.inverted(), NetworkEvent::PeerChanged),
            Action::ReportRouteDeleted => self.notify(key, &key.mri.inverted(), NetworkEvent::RouteDeleted),
            Action::ReportAssociationLost => self.notify(key, &key.mri.inverted(), NetworkEvent::AssociationLost),
            Action::ReportNotAuthorised => self.notify(key, &key.mri.inverted(), NetworkEvent::NotAuthorised),
            Action::Destroy => {
                self.leave_querier(key, machine);
                Timer::ALL.iter().for_each(|timer| self.timers.stop(&TimerKey::Responding(key.clone(), *timer)));
            }
        }
    }

    fn start_responding_timer(&mut self, key: &RoutingKey, machine: &Responding, timer: Timer, now: Instant) {
        let span = match timer {
            Timer::ExpireRNode => machine.validity.max(Duration::from_millis(1)),
            Timer::NoConfirm => self.config.query_timer,
        };
        self.timers.start(TimerKey::Responding(key.clone(), timer), now + span);
    }

    fn adopt_querier(&mut self, key: &RoutingKey, machine: &mut Responding, accepted: &AcceptedConfirm) {
        machine.peer = Peer::from(&accepted.confirm.nli);
        machine.route = accepted.route;
        self.note_path(machine, accepted);
        if let Route::Association(id) = machine.route {
            self.associations.add_user(id, User::Responding(key.clone()));
        }
    }

    /// What only a Confirm may say: the way of the Query that it answers for, out of its cookie, and the validity.
    fn note_path(&self, machine: &mut Responding, accepted: &AcceptedConfirm) {
        machine.ip_distance = accepted.arrival.ip_distance;
        machine.interface = accepted.arrival.interface;
        machine.validity = self.agreed_validity(accepted.confirm.nli.validity);
    }

    /// Somebody else claims the flow: if the state's peer does not answer any more, its association fails and the state goes.
    fn test_peer(&mut self, machine: &Responding) {
        self.counters.takeovers_refused += 1;
        if let Some(id) = machine.route.association() {
            self.tasks.push_back(Task::Association(id, association::Event::ToSendHello, AssociationInput::None));
        }
    }

    fn leave_querier(&mut self, key: &RoutingKey, machine: &Responding) {
        if let Route::Association(id) = machine.route {
            self.associations.remove_user(id, &User::Responding(key.clone()));
        }
    }

    fn hand_over_confirm_payload(&mut self, key: &RoutingKey, machine: &Responding, accepted: &AcceptedConfirm) {
        let origin = accepted.received.origin;
        let Some(payload) = accepted.confirm.payload.clone() else { return };
        if self.may_deliver(key.nslp_id, &origin) {
            let hop_count = accepted.received.message.hop_count;
            let delivery = Delivery { payload, hop_count, origin, mri: accepted.confirm.mri.clone() };
            self.deliver(key, &machine.peer.identity, machine.ip_distance, delivery);
        }
    }
}
