//! Rows of the receiver's table being taken: which action does what.

use core::time::Duration;

use gist::api::ReceivedMessage;
use gist::time::Instant;

use super::Receiver;
use super::policy::{Change, Terms};
use super::session::{Asked, MARK, Session};
use super::table::{Action, Event, Guards, Outcome, State, Timer, step as step_of_table};
use crate::admission::Refusal;
use crate::credentials::CertificatePath;
use crate::datapath::{SourceKey, Token};
use crate::node::{Distrust, SessionKey, lifetime};
use crate::report::{Denial, Reaction, ReportEvent};
use crate::shares::Owner;
use crate::wire::Query;

/// What led to an event.
#[derive(Debug)]
pub(super) enum Cause<'a> {
    Query {
        received: &'a ReceivedMessage,
        query: &'a Query,
        mark: Option<[u8; MARK]>,
        key_hash: [u8; 32],
        path: CertificatePath,
        source: Option<SourceKey>,
    },
    /// The last Query again.
    Again {
        received: &'a ReceivedMessage,
    },
    Refused {
        received: &'a ReceivedMessage,
        refusal: &'a Refusal,
    },
    Failed(&'a str),
    Clock(Timer),
    Change(Change),
    Superseded {
        by: SessionKey,
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
    /// The removal of the epoch in use, asked for in the same row.
    pub(super) removal: Option<Token>,
}

impl<'a> Step<'a> {
    pub(super) fn new(key: SessionKey, cause: Cause<'a>, now: Instant) -> Self {
        Self { key, cause, now, rule: "", removal: None }
    }
}

impl Receiver {
    /// Takes the row of an event, if there is one, and those of the events it gives rise to.
    pub(super) fn take(&mut self, event: Event, guards: Guards, step: Step<'_>) {
        let now = step.now;
        self.take_one(event, guards, step);
        self.follow_up(now);
    }

    /// Takes the rows of the events that others gave rise to.
    pub(super) fn follow_up(&mut self, now: Instant) {
        while let Some((key, event)) = self.follow.pop_front() {
            self.take_one(event, self.reaction_guards(key), Step::new(key, Cause::Other, now));
        }
    }

    fn take_one(&mut self, event: Event, guards: Guards, mut step: Step<'_>) {
        let key = step.key;
        let state = self.sessions.get(&key).map_or(State::INITIAL, |session| session.state);
        let row = match step_of_table(state, event, guards) {
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
            self.forget(key, step.now);
        }
    }

    fn enter(&mut self, state: State, step: &Step<'_>) {
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.state = state;
        } else if let Cause::Query { received, query, key_hash, path, .. } = &step.cause {
            let (peer, mri) = (received.principal, received.mri.inverted());
            let session = Session::new(state, (*key_hash, path.clone()), Asked::from(*query), peer, mri);
            self.shares.add(Owner { peer, signer: *key_hash });
            self.sessions.insert(step.key, session);
        }
    }

    fn perform(&mut self, action: Action, step: &mut Step<'_>) {
        let (key, rule) = (step.key, step.rule);
        match action {
            Action::Start(timer) => self.start(timer, step),
            Action::Stop(timer) => self.timers.stop(key, timer),
            Action::ReportRefusal => {
                if let Cause::Refused { received, refusal } = &step.cause {
                    self.node.refuse(step.key, step.rule, received, refusal, step.now);
                }
            }
            Action::KeepQuery => self.keep_query(step),
            Action::KeepLaterQuery => self.keep_later_query(step),
            Action::AskPolicy => self.ask_policy(step),
            Action::NewEpoch => self.new_epoch(step),
            Action::Install => self.install(step),
            Action::ReadCounter => self.read_counter(step),
            Action::Renew => self.renew(step),
            Action::ChangeTerms => self.change_terms(step),
            Action::Answer => self.answer(step),
            Action::Announce => self.announce(step),
            Action::DrainOld => self.drain_old(step),
            Action::DeleteDraining => {
                self.delete_draining(key, step.now);
                self.rekey_after_drain(key);
            }
            Action::Remove => self.remove(step),
            Action::Deny => self.deny(step),
            Action::Bury => self.bury(step),
            Action::ReportGranted => self.report_granted(key, rule),
            Action::ReportSpent => self.node.tell(key, rule, ReportEvent::BudgetSpent),
            Action::Recount => self.recount(step),
            Action::Agree => self.agree(key, step.now),
            Action::ReportFormer => self.report_former(step),
            Action::NoteFormer => self.note_former(step),
            Action::SuspectFormer => self.suspect_former(key),
            Action::NoteFormerDrop => self.note_former_drop(step),
            Action::NoteRekey => self.note_rekey(key),
            Action::ReadVolume => self.read_volume(key),
            Action::ShareVolume => self.share_volume(step),
            Action::ReportRekeyed => self.report_rekeyed(key, rule),
            Action::HandOver => self.hand_over(step),
            Action::Suspect => self.suspect(key, step.now),
            Action::NoteInjection | Action::NoteSecondHolder | Action::NoteOverrun => self.note_injection(step, action),
            Action::TakePeer => self.take_peer(step),
            Action::NoteDrop => self.note_drop(step),
            Action::Escalate => self.escalate(key, step.now),
            Action::AskOtherPath => self.ask_other_path(step),
            Action::RefuseFlow => self.refuse_flow(key, step.now),
            Action::ReportEscalated => self.report_escalated(key, rule),
            Action::ReportLying => self.node.tell(key, rule, ReportEvent::Attacked { reaction: Reaction::Revoked }),
            Action::ReportDrop => self.report_tolerated(step),
            Action::ReportCompared => self.report_compared(step),
            Action::ReportDenied => self.report_denied(step),
            Action::ReportReleased => self.node.tell(key, rule, ReportEvent::Released),
            Action::ReportRevoked => self.node.tell(key, rule, ReportEvent::Revoked),
            Action::ReportDistrusted => {
                if let Cause::Distrusted(distrust) = &step.cause {
                    self.node.tell_distrusted(key, rule, distrust);
                }
            }
            Action::ReportSuperseded => self.node.tell(key, rule, ReportEvent::Superseded),
            Action::ReportOverBudget => {
                let spi = self.sessions.get(&key).and_then(|session| session.epoch.as_ref()).map_or(0, |epoch| epoch.spi);
                self.node.tell(key, rule, ReportEvent::OverBudget { spi });
            }
            Action::ReportExpired => {
                let clock = if let Cause::Clock(timer) = step.cause { clock_name(timer) } else { "" };
                self.node.tell(key, rule, ReportEvent::Expired { clock });
            }
            Action::ReportDatapath => {
                let reason = if let Cause::Failed(reason) = step.cause { reason.to_owned() } else { String::new() };
                self.node.tell(key, rule, ReportEvent::DatapathFailed { reason });
            }
        }
    }

    fn start(&mut self, timer: Timer, step: &Step<'_>) {
        let terms = self.sessions.get(&step.key).and_then(|session| session.terms);
        let period = match timer {
            Timer::Decide => self.config.decide,
            // A change that does not speak of the time limit leaves it as it is.
            Timer::Ttl if matches!(step.cause, Cause::Change(Change { ttl: None, .. })) => return,
            Timer::Ttl => terms.map_or(Duration::ZERO, |terms| terms.ttl),
            Timer::Life => terms.map_or(Duration::ZERO, |terms| lifetime(terms.refresh)),
            // The old epoch ends when it would have ended anyway.
            Timer::Drain => self.config.drain.min(self.end(step.key, step.now).saturating_duration_since(step.now)),
            Timer::GraceEnd => self.config.reactions.thresholds.grace,
        };
        self.timers.start(step.key, timer, step.now + period);
    }

    fn report_denied(&mut self, step: &Step<'_>) {
        let known = self.sessions.get(&step.key).and_then(|session| session.denial);
        let why = if let Cause::Clock(_) = step.cause { Denial::Undecided } else { known.unwrap_or(Denial::Declined) };
        self.node.tell(step.key, step.rule, ReportEvent::Denied { hold: Duration::ZERO, why });
    }

    pub(super) fn report_granted(&mut self, key: SessionKey, rule: &'static str) {
        let session = self.sessions.get(&key);
        let granted = session.and_then(|session| Some((session.epoch.as_ref()?.spi, session.allowed, session.terms?)));
        if let Some((spi, allowed, Terms { ttl, refresh, .. })) = granted {
            self.node.tell(key, rule, ReportEvent::Granted { spi, allowed, ttl, refresh });
        }
    }

    fn report_compared(&mut self, step: &Step<'_>) {
        let session = self.sessions.get(&step.key);
        let values = session.and_then(|session| Some((session, session.epoch.as_ref()?, session.claim().sent?)));
        if let Some((session, epoch, sent)) = values {
            let sent_highest = session.claim().context.map(|context| context.highest);
            let (counted, counted_highest, finding) = (epoch.counted, epoch.highest, session.watch.finding());
            let event = ReportEvent::Compared { sent, counted, sent_highest, counted_highest, finding };
            self.node.tell(step.key, step.rule, event);
        }
    }
}

/// What a timer that ended a session is called.
fn clock_name(timer: Timer) -> &'static str {
    match timer {
        Timer::Decide => "no decision",
        Timer::Ttl => "time limit",
        Timer::Life => "no refresh",
        Timer::Drain => "drain time",
        Timer::GraceEnd => "grace",
    }
}
