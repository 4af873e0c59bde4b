//! How much of a bounded table each peer takes up.

use std::collections::BTreeMap;

use gist::api::Principal;

/// A peer may hold this many times what is free. Alone it gets three quarters of a table, two greedy ones get three sevenths
/// each, and however many there are, somebody new still finds room.
const FREE_SHARE: usize = 3;

/// The entries of a table, counted by the peer they came from. At most as many counts as entries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Shares {
    counts: BTreeMap<Principal, usize>,
    total: usize,
}

impl Shares {
    /// All entries.
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// Those of one peer.
    pub(crate) fn of(&self, peer: Principal) -> usize {
        self.counts.get(&peer).copied().unwrap_or(0)
    }

    /// Whether a table of `limit` entries has room for another one of this peer.
    pub(crate) fn has_room(&self, peer: Principal, limit: usize) -> bool {
        self.of(peer) < limit.saturating_sub(self.total).saturating_mul(FREE_SHARE)
    }

    pub(crate) fn add(&mut self, peer: Principal) {
        *self.counts.entry(peer).or_default() += 1;
        self.total = self.total.saturating_add(1);
    }

    pub(crate) fn remove(&mut self, peer: Principal) {
        if let Some(count) = self.counts.get_mut(&peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&peer);
            }
            self.total = self.total.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: u8) -> Principal {
        Principal([name; 32])
    }

    fn fill(shares: &mut Shares, name: u8, limit: usize) -> usize {
        while shares.has_room(peer(name), limit) {
            shares.add(peer(name));
        }
        shares.of(peer(name))
    }

    #[test]
    fn whoever_fills_a_table_leaves_room_for_others() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, 1, 100), 75);
        assert_eq!(fill(&mut shares, 2, 100), 19);
        assert!(shares.has_room(peer(3), 100));
        shares.remove(peer(1));
        shares.remove(peer(9));
        assert_eq!((shares.of(peer(1)), shares.total()), (74, 93));
    }

    #[test]
    fn the_last_place_of_a_table_goes_to_somebody_new() {
        let mut shares = Shares::default();
        assert_eq!(fill(&mut shares, 1, 1), 1);
        assert!(!shares.has_room(peer(2), 1));
        assert!(!shares.has_room(peer(2), 0));
    }
}
