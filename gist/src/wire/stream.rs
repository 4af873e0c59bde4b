//! C-mode: message after message in a byte stream, told apart by their length field (RFC 5971 §5.4).

use bytes::{Bytes, BytesMut};

use super::error_cause::{ErrorCause, HeaderFault};
use super::error_object::GistError;
use super::header::{CommonHeader, HEADER_LENGTH, VERSION, header_bytes};

/// The longest message the common header can announce, in bytes.
pub const MAX_MESSAGE_LENGTH: usize = HEADER_LENGTH + 65_535 * 4;

/// A byte stream in which no further message can be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameError {
    /// In another version the length may stand elsewhere, so what follows cannot be told apart.
    #[error("the stream continues with GIST version {}, which is not known", CommonHeader::from_bytes(*header).version)]
    UnknownVersion {
        /// The common header at that place.
        header: [u8; HEADER_LENGTH],
    },
    /// The next message is longer than the receiver takes.
    #[error("the next message has {length} bytes, {cap} are the most accepted")]
    TooLong {
        /// The message's length in bytes.
        length: usize,
        /// The framer's cap in bytes.
        cap: usize,
    },
}

impl FrameError {
    /// What to tell the peer before the association is closed, if the catalogue has a word for it.
    #[must_use]
    pub fn to_gist_error(&self) -> Option<GistError> {
        match self {
            Self::UnknownVersion { header } => Some(GistError::new(ErrorCause::CommonHeaderParse(HeaderFault::UnknownVersion), *header)),
            Self::TooLong { .. } => None,
        }
    }
}

/// Cuts whole messages out of a byte stream.
///
/// After each [`Framer::push`], take messages with [`Framer::next_message`] until it gives `None`; then no more than one
/// incomplete message, at most the cap, is held.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    cap: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new(MAX_MESSAGE_LENGTH)
    }
}

impl Framer {
    /// Accepts messages of at most `cap` bytes, common header included; never more than [`MAX_MESSAGE_LENGTH`].
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { buffer: BytesMut::new(), cap: cap.min(MAX_MESSAGE_LENGTH) }
    }

    /// Takes the bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more bytes have come.
    ///
    /// # Errors
    ///
    /// A [`FrameError`], and the same again on every later call: the association has to be closed.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = header_bytes(&self.buffer) else {
            return Ok(None);
        };
        let fields = CommonHeader::from_bytes(header);
        if fields.version != VERSION {
            return Err(FrameError::UnknownVersion { header });
        }
        let length = fields.message_length();
        if length > self.cap {
            return Err(FrameError::TooLong { length, cap: self.cap });
        }
        Ok((self.buffer.len() >= length).then(|| self.buffer.split_to(length).freeze()))
    }

    /// Whether a message has begun that may yet become whole.
    #[must_use]
    pub fn is_within_message(&mut self) -> bool {
        self.buffered() > 0 && matches!(self.next_message(), Ok(None))
    }

    /// Bytes held that are not yet a whole message; not 0 at the stream's end means the last message was cut off.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }
}
