//! The AH header on the wire (RFC 4302 §2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +---------------+---------------+-------------------------------+
//! |  Next Header  |  Payload Len  |           RESERVED            |
//! +---------------+---------------+-------------------------------+
//! |               Security Parameters Index (SPI)                 |
//! +---------------------------------------------------------------+
//! |                    Sequence Number Field                      |
//! +---------------------------------------------------------------+
//! |       Integrity Check Value (variable), then padding          |
//! +---------------------------------------------------------------+
//! ```

use crate::packet::Malformed;

/// Length of the fields before the ICV, in octets.
pub(crate) const FIXED: usize = 12;

/// A view of an AH that lies wholly within its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AhView<'a> {
    fixed: &'a [u8; FIXED],
    icv: &'a [u8],
}

impl<'a> AhView<'a> {
    /// Splits an AH from what follows it; `at` is where `bytes` stand in the packet.
    pub(crate) fn split(bytes: &'a [u8], at: usize) -> Result<(Self, &'a [u8]), Malformed> {
        let cut = Malformed { what: "AH is cut short", at };
        // RFC 4302 §2.2: Payload Len counts 32-bit words, minus 2.
        let len = 4 * (usize::from(*bytes.get(1).ok_or(cut)?) + 2);
        let (header, after) = bytes.split_at_checked(len).ok_or(cut)?;
        let (fixed, icv) = header.split_first_chunk::<FIXED>().ok_or(Malformed { what: "AH Payload Len is too small", at })?;
        Ok((Self { fixed, icv }, after))
    }

    /// Next Header: what AH protects.
    pub const fn next_header(&self) -> u8 {
        self.fixed[0]
    }

    /// Payload Len: length of the whole header in 32-bit words, minus 2.
    pub const fn payload_len(&self) -> u8 {
        self.fixed[1]
    }

    /// RESERVED: covered by the ICV, otherwise ignored (RFC 4302 §2.3).
    pub const fn reserved(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// Security Parameters Index.
    pub const fn spi(&self) -> u32 {
        u32::from_be_bytes([self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]])
    }

    /// Sequence Number, the low 32 bits of it if the association uses extended ones.
    pub const fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.fixed[8], self.fixed[9], self.fixed[10], self.fixed[11]])
    }

    /// ICV field with its padding; how much of it is the ICV is the algorithm's matter.
    pub const fn icv_field(&self) -> &'a [u8] {
        self.icv
    }

    /// Length of the whole header in octets.
    pub const fn header_len(&self) -> usize {
        FIXED + self.icv.len()
    }

    /// The fields before the ICV.
    pub(crate) const fn fixed(&self) -> &'a [u8; FIXED] {
        self.fixed
    }
}
