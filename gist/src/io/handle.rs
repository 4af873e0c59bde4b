//! How the rest of a program talks to a running shell.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::error::{RequestError, Stopped};
use crate::api::Request;
use crate::node::{ApdEntry, AssociationEntry, Counters, Datagram, RoutingEntry};
use crate::time::Instant;

/// A running shell. Clones talk to the same one; when the last is dropped, the shell closes all associations and ends.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) intercepted: mpsc::Sender<Datagram>,
    pub(super) backlog: Arc<AtomicBool>,
}

/// What a [`Handle`] asks of the shell.
#[derive(Debug)]
pub(super) enum Command {
    Request(Request),
    /// Of each table so many entries, behind as many as are to be left out.
    Snapshot {
        from: usize,
        most: usize,
        answer: oneshot::Sender<Snapshot>,
    },
    SetAuthorisedPeers(Vec<ApdEntry>),
    SetLocalAddresses(Vec<IpAddr>),
    RoutesChanged(BTreeSet<IpAddr>),
    Stop(oneshot::Sender<()>),
}

/// The node's state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// When it was taken, on the clock of the entries.
    pub now: Instant,
    /// The routing state table.
    pub routing: Vec<RoutingEntry>,
    /// How many entries that table has, if it was asked for in part.
    pub routing_total: usize,
    /// The messaging associations.
    pub associations: Vec<AssociationEntry>,
    /// How many there are, if they were asked for in part.
    pub associations_total: usize,
    /// What the node counted.
    pub counters: Counters,
    /// What the shell counted.
    pub shell: ShellCounters,
}

/// How often what happened around the node. Nothing ever counts down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "ipc", derive(serde::Serialize))]
pub struct ShellCounters {
    /// Q-mode packets that [`Handle::intercepted`] handed in.
    pub intercepted: u64,
    /// Datagrams longer than 9216 bytes, or without the addresses that the kernel should have given.
    pub datagrams_unusable: u64,
    /// Datagrams that found the socket's buffer full, as far as the kernel has said: it does with the next one.
    pub datagrams_overflowed: u64,
    /// Errors when reading a datagram.
    pub receive_errors: u64,
    /// Datagrams that the kernel did not take.
    pub send_errors: u64,
    /// Q-mode packets that could not be built or that the kernel did not take.
    pub query_mode_errors: u64,
    /// Messages that came as datagrams and were dropped because the application was slow.
    pub indications_dropped: u64,
    /// Associations that failed because the peer took nothing for [`Limits::write_timeout`](super::Limits::write_timeout).
    pub writes_stalled: u64,
    /// Associations that failed because what came is no message, of another version, or longer than
    /// the longest message that is taken.
    pub streams_unreadable: u64,
    /// Associations that ended, for whatever reason and by whichever end, while the peer had said part of a message and not the rest.
    pub messages_unfinished: u64,
    /// Connections closed because their source had too many handshakes under way.
    pub handshakes_refused: u64,
    /// Unfinished handshakes ended to make room for newer ones.
    pub handshakes_displaced: u64,
    /// Connections closed because the handshake failed: no certificate, a wrong one, or no TLS at all.
    pub handshakes_failed: u64,
}

impl Handle {
    /// Hands a request to the node; waits while [`Limits::requests`](super::Limits::requests) others are waiting.
    ///
    /// What comes of it is an [`Indication`](crate::api::Indication). [`RequestError::Backlog`] comes at once, so that
    /// an application may await this in the very task that takes the indications.
    pub async fn request(&self, request: Request) -> Result<(), RequestError> {
        if self.backlog.load(Ordering::Relaxed) {
            return Err(RequestError::Backlog);
        }
        self.commands.send(Command::Request(request)).await.map_err(|_| RequestError::Stopped(Stopped))
    }

    /// Hands in a Q-mode packet taken from the path. Never waits, so any thread may call it; `false` if it was not taken.
    #[must_use]
    pub fn intercepted(&self, datagram: Datagram) -> bool {
        self.intercepted.try_send(datagram).is_ok()
    }

    /// Shows the node's state.
    pub async fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.page(0, usize::MAX).await
    }

    /// Shows part of it: of each table `most` entries at most, without the first `from`. Tables change from one call to the next.
    pub async fn page(&self, from: usize, most: usize) -> Result<Snapshot, Stopped> {
        let (answer, snapshot) = oneshot::channel();
        self.commands.send(Command::Snapshot { from, most, answer }).await.map_err(|_| Stopped)?;
        snapshot.await.map_err(|_| Stopped)
    }

    /// Replaces the authorised peer database; associations of peers that are not allowed any more are closed (G-097).
    pub async fn set_authorised_peers(&self, entries: Vec<ApdEntry>) -> Result<(), Stopped> {
        self.commands.send(Command::SetAuthorisedPeers(entries)).await.map_err(|_| Stopped)
    }

    /// Replaces the addresses by which the node knows itself as a destination.
    pub async fn set_local_addresses(&self, addresses: Vec<IpAddr>) -> Result<(), Stopped> {
        self.commands.send(Command::SetLocalAddresses(addresses)).await.map_err(|_| Stopped)
    }

    /// Says that packets to these destinations leave this node by another next hop than before:
    /// [`Node::handle_route_change`](crate::node::Node::handle_route_change).
    pub async fn routes_changed(&self, destinations: BTreeSet<IpAddr>) -> Result<(), Stopped> {
        self.commands.send(Command::RoutesChanged(destinations)).await.map_err(|_| Stopped)
    }

    /// Ends the shell: messages handed to associations are written, associations closed, both within
    /// [`Limits::close_timeout`](super::Limits::close_timeout). Returns when that is done, also if it already was.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.commands.send(Command::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}
