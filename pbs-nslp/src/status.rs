//! Sessions as they are shown to people.

use core::time::Duration;

use gist::api::PathId;
use gist::time::Instant;
use gist::wire::SessionId;

use crate::flow::FlowId;
use crate::wire::Volume;

/// One session of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionStatus {
    /// The flow.
    pub flow: FlowId,
    /// The session.
    pub session: SessionId,
    /// The state, as the table names it.
    pub state: String,
    /// What is permitted, if anything.
    pub permission: Option<PermissionStatus>,
    /// Why there is none, or why it may end, as far as this node was told.
    pub why: Option<String>,
    /// When a flow that was not granted may ask again.
    pub asks_again_at: Option<Instant>,
    /// By which way its packets leave, at a sender.
    pub path: PathId,
    /// When its receiver answered last, at a sender.
    pub answered: Option<Answered>,
}

/// An answer of a flow's receiver, signed by it, to a Query that was sent once only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answered {
    /// When it came.
    pub at: Instant,
    /// How long after the Query; the shortest of the session.
    pub round_trip: Duration,
    /// GIST nodes between, the receiver included: what the message's hop count has lost on its way.
    pub hops: u8,
}

/// A live permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermissionStatus {
    /// The epoch.
    pub spi: u32,
    /// How packets are authenticated.
    pub algorithm: &'static str,
    /// AV.
    pub allowed: Volume,
    /// The counted volume (at a sender the sent volume) when the packet side last told it.
    pub counted: Volume,
    /// When the permission ends.
    pub expires_at: Option<Instant>,
    /// The soft-state period T.
    pub refresh: Duration,
}
