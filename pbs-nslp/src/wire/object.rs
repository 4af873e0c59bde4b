//! Object types, their numbers, names and fixed treatment (X-01, X-10, appendix B).

use core::fmt;

/// What the first byte of a message says (draft-04 §9.1, X-28).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    /// Asks for a permission and reports the sent volume.
    Query,
    /// Gives, changes or removes a permission.
    Permission,
    /// Advisory, unsigned, hop by hop.
    Notify,
}

impl MessageKind {
    /// The number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::Query => 1,
            Self::Permission => 2,
            Self::Notify => 0xF0,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Query, Self::Permission, Self::Notify].into_iter().find(|kind| kind.number() == number)
    }
}

/// What a node does with an object that it does not know: the A and B bits (draft-04 §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Treatment {
    /// AB=00: refuse the message.
    Mandatory,
    /// AB=01: delete the object. Never covered by a signature.
    Ignore,
    /// AB=10: pass the object on unchanged.
    Forward,
}

impl Treatment {
    /// The two bits at the top of the object header; `None` for AB=11.
    pub(super) fn from_bits(header: u8) -> Option<Self> {
        match header >> 6 {
            0b00 => Some(Self::Mandatory),
            0b01 => Some(Self::Ignore),
            0b10 => Some(Self::Forward),
            _ => None,
        }
    }

    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Mandatory => 0b0000_0000,
            Self::Ignore => 0b0100_0000,
            Self::Forward => 0b1000_0000,
        }
    }
}

/// The 8-bit type of an object. Prints as `TTL (6)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectType(pub u8);

impl ObjectType {
    /// Flow identification (draft-04 §9.4.1).
    pub const FID: Self = Self(1);
    /// Message sequence number (§9.4.2).
    pub const MESSAGE_SEQ: Self = Self(2);
    /// Requested volume (§9.4.3).
    pub const REQ_VOL: Self = Self(3);
    /// Sent volume (§9.4.4).
    pub const SEND_VOL: Self = Self(4);
    /// Allowed volume (§9.4.5).
    pub const ALLOW_VOL: Self = Self(5);
    /// Time limit of the permission (§9.4.6).
    pub const TTL: Self = Self(6);
    /// Soft-state period (§9.4.7).
    pub const REFRESH: Self = Self(7);
    /// Public-key certificate (§9.4.8).
    pub const PK_CERT: Self = Self(8);
    /// Reaction and packet authentication (§9.4.9).
    pub const DEFENSE: Self = Self(9);
    /// Signature (§9.4.10).
    pub const AUTH_DATA: Self = Self(10);
    /// SPI, drain time and epoch flag.
    pub const SA_PARAMS: Self = Self(0xE0);
    /// Epoch and cut of the sent volume.
    pub const VOL_CONTEXT: Self = Self(0xE1);
    /// Number of the Query answered.
    pub const ECHO: Self = Self(0xE2);
    /// Requested volume in 64 bits.
    pub const REQ_VOL64: Self = Self(0xE3);
    /// Sent volume in 64 bits.
    pub const SEND_VOL64: Self = Self(0xE4);
    /// Allowed volume in 64 bits.
    pub const ALLOW_VOL64: Self = Self(0xE5);
    /// Intermediate certificates.
    pub const CERT_CHAIN: Self = Self(0xE6);
    /// Cryptographically generated address parameters.
    pub const CGA_PARAMS: Self = Self(0xE7);
    /// Algorithms the sender can do.
    pub const ALGS: Self = Self(0xE8);
    /// Solution of a puzzle.
    pub const PUZZLE_SOLUTION: Self = Self(0xE9);
    /// What a Notify says.
    pub const INFO: Self = Self(0xEA);
    /// Puzzle to solve first.
    pub const PUZZLE_CHALLENGE: Self = Self(0xEB);

    pub(super) fn known(self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.object == self)
    }
}

impl fmt::Display for ObjectType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.known().map_or("unknown object", |known| known.name);
        write!(f, "{name} ({})", self.0)
    }
}

/// One line of the table of object types.
#[derive(Debug)]
pub(super) struct Known {
    object: ObjectType,
    name: &'static str,
    pub(super) treatment: Treatment,
    kinds: &'static [MessageKind],
}

impl Known {
    pub(super) fn may_stand_in(&self, kind: MessageKind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// Length of an object header in bytes (draft-04 §9.3).
pub(super) const HEADER_LENGTH: usize = 4;

const QUERY: &[MessageKind] = &[MessageKind::Query];
const PERMISSION: &[MessageKind] = &[MessageKind::Permission];
const SIGNED: &[MessageKind] = &[MessageKind::Query, MessageKind::Permission];
const NOTIFY: &[MessageKind] = &[MessageKind::Notify];
const EVERY: &[MessageKind] = &[MessageKind::Query, MessageKind::Permission, MessageKind::Notify];

const fn known(object: ObjectType, name: &'static str, treatment: Treatment, kinds: &'static [MessageKind]) -> Known {
    Known { object, name, treatment, kinds }
}

/// All object types of the profile; 0 and 255 are never used.
static KNOWN: [Known; 22] = [
    known(ObjectType::FID, "FID", Treatment::Mandatory, EVERY),
    known(ObjectType::MESSAGE_SEQ, "Message-Seq", Treatment::Mandatory, SIGNED),
    known(ObjectType::REQ_VOL, "Req-vol", Treatment::Mandatory, QUERY),
    known(ObjectType::SEND_VOL, "Send-vol", Treatment::Mandatory, QUERY),
    known(ObjectType::ALLOW_VOL, "Allow-vol", Treatment::Mandatory, PERMISSION),
    known(ObjectType::TTL, "TTL", Treatment::Mandatory, PERMISSION),
    known(ObjectType::REFRESH, "Refresh", Treatment::Mandatory, PERMISSION),
    known(ObjectType::PK_CERT, "PK-cert", Treatment::Mandatory, SIGNED),
    known(ObjectType::DEFENSE, "Defense", Treatment::Mandatory, PERMISSION),
    known(ObjectType::AUTH_DATA, "Auth-data", Treatment::Mandatory, SIGNED),
    known(ObjectType::SA_PARAMS, "SA-Params", Treatment::Mandatory, PERMISSION),
    known(ObjectType::VOL_CONTEXT, "Vol-Context", Treatment::Forward, QUERY),
    known(ObjectType::ECHO, "Echo", Treatment::Forward, PERMISSION),
    known(ObjectType::REQ_VOL64, "Req-vol64", Treatment::Forward, QUERY),
    known(ObjectType::SEND_VOL64, "Send-vol64", Treatment::Forward, QUERY),
    known(ObjectType::ALLOW_VOL64, "Allow-vol64", Treatment::Forward, PERMISSION),
    known(ObjectType::CERT_CHAIN, "Cert-Chain", Treatment::Forward, SIGNED),
    known(ObjectType::CGA_PARAMS, "CGA-Params", Treatment::Mandatory, SIGNED),
    known(ObjectType::ALGS, "Algs", Treatment::Forward, QUERY),
    known(ObjectType::PUZZLE_SOLUTION, "Puzzle-Solution", Treatment::Forward, QUERY),
    known(ObjectType::INFO, "Info", Treatment::Ignore, NOTIFY),
    known(ObjectType::PUZZLE_CHALLENGE, "Puzzle-Challenge", Treatment::Ignore, NOTIFY),
];
