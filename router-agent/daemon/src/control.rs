//! The control socket: one JSON request a line in, one JSON answer a line out.
//!
//! A request is an object with the fields `role` (`"host"` or `"router"`: whom it is meant for) and `command`; an answer is
//! `{"ok": …}`, or `{"error": "…"}` for a refusal. A daemon carries out nothing that is meant for the other role; then the answer
//! says `"misdirected": true` besides. The socket is a Unix socket that only its owner may open.

mod words;

use std::fs::Metadata;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::{Mode, fchmod};
use pbs_nslp::flow::FlowId;
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use traffic::rules::Role;

pub use words::{Refused, read_answer, read_request, role_name};

/// Longest request line in bytes.
const REQUEST_LIMIT: u64 = 64 * 1024;
/// Longest answer in bytes that a client reads: a table of 65,536 flows fits.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
/// Clients served at once; further ones wait in the kernel's backlog.
const CLIENTS: usize = 16;
/// Clients that may wait in the kernel's backlog.
const BACKLOG: i32 = 128;
/// A client that neither asks nor reads for so long is let go; a daemon that does not answer for so long is given up.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How often a client that waits for its answer is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Longest time in which a daemon answers anything.
const LONGEST_ANSWER: Duration = crate::outcomes::LONGEST.saturating_add(PATIENCE);

/// Why the control socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be opened or reached.
    #[error("control socket {}: {source}", path.display())]
    Socket {
        /// Path of the socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory of the socket is not there and cannot be made.
    #[error("control socket {}: cannot make the directory {}: {source}", path.display(), directory.display())]
    Directory {
        /// Path of the socket.
        path: PathBuf,
        /// Its directory.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A daemon already listens there.
    #[error("control socket {}: another daemon already answers there", path.display())]
    Taken {
        /// Path of the socket.
        path: PathBuf,
    },
    /// Something that is no socket lies there; it is left alone.
    #[error("control socket {}: something that is not a socket lies there", path.display())]
    NotASocket {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The daemon's answer is not what it should be.
    #[error("control socket {}: {what}", path.display())]
    Answer {
        /// Path of the socket.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The daemon refused the request.
    #[error("{0}")]
    Refused(String),
    /// A daemon of another role answers there.
    #[error("control socket {}: {why}", path.display())]
    Misdirected {
        /// Path of the socket.
        path: PathBuf,
        /// What the daemon says.
        why: String,
    },
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// The request as sent.
    pub body: Value,
    reply: oneshot::Sender<Result<Value, String>>,
}

impl Request {
    /// A request, and the place where its answer appears.
    pub fn new(body: Value) -> (Self, oneshot::Receiver<Result<Value, String>>) {
        let (reply, answer) = oneshot::channel();
        (Self { body, reply }, answer)
    }

    /// The name of the command, or nothing if the request has none.
    pub fn command(&self) -> &str {
        self.body.get("command").and_then(Value::as_str).unwrap_or_default()
    }

    /// A text field of the request.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field).and_then(Value::as_str)
    }

    /// The flow that the request names.
    pub fn flow(&self) -> Result<FlowId, String> {
        let address = |field: &'static str| -> Result<IpAddr, String> {
            let text = self.text(field).ok_or(format!("the request names no {field}"))?;
            text.parse().map_err(|_| format!("{field} `{text}` is not an address"))
        };
        let number = |field: &'static str| self.body.get(field).and_then(Value::as_u64).unwrap_or(0);
        let port = |field| u16::try_from(number(field)).map_err(|_| format!("{field} is not a port"));
        let protocol = u8::try_from(number("protocol")).map_err(|_| "protocol is not a number up to 255".to_owned())?;
        let (source, destination) = (address("source")?, address("destination")?);
        FlowId::new(source, destination, protocol, port("source_port")?, port("destination_port")?).map_err(|error| error.to_string())
    }

    /// Whether whoever asked has gone.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    /// Answers the request. A client that has gone is not missed.
    pub fn answer(self, answer: Result<Value, String>) {
        let _ = self.reply.send(answer);
    }
}

/// A control socket that is served. Its file goes with this value.
#[derive(Debug)]
pub struct Control {
    requests: mpsc::Receiver<Request>,
    _file: SocketFile,
}

impl Control {
    /// The next request; `None` if nobody serves the socket any more.
    pub async fn recv(&mut self) -> Option<Request> {
        self.requests.recv().await
    }
}

/// The file of a socket of ours, which goes with this value.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn identity(found: &Metadata) -> (u64, u64) {
        (found.dev(), found.ino())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have put a file of another's there.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| Self::identity(&found) == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens the socket of a daemon of this role and serves it until the returned value is dropped. A socket left by a dead daemon is
/// replaced.
pub async fn listen(path: &Path, role: Role) -> Result<Control, ControlError> {
    let socket = |source| ControlError::Socket { path: path.to_owned(), source };
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(ControlError::NotASocket { path: path.to_owned() });
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(ControlError::Taken { path: path.to_owned() }),
            // Nobody listens. Any other error may come from a daemon that lives.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(socket)?,
            Err(error) => return Err(socket(error)),
        }
    }
    if let Some(directory) = path.parent() {
        let failed = |source| ControlError::Directory { path: path.to_owned(), directory: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let listener = bind(path).map_err(socket)?;
    let identity = SocketFile::identity(&std::fs::symlink_metadata(path).map_err(socket)?);
    let (requests, receiver) = mpsc::channel(CLIENTS);
    tokio::spawn(accept(listener, role, requests));
    Ok(Control { requests: receiver, _file: SocketFile { path: path.to_owned(), identity } })
}

/// A socket that only its owner may open, from its first moment on: a file of a socket gets the mode that the socket has when it is
/// bound.
fn bind(path: &Path) -> std::io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())
}

async fn accept(listener: UnixListener, role: Role, requests: mpsc::Sender<Request>) {
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS));
    while let Ok(place) = places.clone().acquire_owned().await {
        if requests.is_closed() {
            return;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = serve(stream, role, requests).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, role: Role, requests: mpsc::Sender<Request>) -> std::io::Result<()> {
    let (reader, writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader).take(REQUEST_LIMIT);
    tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await??;
    let answer = match read_request(&line, role) {
        Ok(body) => {
            let (request, answer) = Request::new(body);
            let answered = async {
                match requests.send(request).await {
                    Ok(()) => answer.await.unwrap_or_else(|_| Err("the daemon is stopping".to_owned())),
                    Err(_) => Err("the daemon is stopping".to_owned()),
                }
            };
            tokio::select! {
                answer = tokio::time::timeout(LONGEST_ANSWER, answered) => answer?,
                () = is_gone(&writer) => return Ok(()),
            }
        }
        Err(refused) => return finish(writer, &refused.answer().to_string()).await,
    };
    // A table of many flows is long: the loop of the daemon, which runs on this thread, does not wait for it.
    let text = tokio::task::spawn_blocking(|| {
        let answer = match answer {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        };
        answer.to_string()
    });
    finish(writer, &text.await?).await
}

/// Writes the answer, the last thing that goes over a connection.
async fn finish(mut writer: OwnedWriteHalf, answer: &str) -> std::io::Result<()> {
    let line = async {
        writer.write_all(answer.as_bytes()).await?;
        writer.write_all(b"\n").await
    };
    tokio::time::timeout(PATIENCE, line).await??;
    writer.shutdown().await
}

/// Ends when the client has closed its socket. One that only says no more still listens.
async fn is_gone(writer: &OwnedWriteHalf) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if writer.ready(Interest::WRITABLE).await.is_ok_and(|ready| ready.is_write_closed()) {
            return;
        }
    }
}

/// Sends one request to a daemon of this role and returns its answer, which must come soon.
pub async fn ask(path: &Path, role: Role, body: &Value) -> Result<Value, ControlError> {
    ask_patiently(path, role, body, PATIENCE).await
}

/// The same for an answer that may take as long as `patience`.
pub async fn ask_patiently(path: &Path, role: Role, body: &Value, patience: Duration) -> Result<Value, ControlError> {
    let mut body = body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("role".to_owned(), role_name(role).into());
    }
    let socket = |source| ControlError::Socket { path: path.to_owned(), source };
    let wrong = |what: String| ControlError::Answer { path: path.to_owned(), what };
    let stream = UnixStream::connect(path).await.map_err(socket)?;
    let (reader, mut writer) = stream.into_split();
    writer.write_all(format!("{body}\n").as_bytes()).await.map_err(socket)?;
    let mut line = String::new();
    let mut reader = BufReader::new(reader).take(ANSWER_LIMIT);
    let read = tokio::time::timeout(patience, reader.read_line(&mut line)).await;
    read.map_err(|_| wrong(format!("no answer within {} s", patience.as_secs())))?.map_err(socket)?;
    read_answer(&line, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path in a directory that goes away at the end of the test.
    struct Place(PathBuf);

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
        }
    }

    impl std::ops::Deref for Place {
        type Target = Path;

        fn deref(&self) -> &Path {
            &self.0
        }
    }

    fn path(name: &str) -> Place {
        Place(std::env::temp_dir().join(format!("pbs-control-{name}-{}", std::process::id())).join("control.sock"))
    }

    #[tokio::test]
    async fn a_request_gets_its_answer_and_an_error_its_text() {
        let path = path("answer");
        let mut requests = listen(&path, Role::Router).await.unwrap();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let answer =
                    if request.command() == "status" { Ok(json!({ "name": "router" })) } else { Err("unknown command".to_owned()) };
                request.answer(answer);
            }
        });
        assert_eq!(ask(&path, Role::Router, &json!({ "command": "status" })).await.unwrap(), json!({ "name": "router" }));
        assert_eq!(ask(&path, Role::Router, &json!({ "command": "x" })).await.unwrap_err().to_string(), "unknown command");
        assert!(matches!(listen(&path, Role::Router).await, Err(ControlError::Taken { .. })), "a live daemon keeps its socket");
    }

    /// Neither the other role's requests nor those of nobody come through to the daemon.
    #[tokio::test]
    async fn a_request_for_the_other_role_is_refused() {
        let path = path("role");
        let mut requests = listen(&path, Role::Router).await.unwrap();
        let refused = ask(&path, Role::Host, &json!({ "command": "open" })).await.unwrap_err();
        assert!(matches!(&refused, ControlError::Misdirected { why, .. } if why.starts_with("a router answers here")), "{refused}");
        let mut stream = UnixStream::connect(&*path).await.unwrap();
        stream.write_all(b"{\"command\":\"open\"}\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("does not say for which role"), "{answer}");
        assert!(requests.requests.try_recv().is_err(), "nothing came through");
    }

    #[tokio::test]
    async fn a_socket_left_by_a_dead_daemon_is_replaced() {
        let path = path("stale");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&*path).unwrap());
        let _requests = listen(&path, Role::Router).await.unwrap();
        assert!(UnixStream::connect(&*path).await.is_ok());
    }

    /// Nothing is done to the file after it has come to be, and still only its owner may open it.
    #[tokio::test]
    async fn nobody_else_may_open_the_socket_from_its_first_moment_on() {
        let path = path("mode");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = nix::sys::stat::umask(Mode::empty());
        let bound = bind(&path);
        nix::sys::stat::umask(before);
        assert_eq!(std::fs::metadata(&*path).unwrap().mode() & 0o777, 0o600);
        drop(bound.unwrap());
    }

    #[tokio::test]
    async fn the_file_goes_with_the_daemon_but_not_that_of_another() {
        let path = path("end");
        drop(listen(&path, Role::Router).await.unwrap());
        assert!(!path.exists());
        let control = listen(&path, Role::Router).await.unwrap();
        std::fs::remove_file(&*path).unwrap();
        std::fs::write(&*path, "dear to somebody").unwrap();
        drop(control);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_client_that_has_gone_abandons_its_request() {
        let path = path("gone");
        let mut control = listen(&path, Role::Router).await.unwrap();
        let mut stream = UnixStream::connect(&*path).await.unwrap();
        stream.write_all(b"{\"role\":\"router\",\"command\":\"flows\"}\n").await.unwrap();
        let request = control.recv().await.unwrap();
        assert!(!request.is_abandoned());
        drop(stream);
        while !request.is_abandoned() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_the_socket_is_left_alone() {
        let path = path("file");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&*path, "dear to somebody").unwrap();
        assert!(matches!(listen(&path, Role::Router).await, Err(ControlError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "dear to somebody");
    }

    #[tokio::test]
    async fn a_line_that_is_not_json_is_refused_with_a_reason() {
        let path = path("garbage");
        let _requests = listen(&path, Role::Router).await.unwrap();
        let mut stream = UnixStream::connect(&*path).await.unwrap();
        stream.write_all(b"hello\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("not JSON"), "{answer}");
    }
}
