//! The signed messages, Query and Permission, as values.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use super::{Defense, MessageKind, Notify, SaParameters, Volume};
use crate::flow::FlowId;

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// Downstream, signed by the flow's source.
    Query(Signed<Query>),
    /// Upstream, signed by the flow's destination.
    Permission(Signed<Permission>),
    /// Towards the sender, unsigned: advice that changes no permission.
    Notify(Unsigned),
}

impl Message {
    /// Which kind of message.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Query(_) => MessageKind::Query,
            Self::Permission(_) => MessageKind::Permission,
            Self::Notify(_) => MessageKind::Notify,
        }
    }

    /// The flow that the message says it is about; to be compared with the MRI before anything else.
    pub fn flow(&self) -> FlowId {
        match self {
            Self::Query(query) => query.message.flow,
            Self::Permission(permission) => permission.message.flow,
            Self::Notify(notify) => notify.message.flow,
        }
    }
}

/// A signed message with the bytes it came in. Not yet verified.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signed<M> {
    /// What it says.
    pub message: M,
    /// The bytes as received.
    pub raw: Bytes,
    /// The bytes to pass on: as received but for unknown objects marked AB=01 (P-033, P-034, P-092).
    pub forwarded: Bytes,
    /// The bytes under the signature, with label and pseudo-header.
    pub signed_bytes: Bytes,
    /// The value of Auth-data.
    pub signature: Bytes,
}

impl<M: fmt::Debug> fmt::Debug for Signed<M> {
    /// Leaves the bytes out: those of a Permission contain the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("message", &self.message).field("length", &self.raw.len()).finish_non_exhaustive()
    }
}

/// A Notify with the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unsigned {
    /// What it says.
    pub message: Notify,
    /// The bytes as received.
    pub raw: Bytes,
    /// The bytes to pass on: as received but for unknown objects marked AB=01.
    pub forwarded: Bytes,
}

/// Asks for a permission and reports what was sent (draft-04 §9.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// The flow.
    pub flow: FlowId,
    /// Message sequence number.
    pub number: u32,
    /// RV: requested volume; zero releases the permission. Required unless `sent` is given.
    pub requested: Option<Volume>,
    /// SV: sent volume since the epoch began.
    pub sent: Option<Volume>,
    /// Whose message it is.
    pub credential: Credential,
    /// What `sent` refers to.
    pub context: Option<VolumeContext>,
    /// Codes of the algorithms that the sender accepts for its packets, best first; never empty. Without it HMAC-SHA-256 and
    /// signatures by the key of its certificate, which are mandatory.
    pub algorithms: Option<Vec<u8>>,
    /// Answer to a [`super::PuzzleChallenge`].
    pub puzzle: Option<PuzzleSolution>,
}

impl Query {
    /// Whether the sender gives its permission back.
    pub fn is_release(&self) -> bool {
        self.requested == Some(Volume::ZERO)
    }
}

/// Gives, changes or removes a permission (draft-04 §9.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Permission {
    /// The flow.
    pub flow: FlowId,
    /// Message sequence number.
    pub number: u32,
    /// AV: allowed volume, an absolute total of the epoch; zero refuses or revokes.
    pub allowed: Volume,
    /// How long the permission lives from receipt on, in whole milliseconds; zero refuses or revokes.
    pub ttl: Duration,
    /// T: the soft-state period in whole milliseconds; not zero unless `allowed` is.
    pub refresh: Duration,
    /// Whose message it is.
    pub credential: Credential,
    /// How packets are authenticated; required unless `allowed` is zero (P-024).
    pub defense: Option<Defense>,
    /// The security association; required with a Defense that has one (P-024).
    pub sa: Option<SaParameters>,
    /// Number of the Query answered, `Some(0)` if unsolicited.
    pub echo: Option<u32>,
}

impl Permission {
    /// Whether it refuses or revokes.
    pub fn is_removal(&self) -> bool {
        self.allowed.is_zero() || self.ttl.as_millis() == 0
    }
}

/// What proves that the signer owns its address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// An X.509 certificate (draft-04 §9.4.8).
    Certificate {
        /// End-entity certificate in DER.
        certificate: Bytes,
        /// Intermediates in DER, from the issuer of the certificate on, without the anchor: at most
        /// [`super::CHAIN_LIMIT`].
        chain: Vec<Bytes>,
    },
    /// A cryptographically generated IPv6 address.
    Cga(CgaParameters),
}

impl Credential {
    /// The certificate and its intermediates, if that is what it is.
    pub fn certificate(&self) -> Option<(&Bytes, &[Bytes])> {
        match self {
            Self::Certificate { certificate, chain } => Some((certificate, chain)),
            Self::Cga(_) => None,
        }
    }
}

/// The parameters of RFC 3972 §3, read but not checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CgaParameters {
    /// Random value that the address was searched with.
    pub modifier: [u8; 16],
    /// First half of the address.
    pub subnet_prefix: [u8; 8],
    /// How many collisions there were, 0 to 2.
    pub collision_count: u8,
    /// Public key in DER, then extension fields.
    pub public_key: Bytes,
}

/// What a sent volume refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeContext {
    /// The epoch.
    pub spi: u32,
    /// N: last AH sequence number counted in the sent volume.
    pub highest: u32,
    /// p: number of the last Permission accepted.
    pub permission: u32,
}

/// Answer to a puzzle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PuzzleSolution {
    /// Who gave the puzzle.
    pub issuer: u32,
    /// I: the puzzle's nonce.
    pub nonce: u64,
    /// J: what was found.
    pub solution: u64,
}
