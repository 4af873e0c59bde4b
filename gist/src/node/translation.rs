//! Flows that a GIST-aware NAT has translated (RFC 5971 §7.2.2, §7.2.3), seen from the responding node.
//!
//! Behind the NAT the querying node knows the flow by another MRI than this node does. The Query brings both; every later message has the querying
//! node's, which is translated here where it comes in, and where messages go out. A Responder-Cookie carries what the Confirm cannot say.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::Node;
use super::routing_state::RoutingKey;
use crate::wire::{Mri, NatTraversal, NslpId, Query, SessionId};

/// What a NAT has made of a Query's flow and sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Translation {
    /// The flow as this node sees it, in the direction of the Query.
    pub(super) local: Mri,
    /// The querying node's address as this node sees it.
    pub(super) address: IpAddr,
}

impl Translation {
    /// That of a Query.
    pub(super) fn of(query: &Query) -> Option<Self> {
        query.nat.as_ref().map(|_| Self { local: query.mri.clone(), address: query.nli.address })
    }
}

/// The flow by the name that the querying node has for it.
pub(super) fn original<'a>(nat: Option<&'a NatTraversal>, mri: &'a Mri) -> &'a Mri {
    nat.map_or(mri, |nat| &nat.original)
}

/// The translations of routing states that there are: as many as states at most.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Translations {
    /// By the querying node's name for it, this node's.
    local: BTreeMap<RoutingKey, RoutingKey>,
    /// By this node's name, the querying node's flow.
    original: BTreeMap<RoutingKey, Mri>,
}

impl Translations {
    /// The state has this original flow, or none but its own.
    pub(super) fn note(&mut self, key: &RoutingKey, original: Option<Mri>) {
        self.forget(key);
        let Some(original) = original else { return };
        self.local.insert(RoutingKey::along(key.nslp_id, key.session, &original), key.clone());
        self.original.insert(key.clone(), original);
    }

    pub(super) fn forget(&mut self, key: &RoutingKey) {
        if let Some(mri) = self.original.remove(key) {
            self.local.remove(&RoutingKey::along(key.nslp_id, key.session, &mri));
        }
    }
}

impl Node {
    /// A message's flow as this node's tables know it, in the same direction.
    pub(super) fn local_form(&self, nslp_id: NslpId, session: SessionId, mri: &Mri) -> Mri {
        if self.translations.local.is_empty() {
            return mri.clone();
        }
        let known = |key: RoutingKey| self.translations.local.get(&key).map(|local| local.mri().with_direction(mri.direction()));
        let translated = known(RoutingKey::along(nslp_id, session, mri)).or_else(|| known(RoutingKey::against(nslp_id, session, mri)));
        translated.unwrap_or_else(|| mri.clone())
    }

    /// The flow of a message upstream as the querying node knows it (G-325).
    pub(super) fn peer_form(&self, nslp_id: NslpId, session: SessionId, mri: &Mri) -> Mri {
        if self.translations.original.is_empty() {
            return mri.clone();
        }
        let original = self.translations.original.get(&RoutingKey::against(nslp_id, session, mri));
        original.map_or_else(|| mri.clone(), |original| original.with_direction(mri.direction()))
    }
}
