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

/// The most that one Permission may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// AV, the absolute total of an epoch.
    pub volume: Volume,
    /// TTL.
    pub ttl: Duration,
}

impl RouterPolicy {
    /// Whether nothing may be permitted to a flow.
    pub(super) fn forbids(&self, flow: &FlowId) -> bool {
        self.limits(flow).is_none()
    }

    /// Whether a Permission says more than it may. What takes away is never too much.
    pub(super) fn is_exceeded_by(&self, permission: &Permission) -> bool {
        let within = |limits: Limits| permission.allowed <= limits.volume && permission.ttl <= limits.ttl;
        !permission.is_removal() && !self.limits(&permission.flow).is_some_and(within)
    }

    fn limits(&self, flow: &FlowId) -> Option<Limits> {
        const NO_RULE: Limits = Limits { volume: Volume(u64::MAX), ttl: Duration::MAX };
        self.rules.iter().find(|rule| rule.selector.matches(flow)).map_or(Some(NO_RULE), |rule| rule.limits)
    }
}

impl Default for Limits {
    /// As much as a Permission can say.
    fn default() -> Self {
        Self { volume: Volume(u64::MAX), ttl: TTL_MAXIMUM }
    }
}
