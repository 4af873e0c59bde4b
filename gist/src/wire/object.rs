//! Objects: type, length and value (RFC 5971 A.2).

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::encode_error::EncodeError;

/// The longest value an object can have in bytes: 4095 words, for the length field has 12 bits (RFC 5971 A.2).
pub const MAX_VALUE_LENGTH: usize = 4095 * 4;

/// An object header's length in bytes.
pub(super) const OBJECT_HEADER_LENGTH: usize = 4;

/// What an object is (RFC 5971 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectType {
    /// 0
    MessageRoutingInformation,
    /// 1
    SessionIdentifier,
    /// 2
    NetworkLayerInformation,
    /// 3
    StackProposal,
    /// 4
    StackConfigurationData,
    /// 5
    QueryCookie,
    /// 6
    ResponderCookie,
    /// 7
    NatTraversal,
    /// 8
    NslpData,
    /// 9
    Error,
    /// 10
    HelloId,
    /// Any other number of 12 bits.
    Unknown(u16),
}

impl ObjectType {
    /// The eleven known types, by number.
    pub const KNOWN: [Self; 11] = [
        Self::MessageRoutingInformation,
        Self::SessionIdentifier,
        Self::NetworkLayerInformation,
        Self::StackProposal,
        Self::StackConfigurationData,
        Self::QueryCookie,
        Self::ResponderCookie,
        Self::NatTraversal,
        Self::NslpData,
        Self::Error,
        Self::HelloId,
    ];

    /// Reads a type number; only the low 12 bits count.
    #[must_use]
    pub fn from_number(number: u16) -> Self {
        let number = number & 0x0fff;
        Self::KNOWN.get(usize::from(number)).copied().unwrap_or(Self::Unknown(number))
    }

    /// The type's number, 0 to 4095.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::MessageRoutingInformation => 0,
            Self::SessionIdentifier => 1,
            Self::NetworkLayerInformation => 2,
            Self::StackProposal => 3,
            Self::StackConfigurationData => 4,
            Self::QueryCookie => 5,
            Self::ResponderCookie => 6,
            Self::NatTraversal => 7,
            Self::NslpData => 8,
            Self::Error => 9,
            Self::HelloId => 10,
            Self::Unknown(number) => number & 0x0fff,
        }
    }
}

/// The RFC's name, such as `Query-Cookie`.
impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessageRoutingInformation => "Message-Routing-Information",
            Self::SessionIdentifier => "Session-Identifier",
            Self::NetworkLayerInformation => "Network-Layer-Information",
            Self::StackProposal => "Stack-Proposal",
            Self::StackConfigurationData => "Stack-Configuration-Data",
            Self::QueryCookie => "Query-Cookie",
            Self::ResponderCookie => "Responder-Cookie",
            Self::NatTraversal => "NAT-Traversal",
            Self::NslpData => "NSLP-Data",
            Self::Error => "Error",
            Self::HelloId => "Hello-ID",
            Self::Unknown(number) => return write!(f, "object type {number}"),
        })
    }
}

/// What the sender wants done with an object its receiver does not know (RFC 5971 A.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extensibility {
    /// AB=00: refuse the message.
    Mandatory,
    /// AB=01: drop the object.
    Ignore,
    /// AB=10: pass the object on.
    Forward,
    /// AB=11: never legal, whether the object is known or not.
    Reserved,
}

/// An object header: `|A|B|r|r|         Type          |r|r|r|r|        Length         |`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ObjectHeader {
    pub(super) extensibility: Extensibility,
    pub(super) kind: ObjectType,
    /// Words of value.
    pub(super) words: u16,
}

impl ObjectHeader {
    pub(super) fn from_bytes(bytes: [u8; OBJECT_HEADER_LENGTH]) -> Self {
        let [flags_and_type, type_low, length_high, length_low] = bytes;
        Self {
            extensibility: match flags_and_type >> 6 {
                0 => Extensibility::Mandatory,
                1 => Extensibility::Ignore,
                2 => Extensibility::Forward,
                _ => Extensibility::Reserved,
            },
            kind: ObjectType::from_number(u16::from_be_bytes([flags_and_type, type_low])),
            words: u16::from_be_bytes([length_high, length_low]) & 0x0fff,
        }
    }
}

/// An object this node does not know and has to pass on (AB=10): kept byte for byte, never interpreted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownObject(Bytes);

impl UnknownObject {
    /// Takes one whole object with its header; `None` unless its type is unknown, AB=10, and its length right.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        let header = ObjectHeader::from_bytes(*bytes.first_chunk()?);
        let fits = bytes.len() == OBJECT_HEADER_LENGTH + usize::from(header.words) * 4;
        let forward = header.extensibility == Extensibility::Forward;
        (fits && forward && matches!(header.kind, ObjectType::Unknown(_))).then_some(Self(bytes))
    }

    /// The object with its header.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Writes the header and whatever `write` puts after it.
pub(super) fn put_object(
    out: &mut BytesMut,
    kind: ObjectType,
    write: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let mut value = BytesMut::new();
    write(&mut value)?;
    let words = whole_words(kind, value.len())?;
    out.put_u16(kind.number());
    out.put_u16(words);
    out.put(value);
    Ok(())
}

fn whole_words(object: ObjectType, length: usize) -> Result<u16, EncodeError> {
    let refused = EncodeError::ObjectLength { object, length };
    if !length.is_multiple_of(4) || length > MAX_VALUE_LENGTH {
        return Err(refused);
    }
    u16::try_from(length / 4).map_err(|_| refused)
}

/// Fills up with zeros to the next word.
pub(super) fn put_padding(out: &mut BytesMut, length: usize) {
    out.put_bytes(0, padding(length));
}

/// How many bytes are missing to the next word.
pub(super) fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}
