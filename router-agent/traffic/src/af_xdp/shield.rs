//! The shield before everything else: what has no live permission is dropped by the XDP program, before the kernel makes a packet of it.
//!
//! It knows what the set of the filter rules knows ([`Front`]), by the same key, and is told of each change before that. An entry ends by
//! itself, and is cleared away when this is told ([`Front::change`]). It takes 128 octets of the kernel's memory at most, and each that there
//! is room for 32 from the beginning.

use std::net::IpAddr;
use std::sync::Arc;
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
    /// Entries that `known` has room for.
    room: u32,
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
        let room = room(most);
        let known = Map::new(MapKind::Hash, PERMISSION_LEN, room).map_err(refused("make a map of permissions"))?;
        let dropped = Map::new(MapKind::PerProcessor, DROPPED_LEN, 1).map_err(refused("make a map of what is dropped"))?;
        Ok(Self { known: Arc::new(known), dropped: Arc::new(dropped), first, room })
    }

    pub(super) fn part(&self) -> program::Shield {
        program::Shield { known: self.known.descriptor(), dropped: self.dropped.descriptor(), first: self.first }
    }

    fn set(&self, key: &Key, until: Instant) -> Result<(), Errno> {
        let until_there = kernel::clock()?.saturating_add(until.saturating_duration_since(Instant::now()));
        let until_there = u64::try_from(until_there.as_nanos()).unwrap_or(u64::MAX);
        self.known.set(key, &until_there.to_ne_bytes())
    }
}

impl Front for Shield {
    fn change(&self, association: Association, until: Option<Instant>) -> Result<(), String> {
        let Some(key) = key(&association) else { return Ok(()) };
        let changed = match until {
            Some(until) => self.set(&key, until),
            None => self.known.remove(&key),
        };
        changed.map_err(|errno| match errno {
            Errno::E2BIG => format!("the XDP program knows {} permissions already", self.room),
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
