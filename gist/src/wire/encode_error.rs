//! Why a value cannot be written.

use super::object::ObjectType;

/// A value that no RFC 5971 message can carry: a mistake of the caller, never of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EncodeError {
    /// A field's value is outside what the object can express.
    #[error("{object}: {field} cannot be expressed")]
    Field {
        /// The object being written.
        object: ObjectType,
        /// The field, in the RFC's words.
        field: &'static str,
    },
    /// The object's value is longer than 4095 words, or no whole number of words.
    #[error("{object}: {length} bytes are too long, or no whole number of words")]
    ObjectLength {
        /// The object being written.
        object: ObjectType,
        /// The value's length in bytes.
        length: usize,
    },
    /// An object is absent which another one in the message needs.
    #[error("{missing} is missing although {present} is there")]
    Missing {
        /// The absent object.
        missing: ObjectType,
        /// The object that needs it.
        present: ObjectType,
    },
    /// The R-flag contradicts the message's content.
    #[error("the R-flag contradicts the message")]
    ReplyFlag,
    /// Stack-Proposal and Stack-Configuration-Data contradict each other.
    #[error("Stack-Proposal and Stack-Configuration-Data contradict each other")]
    StackMismatch,
    /// The message is longer than its header can say (65535 words after the header).
    #[error("the message is {words} words long, 65535 at most")]
    MessageLength {
        /// Words after the common header.
        words: usize,
    },
}
