//! What a receiver grants, and to whom.

use core::time::Duration;

use crate::flow::FlowId;
use crate::selector::Selector;
use crate::wire::{SymmetricAlgorithm, Volume};

/// The content of a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Terms {
    /// AV in the first Permission at most; less if less is asked for.
    pub volume: Volume,
    /// All that a flow may have within `ttl`: AV that extensions may reach, less what the flow's former epochs have
    /// counted that ended less than `ttl` ago. When nothing is left the flow is denied. Below `volume` it has no effect.
    pub limit: Volume,
    /// How long the permission lives without renewal, in whole milliseconds.
    pub ttl: Duration,
    /// T: how often the sender must refresh, in whole milliseconds.
    pub refresh: Duration,
}

impl Terms {
    /// Whether it grants anything: 0 would deny or be malformed.
    pub(super) fn grants(&self) -> bool {
        !self.volume.is_zero() && self.ttl.as_millis() != 0 && self.refresh.as_millis() != 0
    }

    /// All that a flow may have within the time limit, over all its epochs.
    pub(super) fn total(&self) -> Volume {
        self.limit.max(self.volume)
    }

    /// AV of the first Permission.
    pub(super) fn first(&self, requested: Option<Volume>) -> Volume {
        requested.unwrap_or(self.volume).min(self.volume)
    }

    /// AV that an expected flow may be extended to: beyond what has been counted as much again, and at least four
    /// times the first AV, since some of it is under way and not counted yet.
    pub(super) fn further(&self, counted: Volume) -> Volume {
        let share = self.volume.0.saturating_mul(4);
        Volume(counted.0.saturating_add(share.max(counted.0)))
    }

    /// AV after a Query that asks for a total of `requested`.
    pub(super) fn extended(&self, allowed: Volume, requested: Volume) -> Volume {
        requested.min(self.limit).max(allowed)
    }
}

/// What is changed in a live permission; what is `None` stays as it is (FR-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Change {
    /// AV.
    pub volume: Option<Volume>,
    /// What extensions may bring AV to; that is `volume` if only that is given, or the sender's next Query would undo it.
    pub limit: Option<Volume>,
    /// How long the permission lives from now on.
    pub ttl: Option<Duration>,
    /// T.
    pub refresh: Option<Duration>,
}

impl Change {
    /// The whole content of a permission.
    pub(super) fn to(terms: Terms) -> Self {
        let Terms { volume, limit, ttl, refresh } = terms;
        Self { volume: Some(volume), limit: Some(limit), ttl: Some(ttl), refresh: Some(refresh) }
    }

    /// The terms of a permission whose terms were `terms`.
    pub(super) fn applied(self, terms: Terms) -> Terms {
        Terms {
            volume: self.volume.unwrap_or(terms.volume),
            limit: self.limit.or(self.volume).unwrap_or(terms.limit),
            ttl: self.ttl.unwrap_or(terms.ttl),
            refresh: self.refresh.unwrap_or(terms.refresh),
        }
    }

    /// This change after `before`: the volume and its limit are one thing.
    pub(super) fn after(self, before: Self) -> Self {
        let (volume, limit) = if self.changes_volume() { (self.volume, self.limit) } else { (before.volume, before.limit) };
        Self { volume, limit, ttl: self.ttl.or(before.ttl), refresh: self.refresh.or(before.refresh) }
    }

    /// Whether it says how much a flow may have.
    pub(super) fn changes_volume(&self) -> bool {
        self.volume.is_some() || self.limit.is_some()
    }

    /// Whether it leaves nothing of a permission.
    fn revokes(&self) -> bool {
        self.volume.is_some_and(Volume::is_zero) || [self.ttl, self.refresh].into_iter().flatten().any(|time| time.as_millis() == 0)
    }

    /// Refuses what would not change a permission but end it.
    pub(super) fn is_change(&self) -> bool {
        !self.revokes()
    }
}

/// One rule: what flows of one kind are granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrantRule {
    /// Which flows.
    pub selector: Selector,
    /// What they get.
    pub terms: Terms,
    /// Whether their senders sign each packet from the first one on (Solution 3, P-134, X-83). Whose key cannot is declined.
    pub signed: bool,
    /// Which code authenticates packets that are not signed, if their senders accept it; `None` leaves it to them.
    pub mac: Option<SymmetricAlgorithm>,
}

/// The rules, the first that matches decides.
///
/// Volumes are those of a flow and its sender's key, whatever sessions and epochs they are spread over: see [`Terms::limit`].
/// A receiver that starts anew has forgotten what was used before.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct GrantPolicy {
    /// The rules.
    pub rules: Vec<GrantRule>,
    /// Whether flows without a rule are asked about ([`crate::output::Output::Ask`]) instead of declined.
    pub ask: bool,
}

impl GrantPolicy {
    pub(super) fn rule(&self, flow: &FlowId) -> Option<&GrantRule> {
        self.rules.iter().find(|rule| rule.selector.matches(flow))
    }
}

/// An answer to [`crate::output::Output::Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// Yes, so much.
    Grant(Terms),
    /// No.
    Decline,
}
