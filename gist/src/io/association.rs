//! One task per messaging association: TLS over TCP or TCP alone, whole messages in, whole messages out.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, TlsStream};

use super::progress::Progress;
use super::tls::{Peers, credentials_at};
use super::{Bind, Limits};
use crate::api::{AssociationId, PathId};
use crate::node::AssociationEvent;
use crate::wire::stream::Framer;

/// News of one association for the node.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) association: AssociationId,
    pub(super) event: AssociationEvent,
}

/// What the shell holds of an association.
#[derive(Debug)]
pub(super) struct Association {
    queue: mpsc::Sender<Bytes>,
    task: AbortHandle,
    /// The task sees it being dropped, even while it waits for the peer to take a message.
    _held: oneshot::Sender<()>,
    /// Whether the node has been told that it is open.
    pub(super) open: bool,
}

/// Why a message cannot be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotQueued {
    /// More messages than the node ever leaves unwritten.
    Full,
    /// The task has ended; its report says why.
    Ended,
}

impl Association {
    /// Queues a whole message without waiting.
    pub(super) fn send(&self, message: Bytes) -> Result<(), NotQueued> {
        self.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotQueued::Full,
            mpsc::error::TrySendError::Closed(_) => NotQueued::Ended,
        })
    }

    /// Closes the association after what was queued; one that is still being opened is given up.
    pub(super) fn close(self) {
        if !self.open {
            self.task.abort();
        }
        // The task notices that its queue and `_held` are gone.
    }

    /// Ends the association at once, whatever is queued.
    pub(super) fn abort(self) {
        self.task.abort();
    }
}

/// What every association task needs.
#[derive(Debug, Clone)]
pub(super) struct Associations {
    pub(super) limits: Limits,
    pub(super) bind: Bind,
    pub(super) client: Option<Arc<ClientConfig>>,
    /// Verifies peers, also when their revocation lists have changed.
    pub(super) peers: Option<Arc<Peers>>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) progress: Arc<Progress>,
    /// Longest message accepted, in bytes with its common header.
    pub(super) longest_message: usize,
}

impl Associations {
    /// Opens an association, over TLS to the peer with this name or else over TCP alone; its first report says whether it is open.
    pub(super) fn connect(&self, tasks: &mut JoinSet<()>, association: AssociationId, course: Course, name: Option<IpAddr>) -> Association {
        let context = self.clone();
        self.start(tasks, false, move |queue| async move {
            let event = match context.open(course, name).await {
                Ok((stream, connected)) => {
                    if context.reports.send(Report { association, event: connected }).await.is_err() {
                        return;
                    }
                    stream.carry(association, queue, &context).await
                }
                Err(reason) => Some(AssociationEvent::Failed(reason)),
            };
            report_end(association, event, &context).await;
        })
    }

    /// Carries messages of an association that a peer has opened.
    pub(super) fn accepted(&self, tasks: &mut JoinSet<()>, association: AssociationId, stream: Stream) -> Association {
        let context = self.clone();
        self.start(tasks, true, move |queue| async move {
            let event = stream.carry(association, queue, &context).await;
            report_end(association, event, &context).await;
        })
    }

    fn start<F>(&self, tasks: &mut JoinSet<()>, open: bool, task: impl FnOnce(Queue) -> F) -> Association
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, messages) = mpsc::channel(WRITE_QUEUE);
        let (held, let_go) = oneshot::channel();
        let task = tasks.spawn(task(Queue { messages, let_go }));
        Association { queue: sender, task, _held: held, open }
    }

    /// Waits until revocation lists that have changed, or have gone out of date, speak against a peer; answers what they say.
    async fn distrust(&self, shown: &[CertificateDer<'_>], server: Option<&ServerName<'_>>) -> rustls::Error {
        let Some(peers) = &self.peers else { return std::future::pending().await };
        let mut changes = peers.changes();
        loop {
            // At once as well: they may have changed since the handshake.
            if let Err(why) = peers.verify(shown, server, UnixTime::now()) {
                return why;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    async fn open(&self, course: Course, name: Option<IpAddr>) -> Result<(Stream, AssociationEvent), String> {
        let (within, remote) = (self.limits.connect_timeout, course.remote);
        let stream = match timeout(within, connect_tcp(self.bind, course)).await {
            Ok(connected) => connected.map_err(|error| format!("TCP connection to {remote}: {error}"))?,
            Err(_) => return Err(format!("TCP connection to {remote}: no answer within {within:?}")),
        };
        configure(&stream, self.limits.unacknowledged_timeout).map_err(|error| format!("TCP connection to {remote}: {error}"))?;
        let Some(name) = name else { return Ok((Stream::Plain(stream), AssociationEvent::ConnectedUnprotected)) };
        let within = self.limits.handshake_timeout;
        let client = self.client.as_ref().ok_or("this node has no certificate")?;
        let connector = TlsConnector::from(Arc::clone(client));
        // The certificate must name the very address the peer goes by (RFC 5971 §5.7.3.1).
        let name = ServerName::IpAddress(name.into());
        let stream = match timeout(within, connector.connect(name.clone(), stream)).await {
            Ok(connected) => connected.map_err(|error| format!("TLS with {remote}: {error}"))?,
            Err(_) => return Err(format!("TLS with {remote}: not finished within {within:?}")),
        };
        let credentials = credentials_at(stream.get_ref().1.peer_certificates(), UnixTime::now()).map_err(|error| error.to_string())?;
        Ok((Stream::tls(TlsStream::from(stream), Some(name)), AssociationEvent::Connected { credentials }))
    }
}

/// What an association runs over.
#[derive(Debug)]
pub(super) enum Stream {
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        /// What the peer has been verified as, if it is the server.
        server: Option<ServerName<'static>>,
    },
    Plain(TcpStream),
}

impl Stream {
    pub(super) fn tls(stream: TlsStream<TcpStream>, server: Option<ServerName<'static>>) -> Self {
        Self::Tls { stream: Box::new(stream), server }
    }

    async fn carry(self, association: AssociationId, queue: Queue, context: &Associations) -> Option<AssociationEvent> {
        match self {
            Self::Tls { stream, server } => {
                let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let shown: Vec<_> = shown.iter().map(|certificate| certificate.clone().into_owned()).collect();
                tokio::select! {
                    end = carry(*stream, association, queue, context) => end,
                    why = context.distrust(&shown, server.as_ref()) => {
                        Some(AssociationEvent::Failed(format!("the peer's certificate is not believed any more: {why}")))
                    }
                }
            }
            Self::Plain(stream) => carry(stream, association, queue, context).await,
        }
    }
}

/// From where to where a connection goes, and by which way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) remote: SocketAddr,
    pub(super) path: PathId,
    /// Where it starts, if the socket's own binding does not say.
    pub(super) source: Option<IpAddr>,
}

/// Opens a TCP connection from the address that `bind` or else the course names, with the marks of `bind` and of its way.
pub(super) async fn connect_tcp(bind: Bind, Course { remote, path, source }: Course) -> io::Result<TcpStream> {
    let way = bind.mark_of(path).ok_or_else(|| io::Error::new(ErrorKind::AddrNotAvailable, format!("there is no way {path}")))?;
    let (socket, local) = match remote {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, bind.ipv4.filter(|address| !address.is_unspecified()).map(IpAddr::V4)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, bind.ipv6.filter(|address| !address.is_unspecified()).map(IpAddr::V6)),
    };
    // Before the first segment.
    match bind.marks {
        Some(marks) => set_mark(&socket, marks.association | way)?,
        None if way != 0 => setsockopt(&socket, sockopt::Mark, &way)?,
        None => {}
    }
    if let Some(local) = local.or(source.filter(|source| source.is_ipv4() == remote.is_ipv4())) {
        socket.bind(SocketAddr::new(local, 0))?;
    }
    socket.connect(remote).await
}

/// Marks a socket of an association, so that packet filters know it; see [`Marks`](super::Marks).
pub(super) fn set_mark<S: AsFd>(socket: &S, mark: u32) -> io::Result<()> {
    setsockopt(socket, sockopt::Mark, &mark)?;
    // One bit for both IP versions, and this option sets it on sockets of either.
    setsockopt(socket, sockopt::IpTransparent, &true)?;
    Ok(())
}

/// Sets what every association's TCP connection needs; no Nagle, because messages change state (G-208).
pub(super) fn configure(stream: &TcpStream, unacknowledged: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_user_timeout(Some(unacknowledged))
}

/// The receiving end of an association's write queue.
struct Queue {
    messages: mpsc::Receiver<Bytes>,
    let_go: oneshot::Receiver<()>,
}

/// Moves messages both ways until one side ends; `None` if that was this side.
async fn carry<S>(stream: S, association: AssociationId, queue: Queue, context: &Associations) -> Option<AssociationEvent>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let Queue { messages, let_go } = queue;
    let overdue = async {
        // Nothing is ever sent: this is the shell letting go.
        let _ = let_go.await;
        sleep(context.limits.close_timeout).await;
    };
    let end = tokio::select! {
        event = read_messages(&mut reader, association, context) => Some(event),
        written = write_messages(&mut writer, messages, association, context) => match written {
            Ok(()) => None,
            Err(error) => Some(AssociationEvent::Failed(format!("writing: {error}"))),
        },
        () = overdue => None,
    };
    if !matches!(end, Some(AssociationEvent::Failed(_))) {
        let stream = reader.unsplit(writer);
        // Whatever goes wrong from here on, both ends have already said that they are done.
        let _ = timeout(context.limits.close_timeout, close(stream)).await;
    }
    end
}

/// Reads until the stream ends. While reports are not taken nothing is read, and TCP slows the peer down (G-011).
async fn read_messages(reader: &mut (impl AsyncRead + Unpin), association: AssociationId, context: &Associations) -> AssociationEvent {
    let mut incoming = Incoming { framer: Framer::new(context.longest_message), progress: &context.progress };
    let framer = &mut incoming.framer;
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) if framer.buffered() == 0 => return AssociationEvent::Closed,
            Ok(0) => return AssociationEvent::Failed("the peer closed it within a message".to_owned()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return AssociationEvent::Failed("the peer closed the connection without saying so in TLS".to_owned());
            }
            Err(error) => return AssociationEvent::Failed(format!("reading: {error}")),
        };
        framer.push(buffer.get(..length).unwrap_or_default());
        loop {
            let message = match framer.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => {
                    context.progress.note_unreadable();
                    return AssociationEvent::Failed(error.to_string());
                }
            };
            let event = AssociationEvent::Received(message);
            if context.reports.send(Report { association, event }).await.is_err() {
                return AssociationEvent::Closed;
            }
        }
    }
}

/// What has come of an association's stream and is no whole message yet; counted if the rest never comes, whoever ends the association.
struct Incoming<'a> {
    framer: Framer,
    progress: &'a Progress,
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        // What cannot be read is counted as that.
        if self.framer.is_within_message() {
            self.progress.note_unfinished();
        }
    }
}

/// Writes until the shell lets go of the queue. What has gathered meanwhile leaves together (RFC 5971 §5.4).
///
/// # Errors
///
/// As the stream, and that the peer has taken nothing for [`Limits::write_timeout`].
async fn write_messages(
    writer: &mut (impl AsyncWrite + Unpin),
    mut messages: mpsc::Receiver<Bytes>,
    association: AssociationId,
    context: &Associations,
) -> io::Result<()> {
    let within = context.limits.write_timeout;
    let mut gathered = Vec::new();
    while let Some(message) = messages.recv().await {
        gathered.extend_from_slice(&message);
        while gathered.len() < WRITTEN_AT_ONCE
            && let Ok(message) = messages.try_recv()
        {
            gathered.extend_from_slice(&message);
        }
        let mut rest = &gathered[..];
        while !rest.is_empty() {
            let taken = progress_within(within, writer.write(rest), context).await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        progress_within(within, writer.flush(), context).await?;
        context.progress.note(association, gathered.len());
        gathered.clear();
    }
    Ok(())
}

/// A step of writing, which has no end as long as the peer takes nothing.
async fn progress_within<T>(within: Duration, step: impl Future<Output = io::Result<T>>, context: &Associations) -> io::Result<T> {
    timeout(within, step).await.unwrap_or_else(|_| {
        context.progress.note_stall();
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("the peer has taken nothing for {within:?}")))
    })
}

/// Says goodbye in TLS, if the stream is one, and in TCP, then reads what is still on its way: unread data would turn the goodbye into a reset,
/// which can cost the peer our last messages.
pub(super) async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.shutdown().await?;
    let mut discarded = vec![0; READ_BUFFER];
    while stream.read(&mut discarded).await? > 0 {}
    Ok(())
}

async fn report_end(association: AssociationId, event: Option<AssociationEvent>, context: &Associations) {
    if let Some(event) = event {
        tracing::debug!(%association, ?event, "association ended");
        // If nobody listens any more, nobody needs to know.
        let _ = context.reports.send(Report { association, event }).await;
    }
}

/// Bytes read at once, per association: what a TLS record holds.
const READ_BUFFER: usize = 16 << 10;
/// Bytes that have gathered from which on no more messages are waited for before they are written.
const WRITTEN_AT_ONCE: usize = 16 << 10;
/// Messages that an association's queue can hold. The node leaves fewer unwritten, even of the shortest, by
/// [`Caps::unwritten_bytes`](crate::node::Caps::unwritten_bytes).
const WRITE_QUEUE: usize = 1 << 18;
