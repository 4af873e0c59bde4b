//! Rows of the sender's table being taken: which action does what.

use core::time::Duration;

use gist::api::ReceivedMessage;
use gist::time::Instant;
use gist::wire::SessionId;

use super::Sender;
use super::holds::HOLD;
use super::inputs::REPAIR;
use super::table::{Action, Event, Guards, Outcome, State, Timer, Transition, step as step_of_table};
use crate::admission::Refusal;
use crate::association::Association;
use crate::credentials::CertificatePath;
use crate::datapath::{Command, Token};
use crate::flow::FlowId;
use crate::node::{ANSWER_TIMEOUT, Distrust, SessionKey, TTL_MAXIMUM, lifetime};
use crate::report::{Denial, ReportEvent};
use crate::wire::{Notify, Permission};

/// How long the answer to a release is waited for at most.
const GIVE_UP: Duration = Duration::from_secs(30);

/// What led to an event.
#[derive(Debug)]
pub(super) enum Cause<'a> {
    Permission {
        received: &'a ReceivedMessage,
        permission: &'a Permission,
        key_hash: [u8; 32],
        path: CertificatePath,
        association: Option<Association>,
    },
    Notify {
        received: &'a ReceivedMessage,
        notify: &'a Notify,
    },
    Refused {
        received: &'a ReceivedMessage,
        refusal: &'a Refusal,
    },
    Failed(&'a str),
    Clock(Timer),
    Gist,
    /// The receiver's certificate is believed no more.
    Distrusted(Distrust),
    Other,
}

impl Cause<'_> {
    pub(super) fn permission(&self) -> Option<(&Permission, Option<&Association>)> {
        match self {
            Self::Permission { permission, association, .. } => Some((permission, association.as_ref())),
            _ => None,
        }
    }
}

/// One event of one flow while its row is taken.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) flow: FlowId,
    pub(super) cause: Cause<'a>,
    pub(super) now: Instant,
    pub(super) rule: &'static str,
    /// The removal asked for; a release sent in the same row waits for it and reports the final volume.
    pub(super) removal: Option<Token>,
    /// Whether the row gives the permission back, so that the way downstream is still needed.
    pub(super) releases: bool,
}

impl<'a> Step<'a> {
    pub(super) fn new(flow: FlowId, cause: Cause<'a>, now: Instant) -> Self {
        Self { flow, cause, now, rule: "", removal: None, releases: false }
    }
}

impl Sender {
    /// Takes the row of an event, if there is one, and those of the events it gives rise to.
    pub(super) fn take(&mut self, event: Event, guards: Guards, step: Step<'_>) {
        let now = step.now;
        self.take_one(event, guards, step);
        while let Some((flow, event)) = self.follow.pop_front() {
            let guards = self.guards(flow, None, now);
            self.take_one(event, guards, Step::new(flow, Cause::Other, now));
        }
    }

    fn take_one(&mut self, event: Event, guards: Guards, mut step: Step<'_>) {
        let flow = step.flow;
        let state = self.sessions.get(&flow).map_or(State::INITIAL, |session| session.state);
        let row = match step_of_table(state, event, guards) {
            Outcome::Take(row) => row,
            Outcome::Refuse(rule) => return self.node.not_acted_upon(self.key(flow), rule, step.now),
            Outcome::Ignore => return self.node.ignored(),
        };
        self.node.took(row.rule);
        tracing::debug!(%flow, rule = row.rule, from = %state, ?event, ?guards, to = %row.next, "row taken");
        step.rule = row.rule;
        if let Some(session) = self.sessions.get_mut(&flow) {
            session.state = row.next;
        }
        if !refuses(&row) {
            self.accept(&step);
        }
        for action in row.actions {
            self.perform(*action, &mut step);
        }
        if row.next == State::INITIAL {
            self.leave_route(&step);
            self.leave_path(flow);
        }
    }

    fn perform(&mut self, action: Action, step: &mut Step<'_>) {
        let (flow, rule) = (step.flow, step.rule);
        match action {
            Action::Start(timer) => self.start(timer, step),
            Action::Stop(timer) => self.stop(timer, flow),
            Action::NewSession => self.new_session(step),
            Action::ForgetSession => self.forget_session(step),
            Action::ChangePath => self.change_path(step),
            Action::SendQuery => self.send_query(step),
            Action::SendRelease => self.send_release(step),
            Action::Install => self.install(step),
            Action::Update => self.update(step),
            Action::Expect => {
                let token = self.node.token();
                self.node.command(Command::Expect { token, flow, until: step.now + answer_timeout(1, None) });
            }
            Action::Remove => self.remove(step),
            Action::LengthenHold => self.lengthen_hold(step),
            Action::DropHeld => {
                let token = self.node.token();
                self.node.command(Command::DropHeld { token, flow });
            }
            Action::ReleaseHeld => {
                let token = self.node.token();
                self.node.command(Command::ReleaseHeld { token, flow });
            }
            Action::RefuseHeldDown => {
                let end = self.timers.expiry(flow, Timer::Hold);
                let remaining = end.map_or(Duration::ZERO, |end| end.saturating_duration_since(step.now));
                self.tell(flow, rule, ReportEvent::HeldDown { remaining });
            }
            Action::ReportStray => self.tell(flow, rule, ReportEvent::Stray),
            Action::ReportGranted => self.report_granted(step),
            Action::ReportRefreshed => self.report_refreshed(step),
            Action::ReportDenied => {
                let hold = self.sessions.get(&flow).map_or(Duration::ZERO, |session| session.hold);
                self.tell(flow, rule, ReportEvent::Denied { hold, why: Denial::Elsewhere });
            }
            Action::ReportLeftBehind => self.tell(flow, rule, ReportEvent::LeftBehind),
            Action::ReportRevoked => self.tell(flow, rule, ReportEvent::Revoked),
            Action::ReportDistrusted => self.tell_distrusted(step),
            Action::ReportReleased => self.tell(flow, rule, ReportEvent::Released),
            Action::ReportUnreachable => {
                let cause = self.sessions.get(&flow).and_then(|session| session.attempt.setback.clone());
                self.tell(flow, rule, ReportEvent::Unreachable { cause });
            }
            Action::ReportUnanswered => self.report_unanswered(step),
            Action::ReportNoPath => self.tell(flow, rule, ReportEvent::NoOtherPath),
            Action::ReportAlgorithm => self.tell_of_refused(step, ReportEvent::AlgorithmRefused),
            Action::ReportKeySwap => self.tell_of_refused(step, ReportEvent::KeySwapRefused { spi: self.spi(flow) }),
            Action::ReportNotNew => {
                let offered = step.cause.permission().and_then(|(_, association)| association);
                let spi = offered.map_or(0, Association::spi);
                self.tell_of_refused(step, ReportEvent::NotANewEpoch { spi });
            }
            Action::ReportExhausted => self.tell(flow, rule, ReportEvent::Exhausted { spi: self.spi(flow) }),
            Action::ReportExpired => {
                let clock = if let Cause::Clock(Timer::Ttl) = step.cause { "time limit" } else { "no refresh" };
                self.tell(flow, rule, ReportEvent::Expired { clock });
            }
            Action::ReportDatapath => {
                let reason = if let Cause::Failed(reason) = step.cause { reason.to_owned() } else { String::new() };
                self.tell(flow, rule, ReportEvent::DatapathFailed { reason });
            }
            Action::ReportRefusal => {
                // A notice goes towards the sender, which is here: it stays a report.
                if let Cause::Refused { received, refusal } = &step.cause {
                    self.node.report_refusal(Some(flow), rule, received, refusal, step.now);
                }
            }
            Action::ReportNotify => {
                if let Cause::Notify { received, notify: &Notify { code, detail, number, reporter, .. } } = step.cause
                    && self.node.may_report(received, step.now)
                {
                    self.tell(flow, rule, ReportEvent::Notified { code, detail, number, reporter });
                }
            }
        }
    }

    /// A Permission that is not taken up leaves no number behind, so that anybody on the path may bring it again and again.
    fn tell_of_refused(&mut self, step: &Step<'_>, event: ReportEvent) {
        if let Cause::Permission { received, .. } = &step.cause
            && self.node.may_report(received, step.now)
        {
            self.tell(step.flow, step.rule, event);
        }
    }

    fn tell_distrusted(&mut self, step: &Step<'_>) {
        let Cause::Distrusted(distrust) = &step.cause else { return };
        if let Some(session) = self.sessions.get_mut(&step.flow) {
            session.outcome = Some(distrust.event().to_string());
        }
        self.node.tell_distrusted(self.key(step.flow), step.rule, distrust);
    }

    fn stop(&mut self, timer: Timer, flow: FlowId) {
        self.timers.stop(flow, timer);
        if let Some(session) = self.sessions.get_mut(&flow).filter(|_| timer == Timer::Repair) {
            session.attempt.first_hop_lost = false;
        }
    }

    fn start(&mut self, timer: Timer, step: &Step<'_>) {
        if let Some(session) = self.sessions.get_mut(&step.flow).filter(|_| timer == Timer::Repair) {
            session.attempt.first_hop_lost |= matches!(step.cause, Cause::Gist);
        }
        let session = self.sessions.get(&step.flow);
        let permission = step.cause.permission().map(|(permission, _)| permission);
        let period = match timer {
            Timer::Answer => {
                let refresh = session.and_then(|session| session.epoch.as_ref()).map(|epoch| epoch.refresh);
                answer_timeout(session.map_or(1, |session| session.attempt.tries), refresh)
            }
            Timer::Refresh => self.refresh_period(step.flow, step.now),
            Timer::Ttl => permission.map_or(Duration::ZERO, |permission| permission.ttl.min(TTL_MAXIMUM)),
            Timer::Life => permission.map_or(Duration::ZERO, |permission| lifetime(permission.refresh)),
            Timer::Hold => session.map_or(HOLD, |session| session.hold.max(HOLD)),
            Timer::GiveUp => GIVE_UP,
            Timer::Repair => {
                let since = session.and_then(|session| session.attempt.last_sent_at).map(|at| step.now.saturating_duration_since(at));
                REPAIR.saturating_sub(since.unwrap_or_default())
            }
        };
        self.timers.start(step.flow, timer, step.now + period);
    }

    /// Uniformly in [0.8 T, T], T being the receiver's stated maximum, and before half the permission's life is
    /// over, so that there is time to ask for more.
    pub(super) fn refresh_period(&mut self, flow: FlowId, now: Instant) -> Duration {
        let refresh = self.sessions.get(&flow).and_then(|session| session.epoch.as_ref()).map(|epoch| epoch.refresh);
        let refresh = refresh.unwrap_or_default();
        let drawn = self.entropy.span(refresh.saturating_mul(4) / 5, refresh);
        match self.timers.expiry(flow, Timer::Ttl) {
            Some(end) => drawn.min((end.saturating_duration_since(now) / 2).max(REPAIR)),
            None => drawn,
        }
    }

    fn report_granted(&mut self, step: &Step<'_>) {
        if let Some((&Permission { allowed, ttl, refresh, sa: Some(sa), .. }, _)) = step.cause.permission() {
            self.tell(step.flow, step.rule, ReportEvent::Granted { spi: sa.spi, allowed, ttl, refresh });
        }
    }

    fn report_refreshed(&mut self, step: &Step<'_>) {
        if let Some((&Permission { number, allowed, ttl, .. }, _)) = step.cause.permission() {
            self.tell(step.flow, step.rule, ReportEvent::Refreshed { number, allowed, ttl });
        }
    }

    fn spi(&self, flow: FlowId) -> u32 {
        self.sessions.get(&flow).and_then(|session| session.epoch.as_ref()).map_or(0, |epoch| epoch.association.spi())
    }

    pub(super) fn key(&self, flow: FlowId) -> SessionKey {
        let session = self.sessions.get(&flow).map_or(SessionId([0; 16]), |session| session.session);
        SessionKey { flow, session }
    }

    pub(super) fn tell(&mut self, flow: FlowId, rule: &'static str, event: ReportEvent) {
        let ends = matches!(
            event,
            ReportEvent::Denied { .. }
                | ReportEvent::Revoked
                | ReportEvent::Unreachable { .. }
                | ReportEvent::Exhausted { .. }
                | ReportEvent::DatapathFailed { .. }
        );
        if let Some(session) = self.sessions.get_mut(&flow).filter(|_| ends) {
            session.outcome = Some(event.to_string());
        }
        let key = self.key(flow);
        self.node.tell(key, rule, event);
    }
}

/// T.O.: 5 s, then 10 s. Under a permission that is refreshed every `refresh`, two fifths less at most, so that both tries
/// fail before the permission's lifetime of 3.5 T ends: otherwise a path could never be changed in time (FS-31).
pub(super) fn answer_timeout(tries: u32, refresh: Option<Duration>) -> Duration {
    const LEAST: Duration = Duration::from_secs(3);
    let first = refresh.map_or(ANSWER_TIMEOUT, |refresh| (refresh.saturating_mul(4) / 5).clamp(LEAST, ANSWER_TIMEOUT));
    if tries > 1 { first.saturating_mul(2) } else { first }
}

/// Rows that do not accept the Permission they are taken for.
fn refuses(row: &Transition) -> bool {
    row.actions.iter().any(|action| matches!(action, Action::ReportKeySwap | Action::ReportNotNew | Action::ReportAlgorithm))
}
