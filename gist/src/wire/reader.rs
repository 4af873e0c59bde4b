//! Reading a value front to back, with the position at hand for error reports.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, Bytes};

use super::decode_error::ValueError;
use super::error_cause::ObjectValueFault;

/// A cursor that cannot run over the end: too short a value is [`ObjectValueFault::IncorrectLength`] at its end.
pub(super) struct Reader {
    rest: Bytes,
    position: usize,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, position: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn u8(&mut self) -> Result<u8, ValueError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, ValueError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, ValueError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], ValueError> {
        let Some(bytes) = self.rest.first_chunk().copied() else {
            return Err(self.ends_early());
        };
        self.rest.advance(LENGTH);
        self.position += LENGTH;
        Ok(bytes)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<Bytes, ValueError> {
        if self.rest.len() < length {
            return Err(self.ends_early());
        }
        self.position += length;
        Ok(self.rest.split_to(length))
    }

    /// Reads `length` bytes and drops the padding after them, whatever it contains.
    pub(super) fn padded_bytes(&mut self, length: usize, padding: usize) -> Result<Bytes, ValueError> {
        let bytes = self.bytes(length)?;
        self.bytes(padding)?;
        Ok(bytes)
    }

    /// Reads an address of the version given in a four-bit IP-Ver field which stands at `version_offset`.
    pub(super) fn address(&mut self, version: u8, version_offset: usize) -> Result<IpAddr, ValueError> {
        match version {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err(ValueError { fault: ObjectValueFault::ValueNotSupported, offset: version_offset }),
        }
    }

    /// Everything not yet read.
    pub(super) fn rest(self) -> Bytes {
        self.rest
    }

    /// Refuses a value that is longer than its content.
    pub(super) fn finish(self) -> Result<(), ValueError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ValueError { fault: ObjectValueFault::IncorrectLength, offset: self.position }) }
    }

    fn ends_early(&self) -> ValueError {
        ValueError { fault: ObjectValueFault::IncorrectLength, offset: self.position + self.rest.len() }
    }
}
