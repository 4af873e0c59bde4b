//! The wire formats of RFC 5971 Appendix A, as values.
//!
//! [`Message::decode`] reads a whole message or says what is wrong with it in the words of the error catalogue
//! (Appendix A.4.4); a [`Message`] that exists has every mandatory object, in order, once. [`Message::encode`] writes it.
//! [`datagram`] adds and checks the magic number of D-mode, [`stream`] cuts messages out of a messaging association.
//!
//! Reserved bits and padding are sent as 0 and ignored on receipt (Appendix A).

mod cookie;
pub mod datagram;
mod decode_error;
mod encode_error;
mod error_cause;
mod error_object;
mod header;
mod identifiers;
mod message;
mod message_decode;
mod message_encode;
mod mri;
mod nat_traversal;
mod nli;
mod object;
mod object_sequence;
mod reader;
mod stack_configuration;
mod stack_offer;
mod stack_proposal;
pub mod stream;

pub use cookie::Cookie;
pub use decode_error::{DecodeError, DecodeFault, MessageContext, ValueError};
pub use encode_error::EncodeError;
pub use error_cause::{ErrorCause, ErrorClass, HeaderFault, MriFault, ObjectTypeFault, ObjectValueFault};
pub use error_object::{ErrorInfo, GistError, ObjectValueInfo};
pub use header::{CommonHeader, HEADER_LENGTH, MessageType, VERSION, header_bytes};
pub use identifiers::{NslpId, PeerIdentity, SessionId};
pub use message::{Body, Confirm, Data, ErrorBody, Hello, Message, Query, ResponderPart, Response};
pub use mri::{Direction, LooseEnd, Mri, PathCoupled};
pub use nat_traversal::NatTraversal;
pub use nli::NetworkLayerInformation;
pub use object::{Extensibility, MAX_VALUE_LENGTH, ObjectType, UnknownObject};
pub use object_sequence::routing_information;
pub use stack_configuration::{MaOptions, StackConfiguration};
pub use stack_offer::StackOffer;
pub use stack_proposal::{MaProtocol, Profile, StackProposal};

/// The short name RFC 5971 itself uses.
pub use nli::NetworkLayerInformation as Nli;
