//! What the daemons do with bad input: a clear error that names what and where, the right exit code, never a panic, and nothing
//! changed that must not change. The programs are the real ones, in network namespaces of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod association;
mod authenticated;
mod beside;
mod certificates;
mod command_line;
mod configuration;
mod drops;
mod ending;
mod garbage;
mod guard;
mod identity;
mod kernel;
mod notices;
mod packets;
mod path_mtu;
mod peers;
mod reflection;
mod relay;
mod revocation;
mod support;
mod tampering;
mod under_load;
mod unheld;
