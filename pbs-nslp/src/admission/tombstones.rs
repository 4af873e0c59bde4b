//! The last numbers of signers whose state is gone: what was accepted once stays refused (X-63, INV-05, TMP-10).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use gist::api::Principal;
use gist::time::Instant;

use super::floors::Floors;
use crate::flow::FlowId;
use crate::shares::{Counts, Owner};
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
/// When the table is full, or the peer has used up its share, a number of that peer goes which has most of them, among its
/// numbers one of that signer which has most, and of these the lowest. The floor of the signer rises to that number: what can
/// no longer be remembered of a signer is refused as a whole, and nobody else's messages are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tombstones {
    limit: usize,
    share: usize,
    floors: Floors,
    stones: BTreeMap<Signer, Stone>,
    /// The numbers of those who have them.
    by_owner: BTreeMap<Owner, BTreeSet<(u64, Signer)>>,
    peers: Counts<Principal>,
    owners: Counts<Owner>,
    /// Peers by how many numbers they have.
    peers_by_count: BTreeSet<(usize, Principal)>,
    /// Of each peer its signers by how many numbers they have.
    signers_by_count: BTreeSet<(Principal, usize, [u8; 32])>,
    by_end: BTreeSet<(Instant, Signer)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stone {
    number: u32,
    /// The number as a time in Unix seconds, which orders numbers across the wrap.
    unix: u64,
    /// From when on nothing is lost by forgetting it, unless the clock was put back meanwhile.
    ends_at: Instant,
    peer: Principal,
}

/// Both clocks: a step of the wall clock must not end what is remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) unix: u64,
    pub(crate) instant: Instant,
}

impl Tombstones {
    /// At most `limit` numbers, at most `share` of them from one peer, at most `floors` floors of single signers, and none yet.
    pub(crate) fn new(limit: usize, share: usize, floors: usize) -> Self {
        Self {
            limit,
            share,
            floors: Floors::new(floors),
            stones: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            peers: Counts::default(),
            owners: Counts::default(),
            peers_by_count: BTreeSet::new(),
            signers_by_count: BTreeSet::new(),
            by_end: BTreeSet::new(),
        }
    }

    /// Numbers up to this one are refused where there is no state: of everybody.
    pub(crate) fn floor(&self) -> Option<u32> {
        self.floors.common()
    }

    /// Numbers up to this one are refused where there is no state: of one signer, whatever the flow.
    pub(crate) fn floor_of(&self, key_hash: &[u8; 32]) -> Option<u32> {
        self.floors.of(key_hash)
    }

    /// Raises everybody's floor; never lowers it.
    pub(crate) fn raise_floor(&mut self, floor: u32) {
        self.floors.raise_common(floor);
    }

    /// The newest number known of a signer whose state is gone.
    pub(crate) fn last(&self, signer: &Signer) -> Option<u32> {
        self.stones.get(signer).map(|stone| stone.number)
    }

    /// Remembers an accepted number; an older one than is known changes nothing.
    pub(crate) fn bury(&mut self, signer: Signer, number: u32, peer: Principal, now: Now) {
        self.forget_ended(now);
        if self.last(&signer).is_some_and(|last| !number::is_newer(number, last)) {
            return;
        }
        self.remove(&signer);
        self.make_room(peer, now.unix);
        if self.limit == 0 {
            self.floors.raise(signer.key_hash, number, now.unix);
            return;
        }
        let unix = number::as_unix(number, now.unix);
        // The window refuses the number from then on, and P-051 wants it kept for the window's length in any case.
        let ends_at = now.instant + Duration::from_secs(unix.saturating_sub(now.unix).saturating_add(KEPT));
        let owner = Owner { peer, signer: signer.key_hash };
        self.by_owner.entry(owner).or_default().insert((unix, signer));
        self.recount(owner, |peers, owners| {
            peers.add(owner.peer);
            owners.add(owner);
        });
        self.by_end.insert((ends_at, signer));
        self.stones.insert(signer, Stone { number, unix, ends_at, peer });
    }

    /// Forgets what the monotonic clock has ended and the window refuses by the wall clock too.
    fn forget_ended(&mut self, now: Now) {
        while let Some(&(ends_at, signer)) = self.by_end.first()
            && ends_at <= now.instant
        {
            let Some(stone) = self.stones.get_mut(&signer) else {
                self.by_end.pop_first();
                continue;
            };
            let refused_from = stone.unix.saturating_add(KEPT);
            if refused_from <= now.unix {
                self.remove(&signer);
            } else {
                stone.ends_at = now.instant + Duration::from_secs(refused_from - now.unix);
                self.by_end.pop_first();
                self.by_end.insert((stone.ends_at, signer));
            }
        }
    }

    fn make_room(&mut self, peer: Principal, now_unix: u64) {
        let own = Some(peer).filter(|peer| self.peers.of(peer) >= self.share.max(1));
        let heaviest = self.peers_by_count.last().map(|(_, peer)| *peer).filter(|_| self.stones.len() >= self.limit);
        let Some(signer) = own.or(heaviest).and_then(|peer| self.least_missed(peer)) else {
            return;
        };
        if let Some(number) = self.remove(&signer) {
            self.floors.raise(signer.key_hash, number, now_unix);
        }
    }

    /// The lowest number of that signer which has most of a peer's numbers.
    fn least_missed(&self, peer: Principal) -> Option<Signer> {
        let of_peer = (peer, 0, [0; 32])..=(peer, usize::MAX, [u8::MAX; 32]);
        let (_, _, signer) = *self.signers_by_count.range(of_peer).next_back()?;
        let (_, lowest) = self.by_owner.get(&Owner { peer, signer })?.first()?;
        Some(*lowest)
    }

    fn remove(&mut self, signer: &Signer) -> Option<u32> {
        let stone = self.stones.remove(signer)?;
        let owner = Owner { peer: stone.peer, signer: signer.key_hash };
        if let Some(own) = self.by_owner.get_mut(&owner) {
            own.remove(&(stone.unix, *signer));
            if own.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
        self.by_end.remove(&(stone.ends_at, *signer));
        self.recount(owner, |peers, owners| {
            peers.remove(&owner.peer);
            owners.remove(&owner);
        });
        Some(stone.number)
    }

    /// Keeps the orders by count while counts change.
    fn recount(&mut self, owner: Owner, change: impl FnOnce(&mut Counts<Principal>, &mut Counts<Owner>)) {
        self.peers_by_count.remove(&(self.peers.of(&owner.peer), owner.peer));
        self.signers_by_count.remove(&(owner.peer, self.owners.of(&owner), owner.signer));
        change(&mut self.peers, &mut self.owners);
        let (of_peer, own) = (self.peers.of(&owner.peer), self.owners.of(&owner));
        if of_peer > 0 {
            self.peers_by_count.insert((of_peer, owner.peer));
        }
        if own > 0 {
            self.signers_by_count.insert((owner.peer, own, owner.signer));
        }
    }
}

/// A number is out of the window from so many seconds after its own time on.
const KEPT: u64 = number::WINDOW_PAST as u64 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn signer(key: u8) -> Signer {
        let flow = FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, 1, 2).unwrap();
        Signer { key_hash: [key; 32], flow, kind: MessageKind::Query }
    }

    fn peer(name: u8) -> Principal {
        Principal([name; 32])
    }

    fn clock() -> u32 {
        number::at(NOW)
    }

    /// Both clocks going on together.
    fn after(seconds: u64) -> Now {
        Now { unix: NOW + seconds, instant: Instant::ZERO + Duration::from_secs(seconds) }
    }

    #[test]
    fn a_number_is_kept_until_the_window_refuses_it() {
        let mut stones = Tombstones::new(8, 8, 8);
        stones.bury(signer(1), clock() + 20, peer(1), after(0));
        stones.bury(signer(1), clock() + 10, peer(1), after(0));
        assert_eq!(stones.last(&signer(1)), Some(clock() + 20), "an older number changes nothing");
        assert!(number::is_fresh(clock() + 20, NOW + 320));
        stones.bury(signer(2), clock() + 320, peer(1), after(320));
        assert_eq!(stones.last(&signer(1)), Some(clock() + 20));
        stones.bury(signer(3), clock() + 321, peer(1), after(321));
        assert!(!number::is_fresh(clock() + 20, NOW + 321));
        assert_eq!(stones.last(&signer(1)), None);
    }

    #[test]
    fn no_step_of_the_wall_clock_ends_a_number_early() {
        // TMP-10: forwards, and backwards so that the number comes into the window again.
        let mut stones = Tombstones::new(8, 8, 8);
        stones.bury(signer(1), clock(), peer(1), after(0));
        stones.bury(signer(2), clock() + 3600, peer(1), Now { unix: NOW + 3600, ..after(10) });
        assert_eq!(stones.last(&signer(1)), Some(clock()));
        for late in [400, 600] {
            stones.bury(signer(3), clock() + late, peer(1), Now { unix: NOW + 300, ..after(late.into()) });
            assert_eq!(stones.last(&signer(1)), Some(clock()), "the window does not refuse it yet");
        }
        stones.bury(signer(4), clock() + 601, peer(1), after(601));
        assert_eq!(stones.last(&signer(1)), None);
        assert_eq!(stones.last(&signer(2)), Some(clock() + 3600));
    }

    #[test]
    fn what_the_full_table_forgets_lies_below_the_floor_of_its_signer() {
        let mut stones = Tombstones::new(2, 2, 8);
        for (signer, number) in [(flow_of(1, 1), clock() - 9), (flow_of(1, 2), clock() - 5), (signer(2), clock() - 1)] {
            stones.bury(signer, number, peer(signer.key_hash[0]), after(1));
        }
        assert_eq!(stones.stones.len(), 2);
        assert_eq!((stones.floor(), stones.floor_of(&[1; 32]), stones.floor_of(&[2; 32])), (None, Some(clock() - 9), None));
    }

    #[test]
    fn a_table_without_room_still_forgets_nothing() {
        let mut stones = Tombstones::new(0, 0, 0);
        stones.bury(signer(1), clock(), peer(1), after(0));
        assert_eq!(stones.floor(), Some(clock()));
    }

    #[test]
    fn a_peer_beyond_its_share_displaces_its_own() {
        let mut stones = Tombstones::new(8, 2, 8);
        stones.bury(signer(1), clock(), peer(1), after(0));
        for key in 2..6 {
            stones.bury(signer(key), clock() + u32::from(key), peer(2), after(key.into()));
        }
        assert_eq!(stones.last(&signer(1)), Some(clock()));
        assert_eq!(stones.stones.len(), 3);
        assert_eq!(stones.by_end.len(), 3);
        assert_eq!((stones.floor(), stones.floor_of(&[3; 32]), stones.floor_of(&[1; 32])), (None, Some(clock() + 3), None));
    }

    /// A number of one key for another flow each time.
    fn flow_of(key: u8, port: u16) -> Signer {
        let flow = FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, port, 2).unwrap();
        Signer { flow, ..signer(key) }
    }

    #[test]
    fn peers_that_fill_the_table_displace_only_their_own() {
        // Numbers as far ahead as are accepted do not make the others' the lowest.
        let mut stones = Tombstones::new(64, 16, 8);
        stones.bury(signer(9), clock(), peer(9), after(0));
        for greedy in 1..=4 {
            for port in 1..=100 {
                stones.bury(flow_of(greedy, port), clock() + 300, peer(greedy), after(1));
            }
        }
        assert_eq!(stones.last(&signer(9)), Some(clock()));
        stones.bury(signer(8), clock() + 1, peer(8), after(1));
        assert_eq!((stones.last(&signer(8)), stones.last(&signer(9))), (Some(clock() + 1), Some(clock())));
        assert_eq!((stones.stones.len(), stones.floor(), stones.floor_of(&[9; 32])), (64, None, None));
    }

    #[test]
    fn a_signer_that_uses_up_the_share_of_its_peer_displaces_only_its_own() {
        let mut stones = Tombstones::new(64, 16, 8);
        stones.bury(signer(9), clock(), peer(1), after(0));
        for port in 1..=100 {
            stones.bury(flow_of(1, port), clock() + 300, peer(1), after(1));
        }
        stones.bury(signer(8), clock() + 1, peer(1), after(1));
        assert_eq!((stones.last(&signer(8)), stones.last(&signer(9))), (Some(clock() + 1), Some(clock())));
        assert_eq!((stones.stones.len(), stones.peers.of(&peer(1))), (16, 16));
        assert_eq!((stones.peers_by_count.len(), stones.signers_by_count.len(), stones.by_owner.len()), (1, 3, 3));
        stones.bury(signer(7), clock() + 1000, peer(7), after(1000));
        assert_eq!((stones.stones.len(), stones.by_end.len(), stones.by_owner.len()), (1, 1, 1));
        assert_eq!((stones.peers_by_count.len(), stones.signers_by_count.len()), (1, 1));
    }
}
