//! Traffic management, shared by router and hosts: packet views, AH, replay window, permission table, and the
//! packet queue with its filter rules and routes.
//!
//! The packet side never parses a signalling message. Everything that decides about a packet is a
//! [`processor::PacketProcessor`]: no socket, no clock, no lock; the queue's thread owns it.
//!
//! [`verifier::Verifier`] and [`inserter::Inserter`] are values (`Clone + Eq + Hash`), keys included; how ICVs are computed comes in
//! through [`algorithm::Integrity`] and [`algorithm::PacketSigner`], the checks themselves through [`checks::Checks`].

pub mod af_xdp;
pub mod ah;
pub mod algorithm;
pub mod budget;
pub mod checks;
pub mod common;
pub mod counters;
pub mod event;
pub mod flow;
pub mod heard;
pub mod icmp;
pub mod inserter;
pub mod joining;
pub mod ledger;
pub mod machine;
pub mod mode;
pub mod netlink;
pub mod next_hop;
pub mod packet;
pub mod paths;
pub mod processor;
pub mod queue;
pub mod reason;
pub mod relay;
pub mod replay;
pub mod routes;
pub mod routing_events;
pub mod rules;
pub mod segments;
pub mod spread;
mod state;
pub mod table;
pub mod tunnel;
pub mod update;
pub mod vectors;
pub mod verifier;
pub mod worker;
