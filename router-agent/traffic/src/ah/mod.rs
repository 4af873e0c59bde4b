//! IP Authentication Header (RFC 4302), transport mode.
//!
//! ICV and window are computed and judged by the RFC, extended sequence numbers included: [`icv_matches`],
//! [`InboundAssociation`]. What PBS refuses beyond that is in [`policy`], a separate check after it. [`insert`] and
//! [`remove`] write packets, [`Sealing`] many at once.

mod association;
mod batch;
mod icv;
pub mod policy;
mod rewrite;
mod sealing;
mod series;
mod view;

pub use association::{InboundAssociation, Rejection, Verified};
pub use batch::{BATCH, Question, icvs_match};
pub use icv::{icv_matches, icv_matches_by};
pub(crate) use rewrite::overhead;
pub use rewrite::{InsertError, NoAh, Number, insert, insert_by, remove};
pub use sealing::Sealing;
pub(crate) use series::{Next, Series};
pub use view::AhView;
