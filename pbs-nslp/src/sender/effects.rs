//! What the sender's rows do to flows and to the packet side.

use core::time::Duration;

use gist::api::PathId;
use gist::time::Instant;
use gist::wire::{Mri, SessionId};

use super::Sender;
use super::holds::HOLD;
use super::rows::{Cause, Step};
use super::session::{Accepted, Attempt, Epoch, Former};
use super::table::{Event, State, Timer};
use crate::admission::Signer;
use crate::association::Association;
use crate::datapath::{Command, Grant, Token};
use crate::flow::FlowId;
use crate::node::{SessionKey, TTL_MAXIMUM, lifetime};
use crate::report::ReportEvent;
use crate::wire::{MessageKind, Permission, Volume, VolumeContext};

/// What an answer of the packet side is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Awaited {
    pub(super) flow: FlowId,
    pub(super) session: SessionId,
    /// The epoch of the command.
    pub(super) spi: u32,
}

/// What happens when the removal of a flow that was given up is acknowledged: the release leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Farewell {
    pub(super) key: SessionKey,
    /// Downstream.
    pub(super) mri: Mri,
    pub(super) path: PathId,
    /// SV and what it refers to.
    pub(super) last_report: Option<(Volume, VolumeContext)>,
    /// Whether the removal it waits for tells the last word about SV.
    pub(super) is_final: bool,
}

impl Sender {
    /// Keeps whose Permission it is and its number; nothing of that signer up to it counts any more.
    pub(super) fn accept(&mut self, step: &Step<'_>) {
        let Cause::Permission { received, permission, key_hash, path, .. } = &step.cause else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&step.flow) {
            let peer = received.principal;
            session.accepted = Some(Accepted { key_hash: *key_hash, path: path.clone(), number: permission.number, peer });
        }
    }

    /// Begins a session with a fresh identifier.
    pub(super) fn new_session(&mut self, step: &Step<'_>) {
        self.close(step);
        let identifier = SessionId(self.entropy.identifier());
        if let Some(session) = self.sessions.get_mut(&step.flow) {
            session.session = identifier;
            session.wants_route = true;
            session.attempt = Attempt::default();
            session.unanswered_since = None;
            session.accepted = None;
            session.epoch = None;
            session.former = None;
            session.last_report = None;
            session.data_waits = false;
            session.renewal_refused = false;
            session.course = session.course.go_on();
        }
    }

    /// Keeps nothing of the flow but what outlives its sessions.
    pub(super) fn forget_session(&mut self, step: &Step<'_>) {
        self.close(step);
        self.leave_path(step.flow);
        self.sessions.remove(&step.flow);
    }

    /// Tells GIST that the way downstream is not wanted any more, unless a release still needs it.
    pub(super) fn leave_route(&mut self, step: &Step<'_>) {
        if let Some(session) = self.sessions.get_mut(&step.flow).filter(|session| session.wants_route && !step.releases) {
            session.wants_route = false;
            self.node.set_state_lifetime(session.session, &session.mri, Duration::ZERO);
        }
    }

    /// Keeps the receiver's last number (INV-05), and gives up the way downstream.
    fn close(&mut self, step: &Step<'_>) {
        self.leave_route(step);
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        if let Some(token) = session.reading.take() {
            self.waiting.remove(&token);
        }
        let Some(accepted) = session.accepted.take() else {
            return;
        };
        let signer = Signer { key_hash: accepted.key_hash, flow: step.flow, kind: MessageKind::Permission };
        self.node.bury(signer, accepted.number, accepted.peer, step.now);
    }

    /// Gives the packet side the association, which takes the place of the former one (FS-05, FS-24).
    pub(super) fn install(&mut self, step: &Step<'_>) {
        let Some((permission, Some(association))) = step.cause.permission() else {
            return;
        };
        let known = self.sessions.get(&step.flow).and_then(|session| session.epoch.as_ref());
        if known.is_some_and(|known| known.association.is_same(association)) {
            // On another path: it goes on counting and numbering.
            return self.update(step);
        }
        let association = association.clone();
        let association_spi = association.spi();
        let grant = Grant {
            flow: step.flow,
            spi: association.spi(),
            protection: association.protection.clone(),
            allowed: permission.allowed.0,
            counted: 0,
            highest: 0,
            expires_at: end(permission, step.now),
        };
        let token = self.node.token();
        self.node.command(Command::Install { token, grant });
        self.holds.granted(&step.flow);
        let answered = self.answered(step);
        self.keep_epoch(step, permission, association);
        if let Some(session) = self.sessions.get_mut(&step.flow).filter(|_| answered) {
            // To whom the report of one epoch is a reason to begin another, that of the next would be one too.
            session.former = None;
        }
        self.wait_for(step.flow, association_spi, token);
        self.read_again(step.flow);
    }

    /// Whether a Query that reported the end of the epoch before has been answered: that was the one more report.
    fn answered(&mut self, step: &Step<'_>) -> bool {
        let answers = self.guards(step.flow, step.cause.permission(), step.now).echo_fits;
        let session = self.sessions.get_mut(&step.flow).filter(|session| answers && session.attempt.reports_former);
        session.is_some_and(|session| session.former.take().is_some())
    }

    /// A Query waits for what was read before the packet side went over to another epoch: that was not the end of the one before.
    fn read_again(&mut self, flow: FlowId) {
        let session = self.sessions.get(&flow).filter(|session| session.reading.is_some());
        if let Some(spi) = session.and_then(|session| session.former.as_ref()).map(|former| former.spi) {
            self.read(flow, spi);
        }
    }

    fn keep_epoch(&mut self, step: &Step<'_>, permission: &Permission, association: Association) {
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        let replaced = session.epoch.replace(Epoch {
            association,
            allowed: permission.allowed,
            refresh: permission.refresh,
            sent: Volume::ZERO,
            highest: 0,
            reported: Volume::ZERO,
        });
        let before = replaced.as_ref().map(|epoch| epoch.refresh);
        if let Some(Epoch { association, sent, highest, .. }) = replaced {
            session.former = Some(Former { spi: association.spi(), sent, highest });
        }
        session.renewal_refused = false;
        session.data_waits = false;
        session.ask_more = false;
        self.node.set_state_lifetime(session.session, &session.mri, lifetime(permission.refresh));
        self.hasten_refresh(step, before, permission.refresh);
    }

    /// Tells the packet side the new volume and end (FS-22).
    pub(super) fn update(&mut self, step: &Step<'_>) {
        let Some((permission, association)) = step.cause.permission() else {
            return;
        };
        // A Permission that asks for another path names no association.
        let kept = || Some(self.sessions.get(&step.flow)?.epoch.as_ref()?.association.spi());
        let Some(spi) = association.map(Association::spi).or_else(kept) else {
            return;
        };
        let token = self.node.token();
        self.node.command(Command::Update {
            token,
            flow: step.flow,
            spi,
            allowed: permission.allowed.0,
            expires_at: end(permission, step.now),
        });
        self.wait_for(step.flow, spi, token);
        let answers = self.guards(step.flow, step.cause.permission(), step.now).echo_fits;
        self.answered(step);
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        let Some(epoch) = &mut session.epoch else {
            return;
        };
        let (before, more) = (epoch.refresh, permission.allowed > epoch.allowed && !epoch.is_out_of_numbers());
        epoch.allowed = permission.allowed;
        epoch.refresh = permission.refresh;
        self.node.set_state_lifetime(session.session, &session.mri, lifetime(permission.refresh));
        if more {
            session.renewal_refused = false;
            session.data_waits = false;
        } else if answers && session.attempt.asks_more {
            session.renewal_refused = true;
        }
        // A packet still waits: it asks again, or is given up, as the table says.
        if answers && session.data_waits {
            self.follow.push_back((step.flow, Event::TgOverBudget));
        } else if answers && session.ask_more {
            self.follow.push_back((step.flow, Event::TgRenew));
        }
        self.hasten_refresh(step, Some(before), permission.refresh);
    }

    /// A shorter period counts from now on.
    fn hasten_refresh(&mut self, step: &Step<'_>, before: Option<Duration>, refresh: Duration) {
        if before.is_some_and(|before| refresh < before) {
            let period = self.refresh_period(step.flow, step.now);
            self.timers.start(step.flow, Timer::Refresh, step.now + period);
        }
    }

    /// Nobody answered: the permission goes on, but a request for more counts as refused (FS-32, FS-42).
    pub(super) fn report_unanswered(&mut self, step: &Step<'_>) {
        self.tell(step.flow, step.rule, ReportEvent::Unanswered);
        if let Some(session) = self.sessions.get_mut(&step.flow) {
            session.renewal_refused |= session.attempt.asks_more;
            if session.data_waits {
                self.follow.push_back((step.flow, Event::TgOverBudget));
            }
        }
    }

    pub(super) fn remove(&mut self, step: &mut Step<'_>) {
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        let context = session.context();
        if let Some(epoch) = session.epoch.take() {
            session.last_report = context.map(|context| (epoch.sent, context));
            step.removal = Some(self.removals.start(&mut self.node, step.flow, epoch.association.spi()));
        }
    }

    pub(super) fn lengthen_hold(&mut self, step: &Step<'_>) {
        // The time limit of a denial may ask for more.
        let at_least = step.cause.permission().map_or(HOLD, |(permission, _)| permission.ttl.min(TTL_MAXIMUM));
        let hold = self.holds.refused(step.flow, at_least, step.now);
        if let Some(session) = self.sessions.get_mut(&step.flow) {
            session.hold = hold;
        }
    }

    pub(super) fn wait_for(&mut self, flow: FlowId, spi: u32, token: Token) {
        if let Some(session) = self.sessions.get(&flow) {
            self.waiting.insert(token, Awaited { flow, session: session.session, spi });
        }
    }

    /// The packet side has carried out a command of a session.
    pub(super) fn acknowledged(&mut self, awaited: Awaited, token: Token, sent: Volume, highest: u32, now: Instant) {
        let Awaited { flow, spi, .. } = awaited;
        if !self.is_live(flow, awaited.session) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&flow) else {
            return;
        };
        let [live, _] = session.spis();
        if let Some(epoch) = session.epoch.as_mut().filter(|_| live == Some(spi)) {
            (epoch.sent, epoch.highest) = (sent, highest);
        }
        if let Some(former) = session.former.as_mut().filter(|former| former.spi == spi) {
            (former.sent, former.highest) = (sent, highest);
        }
        if session.reading.take_if(|reading| *reading == token).is_none() || !matches!(session.state, State::Permitted | State::WaitP) {
            return;
        }
        match live.filter(|live| *live != spi) {
            // The end of the epoch before is reported first, but what is asked for depends on the one in use; and SV of one must not
            // be told as that of the other.
            Some(live) => self.read(flow, live),
            None => self.ask(flow, now),
        }
    }

    /// The packet side knows nothing of an epoch that is over: there is nothing to report about it.
    pub(super) fn forget_former(&mut self, awaited: Awaited) {
        if let Some(session) = self.sessions.get_mut(&awaited.flow) {
            session.former.take_if(|former| former.spi == awaited.spi);
        }
    }

    /// Whether a command that failed was about the epoch in use; what a former one lacks does no harm.
    pub(super) fn is_about_live_epoch(&self, awaited: Awaited) -> bool {
        let session = self.sessions.get(&awaited.flow).filter(|_| self.is_live(awaited.flow, awaited.session));
        let live = session.and_then(|session| session.epoch.as_ref()).map(|epoch| epoch.association.spi());
        live.is_some_and(|live| live == awaited.spi)
    }
}

/// The earlier of time limit and lifetime.
fn end(permission: &Permission, now: Instant) -> Instant {
    now + permission.ttl.min(TTL_MAXIMUM).min(lifetime(permission.refresh))
}
