//! The table of permissions that the program at the ingress looks into: one line of the processor's cache for each look-up.
//!
//! A line has places for four permissions. Where more fall into one line, those that find no place stand beside it, and the line says
//! so: what is not found there is then not dropped but left to the filter rules, which know all of them.
//!
//! IPv4 addresses stand in a place as they are. Those of IPv6 stand as a number of 64 bits that is worked out of them with random numbers of
//! this process, so that of any two pairs of addresses one in 2^32 choices of these has the same (Lemire and Kaser, "Strongly universal
//! string hashing is fast"). Should packets between others share it, under the same SPI, they are let by, and the verifier drops them.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::af_xdp::kernel::{self, Map, MapKind};
use crate::rules::{Association, room};

/// Octets of a line.
pub(super) const LINE_LEN: u32 = 64;
/// Places in it.
pub(super) const PLACES: usize = 4;
/// Octets of a place: addresses, SPI, until when.
pub(super) const PLACE_LEN: usize = 16;
/// Until when something lives is counted in ticks of so many bits of nanoseconds (8.4 ms), and said as twice their number: what is over of the
/// first place says whether permissions stand beside the line.
pub(super) const TICK: u32 = 23;
/// That bit.
pub(super) const BESIDE: u32 = 1;
/// What lives longer stands beside its line: 52 days. Of twice as much it could not be told whether it has ended.
const LONGEST: Duration = Duration::from_nanos(1 << (TICK + 29));
/// Lines at the least and at the most, as powers of two. The most are 64 MiB.
const BITS: (u32, u32) = (6, 20);

/// Random numbers by which lines are chosen, so that nobody outside can fill one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mixing {
    pub(super) first: u64,
    pub(super) of_addresses: [[u64; 2]; 4],
    pub(super) mask: u64,
    pub(super) of_line: [u64; 3],
    /// There are so many lines, as a power of two.
    pub(super) bits: u32,
}

/// What stands in a place: addresses and SPI as they lie in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    addresses: u64,
    spi: u32,
}

/// A line as the kernel keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Line([u8; LINE_LEN as usize]);

/// The table, and what of it is known here.
#[derive(Debug)]
pub(super) struct Lines {
    map: Map,
    mixing: Mixing,
    most: usize,
    ends: BTreeMap<Association, Instant>,
    order: BTreeSet<(Instant, Association)>,
    /// What found no place, by line.
    beside: BTreeMap<u32, BTreeSet<Association>>,
}

impl Mixing {
    fn new(permissions: usize) -> Self {
        let lines = u32::try_from(permissions.div_ceil(2)).unwrap_or(u32::MAX).max(1);
        let bits = lines.checked_next_power_of_two().map_or(BITS.1, u32::ilog2).clamp(BITS.0, BITS.1);
        let random = RandomState::new();
        let number = |place: u8| random.hash_one(place);
        let of_addresses = [0, 1, 2, 3].map(|part| [number(2 * part), number(2 * part + 1)]);
        // Odd, so that a product tells all its factors apart.
        let of_line = [8, 9, 10].map(|place| number(place) | 1);
        Self { first: number(11), of_addresses, mask: number(12), of_line, bits }
    }

    /// `None` if the addresses are of two families: there are no such packets.
    fn key(&self, (source, destination, spi): &Association) -> Option<Key> {
        let addresses = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                word(u32::from_ne_bytes(source.octets()), u32::from_ne_bytes(destination.octets()))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let octets = [source.octets(), destination.octets()];
                let (parts, _) = octets.as_flattened().as_chunks::<8>();
                parts.iter().zip(self.of_addresses).fold(self.first, |mixed, (part, [one, other])| {
                    let [a, b, c, d, e, f, g, h] = *part;
                    let one = one.wrapping_add(u32::from_ne_bytes([a, b, c, d]).into());
                    let other = other.wrapping_add(u32::from_ne_bytes([e, f, g, h]).into());
                    mixed.wrapping_add(one.wrapping_mul(other))
                })
            }
            _ => return None,
        };
        Some(Key { addresses, spi: u32::from_ne_bytes(spi.to_be_bytes()) })
    }

    fn line(&self, key: Key) -> u32 {
        let [first, second, third] = self.of_line;
        let mixed = folded((key.addresses ^ self.mask).wrapping_mul(first)).wrapping_add(u64::from(key.spi));
        // SPIs that follow each other would lie as one multiple beside the other: near to each other, with many a factor.
        let mixed = folded(mixed.wrapping_mul(second)).wrapping_mul(third);
        u32::try_from(mixed >> (64 - self.bits)).unwrap_or_default()
    }
}

fn word(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn folded(number: u64) -> u64 {
    number ^ number >> 32
}

/// Until when, as it stands in a place: never 0, which is nobody's.
fn ticks(nanoseconds: u64) -> u32 {
    let whole = nanoseconds.div_ceil(1 << TICK) as u32;
    (whole << 1).max(1 << 1)
}

impl Line {
    fn place(&self, number: usize) -> (Key, u32) {
        let octets = self.0.as_chunks::<PLACE_LEN>().0.get(number).copied().unwrap_or_default();
        let [addresses @ .., _, _, _, _, _, _, _, _] = octets;
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, g, h] = octets;
        let key = Key { addresses: u64::from_ne_bytes(addresses), spi: u32::from_ne_bytes([a, b, c, d]) };
        (key, u32::from_ne_bytes([e, f, g, h]) & !BESIDE)
    }

    fn find(&self, test: impl Fn(Key, u32) -> bool) -> Option<usize> {
        (0..PLACES).find(|number| {
            let (key, until) = self.place(*number);
            test(key, until)
        })
    }

    fn put(&mut self, number: usize, key: Key, until: u32) {
        let octets = [&key.addresses.to_ne_bytes()[..], &key.spi.to_ne_bytes(), &until.to_ne_bytes()].concat();
        if let Some(place) = self.0.as_chunks_mut::<PLACE_LEN>().0.get_mut(number) {
            place.copy_from_slice(&octets);
        }
    }

    /// Says whether permissions stand beside the line.
    fn say_beside(&mut self, beside: bool) {
        let (key, until) = self.place(0);
        self.put(0, key, until | if beside { BESIDE } else { 0 });
    }
}

impl Lines {
    /// An empty table with room for as many permissions as the rules have for `most`.
    pub(super) fn new(most: usize) -> Result<Self, Errno> {
        let most = room(most) as usize;
        let mixing = Mixing::new(most);
        let map = Map::new(MapKind::Lines, (4, LINE_LEN), 1 << mixing.bits)?;
        Ok(Self { map, mixing, most, ends: BTreeMap::new(), order: BTreeSet::new(), beside: BTreeMap::new() })
    }

    pub(super) const fn map(&self) -> &Map {
        &self.map
    }

    pub(super) const fn mixing(&self) -> &Mixing {
        &self.mixing
    }

    /// Has a permission stand until then, or no longer.
    pub(super) fn change(&mut self, association: Association, until: Option<Instant>) -> Result<(), String> {
        let now = Instant::now();
        let fails = |errno| format!("the program at the ingress cannot be told of a permission: {errno}");
        self.clear_away(now).map_err(fails)?;
        if until.is_some() && !self.ends.contains_key(&association) && self.ends.len() >= self.most {
            return Err(format!("the program at the ingress knows {} permissions already", self.ends.len()));
        }
        self.write(association, until, now).map_err(fails)
    }

    /// Takes out what has ended.
    pub(super) fn clear_away(&mut self, now: Instant) -> Result<(), Errno> {
        while let Some((until, association)) = self.order.first().copied()
            && until <= now
        {
            self.write(association, None, now)?;
        }
        Ok(())
    }

    fn write(&mut self, association: Association, until: Option<Instant>, now: Instant) -> Result<(), Errno> {
        let Some(key) = self.mixing.key(&association) else { return Ok(()) };
        let number = self.mixing.line(key);
        let mut line = Line([0; LINE_LEN as usize]);
        self.map.read(&number.to_ne_bytes(), &mut line.0)?;
        let has = line.find(|there, until| there == key && until != 0);
        // What lives on stays where it is, so that nobody misses it who looks meanwhile.
        let free = has.or_else(|| line.find(|_, until| until == 0));
        let lasts = until.map(|until| until.saturating_duration_since(now));
        let place = lasts.filter(|lasts| *lasts < LONGEST).and(free);
        let mut beside = self.beside.remove(&number).unwrap_or_default();
        beside.remove(&association);
        match (lasts, place) {
            (Some(lasts), Some(place)) => {
                let ends = kernel::clock()?.saturating_add(lasts);
                line.put(place, key, ticks(u64::try_from(ends.as_nanos()).unwrap_or(u64::MAX)));
            }
            (of, _) => {
                if let Some(place) = has {
                    line.put(place, Key { addresses: 0, spi: 0 }, 0);
                }
                beside.extend(of.map(|_| association));
            }
        }
        line.say_beside(!beside.is_empty());
        if !beside.is_empty() {
            self.beside.insert(number, beside);
        }
        self.map.set(&number.to_ne_bytes(), &line.0)?;
        if let Some(before) = self.ends.remove(&association) {
            self.order.remove(&(before, association));
        }
        if let Some(until) = until {
            self.ends.insert(association, until);
            self.order.insert((until, association));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn association(source: &str, destination: &str, spi: u32) -> Association {
        (source.parse().unwrap(), destination.parse().unwrap(), spi)
    }

    #[test]
    fn no_two_permissions_have_one_key() {
        let mixing = Mixing::new(1000);
        let of = |source, destination, spi| mixing.key(&association(source, destination, spi));
        let four = of("192.0.2.1", "192.0.2.2", 7).unwrap();
        assert_ne!(four, of("192.0.2.2", "192.0.2.1", 7).unwrap());
        assert_ne!(four, of("192.0.2.1", "192.0.2.2", 8).unwrap());
        let six = of("2001:db8::1", "2001:db8::2", 7).unwrap();
        assert_ne!(six, of("2001:db8::2", "2001:db8::1", 7).unwrap());
        assert_ne!(six, of("2001:db8:0:1::1", "2001:db8::2", 7).unwrap());
        for alike in ["2001:db8:0:80:0:80:0:81", "2001:db8:0:80::1", "2001:db8::8000:0:0:1", "a001:db8::1"] {
            assert_ne!(six, of(alike, "2001:db8::2", 7).unwrap(), "whatever the random numbers are");
        }
        assert_eq!(of("192.0.2.1", "2001:db8::2", 7), None);
        assert_ne!(six, Mixing::new(1000).key(&association("2001:db8::1", "2001:db8::2", 7)).unwrap(), "of another process");
    }

    #[test]
    fn permissions_of_one_pair_spread_over_the_lines() {
        // Two each on average; of a random choice one in nineteen has more than four.
        for (most, few) in [(65_536_u32, 65_536 / 10), (1024, 1024 / 5)] {
            // With whatever random numbers.
            for _ in 0..200 / (most / 1024) + 1 {
                let mixing = Mixing::new(most as usize);
                let mut filled = vec![0_usize; 1 << mixing.bits];
                for spi in 0..most {
                    let key = mixing.key(&association("192.0.2.1", "192.0.2.2", spi)).unwrap();
                    filled[mixing.line(key) as usize] += 1;
                }
                let without_a_place: usize = filled.iter().map(|count| count.saturating_sub(PLACES)).sum();
                assert!(without_a_place < few, "{without_a_place} of {most}");
            }
        }
        assert_eq!(Mixing::new(65_536).bits, 15);
        assert_eq!((Mixing::new(0).bits, Mixing::new(usize::MAX).bits), BITS);
    }

    #[test]
    fn a_place_says_until_when_and_the_first_whether_something_stands_beside() {
        let mut line = Line([0; LINE_LEN as usize]);
        let key = Key { addresses: 5, spi: 6 };
        line.put(0, key, ticks(1 << 40));
        line.put(3, key, ticks(u64::MAX));
        line.say_beside(true);
        assert_eq!(line.place(0), (key, 2 << (40 - TICK)));
        assert_eq!(line.0[12..16], (2_u32 << (40 - TICK) | BESIDE).to_ne_bytes());
        line.say_beside(false);
        assert_eq!(line.0[12..16], (2_u32 << (40 - TICK)).to_ne_bytes());
        assert_eq!(line.find(|_, until| until == 0), Some(1));
        assert_ne!(ticks(0), 0);
    }
}
