//! Accepting messaging associations: TCP listeners, TLS handshakes, and limits for those who are not known yet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::association::{close, configure};
use super::error::ShellError;
use super::tls::peer_credentials;
use super::{Bind, Limits};
use crate::node::PeerCredentials;

/// A peer that has connected and shown a certificate of ours.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TlsStream<TcpStream>,
    pub(super) peer_address: SocketAddr,
    pub(super) credentials: PeerCredentials,
}

/// What the listeners of both IP versions share.
pub(super) struct Gate {
    acceptor: TlsAcceptor,
    limits: Limits,
    accepted: mpsc::Sender<Accepted>,
    places: Arc<Semaphore>,
    sources: Mutex<BTreeMap<IpAddr, usize>>,
    counters: Arc<GateCounters>,
}

/// How often what happened to connections of peers.
#[derive(Debug, Default)]
pub(super) struct GateCounters {
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Gate {
    pub(super) fn new(acceptor: TlsAcceptor, limits: Limits, accepted: mpsc::Sender<Accepted>, counters: Arc<GateCounters>) -> Self {
        let places = Arc::new(Semaphore::new(limits.handshakes.max(1)));
        Self { acceptor, limits, accepted, places, sources: Mutex::new(BTreeMap::new()), counters }
    }

    /// Takes a place among the handshakes of this source, unless it has enough.
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Visit> {
        let source = source_of(peer);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_insert(0);
        if *count >= self.limits.handshakes_per_source {
            return None;
        }
        *count += 1;
        Some(Visit { gate: Arc::clone(self), source })
    }
}

/// One handshake of a source; dropping it frees the place. Entries of the map are as many as places at most.
struct Visit {
    gate: Arc<Gate>,
    source: IpAddr,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut sources = self.gate.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}

/// Binds the listeners that the configuration wants.
pub(super) fn bind(bind: Bind, port: u16) -> Result<Vec<TcpListener>, ShellError> {
    let addresses = [bind.ipv4.map(IpAddr::V4), bind.ipv6.map(IpAddr::V6)];
    addresses.into_iter().flatten().map(|address| listen(SocketAddr::new(address, port))).collect()
}

fn listen(address: SocketAddr) -> Result<TcpListener, ShellError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restarted daemon must not wait for its old connections to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| ShellError::Bind { what: "TCP", address, source })
}

/// Accepts until the shell, which owns the task, ends.
pub(super) async fn accept(listener: TcpListener, gate: Arc<Gate>) {
    let mut handshakes = JoinSet::new();
    loop {
        // The place is taken first: connections for which there is none stay in the kernel's bounded backlog.
        let Ok(place) = Arc::clone(&gate.places).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "accepting an association failed");
                sleep(AFTER_ERROR).await;
                continue;
            }
        };
        while handshakes.try_join_next().is_some() {}
        let Some(visit) = gate.enter(peer.ip()) else {
            gate.counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, "too many handshakes of this source");
            continue;
        };
        let gate = Arc::clone(&gate);
        handshakes.spawn(async move {
            match handshake(stream, peer, &gate).await {
                Ok(accepted) => {
                    // If the shell has ended, the connection ends with it.
                    let _ = gate.accepted.send(accepted).await;
                }
                Err(reason) => {
                    let before = gate.counters.failed.fetch_add(1, Ordering::Relaxed);
                    // Strangers must not be able to fill the log.
                    if before < FAILURES_LOGGED || before.is_multiple_of(FAILURES_LOGGED) {
                        tracing::info!(%peer, reason, before, "association refused");
                    } else {
                        tracing::debug!(%peer, reason, "association refused");
                    }
                }
            }
            drop((visit, place));
        });
    }
}

async fn handshake(stream: TcpStream, peer_address: SocketAddr, gate: &Gate) -> Result<Accepted, String> {
    configure(&stream, gate.limits.unacknowledged_timeout).map_err(|error| error.to_string())?;
    let within = gate.limits.handshake_timeout;
    let stream = match timeout(within, gate.acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            // Without this the peer would get a reset instead of the alert that tells it why.
            let _ = timeout(gate.limits.close_timeout, close(stream)).await;
            return Err(format!("TLS: {error}"));
        }
        Err(_) => return Err(format!("TLS: not finished within {within:?}")),
    };
    let credentials = peer_credentials(stream.get_ref().1.peer_certificates()).map_err(|error| error.to_string())?;
    Ok(Accepted { stream: TlsStream::from(stream), peer_address, credentials })
}

/// Whom a limit counts together: one IPv4 address, or the /64 that one IPv6 host owns.
fn source_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// Connections the kernel keeps for us while all places are taken.
const BACKLOG: i32 = 128;
/// So many failed handshakes are logged for everybody to see, then every so-many-th.
const FAILURES_LOGGED: u64 = 100;
/// Pause after an error such as "no more descriptors", which would only come again at once.
const AFTER_ERROR: Duration = Duration::from_millis(100);
