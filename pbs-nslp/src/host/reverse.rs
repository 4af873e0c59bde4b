//! The two directions of a connection, held together.
//!
//! Nothing here reacts to single events. Whenever something has happened to either direction, both are looked at, and what is
//! missing is asked for, what has lost its cause is ended. So no order of events leaves anything behind.

use core::mem;
use core::time::Duration;

use gist::time::Instant;

use super::Host;
use super::part::Part;
use crate::flow::FlowId;
use crate::output::{Ask, Output};
use crate::receiver::{Decision, Incoming, Terms};
use crate::sender::Outgoing;
use crate::wire::Volume;

/// The reverse flow gets this much at a time, or an eighth of the flow's allowed volume if that is more.
const LEAST: u64 = 256 * 1024;

/// What a host remembers of a connection beyond the two sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Pair {
    /// SPI of the incoming flow when it was last looked at.
    spi: Option<u32>,
    /// Which flow is there because of the other.
    reverse: Option<Part>,
    /// Whether the receiver grants the incoming flow because the outgoing one is permitted.
    expecting: bool,
    /// The Query for the incoming flow that is decided when the outgoing one is.
    asked: Option<Ask>,
    /// A person has ended the reverse flow: it does not come back by itself.
    given_up: bool,
}

impl Host {
    /// Collects what the parts want done, and brings the connections in order that it concerns.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.sender.poll_output() {
                self.collect(Part::Sender, output);
            }
            while let Some(output) = self.receiver.poll_output() {
                self.collect(Part::Receiver, output);
            }
            match self.touched.pop_first() {
                Some(flow) => self.bring_in_order(flow, now),
                None => return,
            }
        }
    }

    /// A person wants this flow for its own sake.
    pub(super) fn adopt(&mut self, flow: FlowId) {
        if let Some(pair) = self.pairs.get_mut(&flow).filter(|pair| pair.reverse == Some(Part::Sender)) {
            pair.reverse = None;
        }
    }

    /// A person has ended one direction of the connection.
    pub(super) fn give_up(&mut self, outgoing: FlowId) {
        if let Some(pair) = self.pairs.get_mut(&outgoing) {
            pair.given_up = true;
            self.touched.insert(outgoing);
        }
    }

    /// Keeps an output. All that happens to a session shows in a command, a report or a question that names its flow.
    fn collect(&mut self, part: Part, output: Output) {
        let flow = match &output {
            Output::Datapath(command) => Some(command.flow()),
            Output::Report(report) => report.flow,
            Output::Ask(ask) => Some(ask.flow),
            Output::Send(_)
            | Output::SetStateLifetime { .. }
            | Output::AdoptPeer { .. }
            | Output::DoubtPeer { .. }
            | Output::SetPeering { .. } => None,
        };
        if let Some(flow) = flow.filter(|flow| flow.is_connection()) {
            let outgoing = if part == Part::Sender { flow } else { flow.reversed() };
            self.touched.insert(outgoing);
            if let Output::Ask(ask) = output {
                self.pairs.entry(outgoing).or_default().asked = Some(ask);
                return;
            }
        }
        self.outputs.push_back((part, output));
    }

    fn bring_in_order(&mut self, outgoing: FlowId, now: Instant) {
        let mut pair = self.pairs.remove(&outgoing).unwrap_or_default();
        let is_new = self.look_at_incoming(&mut pair, &outgoing.reversed());
        self.grant_reverse(&mut pair, outgoing, now);
        self.ask_for_reverse(&mut pair, outgoing, is_new, now);
        let outgoing_lives = matches!(self.sender.outgoing(outgoing, now), Outgoing::Waiting | Outgoing::Granted { .. });
        pair.given_up &= outgoing_lives || pair.spi.is_some();
        if pair != Pair::default() {
            self.pairs.insert(outgoing, pair);
        }
    }

    /// Notes the incoming flow's epoch and whether it is there because this host sends the other direction; true if it is a
    /// new one.
    fn look_at_incoming(&self, pair: &mut Pair, incoming: &FlowId) -> bool {
        let spi = match self.receiver.incoming(incoming) {
            Incoming::Granted { spi, .. } => Some(spi),
            Incoming::Nothing => None,
        };
        let before = mem::replace(&mut pair.spi, spi);
        if before.is_none() && spi.is_some() && pair.expecting {
            pair.reverse = Some(Part::Receiver);
        }
        if spi.is_none() && pair.reverse == Some(Part::Receiver) {
            pair.reverse = None;
        }
        spi.is_some() && spi != before
    }

    /// The asking host's side: the reverse of what it asked for itself is granted as long as that is permitted, and decided
    /// about when that is.
    fn grant_reverse(&mut self, pair: &mut Pair, outgoing: FlowId, now: Instant) {
        let incoming = outgoing.reversed();
        let is_own = pair.reverse != Some(Part::Sender) && !pair.given_up;
        let standing = self.sender.outgoing(outgoing, now);
        let is_open = is_own && standing == Outgoing::Waiting;
        self.receiver.set_awaited(incoming, is_open);
        let terms = if is_own { terms(standing) } else { None };
        if let Some(terms) = terms {
            pair.expecting = self.receiver.expect(incoming, terms);
        } else if mem::take(&mut pair.expecting) {
            self.receiver.unexpect(&incoming);
            if pair.reverse == Some(Part::Receiver) {
                self.receiver.withdraw(incoming, now);
            }
        }
        if let Some(ask) = pair.asked.take_if(|_| !is_open) {
            match terms {
                Some(terms) => self.receiver.decide(incoming, ask.session, Decision::Grant(terms), now),
                None if self.receiver.asks_people() => self.outputs.push_back((Part::Receiver, Output::Ask(ask))),
                None => self.receiver.decide(incoming, ask.session, Decision::Decline, now),
            }
        }
    }

    /// The granting host's side: the reverse of what it has granted is asked for as long as that is permitted. A reverse flow
    /// has no reverse of its own.
    fn ask_for_reverse(&mut self, pair: &mut Pair, outgoing: FlowId, is_new: bool, now: Instant) {
        let standing = self.sender.outgoing(outgoing, now);
        let allowed = match self.receiver.incoming(&outgoing.reversed()) {
            Incoming::Granted { allowed, .. } if pair.reverse != Some(Part::Receiver) => allowed,
            Incoming::Granted { .. } | Incoming::Nothing => return self.end_reverse(pair, outgoing, standing, now),
        };
        let volume = share(allowed);
        let asked = match standing {
            Outgoing::Nothing if !pair.given_up => self.sender.answer(outgoing, volume, now),
            Outgoing::HeldDown if !pair.given_up && is_new => self.sender.answer(outgoing, volume, now),
            // The other host knows nothing of the old permission if it has started anew.
            Outgoing::Granted { .. } if pair.reverse == Some(Part::Sender) && is_new => self.sender.want(outgoing, volume, now),
            Outgoing::Granted { .. } | Outgoing::Waiting if pair.reverse == Some(Part::Sender) => {
                self.sender.set_wanted(outgoing, volume);
                return;
            }
            _ => return,
        };
        match asked {
            Ok(()) => pair.reverse = Some(Part::Sender),
            // Tried again when the flow is refreshed.
            Err(error) => tracing::warn!(flow = %outgoing, %error, "the reverse flow is not asked for"),
        }
    }

    /// The flow is no longer received: its reverse goes too.
    fn end_reverse(&mut self, pair: &mut Pair, outgoing: FlowId, standing: Outgoing, now: Instant) {
        if pair.reverse != Some(Part::Sender) {
            return;
        }
        match standing {
            Outgoing::Waiting | Outgoing::Granted { .. } => self.sender.release(outgoing, now),
            Outgoing::Releasing => {}
            Outgoing::Nothing | Outgoing::HeldDown => pair.reverse = None,
        }
    }
}

/// What the reverse of a permitted flow is granted: its time, and a share of its volume at first. Extensions go on from there.
fn terms(forward: Outgoing) -> Option<Terms> {
    let Outgoing::Granted { allowed, ttl, refresh } = forward else {
        return None;
    };
    let ttl = Duration::from_millis(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let volume = share(allowed);
    (!ttl.is_zero()).then_some(Terms { volume, limit: volume, ttl, refresh })
}

fn share(allowed: Volume) -> Volume {
    Volume((allowed.0 / 8).max(LEAST))
}
