//! Many packets with AH at once: written one behind the other, their ICVs computed side by side. The octets are those of
//! [`insert`](super::insert), only sooner.

use std::ops::Range;

use super::batch::BATCH;
use super::icv::{self, Sink};
use super::rewrite::{InsertError, Number, append, insert};
use super::view::FIXED;
use crate::algorithm::{IcvKey, Input, Iv, MacKey, MacValue, Standard};
use crate::packet::IpPacket;

/// With fewer packets there is nothing to be gained from lanes.
const WORTHWHILE: usize = 4;

/// Packets on their way to be sealed. Its memory is kept from one batch to the next, and no key in it beyond [`seal`](Self::seal).
#[derive(Debug, Clone, Default)]
pub struct Sealing {
    pub(super) octets: Vec<u8>,
    /// What ICV inputs begin with, one behind the other.
    pub(super) heads: Heads,
    pub(super) packets: Vec<Packet>,
    /// Room for a packet that is sealed by itself.
    alone: Vec<u8>,
}

/// Where a packet stands, and what is still to be done.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) octets: Range<usize>,
    pub(super) open: Option<Open>,
}

/// A MAC that is still to be computed, and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) key: MacKey,
    pub(super) iv: Iv,
    pub(super) head: Range<usize>,
    /// From where on the packet goes into the ICV as it is.
    pub(super) body: usize,
    /// Where the value stands.
    pub(super) value: usize,
}

impl Sealing {
    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Octets of all packets.
    pub fn octets(&self) -> usize {
        self.octets.len()
    }

    /// A packet by its place; none that is not sealed.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        let packet = self.packets.get(at).filter(|packet| packet.open.is_none())?;
        self.octets.get(packet.octets.clone())
    }

    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.heads.0.clear();
        self.packets.clear();
    }

    /// Takes up a packet, as [`insert`] writes it: behind the others, if it is not refused.
    ///
    /// Signatures are made at once, as are MACs under an extended number and over more options than any honest packet has.
    ///
    /// # Errors
    ///
    /// See [`InsertError`]; nothing has changed then.
    pub fn add(&mut self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey) -> Result<(), InsertError> {
        if let (IcvKey::Mac(mac), None) = (key, number.high) {
            let (octets, heads) = (self.octets.len(), self.heads.0.len());
            let written = self.write(packet, spi, number, (key, mac));
            if !matches!(written, Ok(true)) {
                self.octets.truncate(octets);
                self.heads.0.truncate(heads);
            }
            if written? {
                return Ok(());
            }
        }
        self.add_sealed(|out| insert(packet, spi, number, key, out))
    }

    /// Takes up a packet that `write` has written whole.
    ///
    /// # Errors
    ///
    /// That of `write`; nothing has changed then.
    pub fn add_sealed(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), InsertError>) -> Result<(), InsertError> {
        write(&mut self.alone)?;
        let begin = self.octets.len();
        self.octets.extend_from_slice(&self.alone);
        self.packets.push(Packet { octets: begin..self.octets.len(), open: None });
        Ok(())
    }

    /// Writes a packet and what its ICV input begins with; `false` if that is too long.
    fn write(&mut self, packet: &IpPacket<'_>, spi: u32, number: Number, (key, mac): (&IcvKey, &MacKey)) -> Result<bool, InsertError> {
        let (begin, head) = (self.octets.len(), self.heads.0.len());
        append(packet, spi, number, key.algorithm(), &mut self.octets)?;
        let written = IpPacket::parse(self.octets.get(begin..).unwrap_or_default()).map_err(|_| InsertError::Unpredictable)?;
        let ah = written.ah().ok_or(InsertError::Unpredictable)?;
        icv::head(&mut self.heads, &written, ah, key).ok_or(InsertError::Unpredictable)?;
        if self.heads.0.len() - head > Standard::LONGEST_HEAD {
            return Ok(false);
        }
        let end = self.octets.len();
        let open = Open {
            key: mac.clone(),
            iv: icv::iv(ah, key),
            head: head..self.heads.0.len(),
            body: end.saturating_sub(written.after().len()),
            value: begin + written.before().len() + FIXED + key.algorithm().iv_len(),
        };
        self.packets.push(Packet { octets: begin..end, open: Some(open) });
        Ok(true)
    }

    /// Computes what is still open. Then all packets are as [`insert`] would have written them.
    pub fn seal(&mut self) {
        let Self { octets, heads, packets, .. } = self;
        for packets in packets.chunks_mut(BATCH) {
            let mut values: [Option<MacValue>; BATCH] = [None; BATCH];
            let inputs = packets.iter().enumerate().filter_map(|(at, packet)| Some((at, packet.input(octets, &heads.0)?)));
            let mut keep = |at: usize, value| {
                if let Some(place) = values.get_mut(at) {
                    *place = Some(value);
                }
            };
            if packets.len() < WORTHWHILE {
                inputs.for_each(|(at, input)| keep(at, Standard::compute(&input)));
            } else {
                Standard::compute_many(inputs, &mut keep);
            }
            for (packet, value) in packets.iter_mut().zip(values) {
                // What has no value stays open, and does not go out.
                let Some(value) = value.as_ref().map(MacValue::octets) else { continue };
                let Some(at) = packet.open.as_ref().map(|open| open.value) else { continue };
                if let Some(field) = octets.get_mut(at..at + value.len()) {
                    field.copy_from_slice(value);
                    packet.open = None;
                }
            }
        }
    }
}

impl Packet {
    /// What its MAC is computed over, if it has none yet.
    fn input<'a>(&'a self, octets: &'a [u8], heads: &'a [u8]) -> Option<Input<'a>> {
        let Open { key, iv, head, body, .. } = self.open.as_ref()?;
        Some(Input { key, iv: *iv, head: heads.get(head.clone())?, body: octets.get(*body..self.octets.end)? })
    }
}

/// What inputs begin with.
#[derive(Debug, Clone, Default)]
pub(super) struct Heads(pub(super) Vec<u8>);

impl Sink for Heads {
    fn update(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(piece);
    }
}
