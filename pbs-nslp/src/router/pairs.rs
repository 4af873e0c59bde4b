//! What is allowed between two hosts by all their flows together, which an operator may limit (FN-72).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Router;
use crate::flow::FlowId;
use crate::node::SessionKey;

/// AV of all sessions from one address to another, in bytes. As many entries as sessions at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Pairs {
    allowed: BTreeMap<(IpAddr, IpAddr), u64>,
}

impl Pairs {
    fn of(&self, flow: &FlowId) -> u64 {
        self.allowed.get(&(flow.source, flow.destination)).copied().unwrap_or(0)
    }

    /// Takes note that a flow of the pair has another AV than before.
    pub(super) fn change(&mut self, flow: &FlowId, before: u64, after: u64) {
        let total = self.of(flow).saturating_sub(before).saturating_add(after);
        if total == 0 {
            self.allowed.remove(&(flow.source, flow.destination));
        } else {
            self.allowed.insert((flow.source, flow.destination), total);
        }
    }
}

impl Router {
    /// AV of other flows between the hosts of a flow; former sessions of the flow itself give way to it.
    pub(super) fn allowed_besides(&self, flow: &FlowId) -> u64 {
        let own = self.sessions_of(flow).map(|(_, session)| session.reserved).fold(0, u64::saturating_add);
        self.pairs.of(flow).saturating_sub(own)
    }

    /// Keeps account of what the session's Permission allows.
    pub(super) fn account_pair(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let allowed = session.granted.as_ref().map_or(0, |granted| granted.allowed.0);
            let before = core::mem::replace(&mut session.reserved, allowed);
            self.pairs.change(&key.flow, before, allowed);
        }
    }
}
