//! The error catalogue (RFC 5971 A.4.3, A.4.4): what can be wrong, with class, code and subcode.

use core::fmt;

/// How serious an error is (RFC 5971 A.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// 0: nothing about the protocol's state has changed.
    Informational,
    /// 1: the message was processed, in some sense.
    Success,
    /// 2: the message breaks the protocol.
    ProtocolError,
    /// 3: a later attempt may succeed.
    TransientFailure,
    /// 4: a later attempt will not succeed unless somebody changes something.
    PermanentFailure,
    /// A reserved value, kept as it came.
    Reserved(u8),
}

impl From<u8> for ErrorClass {
    fn from(value: u8) -> Self {
        match value {
            0 => Self::Informational,
            1 => Self::Success,
            2 => Self::ProtocolError,
            3 => Self::TransientFailure,
            4 => Self::PermanentFailure,
            other => Self::Reserved(other),
        }
    }
}

impl From<ErrorClass> for u8 {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Informational => 0,
            ErrorClass::Success => 1,
            ErrorClass::ProtocolError => 2,
            ErrorClass::TransientFailure => 3,
            ErrorClass::PermanentFailure => 4,
            ErrorClass::Reserved(other) => other,
        }
    }
}

/// One entry of the error catalogue (RFC 5971 A.4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCause {
    /// Code 1: the common header, or the message as a whole, cannot be read.
    CommonHeaderParse(HeaderFault),
    /// Code 2: the GIST hop count has run out.
    HopLimitExceeded,
    /// Code 3: this message type may not travel in this encapsulation.
    IncorrectEncapsulation,
    /// Code 4: the messaging association does not serve this MRI, NSLPID and session.
    IncorrectlyDelivered,
    /// Code 5: routing state should exist and does not.
    NoRoutingState,
    /// Code 6: a directly addressed message for a signalling application this node lacks.
    UnknownNslpId,
    /// Code 7: a Query reached the flow's end for a signalling application this node lacks.
    EndpointFound,
    /// Code 8: the message does not fit the MTU of a link further on.
    MessageTooLarge,
    /// Code 9: an object should not be there, or should be.
    ObjectType(ObjectTypeFault),
    /// Code 10: an object's content cannot be accepted.
    ObjectValue(ObjectValueFault),
    /// Code 11: the IP header's TTL is out of range.
    InvalidIpTtl,
    /// Code 12: the MRI is well formed and still not acceptable.
    MriValidation(MriFault),
}

impl ErrorCause {
    /// Every entry of the catalogue.
    pub const ALL: [Self; 29] = [
        Self::CommonHeaderParse(HeaderFault::UnknownVersion),
        Self::CommonHeaderParse(HeaderFault::UnknownType),
        Self::CommonHeaderParse(HeaderFault::InvalidRFlag),
        Self::CommonHeaderParse(HeaderFault::IncorrectMessageLength),
        Self::CommonHeaderParse(HeaderFault::InvalidEFlag),
        Self::CommonHeaderParse(HeaderFault::InvalidCFlag),
        Self::HopLimitExceeded,
        Self::IncorrectEncapsulation,
        Self::IncorrectlyDelivered,
        Self::NoRoutingState,
        Self::UnknownNslpId,
        Self::EndpointFound,
        Self::MessageTooLarge,
        Self::ObjectType(ObjectTypeFault::Duplicate),
        Self::ObjectType(ObjectTypeFault::Unrecognised),
        Self::ObjectType(ObjectTypeFault::Missing),
        Self::ObjectType(ObjectTypeFault::Invalid),
        Self::ObjectType(ObjectTypeFault::Untranslated),
        Self::ObjectType(ObjectTypeFault::InvalidExtensibilityFlags),
        Self::ObjectValue(ObjectValueFault::IncorrectLength),
        Self::ObjectValue(ObjectValueFault::ValueNotSupported),
        Self::ObjectValue(ObjectValueFault::InvalidFlagFieldCombination),
        Self::ObjectValue(ObjectValueFault::EmptyList),
        Self::ObjectValue(ObjectValueFault::InvalidCookie),
        Self::ObjectValue(ObjectValueFault::StackMismatch),
        Self::InvalidIpTtl,
        Self::MriValidation(MriFault::TooWild),
        Self::MriValidation(MriFault::IpVersionMismatch),
        Self::MriValidation(MriFault::IngressFilterFailure),
    ];

    /// The error class this entry is sent with.
    #[must_use]
    pub fn class(self) -> ErrorClass {
        match self {
            Self::CommonHeaderParse(_)
            | Self::IncorrectEncapsulation
            | Self::IncorrectlyDelivered
            | Self::NoRoutingState
            | Self::ObjectType(_)
            | Self::ObjectValue(_) => ErrorClass::ProtocolError,
            Self::HopLimitExceeded
            | Self::UnknownNslpId
            | Self::EndpointFound
            | Self::MessageTooLarge
            | Self::InvalidIpTtl
            | Self::MriValidation(_) => ErrorClass::PermanentFailure,
        }
    }

    /// The 16-bit error code, 1 to 12.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::CommonHeaderParse(_) => 1,
            Self::HopLimitExceeded => 2,
            Self::IncorrectEncapsulation => 3,
            Self::IncorrectlyDelivered => 4,
            Self::NoRoutingState => 5,
            Self::UnknownNslpId => 6,
            Self::EndpointFound => 7,
            Self::MessageTooLarge => 8,
            Self::ObjectType(_) => 9,
            Self::ObjectValue(_) => 10,
            Self::InvalidIpTtl => 11,
            Self::MriValidation(_) => 12,
        }
    }

    /// The subcode; 0 where the code has none.
    #[must_use]
    pub fn subcode(self) -> u8 {
        match self {
            Self::CommonHeaderParse(fault) => fault as u8,
            Self::ObjectType(fault) => fault as u8,
            Self::ObjectValue(fault) => fault as u8,
            Self::MriValidation(fault) => fault as u8,
            _ => 0,
        }
    }

    /// The entry's name as one word, for counters: in lower case, with `_` for everything that is no letter.
    #[must_use]
    pub fn word(self) -> String {
        let name = self.to_string().to_ascii_lowercase();
        let parts: Vec<&str> = name.split(|letter: char| !letter.is_ascii_lowercase()).filter(|part| !part.is_empty()).collect();
        parts.join("_")
    }

    /// The catalogue's entry for a received code and subcode; `None` if the catalogue has none.
    #[must_use]
    pub fn from_codes(code: u16, subcode: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code && cause.subcode() == subcode)
    }
}

/// The catalogue's own name for the entry.
impl fmt::Display for ErrorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommonHeaderParse(HeaderFault::UnknownVersion) => "Unknown Version",
            Self::CommonHeaderParse(HeaderFault::UnknownType) => "Unknown Type",
            Self::CommonHeaderParse(HeaderFault::InvalidRFlag) => "Invalid R-flag",
            Self::CommonHeaderParse(HeaderFault::IncorrectMessageLength) => "Incorrect Message Length",
            Self::CommonHeaderParse(HeaderFault::InvalidEFlag) => "Invalid E-flag",
            Self::CommonHeaderParse(HeaderFault::InvalidCFlag) => "Invalid C-flag",
            Self::HopLimitExceeded => "Hop Limit Exceeded",
            Self::IncorrectEncapsulation => "Incorrect Encapsulation",
            Self::IncorrectlyDelivered => "Incorrectly Delivered Message",
            Self::NoRoutingState => "No Routing State",
            Self::UnknownNslpId => "Unknown NSLPID",
            Self::EndpointFound => "Endpoint Found",
            Self::MessageTooLarge => "Message Too Large",
            Self::ObjectType(ObjectTypeFault::Duplicate) => "Duplicate Object",
            Self::ObjectType(ObjectTypeFault::Unrecognised) => "Unrecognised Object",
            Self::ObjectType(ObjectTypeFault::Missing) => "Missing Object",
            Self::ObjectType(ObjectTypeFault::Invalid) => "Invalid Object Type",
            Self::ObjectType(ObjectTypeFault::Untranslated) => "Untranslated Object",
            Self::ObjectType(ObjectTypeFault::InvalidExtensibilityFlags) => "Invalid Extensibility Flags",
            Self::ObjectValue(ObjectValueFault::IncorrectLength) => "Incorrect Length",
            Self::ObjectValue(ObjectValueFault::ValueNotSupported) => "Value Not Supported",
            Self::ObjectValue(ObjectValueFault::InvalidFlagFieldCombination) => "Invalid Flag-Field Combination",
            Self::ObjectValue(ObjectValueFault::EmptyList) => "Empty List",
            Self::ObjectValue(ObjectValueFault::InvalidCookie) => "Invalid Cookie",
            Self::ObjectValue(ObjectValueFault::StackMismatch) => "Stack-Proposal - Stack-Configuration-Data Mismatch",
            Self::InvalidIpTtl => "Invalid IP-Layer TTL",
            Self::MriValidation(MriFault::TooWild) => "MRI Too Wild",
            Self::MriValidation(MriFault::IpVersionMismatch) => "IP Version Mismatch",
            Self::MriValidation(MriFault::IngressFilterFailure) => "Ingress Filter Failure",
        })
    }
}

/// Subcodes of Common Header Parse Error (RFC 5971 A.4.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HeaderFault {
    /// The version is not 1.
    UnknownVersion = 0,
    /// The message type is none of the six.
    UnknownType = 1,
    /// The R-flag does not fit the message type, or the Responder-Cookie in it.
    InvalidRFlag = 2,
    /// The message is longer or shorter than its header or its objects say.
    IncorrectMessageLength = 3,
    /// The E-flag is set on something other than Data.
    InvalidEFlag = 4,
    /// The C-flag is clear on a Query, or set on something other than Query and Data.
    InvalidCFlag = 5,
}

/// Subcodes of Object Type Error (RFC 5971 A.4.4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectTypeFault {
    /// The object occurs more than once.
    Duplicate = 0,
    /// The object is unknown and mandatory to understand.
    Unrecognised = 1,
    /// A mandatory object, or an object another one needs, is absent.
    Missing = 2,
    /// The object does not belong into this message, or not at this place.
    Invalid = 3,
    /// A NAT on the path did not translate the object.
    Untranslated = 4,
    /// Both extensibility flags are set.
    InvalidExtensibilityFlags = 5,
}

/// Subcodes of Object Value Error (RFC 5971 A.4.4.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectValueFault {
    /// The object's length does not fit its content.
    IncorrectLength = 0,
    /// A field has a value this node does not support.
    ValueNotSupported = 1,
    /// Flags and fields contradict each other.
    InvalidFlagFieldCombination = 2,
    /// A stack profile without a protocol.
    EmptyList = 3,
    /// The cookie is not one this node has made for this exchange.
    InvalidCookie = 4,
    /// Stack-Proposal and Stack-Configuration-Data contradict each other.
    StackMismatch = 5,
}

/// Subcodes of MRI Validation Failure (RFC 5971 A.4.4.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MriFault {
    /// Too much wildcarding to follow one path.
    TooWild = 0,
    /// The MRI's IP version is not that of the interface or of the Query's packet.
    IpVersionMismatch = 1,
    /// The flow would not pass ingress filtering on this interface.
    IngressFilterFailure = 2,
}
