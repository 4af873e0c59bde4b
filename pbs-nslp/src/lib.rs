//! The Permission-Based Sending NSLP as state machines: no sockets, no clock, no tasks.
//!
//! * [`wire`]: the messages of draft-hong-nsis-pbs-nslp-04 §9, as values.
//! * [`credentials`]: signatures and certificates, as traits and over X.509.
//! * [`admission`]: the checks every received message passes, in their order.
//! * [`sender`], [`receiver`], [`router`]: the machines, each driven by its table.
//! * [`detection`]: what was sent against what was counted.
//! * [`fair_queue`]: whose message is checked next.
//! * [`host`]: sender and receiver of one host, and the two directions of its connections.
//! * [`entropy`]: unpredictable values, from a seed and a trait.
//! * [`datapath`], [`output`]: what they say to the packet side and to the shell.

pub mod admission;
mod association;
mod clock;
pub mod credentials;
pub mod datapath;
pub mod detection;
pub mod entropy;
pub mod fair_queue;
pub mod flow;
pub mod host;
pub mod node;
mod opaque;
pub mod output;
mod own_numbers;
pub mod receiver;
mod removal;
pub mod report;
pub mod router;
pub mod selector;
pub mod sender;
mod shares;
pub mod status;
mod timers;
pub mod wire;
