//! What the sender's rows do to flows and to the packet side.

use core::time::Duration;

use gist::time::Instant;
use gist::wire::{Mri, SessionId};

use super::Sender;
use super::holds::HOLD;
use super::rows::{Cause, Step};
use super::session::{Accepted, Attempt, Epoch};
use super::table::{Event, State, Timer};
use crate::admission::Signer;
use crate::association::Association;
use crate::datapath::{Command, Grant, Token};
use crate::flow::FlowId;
use crate::node::{SessionKey, TTL_MAXIMUM, lifetime};
use crate::report::ReportEvent;
use crate::wire::{MessageKind, Permission, Volume, VolumeContext};

/// What happens when the removal of a flow that was given up is acknowledged: the release leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Farewell {
    pub(super) key: SessionKey,
    /// Downstream.
    pub(super) mri: Mri,
    /// SV and what it refers to.
    pub(super) last_report: Option<(Volume, VolumeContext)>,
}

impl Sender {
    /// Keeps whose Permission it is and its number; nothing of that signer up to it counts any more.
    pub(super) fn accept(&mut self, step: &Step<'_>) {
        let Cause::Permission { received, permission, key_hash, .. } = &step.cause else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&step.flow) {
            let peer = received.peer.clone();
            session.accepted = Some(Accepted { key_hash: *key_hash, number: permission.number, peer });
        }
    }

    /// Begins a session with a fresh identifier.
    pub(super) fn new_session(&mut self, step: &Step<'_>) {
        self.close(step);
        let identifier = SessionId(self.entropy.identifier());
        if let Some(session) = self.sessions.get_mut(&step.flow) {
            session.session = identifier;
            session.attempt = Attempt::default();
            session.accepted = None;
            session.epoch = None;
            session.last_report = None;
            session.data_waits = false;
            session.renewal_refused = false;
        }
    }

    /// Keeps nothing of the flow but what outlives its sessions.
    pub(super) fn forget_session(&mut self, step: &Step<'_>) {
        self.close(step);
        self.sessions.remove(&step.flow);
        for timer in Timer::ALL {
            self.timers.stop(step.flow, *timer);
        }
    }

    /// Keeps the receiver's last number (INV-05), and gives up the way downstream unless a release still needs it.
    fn close(&mut self, step: &Step<'_>) {
        let unix = self.node.unix(step.now);
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
        self.node.admission.tombstones.bury(signer, accepted.number, &accepted.peer, unix);
        if !step.releases {
            self.node.set_state_lifetime(session.session, &session.mri, Duration::ZERO);
        }
    }

    /// Gives the packet side the association, which takes the place of the former one (FS-05, FS-24).
    pub(super) fn install(&mut self, step: &Step<'_>) {
        let Some((permission, Some(association))) = step.cause.permission() else {
            return;
        };
        let association = association.clone();
        let grant = Grant {
            flow: step.flow,
            spi: association.spi(),
            protection: association.protection.clone(),
            allowed: permission.allowed.0,
            counted: 0,
            expires_at: end(permission, step.now),
        };
        let token = self.node.token();
        self.node.command(Command::Install { token, grant });
        self.holds.granted(&step.flow);
        self.keep_epoch(step, permission, association);
        self.wait_for(step.flow, token);
    }

    fn keep_epoch(&mut self, step: &Step<'_>, permission: &Permission, association: Association) {
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        let before = session.epoch.as_ref().map(|epoch| epoch.refresh);
        session.epoch = Some(Epoch {
            association,
            allowed: permission.allowed,
            refresh: permission.refresh,
            sent: Volume::ZERO,
            highest: 0,
            reported: Volume::ZERO,
        });
        session.renewal_refused = false;
        session.data_waits = false;
        session.ask_more = false;
        self.node.set_state_lifetime(session.session, &session.mri, lifetime(permission.refresh));
        self.hasten_refresh(step, before, permission.refresh);
    }

    /// Tells the packet side the new volume and end (FS-22).
    pub(super) fn update(&mut self, step: &Step<'_>) {
        let Some((permission, Some(association))) = step.cause.permission() else {
            return;
        };
        let token = self.node.token();
        self.node.command(Command::Update {
            token,
            flow: step.flow,
            spi: association.spi(),
            allowed: permission.allowed.0,
            expires_at: end(permission, step.now),
        });
        self.wait_for(step.flow, token);
        let answers = self.guards(step.flow, step.cause.permission(), step.now).echo_fits;
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        let Some(epoch) = &mut session.epoch else {
            return;
        };
        let (before, more) = (epoch.refresh, permission.allowed > epoch.allowed);
        epoch.allowed = permission.allowed;
        epoch.refresh = permission.refresh;
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

    fn wait_for(&mut self, flow: FlowId, token: Token) {
        if let Some(session) = self.sessions.get(&flow) {
            self.waiting.insert(token, (flow, session.session));
        }
    }

    /// The packet side has carried out a command of a session.
    pub(super) fn acknowledged(&mut self, flow: FlowId, session_id: SessionId, token: Token, sent: Volume, highest: u32, now: Instant) {
        if !self.is_live(flow, session_id) {
            return;
        }
        let Some(session) = self.sessions.get_mut(&flow) else {
            return;
        };
        if let Some(epoch) = &mut session.epoch {
            (epoch.sent, epoch.highest) = (sent, highest);
        }
        if session.reading.take_if(|reading| *reading == token).is_some() && session.state == State::Permitted {
            self.ask(flow, now);
        }
    }
}

/// The earlier of time limit and lifetime.
fn end(permission: &Permission, now: Instant) -> Instant {
    now + permission.ttl.min(TTL_MAXIMUM).min(lifetime(permission.refresh))
}
