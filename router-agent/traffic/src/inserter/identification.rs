//! The identification of IPv4 datagrams that may be fragmented.
//!
//! A node that makes datagrams whole knows their later parts by addresses, protocol and this number alone (RFC 791 §3.2); nothing in them
//! says which flow they are of. So whoever sends a first part under an SPI of his own, and the number that a datagram of another flow
//! between the same hosts is about to have, spoils that one. The kernel counts the numbers up, so that one who sees a packet knows
//! those of the next ones; from a key of this host they cannot be told beforehand.
//!
//! None leaves with 0, a number like any other (RFC 6864 §4) until somebody sends the datagram on by a raw socket, as a relay does: to a
//! kernel there 0 means that it has to choose one, and AH, which protects the field (RFC 4302 §3.3.3.1.1), is wrong from then on.

use std::fmt;

use smoltcp::wire::Ipv4Packet;
use zeroize::Zeroize;

use crate::ah::{InsertError, Number};
use crate::algorithm::{IcvKey, two_octets};
use crate::checks::Checks;
use crate::packet::IpPacket;

/// What the identifications of a host are made of.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IdentificationKey([u8; 32]);

impl IdentificationKey {
    /// Of octets that nobody can guess.
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// That of a packet, by its SPI and number, of which no two are alike.
    fn of(&self, spi: u32, number: u32) -> u16 {
        let [s0, s1, s2, s3] = spi.to_be_bytes();
        let [n0, n1, n2, n3] = number.to_be_bytes();
        u16::from_be_bytes(two_octets(&self.0, &[s0, s1, s2, s3, n0, n1, n2, n3])).max(1)
    }
}

impl Drop for IdentificationKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for IdentificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentificationKey")
    }
}

/// As [`Checks::seal`], with an identification of its own if the packet may be fragmented: without `identifications` only where it has none.
/// `changed` is room for such a packet.
pub(super) fn seal(
    checks: &dyn Checks,
    identifications: Option<&IdentificationKey>,
    packet: &IpPacket<'_>,
    (spi, number): (u32, Number),
    key: &IcvKey,
    [changed, out]: [&mut Vec<u8>; 2],
) -> Result<(), InsertError> {
    let Some(present) = identification(packet).filter(|present| *present == 0 || identifications.is_some()) else {
        return checks.seal(packet, spi, number, key, out);
    };
    // Other than those of the neighbouring packets of this flow; AH's own number differs in each.
    let counted = || u16::try_from(number.low % 0xffff).unwrap_or(present).saturating_add(1);
    changed.clear();
    changed.extend_from_slice(packet.bytes());
    let mut header = Ipv4Packet::new_unchecked(&mut *changed);
    header.set_ident(identifications.map_or_else(counted, |key| key.of(spi, number.low)));
    header.fill_checksum();
    let packet = IpPacket::parse(changed).map_err(|_| InsertError::Unpredictable)?;
    checks.seal(&packet, spi, number, key, out)
}

/// The identification of an IPv4 packet that may be fragmented.
fn identification(packet: &IpPacket<'_>) -> Option<u16> {
    let header = packet.source().is_ipv4().then(|| Ipv4Packet::new_unchecked(packet.bytes()))?;
    (!header.dont_frag()).then(|| header.ident())
}
