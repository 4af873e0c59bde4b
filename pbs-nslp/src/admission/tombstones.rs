//! The last numbers of signers whose state is gone: what was accepted once stays refused (X-63, INV-05, TMP-10).

use std::collections::{BTreeMap, BTreeSet};

use gist::wire::PeerIdentity;

use crate::flow::FlowId;
use crate::wire::{MessageKind, number};

/// Whose numbers: one signer, one flow, one direction (P-048).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Signer {
    pub(crate) key_hash: [u8; 32],
    pub(crate) flow: FlowId,
    pub(crate) kind: MessageKind,
}

/// Numbers that were accepted, until the freshness window alone refuses them.
///
/// When the table is full the lowest number goes, one of the peer's own if the peer has used up its share, and the floor
/// rises to that number: what can no longer be remembered is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tombstones {
    limit: usize,
    share: usize,
    floor: Option<u32>,
    stones: BTreeMap<Signer, Stone>,
    by_number: BTreeSet<(u64, Signer)>,
    by_peer: BTreeMap<PeerIdentity, BTreeSet<(u64, Signer)>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stone {
    number: u32,
    /// The number as a time in Unix seconds, which orders numbers across the wrap.
    unix: u64,
    /// The second from which nothing is lost by forgetting it.
    ends_unix: u64,
    peer: PeerIdentity,
}

impl Tombstones {
    /// At most `limit` numbers, at most `share` of them from one peer, and no floor yet.
    pub(crate) fn new(limit: usize, share: usize) -> Self {
        let (stones, by_number, by_peer) = Default::default();
        Self { limit, share, floor: None, stones, by_number, by_peer }
    }

    /// Numbers up to this one are refused where there is no state.
    pub(crate) fn floor(&self) -> Option<u32> {
        self.floor
    }

    /// Raises the floor; never lowers it.
    pub(crate) fn raise_floor(&mut self, floor: u32) {
        if self.floor.is_none_or(|current| number::is_newer(floor, current)) {
            self.floor = Some(floor);
        }
    }

    /// The newest number known of a signer whose state is gone.
    pub(crate) fn last(&self, signer: &Signer) -> Option<u32> {
        self.stones.get(signer).map(|stone| stone.number)
    }

    /// Remembers an accepted number; an older one than is known changes nothing.
    pub(crate) fn bury(&mut self, signer: Signer, number: u32, peer: &PeerIdentity, now_unix: u64) {
        self.forget_ended(now_unix);
        if self.last(&signer).is_some_and(|last| !number::is_newer(number, last)) {
            return;
        }
        self.remove(&signer);
        self.make_room(peer, now_unix);
        if self.limit == 0 {
            self.raise_floor_to(number, now_unix);
            return;
        }
        let unix = number_as_unix(number, now_unix);
        // The window refuses the number from then on, and P-051 wants it kept for the window's length in any case.
        let ends_unix = unix.max(now_unix).saturating_add(u64::from(number::WINDOW_PAST) + 1);
        self.by_number.insert((unix, signer));
        self.by_peer.entry(peer.clone()).or_default().insert((unix, signer));
        self.stones.insert(signer, Stone { number, unix, ends_unix, peer: peer.clone() });
    }

    fn forget_ended(&mut self, now_unix: u64) {
        while let Some(&(_, signer)) = self.by_number.first()
            && self.stones.get(&signer).is_none_or(|stone| stone.ends_unix <= now_unix)
        {
            self.remove(&signer);
        }
    }

    fn make_room(&mut self, peer: &PeerIdentity, now_unix: u64) {
        let own = self.by_peer.get(peer).filter(|own| own.len() >= self.share.max(1)).and_then(BTreeSet::first);
        let oldest = self.by_number.first().filter(|_| self.stones.len() >= self.limit);
        let Some(&(_, signer)) = own.or(oldest) else {
            return;
        };
        if let Some(number) = self.remove(&signer) {
            self.raise_floor_to(number, now_unix);
        }
    }

    /// The floor never passes the clock, or honest new numbers would be refused.
    fn raise_floor_to(&mut self, number: u32, now_unix: u64) {
        let clock = number::at(now_unix);
        self.raise_floor(if number::is_newer(number, clock) { clock } else { number });
    }

    fn remove(&mut self, signer: &Signer) -> Option<u32> {
        let stone = self.stones.remove(signer)?;
        let placed = (stone.unix, *signer);
        self.by_number.remove(&placed);
        if let Some(own) = self.by_peer.get_mut(&stone.peer) {
            own.remove(&placed);
            if own.is_empty() {
                self.by_peer.remove(&stone.peer);
            }
        }
        Some(stone.number)
    }
}

/// The time that a number stands for, of all those it may stand for the one nearest to the clock.
fn number_as_unix(number: u32, now_unix: u64) -> u64 {
    let clock = number::at(now_unix);
    if number::is_newer(number, clock) {
        now_unix.saturating_add(u64::from(number.wrapping_sub(clock)))
    } else {
        now_unix.saturating_sub(u64::from(clock.wrapping_sub(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn signer(key: u8) -> Signer {
        let flow = FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, 1, 2).unwrap();
        Signer { key_hash: [key; 32], flow, kind: MessageKind::Query }
    }

    fn peer(name: u8) -> PeerIdentity {
        PeerIdentity::new(vec![name]).unwrap()
    }

    fn clock() -> u32 {
        number::at(NOW)
    }

    #[test]
    fn a_number_is_kept_until_the_window_refuses_it() {
        let mut stones = Tombstones::new(8, 8);
        stones.bury(signer(1), clock() + 20, &peer(1), NOW);
        stones.bury(signer(1), clock() + 10, &peer(1), NOW);
        assert_eq!(stones.last(&signer(1)), Some(clock() + 20), "an older number changes nothing");
        let last_second = NOW + 20 + 300;
        assert!(number::is_fresh(clock() + 20, last_second));
        stones.bury(signer(2), clock() + 320, &peer(1), last_second);
        assert_eq!(stones.last(&signer(1)), Some(clock() + 20));
        stones.bury(signer(3), clock() + 321, &peer(1), last_second + 1);
        assert!(!number::is_fresh(clock() + 20, last_second + 1));
        assert_eq!(stones.last(&signer(1)), None);
    }

    #[test]
    fn what_the_full_table_forgets_lies_below_the_floor() {
        let mut stones = Tombstones::new(2, 2);
        for (key, number) in [(1, clock() - 9), (2, clock() - 5), (3, clock() - 1)] {
            stones.bury(signer(key), number, &peer(key), NOW + u64::from(key));
        }
        assert_eq!(stones.stones.len(), 2);
        assert_eq!(stones.floor(), Some(clock() - 9));
    }

    #[test]
    fn the_floor_never_passes_the_clock() {
        let mut stones = Tombstones::new(1, 1);
        stones.bury(signer(1), clock() + 1000, &peer(1), NOW);
        stones.bury(signer(2), clock() + 2000, &peer(1), NOW);
        assert_eq!(stones.floor(), Some(clock()));
    }

    #[test]
    fn a_peer_beyond_its_share_displaces_its_own() {
        let mut stones = Tombstones::new(8, 2);
        stones.bury(signer(1), clock(), &peer(1), NOW);
        for key in 2..6 {
            stones.bury(signer(key), clock() + u32::from(key), &peer(2), NOW + u64::from(key));
        }
        assert_eq!(stones.last(&signer(1)), Some(clock()));
        assert_eq!(stones.stones.len(), 3);
        assert_eq!(stones.floor(), Some(clock() + 3));
    }
}
