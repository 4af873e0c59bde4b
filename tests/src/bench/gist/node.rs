//! The node that is measured, and what it computes with.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gist::api::AssociationId;
use gist::node::{
    ApdEntry, AssociationEvent, Backend, Caps, DatagramRate, IdentityPattern, Node, NodeConfig, PeerCredentials, PeerRole, Registration,
    Role,
};
use gist::time::Instant;
use gist::wire::{NslpId, PeerIdentity, Profile};
use ring::hmac;

use super::flows::Neighbour;

/// The application.
pub(super) const NSLP: NslpId = NslpId(32704);

/// Where the node accepts associations over TLS.
pub(super) const PORT: u16 = 30270;
/// The same over TCP alone.
pub(super) const PLAIN_PORT: u16 = 30271;

/// What carries the application's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// Datagrams.
    Datagram,
    /// Associations over TCP alone.
    Tcp,
    /// Associations over TLS.
    Tls,
}

impl Carrier {
    pub(super) fn offer(self) -> Vec<Profile> {
        match self {
            Self::Datagram => Vec::new(),
            Self::Tcp => vec![Profile::tcp()],
            Self::Tls => vec![Profile::tls_over_tcp()],
        }
    }
}

/// The cryptography of a node on a real machine, and one address.
#[derive(Debug)]
struct BareBackend(IpAddr);

impl Backend for BareBackend {
    fn mac(&self, key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        mac(key, message)
    }

    fn egress_address(&self, _: IpAddr) -> Option<IpAddr> {
        Some(self.0)
    }
}

/// HMAC-SHA-256 as the shell's nodes compute it.
pub(super) fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut out = [0; 32];
    out.iter_mut().zip(tag.as_ref()).for_each(|(out, byte)| *out = *byte);
    out
}

/// A router at one address. Its tables hold what is measured, and its rate limit is set so high that the limit on each destination and
/// network, which no configuration changes, is the one that counts.
pub(super) fn config(address: IpAddr, carrier: Carrier, sessions: usize) -> NodeConfig {
    let identity = PeerIdentity::new(&b"the router under load"[..]).into_iter().next();
    let mut config = NodeConfig::new(identity.unwrap_or_else(|| unreachable!("21 bytes are an identity")), Role::Router);
    let offer = carrier.offer();
    config.registrations = vec![Registration { offer, upstream_queries: true, ..Registration::secure(NSLP, None) }];
    config.association_port = PORT;
    config.plain_association_port = PLAIN_PORT;
    config.local_addresses = vec![address];
    config.authorised_peers = vec![ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Router, allow: true }];
    config.caps = Caps { routing_states: sessions * 2 + 1024, queued_datagrams: 1 << 16, ..Caps::default() };
    config.datagram_rate = DatagramRate { per_second: u32::MAX, burst: u32::MAX, most_per_second: u32::MAX };
    // Nothing ends while it is measured.
    config.validity = Duration::from_secs(24 * 3600);
    config.inactivity = Duration::from_secs(24 * 3600);
    config
}

/// The node alone, without sockets.
pub(super) fn bare(address: IpAddr, carrier: Carrier, sessions: usize) -> Node {
    Node::new(config(address, carrier, sessions), Arc::new(BareBackend(address)), [7; 32])
}

/// Opens an association from a neighbour to the node.
pub(super) fn accept(node: &mut Node, neighbour: &Neighbour, now: Instant) -> AssociationId {
    let association = node.accept_id();
    let event = AssociationEvent::Accepted { peer_address: (neighbour.address, 40_000).into(), credentials: credentials(neighbour) };
    node.handle_association(association, event, now);
    association
}

/// What a neighbour's certificate says.
pub(super) fn credentials(neighbour: &Neighbour) -> PeerCredentials {
    PeerCredentials {
        dns_names: vec!["neighbour.pbs.test".to_owned()],
        addresses: vec![neighbour.address],
        key_hash: [9; 32],
        valid_for: None,
        subject: "neighbour".to_owned(),
    }
}
