//! Removals on their way to the packet side: none is lost, and what waits for them happens after the last one (P-144).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use gist::time::Instant;

use crate::datapath::{Command, Token};
use crate::flow::FlowId;
use crate::node::Node;

/// Removals that have not been acknowledged, and what is to happen when a flow has none left. As many removals as there were
/// installed epochs at most, and [`THEN_LIMIT`] things to happen for each flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Removals<T> {
    waiting: BTreeMap<Token, (FlowId, u32)>,
    /// The tokens of `waiting`, by flow.
    by_flow: BTreeSet<(FlowId, Token)>,
    then: BTreeMap<FlowId, Vec<Then<T>>>,
    retries: BTreeSet<(Instant, Token)>,
}

/// What is to happen, and the removal whose counters it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Then<T> {
    about: Option<Token>,
    last: Counted,
    what: T,
}

/// Final counters of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Counted {
    /// Counted volume in bytes.
    pub(crate) volume: u64,
    /// Highest sequence number counted.
    pub(crate) highest: u32,
}

/// What may wait for the removals of one flow.
const THEN_LIMIT: usize = 16;

/// How long after a failure the removal is asked for again.
const RETRY: Duration = Duration::from_secs(1);

impl<T> Removals<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: BTreeMap::new(), by_flow: BTreeSet::new(), then: BTreeMap::new(), retries: BTreeSet::new() }
    }

    /// Asks for a removal.
    pub(crate) fn start(&mut self, node: &mut Node, flow: FlowId, spi: u32) -> Token {
        let token = node.token();
        node.command(Command::Remove { token, flow, spi });
        self.waiting.insert(token, (flow, spi));
        self.by_flow.insert((flow, token));
        token
    }

    /// Says what is to happen when every removal of a flow has been acknowledged, and whose final counters it needs; gives it
    /// back if none is under way. When too much waits already it is forgotten: what waits says that the flow has ended, and soft
    /// state repeats the rest.
    pub(crate) fn then(&mut self, flow: FlowId, about: Option<Token>, what: T) -> Result<(), T> {
        if !self.is_under_way(&flow) {
            return Err(what);
        }
        let waiting = self.then.entry(flow).or_default();
        if waiting.len() < THEN_LIMIT {
            waiting.push(Then { about, last: Counted::default(), what });
        } else {
            tracing::warn!(%flow, "too much waits for the packet side to remove the flow's permissions");
        }
        Ok(())
    }

    /// Whether the removal of an epoch has not been acknowledged. Until then nothing may be installed under its name: a removal that
    /// failed is asked for again, and would take that.
    pub(crate) fn holds(&self, flow: &FlowId, spi: u32) -> bool {
        let tokens = self.by_flow.range((*flow, Token(0))..=(*flow, Token(u64::MAX)));
        tokens.filter_map(|(_, token)| self.waiting.get(token)).any(|(_, of)| *of == spi)
    }

    /// Whether a removal of the flow has not been acknowledged.
    pub(crate) fn is_under_way(&self, flow: &FlowId) -> bool {
        self.by_flow.range((*flow, Token(0))..=(*flow, Token(u64::MAX))).next().is_some()
    }

    /// Takes an acknowledgement: what is to happen now, with the counters it is about; `None` if it is none of a removal.
    pub(crate) fn applied(&mut self, token: Token, counted: Counted) -> Option<Vec<(T, Counted)>> {
        let (flow, _) = self.waiting.remove(&token)?;
        self.by_flow.remove(&(flow, token));
        for then in self.then.get_mut(&flow).into_iter().flatten().filter(|then| then.about == Some(token)) {
            then.last = counted;
        }
        let due = if self.is_under_way(&flow) { None } else { self.then.remove(&flow) };
        Some(due.unwrap_or_default().into_iter().map(|then| (then.what, then.last)).collect())
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
            if let Some(&(flow, spi)) = self.waiting.get(&token) {
                node.command(Command::Remove { token, flow, spi });
            }
        }
    }
}
