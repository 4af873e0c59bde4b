//! The shield before everything else: what has no live permission is dropped by the XDP program, before the kernel makes a packet of it.
//!
//! It knows what the set of the filter rules knows ([`Front`]), by the same key, and is told of each change before that. The map takes
//! memory as it fills; an entry ends by itself, and is cleared away with a later change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::errno::Errno;

use super::kernel::{self, Map, MapKind};
use super::program::{self, DROPPED_LEN, IPV4_KEY, IPV6_KEY, PERMISSION_LEN};
use super::{AfXdpError, refused};
use crate::counters::Count;
use crate::rules::{Association, Front, room};

type Key = [u8; PERMISSION_LEN.0 as usize];

/// The permissions that XDP programs let by. Clones are the same.
#[derive(Debug, Clone)]
pub struct Shield {
    known: Arc<Map>,
    dropped: Arc<Map>,
    first: bool,
    /// What stands there, by when it ends.
    ends: Arc<Mutex<Ends>>,
}

#[derive(Debug, Default)]
struct Ends {
    of: BTreeMap<Association, Instant>,
    order: BTreeSet<(Instant, Association)>,
}

impl Shield {
    /// An empty one with room for as many permissions as the rules have for `most`. `first` says that every interface of the router is
    /// closed: then it judges every packet with AH, as those rules do, and else only what leaves by an interface that takes part. One that
    /// [stands](super::stand) alone judges every packet.
    ///
    /// # Errors
    ///
    /// The kernel makes no such maps, or not for this process.
    pub fn new(most: usize, first: bool) -> Result<Self, AfXdpError> {
        let known = Map::new(MapKind::Hash, PERMISSION_LEN, room(most)).map_err(refused("make a map of permissions"))?;
        let dropped = Map::new(MapKind::PerProcessor, DROPPED_LEN, 1).map_err(refused("make a map of what is dropped"))?;
        Ok(Self { known: Arc::new(known), dropped: Arc::new(dropped), first, ends: Arc::default() })
    }

    pub(super) fn part(&self) -> program::Shield {
        program::Shield { known: self.known.descriptor(), dropped: self.dropped.descriptor(), first: self.first }
    }

    fn set(&self, ends: &mut Ends, association: Association, until: Instant, now: Instant) -> Result<(), Errno> {
        let until_there = kernel::clock()?.saturating_add(until.saturating_duration_since(now));
        let until_there = u64::try_from(until_there.as_nanos()).unwrap_or(u64::MAX);
        let Some(key) = key(&association) else { return Ok(()) };
        self.known.set(&key, &until_there.to_ne_bytes())?;
        if let Some(before) = ends.of.insert(association, until) {
            ends.order.remove(&(before, association));
        }
        ends.order.insert((until, association));
        Ok(())
    }

    fn remove(&self, ends: &mut Ends, association: Association) -> Result<(), Errno> {
        let Some(key) = key(&association) else { return Ok(()) };
        self.known.remove(&key)?;
        if let Some(before) = ends.of.remove(&association) {
            ends.order.remove(&(before, association));
        }
        Ok(())
    }

    fn clear_away(&self, ends: &mut Ends, now: Instant) -> Result<(), Errno> {
        while let Some((until, association)) = ends.order.first().copied()
            && until <= now
        {
            self.remove(ends, association)?;
        }
        Ok(())
    }
}

impl Front for Shield {
    fn change(&self, association: Association, until: Option<Instant>) -> Result<(), String> {
        let now = Instant::now();
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = self.clear_away(&mut ends, now).and_then(|()| match until {
            Some(until) => self.set(&mut ends, association, until, now),
            None => self.remove(&mut ends, association),
        });
        changed.map_err(|errno| match errno {
            Errno::E2BIG => format!("the XDP program knows {} permissions already", ends.of.len()),
            other => format!("the XDP program cannot be told of a permission: {other}"),
        })
    }

    fn dropped(&self) -> Option<Count> {
        let values = self.dropped.of_processors(&[0; 4]).ok()?;
        let (numbers, _) = values.as_chunks::<8>();
        let sum =
            |place: usize| numbers.iter().skip(place).step_by(2).map(|number| u64::from_ne_bytes(*number)).fold(0, u64::saturating_add);
        Some(Count { packets: sum(0), bytes: sum(1) })
    }
}

/// `None` if the addresses are of two families: there are no such packets.
fn key((source, destination, spi): &Association) -> Option<Key> {
    let mut key = [0; PERMISSION_LEN.0 as usize];
    let (version, rest) = key.split_first_chunk_mut::<4>()?;
    let (from, rest) = rest.split_first_chunk_mut::<16>()?;
    let (to, last) = rest.split_first_chunk_mut::<16>()?;
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            *version = IPV4_KEY.to_ne_bytes();
            *from.first_chunk_mut()? = source.octets();
            *to.first_chunk_mut()? = destination.octets();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            *version = IPV6_KEY.to_ne_bytes();
            (*from, *to) = (source.octets(), destination.octets());
        }
        _ => return None,
    }
    *last.first_chunk_mut()? = spi.to_be_bytes();
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_associations_have_one_key() {
        let of = |source: &str, destination: &str, spi| key(&(source.parse().unwrap(), destination.parse().unwrap(), spi));
        let four = of("32.1.13.184", "1.2.3.4", 7).unwrap();
        assert_ne!(four, of("2001:db8::", "102:304::", 7).unwrap(), "the same octets, of another version");
        assert_ne!(four, of("1.2.3.4", "32.1.13.184", 7).unwrap());
        assert_ne!(four, of("32.1.13.184", "1.2.3.4", 8).unwrap());
        assert_eq!(of("1.2.3.4", "::1", 7), None);
    }
}
