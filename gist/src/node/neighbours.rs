//! Neighbours that have shown to be where their messages say, where Queries alone keep state (RFC 5971 §6.3 case 1, §8.4, G-341).
//!
//! Answers to strangers are few for each destination, whoever they are for, because a Query may name a victim. Whoever has returned a
//! Responder-Cookie from there is none of these: the refreshes of its states have an account of their own, by the interface that its Query
//! came in by, so that nobody elsewhere can use it up. An association says nothing of interfaces: who has one may be named by a Query that
//! comes in by any. New sessions are a stranger's all the same.

use std::collections::BTreeMap;

use super::allowance::Allowance;
use super::receive_query::Asked;
use super::responding::AcceptedConfirm;
use super::routing_state::{Peer, Route};
use super::{Installation, Node};
use crate::time::Instant;

/// Neighbours, each by one interface; when there are so many, no further one is known until one is gone.
const MOST_NEIGHBOURS: usize = 1024;

/// Who has shown to be there, by which interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Neighbours(BTreeMap<(Peer, u32), Neighbour>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Neighbour {
    until: Instant,
    account: Allowance,
}

impl Neighbours {
    /// The peer is there, and is believed to be until then.
    fn note(&mut self, peer: &Peer, interface: u32, until: Instant, now: Instant) {
        if let Some(known) = self.0.get_mut(&(peer.clone(), interface)) {
            known.until = known.until.max(until);
            return;
        }
        if self.0.len() >= MOST_NEIGHBOURS {
            self.0.retain(|_, known| known.until > now);
        }
        if self.0.len() < MOST_NEIGHBOURS {
            self.0.insert((peer.clone(), interface), Neighbour { until, account: Allowance::default() });
        }
    }

    fn account(&mut self, peer: Peer, interface: u32, now: Instant) -> Option<&mut Allowance> {
        self.0.get_mut(&(peer, interface)).filter(|known| known.until > now).map(|known| &mut known.account)
    }
}

impl Node {
    /// A Confirm with a Responder-Cookie of ours has come: its sender gets what is sent there.
    pub(super) fn note_neighbour(&mut self, accepted: &AcceptedConfirm, now: Instant) {
        let is_asked = self.config.registrations.iter().any(|registration| registration.installation == Installation::WithoutConfirm);
        if is_asked && matches!(accepted.route, Route::Datagram(_)) {
            let nli = &accepted.confirm.nli;
            let until = now + self.agreed_validity(nli.validity);
            self.early.neighbours.note(&Peer::from(nli), accepted.arrival.interface, until, now);
        }
    }

    /// Whether a Confirm is to show that somebody is there, before a Query makes a state: the account of strangers is short, which a new session
    /// of a neighbour's counts against as well. Whoever else is on its link may write Queries in its name.
    pub(super) fn wants_proof(&mut self, asked: &Asked, now: Instant) -> bool {
        self.limiter.is_short(asked.origin.asker(asked.query.nli.address), now)
    }

    /// The same before a Query prolongs a state: a neighbour whose account has something left has shown it.
    pub(super) fn wants_proof_again(&mut self, asked: &Asked, now: Instant) -> bool {
        let rate = self.config.datagram_rate;
        self.wants_proof(asked, now) && !self.neighbour(asked, now).is_some_and(|account| account.has_turn_of_neighbour(rate, now))
    }

    pub(super) fn takes_turn_of_neighbour(&mut self, asked: &Asked, now: Instant) -> bool {
        let rate = self.config.datagram_rate;
        self.neighbour(asked, now).is_some_and(|account| account.take_turn_of_neighbour(rate, now))
    }

    fn neighbour(&mut self, asked: &Asked, now: Instant) -> Option<&mut Allowance> {
        self.early.neighbours.account(Peer::from(&asked.query.nli), asked.arrival.interface, now)
    }
}
