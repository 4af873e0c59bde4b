//! D-mode: one message in one UDP datagram, after a magic number (RFC 5971 §5.3.1).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::decode_error::DecodeError;
use super::encode_error::EncodeError;
use super::message::Message;

/// What each datagram starts with.
pub const MAGIC: u32 = 0x4e04_bda5;

/// The UDP port of Q-mode (RFC 5971 §9).
pub const GIST_PORT: u16 = 270;

/// The magic number's length in bytes.
pub const MAGIC_LENGTH: usize = 4;

/// The longest D-mode message without a known path MTU, magic number not included: 576 bytes less 64 for IP and transport
/// (RFC 5971 §4.3.3). In Q-mode the next peer is not known, nor the path to it.
pub const LONGEST_MESSAGE: usize = 512;

/// Why a datagram is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DatagramError {
    /// Without the magic number a datagram is dropped in silence (RFC 5971 §5.3.1).
    #[error("the datagram does not start with the magic number")]
    NoMagic,
    /// It is a GIST message, and not a good one.
    #[error(transparent)]
    Message(#[from] DecodeError),
}

/// The message after the magic number, not looked at; `None` without the magic number.
#[must_use]
pub fn message(datagram: &Bytes) -> Option<Bytes> {
    let mut message = datagram.clone();
    let magic = message.try_get_u32().ok()?;
    (magic == MAGIC).then_some(message)
}

/// Reads one datagram's payload.
///
/// # Errors
///
/// [`DatagramError::NoMagic`] without the magic number, otherwise as [`Message::decode`].
pub fn decode(datagram: Bytes) -> Result<Message, DatagramError> {
    Ok(Message::decode(message(&datagram).ok_or(DatagramError::NoMagic)?)?)
}

/// Appends magic number and message to `out`, which stays as it was if that cannot be done.
///
/// # Errors
///
/// As [`Message::encode`].
pub fn encode(message: &Message, out: &mut BytesMut) -> Result<(), EncodeError> {
    let message = message.to_bytes()?;
    out.put_u32(MAGIC);
    out.put(message);
    Ok(())
}
