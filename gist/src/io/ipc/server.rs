//! The socket and the programs on it.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::stat::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::hub::{Hub, NotRegistered, Registered};
use super::line::{Asked, Event, Request};
use super::{CLIENTS, LONGEST_LINE, shown};
use crate::api::Indication;
use crate::io::Handle;
use crate::wire::NslpId;

/// Programs that may wait in the kernel until they are served.
const BACKLOG: i32 = 16;
/// Pause after an error.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// How long a program may take nothing of what is written to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// The socket cannot be made.
    #[error("socket {}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another node answers there.
    #[error("socket {}: another node answers there", path.display())]
    Taken {
        /// Where.
        path: PathBuf,
    },
    /// Something that is no socket lies there; it is left alone.
    #[error("socket {}: something that is not a socket lies there", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
}

/// A socket that is served. It ends with this value, and with the node.
#[derive(Debug)]
pub struct Ipc {
    task: JoinHandle<()>,
    path: PathBuf,
    identity: (u64, u64),
}

/// Serves the applications of a running node on a socket at `path`: takes the node's indications and hands them to the programs.
/// Indications for an application that no program is are dropped.
///
/// Call it inside the runtime of the node.
///
/// # Errors
///
/// The path is taken, or the system refuses the socket.
pub fn serve(path: &Path, applications: &[NslpId], gist: Handle, mut indications: mpsc::Receiver<Indication>) -> Result<Ipc, IpcError> {
    let failed = |source| IpcError::Socket { path: path.to_owned(), source };
    clear(path)?;
    let listener = bind(path).map_err(failed)?;
    let identity = identity(&std::fs::symlink_metadata(path).map_err(failed)?);
    let hub = Hub::new(applications);
    let task = tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(CLIENTS));
        let mut programs = JoinSet::new();
        loop {
            tokio::select! {
                indication = indications.recv() => match indication {
                    Some(indication) => hub.deliver(&indication),
                    None => return,
                },
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else {
                        // Such as "no more descriptors", which would only come again at once.
                        tokio::time::sleep(AFTER_ERROR).await;
                        continue;
                    };
                    while programs.try_join_next().is_some() {}
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let (hub, gist) = (hub.clone(), gist.clone());
                    programs.spawn(async move {
                        if let Err(error) = (Program { hub, gist, registered: None, lines: 0 }).serve(stream).await {
                            tracing::debug!(%error, "a program on the socket of applications is let go");
                        }
                        drop(place);
                    });
                }
            }
        }
    });
    Ok(Ipc { task, path: path.to_owned(), identity })
}

/// One program on the socket.
struct Program {
    hub: Hub,
    gist: Handle,
    registered: Option<Registered>,
    /// How many lines it has written.
    lines: u64,
}

impl Program {
    async fn serve(mut self, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        let mut line = Vec::new();
        loop {
            let room = u64::try_from(LONGEST_LINE.saturating_sub(line.len())).unwrap_or(0);
            let mut rest = (&mut read).take(room);
            let answer = tokio::select! {
                // What has been read of a line stays in it.
                octets = rest.read_until(b'\n', &mut line) => {
                    octets?;
                    self.lines = self.lines.saturating_add(1);
                    match line.last() {
                        Some(b'\n') => {
                            let answer = self.answer(&line).await;
                            line.clear();
                            answer
                        }
                        _ if line.len() >= LONGEST_LINE => {
                            let why = format!("a line of more than {LONGEST_LINE} octets");
                            return say(&mut write, &Event::Refused { id: None, line: self.lines, why }).await;
                        }
                        _ => return Ok(()),
                    }
                }
                event = next(&mut self.registered) => match event {
                    Some(event) => Some(event),
                    None => return Err(ErrorKind::TimedOut.into()),
                },
            };
            if let Some(event) = answer {
                say(&mut write, &event).await?;
            }
        }
    }

    async fn answer(&mut self, line: &[u8]) -> Option<Event> {
        let number = self.lines;
        let Asked { id, request } = match Asked::read(line) {
            Ok(asked) => asked,
            Err(error) => return Some(Event::Refused { id: error.id, line: number, why: error.to_string() }),
        };
        let refused = |why: String| Some(Event::Refused { id, line: number, why });
        match (request, &self.registered) {
            (Request::Register { .. }, Some(own)) => refused(NotRegistered::Already(own.nslp_id).to_string()),
            (Request::Register { nslp_id }, None) => match self.hub.register(NslpId(nslp_id)) {
                Ok(registered) => {
                    self.registered = Some(registered);
                    Some(Event::Registered { nslp_id })
                }
                Err(error) => refused(error.to_string()),
            },
            (Request::Show { what, from }, _) => match shown(id, what, from, &self.gist).await {
                Ok(event) => Some(event),
                Err(stopped) => refused(stopped.to_string()),
            },
            (request, Some(own)) => match self.gist.request(request.of_application(own.nslp_id)?).await {
                Ok(()) => None,
                Err(error) => refused(error.to_string()),
            },
            (_, None) => refused("the program has not said which application it is: `register` comes first".to_owned()),
        }
    }
}

impl Ipc {
    /// Waits until the node has ended, and with it everything on the socket.
    pub async fn ended(&mut self) {
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

/// The next event for a program; never for one that is no application.
async fn next(registered: &mut Option<Registered>) -> Option<Event> {
    match registered {
        Some(registered) => registered.events.recv().await,
        None => std::future::pending().await,
    }
}

async fn say(write: &mut (impl AsyncWriteExt + Unpin), event: &Event) -> io::Result<()> {
    timeout(PATIENCE, write.write_all(&event.write())).await?
}

/// Removes what a node that was killed has left.
fn clear(path: &Path) -> Result<(), IpcError> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(IpcError::Socket { path: path.to_owned(), source }),
        Ok(found) => found,
    };
    if !found.file_type().is_socket() {
        return Err(IpcError::NotASocket { path: path.to_owned() });
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(IpcError::Taken { path: path.to_owned() });
    }
    std::fs::remove_file(path).map_err(|source| IpcError::Socket { path: path.to_owned(), source })
}

/// The file has its rights from the start: there is no moment at which others may open it.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

impl Drop for Ipc {
    fn drop(&mut self) {
        self.task.abort();
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
