//! What a host needs to know and to do about a flow that is one direction of a connection.

use core::time::Duration;

use gist::time::Instant;

use super::rows::answer_timeout;
use super::table::{State, Timer};
use super::{Sender, WantError};
use crate::datapath::Command;
use crate::flow::FlowId;
use crate::wire::Volume;

/// How a flow that this host sends stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    /// Nobody asks for it.
    Nothing,
    /// It was refused and may not ask yet.
    HeldDown,
    /// The answer is awaited.
    Waiting,
    /// It has a permission.
    Granted {
        /// AV.
        allowed: Volume,
        /// What is left of the time limit.
        ttl: Duration,
        /// T.
        refresh: Duration,
    },
    /// It is being given back.
    Releasing,
}

impl Sender {
    /// How a flow stands.
    pub(crate) fn outgoing(&self, flow: FlowId, now: Instant) -> Outgoing {
        let Some(session) = self.sessions.get(&flow) else {
            return Outgoing::Nothing;
        };
        match (session.state, &session.epoch) {
            // While an answer on another path is awaited, what was permitted goes on until its end.
            (State::WaitP | State::Permitted, Some(epoch)) => {
                let end = self.timers.expiry(flow, Timer::Ttl);
                let ttl = end.map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
                Outgoing::Granted { allowed: epoch.allowed, ttl, refresh: epoch.refresh }
            }
            (State::WaitP | State::Permitted, _) => Outgoing::Waiting,
            (State::Releasing, _) => Outgoing::Releasing,
            (State::Idle, _) => Outgoing::HeldDown,
        }
    }

    /// Asks for the flow that answers one which this host has just granted, and has its packets held meanwhile whatever the
    /// rules say. A refusal from before does not count any more, since the other host itself asks to be heard.
    ///
    /// # Errors
    /// See [`Sender::want`].
    pub(crate) fn answer(&mut self, flow: FlowId, volume: Volume, now: Instant) -> Result<(), WantError> {
        self.timers.stop(flow, Timer::Hold);
        self.want(flow, volume, now)?;
        if self.outgoing(flow, now) == Outgoing::Waiting {
            let token = self.node.token();
            let until = now + answer_timeout(1, None) + answer_timeout(2, None);
            self.node.command(Command::Expect { token, flow, until });
        }
        Ok(())
    }

    /// Changes how much is asked for at a time from now on.
    pub(crate) fn set_wanted(&mut self, flow: FlowId, volume: Volume) {
        if let Some(session) = self.sessions.get_mut(&flow) {
            session.wanted = volume;
        }
    }
}
