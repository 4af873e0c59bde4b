//! Two hosts with a connection between them, routers on the way: a virtual clock, no sockets, no GIST, a packet side that
//! counts.
//!
//! X-57 is shown here: each direction of a connection is a session of its own, and the second one follows from the first.
//! Rules (FS-, FR-, FN-) and invariants (INV-) are those of `fsm-specs/requirements/fsm.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../machines/credentials.rs"]
mod credentials;
mod ending;
mod handshake;
mod interleavings;
mod invariants;
mod packets;
mod restart;
mod volume;
mod world;
