//! What `pbs-router` and `pbs` share: configuration, identity, control socket, logging, and the loop between GIST, the NSLP and
//! the packet side.

pub mod claim;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod datapath;
pub mod drive;
pub mod flows;
pub mod identity;
pub mod logging;
mod report;
pub mod source;
pub mod status;
pub mod table;
mod translate;
