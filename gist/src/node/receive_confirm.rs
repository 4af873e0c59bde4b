//! Confirms: where the responding node installs state (RFC 5971 §4.4.1 case 2, §5.7.1).

use super::association::AssociationInput;
use super::cookie::{Arrival, BadCookie, Bound, ResponderCookies};
use super::machines::node::{Event, Guards};
use super::machines::{association, responding};
use super::node_machine::NodeInput;
use super::receive::Received;
use super::responding::{AcceptedConfirm, Responding, RespondingInput};
use super::routing_state::{Origin, Peer, Route, RoutingKey};
use super::task::Task;
use super::translation::Translation;
use super::{Installation, Node};
use crate::api::AssociationId;
use crate::time::Instant;
use crate::wire::{Body, Confirm, ErrorCause, ErrorInfo, Mri, NslpId, ObjectType, ObjectTypeFault, ObjectValueFault, ObjectValueInfo};

/// Why a Confirm installs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BadConfirm {
    Cookie(BadCookie),
    /// The Stack-Proposal is not the one that was sent (§8.6).
    Proposal,
    /// The association's peer may not go by this name, or may not be the next node of this flow, or is not authenticated where
    /// somebody is who has it.
    NotAuthorised,
}

impl Node {
    pub(super) fn receive_confirm(&mut self, mut confirm: Confirm, received: Received, now: Instant) {
        let nslp_id = received.message.nslp_id;
        // From here on the flow and its sender are as this node sees them; the cookie is held against what the NAT has made of them too (G-326).
        let translation = confirm.responder_cookie.as_ref().filter(|_| self.config.behind_nats).and_then(ResponderCookies::translation_in);
        let original = translation.map(|Translation { local, address }| {
            confirm.nli.address = address;
            core::mem::replace(&mut confirm.mri, local)
        });
        let key = RoutingKey::along(nslp_id, confirm.session, &confirm.mri);
        // G-145: a handshake that sets up an association confirms on it, and one of datagrams in a datagram: no cookie of that says which
        // association its state may hang on.
        let has_associations = self.registration(nslp_id).is_some_and(|registration| !registration.offer.is_empty());
        let route = match received.origin {
            Origin::Association(id) if has_associations => Route::Association(id),
            Origin::Datagram(origin) if !has_associations => Route::Datagram(origin.source),
            Origin::Association(_) | Origin::Datagram(_) => {
                self.counters.wrong_encapsulation += 1;
                return self.answer(&received, ErrorCause::IncorrectEncapsulation, Vec::new(), now);
            }
        };
        if self.lacks_hold_time(&confirm, &received.origin) {
            let info = ErrorInfo::ObjectType(ObjectType::StackConfigurationData.number());
            return self.answer(&received, ErrorCause::ObjectType(ObjectTypeFault::Missing), vec![info], now);
        }
        match self.verify(nslp_id, &confirm, original.as_ref(), now) {
            Ok(_) if !self.may_confirm(nslp_id, &confirm, &received.origin) || self.is_kept_from(&key, route) => {
                self.bad_confirm(BadConfirm::NotAuthorised, &key, route, received, now)
            }
            Ok(arrival) => {
                self.note_confirmed(&confirm, &received.origin, now);
                let accepted = Box::new(AcceptedConfirm { confirm, route, received, arrival });
                self.note_neighbour(&accepted, now);
                if self.responding.contains_key(&key) {
                    self.responding_event(&key, responding::Event::RxConfirm, RespondingInput::Confirm(accepted), now);
                } else {
                    let guards = Guards { late_installation: true, cookie_valid: true, ..Guards::default() };
                    self.node_event(Event::RxConfirm, guards, &NodeInput::Confirm(accepted), now);
                }
                if self.responding.contains_key(&key) {
                    self.translations.note(&key, original);
                }
            }
            Err(fault) => self.bad_confirm(fault, &key, route, received, now),
        }
    }

    /// A cookie binds a handshake to an NLI, which its Query shows to everybody on the way; only this ties the NLI and the
    /// flow to the certificate.
    fn may_confirm(&self, nslp_id: NslpId, confirm: &Confirm, origin: &Origin) -> bool {
        let Some(id) = origin.association() else { return true };
        let peer = Peer::from(&confirm.nli);
        let may_claim = self.associations.get(id).is_some_and(|association| association.may_claim(&peer));
        may_claim && self.may_carry(id, nslp_id) && self.may_serve(id, &confirm.mri.inverted())
    }

    /// G-121: the first Confirm on a new association tells the hold time.
    fn lacks_hold_time(&self, confirm: &Confirm, origin: &Origin) -> bool {
        let association = origin.association().and_then(|id| self.associations.get(id));
        association.is_some_and(is_new) && confirm.configuration.is_none()
    }

    /// The cookie, then the echoed proposal (G-230). The cookie is bound to the proposal, so that either fault shows.
    fn verify(&mut self, nslp_id: NslpId, confirm: &Confirm, original: Option<&Mri>, now: Instant) -> Result<Arrival, BadConfirm> {
        let cookie = confirm.responder_cookie.as_ref().ok_or(BadConfirm::Cookie(BadCookie::Stale))?;
        let bound = Bound {
            nslp_id,
            session: confirm.session,
            mri: original.unwrap_or(&confirm.mri),
            peer: &confirm.nli.peer,
            address: confirm.nli.address,
            proposal: confirm.proposal.as_ref(),
        };
        let macs = &mut self.counters.cookie_macs;
        let verdict = self.cookies.check(&*self.backend.0, cookie, &bound, now, macs);
        let ours = self.registration(nslp_id).and_then(super::Registration::proposal);
        match verdict {
            Err(BadCookie::Stale) => Err(BadConfirm::Cookie(BadCookie::Stale)),
            _ if confirm.proposal.is_some() && confirm.proposal != ours => Err(BadConfirm::Proposal),
            Err(fault) => Err(BadConfirm::Cookie(fault)),
            Ok(arrival) => Ok(arrival),
        }
    }

    /// The association is the peer's to keep now, under the NLI it gave (§4.4.3) and with its hold time (G-085).
    fn note_confirmed(&mut self, confirm: &Confirm, origin: &Origin, now: Instant) {
        let Some(id) = origin.association() else { return };
        self.associations.name(id, &Peer::from(&confirm.nli));
        let own = self.backend.0.egress_address(confirm.nli.address);
        let Some(association) = self.associations.get_mut(id) else { return };
        let is_first = association.confirmed.is_none();
        // What the Response has named.
        association.own = if is_first { own } else { association.own };
        association.confirmed = association.confirmed.or(Some(now));
        if let Some(configuration) = &confirm.configuration {
            association.peer_hold_time = configuration.hold_time;
        }
        self.tasks.push_back(Task::Association(id, association::Event::TgConfirmed, AssociationInput::None));
        if is_first {
            self.doubt_predecessors(id, now);
        }
    }

    fn bad_confirm(&mut self, fault: BadConfirm, key: &RoutingKey, route: Route, received: Received, now: Instant) {
        match fault {
            BadConfirm::Cookie(BadCookie::Stale) => self.counters.stale_responder_cookies += 1,
            BadConfirm::Cookie(BadCookie::Forged) => self.counters.bad_responder_cookies += 1,
            BadConfirm::Proposal => self.counters.altered_proposals += 1,
            BadConfirm::NotAuthorised => self.counters.flows_refused += 1,
        }
        tracing::warn!(session = %key.session, ?fault, "Confirm refused");
        // In a datagram it is nobody's word: anybody can write the address of the state's peer (§6.3).
        let is_its_own = |machine: &Responding| route.association().is_some() && machine.hop_by(|own| *own == route).is_some();
        let belongs = self.responding.get(key).is_some_and(|machine| is_its_own(machine));
        // A cookie may have grown old on its way; only a false one speaks against the state (G-231).
        if belongs && fault != BadConfirm::Cookie(BadCookie::Stale) {
            let input = route.association().map_or(RespondingInput::None, RespondingInput::Ended);
            self.responding_event(key, responding::Event::ErBadConfirm, input, now);
        }
        // In case 1 only a Response to somebody whose Query made no state has asked for one, by its cookie.
        let late_installation = self.installation(key.nslp_id) != Installation::WithoutConfirm;
        let guards = Guards { late_installation, ..Guards::default() };
        self.node_event(Event::RxConfirm, guards, &NodeInput::Stray(Box::new(received)), now);
    }

    /// No state; and if the association has carried nothing good yet, no association either (G-231). Over any other the peer
    /// hears of it, and keeps whom it had (note 3 of the table).
    pub(super) fn refuse_confirm(&mut self, received: &Received, now: Instant) {
        if self.config.answer_bad_cookies {
            self.answer_bad_cookie(received, now);
        }
        let Some(id) = received.origin.association() else { return };
        if self.associations.get(id).is_some_and(is_new) {
            self.close_after_bad_confirm(id);
        } else if !self.config.answer_bad_cookies {
            self.answer(received, ErrorCause::NoRoutingState, Vec::new(), now);
        }
    }

    /// A Confirm that is right and installs nothing, since there is no room.
    pub(super) fn refuse_for_want_of_room(&mut self, received: &Received, now: Instant) {
        self.counters.refused_when_full += 1;
        tracing::warn!("routing state table or this peer's share of it is full, Confirm dropped");
        if received.origin.association().is_some() {
            self.answer(received, ErrorCause::NoRoutingState, Vec::new(), now);
        }
    }

    fn close_after_bad_confirm(&mut self, id: AssociationId) {
        let input = AssociationInput::Reason("its first Confirm was refused".to_owned());
        self.tasks.push_back(Task::Association(id, association::Event::ErBadConfirm, input));
    }

    /// G-337: only where somebody has asked for it, for debugging.
    fn answer_bad_cookie(&mut self, received: &Received, now: Instant) {
        let Body::Confirm(confirm) = &received.message.body else { return };
        let cookie = confirm.responder_cookie.as_ref();
        let info =
            cookie.map(|cookie| ErrorInfo::ObjectValue(ObjectValueInfo::from_value(ObjectType::ResponderCookie, cookie.as_bytes(), 0)));
        let cause = ErrorCause::ObjectValue(ObjectValueFault::InvalidCookie);
        self.answer(received, cause, info.into_iter().collect(), now);
    }
}

/// Opened by the peer, and nothing confirmed on it yet.
pub(super) fn is_new(association: &super::association::Association) -> bool {
    !association.opened_here && association.confirmed.is_none()
}
