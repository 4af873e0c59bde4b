//! Stack-Proposal (RFC 5971 A.3.4): which protocol stacks a messaging association may use.

use bytes::{BufMut, Bytes, BytesMut};

use super::decode_error::ValueError;
use super::encode_error::EncodeError;
use super::error_cause::ObjectValueFault;
use super::object::{ObjectType, padding, put_padding};
use super::reader::Reader;

/// A protocol of a messaging association (RFC 5971 §5.7, §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MaProtocol {
    /// 1: TCP, opened by the Querying node (RFC 5971 §5.7.2).
    ForwardsTcp,
    /// 2: TLS, the Querying node being the client (RFC 5971 §5.7.3).
    Tls,
    /// Any other number.
    Other(u8),
}

impl From<u8> for MaProtocol {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::ForwardsTcp,
            2 => Self::Tls,
            other => Self::Other(other),
        }
    }
}

impl From<MaProtocol> for u8 {
    fn from(protocol: MaProtocol) -> Self {
        match protocol {
            MaProtocol::ForwardsTcp => 1,
            MaProtocol::Tls => 2,
            MaProtocol::Other(number) => number,
        }
    }
}

/// One stack, its protocols from top to bottom: TLS before TCP. 1 to 255 protocols.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Profile(pub Vec<MaProtocol>);

impl Profile {
    /// TLS over TCP.
    #[must_use]
    pub fn tls_over_tcp() -> Self {
        Self(vec![MaProtocol::Tls, MaProtocol::ForwardsTcp])
    }

    /// TCP alone.
    #[must_use]
    pub fn tcp() -> Self {
        Self(vec![MaProtocol::ForwardsTcp])
    }

    /// Whether the stack contains `protocol` at any place.
    #[must_use]
    pub fn contains(&self, protocol: MaProtocol) -> bool {
        self.0.contains(&protocol)
    }
}

/// The stacks a node offers, in its order of preference; numbered from 1. 1 to 255 of them.
///
/// ```text
/// |  Prof-Count   |     Reserved                                  |
/// //           Profile 1: count, protocols, padding              //
/// //                    Profile N                                //
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackProposal {
    /// The stacks.
    pub profiles: Vec<Profile>,
}

impl StackProposal {
    /// Reads an object's value.
    ///
    /// # Errors
    ///
    /// [`ObjectValueFault::ValueNotSupported`] for no profile at all or the reserved protocol 0,
    /// [`ObjectValueFault::EmptyList`] for a profile without protocol, [`ObjectValueFault::IncorrectLength`] if the
    /// value is not exactly as long as its profiles.
    pub fn decode(value: Bytes) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        let [count, _, _, _] = reader.array()?;
        if count == 0 {
            return Err(ValueError { fault: ObjectValueFault::ValueNotSupported, offset: 0 });
        }
        let mut profiles = Vec::new();
        for _ in 0..count {
            let offset = reader.position();
            let layers = usize::from(reader.u8()?);
            if layers == 0 {
                return Err(ValueError { fault: ObjectValueFault::EmptyList, offset });
            }
            let protocols = reader.padded_bytes(layers, padding(1 + layers))?;
            if let Some(index) = protocols.iter().position(|number| *number == 0) {
                let offset = offset + 1 + index;
                return Err(ValueError { fault: ObjectValueFault::ValueNotSupported, offset });
            }
            profiles.push(Profile(protocols.into_iter().map(MaProtocol::from).collect()));
        }
        reader.finish()?;
        Ok(Self { profiles })
    }

    /// Writes an object's value.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Field`] if there are no profiles or more than 255, a profile with no protocol or
    /// more than 255, or the reserved protocol 0.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_u8(count(self.profiles.len()).ok_or(refused("Prof-Count"))?);
        out.put_bytes(0, 3);
        for Profile(protocols) in &self.profiles {
            if protocols.contains(&MaProtocol::Other(0)) {
                return Err(refused("MA-Protocol-ID"));
            }
            out.put_u8(count(protocols.len()).ok_or(refused("Profile"))?);
            protocols.iter().for_each(|protocol| out.put_u8((*protocol).into()));
            put_padding(out, 1 + protocols.len());
        }
        Ok(())
    }
}

fn count(length: usize) -> Option<u8> {
    u8::try_from(length).ok().filter(|count| *count != 0)
}

fn refused(field: &'static str) -> EncodeError {
    EncodeError::Field { object: ObjectType::StackProposal, field }
}
