//! Where permissions lie. None is moved while it is there; it is found by destination and SPI with one probe of an index of numbers, and
//! by its flow with another.
//!
//! Memory, with what the allocator needs for itself: an entry, its places in the two indexes and its place in the order of ends take 233
//! octets among 100,000, and never more than 256. The window of 1024 numbers and the prepared key of HMAC-SHA-256 take 254 besides: 487 in
//! all, and never more than 512. With a key of AES-128-GMAC it is 679. A receiver, which compares, keeps 4 octets more for each number of
//! the window, and a ledger that grows to 64 KiB with the numbers that come. Places of entries that are gone are used again,
//! and not given back. `tests/memory.rs` holds these bounds.
//!
//! Growing takes no time in which packets wait: entries stay where they are, and an index of a million doubles in some 10 ms.

use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::net::IpAddr;

use hashbrown::{DefaultHashBuilder, HashTable};
use smoltcp::time::Instant;

use super::due::{Due, Ordered};
use super::entry::Entry;
use super::inbound::Key;
use super::{LINGER, after};
use crate::flow::Flow;

/// Entries that lie together: as many as one request to the system is made for.
const TOGETHER: usize = 1024;

/// Where an entry lies, or lay: whoever uses it looks whether the entry is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

/// The entries, and the ways to them.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries {
    slots: Slots,
    len: usize,
    by_key: HashTable<Hashed>,
    /// Those of one flow have one hash.
    by_flow: HashTable<Hashed>,
    due: Due,
    hasher: DefaultHashBuilder,
}

/// A slot, and half of the hash under which it is found: an index can grow without looking at the entries.
#[derive(Debug, Clone, Copy)]
struct Hashed {
    hash: u32,
    slot: u32,
}

#[derive(Debug, Clone, Default)]
struct Slots {
    chunks: Vec<Vec<Slot>>,
    free: Option<u32>,
}

/// Begins where the processor's cache has a line begin, so that a look-up waits for one line of it and not for three.
#[derive(Debug, Clone)]
#[repr(align(64))]
enum Slot {
    /// Holds an entry, whose end stands at this place of the order of ends.
    Used(Entry, u32),
    /// Holds none, and the next that holds none.
    Free(Option<u32>),
}

impl Slots {
    fn at(&self, slot: u32) -> Option<&Slot> {
        let slot = usize::try_from(slot).ok()?;
        self.chunks.get(slot / TOGETHER)?.get(slot % TOGETHER)
    }

    fn at_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        let slot = usize::try_from(slot).ok()?;
        self.chunks.get_mut(slot / TOGETHER)?.get_mut(slot % TOGETHER)
    }

    fn entry(&self, slot: u32) -> Option<&Entry> {
        if let Slot::Used(entry, _) = self.at(slot)? { Some(entry) } else { None }
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry> {
        if let Slot::Used(entry, _) = self.at_mut(slot)? { Some(entry) } else { None }
    }

    /// Puts an entry where there is room; gives where.
    fn put(&mut self, entry: Entry) -> u32 {
        let used = Slot::Used(entry, 0);
        if let Some(slot) = self.free
            && let Some(Slot::Free(next)) = self.at(slot)
        {
            let next = *next;
            self.free = next;
            if let Some(place) = self.at_mut(slot) {
                *place = used;
            }
            return slot;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == TOGETHER) {
            // Of the first few no more than are needed.
            self.chunks.push(if self.chunks.is_empty() { Vec::new() } else { Vec::with_capacity(TOGETHER) });
        }
        let before = self.chunks.len().saturating_sub(1) * TOGETHER;
        let within = self.chunks.last_mut().map_or(0, |chunk| {
            chunk.push(used);
            chunk.len() - 1
        });
        u32::try_from(before + within).unwrap_or(u32::MAX)
    }

    /// Takes an entry out, with its place in the order of ends.
    fn take(&mut self, slot: u32) -> Option<(Entry, u32)> {
        let free = Slot::Free(self.free);
        let place = self.at_mut(slot).filter(|place| matches!(place, Slot::Used(..)))?;
        let Slot::Used(entry, due) = std::mem::replace(place, free) else { return None };
        self.free = Some(slot);
        Some((entry, due))
    }

    fn all(&self) -> impl Iterator<Item = &Entry> {
        self.chunks.iter().flatten().filter_map(|slot| if let Slot::Used(entry, _) = slot { Some(entry) } else { None })
    }
}

impl Ordered for Slots {
    fn precedes(&self, first: u32, second: u32) -> bool {
        let key = |slot| self.entry(slot).map(Entry::key);
        key(first) < key(second)
    }

    fn moved(&mut self, slot: u32, place: u32) {
        if let Some(Slot::Used(_, due)) = self.at_mut(slot) {
            *due = place;
        }
    }
}

impl Entries {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.slots.entry(self.find(key)?)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.slots.entry_mut(self.find(key)?)
    }

    /// The entry of a key that [`locate`](Self::locate) has told the place of, wherever it is now.
    pub(super) fn get_at(&self, place: Option<Place>, key: Key) -> Option<&Entry> {
        let there = place.and_then(|place| self.slots.entry(place.0)).filter(|entry| entry.key() == key);
        there.or_else(|| self.get(key))
    }

    /// The same to change it.
    pub(super) fn get_mut_at(&mut self, place: Option<Place>, key: Key) -> Option<&mut Entry> {
        let there = place.filter(|place| self.slots.entry(place.0).is_some_and(|entry| entry.key() == key));
        let slot = there.map_or_else(|| self.find(key), |place| Some(place.0))?;
        self.slots.entry_mut(slot)
    }

    /// Finds where the entries of many keys probably lie, and has all of them fetched from memory at the same time: one after the other
    /// each would be waited for. Whoever uses a place looks whether it is the right one.
    pub(super) fn locate(&self, keys: &[Option<Key>], places: &mut [Option<Place>]) {
        for (key, place) in keys.iter().zip(&mut *places) {
            *place = key.and_then(|key| {
                let hash = self.hash_of_key(key);
                self.by_key.find(spread(hash), |hashed| hashed.hash == hash).map(|hashed| Place(hashed.slot))
            });
        }
        self.touch(places, Entry::touch);
    }

    /// Has windows and keys of many entries fetched at the same time.
    pub(super) fn fetch(&self, places: &[Option<Place>]) {
        self.touch(places, Entry::touch_association);
    }

    fn touch(&self, places: &[Option<Place>], touch: impl Fn(&Entry) -> u64) {
        let entries = places.iter().flatten().filter_map(|place| self.slots.entry(place.0));
        black_box(entries.fold(0, |sum, entry| sum ^ touch(entry)));
    }

    /// Adds an entry; there must be none of its key.
    pub(super) fn insert(&mut self, entry: Entry) {
        let (hash, of_flow, at) = (self.hash_of_key(entry.key()), self.hash_of_flow(&entry.flow), after(entry.expires_at, LINGER));
        let slot = self.slots.put(entry);
        self.by_key.insert_unique(spread(hash), Hashed { hash, slot }, |hashed| spread(hashed.hash));
        self.by_flow.insert_unique(spread(of_flow), Hashed { hash: of_flow, slot }, |hashed| spread(hashed.hash));
        self.due.add(at, slot, &mut self.slots);
        self.len += 1;
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let slot = self.find(key)?;
        let due = if let Slot::Used(_, due) = self.slots.at(slot)? { *due } else { return None };
        self.due.remove(due, &mut self.slots);
        let (entry, _) = self.slots.take(slot)?;
        let (hash, of_flow) = (self.hash_of_key(key), self.hash_of_flow(&entry.flow));
        for (index, hash) in [(&mut self.by_key, hash), (&mut self.by_flow, of_flow)] {
            if let Ok(found) = index.find_entry(spread(hash), |hashed| hashed.slot == slot) {
                found.remove();
            }
        }
        self.len -= 1;
        Some(entry)
    }

    /// Changes an entry; when it is to be deleted follows its end.
    pub(super) fn change(&mut self, key: Key, change: impl FnOnce(&mut Entry)) -> Option<&Entry> {
        let slot = self.find(key)?;
        let Slot::Used(entry, due) = self.slots.at_mut(slot)? else { return None };
        let (before, place) = (entry.expires_at, *due);
        change(entry);
        let ends = entry.expires_at;
        if ends != before {
            self.due.change(place, after(ends, LINGER), &mut self.slots);
        }
        self.slots.entry(slot)
    }

    /// The entries of a flow, the older first.
    pub(super) fn of_flow(&self, flow: &Flow) -> impl Iterator<Item = &Entry> {
        let hash = self.hash_of_flow(flow);
        let of_flow = |is_second: bool| {
            self.by_flow
                .iter_hash(spread(hash))
                .filter_map(|hashed| self.slots.entry(hashed.slot))
                .filter(move |entry| entry.flow == *flow && entry.is_second == is_second)
        };
        of_flow(false).chain(of_flow(true))
    }

    /// The key of the entry that is to be deleted next, and when.
    pub(super) fn first_due(&self) -> Option<(Instant, Key)> {
        let (at, slot) = self.due.first()?;
        Some((at, self.slots.entry(slot)?.key()))
    }

    fn find(&self, key: Key) -> Option<u32> {
        let hash = self.hash_of_key(key);
        let is_it = |hashed: &Hashed| hashed.hash == hash && self.slots.entry(hashed.slot).is_some_and(|entry| entry.key() == key);
        self.by_key.find(spread(hash), is_it).map(|hashed| hashed.slot)
    }

    fn hash_of_key(&self, (destination, spi): Key) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        match destination {
            IpAddr::V4(address) => hasher.write_u64(u64::from(address.to_bits()) << 32 | u64::from(spi)),
            IpAddr::V6(address) => {
                hasher.write_u128(address.to_bits());
                hasher.write_u32(spi);
            }
        }
        half(hasher.finish())
    }

    fn hash_of_flow(&self, flow: &Flow) -> u32 {
        half(self.hasher.hash_one(flow))
    }
}

fn half(hash: u64) -> u32 {
    let [a, b, c, d, ..] = hash.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// An index takes the lowest bits of a hash, and the highest seven.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Equal if the same entries are there, wherever they lie.
impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.slots.all().all(|entry| other.get(entry.key()) == Some(entry))
    }
}

impl Eq for Entries {}

impl Hash for Entries {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut entries: Vec<(Key, &Entry)> = self.slots.all().map(|entry| (entry.key(), entry)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use crate::ah::InboundAssociation;
    use crate::algorithm::{IcvKey, MacAlgorithm};
    use crate::replay::{Numbering, Window};
    use crate::table::entry::Seldom;

    use super::*;

    #[test]
    fn what_a_look_up_compares_and_counts_lies_in_one_line_of_the_cache_and_no_slot_is_longer_for_it() {
        const LINE: usize = 64;
        assert!(size_of::<Slot>() <= 3 * LINE, "{}", size_of::<Slot>());
        let address = [192, 0, 2, 1].into();
        let flow = Flow { source: address, destination: address, protocol: 17, source_port: 1, destination_port: 2 };
        let key = IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap();
        let association = InboundAssociation::new(300, key, Window::new(64, Numbering::Short).unwrap());
        let (expires_at, ledger, seldom) = (Instant::ZERO, None, Seldom::default());
        let (allowed, counted, peak, longest, draining, is_second) = (0, 0, 0, 0, false, false);
        let entry = Entry { flow, counted, expires_at, association, allowed, peak, ledger, seldom, longest, draining, is_second };
        let slots = [Slot::Used(entry.clone(), 0), Slot::Used(entry, 0)];
        for slot in &slots {
            let Slot::Used(entry, _) = slot else { panic!("it is used") };
            let begins = std::ptr::from_ref(entry).addr() - std::ptr::from_ref(slot).addr();
            assert_eq!(std::ptr::from_ref(slot).addr() % LINE, 0);
            // The SPI is the first of the association.
            for (field, octets) in [
                (offset_of!(Entry, flow), size_of::<Flow>()),
                (offset_of!(Entry, counted), size_of::<u64>()),
                (offset_of!(Entry, association), size_of::<u32>()),
            ] {
                assert!(begins + field + octets <= LINE, "{begins} {field}");
            }
        }
    }
}
