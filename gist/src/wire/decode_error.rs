//! Why received bytes are refused, with all an Error message about them needs.

use super::error_cause::{ErrorCause, HeaderFault, ObjectTypeFault, ObjectValueFault};
use super::error_object::{ErrorInfo, GistError, ObjectValueInfo};
use super::header::{CommonHeader, HEADER_LENGTH, MessageType};
use super::identifiers::SessionId;
use super::mri::Mri;
use super::nat_traversal::NatTraversal;
use super::nli::NetworkLayerInformation;
use super::object::ObjectType;

/// What is wrong with an object's value, and where (RFC 5971 A.4.4.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{} at byte {offset}", ErrorCause::ObjectValue(*fault))]
pub struct ValueError {
    /// The subcode.
    pub fault: ObjectValueFault,
    /// The byte within the value, not counting the object's header, at which the fault was found.
    pub offset: usize,
}

/// A received message that is not processed further.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{fault}")]
pub struct DecodeError {
    /// What is wrong.
    pub fault: DecodeFault,
    /// What could be read all the same.
    pub context: Box<MessageContext>,
}

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeFault {
    /// Fewer bytes than a common header: no Error message can be made, as it must contain that header.
    #[error("{0} bytes are no GIST message")]
    TooShort(usize),
    /// Common Header Parse Error (RFC 5971 A.4.4.1).
    #[error("Common Header Parse Error: {}", ErrorCause::CommonHeaderParse(*fault))]
    Header {
        /// The subcode.
        fault: HeaderFault,
        /// For [`HeaderFault::IncorrectMessageLength`]: the words all objects together say they have.
        calculated_length: Option<u16>,
    },
    /// Object Type Error (RFC 5971 A.4.4.9).
    #[error("Object Type Error: {}: {object}", ErrorCause::ObjectType(*fault))]
    ObjectType {
        /// The subcode.
        fault: ObjectTypeFault,
        /// The object that is absent, superfluous, misplaced or unknown.
        object: ObjectType,
    },
    /// Object Value Error (RFC 5971 A.4.4.10).
    #[error("Object Value Error: {}", ErrorCause::ObjectValue(*fault))]
    ObjectValue {
        /// The subcode.
        fault: ObjectValueFault,
        /// The object, or for [`ObjectValueFault::StackMismatch`] both objects, proposal first.
        objects: Vec<ObjectValueInfo>,
    },
}

/// What could be read of a refused message: where an Error may go and what it must contain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MessageContext {
    /// The first eight bytes as they came.
    pub header: Option<[u8; HEADER_LENGTH]>,
    /// The NAT-Traversal object, which every Error about the message has to repeat (RFC 5971 §7.2.3).
    pub nat: Option<NatTraversal>,
    /// The session.
    pub session: Option<SessionId>,
    /// The message routing information.
    pub mri: Option<Mri>,
    /// Where the sender wants answers (RFC 5971 §5.6).
    pub nli: Option<NetworkLayerInformation>,
}

impl MessageContext {
    /// The common header's fields, readable whatever their values are.
    #[must_use]
    pub fn common_header(&self) -> Option<CommonHeader> {
        self.header.map(CommonHeader::from_bytes)
    }
}

impl DecodeError {
    /// The entry of the error catalogue; `None` if nothing may be answered because there is no common header.
    #[must_use]
    pub fn cause(&self) -> Option<ErrorCause> {
        match &self.fault {
            DecodeFault::TooShort(_) => None,
            DecodeFault::Header { fault, .. } => Some(ErrorCause::CommonHeaderParse(*fault)),
            DecodeFault::ObjectType { fault, .. } => Some(ErrorCause::ObjectType(*fault)),
            DecodeFault::ObjectValue { fault, .. } => Some(ErrorCause::ObjectValue(*fault)),
        }
    }

    /// Whether the refused message says of itself that it is an Error, which is never answered (RFC 5971 §5.6).
    #[must_use]
    pub fn is_about_error_message(&self) -> bool {
        self.context.common_header().is_some_and(|header| header.message_type == Ok(MessageType::Error))
    }

    /// The Error object about this message, for a message received in C-mode; the caller sets
    /// [`GistError::datagram_mode`] and [`GistError::query_mode`] if it was not.
    ///
    /// `None` if nothing may be answered: too little was received, or the message is itself an Error.
    #[must_use]
    pub fn to_gist_error(&self) -> Option<GistError> {
        let header = self.context.header?;
        let cause = self.cause()?;
        if self.is_about_error_message() {
            return None;
        }
        let mut error = GistError::new(cause, header);
        match &self.fault {
            DecodeFault::TooShort(_) => return None,
            // RFC 5971 A.4.4.1: neither MRI nor session go with a header error.
            DecodeFault::Header { calculated_length, .. } => {
                error.info.extend(calculated_length.map(ErrorInfo::MessageLength));
                return Some(error);
            }
            DecodeFault::ObjectType { object, .. } => error.info.push(ErrorInfo::ObjectType(object.number())),
            DecodeFault::ObjectValue { objects, .. } => {
                error.info.extend(objects.iter().cloned().map(ErrorInfo::ObjectValue));
            }
        }
        error.session = self.context.session;
        error.mri.clone_from(&self.context.mri);
        Some(error)
    }
}
