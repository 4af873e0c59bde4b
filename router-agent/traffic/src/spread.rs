//! Which of several workers judges the packets of an association.
//!
//! The filter rules hash destination and SPI of a packet with AH, as the kernel's `jhash` does, and each bucket has the queue of one worker
//! (`rules/spread.rs`). Here the same is computed, so that a permission stands in the table of one worker alone: the one that its packets
//! come to. A flow's packets under one SPI so keep their order.
//!
//! Whatever else there is comes to the first worker: packets without AH, and packets around packets (protocols 4 and 41), since an error
//! about what is inside names another association ([`crate::table`]). Errors come to the worker of the association that they quote, if it
//! is one of those that stand in the rules, and AH stands just behind the IP header that they quote.
//!
//! A packet whose header names another destination than its last (IPv4 source route, IPv6 routing header with segments left) is hashed by
//! the one that the header names, and is unknown where it comes to: it is dropped.

use std::net::IpAddr;

use crate::flow::Flow;
use crate::table::carried::is_tunnel;

/// Workers at most: as many rules tell them apart.
pub const MOST_WORKERS: u16 = 16;

/// How packets are spread over workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    workers: u16,
    seed: u32,
}

impl Spread {
    /// One worker, to whom everything comes.
    pub const ALONE: Self = Self { workers: 1, seed: 0 };

    /// So many workers, at least one and at most [`MOST_WORKERS`]. Who does not know the seed cannot choose whose packets share a worker
    /// with his; it is to be drawn at random.
    pub const fn new(workers: u16, seed: u32) -> Self {
        let workers = if workers == 0 { 1 } else { workers };
        Self { workers: if workers > MOST_WORKERS { MOST_WORKERS } else { workers }, seed }
    }

    /// How many workers there are.
    pub const fn workers(&self) -> u16 {
        self.workers
    }

    /// What the hash begins with.
    pub(crate) const fn seed(&self) -> u32 {
        self.seed
    }

    /// The worker to which the packets of a flow come under an SPI.
    pub fn worker(&self, flow: &Flow, spi: u32) -> u16 {
        if is_tunnel(flow.protocol) { 0 } else { self.of(flow.destination, spi) }
    }

    fn of(&self, destination: IpAddr, spi: u32) -> u16 {
        let (mut key, len) = ([0; 20], if destination.is_ipv4() { 4 } else { 16 });
        match destination {
            IpAddr::V4(address) => place(&mut key, 0, &address.octets()),
            IpAddr::V6(address) => place(&mut key, 0, &address.octets()),
        }
        place(&mut key, len, &spi.to_be_bytes());
        let hash = jhash(key.get(..len + 4).unwrap_or_default(), self.seed);
        // `reciprocal_scale` of the kernel.
        u16::try_from((u64::from(hash) * u64::from(self.workers)) >> 32).unwrap_or(0)
    }
}

fn place(key: &mut [u8], at: usize, octets: &[u8]) {
    key.iter_mut().skip(at).zip(octets).for_each(|(to, from)| *to = *from);
}

/// Bob Jenkins' `lookup3` as the kernel has it (`include/linux/jhash.h`). Words are read as the processor has them.
fn jhash(octets: &[u8], seed: u32) -> u32 {
    const INITIAL: u32 = 0xdead_beef;
    let begin = INITIAL.wrapping_add(u32::try_from(octets.len()).unwrap_or(u32::MAX)).wrapping_add(seed);
    let (mut a, mut b, mut c) = (begin, begin, begin);
    let mut rest = octets;
    while rest.len() > 12 {
        let (first, behind) = rest.split_at(12);
        let [x, y, z] = words(first);
        (a, b, c) = mix(a.wrapping_add(x), b.wrapping_add(y), c.wrapping_add(z));
        rest = behind;
    }
    if rest.is_empty() {
        return c;
    }
    // What is missing of the last twelve counts as zero; read from the lowest octet on, whatever the processor.
    let mut last = [0; 12];
    place(&mut last, 0, rest);
    let [x, y, z] = last.as_chunks::<4>().0 else { return c };
    let word = |octets: &[u8; 4]| u32::from_le_bytes(*octets);
    end(a.wrapping_add(word(x)), b.wrapping_add(word(y)), c.wrapping_add(word(z)))
}

fn words(octets: &[u8]) -> [u32; 3] {
    let mut words = octets.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word));
    std::array::from_fn(|_| words.next().unwrap_or(0))
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn end(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(destination: &str, protocol: u8) -> Flow {
        let destination = destination.parse().unwrap();
        Flow { source: destination, destination, protocol, source_port: 1, destination_port: 2 }
    }

    #[test]
    fn every_worker_gets_about_its_share_of_associations_and_another_seed_shares_them_otherwise() {
        for destination in ["198.51.100.2", "2001:db8::2"] {
            let of = |seed| -> Vec<u16> { (256..4352).map(|spi| Spread::new(4, seed).worker(&flow(destination, 17), spi)).collect() };
            let (one, other) = (of(1), of(2));
            for worker in 0..4 {
                let share = one.iter().filter(|chosen| **chosen == worker).count();
                assert!((900..1150).contains(&share), "{share} of 4096");
            }
            assert!(one.iter().zip(&other).filter(|(one, other)| one == other).count() < 1300);
        }
    }

    #[test]
    fn what_packs_packets_comes_to_the_first_and_one_worker_gets_everything() {
        let spread = Spread::new(4, 7);
        assert!((256..1000).all(|spi| spread.worker(&flow("198.51.100.2", 4), spi) == 0));
        assert!((256..1000).all(|spi| spread.worker(&flow("2001:db8::2", 41), spi) == 0));
        assert!((256..1000).all(|spi| Spread::ALONE.worker(&flow("198.51.100.2", 17), spi) == 0));
        assert_eq!((Spread::new(0, 1).workers(), Spread::new(99, 1).workers()), (1, MOST_WORKERS));
    }
}
