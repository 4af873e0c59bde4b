//! Notify and its codes (decisions.md appendix C).

use std::net::IpAddr;

use crate::flow::FlowId;

/// An advisory notice towards the sender, unsigned and hop by hop.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notify {
    /// The flow it is about.
    pub flow: FlowId,
    /// How serious, see [`class`].
    pub class: u8,
    /// What happened.
    pub code: NotifyCode,
    /// Closer reason, of a meaning that depends on the code.
    pub detail: u16,
    /// Number of the message that caused it, 0 if none.
    pub number: u32,
    /// Address of the node that reports.
    pub reporter: IpAddr,
    /// With code 16: solve this first.
    pub challenge: Option<PuzzleChallenge>,
}

/// Classes of Notify, in GIST's numbering (appendix C).
pub mod class {
    /// Nothing is wrong.
    pub const INFORMATIONAL: u8 = 0;
    /// The message broke the protocol.
    pub const PROTOCOL: u8 = 2;
    /// May go away by itself.
    pub const TRANSIENT: u8 = 3;
    /// Will not go away by itself.
    pub const PERMANENT: u8 = 4;
}

/// What a Notify reports (appendix C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NotifyCode {
    /// 1.
    UnknownMessageType,
    /// 2: malformed, or a wrong length; detail = object type, 0 for the message.
    Malformed,
    /// 3; detail = object type.
    UnknownMandatoryObject,
    /// 4: AB=11; detail = object type.
    ReservedTreatment,
    /// 5; detail = object type.
    MissingObject,
    /// 6; detail = object type.
    DuplicateObject,
    /// 7; detail = object type.
    BadValue,
    /// 8: flow identifier and routing information differ, or an address translator is in the way.
    FlowMismatch,
    /// 9.
    Signature,
    /// 10; detail 1 expired, 2 untrusted, 3 revoked, 4 address binding, 5 weak key.
    Certificate,
    /// 11: stale or replayed.
    Stale,
    /// 12.
    AlgorithmRefused,
    /// 13.
    NoSecureChannel,
    /// 14; detail 0 no state, 1 refresh needed, 2 no receiver.
    NoState,
    /// 15.
    RouteChanged,
    /// 16; a challenge may go with it.
    Overload,
    /// 17.
    SpiCollision,
    /// 18.
    LocalPolicy,
    /// A code that this node does not know.
    Other(u8),
}

impl NotifyCode {
    /// What it says, for people; `detail` closer where the profile gives it a meaning (appendix C).
    pub const fn meaning(self, detail: u16) -> &'static str {
        match (self, detail) {
            (Self::UnknownMessageType, _) => "unknown message type",
            (Self::Malformed, _) => "malformed message",
            (Self::UnknownMandatoryObject, _) => "unknown mandatory object",
            (Self::ReservedTreatment, _) => "reserved treatment of an object",
            (Self::MissingObject, _) => "an object is missing",
            (Self::DuplicateObject, _) => "an object stands twice",
            (Self::BadValue, _) => "value out of bounds",
            (Self::FlowMismatch, _) => "flow and way of the message differ, or an address translator is on the path",
            (Self::Signature, _) => "signature does not verify",
            (Self::Certificate, 1) => "certificate outside its time: expired, or not yet valid",
            (Self::Certificate, 2) => "certificate untrusted",
            (Self::Certificate, 3) => "certificate revoked",
            (Self::Certificate, 4) => "certificate does not name the address",
            (Self::Certificate, 5) => "certificate with a weak key",
            (Self::Certificate, _) => "certificate not accepted",
            (Self::Stale, _) => "number stale or seen before",
            (Self::AlgorithmRefused, _) => "packet authentication not accepted",
            (Self::NoSecureChannel, _) => "no authenticated association to the next node",
            (Self::NoState, 1) => "a refresh is needed",
            (Self::NoState, 2) => "no receiver",
            (Self::NoState, _) => "no state",
            (Self::RouteChanged, _) => "the route has changed",
            (Self::Overload, _) => "overload",
            (Self::SpiCollision, _) => "SPI taken",
            (Self::LocalPolicy, _) => "local policy forbids it",
            (Self::Other(_), _) => "a code that this node does not know",
        }
    }

    /// All codes of the profile in their order: the first has number 1.
    pub const ALL: [Self; 18] = [
        Self::UnknownMessageType,
        Self::Malformed,
        Self::UnknownMandatoryObject,
        Self::ReservedTreatment,
        Self::MissingObject,
        Self::DuplicateObject,
        Self::BadValue,
        Self::FlowMismatch,
        Self::Signature,
        Self::Certificate,
        Self::Stale,
        Self::AlgorithmRefused,
        Self::NoSecureChannel,
        Self::NoState,
        Self::RouteChanged,
        Self::Overload,
        Self::SpiCollision,
        Self::LocalPolicy,
    ];

    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::UnknownMessageType => 1,
            Self::Malformed => 2,
            Self::UnknownMandatoryObject => 3,
            Self::ReservedTreatment => 4,
            Self::MissingObject => 5,
            Self::DuplicateObject => 6,
            Self::BadValue => 7,
            Self::FlowMismatch => 8,
            Self::Signature => 9,
            Self::Certificate => 10,
            Self::Stale => 11,
            Self::AlgorithmRefused => 12,
            Self::NoSecureChannel => 13,
            Self::NoState => 14,
            Self::RouteChanged => 15,
            Self::Overload => 16,
            Self::SpiCollision => 17,
            Self::LocalPolicy => 18,
            Self::Other(number) => number,
        }
    }

    /// The code with this number.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.into_iter().find(|code| code.number() == number).unwrap_or(Self::Other(number))
    }

    /// The class that appendix C gives the code; unknown codes count as informational.
    pub fn class(self) -> u8 {
        match self {
            Self::RouteChanged | Self::Other(_) => class::INFORMATIONAL,
            Self::UnknownMessageType
            | Self::Malformed
            | Self::UnknownMandatoryObject
            | Self::ReservedTreatment
            | Self::MissingObject
            | Self::DuplicateObject
            | Self::BadValue
            | Self::Signature
            | Self::Stale => class::PROTOCOL,
            Self::NoSecureChannel | Self::NoState | Self::Overload | Self::SpiCollision => class::TRANSIENT,
            Self::FlowMismatch | Self::Certificate | Self::AlgorithmRefused | Self::LocalPolicy => class::PERMANENT,
        }
    }
}

/// A puzzle that the next Query has to solve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PuzzleChallenge {
    /// 1 = SHA-256.
    pub algorithm: u8,
    /// K: number of bits that must be 0.
    pub difficulty: u8,
    /// How long the puzzle is good for, in seconds.
    pub lifetime: u16,
    /// Who gives the puzzle.
    pub issuer: u32,
    /// I: the nonce.
    pub nonce: u64,
}

/// The value of the Info object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) class: u8,
    pub(super) code: NotifyCode,
    pub(super) detail: u16,
    pub(super) number: u32,
    pub(super) reporter: IpAddr,
}

impl Info {
    pub(super) fn into_notify(self, flow: FlowId, challenge: Option<PuzzleChallenge>) -> Notify {
        let Self { class, code, detail, number, reporter } = self;
        Notify { flow, class, code, detail, number, reporter, challenge }
    }
}
