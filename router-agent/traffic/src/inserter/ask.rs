//! The sender's policy: whose first packet asks for a permission (FS-01).

use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::flow::Flow;

/// Flows that ask by themselves. Every part that is `None` matches anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AskRule {
    /// Addresses of the sender.
    pub source: Option<IpNet>,
    /// Addresses of the receiver.
    pub destination: Option<IpNet>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source ports.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Destination ports.
    pub destination_ports: Option<RangeInclusive<u16>>,
}

impl AskRule {
    /// Whether a flow falls under the rule.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.source.is_none_or(|prefix| prefix.contains(&flow.source))
            && self.destination.is_none_or(|prefix| prefix.contains(&flow.destination))
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.source_ports.as_ref().is_none_or(|ports| ports.contains(&flow.source_port))
            && self.destination_ports.as_ref().is_none_or(|ports| ports.contains(&flow.destination_port))
    }
}
