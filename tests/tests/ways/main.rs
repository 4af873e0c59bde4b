//! Flows on other ways out of a host (X-99, P-189), with the real daemons on the kernel's own packets: over a relay, and by a
//! second uplink that carries less than the routed one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)]

mod configuration;
mod connection;
mod narrow;
mod relayed;
