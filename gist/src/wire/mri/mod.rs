//! Message-Routing-Information (RFC 5971 A.3.1).

mod loose_end;
mod path_coupled;

use core::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};

use super::decode_error::ValueError;
use super::encode_error::EncodeError;
use super::error_cause::ObjectValueFault;
use super::object::ObjectType;
use super::reader::Reader;

pub use loose_end::LooseEnd;
pub use path_coupled::PathCoupled;

const PATH_COUPLED: u8 = 0;
const LOOSE_END: u8 = 1;

/// Which way a signalling message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// D=0: with the flow; for the loose-end method, towards the edge of the network.
    Downstream,
    /// D=1: against the flow; for the loose-end method, from the edge of the network.
    Upstream,
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub fn inverted(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }
}

/// How a signalling message is routed through the network: the method and the addresses it works with.
///
/// ```text
/// |     MRM-ID    |N|  Reserved   |   method-specific, variable  //
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mri {
    /// Method 0: along the path of a flow (RFC 5971 §5.8.1).
    PathCoupled(PathCoupled),
    /// Method 1: towards, or from, the edge of the network (RFC 5971 §5.8.2).
    LooseEnd(LooseEnd),
}

impl Mri {
    /// Which way the message goes.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self {
            Self::PathCoupled(mri) => mri.direction,
            Self::LooseEnd(mri) => mri.direction,
        }
    }

    /// The same routing information in the given direction.
    #[must_use]
    pub fn with_direction(&self, direction: Direction) -> Self {
        let mut mri = self.clone();
        match &mut mri {
            Self::PathCoupled(mri) => mri.direction = direction,
            Self::LooseEnd(mri) => mri.direction = direction,
        }
        mri
    }

    /// The same routing information in the other direction, as a Response carries it (RFC 5971 §5.1).
    #[must_use]
    pub fn inverted(&self) -> Self {
        self.with_direction(self.direction().inverted())
    }

    /// The flow's source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::PathCoupled(mri) => mri.source,
            Self::LooseEnd(mri) => mri.source,
        }
    }

    /// The flow's destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::PathCoupled(mri) => mri.destination,
            Self::LooseEnd(mri) => mri.destination,
        }
    }

    /// Reads an object's value.
    ///
    /// # Errors
    ///
    /// [`ObjectValueFault::ValueNotSupported`] for an unknown method or IP version,
    /// [`ObjectValueFault::InvalidFlagFieldCombination`] where flags and fields contradict each other,
    /// [`ObjectValueFault::IncorrectLength`] if the value is not exactly as long as its flags make it.
    pub fn decode(value: Bytes) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        let method = reader.u8()?;
        let not_translated_by_nats = reader.u8()? & 0x80 != 0;
        let mri = match method {
            PATH_COUPLED => Self::PathCoupled(PathCoupled::decode(&mut reader)?),
            LOOSE_END => Self::LooseEnd(LooseEnd::decode(&mut reader)?),
            _ => return Err(ValueError { fault: ObjectValueFault::ValueNotSupported, offset: 0 }),
        };
        // Both methods carry addresses a NAT must translate, so N=1 contradicts the rest (RFC 5971 A.3.1.1, A.3.1.2).
        if not_translated_by_nats {
            return Err(ValueError { fault: ObjectValueFault::InvalidFlagFieldCombination, offset: 1 });
        }
        reader.finish()?;
        Ok(mri)
    }

    /// Writes an object's value.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Field`] if the fields contradict each other.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::PathCoupled(mri) => {
                out.put_slice(&[PATH_COUPLED, 0]);
                mri.encode(out)
            }
            Self::LooseEnd(mri) => {
                out.put_slice(&[LOOSE_END, 0]);
                mri.encode(out)
            }
        }
    }
}

/// The four-bit IP-Ver field's value in its place, the upper half of a byte; refuses addresses of different versions.
fn ip_version(source: IpAddr, destination: IpAddr) -> Result<u8, EncodeError> {
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Ok(4 << 4),
        (IpAddr::V6(_), IpAddr::V6(_)) => Ok(6 << 4),
        _ => Err(refused("Destination Address")),
    }
}

fn put_address(out: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

fn refused(field: &'static str) -> EncodeError {
    EncodeError::Field { object: ObjectType::MessageRoutingInformation, field }
}
