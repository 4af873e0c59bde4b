//! What the receiver's rows do to sessions and to the packet side.

use gist::time::Instant;

use super::Receiver;
use super::budget::Account;
use super::policy::{Decision, Terms};
use super::rows::{Cause, Step};
use super::session::{Asked, Pending};
use super::table::{Event, Guards, State, Timer};
use crate::admission::Signer;
use crate::datapath::{Command, Grant, Token};
use crate::node::SessionKey;
use crate::output::{Ask, Output};
use crate::report::{Denial, ReportEvent};
use crate::shares::Owner;
use crate::wire::{MessageKind, Volume};

impl Receiver {
    pub(super) fn keep_query(&mut self, step: &Step<'_>) {
        let Cause::Query { received, query, mark, path, source, .. } = &step.cause else {
            return;
        };
        let event = ReportEvent::Asked { number: query.number, requested: query.requested, sent: query.sent };
        self.node.tell(step.key, step.rule, event);
        if let Some(session) = self.sessions.get_mut(&step.key) {
            (session.query, session.compared) = (Asked::from(*query), None);
            let named = query.context.map(|context| context.spi);
            if let Some(epoch) = session.epoch.as_mut().filter(|epoch| named == Some(epoch.spi)) {
                // The sender has gone over to it, and reports no other any more.
                epoch.confirmed = true;
                session.former.take_if(|former| !former.awaits_its_end());
            }
            session.path.clone_from(path);
            session.source.clone_from(source);
            session.moved = session.is_moved_by(received.principal);
            session.mark = *mark;
            session.peer = received.principal;
            session.mri = received.mri.inverted();
        }
    }

    /// Keeps a Query that came in the grace time of another one, which goes on being compared; the answer that is due is the newer one's.
    pub(super) fn keep_later_query(&mut self, step: &Step<'_>) {
        let compared = self.sessions.get(&step.key).map(|session| *session.claim());
        self.keep_query(step);
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.compared = compared;
            // The packet side has yet to hear of the new lifetime.
            session.changed = true;
        }
    }

    /// Decides by the rules, or asks.
    pub(super) fn ask_policy(&mut self, step: &Step<'_>) {
        let key = step.key;
        let decision = self.decision(&key.flow, step.now);
        if decision != Some(Decision::Decline) && self.choose(key, step.now).is_none() {
            return self.decline_algorithms(key, step.now);
        }
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        match decision {
            Some(Decision::Grant(terms)) => {
                session.terms = Some(terms);
                self.follow.push_back((key, Event::TgGrant));
            }
            Some(Decision::Decline) => {
                let revoked = self.revoked.get(&key.flow).filter(|until| **until > step.now);
                let rest = |until: &Instant| Denial::Revoked { rest: until.saturating_duration_since(step.now) };
                session.denial = Some(revoked.map_or(Denial::NoRule, rest));
                self.follow.push_back((key, Event::TgDecline));
            }
            None => {
                let requested = session.query.requested;
                self.node.push(Output::Ask(Ask { flow: key.flow, session: key.session, requested }));
            }
        }
    }

    /// Gives the packet side the association; the Permission leaves afterwards (INV-11).
    pub(super) fn install(&mut self, step: &Step<'_>) {
        self.install_epoch(step.key, step.now);
    }

    pub(super) fn install_epoch(&mut self, key: SessionKey, now: Instant) {
        let expires_at = self.end(key, now);
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let Some(epoch) = &session.epoch else {
            return;
        };
        let grant = Grant {
            flow: key.flow,
            spi: epoch.spi,
            protection: epoch.protection.clone(),
            allowed: session.allowed.0,
            // Nobody has used a key that was drawn just now.
            counted: 0,
            highest: 0,
            expires_at,
        };
        let token = self.node.token();
        self.node.command(Command::Install { token, grant });
        self.wait_for(key, token, Pending::Installed);
    }

    /// Tells the packet side the new lifetime, and reads what the sender's volume is compared with.
    pub(super) fn read_counter(&mut self, step: &Step<'_>) {
        self.prolong_signed(step.key, step.now);
        self.update(step, Pending::Counted);
        self.ask_former_count(step.key);
        self.ask_count(step.key, Pending::Counted);
    }

    /// Reads it once more: what has come since counts as well (FR-35).
    pub(super) fn recount(&mut self, step: &Step<'_>) {
        self.ask_count(step.key, Pending::Recounted);
    }

    /// An epoch that has yet to begin has counted nothing; its installation is waited for.
    fn ask_count(&mut self, key: SessionKey, pending: Pending) {
        let session = self.sessions.get(&key);
        let Some((spi, up_to)) = session.and_then(|session| {
            let up_to = session.claim().context.map_or(0, |context| context.highest);
            Some((session.epoch.as_ref()?.spi, up_to))
        }) else {
            return;
        };
        let delay = self.config.reactions.thresholds.delay;
        let token = self.node.token();
        self.node.command(Command::Compare { token, flow: key.flow, spi, up_to, delay });
        self.wait_for(key, token, pending);
    }

    /// Extends volume and time if the Query asks for it.
    pub(super) fn renew(&mut self, step: &Step<'_>) {
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        let (Some(terms), Some(requested)) = (session.terms, session.query.requested) else {
            return;
        };
        let counted = session.epoch.as_ref().map_or(Volume::ZERO, |epoch| epoch.counted);
        let spi = session.epoch.as_ref().map(|epoch| epoch.spi);
        let account = Account { flow: step.key.flow, key_hash: session.key_hash };
        let limit = match self.expected.get(&step.key.flow) {
            // What a person has said about the flow goes before what follows from its other direction.
            Some(_) if session.amended.changes_volume() => terms.limit,
            Some(expected) => terms.limit.max(expected.further(counted)),
            None => self.budgets.left(&account, spi, terms.total(), step.now),
        };
        let terms = Terms { limit, ..terms };
        let allowed = terms.extended(session.allowed, requested);
        session.allow(allowed);
        session.changed = true;
        if let Some(spi) = spi {
            self.budgets.allow(&account, spi, allowed);
        }
        self.timers.start(step.key, Timer::Ttl, step.now + terms.ttl);
    }

    pub(super) fn change_terms(&mut self, step: &Step<'_>) {
        let Cause::Change(change) = step.cause else {
            return;
        };
        if let Some((session, terms)) = self.sessions.get_mut(&step.key).and_then(|session| session.terms.map(|terms| (session, terms))) {
            session.allow(change.volume.unwrap_or(session.allowed));
            session.terms = Some(change.applied(terms));
            session.amended = change.after(session.amended);
            session.changed = true;
            if let Some(epoch) = &session.epoch {
                let account = Account { flow: step.key.flow, key_hash: session.key_hash };
                self.budgets.allow(&account, epoch.spi, session.allowed);
            }
        }
    }

    /// Answers the newest Query, once the packet side knows what the answer says.
    pub(super) fn answer(&mut self, step: &Step<'_>) {
        if self.rekey_if_due(step.key, step.now) {
            // The first Permission of the new epoch is the answer.
        } else if self.sessions.get(&step.key).is_some_and(|session| session.changed) {
            self.update(step, Pending::Answer);
        } else {
            self.send_answer(step.key, step.now);
        }
    }

    pub(super) fn announce(&mut self, step: &Step<'_>) {
        self.update(step, Pending::Announcement);
    }

    fn update(&mut self, step: &Step<'_>, pending: Pending) {
        let expires_at = self.end(step.key, step.now);
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        let Some(spi) = session.epoch.as_ref().map(|epoch| epoch.spi) else {
            return;
        };
        session.changed = false;
        let allowed = session.allowed.0;
        let token = self.node.token();
        self.node.command(Command::Update { token, flow: step.key.flow, spi, allowed, expires_at });
        self.wait_for(step.key, token, pending);
    }

    /// A newer command makes waiting for an older one needless: its answer comes later and says more.
    pub(super) fn wait_for(&mut self, key: SessionKey, token: Token, pending: Pending) {
        if let Some(session) = self.sessions.get_mut(&key) {
            if let Some((older, _)) = session.pending.replace((token, pending)) {
                self.waiting.remove(&older);
            }
            self.waiting.insert(token, key);
        }
    }

    /// Keeps the number of the last Query of a session that ends (INV-05).
    pub(super) fn bury(&mut self, step: &Step<'_>) {
        let flow = step.key.flow;
        if let Some(session) = self.sessions.get(&step.key) {
            let signer = Signer { key_hash: session.key_hash, flow, kind: MessageKind::Query };
            self.node.bury(signer, session.query.number, session.peer, step.now);
        }
        if let Cause::Query { received, query, key_hash, .. } = &step.cause {
            let signer = Signer { key_hash: *key_hash, flow, kind: MessageKind::Query };
            self.node.bury(signer, query.number, received.principal, step.now);
        }
    }

    /// Ends the flow's other sessions, or those in one state.
    pub(super) fn supersede(&mut self, by: SessionKey, state: Option<State>, now: Instant) {
        for key in self.keys_of(&by.flow) {
            let of_state = self.sessions.get(&key).is_some_and(|session| state.is_none_or(|state| state == session.state));
            if key != by && of_state {
                self.take(Event::TgSuperseded, Guards::default(), Step::new(key, Cause::Superseded { by }, now));
            }
        }
    }

    pub(super) fn forget(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        self.shares.remove(Owner { peer: session.owner, signer: session.key_hash });
        if let Some((token, _)) = session.pending {
            self.waiting.remove(&token);
        }
        if let (Some(epoch), Some(Terms { ttl, .. })) = (session.epoch, session.terms) {
            self.spis.rest(epoch.spi, now + ttl);
        }
    }

    /// The earlier of time limit and lifetime.
    pub(super) fn end(&self, key: SessionKey, now: Instant) -> Instant {
        let expiries = [Timer::Ttl, Timer::Life].map(|timer| self.timers.expiry(key, timer));
        expiries.into_iter().flatten().min().unwrap_or(now)
    }
}
