//! The router with its sockets: the real shell on a thread and a processor of its own.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::JoinHandle;

use gist::api::{Indication, Request};
use gist::io::tls::Tls;
use gist::io::{Bind, Handle, Limits, ShellConfig, Snapshot, spawn};
use tokio::sync::mpsc;

use super::core_handshakes::message;
use super::flows::Session;
use super::node::{Carrier, config};
use crate::bench::processor::{Thread, pin};
use crate::network::namespace::Namespace;

/// Where it is, on the loopback interface of a namespace of its own.
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// A router that runs.
#[derive(Debug)]
pub(super) struct Router {
    /// Its thread, which also is its application's.
    pub(super) thread: Thread,
    handle: Handle,
    runs: Option<JoinHandle<io::Result<()>>>,
}

impl Router {
    /// Starts one that passes every message received on to a session.
    pub(super) fn start(
        host: &Namespace,
        carrier: Carrier,
        sessions: usize,
        tls: Option<Tls>,
        onwards: Option<Session>,
    ) -> io::Result<Self> {
        let (say, hear) = std::sync::mpsc::channel();
        let runs = host.spawn(move || {
            pin(0)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let node = config(IpAddr::V4(ROUTER), carrier, sessions);
                let bind = Bind { ipv4: Some(ROUTER), ipv6: None, ..Bind::default() };
                let (handle, indications) = spawn(ShellConfig { node, tls, bind, limits: Limits::default() }).map_err(io::Error::other)?;
                let _ = say.send((Thread::current(), handle.clone()));
                pass_on(&handle, indications, onwards).await;
                Ok(())
            })
        })?;
        let runs = std::thread::spawn(move || runs.join().unwrap_or_else(|_| Err(io::Error::other("the router panicked")))?);
        match hear.recv() {
            Ok((thread, handle)) => Ok(Self { thread, handle, runs: Some(runs) }),
            Err(_) => {
                Err(runs.join().map_or_else(|_| io::Error::other("panicked"), |ended| ended.err().unwrap_or(io::ErrorKind::Other.into())))
            }
        }
    }

    /// What it has and has counted.
    pub(super) fn snapshot(&self) -> io::Result<Snapshot> {
        block_on(self.handle.snapshot())?.map_err(io::Error::other)
    }

    /// Has it look for the peer of a session, with a first message.
    pub(super) fn send(&self, session: Session) -> io::Result<()> {
        let first = Request::Send(message(session, bytes::Bytes::from_static(b"four")));
        block_on(self.handle.request(first))?.map_err(io::Error::other)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = block_on(self.handle.stop());
        if let Some(runs) = self.runs.take() {
            let _ = runs.join();
        }
    }
}

fn block_on<T>(what: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(what))
}

/// The application: what comes goes on. Until the router is stopped.
async fn pass_on(handle: &Handle, mut indications: mpsc::Receiver<Indication>, onwards: Option<Session>) {
    let template = onwards.map(|session| message(session, bytes::Bytes::new()));
    while let Some(indication) = indications.recv().await {
        let (Some(template), Indication::Received(received)) = (&template, indication) else { continue };
        let mut next = template.clone();
        next.payload = received.payload;
        if handle.request(Request::Send(next)).await.is_err() {
            return;
        }
    }
}
