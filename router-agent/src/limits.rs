//! Entries `[[limit]]`: what hosts may permit each other through this router.

use std::time::Duration;

use daemon::config::{Ports, Span, check_network, check_ports};
use daemon::protocol::Protocol;
use daemon::source::{ConfigError, Source};
use ipnet::IpNet;
use pbs_nslp::router::{LimitRule, Limits, RouterPolicy};
use pbs_nslp::selector::{Prefix, Selector};
use pbs_nslp::wire::Volume;
use serde::Deserialize;

/// One entry; the first that is about a flow decides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// Who sends; anybody if left out.
    pub source: Option<IpNet>,
    /// Who receives; anybody if left out.
    pub destination: Option<IpNet>,
    /// For which protocol; every protocol if left out.
    pub protocol: Option<Protocol>,
    /// For which ports of the receiver; every port if left out.
    pub destination_ports: Option<Ports>,
    /// Whether anything may be permitted.
    #[serde(default = "yes")]
    pub permit: bool,
    /// Bytes that one Permission may say at most; any number if left out.
    pub volume: Option<u64>,
    /// Bytes that the live permissions from one host to another may say together at most; any number if left out. What has ended does not
    /// count: this bounds what may be under way, and is no quota.
    pub pair_volume: Option<u64>,
    /// Time that one Permission may say at most; any time if left out.
    pub ttl: Option<Span>,
}

fn yes() -> bool {
    true
}

/// Refuses entries that cannot be meant so.
pub(crate) fn check(limits: &[Limit], source: &Source) -> Result<(), ConfigError> {
    for (place, limit) in limits.iter().enumerate() {
        let wrong = |key: &str, message: &str| Err(source.wrong(&format!("limit.{place}.{key}"), message));
        if !limit.permit && (limit.volume.is_some() || limit.pair_volume.is_some() || limit.ttl.is_some()) {
            return wrong("permit", "is false: volume, pair_volume and ttl would limit nothing");
        }
        if limit.pair_volume == Some(0) {
            return wrong("pair_volume", "0 permits nothing: say permit = false");
        }
        if limit.volume == Some(0) {
            return wrong("volume", "0 permits nothing: say permit = false");
        }
        if limit.ttl.is_some_and(|ttl| ttl.0.is_zero()) {
            return wrong("ttl", "0 permits nothing: say permit = false");
        }
        for (key, network) in [("source", &limit.source), ("destination", &limit.destination)] {
            if let Some(network) = network {
                check_network(&format!("limit.{place}.{key}"), network, source)?;
            }
        }
        check_ports(&format!("limit.{place}.destination_ports"), limit.protocol, limit.destination_ports.unwrap_or(Ports::ANY), source)?;
        if let (Some(from), Some(to)) = (&limit.source, &limit.destination)
            && from.addr().is_ipv4() != to.addr().is_ipv4()
        {
            return wrong("destination", "is of another IP version than source: no flow is");
        }
    }
    Ok(())
}

/// The same in the words of the crate that acts by it.
pub(crate) fn policy(limits: &[Limit]) -> RouterPolicy {
    let rule = |limit: &Limit| LimitRule {
        selector: Selector {
            source: limit.source.as_ref().and_then(prefix),
            destination: limit.destination.as_ref().and_then(prefix),
            protocol: limit.protocol.map(|protocol| protocol.0),
            destination_ports: limit.destination_ports.map(|ports| ports.first..=ports.last),
            ..Selector::default()
        },
        limits: limit.permit.then(|| Limits {
            volume: Volume(limit.volume.unwrap_or(u64::MAX)),
            ttl: limit.ttl.map_or(Duration::MAX, |ttl| ttl.0),
            pair_volume: Volume(limit.pair_volume.unwrap_or(u64::MAX)),
        }),
    };
    RouterPolicy { rules: limits.iter().map(rule).collect() }
}

fn prefix(network: &IpNet) -> Option<Prefix> {
    Prefix::new(network.addr(), network.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_the_same_in_both_languages() {
        let limit = Limit {
            source: Some("192.0.2.0/24".parse().unwrap()),
            destination: None,
            protocol: Some(Protocol(17)),
            destination_ports: Some(Ports { first: 9000, last: 9999 }),
            permit: true,
            volume: Some(1000),
            pair_volume: Some(2000),
            ttl: None,
        };
        let rules = policy(&[limit.clone(), Limit { permit: false, volume: None, pair_volume: None, ..limit }]).rules;
        let selector = Selector {
            source: Prefix::new([192, 0, 2, 0].into(), 24),
            protocol: Some(17),
            destination_ports: Some(9000..=9999),
            ..Selector::default()
        };
        let limits = Some(Limits { volume: Volume(1000), ttl: Duration::MAX, pair_volume: Volume(2000) });
        assert_eq!(rules, [LimitRule { selector: selector.clone(), limits }, LimitRule { selector, limits: None }]);
    }
}
