//! The names GIST gives to applications, sessions and peers.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

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
///
/// It has memory of its own, so that what is kept keeps no message; one of up to 22 bytes needs none besides.
#[derive(Clone)]
pub struct PeerIdentity(Name);

/// A name's bytes.
#[derive(Clone)]
enum Name {
    /// So many of them.
    Short(u8, [u8; SHORT]),
    Long(Arc<[u8]>),
}

/// The longest name that is kept where it is used.
const SHORT: usize = 22;

impl PeerIdentity {
    /// Takes 1 to 255 bytes; `None` for any other length.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        let length = u8::try_from(bytes.len()).ok().filter(|length| *length != 0)?;
        let mut short = [0; SHORT];
        Some(Self(match short.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(&bytes);
                Name::Short(length, short)
            }
            None => Name::Long(Arc::from(&bytes[..])),
        }))
    }

    /// The identity's bytes, without padding.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Name::Short(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Name::Long(bytes) => bytes,
        }
    }

    /// The identity's length in bytes, as the NLI's PI-Length field gives it.
    pub(super) fn length(&self) -> u8 {
        u8::try_from(self.as_bytes().len()).unwrap_or(u8::MAX)
    }
}

impl PartialEq for PeerIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PeerIdentity {}

impl Hash for PeerIdentity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialOrd for PeerIdentity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PeerIdentity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerIdentity({self})")
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(self.as_bytes(), f)
    }
}

fn hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A million peers may be known by them.
    #[test]
    fn an_identity_takes_three_words() {
        assert_eq!(size_of::<PeerIdentity>(), 24);
    }

    #[test]
    fn an_identity_is_its_bytes_however_long() {
        for length in [1, 2, 21, 22, 23, 24, 254, 255_u8] {
            let bytes: Vec<u8> = (1..=length).collect();
            let identity = PeerIdentity::new(bytes.clone()).unwrap();
            assert_eq!((identity.as_bytes(), identity.length()), (&bytes[..], length));
            assert_eq!(identity, PeerIdentity::new([&bytes[..]].concat()).unwrap());
        }
        assert!(PeerIdentity::new(Vec::new()).is_none() && PeerIdentity::new(vec![1; 256]).is_none());
    }

    #[test]
    fn identities_are_ordered_as_their_bytes_are() {
        let identity = |bytes: &[u8]| PeerIdentity::new(bytes.to_vec()).unwrap();
        assert!(identity(&[1]) < identity(&[1, 0]) && identity(&[1; 200]) < identity(&[2]) && identity(&[2]) < identity(&[2; 23]));
        assert_ne!(identity(&[1]), identity(&[1, 0]));
    }
}
