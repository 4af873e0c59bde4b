//! Sender, routers and receiver against each other: a virtual clock, no sockets, no GIST, a packet side that counts.
//!
//! Rules (FS-, FR-, FN-) and invariants (INV-, TMP-) are those of `fsm-specs/requirements/fsm.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod adoption;
mod algorithms;
mod alone;
mod budget;
mod change;
mod clocks;
mod consent;
mod copies;
mod counting;
mod coverage;
mod credentials;
mod datapath;
mod detection;
mod differential;
mod distrust;
mod ending;
mod expiry;
mod faults;
mod forge;
mod former;
mod grace;
mod hostile;
mod invariants;
mod last_hop;
mod life;
mod lifetimes;
mod limits;
mod operation;
mod paths;
mod policy;
mod query_flood;
mod real;
mod refresh;
mod rekey;
mod repair;
mod replay;
mod restart;
mod rows;
mod sender_flood;
mod setting;
mod setup;
mod shares;
mod sources;
mod succession;
mod told;
mod wide;
mod world;
