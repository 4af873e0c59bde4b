//! Peers that answered a Query and are yet to prove who they are (RFC 5971 §6.2 rule 4, make before break).
//!
//! Whoever sees a Query can answer it, so a Response alone neither ends a peer nor makes one: an association is opened to
//! each that answers, and the first that opens is taken.

use core::net::SocketAddr;

use super::Node;
use super::association::{Association, AssociationInput};
use super::machines::association::Event;
use super::querying::{AcceptedResponse, Plan, Querying, QueryingInput};
use super::querying_actions::association_failed;
use super::routing_state::{Peer, Route, RoutingKey, User};
use super::task::Task;
use crate::api::{AssociationId, SendError};
use crate::time::Instant;

/// Most candidates of one routing state; past this the oldest gives way, which has had the most time.
const MOST_CANDIDATES: usize = 4;

/// A peer that answered, with the association that is being opened to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    pub(super) association: AssociationId,
    pub(super) accepted: AcceptedResponse,
}

impl Querying {
    /// The candidate with this association.
    pub(super) fn candidate(&self, association: AssociationId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.association == association)
    }

    /// The Response that an event is about: the one that has come, or the one whose peer's association has opened.
    pub(super) fn answer(&self, input: &QueryingInput) -> Option<AcceptedResponse> {
        match input {
            QueryingInput::Response(accepted) => Some(AcceptedResponse::clone(accepted)),
            QueryingInput::Connected(id) => {
                let Candidate { association, accepted } = self.candidate(*id)?;
                Some(AcceptedResponse { plan: Some(Plan::Reuse(*association)), ..accepted.clone() })
            }
            _ => None,
        }
    }
}

impl Node {
    /// Whether the peer is yet to be authenticated.
    pub(super) fn is_pending(&self, plan: Plan) -> bool {
        match plan {
            Plan::Reuse(id) => !self.associations.get(id).is_some_and(Association::is_open),
            Plan::Open(_) => true,
            Plan::Datagram(_) => false,
        }
    }

    pub(super) fn open_candidate(&mut self, key: &RoutingKey, machine: &mut Querying, accepted: &AcceptedResponse, now: Instant) {
        let id = match accepted.plan {
            Some(Plan::Reuse(id)) if machine.candidate(id).is_none() => id,
            Some(Plan::Open(remote)) => self.open_association(accepted, remote, now),
            // Answers to several transmissions of one Query come from one peer, and its association opens already.
            Some(Plan::Reuse(_) | Plan::Datagram(_)) | None => return,
        };
        while machine.candidates.len() >= MOST_CANDIDATES {
            let oldest = machine.candidates.remove(0);
            self.associations.remove_user(oldest.association, &User::Querying(key.clone()));
        }
        self.associations.add_user(id, User::Querying(key.clone()));
        machine.candidates.push(Candidate { association: id, accepted: accepted.clone() });
    }

    fn open_association(&mut self, accepted: &AcceptedResponse, remote: SocketAddr, now: Instant) -> AssociationId {
        let id = self.associations.next_id();
        let announced = accepted.response.responder.as_ref().and_then(|responder| responder.stack.as_ref());
        let hold_time = announced.map_or(self.config.hold_time, |stack| stack.configuration.hold_time);
        self.associations.insert(id, Association::new(true, remote, hold_time, now));
        self.associations.name(id, &Peer::from(&accepted.response.nli));
        self.tasks.push_back(Task::Association(id, Event::TgConnect, AssociationInput::None));
        id
    }

    /// The candidate that the news is about is no use; the handshake goes on and remembers why.
    pub(super) fn drop_candidate(&mut self, key: &RoutingKey, machine: &mut Querying, input: &QueryingInput) {
        let Some(id) = input.association() else { return };
        machine.candidates.retain(|candidate| candidate.association != id);
        self.associations.remove_user(id, &User::Querying(key.clone()));
        machine.handshake.setback = Some(match input {
            QueryingInput::Ended { reason, .. } if !reason.is_empty() => association_failed(input),
            _ => SendError::NotAuthorised,
        });
    }

    /// A peer has been taken, or none is wanted any more.
    pub(super) fn drop_candidates(&mut self, key: &RoutingKey, machine: &mut Querying) {
        for candidate in core::mem::take(&mut machine.candidates) {
            if machine.route != Some(Route::Association(candidate.association)) {
                self.associations.remove_user(candidate.association, &User::Querying(key.clone()));
            }
        }
    }
}
