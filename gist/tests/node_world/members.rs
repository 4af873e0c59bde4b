//! Who the nodes are, and what they are told.

use std::net::IpAddr;

use gist::api::{ReceivedMessage, SendMessage};
use gist::node::{ApdEntry, IdentityPattern, NodeConfig, PeerCredentials, PeerRole, Registration, Role, Transmit};
use gist::wire::{Message, PeerIdentity, datagram};

use super::{LISTENING_PORT, NSLP, PLAIN_PORT, text_for};

pub fn config(number: usize, role: Role, addresses: &[&str], change: &impl Fn(usize, &mut NodeConfig)) -> NodeConfig {
    let mut config = NodeConfig::new(identity(number), role);
    config.registrations = vec![Registration::secure(NSLP, Some(65503))];
    config.association_port = LISTENING_PORT;
    config.plain_association_port = PLAIN_PORT;
    config.local_addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    config.authorised_peers = authorised_peers();
    change(number, &mut config);
    config
}

/// The router of the domain may be the peer of any flow, everybody else of their own.
pub fn authorised_peers() -> Vec<ApdEntry> {
    let entry = |name: &str, role| ApdEntry { pattern: IdentityPattern::DnsName(name.to_owned()), role, allow: true };
    vec![entry("router.pbs.test", PeerRole::Router), entry("*.pbs.test", PeerRole::Host)]
}

/// What a certificate of the domain says about its holder; each holder has a key of its own.
pub fn credentials(name: &str, addresses: &[&str]) -> PeerCredentials {
    let mut key_hash = [0; 32];
    key_hash.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
    PeerCredentials {
        dns_names: vec![format!("{name}.pbs.test")],
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        key_hash,
        valid_for: None,
        subject: name.to_owned(),
    }
}

pub fn identity(number: usize) -> PeerIdentity {
    PeerIdentity::new(vec![0xa0 + number as u8; 16]).unwrap()
}

pub fn message_in(transmit: &Transmit) -> Message {
    let (Transmit::Normal { payload, .. } | Transmit::QueryMode { payload, .. }) = transmit;
    datagram::decode(payload.clone()).unwrap()
}

pub(super) fn relay(message: &ReceivedMessage) -> SendMessage {
    SendMessage { mri: message.mri.clone(), hop_count: Some(message.hop_count), ..text_for(message.session, &message.payload) }
}

pub(super) fn same_link(own: IpAddr, other: IpAddr) -> bool {
    match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => own.octets()[..3] == other.octets()[..3],
        _ => false,
    }
}
