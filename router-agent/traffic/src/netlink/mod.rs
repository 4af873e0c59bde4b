//! Netlink messages and the socket that carries them: a writer, a fallible reader, and request/answer exchanges.
//!
//! Only the framing of RFC 3549 §2 is here, as Linux uses it; what the messages mean is the business of
//! [`rules`](crate::rules), [`queue`](crate::queue) and [`routes`](crate::routes).
//!
//! ```text
//!  0               1               2               3
//! +---------------------------------------------------------------+
//! |                     length, header included                   |
//! +-------------------------------+-------------------------------+
//! |            kind               |             flags             |
//! +-------------------------------+-------------------------------+
//! |                        sequence number                        |
//! +---------------------------------------------------------------+
//! |                   port of the sending socket                  |
//! +---------------------------------------------------------------+
//! |   fixed part of the kind, then attributes: length, kind,      |
//! |   value, padded to 4 octets                                   |
//! ```
//! Lengths, kinds and flags are in host order; values are in the order that each attribute's definition says.

mod many;
mod reader;
mod socket;
mod writer;

pub use many::{Few, MANY, Many, ManyBuffer};
pub use nix::errno::Errno;
pub use reader::{Attribute, Attributes, Malformed, Message, Messages, attributes, messages};
pub(crate) use socket::Answer;
pub use socket::{NetlinkError, Protocol, Socket};
pub use writer::{Batch, Header, TooLong, Writer};

/// The message is a request (`NLM_F_REQUEST`).
pub const REQUEST: u16 = 0x1;
/// The kernel is to confirm success too (`NLM_F_ACK`).
pub const ACK: u16 = 0x4;
/// Every entry is asked for (`NLM_F_DUMP`).
pub const DUMP: u16 = 0x300;
/// An entry that exists is replaced (`NLM_F_REPLACE`).
pub const REPLACE: u16 = 0x100;
/// An entry that exists is an error (`NLM_F_EXCL`).
pub const EXCLUSIVE: u16 = 0x200;
/// An entry that is missing is created (`NLM_F_CREATE`).
pub const CREATE: u16 = 0x400;
/// The entry goes behind those that exist (`NLM_F_APPEND`).
pub const APPEND: u16 = 0x800;

/// Answer to a request: an error number, 0 for success (`NLMSG_ERROR`).
const ERROR: u16 = 2;
/// End of a dump (`NLMSG_DONE`).
const DONE: u16 = 3;
/// The entries changed while they were listed (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;
/// The error message does not quote the whole request (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;
/// Attributes that explain the error follow (`NLM_F_ACK_TLVS`).
const ACK_ATTRIBUTES: u16 = 0x200;
/// Octets of a message header.
const HEADER_LEN: usize = 16;
/// Octets of an attribute header.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Marks an attribute that holds attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// What of an attribute's kind is its number (`NLA_TYPE_MASK`).
const KIND_MASK: u16 = 0x3fff;

/// Rounds up to the next multiple of 4, on which every message and attribute starts.
const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}
