//! What the receiver's rows do to sessions and to the packet side.

use gist::time::Instant;

use super::Receiver;
use super::policy::{Decision, Terms};
use super::rows::{Cause, Step};
use super::session::{Epoch, Pending};
use super::table::{Event, Guards, State, Timer};
use crate::admission::Signer;
use crate::datapath::{Command, Grant, Protection, Token};
use crate::node::SessionKey;
use crate::output::{Ask, Output};
use crate::report::ReportEvent;
use crate::wire::{MessageKind, SharedKey, SymmetricAlgorithm, Volume, number};

impl Receiver {
    pub(super) fn keep_query(&mut self, step: &Step<'_>) {
        let Cause::Query { received, query, .. } = &step.cause else {
            return;
        };
        let event = ReportEvent::Asked { number: query.number, requested: query.requested, sent: query.sent };
        self.node.tell(step.key, step.rule, event);
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.query = (*query).clone();
            session.peer = received.peer.clone();
            session.mri = received.mri.inverted();
        }
    }

    /// Decides by the rules, or asks.
    pub(super) fn ask_policy(&mut self, step: &Step<'_>) {
        let key = step.key;
        let decision = self.decision(&key.flow, step.now);
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        match decision {
            Some(Decision::Grant(terms)) => {
                session.terms = Some(terms);
                self.follow.push_back((key, Event::TgGrant));
            }
            Some(Decision::Decline) => self.follow.push_back((key, Event::TgDecline)),
            None => {
                let requested = session.query.requested;
                self.node.push(Output::Ask(Ask { flow: key.flow, session: key.session, requested }));
            }
        }
    }

    /// A fresh SPI and key; counters start at 0 under it.
    pub(super) fn new_epoch(&mut self, step: &Step<'_>) {
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        let Some(terms) = session.terms else {
            return;
        };
        // The key always has the algorithm's length: without one no epoch begins and no Permission can leave.
        let Ok(key) = SharedKey::new(SymmetricAlgorithm::HmacSha256, self.entropy.key()) else {
            return;
        };
        let spi = self.spis.draw(&mut self.entropy, step.now);
        session.epoch = Some(Epoch { spi, key, counted: Volume::ZERO, highest: 0 });
        session.allowed = terms.first(session.query.requested);
        session.lowered = false;
        session.log.clear();
    }

    /// Gives the packet side the association; the Permission leaves afterwards (INV-11).
    pub(super) fn install(&mut self, step: &Step<'_>) {
        let expires_at = self.end(step.key, step.now);
        let Some(session) = self.sessions.get(&step.key) else {
            return;
        };
        let Some(epoch) = &session.epoch else {
            return;
        };
        let grant = Grant {
            flow: step.key.flow,
            spi: epoch.spi,
            protection: Protection::HmacSha256(epoch.key.clone()),
            allowed: session.allowed.0,
            counted: 0,
            expires_at,
        };
        let token = self.node.token();
        self.node.command(Command::Install { token, grant });
        self.wait_for(step.key, token, Pending::Installed);
    }

    /// Tells the packet side the new lifetime, which answers with the counter.
    pub(super) fn read_counter(&mut self, step: &Step<'_>) {
        self.update(step, Pending::Counted);
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
        let limit = self.expected.get(&step.key.flow).map(|expected| expected.further(counted));
        let terms = Terms { limit: terms.limit.max(limit.unwrap_or_default()), ..terms };
        let allowed = terms.extended(session.allowed, requested);
        session.lowered &= allowed == session.allowed;
        session.allowed = allowed;
        session.changed = true;
        self.timers.start(step.key, Timer::Ttl, step.now + terms.ttl);
    }

    pub(super) fn change_terms(&mut self, step: &Step<'_>) {
        let Cause::Change(terms) = step.cause else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.lowered = terms.volume < session.allowed;
            session.allowed = terms.volume;
            session.terms = Some(terms);
            session.changed = true;
        }
    }

    /// Answers the newest Query, once the packet side knows what the answer says.
    pub(super) fn answer(&mut self, step: &Step<'_>) {
        if self.sessions.get(&step.key).is_some_and(|session| session.changed) {
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
    fn wait_for(&mut self, key: SessionKey, token: Token, pending: Pending) {
        if let Some(session) = self.sessions.get_mut(&key) {
            if let Some((older, _)) = session.pending.replace((token, pending)) {
                self.waiting.remove(&older);
            }
            self.waiting.insert(token, key);
        }
    }

    /// The old epoch runs out.
    pub(super) fn drain_old(&mut self, step: &Step<'_>) {
        // One draining association at most.
        self.delete_draining(step.key, step.now);
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        if let Some(epoch) = session.epoch.take() {
            session.draining = Some(epoch.spi);
            let token = self.node.token();
            let until = step.now + self.config.drain;
            self.node.command(Command::Drain { token, flow: step.key.flow, spi: epoch.spi, until });
        }
    }

    pub(super) fn delete_draining(&mut self, key: SessionKey, now: Instant) -> Option<Token> {
        let spi = self.sessions.get_mut(&key)?.draining.take()?;
        Some(self.remove_epoch(key, spi, now))
    }

    pub(super) fn remove(&mut self, step: &mut Step<'_>) {
        let draining = self.delete_draining(step.key, step.now);
        let active = self.sessions.get_mut(&step.key).and_then(|session| session.epoch.take());
        step.removal = active.map(|epoch| self.remove_epoch(step.key, epoch.spi, step.now)).or(draining);
    }

    fn remove_epoch(&mut self, key: SessionKey, spi: u32, now: Instant) -> Token {
        let ttl = self.sessions.get(&key).and_then(|session| session.terms).map(|terms| terms.ttl).unwrap_or_default();
        let window = core::time::Duration::from_secs(u64::from(number::WINDOW_PAST));
        self.spis.rest(spi, now + ttl + window);
        self.removals.start(&mut self.node, key.flow, spi)
    }

    /// Keeps the number of the last Query of a session that ends (INV-05).
    pub(super) fn bury(&mut self, step: &Step<'_>) {
        let unix = self.node.unix(step.now);
        let flow = step.key.flow;
        let stones = &mut self.node.admission.tombstones;
        if let Some(session) = self.sessions.get(&step.key) {
            let signer = Signer { key_hash: session.key_hash, flow, kind: MessageKind::Query };
            stones.bury(signer, session.query.number, &session.peer, unix);
        }
        if let Cause::Query { received, query, key_hash } = &step.cause {
            let signer = Signer { key_hash: *key_hash, flow, kind: MessageKind::Query };
            stones.bury(signer, query.number, &received.peer, unix);
        }
    }

    /// Ends the flow's other sessions, or those in one state.
    pub(super) fn supersede(&mut self, by: SessionKey, state: Option<State>, now: Instant) {
        for key in self.keys_of(&by.flow) {
            let of_state = self.sessions.get(&key).is_some_and(|session| state.is_none_or(|state| state == session.state));
            if key != by && of_state {
                self.take(Event::TgSuperseded, Guards::default(), Step::new(key, Cause::Other, now));
            }
        }
    }

    pub(super) fn forget(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        if let Some((token, _)) = session.pending {
            self.waiting.remove(&token);
        }
        if let (Some(epoch), Some(Terms { ttl, .. })) = (session.epoch, session.terms) {
            self.spis.rest(epoch.spi, now + ttl);
        }
        for timer in Timer::ALL {
            self.timers.stop(key, *timer);
        }
    }

    /// The earlier of time limit and lifetime.
    fn end(&self, key: SessionKey, now: Instant) -> Instant {
        let expiries = [Timer::Ttl, Timer::Life].map(|timer| self.timers.expiry(key, timer));
        expiries.into_iter().flatten().min().unwrap_or(now)
    }
}
