//! Routing towards, or from, the edge of the network (RFC 5971 A.3.1.2).

use core::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::{Direction, ip_version, put_address};
use crate::wire::decode_error::ValueError;
use crate::wire::encode_error::EncodeError;
use crate::wire::reader::Reader;

const UPSTREAM: u8 = 0x08;

/// Two addresses and a direction; Q-mode messages only go [`Direction::Downstream`] (RFC 5971 §5.8.2).
///
/// ```text
///                                 |IP-Ver |D|      Reserved       |
/// //                       Source Address                        //
/// //                      Destination Address                    //
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LooseEnd {
    /// Towards the edge, or from it.
    pub direction: Direction,
    /// The source; of the same IP version as the destination.
    pub source: IpAddr,
    /// The destination.
    pub destination: IpAddr,
}

impl LooseEnd {
    pub(super) fn decode(reader: &mut Reader) -> Result<Self, ValueError> {
        let flags_offset = reader.position();
        let [version_and_flags, _reserved] = reader.array()?;
        let version = version_and_flags >> 4;
        Ok(Self {
            direction: if version_and_flags & UPSTREAM != 0 { Direction::Upstream } else { Direction::Downstream },
            source: reader.address(version, flags_offset)?,
            destination: reader.address(version, flags_offset)?,
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let version = ip_version(self.source, self.destination)?;
        out.put_u8(if self.direction == Direction::Upstream { version | UPSTREAM } else { version });
        out.put_u8(0);
        put_address(out, self.source);
        put_address(out, self.destination);
        Ok(())
    }
}
