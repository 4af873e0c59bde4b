//! Places in the table of associations.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use super::Node;
use super::association::{Association, AssociationInput};
use super::machines::association::{State, Timer};
use crate::api::AssociationId;
use crate::time::Instant;

impl Node {
    /// Whether one more association fits. In a full table one that no flow uses gives way, of the peer that holds most, the
    /// one not heard of for longest; it ends as if its time without MA-Hello had passed.
    ///
    /// `newcomer` is the key of the peer that opens the new one, which must hold fewer than the other even afterwards; `None` is this node
    /// itself. `protected` is whether the new one is over TLS: what is not gives way first, and what is gives way to nothing less.
    pub(super) fn make_room(&mut self, newcomer: Option<&[u8; 32]>, protected: bool, now: Instant) -> bool {
        if self.associations.len() < self.config.caps.associations {
            return true;
        }
        let Some(id) = self.dispensable(newcomer, protected) else { return false };
        self.counters.idle_displaced += 1;
        self.association_event(id, Timer::NoHello.event(), AssociationInput::None, now);
        self.associations.len() < self.config.caps.associations
    }

    fn dispensable(&self, newcomer: Option<&[u8; 32]>, protected: bool) -> Option<AssociationId> {
        let mut held = BTreeMap::<&[u8; 32], usize>::new();
        for key in self.associations.iter().filter_map(|(_, association)| association.key_hash()) {
            *held.entry(key).or_default() += 1;
        }
        let of = |key: &[u8; 32]| held.get(key).copied().unwrap_or_default();
        let gives_way = |association: &Association| association.state == State::Idle && protected >= association.protected;
        let idle = self.associations.iter().filter(|(_, association)| gives_way(association));
        let (unprotected, count, Reverse((_, id))) = idle
            .filter_map(|(id, association)| {
                Some((!association.protected, of(association.key_hash()?), Reverse((association.last_heard, id))))
            })
            .max()?;
        newcomer.is_none_or(|newcomer| unprotected && protected || of(newcomer) + 1 < count).then_some(id)
    }
}
