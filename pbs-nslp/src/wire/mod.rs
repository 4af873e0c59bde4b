//! PBS messages as values: draft-04 §9, completed by decisions and appendix B.
//!
//! [`decode`] turns received bytes into a [`Message`] and keeps what routers must pass on unchanged; `build_*` turn a
//! message into signed bytes. Neither checks a signature nor a certificate: that is [`crate::credentials`].

mod decode;
mod defense;
mod encode;
mod error;
mod message;
mod notify;
pub mod number;
mod object;
mod rules;
mod scan;
mod secret;
mod signature;
mod value;
mod volume;
mod writer;

pub use decode::decode;
pub use defense::{AlgorithmStanding, Defense, PublicKeyAlgorithm, SaParameters, SharedKey, SymmetricAlgorithm, WrongKeyLength};
pub use encode::{build_notify, build_permission, build_query};
pub use error::{BuildError, DecodeError, Malformation};
pub use message::{CgaParameters, Credential, Message, Permission, PuzzleSolution, Query, Signed, Unsigned, VolumeContext};
pub use notify::{Notify, NotifyCode, PuzzleChallenge, class};
pub use object::{MessageKind, ObjectType, Treatment};
pub use volume::Volume;

/// Largest message in bytes (X-23, P-027).
pub const MESSAGE_LIMIT: usize = 16_380;

/// Most intermediate certificates in a message: with the end-entity certificate the path has at most four (X-22, P-072).
pub const CHAIN_LIMIT: usize = 3;
