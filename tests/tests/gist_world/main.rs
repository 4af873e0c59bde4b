//! GIST on real links, with the real daemons (RFC 5971): past a router that is only a GIST node, over routes that are not the same in both
//! directions, over an association that breaks in the middle of a message, and over a link that carries no more than IPv6 must.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod asymmetric;
mod chain;
mod console;
mod cut;
mod moving;
mod narrow;
mod row;
mod way_back;
