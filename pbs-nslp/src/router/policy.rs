//! What an operator lets the hosts of a path permit each other (Notify 18).

use core::time::Duration;

use crate::flow::FlowId;
use crate::node::TTL_MAXIMUM;
use crate::selector::Selector;
use crate::wire::{Permission, Volume};

/// The first rule that matches a flow decides; what no rule is about is not limited.
///
/// A router refuses what goes beyond: it cannot lessen a Permission, which is signed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RouterPolicy {
    /// In the order in which they are tried.
    pub rules: Vec<LimitRule>,
}

/// What flows may be permitted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LimitRule {
    /// Which flows.
    pub selector: Selector,
    /// How much; `None` if nothing at all.
    pub limits: Option<Limits>,
}

/// The most that one Permission may say, alone and together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// AV, the absolute total of an epoch.
    pub volume: Volume,
    /// TTL.
    pub ttl: Duration,
    /// AV of all flows together that the rule's flow has source and destination in common with, itself included: without it two hosts
    /// get as much as they have ports.
    pub pair_volume: Volume,
}

impl RouterPolicy {
    /// Whether nothing may be permitted to a flow.
    pub(super) fn forbids(&self, flow: &FlowId) -> bool {
        self.limits(flow).is_none()
    }

    /// Whether a Permission says more than it may, where `others` is allowed to other flows between its hosts. What takes away is never
    /// too much.
    pub(super) fn is_exceeded_by(&self, permission: &Permission, others: u64) -> bool {
        let within = |limits: Limits| {
            let together = permission.allowed.0.saturating_add(others);
            permission.allowed <= limits.volume && permission.ttl <= limits.ttl && together <= limits.pair_volume.0
        };
        !permission.is_removal() && !self.limits(&permission.flow).is_some_and(within)
    }

    fn limits(&self, flow: &FlowId) -> Option<Limits> {
        const NO_RULE: Limits = Limits { volume: Volume(u64::MAX), ttl: Duration::MAX, pair_volume: Volume(u64::MAX) };
        self.rules.iter().find(|rule| rule.selector.matches(flow)).map_or(Some(NO_RULE), |rule| rule.limits)
    }
}

impl Default for Limits {
    /// As much as a Permission can say.
    fn default() -> Self {
        Self { volume: Volume(u64::MAX), ttl: TTL_MAXIMUM, pair_volume: Volume(u64::MAX) }
    }
}
