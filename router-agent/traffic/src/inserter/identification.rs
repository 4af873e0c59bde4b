//! The identification of IPv4 datagrams that may be fragmented.
//!
//! A node that makes datagrams whole knows their later parts by addresses, protocol and this number alone (RFC 791 §3.2); nothing in them
//! says which flow they are of. So whoever sends a first part under an SPI of his own, and the number that a datagram of another flow
//! between the same hosts is about to have, spoils that one. The kernel counts the numbers up, so that one who sees a packet knows
//! those of the next ones; from a key of this host they cannot be told beforehand.
//!
//! None leaves with 0, a number like any other (RFC 6864 §4) until somebody sends the datagram on by a raw socket, as a relay does:
//! to a kernel there 0 means that it has to choose one, and AH, which protects the field (RFC 4302 §3.3.3.1.1), is wrong from then on.

use smoltcp::wire::Ipv4Packet;

use crate::ah::{InsertError, Number, Sealing};
use crate::algorithm::{IcvKey, Integrity, KeyLengthError, MacAlgorithm, MacKey, Standard};
use crate::checks::Checks;
use crate::packet::IpPacket;

/// What the identifications of a host are made of; prepared once, since each such packet asks for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdentificationKey(MacKey);

impl IdentificationKey {
    /// Of octets that nobody can guess.
    ///
    /// # Errors
    ///
    /// As many as [`MacAlgorithm::HmacSha256_128`] does not take: it takes 32.
    pub fn new(octets: &[u8]) -> Result<Self, KeyLengthError> {
        MacKey::new(MacAlgorithm::HmacSha256_128, octets).map(Self)
    }

    /// That of a packet, by its SPI and number, of which no two are alike.
    pub(super) fn of(&self, spi: u32, number: u32) -> u16 {
        let mut mac = Standard::begin(&self.0, [0; 8]);
        Standard::update(&mut mac, &spi.to_be_bytes());
        Standard::update(&mut mac, &number.to_be_bytes());
        let [high, low, ..] = Standard::finish(mac).padded();
        u16::from_be_bytes([high, low]).max(1)
    }
}

/// As [`Checks::seal_among`], with an identification of its own if the packet may be fragmented: without `identifications` only where it
/// has none. `changed` is room for such a packet.
pub(super) fn seal(
    checks: &dyn Checks,
    identifications: Option<&IdentificationKey>,
    packet: &IpPacket<'_>,
    (spi, number): (u32, Number),
    key: &IcvKey,
    (changed, sealing): (&mut Vec<u8>, &mut Sealing),
) -> Result<(), InsertError> {
    let Some(present) = identification(packet).filter(|present| *present == 0 || identifications.is_some()) else {
        return checks.seal_among(packet, spi, number, key, sealing);
    };
    // Other than those of the neighbouring packets of this flow; AH's own number differs in each.
    let counted = || u16::try_from(number.low % 0xffff).unwrap_or(present).saturating_add(1);
    changed.clear();
    changed.extend_from_slice(packet.bytes());
    let mut header = Ipv4Packet::new_unchecked(&mut *changed);
    header.set_ident(identifications.map_or_else(counted, |key| key.of(spi, number.low)));
    header.fill_checksum();
    let packet = IpPacket::parse(changed).map_err(|_| InsertError::Unpredictable)?;
    checks.seal_among(&packet, spi, number, key, sealing)
}

/// The identification of an IPv4 packet that may be fragmented.
fn identification(packet: &IpPacket<'_>) -> Option<u16> {
    let header = packet.source().is_ipv4().then(|| Ipv4Packet::new_unchecked(packet.bytes()))?;
    (!header.dont_frag()).then(|| header.ident())
}
