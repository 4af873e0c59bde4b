//! Associations over TCP alone: who may have one, and what may travel there (RFC 5971 §5.7.1, §5.7.2).
//!
//! Nobody has authenticated the peer of such an association. It speaks for the address that it has connected from, or was connected to, and
//! for nothing else; the limits of one peer hold for that address. Only an application that offers TCP alone itself meets it.

use core::net::IpAddr;

use super::querying::Querying;
use super::routing_state::Route;
use super::{Node, PeerCredentials, Registration};
use crate::api::{AssociationId, SendMessage, Transport};
use crate::wire::NslpId;

impl Node {
    /// Whether the application takes peers that nobody has authenticated.
    pub(super) fn takes_unprotected(&self, nslp_id: NslpId) -> bool {
        self.registration(nslp_id).is_some_and(Registration::offers_plain_tcp)
    }

    /// Whether any does.
    pub(super) fn takes_any_unprotected(&self) -> bool {
        self.config.registrations.iter().any(Registration::offers_plain_tcp)
    }

    pub(super) fn is_protected(&self, association: AssociationId) -> bool {
        self.associations.get(association).is_some_and(|association| association.protected)
    }

    /// Whether the association may carry something of the application.
    pub(super) fn may_carry(&self, association: AssociationId, nslp_id: NslpId) -> bool {
        self.is_protected(association) || self.takes_unprotected(nslp_id)
    }

    /// Whether nothing less than an authenticated peer will do: a message of the flow has demanded it (G-225), or the state has one, which is
    /// not to be exchanged for less.
    pub(super) fn demands_protection(&self, machine: &Querying) -> bool {
        let association = machine.route.and_then(|route| route.association());
        machine.protected || association.is_some_and(|id| self.is_protected(id))
    }

    /// Whether the message demands more than the route gives (G-051).
    pub(super) fn asks_for_more(&self, message: &SendMessage, route: Route) -> bool {
        message.attributes.secure && !route.association().is_some_and(|id| self.is_protected(id))
    }

    /// What carries messages of this association; of a datagram, without one.
    pub(super) fn transport(&self, association: Option<AssociationId>) -> Transport {
        match association {
            None => Transport::Datagram,
            Some(id) if self.is_protected(id) => Transport::Tls,
            Some(_) => Transport::Tcp,
        }
    }

    /// What can be said of a peer over TCP alone: from which address it was reached, in place of a key.
    pub(super) fn unproved(&self, address: IpAddr) -> PeerCredentials {
        let octets = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        PeerCredentials { key_hash: self.backend.0.mac(ADDRESS, &octets), ..PeerCredentials::default() }
    }
}

/// Keeps the names made of addresses apart from hashes of keys and from those made of identities.
const ADDRESS: &[u8; 32] = b"gist: principal, by its address.";
