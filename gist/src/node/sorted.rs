//! Ordered tables that waste little memory: there may be a million routing states, each in four of them.
//!
//! The standard library's have places for eleven entries in each node, seven of which are taken. Here a leaf has up to [`MOST`] entries and
//! few places besides. As there, what a look-up costs does not depend on who chooses the keys. A leaf that becomes two moves the heads of
//! those behind it, 32 octets each, of which a million entries have some 11,000.

use core::hash::{Hash, Hasher};

/// Most entries of a leaf; with one more it becomes two.
const MOST: usize = 128;

/// A leaf with fewer entries becomes part of the next one if that has room.
const FEWEST: usize = MOST / 4;

/// Places that a full leaf gets at a time; twice as many may be vacant.
const SPARE: usize = 8;

/// A key of a sorted table.
pub(super) trait Key: Ord {
    /// A number that is no greater for a lesser key. Most keys are told apart by it, without a look at memory elsewhere.
    fn rank(&self) -> u64;
}

/// A map in the order of its keys.
#[derive(Debug, Clone)]
pub(super) struct SortedMap<K, V> {
    /// Each in order, and all. None is empty but the only one, so that what is taken out and put back needs no new memory.
    leaves: Vec<Leaf<K, V>>,
    length: usize,
}

#[derive(Debug, Clone)]
struct Leaf<K, V> {
    /// The rank of the last key.
    rank: u64,
    entries: Vec<(K, V)>,
}

impl<K: Key, V> From<Vec<(K, V)>> for Leaf<K, V> {
    fn from(entries: Vec<(K, V)>) -> Self {
        let mut leaf = Self { rank: 0, entries };
        leaf.note_last();
        leaf
    }
}

impl<K: Key, V> Leaf<K, V> {
    /// The last key is another one.
    fn note_last(&mut self) {
        self.rank = self.entries.last().map_or(0, |(key, _)| key.rank());
    }

    fn is_before(&self, key: &K, rank: u64) -> bool {
        self.rank < rank || self.rank == rank && self.entries.last().is_some_and(|(last, _)| last < key)
    }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy)]
struct Place {
    leaf: usize,
    entry: usize,
}

impl<K: Key, V> SortedMap<K, V> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    pub(super) fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let Place { leaf, entry } = self.find(key).ok()?;
        self.leaves.get(leaf)?.entries.get(entry).map(|(key, value)| (key, value))
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let Place { leaf, entry } = self.find(key).ok()?;
        self.leaves.get_mut(leaf)?.entries.get_mut(entry).map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// Puts an entry in, in place of the one with that key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(Place { leaf, entry }) => {
                if let Some((_, known)) = self.leaves.get_mut(leaf).and_then(|leaf| leaf.entries.get_mut(entry)) {
                    *known = value;
                }
            }
            Err(place) => self.insert_at(place, (key, value)),
        }
    }

    fn insert_at(&mut self, place: Place, entry: (K, V)) {
        if self.leaves.is_empty() {
            self.leaves.push(Vec::new().into());
        }
        let Some(leaf) = self.leaves.get_mut(place.leaf) else { return };
        let entries = &mut leaf.entries;
        if entries.len() == entries.capacity() {
            entries.reserve_exact(SPARE);
        }
        entries.insert(place.entry, entry);
        self.length += 1;
        let upper = (entries.len() > MOST).then(|| entries.split_off(MOST / 2));
        if upper.is_some() {
            entries.shrink_to_fit();
        }
        if upper.is_some() || place.entry + 1 == entries.len() {
            leaf.note_last();
        }
        if let Some(upper) = upper {
            self.leaves.insert(place.leaf + 1, upper.into());
        }
    }

    /// Takes an entry out, with the key that it was put in with.
    pub(super) fn remove_entry(&mut self, key: &K) -> Option<(K, V)> {
        self.find(key).ok().and_then(|place| self.take(place))
    }

    fn take(&mut self, place: Place) -> Option<(K, V)> {
        let leaf = self.leaves.get_mut(place.leaf)?;
        let entries = &mut leaf.entries;
        let left = entries.len().checked_sub(1).filter(|left| place.entry <= *left)?;
        let taken = entries.remove(place.entry);
        self.length -= 1;
        if entries.capacity() > left + 2 * SPARE {
            entries.shrink_to(left + SPARE);
        }
        if place.entry == left {
            leaf.note_last();
        }
        if left < FEWEST {
            self.join(place.leaf, left);
        }
        Some(taken)
    }

    /// What a leaf has left becomes part of the next one, or of the one before the last.
    fn join(&mut self, at: usize, left: usize) {
        let last = self.leaves.len().saturating_sub(1);
        let lower = at.min(last.saturating_sub(1));
        let fits =
            self.leaves.get(lower..=lower + 1).is_some_and(|pair| pair.iter().map(|leaf| leaf.entries.len()).sum::<usize>() <= MOST / 2);
        if last > 0 && (left == 0 || fits) {
            let mut upper = self.leaves.remove(lower + 1);
            if let Some(lower) = self.leaves.get_mut(lower) {
                lower.entries.reserve_exact(upper.entries.len());
                lower.entries.append(&mut upper.entries);
                lower.note_last();
            }
        }
    }

    /// The first entry.
    pub(super) fn first(&self) -> Option<(&K, &V)> {
        self.iter().next()
    }

    /// Takes the first entry out.
    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        self.take(Place { leaf: 0, entry: 0 })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        entries(&self.leaves).map(|(key, value)| (key, value))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Where the key is, or where it would be.
    fn find(&self, key: &K) -> Result<Place, Place> {
        let rank = key.rank();
        let at = self.leaves.partition_point(|leaf| leaf.is_before(key, rank));
        match self.leaves.get(at) {
            Some(leaf) => match leaf.entries.binary_search_by(|(known, _)| known.cmp(key)) {
                Ok(entry) => Ok(Place { leaf: at, entry }),
                Err(entry) => Err(Place { leaf: at, entry }),
            },
            // Behind all others.
            None => Err(Place { leaf: at.saturating_sub(1), entry: self.leaves.last().map_or(0, |leaf| leaf.entries.len()) }),
        }
    }
}

fn entries<K, V>(leaves: &[Leaf<K, V>]) -> impl Iterator<Item = &(K, V)> {
    leaves.iter().flat_map(|leaf| &leaf.entries)
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self { leaves: Vec::new(), length: 0 }
    }
}

/// What is in it counts, not in which leaves.
impl<K: PartialEq, V: PartialEq> PartialEq for SortedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.length == other.length && entries(&self.leaves).eq(entries(&other.leaves))
    }
}

impl<K: Eq, V: Eq> Eq for SortedMap<K, V> {}

impl<K: Hash, V: Hash> Hash for SortedMap<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_usize(self.length);
        entries(&self.leaves).for_each(|entry| entry.hash(state));
    }
}

/// A set in its order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SortedSet<T>(SortedMap<T, ()>);

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self(SortedMap::default())
    }
}

impl<T: Key> SortedSet<T> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn insert(&mut self, element: T) {
        self.0.insert(element, ());
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, element: &T) -> bool {
        self.0.remove_entry(element).is_some()
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.0.first().map(|(element, ())| element)
    }

    pub(super) fn pop_first(&mut self) -> Option<T> {
        self.0.pop_first().map(|(element, ())| element)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.keys()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Ranks that many keys share.
    impl Key for u64 {
        fn rank(&self) -> u64 {
            self / 50
        }
    }

    /// The same from run to run.
    fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |sides| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) % sides
        }
    }

    /// Grows and shrinks by turns, over keys that are dense, sparse, and rising.
    #[test]
    fn a_sorted_map_does_what_the_standard_one_does() {
        for (seed, keys) in [(1, 40), (2, 3000), (3, 1 << 40)] {
            let mut dice = dice(seed);
            let (mut map, mut model) = (SortedMap::default(), BTreeMap::new());
            for turn in 0..20_000_u64 {
                let grows = turn / 4000 % 2 == 0;
                let key = dice(keys);
                match (dice(10), grows) {
                    (0..7, true) | (0..2, false) => {
                        map.insert(key, turn);
                        model.insert(key, turn);
                    }
                    (7, _) => assert_eq!(map.pop_first(), model.pop_first()),
                    (8, _) => {
                        map.insert(turn, turn);
                        model.insert(turn, turn);
                    }
                    _ => {
                        let known = model.range(key..).next().or(model.iter().next()).map_or(key, |(known, _)| *known);
                        assert_eq!(map.remove_entry(&known), model.remove_entry(&known));
                        assert!(map.remove_entry(&known).is_none() && !map.contains_key(&known));
                    }
                }
                let key = dice(keys);
                assert_eq!(map.get_key_value(&key), model.get_key_value(&key));
                assert_eq!(map.get_mut(&key), model.get_mut(&key));
                assert_eq!((map.len(), map.first()), (model.len(), model.first_key_value()));
                if turn % 500 == 0 {
                    assert!(map.iter().eq(model.iter()) && map.keys().eq(model.keys()) && map.values().eq(model.values()));
                }
            }
            while let Some(entry) = model.pop_last() {
                assert_eq!(map.remove_entry(&entry.0), Some(entry));
            }
            assert_eq!((map.len(), map.first()), (0, None));
            assert_eq!(map.pop_first(), None);
        }
    }

    /// However it came to be what it is.
    #[test]
    fn a_sorted_map_has_few_vacant_places() {
        let places = |map: &SortedMap<u64, u64>| map.leaves.iter().map(|leaf| leaf.entries.capacity()).sum::<usize>();
        let mut rising = SortedMap::default();
        (0..10_000).for_each(|key| rising.insert(key, key));
        assert!(places(&rising) < 10_500, "{}", places(&rising));
        let mut dice = dice(4);
        let mut mixed = SortedMap::default();
        while mixed.len() < 10_000 {
            mixed.insert(dice(1 << 40), 0);
        }
        assert!(places(&mixed) < 11_500, "{}", places(&mixed));
        while mixed.len() > 1000 {
            let wanted = dice(1 << 40);
            let next = mixed.keys().find(|key| **key >= wanted).copied();
            next.map(|key| mixed.remove_entry(&key));
        }
        assert!(places(&mixed) < 1800 && mixed.leaves.len() < 60, "{} in {}", places(&mixed), mixed.leaves.len());
    }

    #[test]
    fn sorted_maps_are_equal_by_what_is_in_them() {
        let (mut one, mut other) = (SortedMap::default(), SortedMap::default());
        (0..1000_u64).for_each(|key| one.insert(key, key));
        (0..2000_u64).rev().for_each(|key| other.insert(key, key));
        assert_ne!(one, other);
        for key in 1000..2000 {
            other.remove_entry(&key);
        }
        let lengths = |map: &SortedMap<u64, u64>| map.leaves.iter().map(|leaf| leaf.entries.len()).collect::<Vec<_>>();
        assert_ne!(lengths(&one), lengths(&other));
        assert_eq!(one, other);
        let hash = |map: &SortedMap<u64, u64>| {
            let mut hasher = std::hash::DefaultHasher::new();
            map.hash(&mut hasher);
            hasher.finish()
        };
        assert_eq!(hash(&one), hash(&other));
        other.insert(7, 8);
        assert_ne!(one, other);
    }
}
