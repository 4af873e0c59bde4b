//! The task that owns the node.

mod outputs;

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::association::{Association, Associations, Report};
use super::backend::SystemBackend;
use super::clock::Clock;
use super::error::ShellError;
use super::handle::{Command, Handle, ShellCounters, Snapshot};
use super::listener::{self, Accepted, Gate, GateCounters};
use super::progress::Progress;
use super::raw::RawSockets;
use super::udp::UdpSockets;
use super::{Limits, ShellConfig};
use crate::api::{AssociationId, Indication};
use crate::node::{AssociationEvent, Datagram, Node, Registration};
use crate::time::Instant;
use crate::wire::NslpId;

/// Opens the sockets and starts the shell; call it inside a tokio runtime with I/O and time.
///
/// The receiver gives the node's indications in order. When it is dropped, or the last [`Handle`] is, the shell closes
/// all associations and ends.
pub fn spawn(config: ShellConfig) -> Result<(Handle, mpsc::Receiver<Indication>), ShellError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|_| ShellError::NoRuntime)?;
    let ShellConfig { node, tls, bind, limits } = config;
    if bind.ipv4.is_none() && bind.ipv6.is_none() {
        return Err(ShellError::NoAddress);
    }
    if node.registrations.iter().any(|registration| registration.nslp_id == NslpId::NONE) {
        return Err(ShellError::NoApplication);
    }
    if node.association_port == 0 && tls.is_some() {
        return Err(ShellError::NoAssociationPort);
    }
    let udp = UdpSockets::bind(bind)?;
    let raw = RawSockets::open(bind)?;
    if tls.is_none() && node.registrations.iter().any(Registration::offers_tls) {
        return Err(ShellError::NoTls);
    }
    let offers_plain = node.registrations.iter().any(Registration::offers_plain_tcp);
    if offers_plain && node.plain_association_port == 0 {
        return Err(ShellError::NoAssociationPort);
    }
    let for_tls = if tls.is_some() { listener::bind(bind, node.association_port)? } else { Vec::new() };
    let for_plain = if offers_plain { listener::bind(bind, node.plain_association_port)? } else { Vec::new() };
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| ShellError::NoRandomness)?;

    let (command_sender, commands) = mpsc::channel(limits.requests.max(1));
    let (intercepted_sender, intercepted) = mpsc::channel(limits.intercepted.max(1));
    let (indications, indication_receiver) = mpsc::channel(limits.indications.max(1));
    let (report_sender, reports) = mpsc::channel(limits.reports.max(1));
    let (accepted_sender, accepted) = mpsc::channel(limits.handshakes.max(1));

    let gate_counters = Arc::new(GateCounters::default());
    let peers = tls.as_ref().map(|tls| Arc::clone(&tls.peers));
    let (client, server) = tls.map(|tls| (tls.client, tls.server)).unzip();
    let mut listening = JoinSet::new();
    for (listeners, acceptor) in [(for_tls, server.map(TlsAcceptor::from)), (for_plain, None)] {
        let gate = Arc::new(Gate::new(acceptor, limits, bind, accepted_sender.clone(), Arc::clone(&gate_counters)));
        for listener in listeners {
            listening.spawn(listener::accept(listener, Arc::clone(&gate)));
        }
    }
    let backlog = Arc::new(AtomicBool::new(false));
    // A single input can cause an indication for each routing state, so fewer would be no sign of a slow application.
    let most_pending = node.caps.routing_states.saturating_mul(2).saturating_add(limits.indications);
    let progress = Arc::new(Progress::default());
    let longest_message = limits.longest_message(&node.registrations);
    let backend = Arc::new(SystemBackend::new(bind));
    let shell = Shell {
        node: Node::new(node, Arc::<SystemBackend>::clone(&backend), seed),
        backend,
        clock: Clock::start(),
        limits,
        udp,
        raw,
        commands,
        intercepted,
        reports,
        accepted,
        indications,
        pending: VecDeque::new(),
        most_pending,
        backlog: Arc::clone(&backlog),
        associations: BTreeMap::new(),
        context: Associations { limits, bind, client, peers, reports: report_sender, progress: Arc::clone(&progress), longest_message },
        progress,
        tasks: JoinSet::new(),
        listening,
        counters: ShellCounters::default(),
        gate_counters,
        last_timeout: Instant::ZERO,
        turn: 0,
    };
    runtime.spawn(shell.run());
    Ok((Handle { commands: command_sender, intercepted: intercepted_sender, backlog }, indication_receiver))
}

struct Shell {
    node: Node,
    backend: Arc<SystemBackend>,
    clock: Clock,
    limits: Limits,
    udp: UdpSockets,
    raw: RawSockets,
    commands: mpsc::Receiver<Command>,
    intercepted: mpsc::Receiver<Datagram>,
    reports: mpsc::Receiver<Report>,
    progress: Arc<Progress>,
    accepted: mpsc::Receiver<Accepted>,
    indications: mpsc::Sender<Indication>,
    /// Indications for which the channel had no room. At `most_pending` nothing but requests and time is taken in.
    pending: VecDeque<Indication>,
    most_pending: usize,
    backlog: Arc<AtomicBool>,
    associations: BTreeMap<AssociationId, Association>,
    context: Associations,
    tasks: JoinSet<()>,
    listening: JoinSet<()>,
    counters: ShellCounters,
    gate_counters: Arc<GateCounters>,
    last_timeout: Instant,
    turn: usize,
}

/// What woke the shell.
enum Input {
    Command(Command),
    Intercepted(Datagram),
    Report(Report),
    Written,
    Accepted(Box<Accepted>),
    Datagrams,
    Timer,
    IndicationTaken,
    Ended,
}

impl Shell {
    async fn run(mut self) {
        let mut timer = pin!(sleep(Duration::ZERO));
        let stopped = loop {
            self.drain();
            while self.tasks.try_join_next().is_some() {}
            timer.as_mut().reset(self.next_timeout());
            self.turn = self.turn.wrapping_add(1);
            // The application is slow: what peers sent reliably stays with them (G-011).
            let flowing = self.pending.is_empty();
            let room = self.pending.len() < self.most_pending;
            self.node.set_reading(flowing, self.clock.now());
            self.backlog.store(!room, Ordering::Relaxed);
            let input = tokio::select! {
                command = self.commands.recv() => command.map_or(Input::Ended, Input::Command),
                () = self.indications.closed() => Input::Ended,
                place = self.indications.reserve(), if !flowing => match (place, self.pending.pop_front()) {
                    (Ok(place), Some(indication)) => {
                        place.send(indication);
                        Input::IndicationTaken
                    }
                    _ => Input::Ended,
                },
                Some(report) = self.reports.recv(), if flowing => Input::Report(report),
                () = self.progress.news() => Input::Written,
                Some(accepted) = self.accepted.recv(), if flowing => Input::Accepted(Box::new(accepted)),
                Some(datagram) = self.intercepted.recv(), if room => Input::Intercepted(datagram),
                ready = self.udp.readable(), if room => if ready.is_ok() { Input::Datagrams } else { Input::Ended },
                () = &mut timer => Input::Timer,
            };
            match input {
                Input::Command(Command::Stop(done)) => break Some(done),
                Input::Ended => break None,
                Input::Command(command) => {
                    if let Some(done) = self.handle_commands(command) {
                        break Some(done);
                    }
                }
                Input::Report(report) => self.handle_reports(report),
                input => self.handle(input),
            }
        };
        self.stop(stopped).await;
    }

    fn handle(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Intercepted(datagram) => {
                self.counters.intercepted += 1;
                self.node.handle_datagram(datagram, now);
            }
            Input::Written => {
                for (association, bytes) in self.progress.take() {
                    self.node.handle_association(association, AssociationEvent::Written { bytes }, now);
                }
            }
            Input::Accepted(accepted) => self.handle_accepted(*accepted, now),
            Input::Datagrams => self.handle_datagrams(now),
            Input::Timer => {
                self.last_timeout = now;
                self.node.handle_timeout(now);
            }
            Input::IndicationTaken | Input::Command(_) | Input::Report(_) | Input::Ended => {}
        }
    }

    /// This one and those that have come meanwhile, as far as one turn goes; gives whoever wants the shell to stop.
    fn handle_commands(&mut self, first: Command) -> Option<oneshot::Sender<()>> {
        let mut next = first;
        for left in (0..INPUTS_PER_TURN).rev() {
            match next {
                Command::Stop(done) => return Some(done),
                command => self.handle_command(command, self.clock.now()),
            }
            if left == 0 {
                break;
            }
            self.drain();
            next = self.commands.try_recv().ok()?;
        }
        None
    }

    fn handle_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Request(request) => self.node.handle_request(request, now),
            Command::Snapshot { from, most, answer } => {
                // Whoever asked may have lost interest.
                let _ = answer.send(self.snapshot(from, most, now));
            }
            Command::SetAuthorisedPeers(entries) => self.node.set_authorised_peers(entries, now),
            Command::SetLocalAddresses(addresses) => {
                self.backend.forget_routes();
                self.node.set_local_addresses(addresses);
            }
            Command::RoutesChanged(destinations) => {
                self.backend.forget_routes();
                self.node.handle_route_change(&destinations, now);
            }
            Command::Stop(_) => {}
        }
    }

    /// This one and those that have come meanwhile, as far as one turn goes and the application takes what they bring.
    fn handle_reports(&mut self, first: Report) {
        self.handle_report(first, self.clock.now());
        for _ in 1..INPUTS_PER_TURN {
            self.drain();
            if !self.pending.is_empty() {
                return;
            }
            let Ok(report) = self.reports.try_recv() else { return };
            self.handle_report(report, self.clock.now());
        }
    }

    fn handle_datagrams(&mut self, now: Instant) {
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(datagram) = self.udp.receive(self.turn, &mut self.counters) else { return };
            self.node.handle_datagram(datagram, now);
            self.drain();
        }
    }

    fn handle_report(&mut self, report: Report, now: Instant) {
        let Report { association, event } = report;
        match &event {
            AssociationEvent::Failed(_) | AssociationEvent::Closed => {
                if self.associations.remove(&association).is_none() {
                    return;
                }
            }
            event => {
                // The node has closed it meanwhile and wants to hear no more of it.
                let Some(known) = self.associations.get_mut(&association) else { return };
                known.open |= matches!(event, AssociationEvent::Connected { .. } | AssociationEvent::ConnectedUnprotected);
            }
        }
        self.node.handle_association(association, event, now);
    }

    fn handle_accepted(&mut self, accepted: Accepted, now: Instant) {
        let Accepted { stream, event } = accepted;
        let association = self.node.accept_id();
        self.associations.insert(association, self.context.accepted(&mut self.tasks, association, stream));
        self.node.handle_association(association, event, now);
    }

    fn snapshot(&self, from: usize, most: usize, now: Instant) -> Snapshot {
        let shell = ShellCounters {
            writes_stalled: self.progress.stalled(),
            streams_unreadable: self.progress.unreadable(),
            messages_unfinished: self.progress.unfinished(),
            handshakes_refused: self.gate_counters.refused.load(Ordering::Relaxed),
            handshakes_displaced: self.gate_counters.displaced.load(Ordering::Relaxed),
            handshakes_failed: self.gate_counters.failed.load(Ordering::Relaxed),
            ..self.counters
        };
        let (routing_total, associations_total) = self.node.table_lengths();
        Snapshot {
            now,
            routing: self.node.routing_entries(from, most),
            routing_total,
            associations: self.node.association_entries(from, most),
            associations_total,
            counters: *self.node.counters(),
            shell,
        }
    }

    /// When to wake for the node. A time that has passed already is served, but not again and again without a pause.
    fn next_timeout(&self) -> tokio::time::Instant {
        let due = self.node.poll_timeout().unwrap_or(Instant::MAX);
        self.clock.at(due.max(self.last_timeout + SHORTEST_SLEEP))
    }

    async fn stop(mut self, stopped: Option<oneshot::Sender<()>>) {
        self.drain();
        self.listening.abort_all();
        self.reports.close();
        std::mem::take(&mut self.associations).into_values().for_each(Association::close);
        let all_closed = async { while self.tasks.join_next().await.is_some() {} };
        // What has not closed by then is ended when the set of tasks is dropped.
        let _ = timeout(self.limits.close_timeout, all_closed).await;
        drop(self);
        if let Some(stopped) = stopped {
            let _ = stopped.send(());
        }
    }
}

/// Datagrams handled before other inputs get their turn.
const DATAGRAMS_PER_TURN: usize = 32;
/// Requests, or news of associations, handled before other inputs get their turn.
const INPUTS_PER_TURN: usize = 64;
/// Least time between two calls for timers.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
