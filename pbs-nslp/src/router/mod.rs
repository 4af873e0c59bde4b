//! A router on the path: it forwards what both ends signed and permits what both have agreed on.
//!
//! After every `handle_*`, drain [`Router::poll_output`] to `None`; then sleep until [`Router::poll_timeout`].

mod copies;
mod effects;
mod inputs;
mod pairs;
mod policy;
mod rows;
mod session;

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use gist::api::{PathId, SendMessage};
use gist::time::Instant;

use crate::credentials::Authority;
use crate::datapath::Token;
use crate::node::{Counters, Node, NodeConfig, SessionKey};
use crate::opaque::Opaque;
use crate::output::Output;
use crate::removal::Removals;
use crate::shares::Shares;
use crate::status::{PermissionStatus, SessionStatus};
use crate::timers::Timers;

use pairs::Pairs;
use session::Session;
use table::{Event, Guards, Outcome, State, Timer};

pub use policy::{LimitRule, Limits, RouterPolicy};

/// The state machine, as generated from its table.
pub mod table {
    include!(concat!(env!("OUT_DIR"), "/pbs_router.rs"));
}

/// What a router is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouterConfig {
    /// What every node is told.
    pub node: NodeConfig,
    /// Sessions at most. A peer upstream may have three times as many as there are free places: alone three quarters of the
    /// table, and never all of it. Of its part each sender behind it may have as many as are free: alone half of the part.
    pub sessions: usize,
    /// Sessions that wait for a Permission at most (INV-12).
    pub pending: usize,
    /// Those that one peer may have, of which each sender behind it may have as many as are free.
    pub pending_per_peer: usize,
    /// How long a Permission is waited for (appendix A).
    pub wait: Duration,
    /// What hosts may permit each other through this router.
    pub policy: RouterPolicy,
    /// Whether packets without permission trickle by every way out, so that flows get on without this router: then GIST's
    /// peering question is answered with no while the table is full. Else such a flow had better hear why it is refused.
    pub open: bool,
    /// Octets of last messages kept to repair paths that move, of all sessions together; beyond it their ends repair them.
    pub copies: usize,
}

impl RouterConfig {
    /// The profile's constants.
    pub fn new(node: NodeConfig) -> Self {
        Self::with_sessions(node, 65_536)
    }

    /// The profile's constants with another size: an eighth of the sessions may be pending, half of these from one peer.
    pub fn with_sessions(node: NodeConfig, sessions: usize) -> Self {
        let pending = (sessions / 8).max(1);
        Self {
            node,
            sessions,
            pending,
            pending_per_peer: (pending / 2).max(1),
            wait: Duration::from_secs(30),
            policy: RouterPolicy::default(),
            open: false,
            copies: 64 << 20,
        }
    }
}

/// A router's part in all sessions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Router {
    config: RouterConfig,
    table: Table,
    node: Node,
    sessions: BTreeMap<SessionKey, Session>,
    timers: Timers<SessionKey, Timer>,
    /// Which session has an SPI of a destination.
    spis: BTreeMap<(IpAddr, u32), SessionKey>,
    /// How many sessions there are, by whom they came from.
    shares: Shares,
    /// How many of them wait for a Permission.
    pending: Shares,
    pairs: Pairs,
    /// Which session waits for an answer of the packet side.
    waiting: BTreeMap<Token, SessionKey>,
    removals: Removals<SendMessage>,
    /// Octets of messages that are kept.
    copied: usize,
    /// What GIST's peering question is answered with.
    willing: bool,
}

impl Router {
    /// A router that has just started, at Unix time `unix_seconds`.
    pub fn new(config: RouterConfig, authority: Arc<dyn Authority>, unix_seconds: u64, now: Instant) -> Self {
        Self::with_table(config, authority, table::step, unix_seconds, now)
    }

    /// A router that goes by another table than its own. Only good for showing in a laboratory what a row protects from.
    pub fn with_table(
        config: RouterConfig,
        authority: Arc<dyn Authority>,
        table: impl Fn(State, Event, Guards) -> Outcome + Send + Sync + 'static,
        unix_seconds: u64,
        now: Instant,
    ) -> Self {
        let mut router = Self {
            node: Node::new(&config.node, authority, unix_seconds, now),
            config,
            table: Table(Opaque::new(Arc::new(table))),
            sessions: BTreeMap::new(),
            timers: Timers::new(),
            spis: BTreeMap::new(),
            shares: Shares::default(),
            pending: Shares::default(),
            pairs: Pairs::default(),
            waiting: BTreeMap::new(),
            removals: Removals::new(),
            copied: 0,
            willing: true,
        };
        router.restart(now);
        router
    }

    /// Says what time it is, in Unix seconds; to be repeated once in a while.
    pub fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.node.set_wall_clock(unix_seconds, now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.node.poll_output()
    }

    /// When [`Router::handle_timeout`] is to be called next.
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
        let permission = session.granted.as_ref().map(|granted| PermissionStatus {
            spi: granted.association.spi(),
            algorithm: granted.association.protection.name(),
            allowed: granted.allowed,
            counted: session.base(&granted.association).into(),
            expires_at: self.timers.expiry(key, Timer::Ttl),
            refresh: granted.refresh,
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
}

/// The table in use.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Table(Opaque<dyn Fn(State, Event, Guards) -> Outcome + Send + Sync>);

impl core::fmt::Debug for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Table")
    }
}
