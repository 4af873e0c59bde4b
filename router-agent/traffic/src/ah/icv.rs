//! The ICV input (RFC 4302 §3.3.3), fed to the algorithm in pieces: the payload is never copied.

use std::net::Ipv6Addr;

use super::batch::{self, Question};
use super::view::AhView;
use crate::algorithm::{IcvContext, IcvKey, Integrity, Iv, Standard};
use crate::packet::{Extension, IpHeader, IpPacket, Ipv4Header, Ipv6Header, Ipv6Option, Ipv6Options, Routing};

/// What replaces mutable data: as long as the longest of it, a signature.
const ZEROS: [u8; 1024] = [0; 1024];

/// Length of the header that an atomic fragment carries and the ICV input does not.
const FRAGMENT_HEADER: u16 = 8;

/// Whether the packet's AH carries the ICV that `key` gives (RFC 4302 §3.4.4); compared in constant time.
///
/// `high` are the high-order bits of an extended sequence number, `None` if the association does not use them.
/// A packet without AH, and one whose form at its destination cannot be told, never match.
pub fn icv_matches(packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
    batch::matches_whole(&Question { packet, key, high }).unwrap_or_else(|| icv_matches_by::<Standard>(packet, key, high))
}

/// [`icv_matches`] by other cryptography than the standard one.
pub fn icv_matches_by<M: Integrity>(packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
    packet.ah().is_some_and(|ah| {
        let value = ah.icv_field().get(key.algorithm().iv_len()..).unwrap_or_default();
        input::<M>(packet, ah, key, high).is_some_and(|icv| icv.verifies(value))
    })
}

/// The ICV input of a packet, whatever value its ICV field holds. `None` if its form at its destination cannot be told.
pub(super) fn input<'k, M: Integrity>(
    packet: &IpPacket<'_>,
    ah: &AhView<'_>,
    key: &'k IcvKey,
    high: Option<u32>,
) -> Option<IcvContext<'k, M>> {
    let mut icv = key.begin(iv(ah, key));
    head(&mut icv, packet, ah, key)?;
    icv.update(packet.after());
    if let Some(high) = high {
        icv.update(&high.to_be_bytes());
    }
    Some(icv)
}

/// The initialization vector in a packet; zero if there is none.
pub(super) fn iv(ah: &AhView<'_>, key: &IcvKey) -> Iv {
    let iv = ah.icv_field().get(..key.algorithm().iv_len()).unwrap_or_default();
    iv.first_chunk().copied().unwrap_or_default()
}

/// What the input begins with: all up to the end of AH. `None` as for [`input`].
pub(super) fn head(icv: &mut impl Sink, packet: &IpPacket<'_>, ah: &AhView<'_>, key: &IcvKey) -> Option<()> {
    let (iv_len, icv_len) = (key.algorithm().iv_len(), key.algorithm().icv_len());
    match packet.header() {
        IpHeader::V4(header) => ipv4(icv, header),
        IpHeader::V6(header) => ipv6(icv, header)?,
    }
    icv.update(ah.fixed());
    // The value itself counts as zero, an initialization vector and the explicit padding as they are (§3.3.3.2.1).
    let padding = ah.icv_field().get(icv_len..)?;
    if iv_len > 0 {
        icv.update(&iv(ah, key));
    }
    icv.zeros(icv_len.saturating_sub(iv_len));
    if !padding.is_empty() {
        icv.update(padding);
    }
    Some(())
}

/// Where the input goes, piece by piece.
pub(super) trait Sink {
    /// Takes the next piece.
    fn update(&mut self, piece: &[u8]);

    /// Takes so many zeros, in place of mutable data.
    fn zeros(&mut self, len: usize) {
        self.update(ZEROS.get(..len).unwrap_or(&ZEROS));
    }
}

impl<M: Integrity> Sink for IcvContext<'_, M> {
    fn update(&mut self, piece: &[u8]) {
        IcvContext::update(self, piece);
    }
}

/// RFC 4302 §3.3.3.1.1.
fn ipv4(icv: &mut impl Sink, header: &Ipv4Header<'_>) {
    let mut base = *header.base;
    base[1] = 0; // DSCP, ECN
    base[6..9].fill(0); // flags, fragment offset, TTL
    base[10..12].fill(0); // header checksum
    base[16..20].copy_from_slice(&header.final_destination.octets());
    icv.update(&base);
    for option in header.options() {
        if option.is_immutable() {
            icv.update(option.bytes);
        } else {
            icv.zeros(option.bytes.len());
        }
    }
}

/// RFC 4302 §3.3.3.1.2.
fn ipv6(icv: &mut impl Sink, header: &Ipv6Header<'_>) -> Option<()> {
    let fragments = header.extensions().filter(|extension| matches!(extension, Extension::AtomicFragment { .. })).count();
    let mut base = *header.base;
    // Appendix A2: a Fragment header that reassembly left in place is taken out again.
    let payload_len = u16::from_be_bytes([base[4], base[5]]).checked_sub(FRAGMENT_HEADER * u16::try_from(fragments).ok()?)?;
    base[0] &= 0xf0; // traffic class: DSCP, ECN
    base[1..4].fill(0); // … and flow label
    base[4..6].copy_from_slice(&payload_len.to_be_bytes());
    base[6] = following(base[6], header.extensions());
    base[7] = 0; // hop limit
    base[24..40].copy_from_slice(&header.final_destination.octets());
    icv.update(&base);

    let mut visiting = header.destination;
    let mut rest = header.extensions();
    while let Some(extension) = rest.next() {
        let next = following(extension.next(), rest);
        match extension {
            Extension::AtomicFragment { .. } => {}
            Extension::Options { len, options, .. } => {
                icv.update(&[next, len]);
                ipv6_options(icv, options);
            }
            Extension::Routing(routing) => visiting = routing_header(icv, &routing, next, visiting)?,
        }
    }
    Some(())
}

/// What follows a header that names `next`, once the Fragment headers right behind it are taken out.
fn following<'a>(mut next: u8, behind: impl Iterator<Item = Extension<'a>>) -> u8 {
    for extension in behind {
        match extension {
            Extension::AtomicFragment { next: named } => next = named,
            Extension::Options { .. } | Extension::Routing(_) => break,
        }
    }
    next
}

/// §3.3.3.1.2.2: type and length always count, the data unless a bit of the type says that it may change.
fn ipv6_options(icv: &mut impl Sink, options: &[u8]) {
    const MAY_CHANGE: u8 = 0x20;
    // The parser has walked the same octets to the end, so that no error is left to be found here.
    for option in Ipv6Options::of(options).flatten() {
        match option {
            Ipv6Option::Pad1 => icv.update(&[0]),
            Ipv6Option::Other { head, data } => {
                icv.update(&head);
                if head[0] & MAY_CHANGE == 0 {
                    icv.update(data);
                } else {
                    icv.zeros(data.len());
                }
            }
        }
    }
}

/// Appendix A2: as it will be when no segment is left. Answers the address under which the packet leaves this header;
/// `visiting` is the one under which it comes.
fn routing_header(icv: &mut impl Sink, routing: &Routing<'_>, next: u8, visiting: Ipv6Addr) -> Option<Ipv6Addr> {
    let [len, kind] = routing.len_and_type;
    icv.update(&[next, len, kind, 0]);
    let left = usize::from(routing.segments_left);
    if left == 0 {
        icv.update(routing.rest);
        return Some(visiting);
    }
    let (reserved, _) = routing.rest.split_first_chunk::<4>()?;
    let (visited, to_visit) = routing.addresses.split_at_checked(routing.addresses.len().checked_sub(left)?)?;
    let (last, before_last) = to_visit.split_last()?;
    icv.update(reserved);
    icv.update(visited.as_flattened());
    icv.update(&visiting.octets());
    icv.update(before_last.as_flattened());
    Some(Ipv6Addr::from(*last))
}
