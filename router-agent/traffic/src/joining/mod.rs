//! TCP segments put together: the inverse of [`crate::segments`], as the kernel does it where there is no AH (GRO).
//!
//! No sockets, no clock. Packets go in one after the other, and come out in that order, each once: as they are, or consecutive segments of one
//! connection as one packet, with what tells the kernel how to cut it again ([`Prefix`]). Only segments are joined that differ in nothing but
//! what follows from their place: contiguous, of one length but for the last, whose checksums are right. So what the kernel makes of the whole
//! is what it would make of the segments, and an error that their sums tell stays one.

use crate::segments::{fold, sum};

/// What stands before a packet for the kernel (`struct virtio_net_hdr`): zeros before one that is as it came.
pub type Prefix = [u8; 10];

/// Segments of one packet at the most.
pub const MOST_SEGMENTS: usize = 64;
/// Octets of the longest packet whose length an IP header can tell, of either version.
const LONGEST: usize = 65_535;
const TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Length of the TCP header without options, and with the timestamps that Linux and most others send alone.
const BASE: usize = 20;
const WITH_TIMESTAMPS: usize = 32;
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];
/// Where the TCP checksum stands in its header.
const CHECKSUM: u8 = 16;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, `VIRTIO_NET_HDR_GSO_TCPV4`, `VIRTIO_NET_HDR_GSO_TCPV6`.
const NEEDS_CHECKSUM: u8 = 1;
const SEGMENTS_OF_IPV4: u8 = 1;
const SEGMENTS_OF_IPV6: u8 = 4;

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined<'a> {
    /// What the kernel is told before it.
    pub prefix: Prefix,
    /// An IP packet.
    pub packet: &'a [u8],
    /// Of each packet that went into it, what was said of it ([`Joiner::push`]); never empty.
    pub said: &'a [usize],
}

/// Joins what is pushed into it.
#[derive(Debug)]
pub struct Joiner {
    /// The first segment's headers, and the data of all.
    octets: Vec<u8>,
    held: Option<Held>,
    said: heapless::Vec<usize, MOST_SEGMENTS>,
}

/// What is known of the segments in a joiner.
#[derive(Debug, Clone, Copy)]
struct Held {
    layout: Layout,
    /// Octets of data in each segment.
    size: usize,
    /// The sequence number that comes next.
    next: u32,
}

/// Where things are in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    is_ipv6: bool,
    /// Where TCP begins.
    tcp: usize,
    /// Where its data begins.
    data: usize,
}

impl Default for Joiner {
    fn default() -> Self {
        Self { octets: Vec::with_capacity(LONGEST), held: None, said: heapless::Vec::new() }
    }
}

impl Joiner {
    /// Takes an IP packet without AH; `said` comes out again with it. What may not wait any longer comes out now.
    pub fn push(&mut self, packet: &[u8], said: usize, out: &mut dyn FnMut(Joined<'_>)) {
        let Some(segment) = Segment::read(packet) else {
            self.flush(out);
            return out(Joined { prefix: Prefix::default(), packet, said: &[said] });
        };
        let is_last = match self.held {
            Some(held) if self.has_room(&segment) && held.continues(&self.octets, &segment) => {
                self.octets.extend_from_slice(segment.data());
                self.held = Some(Held { next: segment.next(), ..held });
                segment.is_pushed || segment.data().len() < held.size
            }
            _ => {
                self.flush(out);
                if segment.is_pushed {
                    return out(Joined { prefix: Prefix::default(), packet, said: &[said] });
                }
                self.octets.extend_from_slice(packet);
                self.held = Some(Held { layout: segment.layout, size: segment.data().len(), next: segment.next() });
                false
            }
        };
        // There is room: it was looked at, or nothing was there.
        let _ = self.said.push(said);
        if is_last {
            self.end(segment.is_pushed, out);
        }
    }

    /// Gives what waits for more.
    pub fn flush(&mut self, out: &mut dyn FnMut(Joined<'_>)) {
        self.end(false, out);
    }

    fn end(&mut self, is_pushed: bool, out: &mut dyn FnMut(Joined<'_>)) {
        let Some(held) = self.held.take() else { return };
        let prefix = if self.said.len() > 1 { held.finish(&mut self.octets, is_pushed) } else { Some(Prefix::default()) };
        if let Some(prefix) = prefix {
            out(Joined { prefix, packet: &self.octets, said: &self.said });
        }
        self.octets.clear();
        self.said.clear();
    }

    fn has_room(&self, segment: &Segment<'_>) -> bool {
        !self.said.is_full() && self.octets.len() + segment.data().len() <= LONGEST
    }
}

impl Held {
    /// Whether a segment is what comes next, and is like the others in all else.
    fn continues(&self, octets: &[u8], segment: &Segment<'_>) -> bool {
        let Layout { is_ipv6, tcp, data } = self.layout;
        let (len, packet) = (segment.data().len(), segment.packet);
        let same = |from: usize, to: usize| octets.get(from..to).is_some() && octets.get(from..to) == packet.get(from..to);
        let same_ip = match is_ipv6 {
            // All but the length.
            true => same(0, 4) && same(6, IPV6_HEADER),
            // And but identification and checksum.
            false => same(0, 2) && same(6, 10) && same(12, IPV4_HEADER),
        };
        // Ports; acknowledgment and length of the header; of the flags more is known; window; urgent pointer and options.
        let same_tcp = same(tcp, tcp + 4) && same(tcp + 8, tcp + 13) && same(tcp + 14, tcp + 16) && same(tcp + 18, data);
        segment.layout == self.layout && segment.sequence == self.next && len <= self.size && same_ip && same_tcp
    }

    /// Has the headers tell of all segments, and the kernel how to cut them. `None` is for what cannot be.
    fn finish(&self, octets: &mut [u8], is_pushed: bool) -> Option<Prefix> {
        let Layout { is_ipv6, tcp, data } = self.layout;
        let len = octets.len();
        if is_pushed {
            *octets.get_mut(tcp + 13)? |= PSH;
        }
        if is_ipv6 {
            *octets.get_mut(4..)?.first_chunk_mut()? = u16::try_from(len - IPV6_HEADER).ok()?.to_be_bytes();
        } else {
            *octets.get_mut(2..)?.first_chunk_mut()? = u16::try_from(len).ok()?.to_be_bytes();
            *octets.get_mut(10..)?.first_chunk_mut()? = [0; 2];
            let checksum = !fold(sum(octets.get(..IPV4_HEADER)?));
            *octets.get_mut(10..)?.first_chunk_mut()? = checksum.to_ne_bytes();
        }
        // Who cuts it, or takes it whole, adds the rest.
        let part = fold(pseudo(octets, self.layout)?);
        *octets.get_mut(tcp + usize::from(CHECKSUM)..)?.first_chunk_mut()? = part.to_ne_bytes();
        let kind = if is_ipv6 { SEGMENTS_OF_IPV6 } else { SEGMENTS_OF_IPV4 };
        let [h0, h1] = u16::try_from(data).ok()?.to_ne_bytes();
        let [s0, s1] = u16::try_from(self.size).ok()?.to_ne_bytes();
        let [t0, t1] = u16::try_from(tcp).ok()?.to_ne_bytes();
        let [c0, c1] = u16::from(CHECKSUM).to_ne_bytes();
        Some([NEEDS_CHECKSUM, kind, h0, h1, s0, s1, t0, t1, c0, c1])
    }
}

/// A segment that may be joined with others.
struct Segment<'a> {
    packet: &'a [u8],
    layout: Layout,
    sequence: u32,
    is_pushed: bool,
}

impl<'a> Segment<'a> {
    /// `None` for everything but data of an established connection about which there is nothing special, with a right checksum.
    fn read(packet: &'a [u8]) -> Option<Self> {
        let (is_ipv6, tcp) = match packet {
            // Without options; whole, whatever is said about fragments to come; as long as it says.
            [0x45, _, l0, l1, _, _, 0 | 0x40, 0, _, TCP, ..] if usize::from(u16::from_be_bytes([*l0, *l1])) == packet.len() => {
                (false, IPV4_HEADER)
            }
            [v, _, _, _, l0, l1, TCP, ..] if v >> 4 == 6 && usize::from(u16::from_be_bytes([*l0, *l1])) + IPV6_HEADER == packet.len() => {
                (true, IPV6_HEADER)
            }
            _ => return None,
        };
        let header = packet.get(tcp..)?;
        let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, len, flags, _, _, _, _, 0, 0, ..] = *header else { return None };
        let data = match len {
            0x50 => tcp + BASE,
            0x80 if header.get(BASE..BASE + 4)? == TIMESTAMPS => tcp + WITH_TIMESTAMPS,
            _ => return None,
        };
        if flags & !PSH != ACK || packet.len() <= data {
            return None;
        }
        let layout = Layout { is_ipv6, tcp, data };
        let is_right = fold(pseudo(packet, layout)? + sum(header)) == u16::MAX;
        let sequence = u32::from_be_bytes([s0, s1, s2, s3]);
        is_right.then_some(Self { packet, layout, sequence, is_pushed: flags & PSH != 0 })
    }

    fn data(&self) -> &'a [u8] {
        self.packet.get(self.layout.data..).unwrap_or_default()
    }

    fn next(&self) -> u32 {
        // No packet is that long.
        self.sequence.wrapping_add(u32::try_from(self.data().len()).unwrap_or_default())
    }
}

/// The sum of what TCP's checksum covers beside the segment (RFC 9293 §3.1), not folded yet.
fn pseudo(packet: &[u8], Layout { is_ipv6, tcp, .. }: Layout) -> Option<u64> {
    let addresses = if is_ipv6 { packet.get(8..40) } else { packet.get(12..20) };
    let len = u32::try_from(packet.len().checked_sub(tcp)?).ok()?;
    Some(sum(addresses?) + sum(&len.to_be_bytes()) + sum(&[0, TCP]))
}

#[cfg(test)]
mod tests;
