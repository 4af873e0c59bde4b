//! What `pbs-router` and `pbs` share: configuration, identity, control socket, logging, and the loop between GIST, the NSLP and
//! the packet side.

// One JSON object holds all of GIST's counters.
#![recursion_limit = "256"]

pub mod claim;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod datapath;
pub mod drive;
pub mod exempt;
pub mod expiry;
pub mod flow_table;
pub mod flows;
pub mod identity;
pub mod interfaces;
mod leaf;
pub mod logging;
pub mod memory;
pub mod outcomes;
pub mod protocol;
pub mod reassembly;
mod report;
pub mod revocation;
pub mod routing;
pub mod rules;
pub mod signatures;
pub mod source;
pub mod start;
pub mod status;
pub mod table;
pub mod threads;
pub mod translate;
mod ways;
