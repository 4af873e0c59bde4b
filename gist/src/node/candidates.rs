//! Peers that answered a Query and are yet to prove who they are (RFC 5971 §6.2 rule 4, make before break).
//!
//! Whoever sees a Query can answer it, so a Response alone neither ends a peer nor makes one: an association is opened to
//! each that answers, and the first that has taken a Confirm over it, and so has made the Responder-Cookie, is the peer. Nor
//! may answers make this node knock at doors as they like: few associations for one handshake, none to what cannot be a
//! neighbour, and whoever answered earlier keeps its chance. Who has proved itself over TCP alone waits for those who answered
//! and may yet authenticate themselves ([`super::protection`]), but not for long; these stay candidates beside it, and replace it when they
//! have.

use core::net::{IpAddr, SocketAddr};

use super::Node;
use super::association::{Association, AssociationInput};
use super::machines::association::Event;
use super::machines::querying;
use super::querying::{AcceptedResponse, Plan, QueryingInput};
use super::querying_actions::association_failed;
use super::querying_state::Querying;
use super::routing_state::{Peer, Route, RoutingKey, User, is_unicast};
use super::task::Task;
use crate::api::{AssociationId, PathId, SendError};
use crate::time::Instant;
use crate::wire::{Hello, Mri};

/// Most candidates of one routing state, and most for one handshake, each of which costs an association or a Confirm; past
/// this no answer is heard.
const MOST_CANDIDATES: usize = 8;

/// A peer that answered, with the association that is being opened to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub(super) association: AssociationId,
    pub(super) accepted: AcceptedResponse,
    /// The Hello-ID whose answer shows that its Confirm was taken; `None` while the association is being opened.
    pub(super) proof: Option<u32>,
    /// When the Confirm went, if it has: from then on the peer counts the validity.
    pub(super) confirmed: Option<Instant>,
}

impl Querying {
    /// The candidate with this association.
    pub(super) fn candidate(&self, association: AssociationId) -> Option<&Candidate> {
        self.passing().candidates.iter().find(|candidate| candidate.association == association)
    }

    /// The candidate that the news is about. An answer counts only if it is to what was asked last.
    pub(super) fn candidate_of(&self, input: &QueryingInput) -> Option<&Candidate> {
        let candidate = self.candidate(input.association()?)?;
        let is_late = matches!(input, QueryingInput::Proven { proof, .. } if candidate.proof != Some(*proof));
        (!is_late).then_some(candidate)
    }

    /// The Response that an event is about: the one that has come, or the one of the peer that the news is about.
    pub(super) fn answer(&self, input: &QueryingInput) -> Option<AcceptedResponse> {
        match input {
            QueryingInput::Response(accepted) => Some(AcceptedResponse::clone(accepted)),
            _ => {
                let Candidate { association, accepted, .. } = self.candidate_of(input)?;
                Some(AcceptedResponse { plan: Some(Plan::Reuse(*association)), ..accepted.clone() })
            }
        }
    }
}

impl Node {
    /// Whether the peer is yet to prove that it has answered: over an association it just has, and over datagrams it cannot.
    pub(super) fn is_pending(accepted: &AcceptedResponse) -> bool {
        match accepted.plan {
            Some(Plan::Reuse(_) | Plan::Open { .. }) => accepted.origin.association().is_none(),
            Some(Plan::Datagram(_)) | None => false,
        }
    }

    pub(super) fn open_candidate(&mut self, key: &RoutingKey, machine: &mut Querying, accepted: &AcceptedResponse, now: Instant) {
        let id = match accepted.plan {
            // Answers to several transmissions of one Query come from one peer, and its association opens already.
            Some(Plan::Reuse(id)) if machine.candidate(id).is_some() => return,
            Some(Plan::Reuse(_) | Plan::Open { .. }) if machine.passing().candidates.len() >= MOST_CANDIDATES => {
                return self.refuse_open(key);
            }
            Some(_) if usize::from(machine.opened) >= MOST_CANDIDATES => return self.refuse_open(key),
            Some(Plan::Reuse(id)) => id,
            Some(Plan::Open { remote, protected }) => self.open_association(machine, accepted, (remote, protected), now),
            Some(Plan::Datagram(_)) | None => return,
        };
        machine.opened = machine.opened.saturating_add(1);
        self.associations.add_user(id, User::Querying(key.clone()));
        let candidate = Candidate { association: id, accepted: accepted.clone(), proof: None, confirmed: None };
        machine.passing_mut().candidates.push(candidate);
        if self.associations.get(id).is_some_and(Association::is_open) {
            self.tasks.push_back(Task::Querying(key.clone(), querying::Event::TgConnected, QueryingInput::Connected(id)));
        }
    }

    /// The association to the candidate is open: the Confirm goes, and behind it the question whether it has been taken.
    pub(super) fn prove_candidate(&mut self, key: &RoutingKey, machine: &mut Querying, input: &QueryingInput, now: Instant) {
        let proof = self.hello_id();
        let Some(id) = input.association() else { return };
        let Some(candidate) = machine.passing_mut().candidates.iter_mut().find(|candidate| candidate.association == id) else { return };
        (candidate.proof, candidate.confirmed) = (Some(proof), Some(now));
        let accepted = candidate.accepted.clone();
        self.send_confirm(key, Route::Association(id), machine.path, &accepted, now);
        let input = AssociationInput::Proof(proof, Box::new(key.clone()));
        self.tasks.push_back(Task::Association(id, Event::TgTest, input));
    }

    /// An MA-Hello that answers: whether it shows that a candidate has taken its Confirm.
    pub(super) fn proven(&mut self, id: AssociationId, hello: &Hello, now: Instant) {
        let Some(association) = self.associations.get_mut(id).filter(|_| !hello.request) else { return };
        if let Some(key) = association.proofs.remove(&hello.id) {
            let input = QueryingInput::Proven { association: id, proof: hello.id };
            self.tasks.push_back(Task::Querying(key, querying::Event::TgProven, input));
            self.doubt_predecessors(id, now);
        }
    }

    fn let_go(&mut self, key: &RoutingKey, candidate: &Candidate) {
        self.associations.remove_user(candidate.association, &User::Querying(key.clone()));
        self.forget_proof(candidate);
    }

    fn forget_proof(&mut self, candidate: &Candidate) {
        if let (Some(proof), Some(association)) = (candidate.proof, self.associations.get_mut(candidate.association)) {
            association.proofs.remove(&proof);
        }
    }

    fn refuse_open(&mut self, key: &RoutingKey) {
        self.counters.opens_refused += 1;
        tracing::debug!(session = %key.session, "too many answered this Query");
    }

    /// Whether a neighbour on the way of this flow can be at the address: one single other node's, of the flow's IP version.
    pub(super) fn may_be_opened_to(&self, address: IpAddr, mri: &Mri) -> bool {
        // Loopback is a way to other nodes only where this node itself is known by it.
        let is_elsewhere = !address.is_loopback() || self.own_address_for(mri).is_some_and(|own| own.is_loopback());
        let same_version = address.is_ipv4() == mri.destination().is_ipv4();
        same_version && is_elsewhere && is_unicast(address) && !self.is_local(address)
    }

    /// By another way out it is opened from the address that the Query has named: it may be the only one that routers there let
    /// pass and that the peer has a way back to, whatever the link's own address is.
    fn open_association(
        &mut self,
        machine: &Querying,
        accepted: &AcceptedResponse,
        (remote, protected): (SocketAddr, bool),
        now: Instant,
    ) -> AssociationId {
        let id = self.associations.next_id();
        let announced = accepted.response.responder.as_ref().and_then(|responder| responder.stack.as_ref());
        let hold_time = announced.map_or(self.config.hold_time, |stack| stack.configuration.hold_time);
        let path = machine.path;
        let source = accepted.own.filter(|_| path != PathId::ROUTED);
        self.associations
            .insert(id, Association::new(true, remote, hold_time, now).by(path, source).named(accepted.own).over_tls(protected));
        self.associations.name(id, &Peer::from(&accepted.response.nli));
        self.tasks.push_back(Task::Association(id, Event::TgConnect, AssociationInput::None));
        id
    }

    /// The candidate that the news is about is no use; the handshake goes on and remembers why.
    pub(super) fn drop_candidate(&mut self, key: &RoutingKey, machine: &mut Querying, input: &QueryingInput, now: Instant) {
        let Some(id) = input.association() else { return };
        let Some(place) = machine.passing().candidates.iter().position(|candidate| candidate.association == id) else { return };
        let candidate = machine.passing_mut().candidates.remove(place);
        self.let_go(key, &candidate);
        machine.note_setback(match input {
            QueryingInput::Ended { reason, .. } if !reason.is_empty() => association_failed(input),
            _ => SendError::NotAuthorised,
        });
        self.repeat_proofs(key, machine, now);
    }

    /// Those who have proved themselves over TCP alone have waited for others, who might have been authenticated: now they wait no longer.
    pub(super) fn repeat_proofs(&mut self, key: &RoutingKey, machine: &Querying, now: Instant) {
        if self.awaits_protected(machine, now) {
            return;
        }
        for Candidate { association, proof, .. } in &machine.passing().candidates {
            let Some(proof) = *proof else { continue };
            if self.associations.get(*association).is_some_and(|known| !known.protected && !known.proofs.contains_key(&proof)) {
                let input = QueryingInput::Proven { association: *association, proof };
                self.tasks.push_back(Task::Querying(key.clone(), querying::Event::TgProven, input));
            }
        }
    }

    /// A peer has been taken: nobody else is wanted but, where nobody has authenticated it, who may yet authenticate itself.
    pub(super) fn drop_others(&mut self, key: &RoutingKey, machine: &mut Querying) {
        let may_be_replaced = self.may_be_replaced(machine);
        let is_kept = |candidate: &mut Candidate| may_be_replaced && self.is_protected(candidate.association);
        let kept: Vec<_> = machine.passing_mut().candidates.extract_if(.., is_kept).collect();
        self.drop_candidates(key, machine);
        machine.passing_mut().candidates = kept;
    }

    /// None is wanted any more.
    pub(super) fn drop_candidates(&mut self, key: &RoutingKey, machine: &mut Querying) {
        for candidate in core::mem::take(&mut machine.passing_mut().candidates) {
            if machine.route() == Some(Route::Association(candidate.association)) {
                self.forget_proof(&candidate);
            } else {
                self.let_go(key, &candidate);
            }
        }
    }
}
