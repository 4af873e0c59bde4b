//! What a router in front of a relay has seen of the flows inside tunnels.
//!
//! What a node behind the relay says about the size of such a packet goes to the packet's sender by its own route, past routers that
//! know the tunnel and not the flow. They have verified the packets around those flows' packets, so that nobody but the sender can have
//! put there what is remembered here: destination, SPI and number of the packets inside. By these an error is judged as if the flow were
//! known.
//!
//! A flow is remembered as long as its tunnel's packets show it, and no other tunnel can displace it: each has room of its own, and only
//! beyond that they share. Memory is taken when a first packet has been verified, and by tunnels alone.

use std::net::IpAddr;

use smoltcp::time::Instant;

use super::inbound::Key;
use crate::icmp::{Kind, Rate, is_recent};
use crate::packet::{IpPacket, PROTOCOL_AH};
use crate::state::Map;
use crate::tunnel::{IPV4_INSIDE, IPV6_INSIDE};

/// Flows of one tunnel that are remembered for certain while there is room for all: those that sent last. Twice as many at the most.
const MANY: usize = 512;
/// The same whatever other tunnels hold.
const CERTAIN: usize = 16;
/// Tunnels of one sender that an error is looked for in; no host has as many ways.
const MOST_TUNNELS: usize = 16;
/// Errors a second about the size of one flow inside that its tunnel's other flows cannot use up.
const OWN_ERRORS: u64 = 1;

/// Every tunnel, and what is inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tunnels {
    /// Flows inside all of them, beyond which each has only what it is certain of.
    most: usize,
    /// Tunnels by who packs, oldest first.
    by_sender: Map<IpAddr, Vec<Key>>,
    inside: Map<Key, Carried>,
    /// Flows inside all of them.
    known: usize,
}

/// The flows inside one tunnel by destination and SPI: when the newer ones have no room for another, they become the older ones, and
/// those before them are forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Carried {
    newer: Map<Key, Inside>,
    older: Map<Key, Inside>,
}

/// A flow inside a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Inside {
    /// Its highest number of late.
    pub(crate) highest: u32,
    /// Octets of its longest packet.
    pub(crate) longest: u32,
    /// Errors about its size that pass in any case.
    errors: Rate<OWN_ERRORS>,
}

/// Whether packets of this protocol hold packets.
pub(crate) const fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, IPV4_INSIDE | IPV6_INSIDE)
}

impl Tunnels {
    /// None yet. Flows inside are remembered up to `most`, and 32 of each tunnel besides.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, by_sender: Map::new(), inside: Map::new(), known: 0 }
    }

    /// There is a tunnel of `sender`.
    pub(crate) fn open(&mut self, sender: IpAddr, tunnel: Key) {
        self.by_sender.entry(sender).or_default().push(tunnel);
    }

    /// It is gone.
    pub(crate) fn close(&mut self, sender: IpAddr, tunnel: Key) {
        if let Some(tunnels) = self.by_sender.get_mut(&sender) {
            tunnels.retain(|known| *known != tunnel);
            if tunnels.is_empty() {
                self.by_sender.remove(&sender);
            }
        }
        self.known -= self.inside.remove(&tunnel).map_or(0, |carried| carried.len());
    }

    /// Takes note of what a verified packet of a tunnel of `sender` holds.
    pub(crate) fn note(&mut self, tunnel: Key, sender: IpAddr, inner: &[u8]) {
        let Some((flow, seen)) = read(inner, sender) else { return };
        let room = if self.known < self.most { MANY } else { CERTAIN };
        let carried = self.inside.entry(tunnel).or_default();
        let before = carried.len();
        carried.note(flow, seen, room);
        self.known = self.known - before + carried.len();
    }

    /// The tunnel in which a packet from `source` with this destination and SPI was, and what is known of the flow inside.
    pub(crate) fn find(&self, source: IpAddr, flow: Key) -> Option<(Key, Inside)> {
        let among = self.by_sender.get(&source).into_iter().flatten().take(MOST_TUNNELS);
        let found = |tunnel: &Key| Some((*tunnel, *self.inside.get(tunnel)?.get(flow)?));
        among.filter_map(found).max_by_key(|(_, inside)| inside.highest)
    }

    /// Whether one more error may be passed on now of those that a flow inside has for itself; if so, it is counted.
    pub(crate) fn take_error(&mut self, tunnel: Key, flow: Key, kind: Kind, now: Instant) -> bool {
        let inside = self.inside.get_mut(&tunnel).and_then(|carried| carried.get_mut(flow));
        matches!(kind, Kind::TooBig(_)) && inside.is_some_and(|inside| inside.errors.take(now))
    }
}

impl Carried {
    fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }

    fn get(&self, flow: Key) -> Option<&Inside> {
        self.newer.get(&flow).or_else(|| self.older.get(&flow))
    }

    fn get_mut(&mut self, flow: Key) -> Option<&mut Inside> {
        self.newer.get_mut(&flow).or_else(|| self.older.get_mut(&flow))
    }

    fn note(&mut self, flow: Key, seen: Inside, room: usize) {
        if let Some(known) = self.newer.get_mut(&flow) {
            known.see(&seen);
            return;
        }
        let mut known = self.older.remove(&flow).unwrap_or(seen);
        known.see(&seen);
        if self.newer.len() >= room {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(flow, known);
    }
}

impl Inside {
    /// A later packet, or one that was overtaken. Numbers are the sender's word, AH inside is not verified here: one far from the last
    /// begins anew, so that whoever else has the tunnel's key spoils them until the flow's next packet and no longer.
    fn see(&mut self, seen: &Self) {
        if !is_recent(seen.highest, self.highest) {
            self.highest = seen.highest;
        }
        self.longest = self.longest.max(seen.longest);
    }
}

/// Destination and AH of a packet of `sender`, or of a datagram's first part.
fn read(inner: &[u8], sender: IpAddr) -> Option<(Key, Inside)> {
    let packet = IpPacket::parse(inner).ok().filter(|packet| packet.source() == sender)?;
    let (spi, highest) = match packet.fragment() {
        None => packet.ah().map(|ah| (ah.spi(), ah.sequence()))?,
        Some(part) if part.offset == 0 && packet.protocol() == PROTOCOL_AH => {
            let [_, _, _, _, s0, s1, s2, s3, n0, n1, n2, n3] = *packet.after().first_chunk::<12>()?;
            (u32::from_be_bytes([s0, s1, s2, s3]), u32::from_be_bytes([n0, n1, n2, n3]))
        }
        Some(_) => return None,
    };
    let longest = u32::try_from(packet.total_len()).unwrap_or(u32::MAX);
    Some(((packet.destination(), spi), Inside { highest, longest, errors: Rate::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const RELAY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 9));

    /// An IPv4 packet with AH alone.
    fn inner(spi: u32, number: u32) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 48, 0, 1, 0, 0, 64, PROTOCOL_AH, 0, 0, 192, 0, 2, 1, 192, 0, 2, 7];
        packet.extend([59, 5, 0, 0].into_iter().chain(spi.to_be_bytes()).chain(number.to_be_bytes()).chain([0; 16]));
        let sum = packet[..20].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
        let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    fn knows(tunnels: &Tunnels, spi: u32) -> bool {
        tunnels.find(SENDER, ([192, 0, 2, 7].into(), spi)).is_some()
    }

    #[test]
    fn one_tunnel_full_of_flows_takes_nothing_from_others_and_memory_is_bounded() {
        // one tunnel with new flows all the time, nine with a few each.
        let mut tunnels = Tunnels::new(100);
        for tunnel in 0..10 {
            tunnels.open(SENDER, (RELAY, tunnel));
        }
        for spi in 0..10_000 {
            tunnels.note((RELAY, 0), SENDER, &inner(100_000 + spi, 1));
            for tunnel in 1..10 {
                tunnels.note((RELAY, tunnel), SENDER, &inner(tunnel * 1000 + spi % 16, spi));
            }
            assert!(tunnels.known <= 100 + 10 * 2 * CERTAIN, "{}", tunnels.known);
        }
        assert!((1..10).all(|tunnel| (0..16).all(|spi| knows(&tunnels, tunnel * 1000 + spi))));
        assert_eq!(tunnels.known, tunnels.inside.values().map(Carried::len).sum::<usize>());
        (0..10).for_each(|tunnel| tunnels.close(SENDER, (RELAY, tunnel)));
        assert_eq!(tunnels, Tunnels::new(100), "nothing is left");
        assert!(size_of::<(Key, Inside)>() <= 56, "octets of one: {}", size_of::<(Key, Inside)>());
    }

    #[test]
    fn a_far_number_spoils_what_is_known_of_a_flow_until_its_next_packet() {
        let mut tunnels = Tunnels::new(100);
        tunnels.open(SENDER, (RELAY, 1));
        let highest = |tunnels: &Tunnels| tunnels.find(SENDER, ([192, 0, 2, 7].into(), 300)).unwrap().1.highest;
        for (number, expected) in [(9, 9), (8, 9), (10, 10), (u32::MAX, u32::MAX), (11, 11)] {
            tunnels.note((RELAY, 1), SENDER, &inner(300, number));
            assert_eq!(highest(&tunnels), expected);
        }
    }
}
