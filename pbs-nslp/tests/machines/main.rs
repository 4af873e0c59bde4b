//! Sender, routers and receiver against each other: a virtual clock, no sockets, no GIST, a packet side that counts.
//!
//! Rules (FS-, FR-, FN-) and invariants (INV-, TMP-) are those of `fsm-specs/requirements/fsm.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod budget;
mod clocks;
mod consent;
mod credentials;
mod datapath;
mod differential;
mod ending;
mod expiry;
mod faults;
mod forge;
mod invariants;
mod policy;
mod real;
mod refresh;
mod repair;
mod replay;
mod rows;
mod setup;
mod shares;
mod world;
