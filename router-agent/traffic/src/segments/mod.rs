//! TCP super-packets: what a host's stack hands down as one packet and means as many segments.
//!
//! The kernel would cut them before the packet queue, and each segment would go up and come back by itself. Here a super-packet comes up
//! whole, is cut ([`Whole`]), and its segments, each with AH of its own, leave with one call for all: in frames where their way is known
//! (`hop`), and else by a raw socket. It is itself dropped. It never goes back by a verdict: the kernel would cut it once more, through AH.
//!
//! How long a segment may be the queue does not tell. The connection's own socket does: that is the one place that knows
//! what the other end takes, what the path carries, and which options the stack has counted for. Where nobody can tell, and whenever
//! not all segments may go out at once, the super-packet goes on to the other queue instead, before which the kernel cuts it.

mod frames;
mod hop;
mod outlet;
mod size;
mod way;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet, TcpPacket};

use crate::packet::{IpHeader, IpPacket};

pub use hop::{hear_link, hear_neighbour, hear_policies, hear_route};
use outlet::Outlet;
pub(crate) use outlet::Room;
use size::Sizes;
pub use size::hear;
pub(crate) use way::Way;

const TCP: u8 = 6;
/// Length of the TCP header without options.
const BASE: usize = 20;
/// Where the TCP checksum stands in its header.
const CHECKSUM: usize = 16;
/// Options that protect a whole segment (RFC 2385, RFC 5925): they cannot be cut.
const MD5: u8 = 19;
const AUTHENTICATION: u8 = 29;
const TIMESTAMPS: u8 = 8;
/// Octets that timestamps take up, aligned.
const TIMESTAMPS_LEN: usize = 12;

/// A TCP super-packet that can be cut.
#[derive(Debug, Clone, Copy)]
pub struct Whole<'a> {
    bytes: &'a [u8],
    is_ipv6: bool,
    /// Where TCP begins.
    tcp: usize,
    /// Where its data begins.
    data: usize,
    /// Octets of data in each segment but the last.
    size: usize,
}

impl<'a> Whole<'a> {
    /// Reads a packet whose segments carry at most `largest` octets of data, as the connection's socket counts them: options that come
    /// and go take up some of that. `None` for anything but data of an established connection.
    pub fn read(packet: &IpPacket<'a>, largest: usize) -> Option<Self> {
        let (bytes, tcp) = (packet.bytes(), packet.before().len());
        if packet.link().protocol != TCP || packet.ah().is_some() || packet.fragment().is_some() {
            return None;
        }
        let header = TcpPacket::new_checked(bytes.get(tcp..)?).ok()?;
        let data = tcp + usize::from(header.header_len());
        if header.syn() || header.rst() || header.urg() || !header.ack() {
            return None;
        }
        let options = Options::read(bytes.get(tcp + BASE..data)?)?;
        // What the socket counts with is without timestamps already, and with them.
        let counted = BASE + if options.timestamps { TIMESTAMPS_LEN } else { 0 };
        let size = largest.checked_sub((data - tcp).saturating_sub(counted)).filter(|size| *size > 0)?;
        Some(Self { bytes, is_ipv6: matches!(packet.header(), IpHeader::V6(_)), tcp, data, size })
    }

    /// How many segments there are.
    pub fn count(&self) -> usize {
        self.len().div_ceil(self.size).max(1)
    }

    /// Octets of all segments together.
    pub fn total(&self) -> usize {
        self.len() + self.count() * self.data
    }

    /// Octets of the longest segment, which is the first.
    pub(crate) fn longest(&self) -> usize {
        self.data + self.len().min(self.size)
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.data
    }

    /// Writes a segment by its place, with checksums, into `out`, which is cleared first. `false` if there is none.
    ///
    /// As RFC 9293 and the kernel have it: each has its own sequence number, FIN and PSH are the last one's, CWR is the first one's (RFC
    /// 3168 §6.1.2), and identifications go on from the first one's. None is 0, for which a raw socket would choose another.
    pub fn write(&self, at: usize, out: &mut Vec<u8>) -> bool {
        out.clear();
        let (Some(headers), Some(data)) = (self.bytes.get(..self.data), self.data(at)) else { return false };
        out.extend_from_slice(headers);
        out.extend_from_slice(data);
        let (Ok(len), Ok(payload)) = (u16::try_from(out.len()), u16::try_from(out.len().saturating_sub(40))) else { return false };
        if self.is_ipv6 {
            Ipv6Packet::new_unchecked(&mut *out).set_payload_len(payload);
        } else {
            let mut ip = Ipv4Packet::new_unchecked(&mut *out);
            ip.set_total_len(len);
            ip.set_ident(self.identification(at));
            ip.fill_checksum();
        }
        self.finish(at, out, self.tcp)
    }

    /// The data of a segment; `None` if there is no such segment.
    pub(crate) fn data(&self, at: usize) -> Option<&'a [u8]> {
        let from = at.checked_mul(self.size).filter(|_| at < self.count())?;
        self.bytes.get(self.data + from..self.data + self.len().min(from + self.size))
    }

    /// Octets of the TCP header.
    pub(crate) const fn header(&self) -> usize {
        self.data - self.tcp
    }

    /// The IPv4 identification of a segment.
    pub(crate) fn identification(&self, at: usize) -> u16 {
        let first = if self.is_ipv6 { 0 } else { Ipv4Packet::new_unchecked(self.bytes).ident() };
        first.wrapping_add(u16::try_from(at).unwrap_or_default()).max(1)
    }

    /// Whether segments may be fragmented on their way.
    pub(crate) fn may_be_fragmented(&self) -> bool {
        !self.is_ipv6 && !Ipv4Packet::new_unchecked(self.bytes).dont_frag()
    }

    /// Makes the TCP header from `tcp` on, copied from any of the segments, that of one by its place, whose data stand behind it already.
    pub(crate) fn finish(&self, at: usize, packet: &mut [u8], tcp: usize) -> bool {
        let Some((octets, own)) = packet.get_mut(tcp..).zip(self.bytes.get(self.tcp..)) else { return false };
        let (mut header, own) = (TcpPacket::new_unchecked(octets), TcpPacket::new_unchecked(own));
        let is_last = at + 1 == self.count();
        header.set_seq_number(own.seq_number() + at * self.size);
        header.set_fin(own.fin() && is_last);
        header.set_psh(own.psh() && is_last);
        header.set_cwr(own.cwr() && at == 0);
        finish(packet, tcp, self.is_ipv6)
    }
}

/// Writes a whole TCP packet whose checksum the kernel has left open into `out`, with it. `None` for any other packet.
pub fn finished(packet: &IpPacket<'_>, out: &mut Vec<u8>) -> Option<()> {
    let tcp = packet.before().len();
    if packet.link().protocol != TCP || packet.fragment().is_some() || packet.is_source_routed() {
        return None;
    }
    out.clear();
    out.extend_from_slice(packet.bytes());
    finish(out, tcp, matches!(packet.header(), IpHeader::V6(_))).then_some(())
}

/// Computes the checksum of the TCP segment from `tcp` on (RFC 9293 §3.1), and puts it there.
fn finish(packet: &mut [u8], tcp: usize, is_ipv6: bool) -> bool {
    let addresses = if is_ipv6 { packet.get(8..40) } else { packet.get(12..20) };
    let Some((addresses, len)) = addresses.zip(packet.len().checked_sub(tcp).and_then(|len| u32::try_from(len).ok())) else { return false };
    let pseudo = sum(addresses) + sum(&len.to_be_bytes()) + sum(&[0, TCP]);
    let Some(octets) = packet.get_mut(tcp..) else { return false };
    let Some(field) = octets.get_mut(CHECKSUM..CHECKSUM + 2) else { return false };
    field.fill(0);
    let folded = !fold(pseudo + sum(octets));
    let Some(field) = octets.get_mut(CHECKSUM..CHECKSUM + 2) else { return false };
    // The sum of words as they lie in memory is the sum as they lie in memory (RFC 1071 §2).
    field.copy_from_slice(&folded.to_ne_bytes());
    true
}

/// One's complement sum of 16-bit words as they lie in memory, not folded yet; the last octet of an odd number has a zero behind it.
pub(crate) fn sum(octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<4>();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(place, octet)| *place = *octet);
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>() + u64::from(u32::from_ne_bytes(last))
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or_default()
}

/// What is to be known of TCP options.
struct Options {
    timestamps: bool,
}

impl Options {
    /// `None` if there is one that protects the segment, or if they cannot be read.
    fn read(mut octets: &[u8]) -> Option<Self> {
        let mut options = Self { timestamps: false };
        loop {
            match octets {
                [] | [0, ..] => return Some(options),
                [1, rest @ ..] => octets = rest,
                [kind, len, ..] => {
                    let len = usize::from(*len).max(2);
                    match *kind {
                        MD5 | AUTHENTICATION => return None,
                        kind => options.timestamps |= kind == TIMESTAMPS,
                    }
                    octets = octets.get(len..)?;
                }
                [_] => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
