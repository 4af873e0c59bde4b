//! What is passed on of an error: as much as its reader needs, or the same about the packet without its AH.

use std::net::IpAddr;

use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, Ipv4Packet, Ipv6Packet};

use super::quote::{HEADER, Kind, LEAST_BEHIND, QuotingError};
use crate::packet::IpPacket;

/// Too little is quoted to find out whom the error is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the ICMP error quotes too little of the packet behind its AH")]
pub struct TooShort;

/// Writes the error with AH taken out of its quote and, if it is about size, with `mtu` into `out`, which is cleared first. What
/// comes out is shorter than what came in, by AH and by extensions of the error (RFC 4884).
///
/// # Errors
///
/// [`TooShort`]; `out` is then left empty.
pub fn translate(error: &QuotingError<'_>, mtu: u32, out: &mut Vec<u8>) -> Result<(), TooShort> {
    out.clear();
    let written = write(error, mtu, out);
    if written.is_none() {
        out.clear();
    }
    written.ok_or(TooShort)
}

/// Writes the error with what its reader needs of the quote into `out`, which is cleared first. RFC 4443 §3 would have as much as
/// possible, RFC 792 asks for no more than this; what is behind could be anything.
pub(crate) fn cut(error: &QuotingError<'_>, out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    out.extend_from_slice(error.before);
    out.extend_from_slice(error.header);
    out.extend_from_slice(error.quote.needed());
    let mtu = if let Kind::TooBig(mtu) = error.kind { mtu } else { 0 };
    finish(error, mtu, out)
}

fn write(error: &QuotingError<'_>, mtu: u32, out: &mut Vec<u8>) -> Option<()> {
    let quote = &error.quote;
    let behind = quote.behind();
    let protocol = *quote.bytes.get(quote.ah_at)?;
    if behind.len() < LEAST_BEHIND {
        return None;
    }
    out.extend_from_slice(error.before);
    out.extend_from_slice(error.header);
    let quote_at = out.len();
    out.extend_from_slice(quote.bytes.get(..quote.ah_at)?);
    out.extend_from_slice(behind);
    without_ah(out.get_mut(quote_at..)?, quote.link_at, protocol, quote.ah_len)?;
    finish(error, mtu, out)
}

/// Makes both headers true for what has become of the quote.
fn finish(error: &QuotingError<'_>, mtu: u32, out: &mut [u8]) -> Option<()> {
    let (ip, message) = out.split_at_mut(error.before.len());
    let fields = message.first_chunk_mut::<HEADER>()?;
    let [.., _, _, a, b, c, d] = fields;
    let is_ipv4 = error.destination.is_ipv4();
    // No extensions follow any more; on IPv6 "too big" has no such length.
    if is_ipv4 {
        *b = 0;
    } else if error.kind == Kind::Other {
        *a = 0;
    }
    if matches!(error.kind, Kind::TooBig(_)) {
        let [m0, m1, m2, m3] = mtu.to_be_bytes();
        if is_ipv4 {
            (*c, *d) = (m2, m3);
        } else {
            (*a, *b, *c, *d) = (m0, m1, m2, m3);
        }
    }
    let message_len = message.len();
    match IpAddr::is_ipv4(&error.destination) {
        true => {
            Icmpv4Packet::new_unchecked(&mut *message).fill_checksum();
            let total = u16::try_from(ip.len().checked_add(message_len)?).ok()?;
            let mut header = Ipv4Packet::new_unchecked(ip);
            header.set_total_len(total);
            header.fill_checksum();
        }
        false => {
            let mut header = Ipv6Packet::new_unchecked(ip);
            let ends = (header.src_addr(), header.dst_addr());
            Icmpv6Packet::new_unchecked(&mut *message).fill_checksum(&ends.0, &ends.1);
            let extensions = error.before.len().checked_sub(40)?;
            header.set_payload_len(u16::try_from(extensions.checked_add(message_len)?).ok()?);
        }
    }
    // Whoever reads it must be able to.
    IpPacket::parse(out).ok().map(|_| ())
}

/// Makes the header of the quoted packet true again.
fn without_ah(quoted: &mut [u8], link_at: usize, protocol: u8, ah_len: usize) -> Option<()> {
    let shorter = u16::try_from(ah_len).ok()?;
    *quoted.get_mut(link_at)? = protocol;
    if quoted.first()? >> 4 == 4 {
        let mut header = Ipv4Packet::new_unchecked(quoted);
        header.set_total_len(header.total_len().checked_sub(shorter)?);
        header.fill_checksum();
    } else {
        let length = quoted.get_mut(4..6)?;
        let payload_len = u16::from_be_bytes(*length.first_chunk::<2>()?).checked_sub(shorter)?;
        length.copy_from_slice(&payload_len.to_be_bytes());
    }
    Some(())
}
