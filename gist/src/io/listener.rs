//! Accepting messaging associations: TCP listeners, TLS handshakes where the port is for TLS, and limits for those who are not known yet.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls_pki_types::UnixTime;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::association::{Stream, close, configure, set_mark};
use super::error::ShellError;
use super::tls::credentials_at;
use super::visits::{Entered, Visits};
use super::{Bind, Limits};
use crate::node::AssociationEvent;

/// A peer that has connected, and where that is asked for shown a certificate of ours.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// Who it is, as the node is told.
    pub(super) event: AssociationEvent,
}

/// What the listeners of both IP versions share.
pub(super) struct Gate {
    /// `None` where associations run over TCP alone.
    acceptor: Option<TlsAcceptor>,
    limits: Limits,
    /// What sockets get once their peer is authenticated.
    mark: Option<u32>,
    accepted: mpsc::Sender<Accepted>,
    visits: Arc<Visits>,
    counters: Arc<GateCounters>,
}

/// How often what happened to connections of peers.
#[derive(Debug, Default)]
pub(super) struct GateCounters {
    pub(super) refused: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) displaced: AtomicU64,
}

impl Gate {
    pub(super) fn new(
        acceptor: Option<TlsAcceptor>,
        limits: Limits,
        bind: Bind,
        accepted: mpsc::Sender<Accepted>,
        counters: Arc<GateCounters>,
    ) -> Self {
        let mark = bind.marks.map(|marks| marks.association);
        Self { acceptor, limits, mark, accepted, visits: Arc::new(Visits::new(limits)), counters }
    }
}

/// Binds the listeners that the configuration wants.
pub(super) fn bind(bind: Bind, port: u16) -> Result<Vec<TcpListener>, ShellError> {
    let addresses = [bind.ipv4.map(IpAddr::V4), bind.ipv6.map(IpAddr::V6)];
    addresses.into_iter().flatten().map(|address| listen(SocketAddr::new(address, port), bind.marks.map(|marks| marks.listener))).collect()
}

fn listen(address: SocketAddr, mark: Option<u32>) -> Result<TcpListener, ShellError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Before it listens: what it accepts inherits the mark, so that it is told apart from the first segment on.
        mark.map_or(Ok(()), |mark| set_mark(&socket, mark))?;
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
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "accepting an association failed");
                sleep(AFTER_ERROR).await;
                continue;
            }
        };
        while handshakes.try_join_next().is_some() {}
        let visitor = Arc::clone(&gate);
        let entered = gate.visits.enter(peer.ip(), |visit| {
            handshakes.spawn(async move {
                welcome(stream, peer, &visitor).await;
                drop(visit);
            })
        });
        match entered {
            Entered::Free => {}
            Entered::Displacing => {
                gate.counters.displaced.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, "an older handshake gives way");
            }
            Entered::Refused => {
                gate.counters.refused.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%peer, "too many handshakes of this source");
            }
        }
    }
}

async fn welcome(stream: TcpStream, peer: SocketAddr, gate: &Gate) {
    match handshake(stream, peer, gate).await {
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
}

async fn handshake(stream: TcpStream, peer_address: SocketAddr, gate: &Gate) -> Result<Accepted, String> {
    configure(&stream, gate.limits.unacknowledged_timeout).map_err(|error| error.to_string())?;
    // Its socket keeps the listener's mark: nobody has proved anything.
    let Some(acceptor) = &gate.acceptor else {
        return Ok(Accepted { stream: Stream::Plain(stream), event: AssociationEvent::AcceptedUnprotected { peer_address } });
    };
    let within = gate.limits.handshake_timeout;
    let stream = match timeout(within, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            // Without this the peer would get a reset instead of the alert that tells it why.
            let _ = timeout(gate.limits.close_timeout, close(stream)).await;
            return Err(format!("TLS: {error}"));
        }
        Err(_) => return Err(format!("TLS: not finished within {within:?}")),
    };
    let credentials = credentials_at(stream.get_ref().1.peer_certificates(), UnixTime::now()).map_err(|error| error.to_string())?;
    gate.mark.map_or(Ok(()), |mark| set_mark(stream.get_ref().0, mark)).map_err(|error| format!("marking the socket: {error}"))?;
    let event = AssociationEvent::Accepted { peer_address, credentials };
    Ok(Accepted { stream: Stream::tls(TlsStream::from(stream), None), event })
}

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 128;
/// So many failed handshakes are logged for everybody to see, then every so-many-th.
const FAILURES_LOGGED: u64 = 100;
/// Pause after an error such as "no more descriptors", which would only come again at once.
const AFTER_ERROR: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Ipv4Addr;

    use nix::sys::socket::{getsockopt, sockopt};

    use super::super::Marks;
    use super::super::association::{Course, connect_tcp};
    use super::*;
    use crate::api::PathId;

    /// packet filters know associations by it, at either end.
    #[tokio::test]
    async fn every_socket_of_an_association_has_the_mark_that_is_configured() {
        const MARKS: Marks = Marks { listener: 0x1234, association: 0x5678 };
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            for marks in [Some(MARKS), None] {
                let mark = marks.map(|marks| marks.listener);
                let listener = match listen(SocketAddr::new(address, 0), mark) {
                    Err(ShellError::Bind { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                        assert!(!in_ci(), "network tests must not be skipped in CI, and marks on sockets need root ({source})");
                        let _ = writeln!(std::io::stderr(), "skipped: marks on sockets need root ({source})");
                        return;
                    }
                    listener => listener.unwrap(),
                };
                let bind = Bind { ipv4: Some(Ipv4Addr::UNSPECIFIED), marks, ..Bind::default() };
                let course = Course { remote: listener.local_addr().unwrap(), path: PathId::ROUTED, source: None };
                let (opened, accepted) = tokio::join!(connect_tcp(bind, course), listener.accept());
                let (opened, accepted) = (opened.unwrap(), accepted.unwrap().0);
                let listening = (Ok(mark.unwrap_or(0)), Ok(mark.is_some()));
                assert_eq!((getsockopt(&listener, sockopt::Mark), getsockopt(&listener, sockopt::IpTransparent)), listening, "{address}");
                assert_eq!((getsockopt(&accepted, sockopt::Mark), getsockopt(&accepted, sockopt::IpTransparent)), listening, "{address}");
                let calling = (Ok(marks.map_or(0, |marks| marks.association)), Ok(marks.is_some()));
                assert_eq!((getsockopt(&opened, sockopt::Mark), getsockopt(&opened, sockopt::IpTransparent)), calling, "{address}");
            }
        }
    }

    /// G-208: nothing waits to be filled up, at either end.
    #[tokio::test]
    async fn messages_leave_at_once() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)), None).unwrap();
        let bind = Bind { ipv4: Some(Ipv4Addr::UNSPECIFIED), ..Bind::default() };
        let course = Course { remote: listener.local_addr().unwrap(), path: PathId::ROUTED, source: None };
        let (opened, accepted) = tokio::join!(connect_tcp(bind, course), listener.accept());
        for stream in [opened.unwrap(), accepted.unwrap().0] {
            assert_eq!(stream.nodelay().ok(), Some(false), "as the system makes it");
            configure(&stream, Duration::from_secs(1)).unwrap();
            assert_eq!(stream.nodelay().ok(), Some(true));
        }
    }

    /// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
    fn in_ci() -> bool {
        std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
    }
}
