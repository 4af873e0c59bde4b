//! Made-up and damaged input for everything that reads octets of others, without coverage feedback: a mutator that knows how messages
//! and packets are made, and invariants that are asserted after each input.
//!
//! A [`Target`] is a function of octets; it panics where an invariant is broken. `cargo test` replays the corpora, which lie in
//! `tests/vectors/fuzz`, and some thousand mutations; `pbs-lab fuzz` goes on for as long as one likes; `fuzz/` outside the workspace
//! hands the same functions to libFuzzer.
//!
//! What holds for each target: no panic; what is read can be written again, and is then read the same; what comes out is no longer than
//! what went in allows; and of a node: what cannot be read moves nothing, is answered by one message at most, and leaves no timer that
//! is due at once; of a verifier: a row of packets has the verdicts that they have one by one, and nothing passes that nobody has sealed;
//! and of configurations and requests: what is wrong is said with its line, in words no longer than the input allows.

mod campaign;
mod corpus;
mod mutate;
mod shapes;
mod targets;

pub use campaign::{Finding, Options, Outcome, run};
pub use corpus::read;
pub use mutate::{Layout, Mutator};
pub use targets::{TARGETS, find, judge};

/// Something that reads octets of others.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called, and its corpus.
    pub name: &'static str,
    /// What it reads.
    pub reads: &'static str,
    /// How its inputs are made, so that mutations are not all refused at once.
    pub layout: Layout,
    /// Inputs that are made rather than kept; may be none.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Takes one input, asserts what must hold, and gives a number that tells apart what became of it.
    pub take: fn(&[u8]) -> u64,
}

/// A number for what became of an input.
pub(crate) fn mark(of: &impl std::hash::Hash) -> u64 {
    use std::hash::Hasher;
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
