//! The names GIST gives to applications, sessions and peers.

use core::fmt;

use bytes::Bytes;

/// Which signalling application a message belongs to (RFC 5971 §3.8); 0 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NslpId(pub u16);

impl NslpId {
    /// The value of messages that belong to no signalling application: Error and MA-Hello (RFC 5971 §9).
    pub const NONE: Self = Self(0);
}

impl fmt::Display for NslpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A signalling session's cryptographically random identifier (RFC 5971 §3.7, A.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

/// The stable name a node gives itself in its NLI (RFC 5971 §5.2.2): 1 to 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerIdentity(Bytes);

impl PeerIdentity {
    /// Takes 1 to 255 bytes; `None` for any other length.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        (1..=usize::from(u8::MAX)).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The identity's bytes, without padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The identity's length in bytes, as the NLI's PI-Length field gives it.
    pub(super) fn length(&self) -> u8 {
        u8::try_from(self.0.len()).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(&self.0, f)
    }
}

fn hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}
