//! Which flows a rule of a host's policy is about.

use core::fmt;
use core::ops::RangeInclusive;
use std::net::IpAddr;

use crate::flow::FlowId;

/// The leading bits of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// A prefix; `None` if it is longer than the address.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        (u32::from(length) <= width(address)).then_some(Self { address, length })
    }

    /// Whether an address begins with it.
    pub fn contains(&self, address: IpAddr) -> bool {
        if address.is_ipv4() != self.address.is_ipv4() {
            return false;
        }
        let rest = width(address).saturating_sub(u32::from(self.length));
        let differing = bits(address) ^ bits(self.address);
        differing.checked_shr(rest).unwrap_or(0) == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The flows of a rule: all that agree with everything given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Selector {
    /// Who sends.
    pub source: Option<Prefix>,
    /// Who receives.
    pub destination: Option<Prefix>,
    /// Upper-layer protocol number.
    pub protocol: Option<u8>,
    /// The sender's ports.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// The receiver's ports.
    pub destination_ports: Option<RangeInclusive<u16>>,
}

impl Selector {
    /// Whether a flow is one of the rule's.
    pub fn matches(&self, flow: &FlowId) -> bool {
        let within = |prefix: Option<Prefix>, address| prefix.is_none_or(|prefix| prefix.contains(address));
        let among = |ports: &Option<RangeInclusive<u16>>, port| ports.as_ref().is_none_or(|ports| ports.contains(&port));
        within(self.source, flow.source)
            && within(self.destination, flow.destination)
            && self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && among(&self.source_ports, flow.source_port)
            && among(&self.destination_ports, flow.destination_port)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { u32::BITS } else { u128::BITS }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, length: u8) -> Prefix {
        Prefix::new(text.parse().unwrap(), length).unwrap()
    }

    #[test]
    fn a_prefix_contains_what_begins_like_it() {
        assert!(prefix("192.0.2.0", 24).contains("192.0.2.77".parse().unwrap()));
        assert!(!prefix("192.0.2.0", 24).contains("192.0.3.77".parse().unwrap()));
        assert!(prefix("0.0.0.0", 0).contains("203.0.113.1".parse().unwrap()));
        assert!(!prefix("0.0.0.0", 0).contains("2001:db8::1".parse().unwrap()));
        assert!(prefix("::", 0).contains("2001:db8::1".parse().unwrap()));
        assert!(prefix("2001:db8::1", 128).contains("2001:db8::1".parse().unwrap()));
        assert!(!prefix("2001:db8::1", 128).contains("2001:db8::2".parse().unwrap()));
        assert_eq!(Prefix::new("192.0.2.0".parse().unwrap(), 33), None);
    }

    #[test]
    fn a_selector_matches_what_agrees_with_all_it_names() {
        let flow = FlowId::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), 17, 5000, 9000).unwrap();
        assert!(Selector::default().matches(&flow));
        let rule = Selector {
            destination: Some(prefix("198.51.100.0", 24)),
            protocol: Some(17),
            destination_ports: Some(9000..=9999),
            ..Selector::default()
        };
        assert!(rule.matches(&flow));
        assert!(!rule.matches(&FlowId { destination_port: 8999, ..flow }));
        assert!(!Selector { source: Some(prefix("198.51.100.0", 24)), ..rule }.matches(&flow));
    }
}
