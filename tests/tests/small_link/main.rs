//! A path with a link narrower than the others (X-59, X-87), with the real daemons on the kernel's own packets:
//!
//! ```text
//! sender -- router1 -- router2 == 1400 == plain -- receiver
//! ```
//!
//! The second router tells the sender that its packets are too big, the first one lets that pass, and the sender's own kernel hears
//! of it as of its own packets. The plain router knows nothing of permissions. On the same path: fragments, protocols without
//! ports, extension headers, and the largest AH.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod datagrams;
mod escalation;
mod fragments;
mod protocols;
mod site;
mod stream;
