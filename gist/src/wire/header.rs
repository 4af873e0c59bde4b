//! The common header (RFC 5971 A.1).

use bytes::{BufMut, BytesMut};

use super::identifiers::NslpId;

/// The only protocol version there is (RFC 5971 A.1).
pub const VERSION: u8 = 1;

/// The common header's length in bytes.
pub const HEADER_LENGTH: usize = 8;

const CONTEXT_FREE: u8 = 0x80;
const TYPE: u8 = 0x7f;
const SOURCE: u8 = 0x80;
const REPLY: u8 = 0x40;
const EXPLICIT: u8 = 0x20;

/// The six message types (RFC 5971 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// Asks for a peer: first message of the handshake.
    Query = 0,
    /// Answers a Query.
    Response = 1,
    /// Ends the handshake.
    Confirm = 2,
    /// Carries a signalling application's message.
    Data = 3,
    /// Reports an error.
    Error = 4,
    /// Keeps a messaging association alive.
    Hello = 5,
}

impl MessageType {
    /// Every message type.
    pub const ALL: [Self; 6] = [Self::Query, Self::Response, Self::Confirm, Self::Data, Self::Error, Self::Hello];
}

impl TryFrom<u8> for MessageType {
    type Error = u8;

    /// Gives the number back if it is no known type.
    fn try_from(number: u8) -> Result<Self, u8> {
        Self::ALL.into_iter().find(|known| *known as u8 == number).ok_or(number)
    }
}

/// The common header's fields, whatever their values are.
///
/// ```text
/// |    Version    |   GIST hops   |        Message Length         |
/// |           NSLPID              |C|   Type      |S|R|E| Reserved|
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommonHeader {
    /// The protocol version; 1 is the only one known.
    pub version: u8,
    /// How many GIST nodes may still process the message, the destination included.
    pub hop_count: u8,
    /// 32-bit words after the header.
    pub words: u16,
    /// The signalling application.
    pub nslp_id: NslpId,
    /// C: can be interpreted without routing state.
    pub context_free: bool,
    /// The message type, or its number if it is unknown.
    pub message_type: Result<MessageType, u8>,
    /// S: the IP source address is the signalling source address.
    pub source_is_signalling: bool,
    /// R: a reply is asked for.
    pub reply_requested: bool,
    /// E: explicitly routed.
    pub explicit: bool,
}

impl CommonHeader {
    /// Reads the fields; which values are acceptable is the message's business.
    #[must_use]
    pub fn from_bytes(bytes: [u8; HEADER_LENGTH]) -> Self {
        let [version, hop_count, length_high, length_low, nslp_high, nslp_low, kind, flags] = bytes;
        Self {
            version,
            hop_count,
            words: u16::from_be_bytes([length_high, length_low]),
            nslp_id: NslpId(u16::from_be_bytes([nslp_high, nslp_low])),
            context_free: kind & CONTEXT_FREE != 0,
            message_type: MessageType::try_from(kind & TYPE),
            source_is_signalling: flags & SOURCE != 0,
            reply_requested: flags & REPLY != 0,
            explicit: flags & EXPLICIT != 0,
        }
    }

    /// Bytes of the whole message: the header and what it announces, at most 262,148.
    #[must_use]
    pub fn message_length(&self) -> usize {
        HEADER_LENGTH + usize::from(self.words) * 4
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let number = match self.message_type {
            Ok(known) => known as u8,
            Err(number) => number & TYPE,
        };
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.put_u8(self.version);
        out.put_u8(self.hop_count);
        out.put_u16(self.words);
        out.put_u16(self.nslp_id.0);
        out.put_u8(number | flag(self.context_free, CONTEXT_FREE));
        out.put_u8(flag(self.source_is_signalling, SOURCE) | flag(self.reply_requested, REPLY) | flag(self.explicit, EXPLICIT));
    }
}

/// The common header at the start of `message` as it stands there, for an Error about it; `None` if it is too short.
#[must_use]
pub fn header_bytes(message: &[u8]) -> Option<[u8; HEADER_LENGTH]> {
    message.first_chunk().copied()
}
