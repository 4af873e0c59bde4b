//! The policies of the configuration in the words of the crates that act by them.

use ipnet::IpNet;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Terms};
use pbs_nslp::selector::{Prefix, Selector};
use pbs_nslp::sender;
use pbs_nslp::wire::{SymmetricAlgorithm, Volume};
use traffic::inserter::AskRule;

use crate::config::{Ask, Grant, LargestProtection, Mac};
use crate::relay;

/// Which traffic the packet side holds and asks for.
pub(crate) fn ask_rules(asks: &[Ask]) -> Vec<AskRule> {
    let rule = |ask: &Ask| AskRule {
        destination: Some(ask.destination),
        protocol: ask.protocol.map(|protocol| protocol.0),
        destination_ports: Some(ask.destination_ports.first..=ask.destination_ports.last),
        ..AskRule::default()
    };
    asks.iter().map(rule).collect()
}

/// How much signalling asks for.
pub(crate) fn asks(asks: &[Ask]) -> Vec<sender::AskRule> {
    let rule = |ask: &Ask| sender::AskRule {
        selector: Selector {
            destination: prefix(&ask.destination),
            protocol: ask.protocol.map(|protocol| protocol.0),
            destination_ports: Some(ask.destination_ports.first..=ask.destination_ports.last),
            ..Selector::default()
        },
        volume: Volume(ask.volume),
        signed: ask.signed,
        mac: ask.mac.map(mac),
    };
    asks.iter().map(rule).collect()
}

/// What this host grants, as a receiver and as a relay.
pub(crate) fn grant_policy(grants: &[Grant], relay: Option<&relay::Section>) -> GrantPolicy {
    let admitted: Vec<Grant> = relay.iter().flat_map(|relay| &relay.admit).map(relay::Admit::grant).collect();
    let rule = |grant: &Grant| GrantRule {
        selector: Selector {
            source: prefix(&grant.source),
            protocol: grant.protocol.map(|protocol| protocol.0),
            destination_ports: Some(grant.destination_ports.first..=grant.destination_ports.last),
            ..Selector::default()
        },
        terms: Terms {
            volume: Volume(grant.volume),
            limit: Volume(grant.limit.unwrap_or(grant.volume)),
            ttl: grant.ttl.0,
            refresh: grant.refresh.0,
        },
        signed: grant.signed,
        mac: grant.mac.map(mac),
    };
    GrantPolicy { rules: admitted.iter().chain(grants).map(rule).collect(), ask: false }
}

/// The codes that the routes of this host leave room for.
pub(crate) fn macs(largest: LargestProtection) -> Vec<SymmetricAlgorithm> {
    match largest {
        LargestProtection::Symmetric => vec![SymmetricAlgorithm::HmacSha256, SymmetricAlgorithm::HmacSha1],
        LargestProtection::PublicKey | LargestProtection::Rsa2048 | LargestProtection::Rsa4096 => SymmetricAlgorithm::USABLE.to_vec(),
    }
}

const fn mac(mac: Mac) -> SymmetricAlgorithm {
    match mac {
        Mac::HmacSha1 => SymmetricAlgorithm::HmacSha1,
        Mac::HmacSha256 => SymmetricAlgorithm::HmacSha256,
        Mac::Aes128Gmac => SymmetricAlgorithm::Aes128Gmac,
        Mac::Aes256Gmac => SymmetricAlgorithm::Aes256Gmac,
    }
}

/// The flows to these addresses.
pub(crate) fn destination(network: IpNet) -> Selector {
    Selector { destination: prefix(&network), ..Selector::default() }
}

fn prefix(network: &IpNet) -> Option<Prefix> {
    Prefix::new(network.addr(), network.prefix_len())
}
