//! What an authenticated peer may speak for: names, flows, and its share of the tables (RFC 5971 §4.4.2, G-092).
//!
//! A certificate of the domain says who a peer is and nothing about whose sessions it may serve. A host may be the next
//! node only of its own flows, a router of any ([`PeerRole`]); either only under one name, at addresses it proves.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::association::Association;
use super::authorised_peers::judge;
use super::receive_query::query_destination;
use super::{Node, PeerRole};
use crate::api::{AssociationId, Principal};
use crate::wire::Mri;

/// One part in so many of a table is what one host gets of it, in associations and in routing states.
const HOST_PART: usize = 8;

/// What one host gets of a table in any case, so that a small table does not leave it with nothing.
const LEAST_SHARE: usize = 4;

/// What one peer of any role may take of a table of `cap` entries: an eighth, but at least 4.
///
/// Associations are counted so for routers too: a neighbour needs one for each of its addresses, not hundreds.
pub(super) fn share(cap: usize) -> usize {
    (cap / HOST_PART).max(LEAST_SHARE).min(cap)
}

/// What one router may take of the routing states. Between two routers all sessions of the network may have the same
/// peer, so that an eighth would do harm; a quarter stays for everybody else.
fn router_share(cap: usize) -> usize {
    cap - cap / 4
}

impl Node {
    /// What the association's peer is to this node; `None` if there is no association or the peer is not authorised.
    fn role_of(&self, id: AssociationId) -> Option<PeerRole> {
        let association = self.associations.get(id).filter(|association| association.protected)?;
        judge(&self.config.authorised_peers, association.credentials.as_ref()?, association.remote.ip())
    }

    /// Whether the association's peer may be the next node for messages that go the way of `towards`.
    ///
    /// Where nobody is authenticated it may, like whoever answers by datagram: [`Node::may_carry`] says for which applications.
    pub(super) fn may_serve(&self, id: AssociationId, towards: &Mri) -> bool {
        if self.associations.get(id).is_some_and(|association| !association.protected) {
            return true;
        }
        match self.role_of(id) {
            Some(PeerRole::Router) => true,
            Some(PeerRole::Host) => self.is_end_of(id, towards),
            None => false,
        }
    }

    /// Whether the association's peer is itself, by its certificate, where the messages go: a single address, no network.
    pub(super) fn is_end_of(&self, id: AssociationId, towards: &Mri) -> bool {
        let end = query_destination(towards);
        let credentials = self.associations.get(id).and_then(|association| association.credentials.as_ref());
        is_single(towards, end) && credentials.is_some_and(|credentials| credentials.addresses.contains(&end))
    }

    /// Whether both associations have the same peer by its key; over TCP alone, by its address: limits hold for a whole network, but
    /// nobody takes over what another address of it has.
    pub(super) fn have_same_principal(&self, one: AssociationId, other: AssociationId) -> bool {
        let key = |id| self.associations.get(id).and_then(Association::key_hash);
        let address =
            |id| self.associations.get(id).filter(|association| !association.protected).map(|association| association.remote.ip());
        key(one).is_some() && key(one) == key(other) && address(one) == address(other)
    }

    /// Whether the association's peer may have one more routing state here.
    pub(super) fn has_share_of_states(&self, id: AssociationId) -> bool {
        if !self.has_part_of_states(id) {
            return false;
        }
        let cap = self.config.caps.routing_states;
        let share = if self.role_of(id) == Some(PeerRole::Router) { router_share(cap) } else { share(cap) };
        let Some(key) = self.associations.get(id).and_then(Association::key_hash) else { return false };
        let of_peer = self.associations.iter().filter(|(_, association)| association.key_hash() == Some(key));
        of_peer.map(|(_, association)| association.responding.len()).sum::<usize>() < share
    }
}

impl Node {
    /// Whether one more state may be asked for because of this principal's messages: as many as it may have for itself.
    pub(super) fn has_share_to_cause(&self, cause: Option<Principal>) -> bool {
        let Some(cause) = cause else { return true };
        let cap = self.config.caps.routing_states;
        let by_key = |association: &Association| association.key_hash() == Some(&cause.0);
        let of_cause = self.associations.iter().find(|(_, association)| by_key(association));
        let is_router = of_cause.and_then(|(id, _)| self.role_of(id)) == Some(PeerRole::Router);
        let share = if is_router { router_share(cap) } else { share(cap) };
        self.causes.get(&cause).is_none_or(|states| *states < share) && self.has_part_to_cause(&cause)
    }

    /// The same by what all causes have together that nobody has authenticated.
    fn has_part_to_cause(&self, cause: &Principal) -> bool {
        let (cap, protected) = (self.config.caps.routing_states, self.associations.iter().filter(|(_, association)| association.protected));
        let proved: BTreeSet<_> = protected.filter_map(|(_, association)| association.key_hash()).collect();
        let unproved = || self.causes.iter().filter(|(cause, _)| !proved.contains(&cause.0));
        self.part(cap) == cap || proved.contains(&cause.0) || unproved().map(|(_, states)| states).sum::<usize>() < self.part(cap)
    }

    /// One more state because of this principal, whose name all of them share.
    pub(super) fn note_cause(&mut self, cause: Option<Principal>) -> Option<Arc<Principal>> {
        let cause = cause?;
        let known = self.causes.get_key_value(&cause).map(|(known, _)| known.clone());
        let shared = known.unwrap_or_else(|| Arc::new(cause));
        *self.causes.entry(shared.clone()).or_default() += 1;
        Some(shared)
    }

    pub(super) fn forget_cause(&mut self, cause: Option<&Principal>) {
        let Some((cause, states)) = cause.and_then(|cause| Some((cause, self.causes.get_mut(cause)?))) else { return };
        *states -= 1;
        if *states == 0 {
            self.causes.remove(cause);
        }
    }
}

/// Whether the end of the flow that is meant is one address.
fn is_single(towards: &Mri, end: IpAddr) -> bool {
    let whole = if end.is_ipv4() { 32 } else { 128 };
    match towards {
        Mri::PathCoupled(mri) if end == mri.source && mri.source != mri.destination => mri.source_prefix == whole,
        Mri::PathCoupled(mri) => mri.destination_prefix == whole && (mri.source != mri.destination || mri.source_prefix == whole),
        Mri::LooseEnd(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_an_eighth_and_never_nothing() {
        assert_eq!([4096, 64, 16, 3, 0].map(share), [512, 8, 4, 3, 0]);
        assert_eq!([65_536, 4, 1].map(router_share), [49_152, 3, 1]);
    }
}
