//! The sender of flows: it asks before it sends, and stays within what it was granted.
//!
//! After every `handle_*` and every wish of the host, drain [`Sender::poll_output`] to `None`; then sleep until
//! [`Sender::poll_timeout`].

mod effects;
mod holds;
mod inputs;
mod paths;
mod query;
mod reverse;
mod rows;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use gist::time::Instant;
use thiserror::Error;

use crate::credentials::{Authority, Signer};
use crate::datapath::Token;
use crate::entropy::Entropy;
use crate::flow::FlowId;
use crate::node::{Counters, Node, NodeConfig};
use crate::opaque::Opaque;
use crate::output::Output;
use crate::own_numbers::OwnNumbers;
use crate::removal::Removals;
use crate::selector::Selector;
use crate::status::{PermissionStatus, SessionStatus};
use crate::timers::Timers;
use crate::wire::{SymmetricAlgorithm, Volume};

use effects::{Awaited, Farewell};
use holds::Holds;
pub use paths::Way;
use session::Session;
use table::{Event, State, Timer};

pub(crate) use reverse::Outgoing;

/// The state machine, as generated from its table.
pub mod table {
    include!(concat!(env!("OUT_DIR"), "/pbs_sender.rs"));
}

/// What a sender is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SenderConfig {
    /// What every node is told.
    pub node: NodeConfig,
    /// The addresses this host sends from.
    pub addresses: Vec<IpAddr>,
    /// Which traffic asks by itself, the first rule that matches decides.
    pub ask: Vec<AskRule>,
    /// Flows at most.
    pub sessions: usize,
    /// How many times a session may change its path (N of X-47).
    pub path_changes: u8,
    /// The codes under shared keys that this host's packets have room for; a Permission for another is refused (FS-07, X-33).
    pub macs: Vec<SymmetricAlgorithm>,
}

impl SenderConfig {
    /// The profile's constants.
    pub fn new(node: NodeConfig, addresses: Vec<IpAddr>, ask: Vec<AskRule>) -> Self {
        Self { node, addresses, ask, sessions: 65_536, path_changes: 2, macs: SymmetricAlgorithm::USABLE.to_vec() }
    }
}

/// One rule: the first packet of such a flow asks for a permission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AskRule {
    /// Which flows.
    pub selector: Selector,
    /// How much is asked for at a time.
    pub volume: Volume,
    /// Whether only signed packets will do (Solution 3): the Query says so, and a Permission for anything else is refused (FS-07, X-33).
    pub signed: bool,
    /// Which code the Query puts first for packets that are not signed; `None`: HMAC-SHA-256.
    pub mac: Option<SymmetricAlgorithm>,
}

/// Why a wish to send is not taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WantError {
    /// The flow does not start at this host.
    #[error("the source address is not this host's")]
    ForeignSource,
    /// The table of flows is full.
    #[error("no room for another flow")]
    Full,
    /// Nothing is wanted.
    #[error("a volume of 0 bytes")]
    NoVolume,
}

/// A sender's part in all flows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sender {
    config: SenderConfig,
    node: Node,
    signer: Opaque<dyn Signer>,
    entropy: Entropy,
    numbers: OwnNumbers,
    holds: Holds,
    sessions: BTreeMap<FlowId, Session>,
    timers: Timers<FlowId, Timer>,
    /// Which session waits for an answer of the packet side.
    waiting: BTreeMap<Token, Awaited>,
    removals: Removals<Farewell>,
    ways: Vec<Way>,
    /// Events that a row gave rise to.
    follow: VecDeque<(FlowId, Event)>,
}

impl Sender {
    /// A sender that has just started, at Unix time `unix_seconds`. Session identifiers and jitter come from
    /// `entropy`.
    pub fn new(
        config: SenderConfig,
        signer: Arc<dyn Signer>,
        authority: Arc<dyn Authority>,
        entropy: Entropy,
        unix_seconds: u64,
        now: Instant,
    ) -> Self {
        let mut node = Node::new(&config.node, authority, unix_seconds, now);
        node.raise_floor(now);
        Self {
            node,
            holds: Holds::new(config.sessions),
            config,
            signer: Opaque::new(signer),
            entropy,
            numbers: OwnNumbers::new(),
            sessions: BTreeMap::new(),
            timers: Timers::new(),
            waiting: BTreeMap::new(),
            removals: Removals::new(),
            ways: Vec::new(),
            follow: VecDeque::new(),
        }
    }

    /// Replaces the addresses this host sends from. What is under way goes on.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.config.addresses = addresses;
    }

    /// Says what time it is, in Unix seconds; to be repeated once in a while.
    pub fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.node.set_wall_clock(unix_seconds, now);
    }

    /// Takes other rules, for flows to come.
    pub fn set_ask_rules(&mut self, ask: Vec<AskRule>) {
        self.config.ask = ask;
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.node.poll_output()
    }

    /// When [`Sender::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.removals.next()].into_iter().flatten().min()
    }

    /// The flows, in their order.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        self.sessions.iter().map(|(flow, session)| self.status(*flow, session)).collect()
    }

    /// One flow, if there is a session of it.
    pub fn session(&self, flow: &FlowId) -> Option<SessionStatus> {
        self.sessions.get(flow).map(|session| self.status(*flow, session))
    }

    /// What the messages taken since this was asked last have cost, as [`crate::fair_queue::FairQueue::charge`] counts it for one.
    pub fn take_cost(&mut self) -> u32 {
        self.node.take_cost()
    }

    /// How often things happened.
    pub fn counters(&self) -> &Counters {
        &self.node.counters
    }

    /// The same with nothing counted: no counters, no rates used up, no certificates known. Two whose values are equal then will
    /// permit the same; for tests and models, which show with it that a message has changed nothing.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self { node: self.node.uncounted(&self.config.node), ..self.clone() }
    }

    fn status(&self, flow: FlowId, session: &Session) -> SessionStatus {
        let permission = session.epoch.as_ref().map(|epoch| PermissionStatus {
            spi: epoch.association.spi(),
            algorithm: epoch.association.protection.name(),
            allowed: epoch.allowed,
            counted: epoch.sent,
            expires_at: self.timers.expiry(flow, Timer::Ttl),
            refresh: epoch.refresh,
        });
        let heard = session.attempt.setback.as_ref().filter(|_| session.state == State::WaitP);
        let why = heard.map(|setback| setback.to_string()).or_else(|| session.outcome.clone().filter(|_| session.state == State::Idle));
        let asks_again_at = self.timers.expiry(flow, Timer::Hold);
        SessionStatus {
            flow,
            session: session.session,
            state: session.state.to_string(),
            permission,
            why,
            asks_again_at,
            path: session.course.path,
            answered: session.answered,
        }
    }
}
