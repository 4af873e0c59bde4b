//! Inputs of a receiver: each becomes an event of a session's machine.

use core::time::Duration;

use gist::api::{Indication, ReceivedMessage};
use gist::time::Instant;
use gist::wire::SessionId;

use super::Receiver;
use super::budget::Account;
use super::policy::{Change, Decision, Terms};
use super::repair::mark;
use super::rows::{Cause, Step};
use super::session::{Farewell, Pending, Session, Then};
use super::table::{Event, Guards, State};
use super::watch::Overrun;
use crate::admission::{Refusal, Standing};
use crate::datapath::{self, SourceKey};
use crate::detection::{Before, Claim, Count};
use crate::flow::FlowId;
use crate::node::SessionKey;
use crate::output::Output;
use crate::removal::Counted;
use crate::report::ReportEvent;
use crate::shares::Owner;
use crate::wire::{Message, NotifyCode, Query, Signed, Volume};

/// Detail of Notify 14: no receiver.
const NO_RECEIVER: u16 = 2;

impl Receiver {
    /// Takes what GIST says about the downstream direction; messages and news of the other one are the sender's.
    pub fn handle_gist(&mut self, indication: Indication, now: Instant) {
        match indication {
            Indication::Received(received) => self.handle_message(received, now),
            Indication::MessageStatus { session, mri, error, .. } => {
                // Soft state: the sender's next Query is answered anew.
                let flow = FlowId::from_mri(&mri).ok();
                self.node.report(flow, session, "", ReportEvent::Undelivered { error });
            }
            Indication::MessageProposed { .. } | Indication::NetworkNotification { .. } => self.node.ignored(),
        }
    }

    /// Takes a message that GIST received for this application.
    pub fn handle_message(&mut self, received: ReceivedMessage, now: Instant) {
        match self.node.admission.open(&received, self.node.nslp_id) {
            Ok(Message::Query(query)) => self.query(&received, &query, now),
            Ok(Message::Permission(_) | Message::Notify(_)) => self.node.ignored(),
            Err(refusal) => self.refuse(&received, refusal, now),
        }
    }

    /// Counts a message as refused that there was no room for where it had to wait. Nothing more: whoever floods decides how many of
    /// them there are.
    pub fn turn_away(&mut self) {
        self.node.count_refusal(NotifyCode::Overload);
    }

    /// Takes the answer to [`Output::Ask`]. Too late an answer, or one about a session that is gone, has no effect.
    pub fn decide(&mut self, flow: FlowId, session: SessionId, decision: Decision, now: Instant) {
        let key = SessionKey { flow, session };
        let event = match decision {
            Decision::Grant(terms) if terms.grants() => {
                if let Some(session) = self.sessions.get_mut(&key).filter(|session| session.state == State::Decision) {
                    session.terms = Some(terms);
                }
                Event::TgGrant
            }
            Decision::Grant(_) | Decision::Decline => Event::TgDecline,
        };
        self.take(event, Guards::default(), Step::new(key, Cause::Other, now));
    }

    /// Takes permissions back (FR-16); false if the flow has none. No rule grants the flow again for
    /// [`super::ReceiverConfig::refuse`], or its next Query would undo the revocation.
    pub fn revoke(&mut self, flow: FlowId, now: Instant) -> bool {
        if self.revoked.len() >= self.config.sessions {
            self.revoked.retain(|_, until| *until > now);
        }
        if self.revoked.len() < self.config.sessions {
            self.revoked.insert(flow, now + self.config.refuse);
        }
        self.expected.remove(&flow);
        let keys = self.keys_of(&flow);
        for key in &keys {
            let undecided = self.sessions.get(key).is_some_and(|session| session.state == State::Decision);
            let event = if undecided { Event::TgDecline } else { Event::TgRevoke };
            self.take(event, Guards::default(), Step::new(*key, Cause::Other, now));
        }
        !keys.is_empty()
    }

    /// Forgives that a flow was revoked: its next Query is decided as if nothing had been. False if it was not refused.
    pub fn lift(&mut self, flow: &FlowId, now: Instant) -> bool {
        self.revoked.remove(flow).is_some_and(|until| until > now)
    }

    /// The flows that are refused because they were revoked, and for how long yet.
    pub fn refused(&self, now: Instant) -> impl Iterator<Item = (FlowId, Duration)> {
        self.revoked.iter().filter(move |(_, until)| **until > now).map(move |(flow, until)| (*flow, until.saturating_duration_since(now)))
    }

    /// Changes AV, TTL and T of a live permission (FR-17): `terms.volume` is the new AV, and terms that grant nothing
    /// revoke. False if the flow has no permission.
    pub fn change(&mut self, flow: FlowId, terms: Terms, now: Instant) -> bool {
        if !terms.grants() {
            return self.revoke(flow, now);
        }
        self.amend(flow, Change::to(terms), now)
    }

    /// Changes parts of a live permission (FR-17). False if the flow has no permission, or if nothing of it would be left: that is
    /// [`Receiver::revoke`]'s.
    pub fn amend(&mut self, flow: FlowId, change: Change, now: Instant) -> bool {
        if !change.is_change() {
            return false;
        }
        let mut changed = false;
        for key in self.keys_of(&flow) {
            changed |= self.sessions.get(&key).is_some_and(|session| session.epoch.is_some());
            self.take(Event::TgChange, Guards::default(), Step::new(key, Cause::Change(change), now));
        }
        changed
    }

    /// Anchors or revocation lists have changed: certificates are verified anew, and what was granted to a sender that is believed no
    /// more ends at once (FR-73).
    pub fn reconsider_certificates(&mut self, now: Instant) {
        self.node.admission.forget_certificates();
        let distrust = |(key, session): (&SessionKey, &Session)| Some((*key, self.node.distrust(key.flow.source, &session.path, now)?));
        for (key, distrust) in self.sessions.iter().filter_map(distrust).collect::<Vec<_>>() {
            self.take(Event::TgDistrusted, Guards::default(), Step::new(key, Cause::Distrusted(distrust), now));
        }
    }

    /// Takes all permissions back before the host stops (FR-60).
    pub fn shutdown(&mut self, now: Instant) {
        let keys: Vec<SessionKey> = self.sessions.keys().copied().collect();
        for key in keys {
            self.take(Event::TgShutdown, Guards::default(), Step::new(key, Cause::Other, now));
        }
    }

    /// Takes an answer or an event of the packet side.
    pub fn handle_datapath(&mut self, event: datapath::Event, now: Instant) {
        match event {
            datapath::Event::Applied { token, counted, highest } => {
                self.budgets.ended(token, counted.into(), now);
                if let Some(due) = self.removals.applied(token, Counted { volume: counted, highest }) {
                    for (then, last) in due {
                        match then {
                            Then::Deny(farewell) => self.say_farewell(*farewell, last),
                            Then::Begin(key) => self.begin_late(key, now),
                        }
                    }
                } else if let Some(key) = self.waiting.remove(&token) {
                    self.acknowledged(key, token, counted.into(), highest, now);
                }
            }
            datapath::Event::Failed { token, reason } => {
                if self.last_counts.remove(&token).is_some() {
                    // The epoch before is gone already: it is not compared.
                } else if let Some(key) = self.waiting.remove(&token) {
                    self.take(Event::ErDatapath, Guards::default(), Step::new(key, Cause::Failed(&reason), now));
                } else if self.removals.failed(token, now) {
                    tracing::error!(token = token.0, reason, "removal failed, tried again");
                }
            }
            datapath::Event::Compared { token, count } => {
                if let Some(asked) = self.last_counts.remove(&token) {
                    self.former_counted(asked, &count, now);
                } else if let Some(key) = self.waiting.remove(&token) {
                    self.compare(key, &count, now);
                    self.acknowledged(key, token, count.counted.into(), count.highest, now);
                }
            }
            datapath::Event::OverBudget { flow, spi } => self.over_budget(flow, spi, now),
            datapath::Event::SecondHolder { flow, spi } => self.second_holder(flow, spi, now),
            datapath::Event::FirstPacket { .. } | datapath::Event::NearlyUsedUp { .. } => self.node.ignored(),
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((key, timer)) = self.timers.pop_expired(now) {
            self.take(timer.event(), Guards::default(), Step::new(key, Cause::Clock(timer), now));
        }
        self.removals.retry(&mut self.node, now);
    }

    fn query(&mut self, received: &ReceivedMessage, signed: &Signed<Query>, now: Instant) {
        let query = &signed.message;
        let flow = query.flow;
        if !self.config.addresses.contains(&flow.destination) {
            let refusal = Refusal::new(NotifyCode::NoState, NO_RECEIVER, query.number, "the destination is not this host's");
            return self.refuse(received, refusal, now);
        }
        if self.query_again(received, signed, now) {
            return;
        }
        let verified = match self.node.admission.admit(received, signed, self.standing(&flow), self.node.unix(now), now) {
            Ok(verified) => verified,
            Err(refusal) => return self.refuse(received, refusal, now),
        };
        self.node.adopt_peer_of(received);
        let key = SessionKey { flow, session: received.session };
        let session = self.sessions.get(&key);
        let owner = Owner { peer: received.principal, signer: verified.key_hash };
        if session.is_none() && !self.shares.has_room(owner, self.config.sessions) {
            return self.refuse(received, Refusal::overload(query.number, "no room for another session"), now);
        }
        let account = Account { flow, key_hash: verified.key_hash };
        let unbounded = session.is_some() || query.is_release() || self.expected.contains_key(&flow);
        if !unbounded && !self.budgets.has_room(&account, received.principal, now) {
            return self.refuse(received, Refusal::overload(query.number, "no room to keep account of another flow"), now);
        }
        let guards = Guards {
            release: query.is_release(),
            unwanted: query.requested.is_none() && self.decision(&flow, now) == Some(Decision::Decline),
            unknown_spi: session.is_some_and(|session| session.is_unknown_epoch(query)),
            moved: session.is_some_and(|session| session.is_moved_by(received.principal)),
            ..Guards::default()
        };
        if session.is_none() {
            self.supersede(key, Some(State::Decision), now);
        }
        let (key_hash, source) = (verified.key_hash, SourceKey::of(&verified));
        let cause = Cause::Query { received, query, mark: mark(signed), key_hash, path: verified.path, source };
        self.take(Event::RxQuery, guards, Step::new(key, cause, now));
    }

    fn refuse(&mut self, received: &ReceivedMessage, refusal: Refusal, now: Instant) {
        self.node.count_refusal(refusal.code);
        let Ok(flow) = FlowId::from_mri(&received.mri) else {
            return self.node.report_refusal(None, "", received, &refusal, now);
        };
        let key = SessionKey { flow, session: received.session };
        self.take(Event::RxInvalid, Guards::default(), Step::new(key, Cause::Refused { received, refusal: &refusal }, now));
    }

    fn over_budget(&mut self, flow: FlowId, spi: u32, now: Instant) {
        let Some(key) = self.session_of_epoch(&flow, spi) else {
            return self.node.ignored();
        };
        let session = self.sessions.get(&key);
        let lowered = session.is_some_and(Session::is_lowered);
        let escalate = self.config.reactions.on_overrun == Overrun::Escalate && session.is_some_and(|session| !session.is_strongest());
        let guards = Guards { lowered, escalate, ..Guards::default() };
        self.take(Event::TgOverBudget, guards, Step::new(key, Cause::Other, now));
    }

    /// Under signatures a second holder of the key is the sender itself, sending twice under one number.
    fn second_holder(&mut self, flow: FlowId, spi: u32, now: Instant) {
        match self.session_of_epoch(&flow, spi) {
            Some(key) => self.take(Event::TgSecondHolder, Guards::default(), Step::new(key, Cause::Other, now)),
            None => self.node.ignored(),
        }
    }

    fn session_of_epoch(&self, flow: &FlowId, spi: u32) -> Option<SessionKey> {
        let of_epoch = |key: &SessionKey| self.sessions.get(key)?.epoch.as_ref().filter(|epoch| epoch.spi == spi).map(|_| *key);
        self.keys_of(flow).iter().find_map(of_epoch)
    }

    /// The packet side has done what the session waits for.
    fn acknowledged(&mut self, key: SessionKey, token: datapath::Token, counted: Volume, highest: u32, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let Some((_, pending)) = session.pending.take_if(|(waited_for, _)| *waited_for == token) else {
            return;
        };
        if let Some(epoch) = &mut session.epoch {
            (epoch.counted, epoch.highest) = (counted, highest);
        }
        match pending {
            Pending::Installed => {
                if let Some(spi) = session.epoch.as_ref().map(|epoch| epoch.spi) {
                    self.node.tell(key, "", ReportEvent::Installed { spi });
                }
                if self.sessions.get(&key).is_some_and(|session| session.state == State::CompareSv) {
                    // A Query that came while the epoch had to wait is answered with the first one.
                    self.take(Event::TgCounted, Guards::default(), Step::new(key, Cause::Other, now));
                } else {
                    self.send_answer(key, now);
                }
            }
            Pending::Counted => {
                let comparable = session.is_comparable();
                let (former, proven) = self.former_guards(key);
                let compared = self.comparison_guards(key, now);
                let guards = Guards { comparable, former, injection: if comparable { compared.injection } else { proven }, ..compared };
                self.take(Event::TgCounted, guards, Step::new(key, Cause::Other, now));
            }
            Pending::Recounted => {
                let guards = self.comparison_guards(key, now);
                self.take(Event::TgRecounted, guards, Step::new(key, Cause::Other, now));
            }
            Pending::Volume => {
                if self.rekey_if_due(key, now) {
                    self.follow_up(now);
                } else {
                    self.send_announcement(key, now);
                }
            }
            Pending::Shared { spi, allowed } => {
                // What came until the packet side heard of it counts as well.
                if let Some(account) = self.account(key) {
                    self.budgets.allow(&account, spi, allowed.max(counted));
                }
                self.begin_late(key, now);
            }
            Pending::Answer => self.send_answer(key, now),
            Pending::Announcement => self.send_announcement(key, now),
        }
    }

    fn say_farewell(&mut self, farewell: Farewell, last: Counted) {
        if let Some(query) = farewell.release
            && let Some(sent) = query.sent
        {
            let (counted, counted_highest) = (last.volume.into(), last.highest);
            let sent_highest = query.context.map(|context| context.highest);
            // The last word about the flow: nothing is left to react with, but more counted than sent is worth knowing.
            let claim = Claim {
                sent,
                before: Before::default(),
                elapsed: Duration::ZERO,
                highest: None,
                acknowledged: None,
                unheard: false,
                path_from: 0,
            };
            let count = Count { counted: last.volume, highest: last.highest, ..Count::default() };
            let finding = self.config.reactions.thresholds.compare(&claim, &count);
            let event = ReportEvent::Compared { sent, counted, sent_highest, counted_highest, finding };
            self.node.tell(farewell.key, "", event);
        }
        self.node.push(Output::Send(farewell.denial));
    }

    /// What the live sessions of a flow say about its sender.
    fn standing(&self, flow: &FlowId) -> Standing {
        let sessions = self.sessions.range(SessionKey::range(*flow));
        Standing::of(sessions.map(|(_, session)| (session.query.number, session.key_hash)))
    }

    /// What is decided about a flow without asking anybody; `None` if somebody must be asked.
    pub(super) fn decision(&self, flow: &FlowId, now: Instant) -> Option<Decision> {
        if self.revoked.get(flow).is_some_and(|until| *until > now) {
            return Some(Decision::Decline);
        }
        match self.terms(flow) {
            Some(terms) if terms.grants() => Some(Decision::Grant(terms)),
            None if self.config.policy.ask || self.awaited.contains(flow) => None,
            Some(_) | None => Some(Decision::Decline),
        }
    }

    /// What a flow gets: by its rule or because it is expected, whichever is more.
    pub(super) fn terms(&self, flow: &FlowId) -> Option<Terms> {
        match (self.expected.get(flow).copied(), self.config.policy.rule(flow).map(|rule| rule.terms)) {
            (Some(expected), Some(rule)) if rule.volume > expected.volume => Some(rule),
            (expected, rule) => expected.or(rule),
        }
    }
}
