//! An identification for IPv4 datagrams that may be fragmented and have none.
//!
//! The kernel numbers them from 0 on, so that one in 65,536 has 0. That is a number like any other (RFC 6864 §4) until somebody sends
//! the datagram on by a raw socket, as a relay does: to a kernel there 0 means that it has to choose one, and AH, which
//! protects the field (RFC 4302 §3.3.3.1.1), is wrong from then on. So none leaves with 0.

use smoltcp::wire::Ipv4Packet;

use crate::ah::{InsertError, Number};
use crate::algorithm::IcvKey;
use crate::checks::Checks;
use crate::packet::IpPacket;

/// As [`Checks::seal`], with an identification where one is needed.
pub(super) fn seal(
    checks: &dyn Checks,
    packet: &IpPacket<'_>,
    spi: u32,
    number: Number,
    key: &IcvKey,
    out: &mut Vec<u8>,
) -> Result<(), InsertError> {
    if !lacks_one(packet) {
        return checks.seal(packet, spi, number, key, out);
    }
    let mut bytes = packet.bytes().to_vec();
    let mut header = Ipv4Packet::new_unchecked(&mut bytes);
    // Other than those of the neighbouring packets of this flow; AH's own number differs in each.
    header.set_ident(u16::try_from(number.low % 0xffff).unwrap_or_default().saturating_add(1));
    header.fill_checksum();
    let packet = IpPacket::parse(&bytes).map_err(|_| InsertError::Unpredictable)?;
    checks.seal(&packet, spi, number, key, out)
}

fn lacks_one(packet: &IpPacket<'_>) -> bool {
    packet.source().is_ipv4() && {
        let header = Ipv4Packet::new_unchecked(packet.bytes());
        header.ident() == 0 && !header.dont_frag()
    }
}
