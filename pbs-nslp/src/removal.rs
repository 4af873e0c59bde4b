//! Removals on their way to the packet side: none is lost, and what waits for one happens after it (P-144).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use gist::time::Instant;

use crate::datapath::{Command, Token};
use crate::flow::FlowId;
use crate::node::Node;

/// Removals that have not been acknowledged, each with what is to happen then. As many as there were installed epochs at
/// most.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Removals<T> {
    waiting: BTreeMap<Token, Removal<T>>,
    retries: BTreeSet<(Instant, Token)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Removal<T> {
    flow: FlowId,
    spi: u32,
    then: Option<T>,
}

/// How long after a failure the removal is asked for again.
const RETRY: Duration = Duration::from_secs(1);

impl<T> Removals<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), retries: BTreeSet::new() }
    }

    /// Asks for a removal.
    pub(crate) fn start(&mut self, node: &mut Node, flow: FlowId, spi: u32) -> Token {
        let token = node.token();
        node.command(Command::Remove { token, flow, spi });
        self.waiting.insert(token, Removal { flow, spi, then: None });
        token
    }

    /// Says what is to happen when a removal is acknowledged; false if it has been already.
    pub(crate) fn then(&mut self, token: Token, then: T) -> Result<(), T> {
        match self.waiting.get_mut(&token) {
            Some(removal) => {
                removal.then = Some(then);
                Ok(())
            }
            None => Err(then),
        }
    }

    /// Takes an acknowledgement; `None` if it is none of a removal.
    pub(crate) fn applied(&mut self, token: Token) -> Option<Option<T>> {
        self.waiting.remove(&token).map(|removal| removal.then)
    }

    /// Takes a failure; false if it is none of a removal.
    pub(crate) fn failed(&mut self, token: Token, now: Instant) -> bool {
        let known = self.waiting.contains_key(&token);
        if known {
            self.retries.insert((now + RETRY, token));
        }
        known
    }

    /// When the next failed removal is asked for again.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Asks again for what failed.
    pub(crate) fn retry(&mut self, node: &mut Node, now: Instant) {
        while let Some(&(at, token)) = self.retries.first()
            && at <= now
        {
            self.retries.remove(&(at, token));
            if let Some(removal) = self.waiting.get(&token) {
                node.command(Command::Remove { token, flow: removal.flow, spi: removal.spi });
            }
        }
    }
}
