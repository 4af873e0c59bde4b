//! Another epoch in the middle of a permission, without a break (FR-18, X-36, X-72, X-75).

use gist::time::Instant;

use super::Receiver;
use super::rows::{Cause, Step};
use super::session::{Pending, Session};
use super::table::{Event, Guards};
use crate::datapath::Command;
use crate::flow::FlowId;
use crate::node::SessionKey;
use crate::report::{Rekey, ReportEvent};
use crate::wire::Volume;

/// AH numbers from here on call for another epoch.
const NUMBERS_HALF_USED: u32 = 1 << 31;

/// The most that a sender without 64-bit volumes can say.
const WIDEST: u64 = u32::MAX as u64;

/// How packets are to be authenticated from an operator's order on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Strength {
    /// As up to now, with a fresh key.
    Same,
    /// By signatures of the sender (Solution 3). There is no way back within the flow's life.
    Signed,
}

/// How the volume is divided between two epochs.
#[derive(Debug, Clone, Copy)]
struct Shares {
    /// AV of the epoch that drains.
    old: Volume,
    /// AV of the epoch that begins.
    new: Volume,
}

impl Receiver {
    /// Begins another epoch of a live permission without a break, by an operator's order (FR-18). False if the flow has no permission,
    /// or its packets cannot be signed.
    pub fn rekey(&mut self, flow: FlowId, strength: Strength, now: Instant) -> bool {
        let keys = self.keys_of(&flow);
        let can = |session: &Session| session.epoch.is_some() && (strength == Strength::Same || session.can_sign());
        if !keys.iter().any(|key| self.sessions.get(key).is_some_and(can)) {
            return false;
        }
        if strength == Strength::Signed {
            self.sign_from_now_on(flow, now);
        }
        for key in keys.into_iter().filter(|key| self.sessions.get(key).is_some_and(can)).collect::<Vec<_>>() {
            self.take(Event::TgRekey, Guards::default(), Step::new(key, Cause::Other, now));
        }
        true
    }

    pub(super) fn note_rekey(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.rekey = Some(Rekey::Ordered);
        }
    }

    /// The epoch before has run out: an order that had to wait for that is carried out.
    pub(super) fn rekey_after_drain(&mut self, key: SessionKey) {
        if self.sessions.get(&key).is_some_and(|session| session.rekey.is_some()) {
            self.follow.push_back((key, Event::TgRekey));
        }
    }

    /// Asks what has been counted: the epochs share what is left.
    pub(super) fn read_volume(&mut self, key: SessionKey) {
        let spi = self.sessions.get(&key).and_then(|session| session.epoch.as_ref()).map(|epoch| epoch.spi);
        if let Some(spi) = spi {
            let token = self.node.token();
            self.node.command(Command::Snapshot { token, flow: key.flow, spi });
            self.wait_for(key, token, Pending::Volume);
        }
    }

    /// The counter is known: another epoch begins if it is due, and there is volume for it.
    pub(super) fn rekey_if_due(&mut self, key: SessionKey, now: Instant) -> bool {
        let why = self.rekey_due(key, now);
        let due = why.is_some() && self.shares(key, now).is_some();
        if let Some(session) = self.sessions.get_mut(&key).filter(|_| due) {
            session.rekey = why;
            self.follow.push_back((key, Event::TgNewEpoch));
        }
        due
    }

    /// A Permission that asks for another path names no association, and a rekey waits for the next. It also waits until the
    /// epoch before has run out: the sender may still be using that.
    fn rekey_due(&self, key: SessionKey, now: Instant) -> Option<Rekey> {
        let session = self.sessions.get(&key).filter(|session| !session.other_path && session.draining.is_none())?;
        let epoch = session.epoch.as_ref()?;
        // A key that nobody has used need not be replaced.
        let is_old = epoch.highest > 0 && now.saturating_duration_since(epoch.began_at) >= self.config.key_age;
        session
            .rekey
            .or_else(|| (epoch.highest >= NUMBERS_HALF_USED).then_some(Rekey::Numbers))
            .or_else(|| session.fills_32_bits().then_some(Rekey::Width))
            .or_else(|| is_old.then_some(Rekey::KeyAge))
    }

    /// What the epochs may have if another one begins, by order or because it is time, or because the one in use is under attack.
    fn shares(&self, key: SessionKey, now: Instant) -> Option<Shares> {
        let session = self.sessions.get(&key)?;
        let (epoch, terms) = (session.epoch.as_ref()?, session.terms?);
        if let Some(wanted) = session.unused {
            return self.divided(key, key, wanted, self.in_flight(), now);
        }
        let rest = session.allowed.0.saturating_sub(epoch.counted.0);
        let total = terms.total().0;
        let asked = session.query.requested.map_or(0, |requested| requested.0.min(total).saturating_sub(epoch.counted.0));
        let wanted = if session.fills_32_bits() { terms.volume.0.max(asked).max(rest) } else { asked.max(rest) };
        self.divided(key, key, Volume(wanted), Volume(u64::MAX), now)
    }

    /// What packets in flight may need of an epoch that runs out: its sender takes up the next one with the Permission.
    fn in_flight(&self) -> Volume {
        self.config.reactions.thresholds.in_flight.floor
    }

    /// Divides what the flow may have between the epoch of one session and that which another one, or the same, is to begin with
    /// `wanted`. If the limit leaves room for both the old one keeps its volume. Else both together get what it had: of what it has
    /// not counted yet it keeps half, and no more than `most`. So neither the limit is passed nor packets in flight are lost, and what
    /// the old one does not use comes back with the next extension.
    fn divided(&self, of: SessionKey, to: SessionKey, wanted: Volume, most: Volume, now: Instant) -> Option<Shares> {
        let (session, terms) = (self.sessions.get(&of)?, self.sessions.get(&to)?.terms?);
        let epoch = session.epoch.as_ref()?;
        let account = self.account(of)?;
        let left = if self.expected.contains_key(&of.flow) {
            u64::MAX
        } else {
            self.budgets.left(&account, Some(epoch.spi), terms.total(), now).0
        };
        // An operator may have lowered the limit below what had been granted.
        let granted = session.allowed.0.min(left);
        let free = left.saturating_sub(granted);
        let shares = if free >= wanted.0 {
            Shares { old: session.allowed, new: wanted }
        } else {
            let rest = granted.saturating_sub(epoch.counted.0);
            let given = rest.saturating_sub(rest.div_ceil(2).min(most.0));
            Shares { old: Volume(granted.saturating_sub(given)), new: Volume(free.saturating_add(given).min(wanted.0)) }
        };
        (!shares.new.is_zero()).then_some(shares)
    }

    /// Divides what is left of the volume between the epoch that drains and the one that begins.
    pub(super) fn share_volume(&mut self, step: &Step<'_>) {
        let Some(shares) = self.shares(step.key, step.now) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.unused = Some(shares.new);
        }
        self.leave_share(step.key, step.key, shares, step.now);
    }

    /// Has the epoch of an older session of the flow leave a part of its volume to one that this session begins (FR-50); false if
    /// there is none, or nothing to divide.
    pub(super) fn share_with_older(&mut self, key: SessionKey, now: Instant) -> bool {
        let wanted = self.sessions.get(&key).and_then(|session| session.terms.map(|terms| terms.first(session.query.requested)));
        let of_older = |other: &SessionKey| {
            let shares = self.divided(*other, key, wanted?, self.in_flight(), now)?;
            Some((*other, shares))
        };
        let older = self.keys_of(&key.flow).iter().filter(|other| **other != key).find_map(of_older);
        older.is_some_and(|(older, shares)| self.leave_share(older, key, shares, now))
    }

    /// Lowers the volume of an epoch as far as it shares it; the other one waits until that is done. False if it leaves nothing.
    fn leave_share(&mut self, of: SessionKey, to: SessionKey, Shares { old, .. }: Shares, now: Instant) -> bool {
        let expires_at = self.end(of, now);
        let Some((account, session)) = self.account(of).zip(self.sessions.get_mut(&of)) else {
            return false;
        };
        let Some(spi) = session.epoch.as_ref().map(|epoch| epoch.spi).filter(|_| old < session.allowed) else {
            return false;
        };
        // Packets beyond it are no attack.
        session.allow(old);
        self.budgets.allow(&account, spi, old);
        let token = self.node.token();
        self.node.command(Command::Update { token, flow: of.flow, spi, allowed: old.0, expires_at });
        self.wait_for(to, token, Pending::Shared { spi, allowed: old });
        true
    }

    /// Whether the next epoch has to wait until another one has left its part.
    pub(super) fn waits_for_share(&self, key: SessionKey) -> bool {
        let pending = self.sessions.get(&key).and_then(|session| session.pending);
        matches!(pending, Some((_, Pending::Shared { .. })))
    }

    pub(super) fn report_rekeyed(&mut self, key: SessionKey, rule: &'static str) {
        let begun = self.sessions.get_mut(&key).filter(|session| session.epoch.is_some());
        let Some(why) = begun.and_then(|session| session.rekey.take()) else {
            return;
        };
        let session = self.sessions.get(&key);
        if let Some((session, epoch)) = session.and_then(|session| Some((session, session.epoch.as_ref()?))) {
            let event = ReportEvent::Rekeyed { spi: epoch.spi, algorithm: epoch.protection.name(), allowed: session.allowed, why };
            self.node.tell(key, rule, event);
        }
    }
}

impl Session {
    /// Whether the sender has nearly used up all that it can count: it asks for the most that it can say, and does not say more
    /// though it could.
    fn fills_32_bits(&self) -> bool {
        let counted = self.epoch.as_ref().map_or(0, |epoch| epoch.counted.0);
        self.query.requested == Some(Volume(WIDEST)) && self.allowed.0 >= WIDEST && counted >= WIDEST / 4 * 3
    }
}
