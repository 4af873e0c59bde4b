//! What state is made of: every processor is `Clone + Eq + Hash`, so that the code that runs can be model-checked.
//!
//! Two processors are equal if they would go on alike. Equal ones have equal hashes, in this and in every other run of the
//! program: nothing depends on the order in which a map keeps its entries.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use hashbrown::HashMap;
use smoltcp::time::{Duration, Instant};

/// A map for looking up. Its hash is that of its entries in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Map<K: Hash + Eq, V>(HashMap<K, V>);

impl<K: Hash + Eq, V> Map<K, V> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Ord, V> Map<K, V> {
    /// The entries in their order.
    pub(crate) fn in_order(&self) -> Vec<(&K, &V)> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        entries
    }
}

impl<K: Hash + Eq, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Hash + Ord, V: Hash> Hash for Map<K, V> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.in_order().hash(state);
    }
}

impl<K: Hash + Eq, V> Deref for Map<K, V> {
    type Target = HashMap<K, V>;

    fn deref(&self) -> &HashMap<K, V> {
        &self.0
    }
}

impl<K: Hash + Eq, V> DerefMut for Map<K, V> {
    fn deref_mut(&mut self) -> &mut HashMap<K, V> {
        &mut self.0
    }
}

/// What is at hand but no state: which checks there are, counters that are shown, room to write in. Equal to every other.
pub(crate) struct Aside<T>(pub(crate) T);

impl<T: Clone> Clone for Aside<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> PartialEq for Aside<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Aside<T> {}

impl<T> Hash for Aside<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl<T: fmt::Debug> fmt::Debug for Aside<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: ?Sized> Deref for Aside<Arc<T>> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A time as what it can be hashed by: the whole of it, unlike the parts that the library calls micros.
pub(crate) trait Micros {
    type Value: Hash;

    fn in_micros(&self) -> Self::Value;
}

impl Micros for Instant {
    type Value = i64;

    fn in_micros(&self) -> i64 {
        self.total_micros()
    }
}

impl Micros for Duration {
    type Value = u64;

    fn in_micros(&self) -> u64 {
        self.total_micros()
    }
}

impl<T: Micros> Micros for Option<T> {
    type Value = Option<T::Value>;

    fn in_micros(&self) -> Self::Value {
        self.as_ref().map(Micros::in_micros)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;

    use super::*;

    fn hash(value: &impl Hash) -> u64 {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn a_maps_hash_does_not_tell_in_which_order_it_was_filled_and_tells_what_it_holds() {
        let filled = |keys: &mut dyn Iterator<Item = u32>| {
            let mut map = Map::new();
            keys.for_each(|key| {
                map.insert(key, key / 2);
            });
            map
        };
        let (up, down) = (filled(&mut (0..1000)), filled(&mut (0..1000).rev()));
        assert_eq!((&up, hash(&up)), (&down, hash(&down)));
        let fewer = filled(&mut (0..999));
        assert_ne!((&up, hash(&up)), (&fewer, hash(&fewer)));
    }
}
