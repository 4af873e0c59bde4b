//! The loop of a daemon: GIST's indications, the packet side's events, requests of people, and time go into the NSLP's core;
//! what the core wants done is done. Whatever part of the daemon ends, the daemon ends with an error.

mod farewell;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gist::api::{Indication, SendError};
use gist::io::{Handle, RequestError, Stopped as GistStopped};
use gist::time::Instant;
use gist::wire::Direction as Along;
use pbs_nslp::datapath::{Command, Event};
use pbs_nslp::output::Output;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::Interval;

use self::farewell::Wishes;
use crate::claim::PortWatch;
use crate::clock::{self, Clock};
use crate::control::{Control, Request};
use crate::datapath::{Datapath, NarrowPath, WorkerEnded};
use crate::expiry::Finding;
use crate::flows::{Flows, Row};
use crate::identity::Credentials;
use crate::outcomes::Outcomes;
use crate::report::Log;
use crate::routing::{Change, Followed};
use crate::rules::Rules;
use crate::threads::{Ended, Threads};

/// How often the core is told the wall clock, and the node's certificate is looked at.
const WALL_CLOCK: Duration = Duration::from_secs(10);

/// Octets that messages of peers may take up while they wait to be checked ([`pbs_nslp::fair_queue`]).
pub const WAITING_OCTETS: usize = 32 << 20;

/// Indications taken in between two messages that are checked; what GIST has besides waits there, in turn by association.
const INTAKE: usize = 64;

/// Which packet worker something concerns, by its place in the daemon's list.
pub type Direction = usize;

/// The signalling core of a daemon.
pub trait Core {
    /// Takes an indication from GIST. A message waits for its turn: see [`Core::work`].
    fn handle_indication(&mut self, indication: Indication, now: Instant);
    /// Whether messages wait.
    fn is_waiting(&self) -> bool;
    /// Checks and handles the message whose turn it is.
    fn work(&mut self, now: Instant);
    /// Takes an event from a packet worker.
    fn handle_datapath(&mut self, direction: Direction, event: Event, now: Instant);
    /// Lets timers fire.
    fn handle_timeout(&mut self, now: Instant);
    /// Tells the wall clock.
    fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant);
    /// Has certificates verified anew that were believed before, and ends what was signed by those that are believed no more.
    fn reconsider_certificates(&mut self, now: Instant);
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
    /// What the core counts besides, for `counters`, under names that no packet worker has.
    fn counters(&self) -> Map<String, Value> {
        Map::new()
    }
    /// A path that begins with another way out than the routed one carries less than its first link.
    fn narrow(&mut self, _path: NarrowPath, _now: Instant) {}
    /// Answers any other request of a person. That to `request` says under `allowed` what the flow was allowed before.
    fn answer(&mut self, request: &Request, now: Instant) -> Result<Value, String>;
}

/// Why a daemon ends other than by being asked to. The filter rules stay in every case.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A packet worker has ended.
    #[error(transparent)]
    Worker(#[from] WorkerEnded),
    /// Another thread has ended without which the daemon would go on half dead.
    #[error("thread `{}` ended: {}", .0.name, .0.why)]
    Thread(Ended),
    /// Nobody serves the control socket any more.
    #[error("the control socket is not served any more")]
    Control,
    /// The signalling transport has ended.
    #[error(transparent)]
    Gist(#[from] GistStopped),
    /// The node's own certificate has ended (FS-60).
    #[error("{}: the certificate ended on {date}; the sessions are given up", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
        /// Its end.
        date: String,
    },
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
    pub control: Control,
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
    control: Control,
    clock: Clock,
    rules: Rules,
    routing: Followed,
    credentials: Credentials,
    threads: Threads,
    ended: mpsc::Receiver<Ended>,
    flows: Flows,
    outcomes: Outcomes,
    log: Log,
    port: PortWatch,
    /// Requests to GIST that it had no room for and of which the core does not hear.
    lost: u64,
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
            outcomes: Outcomes::default(),
            log: Log::default(),
            port: PortWatch::default(),
            lost: 0,
        }
    }

    /// Runs until the process is asked to end, or the node's certificate ends.
    pub async fn run(mut self) -> Result<(), DriveError> {
        let mut wishes = Wishes::new()?;
        let mut wall_clock = tokio::time::interval(WALL_CLOCK);
        let mut hangup = signal(SignalKind::hangup()).map_err(DriveError::Signals)?;
        loop {
            self.perform().await?;
            let behind = self.datapaths.iter().any(Datapath::is_behind);
            let works = !behind && self.core.is_waiting();
            let due = [self.core.poll_timeout(), self.outcomes.poll_timeout()].into_iter().flatten().min();
            let due = due.map(|instant| tokio::time::Instant::from_std(self.clock.at(instant)));
            tokio::select! {
                () = wishes.next() => break,
                () = self.wake.notified() => self.hear_workers()?,
                Some(ended) = self.ended.recv() => return Err(DriveError::Thread(ended)),
                change = self.routing.change() => self.hear_change(change).await?,
                request = self.control.recv() => self.answer(request.ok_or(DriveError::Control)?).await,
                indication = self.indications.recv(), if !behind => {
                    let indication = indication.ok_or(GistStopped)?;
                    self.core.handle_indication(indication, self.clock.now());
                }
                () = std::future::ready(()), if works => self.work().await,
                () = std::future::ready(()), if self.flows.is_ready() => self.step_flows(),
                () = sleep_until_due(due) => self.handle_timeout(),
                _ = hangup.recv() => self.look_at_revocation(clock::unix_seconds(), true),
                _ = wall_clock.tick() => if let Some(expired) = self.look_at_wall_clock(&mut wall_clock) {
                    tracing::error!("{expired}; the filter rules {}", self.what_rules_do());
                    self.say_farewell(&mut wishes).await?;
                    return Err(expired);
                },
            }
        }
        tracing::info!("asked to end; the filter rules {}", self.what_rules_do());
        self.say_farewell(&mut wishes).await
    }

    /// Takes in what GIST has ready, so that the turns are those of all who wait, then handles one message.
    async fn work(&mut self) {
        for _ in 0..INTAKE {
            let Ok(indication) = self.indications.try_recv() else { break };
            self.core.handle_indication(indication, self.clock.now());
        }
        self.core.work(self.clock.now());
        // What comes meanwhile is GIST's to take: it runs on the same thread.
        tokio::task::yield_now().await;
    }

    fn what_rules_do(&self) -> &'static str {
        if self.rules.is_opened() { "are gone already" } else { "stay" }
    }

    fn handle_timeout(&mut self) {
        let now = self.clock.now();
        self.outcomes.handle_timeout(now);
        self.core.handle_timeout(now);
    }

    /// Tells the core the wall clock; answers if the node's certificate has ended, else has the clock looked at no later than that.
    fn look_at_wall_clock(&mut self, wall_clock: &mut Interval) -> Option<DriveError> {
        let unix = clock::unix_seconds();
        self.core.set_wall_clock(unix, self.clock.now());
        self.port.look();
        self.look_at_revocation(unix, false);
        let until_lists_end = self.credentials.revocation.left(unix).unwrap_or(WALL_CLOCK);
        let expiry = &mut self.credentials.expiry;
        let (path, date) = (expiry.path().to_owned(), expiry.date().to_owned());
        match expiry.look(unix) {
            Finding::Over => return Some(DriveError::Expired { path, date }),
            Finding::Soon(seconds) => {
                let days = seconds / (24 * 60 * 60);
                tracing::warn!(path = %path.display(), date, days, "the certificate ends soon: with it this daemon ends, and nothing passes");
            }
            Finding::Quiet => {}
        }
        wall_clock.reset_after(WALL_CLOCK.min(until_lists_end).min(Duration::from_secs(expiry.left(unix))));
        None
    }

    /// Whoever is named in a newer list, or is certified by an authority whose list is out of date, is believed no more.
    fn look_at_revocation(&mut self, unix_seconds: u64, asked: bool) {
        if self.credentials.revocation.look(unix_seconds, asked) {
            self.core.reconsider_certificates(self.clock.now());
        }
    }

    fn step_flows(&mut self) {
        for (direction, command) in self.flows.step(|| self.core.flows(self.clock.now())) {
            self.command(direction, command);
        }
    }

    /// Does everything the core wants done.
    async fn perform(&mut self) -> Result<(), DriveError> {
        while let Some((direction, output)) = self.core.poll_output() {
            match output {
                Output::Datapath(command) => self.command(direction, command),
                Output::Report(report) => {
                    self.log.write(&report, self.clock.now());
                    self.outcomes.hear(&report);
                }
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
        if let gist::api::Request::Send(message) = &request
            && message.mri.direction() == Along::Downstream
        {
            self.routing.use_way(message.mri.destination());
        }
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
                } else {
                    self.lose_request();
                }
            }
        }
        Ok(())
    }

    /// What is lost so are news for GIST's table: it forgets a session later, or follows a new peer with the next message.
    fn lose_request(&mut self) {
        self.lost = self.lost.saturating_add(1);
        if self.lost.is_power_of_two() {
            tracing::warn!(times = self.lost, "GIST has a backlog: a request about its routing state was not carried out");
        }
    }

    fn hear_workers(&mut self) -> Result<(), DriveError> {
        for (direction, datapath) in self.datapaths.iter_mut().enumerate() {
            while let Some(event) = datapath.receive()? {
                if let Some(event) = self.flows.hear(event) {
                    self.core.handle_datapath(direction, event, self.clock.now());
                }
            }
            for path in datapath.take_narrow_paths() {
                match path.way {
                    0 => self.routing.narrow(path.destination, path.mtu),
                    _ => self.core.narrow(path, self.clock.now()),
                }
            }
        }
        Ok(())
    }

    async fn hear_change(&mut self, change: Change) -> Result<(), DriveError> {
        let addresses = match change {
            Change::Addresses(addresses) => addresses,
            Change::NextHops(destinations) => return Ok(self.gist.routes_changed(destinations).await?),
        };
        tracing::info!(?addresses, "this node's addresses have changed");
        self.credentials.warn_of_unnamed(&addresses);
        self.core.set_addresses(addresses.clone());
        Ok(self.gist.set_local_addresses(addresses).await?)
    }

    async fn answer(&mut self, request: Request) {
        let answer = match request.command() {
            "flows" => return self.flows.ask(request),
            "request" if request.body.get("wait") == Some(&Value::Bool(true)) => return self.answer_later(request),
            "counters" => Ok(self.counters()),
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

    /// Answers a request for a permission when it is known what comes of it.
    fn answer_later(&mut self, request: Request) {
        let now = self.clock.now();
        let asked = self.core.answer(&request, now).and_then(|asked| Ok((request.flow()?, asked)));
        match asked {
            Ok((flow, asked)) => self.outcomes.wait(request, flow, asked.get("allowed").and_then(Value::as_u64), now),
            Err(error) => request.answer(Err(error)),
        }
    }

    /// What each packet worker counted, then the core, then the kernel's filter rules.
    fn counters(&self) -> Value {
        let mut counters: Map<String, Value> =
            self.datapaths.iter().map(|datapath| (datapath.name().to_owned(), datapath.counters())).collect();
        counters.extend(self.core.counters());
        counters.extend(self.rules.counters());
        counters.into()
    }

    /// A core's status with what the daemon knows besides: whether the rules stand, what has become of routes, and which threads run.
    fn with_status(&self, mut status: Value) -> Value {
        let workers = self.datapaths.iter().flat_map(Datapath::threads).map(|(name, runs)| (name, runs.into()));
        let threads: serde_json::Map<String, Value> = self.threads.show().into_iter().chain(workers).collect();
        if let Some(fields) = status.as_object_mut() {
            let expiry = &self.credentials.expiry;
            fields.insert("certificate".to_owned(), json!({ "file": expiry.path(), "ends": expiry.date() }));
            fields.insert("revocation_lists".to_owned(), self.credentials.revocation.show());
            fields.insert("gist_port_open_to_anybody".to_owned(), self.port.wrong().into());
            fields.insert("gist_requests_lost".to_owned(), self.lost.into());
            fields.insert("rules".to_owned(), self.rules.show());
            fields.extend(self.rules.packets().into_iter().map(|(name, value)| (name.to_owned(), value)));
            fields.insert("routes".to_owned(), self.routing.show());
            fields.insert("threads_running".to_owned(), threads.into());
        }
        status
    }
}

async fn sleep_until_due(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
