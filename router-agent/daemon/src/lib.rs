//! What `pbs-router` and `pbs` share: configuration, identity, control socket and logging.

pub mod config;
pub mod control;
pub mod logging;
