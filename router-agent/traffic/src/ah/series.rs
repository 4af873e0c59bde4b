//! Packets that differ in little, as the segments of a super-packet do: what they have in common is read and judged with the first of them.
//!
//! The octets are those of [`Sealing::add`], only sooner: headers are copied and their fields changed, data are written where they are
//! sealed.

use std::ops::Range;

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::sealing::{Open, Packet, Sealing};
use super::view::FIXED;
use crate::algorithm::{Iv, MacKey};

/// Where the Sequence Number Field stands in AH (RFC 4302 §2).
const NUMBER: usize = 8;

/// What the packets of a series begin with: headers, and the ICV input up to the end of AH.
#[derive(Debug)]
pub(crate) struct Series {
    /// In [`Sealing::octets`], up to the data.
    headers: Range<usize>,
    /// In [`Sealing::heads`].
    head: Range<usize>,
    /// Where AH begins, in both.
    ah: usize,
    /// Where what AH protects begins.
    inner: usize,
    key: MacKey,
}

/// What is another packet's own.
#[derive(Debug)]
pub(crate) struct Next<'a> {
    /// Sequence number.
    pub(crate) number: u32,
    /// IPv4 identification.
    pub(crate) identification: u16,
    /// What follows the headers.
    pub(crate) data: &'a [u8],
}

impl Sealing {
    /// A series that goes on from the packet that was taken up last, whose headers behind AH are `header` octets long. `None` if it is
    /// sealed already, as signed ones are, or its ICV input has fields elsewhere than the packet itself.
    pub(crate) fn series(&self, header: usize) -> Option<Series> {
        let packet = self.packets.last()?;
        let Open { key, head, body, value, .. } = packet.open.as_ref()?;
        let begin = packet.octets.start;
        let inner = body.checked_sub(begin)?;
        let ah = value.checked_sub(begin + FIXED + key.algorithm().iv_len())?;
        let headers = begin..body + header;
        (head.len() == inner && headers.end <= packet.octets.end).then(|| Series {
            headers,
            head: head.clone(),
            ah,
            inner,
            key: key.clone(),
        })
    }

    /// Takes up another packet of a series. `write` makes the copied header that AH protects, which begins at the place that it is told,
    /// that of these data. `false` if the packet would be too long, or `write` refuses: then nothing has changed.
    pub(crate) fn add_next(&mut self, series: &Series, next: &Next<'_>, write: impl FnOnce(&mut [u8], usize) -> bool) -> bool {
        let (begin, head) = (self.octets.len(), self.heads.0.len());
        let Ok(len) = u16::try_from(series.headers.len() + next.data.len()) else { return false };
        self.octets.extend_from_within(series.headers.clone());
        self.octets.extend_from_slice(next.data);
        self.heads.0.extend_from_within(series.head.clone());
        let octets = self.octets.get_mut(begin..).unwrap_or_default();
        let input = self.heads.0.get_mut(head..).unwrap_or_default();
        let is_written = series.number(octets, next, len) && series.number(input, next, len) && write(octets, series.inner);
        if !is_written {
            self.octets.truncate(begin);
            self.heads.0.truncate(head);
            return false;
        }
        if let [first, ..] = octets
            && *first >> 4 == 4
        {
            Ipv4Packet::new_unchecked(octets).fill_checksum();
        }
        let iv_len = series.key.algorithm().iv_len();
        let open = Open {
            key: series.key.clone(),
            iv: if iv_len == 0 { Iv::default() } else { vector(next.number) },
            head: head..self.heads.0.len(),
            body: begin + series.inner,
            value: begin + series.ah + FIXED + iv_len,
        };
        self.packets.push(Packet { octets: begin..self.octets.len(), open: Some(open) });
        true
    }
}

impl Series {
    /// Writes the fields that are the next packet's own and stand in the packet as in its ICV input, which has no header checksum.
    fn number(&self, octets: &mut [u8], next: &Next<'_>, len: u16) -> bool {
        match octets {
            [first, ..] if *first >> 4 == 4 => {
                let mut header = Ipv4Packet::new_unchecked(&mut *octets);
                header.set_total_len(len);
                header.set_ident(next.identification);
            }
            [_, ..] => {
                let base = smoltcp::wire::IPV6_HEADER_LEN as u16;
                Ipv6Packet::new_unchecked(&mut *octets).set_payload_len(len.saturating_sub(base));
            }
            [] => return false,
        }
        let Some(ah) = octets.get_mut(self.ah..self.inner) else { return false };
        let Some((number, icv)) = ah.get_mut(NUMBER..).and_then(<[u8]>::split_first_chunk_mut) else { return false };
        *number = next.number.to_be_bytes();
        let iv_len = self.key.algorithm().iv_len();
        icv.iter_mut().take(iv_len).zip(vector(next.number)).for_each(|(place, octet)| *place = octet);
        true
    }
}

/// The initialization vector under a number, as [`insert`](super::insert) makes it.
fn vector(number: u32) -> Iv {
    u64::from(number).to_be_bytes()
}
