//! The receiver of flows: it alone decides who may send how much.
//!
//! After every `handle_*` and every order of the host, drain [`Receiver::poll_output`] to `None`; then sleep until
//! [`Receiver::poll_timeout`].

mod algorithms;
mod budget;
mod effects;
mod epochs;
mod former;
mod inputs;
mod permission;
mod policy;
mod reactions;
mod rekey;
mod repair;
mod reverse;
mod rows;
mod session;
mod spis;
mod watch;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use gist::api::PathId;
use gist::time::Instant;

use crate::credentials::{Authority, Signer};
use crate::datapath::Token;
use crate::entropy::Entropy;
use crate::flow::FlowId;
use crate::node::{Counters, Node, NodeConfig, SessionKey};
use crate::opaque::Opaque;
use crate::output::Output;
use crate::own_numbers::OwnNumbers;
use crate::removal::Removals;
use crate::shares::Shares;
use crate::status::{PermissionStatus, SessionStatus};
use crate::timers::Timers;

use budget::Budgets;
use former::LastCount;
use session::{Session, Then};
use spis::Spis;
use table::{Event, Timer};

pub(crate) use reverse::Incoming;

pub use policy::{Change, Decision, GrantPolicy, GrantRule, Terms};
pub use rekey::Strength;
pub use watch::{Ladder, Overrun, Reactions};

/// The state machine, as generated from its table.
pub mod table {
    include!(concat!(env!("OUT_DIR"), "/pbs_receiver.rs"));
}

/// What a receiver is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReceiverConfig {
    /// What every node is told.
    pub node: NodeConfig,
    /// The addresses for which this host may grant.
    pub addresses: Vec<IpAddr>,
    /// What it grants.
    pub policy: GrantPolicy,
    /// Sessions at most. A peer upstream may have three times as many as there are free places.
    pub sessions: usize,
    /// Flows whose used volume is remembered at most ([`Terms::limit`]), in the same shares. A flow that there is no room for is
    /// refused.
    pub budgets: usize,
    /// How long a decision may take before it counts as a refusal (P-133).
    pub decide: Duration,
    /// How long a flow whose permission was revoked is refused; [`Receiver::expect`] and [`Receiver::lift`] end it.
    pub refuse: Duration,
    /// How long packets under a replaced association still pass; whole milliseconds, at most 65,535.
    pub drain: Duration,
    /// After how long a key is replaced, with the next Query (FR-18, X-36).
    pub key_age: Duration,
    /// How long a flow must have been quiet before its packets need no signature any more.
    pub quiet: Duration,
    /// When and how it reacts to injected and missing packets.
    pub reactions: Reactions,
}

impl ReceiverConfig {
    /// The profile's constants.
    pub fn new(node: NodeConfig, addresses: Vec<IpAddr>, policy: GrantPolicy) -> Self {
        Self {
            node,
            addresses,
            policy,
            sessions: 65_536,
            budgets: 65_536,
            decide: Duration::from_secs(10),
            refuse: Duration::from_secs(600),
            drain: Duration::from_millis(2000),
            key_age: Duration::from_secs(3600),
            quiet: Duration::from_secs(600),
            reactions: Reactions::default(),
        }
    }
}

/// A receiver's part in all sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receiver {
    config: ReceiverConfig,
    node: Node,
    signer: Opaque<dyn Signer>,
    entropy: Entropy,
    numbers: OwnNumbers,
    spis: Spis,
    /// Flows that are granted without a rule, such as the reverse of the host's own.
    expected: BTreeMap<FlowId, Terms>,
    /// Flows whose decision comes soon, without being asked for.
    awaited: BTreeSet<FlowId>,
    /// Flows whose packets are to be signed, since somebody else had their key, and until when.
    signed: BTreeMap<FlowId, Instant>,
    /// Flows that were revoked, and until when no rule grants them again.
    revoked: BTreeMap<FlowId, Instant>,
    sessions: BTreeMap<SessionKey, Session>,
    timers: Timers<SessionKey, Timer>,
    waiting: BTreeMap<Token, SessionKey>,
    /// Whose former epoch is being compared, or has just ended.
    last_counts: BTreeMap<Token, LastCount>,
    /// How many sessions there are, by the peer they came from.
    shares: Shares,
    budgets: Budgets,
    removals: Removals<Then>,
    /// Events that a row gave rise to.
    follow: VecDeque<(SessionKey, Event)>,
}

impl Receiver {
    /// A receiver that has just started, at Unix time `unix_seconds`. Keys and SPIs come from `entropy`.
    pub fn new(
        config: ReceiverConfig,
        signer: Arc<dyn Signer>,
        authority: Arc<dyn Authority>,
        entropy: Entropy,
        unix_seconds: u64,
        now: Instant,
    ) -> Self {
        let mut node = Node::new(&config.node, authority, unix_seconds, now);
        node.raise_floor(now);
        let budgets = Budgets::new(config.budgets);
        Self {
            node,
            config,
            signer: Opaque::new(signer),
            entropy,
            numbers: OwnNumbers::new(),
            spis: Spis::new(),
            expected: BTreeMap::new(),
            awaited: BTreeSet::new(),
            signed: BTreeMap::new(),
            revoked: BTreeMap::new(),
            sessions: BTreeMap::new(),
            timers: Timers::new(),
            waiting: BTreeMap::new(),
            last_counts: BTreeMap::new(),
            shares: Shares::default(),
            budgets,
            removals: Removals::new(),
            follow: VecDeque::new(),
        }
    }

    /// Replaces the addresses for which this host may grant. What is granted stays so.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.config.addresses = addresses;
    }

    /// Says what time it is, in Unix seconds; to be repeated once in a while.
    pub fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.node.set_wall_clock(unix_seconds, now);
    }

    /// Takes another policy, for Queries to come.
    pub fn set_policy(&mut self, policy: GrantPolicy) {
        self.config.policy = policy;
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.node.poll_output()
    }

    /// When [`Receiver::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.timers.next(), self.removals.next()].into_iter().flatten().min()
    }

    /// The sessions, in the order of their flows.
    pub fn sessions(&self) -> Vec<SessionStatus> {
        self.sessions.iter().map(|(key, session)| self.status(*key, session)).collect()
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

    fn status(&self, key: SessionKey, session: &Session) -> SessionStatus {
        let permission = session.epoch.as_ref().zip(session.terms).map(|(epoch, terms)| PermissionStatus {
            spi: epoch.spi,
            algorithm: epoch.protection.name(),
            allowed: session.allowed,
            counted: epoch.counted,
            expires_at: self.timers.expiry(key, Timer::Ttl),
            refresh: terms.refresh,
        });
        SessionStatus {
            flow: key.flow,
            session: key.session,
            state: session.state.to_string(),
            permission,
            why: None,
            asks_again_at: None,
            path: PathId::ROUTED,
            answered: None,
        }
    }

    fn keys_of(&self, flow: &FlowId) -> Vec<SessionKey> {
        self.sessions.range(SessionKey::range(*flow)).map(|(key, _)| *key).collect()
    }
}
