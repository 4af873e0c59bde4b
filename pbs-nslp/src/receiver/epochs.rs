//! How epochs of a session begin and end, and what each leaves for the next.

use core::time::Duration;

use gist::time::Instant;

use super::Receiver;
use super::algorithms::Choice;
use super::budget::Account;
use super::former::LAST;
use super::rows::{Cause, Step};
use super::session::{Epoch, Session, Then};
use super::table::{Event, Guards, State, Timer};
use crate::datapath::{Command, Protection, Token};
use crate::node::SessionKey;
use crate::wire::{SharedKey, Volume, number};

impl Receiver {
    /// Begins an epoch. What former epochs of the flow may still count is not given twice: if that leaves too little for the
    /// new one, they divide it, or if there is nothing to divide they end first; the new one begins when the packet side has told
    /// what they have counted.
    pub(super) fn new_epoch(&mut self, step: &Step<'_>) {
        let Some(account) = self.account(step.key) else {
            return;
        };
        if self.waits_for_share(step.key) {
            return;
        }
        if !self.fits(step.key, step.now) && self.budgets.is_open(&account) {
            if self.share_with_older(step.key, step.now) {
                return;
            }
            for key in self.keys_of(&step.key.flow).into_iter().filter(|key| *key != step.key) {
                self.take(Event::TgDisplaced, Guards::default(), Step::new(key, Cause::Other, step.now));
            }
            if self.removals.then(step.key.flow, None, Then::Begin(step.key)).is_ok() {
                return;
            }
        }
        self.begin_epoch(step.key, step.now);
    }

    /// Begins an epoch that had to wait for the end of others.
    pub(super) fn begin_late(&mut self, key: SessionKey, now: Instant) {
        let waits = |session: &Session| matches!(session.state, State::Permitted | State::CompareSv) && session.epoch.is_none();
        if self.sessions.get(&key).is_some_and(waits) {
            // Only an escalation says beforehand how much the epoch is to have.
            let escalated = self.sessions.get(&key).is_some_and(|session| session.unused.is_some());
            self.begin_epoch(key, now);
            self.install_epoch(key, now);
            if self.sessions.get(&key).is_some_and(|session| session.rekey.is_some()) {
                self.report_rekeyed(key, "FR-18");
            } else if escalated {
                self.report_escalated(key, "FR-40");
            } else {
                // The row that the epoch was begun in, or was to be.
                let is_first = self.sessions.get(&key).is_some_and(|session| session.past.is_empty());
                self.report_granted(key, if is_first { "FR-05" } else { "FR-13" });
            }
            self.follow_up(now);
        }
    }

    /// A fresh SPI and key; counters start at 0 under it.
    fn begin_epoch(&mut self, key: SessionKey, now: Instant) {
        let (left, choice) = (self.left(key, now), self.choose(key, now));
        let Some((account, session)) = self.account(key).zip(self.sessions.get_mut(&key)) else {
            return;
        };
        let Some(terms) = session.terms else {
            return;
        };
        let wanted = session.unused.unwrap_or_else(|| terms.first(session.query.requested));
        let allowed = left.map_or(Volume::ZERO, |left| wanted.min(left));
        let is_expected = self.expected.contains_key(&key.flow);
        if allowed.is_zero() || !(is_expected || self.budgets.has_room(&account, session.owner, now)) {
            self.follow.push_back((key, Event::TgSpent));
            return;
        }
        session.unused = None;
        let protection = match (choice, session.source.clone()) {
            (Some(Choice::Signatures), Some(source)) => Protection::SignedBy(source),
            // The key always has the algorithm's length: without one no epoch begins and no Permission can leave.
            (Some(Choice::Symmetric(algorithm)), _) => match SharedKey::new(algorithm, self.entropy.key(algorithm.key_length())) {
                Ok(key) => Protection::Shared { algorithm, key },
                Err(_) => return,
            },
            // Its sender has changed its mind, or its key, in the middle of a permission.
            (None | Some(Choice::Signatures), _) => return self.follow.push_back((key, Event::TgRevoke)),
        };
        let spi = self.spis.draw(&mut self.entropy, now);
        session.epoch = Some(Epoch { spi, protection, counted: Volume::ZERO, highest: 0, began_at: now, confirmed: false, first: None });
        session.watch.begin_epoch(now);
        (session.allowed, session.peak) = (allowed, allowed);
        session.log.clear();
        if !is_expected {
            self.budgets.open(account, spi, allowed, session.owner, now);
        }
    }

    pub(super) fn account(&self, key: SessionKey) -> Option<Account> {
        self.sessions.get(&key).map(|session| Account { flow: key.flow, key_hash: session.key_hash })
    }

    /// What the flow may have besides all that its epochs have had; of an expected flow the host wants all.
    fn left(&self, key: SessionKey, now: Instant) -> Option<Volume> {
        let terms = self.sessions.get(&key)?.terms?;
        if self.expected.contains_key(&key.flow) {
            return Some(Volume(u64::MAX));
        }
        Some(self.budgets.left(&self.account(key)?, None, terms.total(), now))
    }

    /// Whether a new epoch would get all it asks for, even if those there are use up theirs.
    fn fits(&self, key: SessionKey, now: Instant) -> bool {
        let session = self.sessions.get(&key);
        let wanted = session.and_then(|session| session.unused.or_else(|| Some(session.terms?.first(session.query.requested))));
        wanted.zip(self.left(key, now)).is_some_and(|(wanted, left)| wanted <= left)
    }

    /// The old epoch runs out, or ends at once if the new one needs what it may still count: a sender that names another
    /// epoch does not use it.
    pub(super) fn drain_old(&mut self, step: &Step<'_>) {
        // One draining association at most.
        self.delete_draining(step.key, step.now);
        let fits = self.fits(step.key, step.now);
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        session.keep_former();
        let Some(epoch) = session.epoch.take() else {
            return;
        };
        if !fits {
            self.count_of_former(step.key, epoch.spi, LAST);
            self.remove_epoch(step.key, epoch.spi, step.now);
        } else if let Some(session) = self.sessions.get_mut(&step.key) {
            session.draining = Some(epoch.spi);
            let token = self.node.token();
            let until = step.now + self.config.drain;
            self.node.command(Command::Drain { token, flow: step.key.flow, spi: epoch.spi, until });
        }
    }

    pub(super) fn delete_draining(&mut self, key: SessionKey, now: Instant) {
        if let Some(spi) = self.sessions.get_mut(&key).and_then(|session| session.draining.take()) {
            self.count_of_former(key, spi, LAST);
            self.remove_epoch(key, spi, now);
        }
    }

    /// Lets the epoch of an old session run out as one of the session that takes over, which has begun one already (FR-50, X-75).
    pub(super) fn hand_over(&mut self, step: &Step<'_>) {
        let Cause::Superseded { by } = step.cause else {
            return;
        };
        // One draining association at most.
        self.delete_draining(step.key, step.now);
        self.delete_draining(by, step.now);
        let epoch = self.sessions.get_mut(&step.key).and_then(|session| session.epoch.take());
        let Some((spi, heir)) = epoch.map(|epoch| epoch.spi).zip(self.sessions.get_mut(&by)) else {
            return;
        };
        heir.draining = Some(spi);
        let until = (step.now + self.config.drain).min(self.end(step.key, step.now));
        self.timers.start(by, Timer::Drain, until);
        let token = self.node.token();
        self.node.command(Command::Drain { token, flow: by.flow, spi, until });
    }

    pub(super) fn remove(&mut self, step: &mut Step<'_>) {
        self.delete_draining(step.key, step.now);
        let active = self.sessions.get_mut(&step.key).and_then(|session| session.epoch.take());
        step.removal = active.map(|epoch| self.remove_epoch(step.key, epoch.spi, step.now));
    }

    fn remove_epoch(&mut self, key: SessionKey, spi: u32, now: Instant) -> Token {
        let ttl = self.sessions.get(&key).and_then(|session| session.terms).map(|terms| terms.ttl).unwrap_or_default();
        let window = Duration::from_secs(u64::from(number::WINDOW_PAST));
        self.spis.rest(spi, now + ttl + window);
        let token = self.removals.start(&mut self.node, key.flow, spi);
        if let Some(account) = self.account(key) {
            self.budgets.end(token, account, spi, ttl);
        }
        token
    }
}
