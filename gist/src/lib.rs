//! GIST (RFC 5971) as a state machine: no sockets, no clock, no tasks, no randomness.
//!
//! * [`api`]: between a signalling application and GIST; [`node`]: the node itself.
//! * `io` (feature `io`): sockets, TLS and timers around a node; `io::ipc` (feature `ipc`): a node for other programs, over a Unix socket.
//! * [`time`]: the value every input carries as its last parameter.
//! * [`wire`]: the messages and objects of RFC 5971 Appendix A, as values.

pub mod api;
#[cfg(feature = "io")]
pub mod io;
pub mod node;
pub mod time;
pub mod wire;
