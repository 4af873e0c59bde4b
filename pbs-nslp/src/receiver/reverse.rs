//! What a host needs to know and to do about a flow that is one direction of a connection.

use gist::time::Instant;

use super::Receiver;
use super::policy::Terms;
use super::rows::{Cause, Step};
use super::table::{Event, Guards, State};
use crate::flow::FlowId;
use crate::node::SessionKey;
use crate::wire::Volume;
use crate::wire::number::is_newer;

/// No SPI: the epoch begins as soon as the packet side has told what the one before has counted.
const BEGINNING: u32 = 0;

/// How a flow that this host receives stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// Nobody asks for it, or nobody has decided yet.
    Nothing,
    /// It has a permission.
    Granted {
        /// The newest epoch, [`BEGINNING`] if that waits for the end of the one before.
        spi: u32,
        /// AV.
        allowed: Volume,
    },
}

impl Receiver {
    /// How a flow stands; of two sessions that overlap the newer counts.
    pub(crate) fn incoming(&self, flow: &FlowId) -> Incoming {
        let mut newest = None;
        let mut incoming = Incoming::Nothing;
        for session in self.sessions.range(SessionKey::range(*flow)).map(|(_, session)| session) {
            let number = session.query.number;
            let epoch = match (&session.epoch, session.terms) {
                (Some(epoch), _) => (epoch.spi, session.allowed),
                (None, Some(terms)) if session.state != State::Decision => (BEGINNING, terms.volume),
                (None, _) => continue,
            };
            if newest.is_none_or(|newest| is_newer(number, newest)) {
                newest = Some(number);
                incoming = Incoming::Granted { spi: epoch.0, allowed: epoch.1 };
            }
        }
        incoming
    }

    /// Grants a flow whether or not the policy does, from now on and at each extension: beyond what has been counted as much
    /// again, at least four times `terms.volume`, or up to the limit of `terms` if that is more. What was changed by order
    /// ([`Receiver::amend`]) stays as that says. As many flows as sessions at
    /// most; false if there is no room.
    pub fn expect(&mut self, flow: FlowId, terms: Terms) -> bool {
        let room = self.expected.len() < self.config.sessions || self.expected.contains_key(&flow);
        if room {
            self.expected.insert(flow, terms);
            self.revoked.remove(&flow);
            let terms = self.terms(&flow);
            for key in self.keys_of(&flow) {
                if let Some(session) = self.sessions.get_mut(&key).filter(|session| session.epoch.is_some()) {
                    session.terms = terms.map(|terms| session.amended.applied(terms));
                }
            }
        }
        room
    }

    /// Ends [`Receiver::expect`]; a permission already given stays.
    pub fn unexpect(&mut self, flow: &FlowId) {
        self.expected.remove(flow);
    }

    /// Leaves Queries for a flow that no rule grants undecided until [`Receiver::decide`], or until it is no longer awaited.
    /// Whoever begins to wait for a flow has forgiven that it was revoked.
    pub(crate) fn set_awaited(&mut self, flow: FlowId, awaited: bool) {
        if !awaited {
            self.awaited.remove(&flow);
        } else if self.awaited.len() < self.config.sessions && self.awaited.insert(flow) {
            self.revoked.remove(&flow);
        }
    }

    /// Whether somebody decides about flows without a rule.
    pub(crate) fn asks_people(&self) -> bool {
        self.config.policy.ask
    }

    /// Ends what [`Receiver::expect`] has granted. Unlike [`Receiver::revoke`] it says nothing about Queries to come.
    pub(crate) fn withdraw(&mut self, flow: FlowId, now: Instant) {
        self.unexpect(&flow);
        for key in self.keys_of(&flow) {
            if self.sessions.get(&key).is_some_and(|session| session.state != State::Decision) {
                self.take(Event::TgRevoke, Guards::default(), Step::new(key, Cause::Other, now));
            }
        }
    }
}
