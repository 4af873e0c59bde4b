//! Data: whether it may go to the application (RFC 5971 §4.3.2).

use bytes::Bytes;

use super::Node;
use super::indicate::Sender;
use super::machines::node::{Event, Guards};
use super::machines::{querying, responding};
use super::node_machine::NodeInput;
use super::querying::QueryingInput;
use super::receive::Received;
use super::responding::RespondingInput;
use super::routing_state::{Origin, Peer, Route, RoutingKey};
use crate::time::Instant;
use crate::wire::{Body, Data, ErrorCause, ErrorInfo, HeaderFault, Mri, NslpId, ObjectType, ObjectTypeFault};

/// A payload on its way up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Delivery {
    pub(super) payload: Bytes,
    pub(super) hop_count: u8,
    pub(super) origin: Origin,
    pub(super) mri: Mri,
    /// E=1.
    pub(super) explicit: bool,
}

impl Node {
    /// The checks in the order of §4.3.2 (G-047): explicitly routed messages first, which routing state has nothing to say about if their
    /// application takes such.
    pub(super) fn receive_data(&mut self, mut data: Data, received: Received, now: Instant) {
        if let Some((cause, info)) = misplaced_on_association(&data, &received.origin) {
            return self.answer(&received, cause, info.into_iter().collect(), now);
        }
        let nslp_id = received.message.nslp_id;
        data.mri = self.local_form(nslp_id, data.session, &data.mri);
        let takes_unvalidated = self.registration(nslp_id).is_some_and(|registration| registration.unvalidated_data);
        if data.explicit && takes_unvalidated {
            let guards = Guards { stateless_data: true, ..Guards::default() };
            return self.node_event(Event::RxData, guards, &NodeInput::Stray(Box::new(received)), now);
        }
        // The sender is the querying node of a state along the message's way, or the responding node of one against it.
        let theirs = RoutingKey::along(nslp_id, data.session, &data.mri);
        let ours = RoutingKey::against(nslp_id, data.session, &data.mri);
        let responding = self.responding.get(&theirs);
        let is_theirs = responding.map(|machine| machine.hop_by(|route| is_from(route, &received, &data)).is_some());
        // What only a Query says of the session keeps nothing from whom this node has found, nor from going up without any state.
        let is_shown = self.is_shown(&theirs);
        let is_stray = takes_unvalidated && data.context_free;
        let is_early = responding.is_some_and(|machine| machine.state == responding::State::AwaitingConfirm);
        let querying = self.querying.get(&ours).and_then(|machine| machine.route());
        let delivery = Delivery {
            payload: data.payload.clone(),
            hop_count: received.message.hop_count,
            origin: received.origin,
            mri: data.mri.clone(),
            explicit: data.explicit,
        };
        if is_theirs == Some(true) && is_shown {
            self.responding_event(&theirs, responding::Event::RxData, RespondingInput::Data(delivery), now);
        } else if querying.is_some_and(|route| is_from(&route, &received, &data)) {
            self.querying_event(&ours, querying::Event::RxData, QueryingInput::Data(delivery), now);
        } else if is_theirs == Some(true) && is_early && !is_stray {
            self.responding_event(&theirs, responding::Event::RxData, RespondingInput::Early(Box::new(received)), now);
        } else if is_theirs == Some(true) && !is_early {
            self.responding_event(&theirs, responding::Event::RxData, RespondingInput::Data(delivery), now);
        } else if is_shown || querying.is_some() {
            self.refuse_misdelivered(&received, now);
        } else {
            let guards = Guards { stateless_data: is_stray, ..Guards::default() };
            self.node_event(Event::RxData, guards, &NodeInput::Stray(Box::new(received)), now);
        }
    }

    /// Check 1: no routing state vouches for the message, and the application wants to see it all the same (G-044).
    pub(super) fn deliver_unvalidated(&mut self, received: &Received) {
        let Body::Data(data) = &received.message.body else { return };
        let nslp_id = received.message.nslp_id;
        if !self.may_deliver(nslp_id, &received.origin) {
            return;
        }
        let of_association = received.origin.association().and_then(|id| self.associations.get(id)).and_then(|known| known.peer.clone());
        let Some(peer) = data.nli.as_ref().map(Peer::from).or(of_association) else { return };
        let delivery = Delivery {
            payload: data.payload.clone(),
            hop_count: received.message.hop_count,
            origin: received.origin,
            mri: data.mri.clone(),
            explicit: data.explicit,
        };
        let key = RoutingKey::along(nslp_id, data.session, &data.mri);
        self.deliver(&key, &Sender::unvalidated(&peer), delivery);
    }

    /// Check 2: there is state for the session, and this is not the way its messages come.
    fn refuse_misdelivered(&mut self, received: &Received, now: Instant) {
        let cause = match received.origin {
            Origin::Association(_) => {
                self.counters.wrong_association += 1;
                ErrorCause::IncorrectlyDelivered
            }
            Origin::Datagram(_) => {
                self.counters.unprotected += 1;
                ErrorCause::IncorrectEncapsulation
            }
        };
        self.answer(received, cause, Vec::new(), now);
    }

    /// Whether a payload may go to the application: unprotected ones only if it demands no protection. Counts those that may not.
    pub(super) fn may_deliver(&mut self, nslp_id: NslpId, origin: &Origin) -> bool {
        let demands = self.registration(nslp_id).is_none_or(super::Registration::is_secure);
        let may = !demands || origin.association().is_some_and(|id| self.is_protected(id));
        self.counters.unprotected += u64::from(!may);
        may
    }
}

/// Whether the message came by the state's own route.
fn is_from(route: &Route, received: &Received, data: &Data) -> bool {
    match (route, &received.origin) {
        (Route::Association(own), Origin::Association(id)) => own == id,
        // The NLI's address was compared with the source on reception, so a stranger cannot claim the peer's.
        (Route::Datagram(own), Origin::Datagram(_)) => {
            received.message.source_is_signalling && data.nli.as_ref().is_some_and(|nli| nli.address == own.ip())
        }
        _ => false,
    }
}

/// In C-mode there is neither an NLI (G-148) nor the C-flag (G-154).
fn misplaced_on_association(data: &Data, origin: &Origin) -> Option<(ErrorCause, Option<ErrorInfo>)> {
    origin.association()?;
    if data.context_free {
        return Some((ErrorCause::CommonHeaderParse(HeaderFault::InvalidCFlag), None));
    }
    data.nli.as_ref()?;
    let info = ErrorInfo::ObjectType(ObjectType::NetworkLayerInformation.number());
    Some((ErrorCause::ObjectType(ObjectTypeFault::Invalid), Some(info)))
}
