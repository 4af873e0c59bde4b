//! The control socket: one JSON request a line in, one JSON answer a line out.
//!
//! A request is an object with the field `command`; an answer is `{"ok": …}` or `{"error": "…"}`. The socket is a Unix socket
//! that only its owner may open.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// Longest request line in bytes.
const REQUEST_LIMIT: u64 = 64 * 1024;
/// Longest answer in bytes that a client reads: a table of 65,536 flows fits.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;
/// Clients served at once; further ones wait in the kernel's backlog.
const CLIENTS: usize = 16;
/// A client that neither asks nor reads for so long is let go.
const PATIENCE: Duration = Duration::from_secs(10);

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
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// The request as sent.
    pub body: Value,
    reply: oneshot::Sender<Result<Value, String>>,
}

impl Request {
    /// The name of the command, or nothing if the request has none.
    pub fn command(&self) -> &str {
        self.body.get("command").and_then(Value::as_str).unwrap_or_default()
    }

    /// A text field of the request.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body.get(field).and_then(Value::as_str)
    }

    /// Answers the request. A client that has gone is not missed.
    pub fn answer(self, answer: Result<Value, String>) {
        let _ = self.reply.send(answer);
    }
}

/// Opens the socket and serves it until the returned receiver is dropped. A socket left by a dead daemon is replaced.
pub async fn listen(path: &Path) -> Result<mpsc::Receiver<Request>, ControlError> {
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
    let listener = UnixListener::bind(path).map_err(socket)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(socket)?;
    let (requests, receiver) = mpsc::channel(CLIENTS);
    tokio::spawn(accept(listener, requests));
    Ok(receiver)
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Request>) {
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
                    let _ = tokio::time::timeout(PATIENCE, serve(stream, requests)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "control socket: accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, requests: mpsc::Sender<Request>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader).take(REQUEST_LIMIT).read_line(&mut line).await?;
    let answer = match serde_json::from_str(&line) {
        Ok(body) => {
            let (reply, answer) = oneshot::channel();
            match requests.send(Request { body, reply }).await {
                Ok(()) => answer.await.unwrap_or_else(|_| Err("the daemon is stopping".to_owned())),
                Err(_) => Err("the daemon is stopping".to_owned()),
            }
        }
        Err(error) => Err(format!("the request is not JSON: {error}")),
    };
    let mut text = match answer {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": error }),
    }
    .to_string();
    text.push('\n');
    writer.write_all(text.as_bytes()).await?;
    writer.shutdown().await
}

/// Sends one request to a daemon and returns its answer.
pub async fn ask(path: &Path, body: &Value) -> Result<Value, ControlError> {
    let socket = |source| ControlError::Socket { path: path.to_owned(), source };
    let wrong = |what: String| ControlError::Answer { path: path.to_owned(), what };
    let stream = UnixStream::connect(path).await.map_err(socket)?;
    let (reader, mut writer) = stream.into_split();
    writer.write_all(format!("{body}\n").as_bytes()).await.map_err(socket)?;
    let mut line = String::new();
    let mut reader = BufReader::new(reader).take(ANSWER_LIMIT);
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await;
    read.map_err(|_| wrong(format!("no answer within {} s", PATIENCE.as_secs())))?.map_err(socket)?;
    let mut answer: Value = serde_json::from_str(&line).map_err(|error| wrong(format!("the answer is not JSON: {error}")))?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        return Err(ControlError::Refused(error.to_owned()));
    }
    answer.get_mut("ok").map(Value::take).ok_or_else(|| wrong("the answer has neither `ok` nor `error`".to_owned()))
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
        let mut requests = listen(&path).await.unwrap();
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let answer =
                    if request.command() == "status" { Ok(json!({ "name": "router" })) } else { Err("unknown command".to_owned()) };
                request.answer(answer);
            }
        });
        assert_eq!(ask(&path, &json!({ "command": "status" })).await.unwrap(), json!({ "name": "router" }));
        assert_eq!(ask(&path, &json!({ "command": "x" })).await.unwrap_err().to_string(), "unknown command");
        assert!(matches!(listen(&path).await, Err(ControlError::Taken { .. })), "a live daemon keeps its socket");
    }

    #[tokio::test]
    async fn a_socket_left_by_a_dead_daemon_is_replaced_and_nobody_else_may_open_it() {
        let path = path("stale");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&*path).unwrap());
        let _requests = listen(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&*path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_the_socket_is_left_alone() {
        let path = path("file");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&*path, "dear to somebody").unwrap();
        assert!(matches!(listen(&path).await, Err(ControlError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&*path).unwrap(), "dear to somebody");
    }

    #[tokio::test]
    async fn a_line_that_is_not_json_is_refused_with_a_reason() {
        let path = path("garbage");
        let _requests = listen(&path).await.unwrap();
        let mut stream = UnixStream::connect(&*path).await.unwrap();
        stream.write_all(b"hello\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("not JSON"), "{answer}");
    }
}
