//! Rows of the router's table being taken: what each action does.

use core::time::Duration;

use gist::api::ReceivedMessage;
use gist::time::Instant;

use super::Router;
use super::inputs::clock_name;
use super::session::Session;
use super::table::{Action, Event, Guards, Outcome, State, Timer};
use crate::admission::Refusal;
use crate::association::Association;
use crate::credentials::CertificatePath;
use crate::datapath::SourceKey;
use crate::node::{Distrust, Envelope, Notice, SessionKey, TTL_MAXIMUM, lifetime};
use crate::report::{Denial, ReportEvent};
use crate::shares::Owner;
use crate::wire::{NotifyCode, Permission, Query, Signed};

/// What led to an event.
#[derive(Debug)]
pub(super) enum Cause<'a> {
    Query {
        received: &'a ReceivedMessage,
        signed: &'a Signed<Query>,
        key_hash: [u8; 32],
        path: CertificatePath,
        source: Option<SourceKey>,
    },
    Permission {
        received: &'a ReceivedMessage,
        signed: &'a Signed<Permission>,
        key_hash: [u8; 32],
        path: CertificatePath,
        association: Option<Association>,
    },
    Refused {
        received: &'a ReceivedMessage,
        refusal: &'a Refusal,
    },
    Failed(&'a str),
    Clock(Timer),
    /// The session that takes over, and until when what is permitted runs out.
    Superseded {
        by: SessionKey,
        until: Instant,
    },
    /// The last Query, once more.
    Again {
        received: &'a ReceivedMessage,
    },
    /// Somebody whose certificate is believed no more.
    Distrusted(Distrust),
    Other,
}

/// One event of one session while its row is taken.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) key: SessionKey,
    pub(super) cause: Cause<'a>,
    pub(super) now: Instant,
    pub(super) rule: &'static str,
}

impl<'a> Step<'a> {
    pub(super) fn new(key: SessionKey, cause: Cause<'a>, now: Instant) -> Self {
        Self { key, cause, now, rule: "" }
    }

    pub(super) fn permission(&self) -> Option<&'a Permission> {
        match &self.cause {
            Cause::Permission { signed, .. } => Some(&signed.message),
            _ => None,
        }
    }

    /// Who takes up a place for the session that begins with the message.
    fn owner(&self) -> Option<Owner> {
        match &self.cause {
            Cause::Query { received, key_hash, .. } | Cause::Permission { received, key_hash, .. } => {
                Some(Owner { peer: received.principal, signer: *key_hash })
            }
            _ => None,
        }
    }

    /// The message that led to the event.
    fn received(&self) -> Option<&'a ReceivedMessage> {
        match &self.cause {
            Cause::Query { received, .. } | Cause::Permission { received, .. } | Cause::Refused { received, .. } => Some(received),
            Cause::Failed(_) | Cause::Clock(_) | Cause::Superseded { .. } | Cause::Again { .. } | Cause::Distrusted(_) | Cause::Other => {
                None
            }
        }
    }
}

impl Router {
    /// All state is new; whatever was accepted before is refused (FN-60).
    pub(super) fn restart(&mut self, now: Instant) {
        let (from, event, guards) = (State::INITIAL, Event::TgRestart, Guards::default());
        if let Outcome::Take(row) = (self.table.0)(from, event, guards) {
            self.node.took(row.rule);
            tracing::debug!(rule = row.rule, %from, ?event, ?guards, to = %row.next, "row taken");
            if row.actions.contains(&Action::RaiseFloor) {
                self.node.raise_floor(now);
            }
        }
    }

    /// Takes the row of an event, if there is one.
    pub(super) fn take(&mut self, event: Event, guards: Guards, mut step: Step<'_>) {
        let key = step.key;
        let state = self.sessions.get(&key).map_or(State::INITIAL, |session| session.state);
        let row = match (self.table.0)(state, event, guards) {
            Outcome::Take(row) => row,
            Outcome::Refuse(rule) => return self.node.not_acted_upon(key, rule, step.now),
            Outcome::Ignore => return self.node.ignored(),
        };
        self.node.took(row.rule);
        tracing::debug!(flow = %key.flow, rule = row.rule, from = %state, ?event, ?guards, to = %row.next, "row taken");
        step.rule = row.rule;
        if row.next != State::INITIAL {
            self.enter(row.next, &step);
        }
        for action in row.actions {
            self.perform(*action, &mut step);
        }
        if row.next == State::INITIAL {
            self.forget(key);
        } else {
            self.account(key);
        }
    }

    fn enter(&mut self, state: State, step: &Step<'_>) {
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.state = state;
        } else if let Some(owner) = step.owner() {
            self.shares.add(owner);
            self.sessions.insert(step.key, Session::new(state, owner));
        }
    }

    fn perform(&mut self, action: Action, step: &mut Step<'_>) {
        match action {
            Action::Start(timer) => self.start(timer, step),
            Action::Stop(timer) => self.timers.stop(step.key, timer),
            Action::ReportRefusal => {
                if let Cause::Refused { received, refusal } = &step.cause {
                    self.node.refuse(step.key, step.rule, received, refusal, step.now);
                }
            }
            Action::KeepQuery => self.keep_query(step),
            Action::ForwardQuery => {
                if let Cause::Query { received, signed, .. } = &step.cause {
                    self.doubt_peer(step.key);
                    self.node.send(Envelope::onward(received), signed.forwarded.clone());
                }
            }
            Action::ForwardPermission => self.forward_permission(step),
            Action::ResendQuery => self.resend_query(step),
            Action::ResendPermission => self.resend_permission(step),
            Action::Supersede => self.supersede(step, None),
            Action::SupersedeWaiting => self.supersede(step, Some(State::WaitP)),
            Action::HandOver => self.hand_over(step),
            Action::KeepRoute => self.keep_route(step),
            Action::LeaveRoute => self.leave_route(step.key),
            Action::Install => self.install(step),
            Action::Update => self.update(step),
            Action::DrainOld => self.drain_old(step),
            Action::DeleteDraining => self.delete_draining(step.key),
            Action::Remove => self.remove(step),
            Action::Bury => self.bury(step),
            Action::RaiseFloor => self.node.raise_floor(step.now),
            Action::NotifyOverload | Action::NotifyRefused => self.notify(step, NotifyCode::Overload, 0),
            Action::NotifyNoState => self.notify(step, NotifyCode::NoState, 1),
            Action::NotifySpiCollision => self.notify(step, NotifyCode::SpiCollision, 0),
            Action::NotifyPolicy => self.notify(step, NotifyCode::LocalPolicy, 0),
            Action::NotifyKeySwap => self.notify(step, NotifyCode::BadValue, 0),
            Action::NotifyRouteChanged => self.notify(step, NotifyCode::RouteChanged, 0),
            Action::ReportGranted => self.report_granted(step),
            Action::ReportRefreshed => self.report_refreshed(step),
            Action::ReportDenied => {
                let event = ReportEvent::Denied { hold: Duration::ZERO, why: Denial::Elsewhere };
                self.node.tell(step.key, step.rule, event);
            }
            Action::ReportRevoked => self.node.tell(step.key, step.rule, ReportEvent::Revoked),
            Action::ReportDistrusted => {
                if let Cause::Distrusted(distrust) = &step.cause {
                    self.node.tell_distrusted(step.key, step.rule, distrust);
                }
            }
            Action::ReportSuperseded => self.node.tell(step.key, step.rule, ReportEvent::Superseded),
            Action::ReportExpired => {
                let clock = if let Cause::Clock(timer) = step.cause { clock_name(timer) } else { "" };
                self.node.tell(step.key, step.rule, ReportEvent::Expired { clock });
            }
        }
    }

    fn start(&mut self, timer: Timer, step: &Step<'_>) {
        let drained = self.sessions.get(&step.key).and_then(|session| session.draining).map_or(step.now, |draining| draining.until);
        let period = match timer {
            Timer::Wait => self.config.wait,
            Timer::Ttl => step.permission().map_or(Duration::ZERO, |permission| permission.ttl.min(TTL_MAXIMUM)),
            Timer::Life => step.permission().map_or(Duration::ZERO, |permission| lifetime(permission.refresh)),
            Timer::Drain => drained.saturating_duration_since(step.now),
        };
        self.timers.start(step.key, timer, step.now + period);
    }

    /// Tells the sender about the message that led here, or about the session's last one.
    fn notify(&mut self, step: &Step<'_>, code: NotifyCode, detail: u16) {
        if let Cause::Failed(reason) = step.cause {
            self.node.tell(step.key, step.rule, ReportEvent::DatapathFailed { reason: reason.to_owned() });
        }
        let number = match &step.cause {
            Cause::Query { signed, .. } => signed.message.number,
            Cause::Permission { signed, .. } => signed.message.number,
            Cause::Refused { .. }
            | Cause::Failed(_)
            | Cause::Clock(_)
            | Cause::Superseded { .. }
            | Cause::Again { .. }
            | Cause::Distrusted(_)
            | Cause::Other => 0,
        };
        let asked = self.sessions.get(&step.key).and_then(|session| session.asked.as_ref());
        let from_session = asked.map(|asked| (asked.mri.clone(), asked.upstream));
        let from_message = step.received().map(|received| (received.mri.clone(), received.principal));
        if let Some((mri, about)) = from_message.or(from_session) {
            let notice = Notice { key: step.key, mri: &mri, code, detail, number, about };
            self.node.notify(&notice, step.rule, step.now);
        }
    }

    fn report_granted(&mut self, step: &Step<'_>) {
        if let Some(&Permission { allowed, ttl, refresh, sa: Some(sa), .. }) = step.permission() {
            self.node.tell(step.key, step.rule, ReportEvent::Granted { spi: sa.spi, allowed, ttl, refresh });
        }
    }

    fn report_refreshed(&mut self, step: &Step<'_>) {
        if let Some(&Permission { number, allowed, ttl, .. }) = step.permission() {
            self.node.tell(step.key, step.rule, ReportEvent::Refreshed { number, allowed, ttl });
        }
    }
}
