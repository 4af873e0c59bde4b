//! Changes that lead deep: objects dropped, doubled, moved and taken from other inputs, lengths a little off, and headers that are made
//! true again afterwards, so that not everything ends at the first check.

use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, UdpPacket};

use super::shapes;
use crate::dice::Dice;

/// How an input is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Octets.
    Plain,
    /// A GIST message behind so many octets: objects behind a common header that counts their words.
    Gist {
        /// Octets before it.
        at: usize,
    },
    /// A message of PBS: objects behind four octets.
    Pbs,
    /// An IP packet behind so many octets.
    Ip {
        /// Octets before it.
        at: usize,
    },
    /// A line of text.
    Text,
    /// Lines of a configuration.
    Lines,
    /// A netlink message behind so many octets: attributes behind a header that counts its octets, and a fixed part.
    Netlink {
        /// Octets before it.
        at: usize,
    },
}

/// Longest input.
const LONGEST: usize = 70_000;
/// Octets and words at the edges of what fields can say.
const EDGES: [u8; 8] = [0, 1, 3, 4, 0x7f, 0x80, 0xfe, 0xff];
/// Of so many, one is left as the changes have made it.
const LEFT_UNTRUE: u64 = 6;
const GIST_HEADER: usize = 8;
const OBJECT_HEADER: usize = 4;
const UDP: u8 = 17;

/// Makes inputs of inputs. The same seed makes the same.
#[derive(Debug, Clone)]
pub struct Mutator {
    dice: Dice,
    layout: Layout,
}

impl Mutator {
    /// For inputs of this layout.
    pub fn new(layout: Layout, seed: u64) -> Self {
        Self { dice: Dice::new(seed), layout }
    }

    /// A change of one of these inputs.
    pub fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(pool).to_vec();
        for _ in 0..=self.dice.below(4) {
            match (self.layout, self.dice.below(3)) {
                (Layout::Gist { at }, 0 | 1) => self.change_objects(&mut input, pool, at + GIST_HEADER, 4),
                (Layout::Pbs, 0 | 1) => self.change_objects(&mut input, pool, OBJECT_HEADER, 1),
                (Layout::Text, 0) => self.change_text(&mut input),
                (Layout::Lines, 0 | 1) => {
                    let other = self.pick(pool).to_vec();
                    shapes::change_lines(&mut self.dice, &mut input, &other);
                }
                (Layout::Netlink { at }, 0 | 1) => {
                    let other = self.pick(pool).to_vec();
                    shapes::change_attributes(&mut self.dice, &mut input, &other, at);
                }
                _ => self.change_octets(&mut input, pool),
            }
        }
        if self.dice.below(LEFT_UNTRUE) > 0 {
            match self.layout {
                Layout::Gist { at } => count_words(&mut input, at),
                Layout::Ip { at } => make_ip_true(input.get_mut(at..).unwrap_or_default()),
                Layout::Netlink { at } => shapes::count_message(&mut input, at),
                Layout::Plain | Layout::Pbs | Layout::Text | Layout::Lines => {}
            }
        }
        input.truncate(LONGEST);
        input
    }

    fn pick<'a>(&mut self, pool: &'a [Vec<u8>]) -> &'a [u8] {
        let place = self.place(pool.len());
        pool.get(place).map_or(&[], Vec::as_slice)
    }

    fn place(&mut self, end: usize) -> usize {
        self.dice.below(end as u64) as usize
    }

    fn change_octets(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.place(input.len() + 1);
        let some = 1 + self.place(16);
        let end = (at + some).min(input.len());
        let at = at.min(input.len());
        match self.dice.below(8) {
            0 => {
                let bit = self.dice.below(8);
                if let Some(octet) = input.get_mut(at) {
                    *octet ^= 1 << bit;
                }
            }
            1 => {
                let edge = self.place(EDGES.len());
                if let (Some(octet), Some(edge)) = (input.get_mut(at), EDGES.get(edge)) {
                    *octet = *edge;
                }
            }
            2 => {
                // A word a little more or less.
                let by = 1 + self.dice.below(4) as u16;
                if let Some(word) = input.get_mut(at & !1..).and_then(<[u8]>::first_chunk_mut::<2>) {
                    let value = u16::from_be_bytes(*word);
                    *word = if by & 1 == 0 { value.wrapping_add(by) } else { value.wrapping_sub(by) }.to_be_bytes();
                }
            }
            3 => drop(input.drain(at..end)),
            4 => {
                let octets = self.dice.octets(some);
                input.splice(at..at, octets);
            }
            5 => {
                let twice = input.get(at..end).unwrap_or_default().to_vec();
                input.splice(at..at, twice);
            }
            6 => input.truncate(at),
            _ => {
                let other = self.pick(pool).to_vec();
                let from = self.place(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(other.get(from..).unwrap_or_default());
            }
        }
    }

    /// `unit` is what a length field counts, in octets.
    fn change_objects(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>], at: usize, unit: usize) {
        let mut objects = objects(input, at, unit);
        let place = self.place(objects.len() + 1);
        let kind = self.dice.below(9);
        match (kind, objects.get_mut(place)) {
            (0, Some(_)) => drop(objects.remove(place)),
            (1, Some(object)) => {
                let twice = object.clone();
                objects.insert(place, twice);
            }
            (2, Some(_)) => {
                let other = self.place(objects.len());
                objects.swap(place, other);
            }
            (3, _) => {
                let others = objects_of(self.pick(pool), at, unit);
                let other = self.place(others.len());
                if let Some(other) = others.get(other) {
                    objects.insert(place, other.clone());
                }
            }
            // Its length field alone.
            (4, Some(object)) => {
                let by = 1 + self.dice.below(3) as u8;
                if let Some(octet) = object.get_mut(3) {
                    *octet = if by & 1 == 0 { octet.wrapping_add(by) } else { octet.wrapping_sub(by) };
                }
            }
            // What to do with it if it is not known, and which it is.
            (5, Some(object)) => {
                let flags = (self.dice.below(4) as u8) << 6;
                if let Some(octet) = object.first_mut() {
                    *octet = *octet & 0x3f | flags;
                }
            }
            (6, Some(object)) => {
                let number = self.dice.below(12) as u8;
                if let Some(octet) = object.get_mut(1) {
                    *octet = number;
                }
            }
            // A value that is longer or shorter, and says so.
            (7, Some(object)) => {
                let words = self.place(6);
                let length = OBJECT_HEADER + words * 4;
                let filling = self.dice.octets(length);
                let shorter = object.len().min(length);
                object.truncate(shorter);
                object.extend(filling.into_iter().skip(shorter));
                let counted = ((length - OBJECT_HEADER) / unit) as u16;
                if let Some(field) = object.get_mut(2..).and_then(<[u8]>::first_chunk_mut::<2>) {
                    *field = counted.to_be_bytes();
                }
            }
            _ => return self.change_octets(input, pool),
        }
        input.truncate(at);
        input.extend(objects.concat());
    }

    fn change_text(&mut self, input: &mut Vec<u8>) {
        const PARTS: [&str; 14] = [
            "\"",
            "{",
            "}",
            "[",
            ",",
            ":",
            "null",
            "-1",
            "18446744073709551616",
            "1e400",
            "\\u0000",
            "\"request\":\"send\"",
            "0",
            "[[[[[[[[",
        ];
        let (at, part) = (self.place(input.len() + 1), self.place(PARTS.len()));
        let part = PARTS.get(part).map_or(&[][..], |part| part.as_bytes());
        input.splice(at..at, part.iter().copied());
    }
}

/// The objects behind `at`, the last of which may be cut short.
fn objects(input: &[u8], at: usize, unit: usize) -> Vec<Vec<u8>> {
    let mut rest = input.get(at..).unwrap_or_default();
    let mut found = Vec::new();
    while let Some([_, _, high, low]) = rest.first_chunk::<4>() {
        let counted = usize::from(u16::from_be_bytes([high & 0x0f, *low])) * unit;
        let length = (OBJECT_HEADER + counted.next_multiple_of(4)).min(rest.len());
        let (object, behind) = rest.split_at(length);
        found.push(object.to_vec());
        rest = behind;
    }
    if !rest.is_empty() {
        found.push(rest.to_vec());
    }
    found
}

fn objects_of(input: &[u8], at: usize, unit: usize) -> Vec<Vec<u8>> {
    objects(input, at, unit)
}

/// Lets the common header count what there is.
fn count_words(input: &mut Vec<u8>, at: usize) {
    let whole = input.len() - input.len().saturating_sub(at) % 4;
    input.truncate(whole);
    let words = input.len().saturating_sub(at + GIST_HEADER) / 4;
    if let Some(field) = input.get_mut(at + 2..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *field = (words as u16).to_be_bytes();
    }
}

/// Lengths and checksums of IP and UDP.
fn make_ip_true(packet: &mut [u8]) {
    let length = packet.len();
    match packet.first().map(|octet| octet >> 4) {
        Some(4) if length >= 20 => {
            let mut header = Ipv4Packet::new_unchecked(&mut *packet);
            header.set_total_len(length as u16);
            let header_length = usize::from(header.header_len());
            if (20..=length).contains(&header_length) {
                header.fill_checksum();
                let (from, to, protocol) = (header.src_addr(), header.dst_addr(), u8::from(header.next_header()));
                if protocol == UDP {
                    make_udp_true(packet.get_mut(header_length..), from.into(), to.into());
                }
            }
        }
        Some(6) if length >= 40 => {
            let mut header = Ipv6Packet::new_unchecked(&mut *packet);
            header.set_payload_len((length - 40) as u16);
            let (from, to, next) = (header.src_addr(), header.dst_addr(), u8::from(header.next_header()));
            // UDP at once, or behind one short header.
            let behind =
                packet.get(40..42).map_or((0, 0), |option| (option.first().copied().unwrap_or(0), option.get(1).copied().unwrap_or(0)));
            match (next, behind) {
                (UDP, _) => make_udp_true(packet.get_mut(40..), from.into(), to.into()),
                (0 | 43 | 60, (UDP, words)) => make_udp_true(packet.get_mut(48 + usize::from(words) * 8..), from.into(), to.into()),
                _ => {}
            }
        }
        _ => {}
    }
}

fn make_udp_true(datagram: Option<&mut [u8]>, from: IpAddress, to: IpAddress) {
    let Some(datagram) = datagram.filter(|datagram| datagram.len() >= 8) else { return };
    let length = datagram.len() as u16;
    let mut header = UdpPacket::new_unchecked(datagram);
    header.set_len(length);
    header.fill_checksum(&from, &to);
}
