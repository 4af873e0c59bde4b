//! The wire formats: vectors made by hand from the pictures of RFC 5971 Appendix A, messages of another
//! implementation, every way to be malformed, and properties that hold for all messages and all bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod captures;
mod errors;
mod extensibility;
mod framing;
mod header;
mod messages;
mod mri;
mod objects;
mod order;
mod picture;
mod properties;
mod samples;
mod values;
