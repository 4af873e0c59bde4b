//! Query-Cookie and Responder-Cookie (RFC 5971 A.3.6, A.3.7).

use bytes::Bytes;

use super::object::MAX_VALUE_LENGTH;

/// A cookie's bytes: whole 32-bit words, whose content only the node that made it knows (RFC 5971 §8.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(Bytes);

impl Cookie {
    /// Takes a whole number of 32-bit words, at most [`MAX_VALUE_LENGTH`] bytes; `None` for any other length.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        (bytes.len().is_multiple_of(4) && bytes.len() <= MAX_VALUE_LENGTH).then_some(Self(bytes))
    }

    /// The cookie as it stands on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// An object's value is a whole number of words by its header, so every one is a cookie.
    pub(super) fn from_value(value: Bytes) -> Self {
        Self(value)
    }
}
