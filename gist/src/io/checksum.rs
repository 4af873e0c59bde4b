//! The Internet checksum (RFC 1071) and its incremental correction (RFC 1624).

use std::net::IpAddr;

use super::query_mode::PROTOCOL_UDP;

/// A one's complement sum in the making; every slice but the last must have an even length.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Checksum(u64);

impl Checksum {
    /// Adds the slice's 16-bit words; an odd last octet counts as the upper half of a word.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(2);
        for word in &mut words {
            if let [high, low] = *word {
                self.0 += u64::from(u16::from_be_bytes([high, low]));
            }
        }
        if let [last] = *words.remainder() {
            self.0 += u64::from(last) << 8;
        }
    }

    /// The folded sum, complemented.
    pub(super) fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

/// Checksum of a UDP datagram given in parts, never 0 (which would mean "none").
///
/// With a stored checksum among the parts, a correct datagram gives 0xffff.
pub(super) fn udp_checksum(source: IpAddr, destination: IpAddr, parts: &[&[u8]]) -> u16 {
    // The checksum field itself is left out of the parts of a datagram being built, so the length
    // for the pseudo-header is read from the UDP header, where it stands at offset 4.
    let mut sum = Checksum::default();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum.add(&source.octets());
            sum.add(&destination.octets());
        }
        (source, destination) => {
            sum.add(&as_ipv6(source));
            sum.add(&as_ipv6(destination));
        }
    }
    sum.add(&[0, PROTOCOL_UDP]);
    sum.add(parts.first().and_then(|header| header.get(4..6)).unwrap_or_default());
    for part in parts {
        sum.add(part);
    }
    match sum.finish() {
        0 => 0xffff,
        checksum => checksum,
    }
}

/// The checksum after one 16-bit word under it changed (RFC 1624 §3, equation 3).
pub(super) fn corrected(checksum: u16, old_word: u16, new_word: u16) -> u16 {
    let mut sum = u32::from(!checksum) + u32::from(!old_word) + u32::from(new_word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn as_ipv6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
