//! Associations over TCP alone: who may have one, and what may travel there (RFC 5971 §5.7.1, §5.7.2).
//!
//! Nobody has authenticated the peer of such an association. It speaks for the address that it has connected from, or was connected to, and
//! for nothing else; the limits of one peer hold for that address, of IPv6 for its /64. Only an application that offers TCP alone itself
//! meets it.
//!
//! An application may offer both. Then who is authenticated goes before who is not, at either end of a routing state: the former takes a
//! flow over from the latter, and the latter neither takes it from the former nor waits to inherit it. What an unauthenticated peer can
//! have of a table is a part ([`Node::part`]) that leaves the rest to the others. What RFC 5971 §8.6 says remains: who can change a Response *and*
//! what goes over TCP alone can make two nodes use that, for messages that demand no more.

use core::net::{IpAddr, Ipv6Addr};

use super::association::Association;
use super::querying_state::Querying;
use super::responding::{AcceptedConfirm, Responding};
use super::routing_state::{Route, RoutingKey};
use super::{Node, PeerCredentials, Registration};
use crate::api::{AssociationId, SendMessage, Transport};
use crate::time::Instant;
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
        let association = machine.route().and_then(|route| route.association());
        machine.protected || association.is_some_and(|id| self.is_protected(id))
    }

    /// Whether the message demands more than the route gives (G-051).
    pub(super) fn asks_for_more(&self, message: &SendMessage, route: Route) -> bool {
        message.attributes.secure && !route.association().is_some_and(|id| self.is_protected(id))
    }

    /// Whether the message demands more than the peer that has been found gives, and the application offers it: then a peer has to be
    /// looked for that is authenticated, and what waits and follows goes to nobody else.
    pub(super) fn needs_better_peer(&self, key: &RoutingKey, message: &SendMessage) -> bool {
        let route = self.querying.get(key).and_then(|machine| machine.route());
        let offers_tls = self.registration(key.nslp_id).is_some_and(Registration::offers_tls);
        offers_tls && route.is_some_and(|route| self.asks_for_more(message, route))
    }

    /// Whether this association may become the way of the state's messages: over TCP alone it has to wait for whoever may still
    /// authenticate itself, and is nothing where that has happened or is demanded.
    pub(super) fn may_lead(&self, machine: &Querying, association: AssociationId, now: Instant) -> bool {
        self.is_protected(association) || !self.demands_protection(machine) && !self.awaits_protected(machine, now)
    }

    /// Whether one of those who answered has authenticated itself, or may still do so in time: whoever hears a Query can answer it, take a
    /// connection and never say a word of TLS, so that only the first 2·T1 of a handshake are waited for a connection.
    pub(super) fn awaits_protected(&self, machine: &Querying, now: Instant) -> bool {
        let in_time = now < machine.started + self.config.query_timer.saturating_mul(PATIENCE);
        let is_awaited = |association: &Association| association.protected && (in_time || association.is_open());
        machine.passing().candidates.iter().any(|candidate| self.associations.get(candidate.association).is_some_and(is_awaited))
    }

    /// Whether the state has a peer that nobody has authenticated: whoever may still authenticate itself then stays a candidate.
    pub(super) fn may_be_replaced(&self, machine: &Querying) -> bool {
        machine.route().and_then(|route| route.association()).is_some_and(|id| !self.is_protected(id))
    }

    /// Whether the Confirm's peer is authenticated and the state's is not, so that it is nobody's to hold.
    pub(super) fn goes_before(&self, machine: &Responding, accepted: &AcceptedConfirm) -> bool {
        self.is_better(accepted.route, machine.hop.route())
    }

    /// Whether the state has an authenticated peer, whom nobody unauthenticated takes it from or inherits it from.
    pub(super) fn is_kept_from(&self, key: &RoutingKey, route: Route) -> bool {
        self.responding.get(key).is_some_and(|machine| self.is_better(machine.hop.route(), route))
    }

    fn is_better(&self, one: Route, other: Route) -> bool {
        let protects = |route: Route| route.association().is_some_and(|id| self.is_protected(id));
        protects(one) && !protects(other)
    }

    /// What unauthenticated peers may have of a table of `cap` entries, all together: where others may come as well, a quarter.
    pub(super) fn part(&self, cap: usize) -> usize {
        if self.config.registrations.iter().any(Registration::offers_tls) { cap / 4 } else { cap }
    }

    /// Whether the association's peer may have one more routing state, by what all peers like it have.
    pub(super) fn has_part_of_states(&self, id: AssociationId) -> bool {
        let unprotected = || self.associations.iter().filter(|(_, association)| !association.protected);
        let held = || unprotected().map(|(_, association)| association.responding.len()).sum::<usize>();
        self.is_protected(id) || held() < self.part(self.config.caps.routing_states)
    }

    /// The same for one more association.
    pub(super) fn has_part_of_associations(&self, protected: bool) -> bool {
        let held = || self.associations.iter().filter(|(_, association)| !association.protected).count();
        protected || held() < self.part(self.config.caps.associations)
    }

    /// What carries messages of this association; of a datagram, without one.
    pub(super) fn transport(&self, association: Option<AssociationId>) -> Transport {
        match association {
            None => Transport::Datagram,
            Some(id) if self.is_protected(id) => Transport::Tls,
            Some(_) => Transport::Tcp,
        }
    }

    /// What can be said of a peer over TCP alone: from which address it was reached, in place of a key. Whoever has one address of an
    /// IPv6 /64 has all of them.
    pub(super) fn unproved(&self, address: IpAddr) -> PeerCredentials {
        let octets = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).octets(),
        };
        PeerCredentials { key_hash: self.backend.0.mac(ADDRESS, &octets), ..PeerCredentials::default() }
    }
}

/// How long a connection over TLS is waited for by who answers over TCP alone, as a multiple of T1.
const PATIENCE: u32 = 2;

/// The bits of an IPv6 address that its network has given.
const NETWORK: u128 = !0 << 64;

/// Keeps the names made of addresses apart from hashes of keys and from those made of identities.
const ADDRESS: &[u8; 32] = b"gist: principal, by its address.";
