//! Other ways to the receiver, and how often a session may change between them (draft-04 §8.2, Solution 4; ).
//!
//! The machine asks for the next way only; how packets and Queries get there is the host's matter. Nothing oscillates: no session
//! takes a way twice, changes more than [`SenderConfig::path_changes`](super::SenderConfig) times, or leaves a live way on which it
//! was permitted within two refresh periods. One thing goes beyond both limits, and so happens once at most after them: from a way
//! that is dead, with no other left, a session goes back to the routed path, whatever was wrong there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gist::api::PathId;
use gist::time::Instant;

use super::Sender;
use super::rows::{Cause, Step};
use super::session::{Attempt, Session};
use super::table::{Event, State};
use crate::datapath::Command;
use crate::flow::FlowId;
use crate::report::ReportEvent;
use crate::selector::Selector;

/// A way out besides the routed one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Way {
    /// Its number, not [`PathId::ROUTED`].
    pub path: PathId,
    /// Which flows may take it.
    pub covers: Selector,
    /// Whether packets can leave by it now, as far as this host can tell.
    pub live: bool,
    /// The relay that it goes over: the packets of its flows leave in packets to that, which are a flow of their own.
    pub relay: Option<IpAddr>,
}

impl Way {
    fn takes(&self, flow: &FlowId) -> bool {
        // To the relay itself there is no way over it.
        let is_beyond = self.relay.is_none_or(|relay| relay != flow.destination && relay.is_ipv4() == flow.destination.is_ipv4());
        self.live && is_beyond && self.covers.matches(flow)
    }

    /// Whether it is the flow of the packets to its relay.
    fn is_carried_by(&self, flow: &FlowId) -> bool {
        self.relay == Some(flow.destination) && PACKED.contains(&flow.protocol)
    }
}

/// IP in IP: protocols 4 and 41 (RFC 2003, RFC 2473).
const PACKED: [u8; 2] = [4, 41];

/// Where a session's packets and messages go, and where they have gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Course {
    pub(super) path: PathId,
    left: BTreeSet<PathId>,
    changes: u8,
    changed_at: Option<Instant>,
}

impl Course {
    /// That of a session that takes over from another one of the same flow: it goes on where that one was.
    pub(super) fn go_on(&self) -> Self {
        Self { path: self.path, ..Self::default() }
    }

    /// Whether the session has changed its path.
    pub(super) fn has_moved(&self) -> bool {
        self.changes > 0
    }

    fn is_new(&self, path: PathId) -> bool {
        path != self.path && !self.left.contains(&path)
    }
}

impl Sender {
    /// Says which ways out there are besides the routed one, the best first. What is under way goes on.
    pub fn set_ways(&mut self, ways: Vec<Way>) {
        self.ways = ways;
    }

    /// The way is dead, and not for a moment only: flows on it take another one at once (FS-36), as far as they may. To be repeated
    /// as long as it is dead and flows are on it.
    pub fn way_is_dead(&mut self, path: PathId, now: Instant) {
        let is_on_it = |session: &Session| {
            session.course.path == path && path != PathId::ROUTED && matches!(session.state, State::WaitP | State::Permitted)
        };
        let flows: Vec<FlowId> = self.sessions.iter().filter(|(_, session)| is_on_it(session)).map(|(flow, _)| *flow).collect();
        for flow in flows {
            self.event(flow, Event::TgWayDead, Cause::Other, now);
        }
    }

    /// Asks the receiver of a flow whether it is there (FS-34), at most once a second; the answer shows in
    /// [`SessionStatus::answered`](crate::status::SessionStatus::answered) and [`Sender::unanswered_since`].
    pub fn probe(&mut self, flow: FlowId, now: Instant) {
        if self.sessions.get(&flow).is_some_and(|session| session.state == State::Permitted) {
            self.event(flow, Event::TgRepair, Cause::Other, now);
        }
    }

    /// When the first Query was sent that the flow's receiver has not answered since; `None` if nothing is open.
    pub fn unanswered_since(&self, flow: &FlowId) -> Option<Instant> {
        self.sessions.get(flow)?.unanswered_since
    }

    /// Whether the session may change its path now, and to which.
    pub(super) fn next_path(&self, flow: &FlowId, session: &Session, now: Instant) -> Option<PathId> {
        // What carries other flows stays where it is routed: else a way might lead into itself.
        if self.ways.iter().any(|way| way.is_carried_by(flow)) {
            return None;
        }
        let course = &session.course;
        let settled = match (session.state, &session.epoch, course.changed_at) {
            (State::Permitted, Some(epoch), Some(at)) => now.saturating_duration_since(at) >= epoch.refresh.saturating_mul(2),
            _ => true,
        };
        // What is dead for certain does not get better by staying.
        let is_dead = self.ways.iter().any(|way| way.path == course.path && !way.live);
        let usable = self.ways.iter().filter(|way| way.takes(flow)).map(|way| way.path);
        let may_change = course.changes < self.config.path_changes && (settled || is_dead);
        let next = usable.chain([PathId::ROUTED]).find(|path| may_change && course.is_new(*path));
        // On a dead way nothing arrives for certain.
        next.or_else(|| is_dead.then_some(PathId::ROUTED))
    }

    /// The flow takes another way: its packets wait until the nodes there know of it (FS-15).
    pub(super) fn change_path(&mut self, step: &Step<'_>) {
        let flow = step.flow;
        let next = self.sessions.get(&flow).and_then(|session| self.next_path(&flow, session, step.now));
        let (Some(path), Some(session)) = (next, self.sessions.get_mut(&flow)) else {
            return;
        };
        let course = &mut session.course;
        course.left.insert(std::mem::replace(&mut course.path, path));
        course.changes = course.changes.saturating_add(1);
        course.changed_at = Some(step.now);
        // What is still answered on the way left says nothing about the nodes on this one.
        session.attempt = Attempt::default();
        session.unanswered_since = None;
        let token = self.node.token();
        self.node.command(Command::Route { token, flow, path, waits: true });
        self.tell(flow, step.rule, ReportEvent::PathChanged { path });
    }

    /// The flow is routed as any other again.
    pub(super) fn leave_path(&mut self, flow: FlowId) {
        let Some(session) = self.sessions.get_mut(&flow) else {
            return;
        };
        let course = std::mem::take(&mut session.course);
        if course.path != PathId::ROUTED {
            let token = self.node.token();
            self.node.command(Command::Route { token, flow, path: PathId::ROUTED, waits: false });
        }
    }
}
