//! What can be wrong with a message, in bytes received or in values to build.

use core::fmt;

use thiserror::Error;

use super::{MESSAGE_LIMIT, NotifyCode, ObjectType};
use crate::credentials::SignError;
use crate::flow::FlowError;

/// Why bytes are no acceptable message: what, in which object, where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub reason: Malformation,
    /// The object concerned, if it is one object's fault.
    pub object: Option<ObjectType>,
    /// Where in the message, in bytes from its start.
    pub offset: usize,
    /// The message's own number if it could be read, for the Notify that answers.
    pub number: Option<u32>,
}

impl DecodeError {
    /// The code and detail of the Notify that answers (appendix C).
    pub fn notify(&self) -> (NotifyCode, u16) {
        let code = self.reason.notify_code();
        let detail = match self.reason {
            Malformation::UnknownMessageType(kind) => u16::from(kind),
            _ => self.object.map_or(0, |object| u16::from(object.0)),
        };
        (code, detail)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object {
            Some(object) => write!(f, "{object} at byte {}: {}", self.offset, self.reason),
            None => write!(f, "byte {}: {}", self.offset, self.reason),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The kinds of fault in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformation {
    /// A message type other than Query, Permission and Notify (P-017).
    #[error("unknown message type {0}")]
    UnknownMessageType(u8),
    /// Longer than [`MESSAGE_LIMIT`].
    #[error("longer than {MESSAGE_LIMIT} bytes")]
    TooLarge,
    /// The message ends inside a header, a value or its padding (P-018).
    #[error("cut short")]
    Truncated,
    /// The value's length is not one the object can have.
    #[error("wrong length {0}")]
    Length(usize),
    /// Padding is not zero.
    #[error("padding is not zero")]
    Padding,
    /// AB=11.
    #[error("AB=11")]
    ReservedTreatment,
    /// A known object with other A and B bits than its own.
    #[error("A and B bits are not those of the object")]
    Treatment,
    /// Not known, and marked AB=00 (P-032).
    #[error("unknown and mandatory")]
    UnknownMandatory,
    /// A second object of one type (P-025).
    #[error("repeated")]
    Duplicate,
    /// An object of another message type (P-026).
    #[error("does not belong in this message")]
    Misplaced,
    /// Not marked AB=01 and yet after Auth-data, so outside the signature (P-021).
    #[error("stands after the signature")]
    AfterSignature,
    /// Absent although required.
    #[error("missing")]
    Missing,
    /// Present together with an object that excludes it, or without the one it goes with.
    #[error("{0}")]
    Combination(&'static str),
    /// A value that is not allowed.
    #[error("{0}")]
    Value(&'static str),
    /// A flow that is not allowed.
    #[error("{0}")]
    Flow(FlowError),
    /// A 32-bit volume differs from the saturated value of its 64-bit twin.
    #[error("differs from its 32-bit object")]
    TwinMismatch,
}

impl Malformation {
    /// The code of the Notify that answers (appendix C).
    pub fn notify_code(&self) -> NotifyCode {
        match self {
            Self::UnknownMessageType(_) => NotifyCode::UnknownMessageType,
            Self::TooLarge
            | Self::Truncated
            | Self::Length(_)
            | Self::Padding
            | Self::Treatment
            | Self::Misplaced
            | Self::AfterSignature
            | Self::Combination(_)
            | Self::TwinMismatch => NotifyCode::Malformed,
            Self::ReservedTreatment => NotifyCode::ReservedTreatment,
            Self::UnknownMandatory => NotifyCode::UnknownMandatoryObject,
            Self::Duplicate => NotifyCode::DuplicateObject,
            Self::Missing => NotifyCode::MissingObject,
            Self::Value(_) | Self::Flow(_) => NotifyCode::BadValue,
        }
    }
}

/// Why a message cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BuildError {
    /// It would be longer than [`MESSAGE_LIMIT`] (P-027).
    #[error("the message is longer than {MESSAGE_LIMIT} bytes")]
    TooLarge,
    /// Its values break a rule that receivers enforce.
    #[error("{object}: {reason}")]
    Invalid {
        /// The object at fault.
        object: ObjectType,
        /// The rule.
        reason: Malformation,
    },
    /// Its certificate is not the signer's.
    #[error("the message carries another certificate than the signer's")]
    ForeignCertificate,
    /// The signer failed.
    #[error(transparent)]
    Signer(#[from] SignError),
}
