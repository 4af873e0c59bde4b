//! The loop of a daemon: GIST's indications, the packet side's events, requests of people, and time go into the NSLP's core;
//! what the core wants done is done. Whatever part of the daemon ends, the daemon ends with an error.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gist::api::{Indication, SendError};
use gist::io::{Handle, RequestError, Stopped as GistStopped};
use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event};
use pbs_nslp::output::Output;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use crate::clock::{self, Clock};
use crate::control::Request;
use crate::datapath::Datapath;
use crate::flows::{Flows, Row};
use crate::identity::Credentials;
use crate::routing::Followed;
use crate::rules::Rules;
use crate::threads::{Ended, Threads};

/// How long a daemon that was asked to end may go on to say good-bye.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often the core is told the wall clock.
const WALL_CLOCK: Duration = Duration::from_secs(10);

/// Which packet worker something concerns, by its place in the daemon's list.
pub type Direction = usize;

/// The signalling core of a daemon.
pub trait Core {
    /// Takes an indication from GIST.
    fn handle_indication(&mut self, indication: Indication, now: Instant);
    /// Takes an event from a packet worker.
    fn handle_datapath(&mut self, direction: Direction, event: Event, now: Instant);
    /// Lets timers fire.
    fn handle_timeout(&mut self, now: Instant);
    /// Tells the wall clock.
    fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant);
    /// Tells the node's addresses after they have changed.
    fn set_addresses(&mut self, addresses: Vec<IpAddr>);
    /// Gives up what is held, as far as others must know of it (FS-60, FR-60).
    fn shut_down(&mut self, now: Instant);
    /// The next thing to do, with the worker it concerns if it is a command.
    fn poll_output(&mut self) -> Option<(Direction, Output)>;
    /// When timers are due next.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The sessions, for `flows`.
    fn flows(&self, now: Instant) -> Vec<Row>;
    /// Answers any other request of a person.
    fn answer(&mut self, request: &Request, now: Instant) -> Result<Value, String>;
}

/// Why a daemon ends other than by being asked to. The filter rules stay in every case.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A packet worker has ended.
    #[error("packet worker `{name}` ended: {why}")]
    Worker {
        /// Name of the direction.
        name: &'static str,
        /// Why.
        why: traffic::worker::Stopped,
    },
    /// Another thread has ended without which the daemon would go on half dead.
    #[error("thread `{}` ended: {}", .0.name, .0.why)]
    Thread(Ended),
    /// Nobody serves the control socket any more.
    #[error("the control socket is not served any more")]
    Control,
    /// The signalling transport has ended.
    #[error(transparent)]
    Gist(#[from] GistStopped),
    /// Signals of the system cannot be received.
    #[error("cannot listen to signals: {0}")]
    Signals(std::io::Error),
}

/// What stands between a core and the loop. A daemon has nothing there; a laboratory shows with it what a rogue node tries.
pub type Around = dyn Fn(Box<dyn Core>) -> Box<dyn Core> + Send + Sync;

/// Everything a daemon's loop runs on.
pub struct Parts {
    /// The signalling core.
    pub core: Box<dyn Core>,
    /// To GIST.
    pub gist: Handle,
    /// From GIST.
    pub indications: mpsc::Receiver<Indication>,
    /// The packet workers; a [`Direction`] is a place in this list.
    pub datapaths: Vec<Datapath>,
    /// Notified by the workers.
    pub wake: Arc<Notify>,
    /// Requests of people.
    pub control: mpsc::Receiver<Request>,
    /// The clock that core and workers share.
    pub clock: Clock,
    /// The filter rules.
    pub rules: Rules,
    /// Routes and addresses.
    pub routing: Followed,
    /// Who the daemon is.
    pub credentials: Credentials,
    /// The other threads.
    pub threads: Threads,
    /// Tells when one of them has ended.
    pub ended: mpsc::Receiver<Ended>,
}

/// The loop.
pub struct Drive {
    core: Box<dyn Core>,
    gist: Handle,
    indications: mpsc::Receiver<Indication>,
    datapaths: Vec<Datapath>,
    wake: Arc<Notify>,
    control: mpsc::Receiver<Request>,
    clock: Clock,
    rules: Rules,
    routing: Followed,
    credentials: Credentials,
    threads: Threads,
    ended: mpsc::Receiver<Ended>,
    flows: Flows,
}

impl Drive {
    /// Puts the parts of a daemon together.
    pub fn new(parts: Parts) -> Self {
        let Parts { core, gist, indications, datapaths, wake, control, clock, rules, routing, credentials, threads, ended } = parts;
        Self {
            core,
            gist,
            indications,
            datapaths,
            wake,
            control,
            clock,
            rules,
            routing,
            credentials,
            threads,
            ended,
            flows: Flows::default(),
        }
    }

    /// Runs until the process is asked to end.
    pub async fn run(mut self) -> Result<(), DriveError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(DriveError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(DriveError::Signals)?;
        let mut wall_clock = tokio::time::interval(WALL_CLOCK);
        loop {
            self.perform().await?;
            let behind = self.datapaths.iter().any(Datapath::is_behind);
            let due = self.core.poll_timeout().map(|instant| tokio::time::Instant::from_std(self.clock.at(instant)));
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = self.wake.notified() => self.hear_workers()?,
                Some(ended) = self.ended.recv() => return Err(DriveError::Thread(ended)),
                addresses = self.routing.addresses() => self.hear_addresses(addresses).await?,
                request = self.control.recv() => self.answer(request.ok_or(DriveError::Control)?).await,
                indication = self.indications.recv(), if !behind => {
                    let indication = indication.ok_or(GistStopped)?;
                    self.core.handle_indication(indication, self.clock.now());
                }
                () = sleep_until(due) => self.core.handle_timeout(self.clock.now()),
                _ = wall_clock.tick() => self.core.set_wall_clock(clock::unix_seconds(), self.clock.now()),
            }
        }
        tracing::info!("asked to end; the filter rules {}", if self.rules.is_opened() { "are gone already" } else { "stay" });
        self.say_farewell().await
    }

    /// Does everything the core wants done.
    async fn perform(&mut self) -> Result<(), DriveError> {
        while let Some((direction, output)) = self.core.poll_output() {
            match output {
                Output::Datapath(command) => self.command(direction, command),
                Output::Report(report) => crate::report::log(&report),
                Output::Ask(ask) => tracing::warn!(flow = %ask.flow, "nobody decides about this Query; it is declined in time"),
                other => {
                    if let Some(request) = other.into_gist_request() {
                        self.request(request).await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn command(&mut self, direction: Direction, command: Command) {
        let failed = self.datapaths.get_mut(direction).and_then(|datapath| datapath.command(command));
        if let Some(event) = failed.and_then(|event| self.flows.hear(event)) {
            self.core.handle_datapath(direction, event, self.clock.now());
        }
    }

    /// Hands a request to GIST. If GIST cannot take it, the core hears of its message at once.
    async fn request(&mut self, request: gist::api::Request) -> Result<(), DriveError> {
        let undelivered = match &request {
            gist::api::Request::Send(message) => Some(Indication::MessageStatus {
                handle: message.handle,
                nslp_id: message.nslp_id,
                session: message.session,
                mri: message.mri.clone(),
                error: SendError::QueueFull,
            }),
            _ => None,
        };
        match self.gist.request(request).await {
            Ok(()) => {}
            Err(RequestError::Stopped(stopped)) => return Err(stopped.into()),
            Err(RequestError::Backlog) => {
                if let Some(indication) = undelivered {
                    self.core.handle_indication(indication, self.clock.now());
                }
            }
        }
        Ok(())
    }

    fn hear_workers(&mut self) -> Result<(), DriveError> {
        for (direction, datapath) in self.datapaths.iter_mut().enumerate() {
            while let Some(event) = datapath.receive().map_err(|why| DriveError::Worker { name: datapath.name(), why })? {
                if let Some(event) = self.flows.hear(event) {
                    self.core.handle_datapath(direction, event, self.clock.now());
                }
            }
        }
        Ok(())
    }

    async fn hear_addresses(&mut self, addresses: Vec<IpAddr>) -> Result<(), DriveError> {
        tracing::info!(?addresses, "this node's addresses have changed");
        self.credentials.warn_of_unnamed(&addresses);
        self.core.set_addresses(addresses.clone());
        Ok(self.gist.set_local_addresses(addresses).await?)
    }

    async fn answer(&mut self, request: Request) {
        if request.command() == "flows" {
            let rows = self.core.flows(self.clock.now());
            for (direction, command) in self.flows.ask(request, rows) {
                self.command(direction, command);
            }
            return;
        }
        let answer = match request.command() {
            "counters" => Ok(self.datapaths.iter().map(|datapath| (datapath.name().to_owned(), datapath.counters())).collect()),
            "gist" => self.gist.snapshot().await.map(|snapshot| crate::status::gist(&snapshot)).map_err(|error| error.to_string()),
            "open" => self
                .rules
                .open()
                .map(|failed| json!({ "opened": true, "not_undone": failed.map(|error| error.to_string()) }))
                .map_err(|error| error.to_string()),
            "status" => self.core.answer(&request, self.clock.now()).map(|answer| self.with_status(answer)),
            _ => self.core.answer(&request, self.clock.now()),
        };
        request.answer(answer);
    }

    /// A core's status with what the daemon knows besides: whether the rules stand, what has become of routes, and which threads run.
    fn with_status(&self, mut status: Value) -> Value {
        let workers = self.datapaths.iter().map(|datapath| (datapath.name().to_owned(), datapath.runs().into()));
        let threads: serde_json::Map<String, Value> = self.threads.show().into_iter().chain(workers).collect();
        if let Some(fields) = status.as_object_mut() {
            fields.insert("rules".to_owned(), self.rules.show());
            fields.insert("routes".to_owned(), self.routing.show());
            fields.insert("threads_running".to_owned(), threads.into());
        }
        status
    }

    /// Tells neighbours what ends, for as long as that takes but not longer than [`FAREWELL`].
    async fn say_farewell(mut self) -> Result<(), DriveError> {
        self.core.shut_down(self.clock.now());
        let end = tokio::time::Instant::now() + FAREWELL;
        while tokio::time::Instant::now() < end {
            self.perform().await?;
            tokio::select! {
                () = self.wake.notified() => self.hear_workers()?,
                () = tokio::time::sleep_until(end) => {}
            }
        }
        Ok(())
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
