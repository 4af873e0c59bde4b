//! What whole captures show, whatever the lines of the table look at: a line with a wrong port or window cannot hide anything
//! from these figures.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::attack::injector;
use crate::demo::evidence::{Spi, Way};
use crate::ground::{ASSOCIATION_PORT, LISTED_NSLP};
use crate::network::capture::Frame;
use crate::network::frame::{self, Seen};
use crate::network::topology::{RECEIVER, RECEIVER6, ROUTER_LEFT, ROUTER_LEFT6, ROUTER_RIGHT, ROUTER_RIGHT6, SENDER, SENDER6};

/// Upper-layer protocol number of AH (RFC 4302 §2).
const AH: u8 = 51;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// UDP port of GIST (RFC 5971 §5.3.2).
const GIST_PORT: u16 = 270;
/// Magic number and version of GIST in Q-mode.
const MAGIC_AND_VERSION: [u8; 5] = [0x4e, 0x04, 0xbd, 0xa5, 1];
/// NSLPID of PBS where nothing else is configured.
const PBS_NSLP: u16 = 32704;

/// Both captures as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The sender's link.
    pub sender: Link,
    /// The receiver's link.
    pub receiver: Link,
    /// Packets under AH from the sender's link to the receiver's.
    pub there: Passage,
    /// Packets under AH from the receiver's link to the sender's.
    pub back: Passage,
}

/// One capture as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Frames, whatever is in them.
    pub frames: u64,
    /// IP packets whose headers could not be read. Of them nothing else is known.
    pub unreadable: u64,
    /// Packets under AH, by SPI as `0x` and eight digits; of a fragmented datagram the first fragment.
    pub spis: BTreeMap<String, Spi>,
    /// Later fragments of packets under AH.
    pub later_fragments: u64,
    /// Packets without AH that this link's host sent to the other host.
    pub clear_entered: Clear,
    /// Packets without AH that the attacker on this link sent to the other host.
    pub clear_attacks: u64,
    /// Packets without AH that left the router on this link and did not come from the router itself.
    pub clear_left: Clear,
    /// UDP and TCP without AH between the two ends of this link that is neither GIST nor an association.
    pub unexplained_neighbours: u64,
}

/// Packets without Authentication Header, by what explains them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clear {
    /// GIST Queries of PBS: every router on the way sends its own, in the name of the flow's source.
    pub gist_queries: u64,
    /// Datagrams of the signalling application that the router lists.
    pub listed_nslp: u64,
    /// Everything else: nothing explains why such a packet should pass a router.
    pub other: u64,
}

/// Packets under AH on their way through the router. A packet is known by addresses, SPI, number and integrity check value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passage {
    /// Different packets that entered the router.
    pub entered: u64,
    /// Different packets that left it.
    pub left: u64,
    /// How often a packet left that had left before, though nobody had sent it again.
    pub left_again: u64,
    /// How often a packet left that had left before, and that the attacker had sent again.
    pub replayed: u64,
    /// Different packets that left without having entered.
    pub never_entered: u64,
}

impl Links {
    /// Gathers what the captures of both links show.
    pub fn gather(sender: &[Frame], receiver: &[Frame]) -> Self {
        Self {
            there: Passage::gather(Way::There, sender, receiver),
            back: Passage::gather(Way::Back, receiver, sender),
            sender: Link::gather(Side::SENDER, sender),
            receiver: Link::gather(Side::RECEIVER, receiver),
        }
    }
}

/// Who is at the two ends of a link, and who is beyond the router.
struct Side {
    host: [IpAddr; 2],
    router: [IpAddr; 2],
    beyond: [IpAddr; 2],
}

impl Side {
    const SENDER: Self = Self { host: [SENDER, SENDER6], router: [ROUTER_LEFT, ROUTER_LEFT6], beyond: [RECEIVER, RECEIVER6] };
    const RECEIVER: Self = Self { host: [RECEIVER, RECEIVER6], router: [ROUTER_RIGHT, ROUTER_RIGHT6], beyond: [SENDER, SENDER6] };

    /// Whether the packet wants to pass the router.
    fn enters(&self, seen: &Seen<'_>) -> bool {
        self.beyond.contains(&seen.destination)
    }

    /// Whether the packet goes from one end of the link to the other.
    fn stays(&self, seen: &Seen<'_>) -> bool {
        let is_end = |address| self.host.contains(&address) || self.router.contains(&address);
        is_end(seen.source) && is_end(seen.destination)
    }

    /// Whether the packet came through the router: neither end of the link has its source address.
    fn leaves(&self, seen: &Seen<'_>) -> bool {
        !self.enters(seen) && !self.host.contains(&seen.source) && !self.router.contains(&seen.source) && !is_of_one_link(seen.source)
    }
}

/// Addresses that a router never forwards packets from: unspecified and link-local ones.
fn is_of_one_link(address: IpAddr) -> bool {
    address.is_unspecified() || matches!(address, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(&address))
}

impl Link {
    fn gather(side: Side, frames: &[Frame]) -> Self {
        let mut link = Self { frames: frames.len() as u64, ..Self::default() };
        for frame in frames {
            let Some(ip) = frame.ip() else { continue };
            match frame::read(ip) {
                Some(seen) => link.add(&side, &seen, is_attack(frame)),
                None => link.unreadable += 1,
            }
        }
        link
    }

    fn add(&mut self, side: &Side, seen: &Seen<'_>, is_attack: bool) {
        match &seen.authentication {
            Some(authentication) => Spi::count(&mut self.spis, authentication),
            None if seen.protocol == AH => self.later_fragments += 1,
            None if side.enters(seen) && is_attack => self.clear_attacks += 1,
            None if side.enters(seen) => self.clear_entered.add(seen),
            None if side.leaves(seen) => self.clear_left.add(seen),
            None if side.stays(seen) && !is_for_neighbours(seen) => self.unexplained_neighbours += 1,
            None => {}
        }
    }
}

/// Whether an attacker sent the frame, and not the host on whose link it is.
fn is_attack(frame: &Frame) -> bool {
    frame.source() == Some(injector::HARDWARE_ADDRESS)
}

/// What neighbours may say to each other without permission, of the protocols that programs use: GIST and associations. Whatever
/// the kernel says by itself (neighbour discovery, errors) has no ports and is not judged here.
fn is_for_neighbours(seen: &Seen<'_>) -> bool {
    match seen.protocol {
        UDP => [seen.ports.0, seen.ports.1].contains(&GIST_PORT),
        TCP => [seen.ports.0, seen.ports.1].contains(&ASSOCIATION_PORT),
        _ => true,
    }
}

impl Clear {
    fn add(&mut self, seen: &Seen<'_>) {
        let is_to_gist = seen.protocol == UDP && seen.ports.1 == GIST_PORT;
        let header = seen.payload.first_chunk::<11>().filter(|header| is_to_gist && header.starts_with(&MAGIC_AND_VERSION));
        // Behind the version: hop count, length, NSLPID, and the type below the context bit (RFC 5971 §A.1).
        let kind = header.map(|&[.., high, low, kind]| (u16::from_be_bytes([high, low]), kind & 0x7f));
        let count = match kind {
            Some((PBS_NSLP, 0)) => &mut self.gist_queries,
            Some((LISTED_NSLP, _)) => &mut self.listed_nslp,
            _ => &mut self.other,
        };
        *count += 1;
    }
}

type Identity = (IpAddr, IpAddr, u32, u32, Vec<u8>);

impl Passage {
    fn gather(way: Way, before: &[Frame], behind: &[Frame]) -> Self {
        let entered: BTreeSet<Identity> = identities(way, before).map(|(packet, _)| packet).collect();
        let attacks: BTreeSet<Identity> = identities(way, before).filter_map(|(packet, is_attack)| is_attack.then_some(packet)).collect();
        let mut left = BTreeSet::new();
        let (mut left_again, mut replayed) = (0, 0);
        for (packet, _) in identities(way, behind) {
            let is_replay = attacks.contains(&packet);
            if !left.insert(packet) {
                *(if is_replay { &mut replayed } else { &mut left_again }) += 1;
            }
        }
        let never_entered = left.difference(&entered).count() as u64;
        Self { entered: entered.len() as u64, left: left.len() as u64, left_again, replayed, never_entered }
    }
}

/// The packets under AH that go this way, and whether an attacker sent them.
fn identities(way: Way, frames: &[Frame]) -> impl Iterator<Item = (Identity, bool)> {
    let to = if way == Way::There { [RECEIVER, RECEIVER6] } else { [SENDER, SENDER6] };
    frames.iter().filter_map(|frame| Some((frame::read(frame.ip()?)?, is_attack(frame)))).filter_map(move |(seen, is_attack)| {
        let authentication = seen.authentication.filter(|_| to.contains(&seen.destination))?;
        let packet = (seen.source, seen.destination, authentication.spi, authentication.sequence, authentication.icv.to_vec());
        Some((packet, is_attack))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::packet;
    use std::time::Duration;

    fn frame(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Frame {
        let packet = packet::udp(from, to, payload).unwrap();
        let kind = if from.0.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        Frame { at: Duration::ZERO, bytes: [&[2; 12][..], &kind, &packet].concat() }
    }

    fn segment(from: (IpAddr, u16), to: (IpAddr, u16)) -> Frame {
        let packet = packet::tcp_syn(from, to).unwrap();
        let kind = if from.0.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        Frame { at: Duration::ZERO, bytes: [&[2; 12][..], &kind, &packet].concat() }
    }

    fn by_attacker(mut frame: Frame) -> Frame {
        frame.bytes[6..12].copy_from_slice(&injector::HARDWARE_ADDRESS);
        frame
    }

    /// The IPv4 packet with an Authentication Header put in; nobody looks at its checksum.
    fn under_ah(mut frame: Frame) -> Frame {
        frame.bytes.splice(34..34, [&[UDP, 5][..], &[7; 26]].concat());
        let length = (frame.bytes.len() - 14) as u16;
        frame.bytes[16..18].copy_from_slice(&length.to_be_bytes());
        frame.bytes[23] = AH;
        frame
    }

    fn signalling(nslp: u16, kind: u8) -> Vec<u8> {
        let [high, low] = nslp.to_be_bytes();
        [&MAGIC_AND_VERSION[..], &[16, 0, 0, high, low, 0x80 | kind, 0x40, 0, 0]].concat()
    }

    #[test]
    fn what_left_the_router_in_the_clear_is_told_apart_by_what_explains_it() {
        let to_gist = |payload: &[u8]| frame((SENDER, 270), (RECEIVER, 270), payload);
        let frames = [
            to_gist(&signalling(PBS_NSLP, 0)),
            to_gist(&signalling(LISTED_NSLP, 0)),
            // No Query, no listed application, no signalling, no Q-mode at all.
            to_gist(&signalling(PBS_NSLP, 3)),
            to_gist(&signalling(LISTED_NSLP + 1, 0)),
            to_gist(b"no magic number"),
            frame((SENDER, 270), (RECEIVER, 271), &signalling(PBS_NSLP, 0)),
            frame((SENDER6, 1), (RECEIVER6, 2), b"IPv6"),
            frame(("10.0.0.1".parse().unwrap(), 1), (RECEIVER, 2), b"somebody else's address"),
        ];
        let link = Link::gather(Side::RECEIVER, &frames);
        assert_eq!(link.clear_left, Clear { gist_queries: 1, listed_nslp: 1, other: 6 });
        assert_eq!(link.clear_entered, Clear::default());
        let link = Link::gather(Side::SENDER, &frames);
        assert_eq!((link.clear_left, link.clear_entered.other), (Clear::default(), 6), "on the other link all of them enter");
    }

    #[test]
    fn what_neighbours_say_to_each_other_does_not_cross_the_router() {
        let frames = [
            frame((ROUTER_RIGHT, 270), (RECEIVER, 270), b"GIST"),
            segment((ROUTER_RIGHT, ASSOCIATION_PORT), (RECEIVER, 1)),
            segment((RECEIVER, 1), (ROUTER_RIGHT, ASSOCIATION_PORT)),
            frame(("fe80::1".parse().unwrap(), 1), ("ff02::2".parse().unwrap(), 2), b"neighbours"),
        ];
        let link = Link::gather(Side::RECEIVER, &frames);
        assert_eq!(link, Link { frames: 4, ..Link::default() });
        let frames = [
            frame((ROUTER_RIGHT, 53), (RECEIVER, 1), b"not GIST"),
            segment((RECEIVER6, 1), (ROUTER_RIGHT6, 22)),
            frame((RECEIVER, 1), (ROUTER_RIGHT, ASSOCIATION_PORT), b"not TCP"),
        ];
        let link = Link::gather(Side::RECEIVER, &frames);
        assert_eq!(link, Link { frames: 3, unexplained_neighbours: 3, ..Link::default() });
    }

    #[test]
    fn an_error_that_a_hosts_kernel_sends_in_the_clear_is_counted_as_what_nothing_explains() {
        let mut port_unreachable = packet::udp((RECEIVER, 0), (SENDER, 0), &[3, 3, 0, 0]).unwrap();
        port_unreachable[9] = 1;
        let frame = Frame { at: Duration::ZERO, bytes: [&[2; 12][..], &[0x08, 0x00], &port_unreachable].concat() };
        assert_eq!(Link::gather(Side::RECEIVER, std::slice::from_ref(&frame)).clear_entered.other, 1);
        assert_eq!(Link::gather(Side::SENDER, &[frame]).clear_left.other, 1);
    }

    #[test]
    fn what_an_attacker_sends_in_the_hosts_name_is_not_counted_as_the_hosts() {
        let genuine = frame((SENDER, 1), (RECEIVER, 2), b"in the clear");
        let link = Link::gather(Side::SENDER, &[genuine.clone(), by_attacker(genuine)]);
        assert_eq!((link.clear_entered.other, link.clear_attacks), (1, 1));
    }

    #[test]
    fn a_packet_that_passes_again_is_told_apart_by_whether_somebody_sent_it_again() {
        let packet = under_ah(frame((SENDER, 1), (RECEIVER, 2), b"once"));
        let replay = by_attacker(packet.clone());
        let passage = |entered: &[Frame], left: &[Frame]| Passage::gather(Way::There, entered, left);
        let twice = [packet.clone(), packet.clone()];
        assert_eq!(passage(&twice[..1], &twice), Passage { entered: 1, left: 1, left_again: 1, ..Passage::default() });
        assert_eq!(passage(&[packet, replay], &twice), Passage { entered: 1, left: 1, replayed: 1, ..Passage::default() });
    }

    #[test]
    fn a_packet_that_cannot_be_read_is_counted() {
        let mut short = frame((SENDER, 1), (RECEIVER, 2), b"cut");
        short.bytes.truncate(30);
        assert_eq!(Link::gather(Side::RECEIVER, &[short]).unreadable, 1);
    }
}
