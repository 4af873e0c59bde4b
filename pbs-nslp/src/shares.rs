//! How much of a bounded table each peer takes up, and within its part each of those whose signatures its messages bear.

use std::collections::BTreeMap;

use gist::api::Principal;

/// A peer may hold this many times what is free. Alone it gets three quarters of a table, two greedy ones get three sevenths
/// each, and however many there are, somebody new still finds room.
pub(crate) const FREE_SHARE: usize = 3;

/// Who takes up an entry. One peer may be a router with many hosts behind it, which must not shut each other out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner {
    /// The peer that the entry came from, as its certificate proved it.
    pub(crate) peer: Principal,
    /// SHA-256 of the verified key that signed for the entry.
    pub(crate) signer: [u8; 32],
}

/// Entries counted by name. At most as many counts as entries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Counts<K> {
    of: BTreeMap<K, usize>,
    total: usize,
}

/// The entries of a table, counted by whom they came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Shares {
    peers: Counts<Principal>,
    owners: Counts<Owner>,
}

impl Shares {
    /// All entries.
    pub(crate) fn total(&self) -> usize {
        self.peers.total()
    }

    /// Whether a table of `limit` entries has room for another one of this owner.
    pub(crate) fn has_room(&self, owner: Owner, limit: usize) -> bool {
        let of_others = self.peers.total().saturating_sub(self.peers.of(&owner.peer));
        let part = limit.saturating_sub(of_others).saturating_mul(FREE_SHARE).div_ceil(FREE_SHARE + 1);
        self.fits(owner, part)
    }

    /// Whether there is room for another entry of this owner where its peer may have `part` entries.
    ///
    /// A signer gets as much of the part as is free: alone the half, two greedy ones a third each, and somebody new still
    /// finds room. A peer that signs for itself has nobody behind it to leave room for.
    pub(crate) fn fits(&self, owner: Owner, part: usize) -> bool {
        let free = part.saturating_sub(self.peers.of(&owner.peer));
        let own = self.owners.of(&owner);
        free > 0 && (own < free || own == 0 || owner.signer == owner.peer.0)
    }

    pub(crate) fn add(&mut self, owner: Owner) {
        self.peers.add(owner.peer);
        self.owners.add(owner);
    }

    pub(crate) fn remove(&mut self, owner: Owner) {
        if self.owners.remove(&owner) {
            self.peers.remove(&owner.peer);
        }
    }
}

impl<K: Ord> Counts<K> {
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn of(&self, name: &K) -> usize {
        self.of.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, name: K) {
        *self.of.entry(name).or_default() += 1;
        self.total = self.total.saturating_add(1);
    }

    /// Takes one entry away; false if there is none.
    pub(crate) fn remove(&mut self, name: &K) -> bool {
        let Some(count) = self.of.get_mut(name) else {
            return false;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.of.remove(name);
        }
        self.total = self.total.saturating_sub(1);
        true
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), total: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(peer: u8, signer: u8) -> Owner {
        Owner { peer: Principal([peer; 32]), signer: [signer; 32] }
    }

    fn fill(shares: &mut Shares, owner: Owner, limit: usize) -> usize {
        while shares.has_room(owner, limit) {
            shares.add(owner);
        }
        shares.owners.of(&owner)
    }

    #[test]
    fn whoever_fills_a_table_leaves_room_for_others() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, owner(1, 1), 100), 75);
        assert_eq!(fill(&mut shares, owner(2, 2), 100), 19);
        assert!(shares.has_room(owner(3, 3), 100));
        shares.remove(owner(1, 1));
        shares.remove(owner(9, 9));
        shares.remove(owner(1, 9));
        assert_eq!((shares.owners.of(&owner(1, 1)), shares.total()), (74, 93));
    }

    #[test]
    fn whoever_fills_the_part_of_a_peer_leaves_room_for_others_behind_it() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, owner(1, 11), 100), 38);
        assert_eq!(fill(&mut shares, owner(1, 12), 100), 19);
        for signer in 13..=30 {
            assert!(shares.has_room(owner(1, signer), 100), "{signer}");
            shares.add(owner(1, signer));
        }
        assert_eq!(shares.total(), 75);
        assert!(!shares.has_room(owner(1, 31), 100));
        assert!(shares.has_room(owner(2, 31), 100));
    }

    #[test]
    fn the_last_place_of_a_table_goes_to_somebody_new() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, owner(1, 11), 1), 1);
        assert!(!shares.has_room(owner(2, 12), 1));
        assert!(!shares.has_room(owner(2, 12), 0));
    }
}
