//! Putting AH into a packet and taking it out again (RFC 4302 §3.1.1, transport mode).

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

use super::icv;
use super::view::FIXED;
use crate::algorithm::{IcvAlgorithm, IcvKey, Integrity, Standard};
use crate::packet::{IpHeader, IpPacket, PROTOCOL_AH};
use crate::reason::DropReason;

/// The sequence number to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    /// What the Sequence Number field carries.
    pub low: u32,
    /// The high-order bits of an extended number, which only the ICV covers. PBS never uses them.
    pub high: Option<u32>,
}

/// Why AH could not be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// A fragment: AH is for whole datagrams (RFC 4302 §3.3.4).
    #[error("AH cannot be put on a fragment")]
    Fragment,
    /// With AH the packet would be longer than its length field can tell.
    #[error("the packet is too long for AH")]
    TooLong,
    /// Its form at its destination cannot be told, hence no ICV (RFC 4302 §3.3.3.1).
    #[error("the routing header's final form is unknown")]
    Unpredictable,
    /// The key cannot make an ICV, or its holder failed to.
    #[error("the key gave no ICV")]
    NotSigned,
}

impl From<InsertError> for DropReason {
    fn from(error: InsertError) -> Self {
        match error {
            InsertError::Fragment => DropReason::FragmentNotReassembled,
            InsertError::TooLong => DropReason::TooLarge,
            InsertError::Unpredictable => DropReason::SourceRoute,
            InsertError::NotSigned => DropReason::NotSigned,
        }
    }
}

/// Why AH could not be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet carries no AH")]
pub struct NoAh;

/// Length of the AH that [`insert`] adds, in octets: the least that keeps it a multiple of 4 on IPv4 and of 8 on IPv6
/// (RFC 4302 §2.6, §3.3.3.2.1).
pub(crate) const fn overhead(algorithm: IcvAlgorithm, is_ipv6: bool) -> usize {
    let unit = if is_ipv6 { 8 } else { 4 };
    (FIXED + algorithm.icv_len()).next_multiple_of(unit)
}

/// Writes the packet with an AH into `out`, which is cleared first.
///
/// AH goes behind the IPv4 options, or behind the IPv6 extension headers that routers look at; destination options
/// that no routing header follows stay behind it, so that they are protected like the payload.
///
/// # Errors
///
/// See [`InsertError`]; `out` is then left empty.
pub fn insert(packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, out: &mut Vec<u8>) -> Result<(), InsertError> {
    insert_by::<Standard>(packet, spi, number, key, out)
}

/// [`insert`] by other cryptography than the standard one.
///
/// # Errors
///
/// See [`InsertError`]; `out` is then left empty.
pub fn insert_by<M: Integrity>(
    packet: &IpPacket<'_>,
    spi: u32,
    number: Number,
    key: &IcvKey,
    out: &mut Vec<u8>,
) -> Result<(), InsertError> {
    out.clear();
    let written = append(packet, spi, number, key.algorithm(), out).and_then(|()| seal::<M>(out, packet.before().len(), number, key));
    if written.is_err() {
        out.clear();
    }
    written
}

/// Writes the packet behind what stands in `out`, with an AH whose ICV field is zero behind the initialization vector.
///
/// # Errors
///
/// See [`InsertError`]; a part of it may then stand in `out`.
pub(super) fn append(
    packet: &IpPacket<'_>,
    spi: u32,
    number: Number,
    algorithm: IcvAlgorithm,
    out: &mut Vec<u8>,
) -> Result<(), InsertError> {
    if packet.fragment().is_some() {
        return Err(InsertError::Fragment);
    }
    let begin = out.len();
    let rest = packet.bytes().get(packet.before().len()..).unwrap_or_default();
    let ah_len = overhead(algorithm, matches!(packet.header(), IpHeader::V6(_)));
    // RFC 4302 §2.2: in 32-bit words, minus 2.
    let payload_len = u8::try_from(ah_len / 4 - 2).map_err(|_| InsertError::TooLong)?;
    out.reserve(packet.total_len() + ah_len);
    out.extend_from_slice(packet.before());
    out.extend_from_slice(&[packet.link().protocol, payload_len, 0, 0]);
    out.extend_from_slice(&spi.to_be_bytes());
    out.extend_from_slice(&number.low.to_be_bytes());
    // Nothing is ever sealed twice under one number, so that the number makes a vector that no other packet has (RFC 4543 §3.1).
    let iv = (u64::from(number.high.unwrap_or(0)) << 32 | u64::from(number.low)).to_be_bytes();
    out.extend_from_slice(iv.get(..algorithm.iv_len()).unwrap_or_default());
    out.resize(begin + packet.before().len() + ah_len, 0);
    out.extend_from_slice(rest);
    relink(out.get_mut(begin..).unwrap_or_default(), packet, PROTOCOL_AH)
}

/// Computes the ICV of a packet whose ICV field is zero behind the initialization vector, and puts it there.
fn seal<M: Integrity>(out: &mut [u8], ah_at: usize, number: Number, key: &IcvKey) -> Result<(), InsertError> {
    let packet = IpPacket::parse(out).map_err(|_| InsertError::Unpredictable)?;
    let ah = packet.ah().ok_or(InsertError::Unpredictable)?;
    let icv = icv::input::<M>(&packet, ah, key, number.high).ok_or(InsertError::Unpredictable)?.finish().ok_or(InsertError::NotSigned)?;
    let at = ah_at + FIXED + key.algorithm().iv_len();
    let field = out.get_mut(at..at + icv.octets().len()).ok_or(InsertError::Unpredictable)?;
    field.copy_from_slice(icv.octets());
    Ok(())
}

/// Writes the packet without its AH into `out`, which is cleared first. The inverse of [`insert`].
///
/// # Errors
///
/// [`NoAh`]; `out` is then left empty.
pub fn remove(packet: &IpPacket<'_>, out: &mut Vec<u8>) -> Result<(), NoAh> {
    out.clear();
    let ah = packet.ah().ok_or(NoAh)?;
    out.extend_from_slice(packet.before());
    out.extend_from_slice(packet.after());
    relink(out, packet, ah.next_header()).map_err(|_| NoAh)
}

/// Makes the header of `out` true again: what follows, how long it is, the IPv4 checksum.
fn relink(out: &mut [u8], packet: &IpPacket<'_>, protocol: u8) -> Result<(), InsertError> {
    let len = out.len();
    let link = out.get_mut(packet.link().at).ok_or(InsertError::TooLong)?;
    *link = protocol;
    match packet.header() {
        IpHeader::V4(_) => {
            let mut header = Ipv4Packet::new_unchecked(out);
            header.set_total_len(u16::try_from(len).map_err(|_| InsertError::TooLong)?);
            header.set_next_header(IpProtocol::from(protocol));
            header.fill_checksum();
        }
        IpHeader::V6(header) => {
            let payload_len = u16::try_from(len.saturating_sub(header.base.len())).map_err(|_| InsertError::TooLong)?;
            Ipv6Packet::new_unchecked(out).set_payload_len(payload_len);
        }
    }
    Ok(())
}
