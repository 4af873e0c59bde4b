//! A line of nodes: sender, routers, receiver. Messages take time and may be lost; the clock moves from event to event.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use gist::api::{Indication, MessageHandle, NetworkEvent, PathId, PeerHandle, Principal, ReceivedMessage, SendError, SendMessage};
use gist::time::Instant;
use gist::wire::{Direction, PeerIdentity, SessionId};
use pbs_nslp::credentials::{Authority, HmacGenerator, Signer};
use pbs_nslp::entropy::Entropy;
use pbs_nslp::flow::FlowId;
use pbs_nslp::output::Output;
use pbs_nslp::receiver::Receiver;
use pbs_nslp::report::{Report, ReportEvent};
use pbs_nslp::router::Router;
use pbs_nslp::sender::Sender;
use pbs_nslp::wire::{self, Message, MessageKind, Permission, Query, Volume};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::datapath::{Datapath, Fate};
use crate::told::is_due;

pub(crate) use crate::setting::*;

/// Which node; the routers lie between.
pub(crate) type Place = usize;
pub(crate) const SENDER: Place = 0;

/// A message between two neighbours.
#[derive(Debug, Clone)]
pub(crate) struct Transit {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) arrives_at: Instant,
    pub(crate) received: ReceivedMessage,
    /// By which way it left.
    pub(crate) path: PathId,
}

impl Transit {
    pub(crate) fn kind(&self) -> MessageKind {
        self.message().kind()
    }

    pub(crate) fn message(&self) -> Message {
        wire::decode(self.received.payload.clone(), self.received.session, NSLP_ID).unwrap()
    }

    pub(crate) fn query(&self) -> Option<Query> {
        if let Message::Query(query) = self.message() { Some(query.message) } else { None }
    }

    pub(crate) fn permission(&self) -> Option<Permission> {
        if let Message::Permission(permission) = self.message() { Some(permission.message) } else { None }
    }
}

type Loss = Box<dyn FnMut(&Transit) -> bool>;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) sender: Sender,
    pub(crate) routers: Vec<Router>,
    pub(crate) receiver: Receiver,
    pub(crate) datapaths: Vec<Datapath>,
    pub(crate) wires: VecDeque<Transit>,
    /// Decides whether a message is lost.
    pub(crate) loses: Loss,
    /// Nodes that answer nothing.
    pub(crate) down: BTreeSet<Place>,
    pub(crate) reports: Vec<(Place, Report)>,
    /// Everything that was ever handed to a neighbour, or lost on the way.
    pub(crate) recorded: Vec<Transit>,
    /// What arrived, for replays.
    pub(crate) delivered: Vec<Transit>,
    pub(crate) trace: Vec<String>,
    /// Whether all messages are those of the nodes themselves; tests that put in others say that they are not.
    pub(crate) stable: bool,
    /// When the path was last not whole: a message was lost, or a node began anew.
    disturbed_at: Option<Instant>,
    /// When Queries of the sender left, by flow and number.
    asked_at: BTreeMap<(FlowId, u32), Instant>,
    /// When the last Query left whose Permission came back.
    answered: BTreeMap<FlowId, Instant>,
    /// How many sessions may wait for a Permission at a router.
    pub(crate) pending: usize,
    pub(crate) authority: Arc<ToyAuthority>,
    /// How long each session's way is wanted, as GIST was told at each node last.
    pub(crate) lifetimes: BTreeMap<(Place, SessionId), Duration>,
    /// Whom a node took for its peer upstream.
    pub(crate) adopted: Vec<(Place, PeerHandle)>,
    /// Who had GIST ask for its peer downstream, in order.
    pub(crate) doubted: Vec<Place>,
    /// What nodes answer the peering question with, in order.
    pub(crate) peering: Vec<(Place, bool)>,
    pub(crate) last_handle: Option<(MessageHandle, SessionId)>,
    /// Whether a packet side has failed to remove something.
    pub(crate) leftovers: bool,
}

impl World {
    pub(crate) fn new(routers: usize) -> Self {
        Self::with_seed(routers, 1)
    }

    pub(crate) fn with_seed(routers: usize, seed: u8) -> Self {
        let authority = Arc::new(ToyAuthority::default());
        let signers = [ToySigner::new(sender_address(), 1) as Arc<dyn Signer>, ToySigner::new(receiver_address(), 2)];
        Self::with_credentials(routers, seed, signers, authority.clone(), authority)
    }

    pub(crate) fn with_credentials(
        routers: usize,
        seed: u8,
        [asking, granting]: [Arc<dyn Signer>; 2],
        trusted: Arc<dyn Authority>,
        authority: Arc<ToyAuthority>,
    ) -> Self {
        crate::coverage::watch();
        let now = Instant::from_micros(1_000_000);
        let datapath = |place: Place| Datapath { is_sender: place == SENDER, ..Datapath::default() };
        Self {
            now,
            sender: Sender::new(sender_config(), asking, trusted.clone(), entropy(seed), START_UNIX, now),
            routers: (0..routers).map(|_| Router::new(router_config(), trusted.clone(), START_UNIX, now)).collect(),
            receiver: Receiver::new(receiver_config(), granting, trusted, entropy(seed.wrapping_add(1)), START_UNIX, now),
            datapaths: (0..routers + 2).map(datapath).collect(),
            wires: VecDeque::new(),
            loses: Box::new(|_| false),
            down: BTreeSet::new(),
            reports: Vec::new(),
            recorded: Vec::new(),
            delivered: Vec::new(),
            trace: Vec::new(),
            stable: true,
            disturbed_at: None,
            asked_at: BTreeMap::new(),
            answered: BTreeMap::new(),
            pending: router_config().pending,
            authority,
            lifetimes: BTreeMap::new(),
            adopted: Vec::new(),
            doubted: Vec::new(),
            peering: Vec::new(),
            last_handle: None,
            leftovers: false,
        }
    }

    /// A world in which the flow has been granted.
    pub(crate) fn granted(routers: usize) -> Self {
        let mut world = Self::new(routers);
        world.want();
        world.run(seconds(1));
        assert_eq!(world.sender_state(), "Permitted", "{:#?}", world.trace);
        world
    }

    pub(crate) fn end(&self) -> Place {
        self.routers.len() + 1
    }

    pub(crate) fn unix(&self) -> u64 {
        START_UNIX + (self.now.micros() - 1_000_000) / 1_000_000
    }

    pub(crate) fn want(&mut self) {
        self.sender.want(flow(), Volume(VOLUME), self.now).unwrap();
        self.settle();
    }

    /// Sends a packet of the application, and gives the last node that counted it.
    pub(crate) fn packet(&mut self, length: u64) -> Option<Place> {
        let fate = self.datapaths[SENDER].send(flow(), length, self.now);
        let reached = match fate {
            Fate::Passed { spi, number } => Some(self.carry(spi, number, length)),
            Fate::Held => None,
        };
        self.settle();
        reached
    }

    /// Lets a packet go down the path from the sender on, and gives the last node that passed it.
    pub(crate) fn carry(&mut self, spi: u32, number: u32, length: u64) -> Place {
        let mut reached = SENDER;
        for place in 1..=self.end() {
            if self.down.contains(&place) || !self.datapaths[place].verify(flow(), spi, number, length, self.now) {
                break;
            }
            reached = place;
        }
        reached
    }

    /// Lets time pass, from one event to the next.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.sender.handle_timeout(self.now);
            self.routers.iter_mut().for_each(|router| router.handle_timeout(self.now));
            self.receiver.handle_timeout(self.now);
            self.settle();
            while let Some(at) = self.wires.iter().position(|transit| transit.arrives_at <= self.now) {
                let transit = self.wires.remove(at).unwrap();
                if !self.down.contains(&transit.to) {
                    self.delivered.push(transit.clone());
                }
                self.deliver(transit);
            }
        }
        self.now = end;
    }

    fn next_event(&self) -> Option<Instant> {
        let timers = [self.sender.poll_timeout(), self.receiver.poll_timeout()];
        let routers = self.routers.iter().map(Router::poll_timeout);
        let wires = self.wires.iter().map(|transit| Some(transit.arrives_at));
        timers.into_iter().chain(routers).chain(wires).flatten().min()
    }

    /// Hands a message to a node at once.
    pub(crate) fn deliver(&mut self, transit: Transit) {
        if self.down.contains(&transit.to) {
            return self.disturb();
        }
        if transit.to == SENDER
            && let Some(Permission { flow, echo: Some(echo), allowed, .. }) = transit.permission()
            && let Some(at) = self.asked_at.get(&(flow, echo)).filter(|_| !allowed.is_zero())
        {
            self.answered.insert(flow, *at);
        }
        let received = Indication::Received(transit.received);
        self.tell(transit.to, received);
        self.settle();
    }

    /// Something is lost, or a node begins anew: whether each node has what the sender has (INV-11) is only certain again when
    /// a Query that leaves from now on is answered.
    pub(crate) fn disturb(&mut self) {
        self.disturbed_at = Some(self.now);
    }

    /// Whether the path of a flow has been whole since its last answer was asked for.
    pub(crate) fn is_whole(&self, flow: &FlowId) -> bool {
        self.stable && self.disturbed_at.is_none_or(|at| self.answered.get(flow).is_some_and(|asked| *asked > at))
    }

    pub(crate) fn tell(&mut self, place: Place, indication: Indication) {
        if place == SENDER {
            self.sender.handle_gist(indication, self.now);
        } else if place == self.end() {
            self.receiver.handle_gist(indication, self.now);
        } else {
            self.routers[place - 1].handle_gist(indication, self.now);
        }
    }

    /// Says at a node that something happened to the way of the flow's messages.
    pub(crate) fn network(&mut self, place: Place, event: NetworkEvent) {
        let session = self.session();
        let mri = flow().to_mri(Direction::Downstream);
        self.tell(
            place,
            Indication::NetworkNotification { nslp_id: NSLP_ID, session, mri, event, former: None, peer: None, authenticated: false },
        );
        self.settle();
    }

    /// Says at the sender that its last Query did not go.
    pub(crate) fn undelivered(&mut self, error: SendError) {
        let (handle, session) = self.last_handle.unwrap();
        let mri = flow().to_mri(Direction::Downstream);
        self.tell(SENDER, Indication::MessageStatus { handle, nslp_id: NSLP_ID, session, mri, error });
        self.settle();
    }

    /// Drains outputs and packet sides until nothing moves, and checks what must always hold.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = false;
            for place in 0..=self.end() {
                while let Some(output) = self.poll(place) {
                    moved = true;
                    self.act(place, output);
                }
                // A node that is down hears what its packet side says when it is up again.
                while !self.down.contains(&place)
                    && let Some(event) = self.datapaths[place].events.pop_front()
                {
                    moved = true;
                    self.answer(place, event);
                }
            }
            if !moved {
                break;
            }
        }
        self.check();
    }

    fn poll(&mut self, place: Place) -> Option<Output> {
        if place == SENDER {
            self.sender.poll_output()
        } else if place == self.end() {
            self.receiver.poll_output()
        } else {
            self.routers[place - 1].poll_output()
        }
    }

    fn answer(&mut self, place: Place, event: pbs_nslp::datapath::Event) {
        if place == SENDER {
            self.sender.handle_datapath(event, self.now);
        } else if place == self.end() {
            self.receiver.handle_datapath(event, self.now);
        } else {
            self.routers[place - 1].handle_datapath(event, self.now);
        }
    }

    fn act(&mut self, place: Place, output: Output) {
        match output {
            Output::Send(message) => self.send(place, message),
            Output::SetStateLifetime { session, lifetime, .. } => drop(self.lifetimes.insert((place, session), lifetime)),
            Output::AdoptPeer { peer, .. } => self.adopted.push((place, peer)),
            Output::SetPeering { willing, .. } => self.peering.push((place, willing)),
            Output::DoubtPeer { mri, .. } => {
                assert_eq!(mri.direction(), Direction::Downstream);
                self.doubted.push(place);
            }
            Output::Datapath(command) => {
                self.trace.push(format!("{} {place} {command:?}", self.now));
                self.datapaths[place].apply(&command, self.now);
            }
            Output::Ask(ask) => self.trace.push(format!("{} {place} {ask:?}", self.now)),
            Output::Report(report) => {
                self.trace.push(format!("{} {place} {report}", self.now));
                self.reports.push((place, report));
            }
        }
    }

    fn send(&mut self, from: Place, message: SendMessage) {
        assert!(message.attributes.reliable && message.attributes.secure, "X-76");
        let to = match message.mri.direction() {
            Direction::Downstream => from + 1,
            Direction::Upstream => from.wrapping_sub(1),
        };
        let transit = Transit { from, to, arrives_at: self.now + LATENCY, received: arriving(from, message.clone()), path: message.path };
        if from == SENDER {
            self.last_handle = Some((message.handle, message.session));
        }
        self.check_departure(&transit);
        self.trace.push(format!("{} {from} -> {to} {:?} {:02x?}", self.now, transit.kind(), &transit.received.payload[..]));
        self.recorded.push(transit.clone());
        if let Some(query) = transit.query().filter(|_| from == SENDER) {
            self.asked_at.insert((query.flow, query.number), self.now);
        }
        if to > self.end() {
        } else if (self.loses)(&transit) {
            self.disturb();
        } else {
            self.wires.push_back(transit);
        }
    }

    /// Kills a router and starts another in its place, with empty tables and no packet side left.
    pub(crate) fn restart_router(&mut self, place: Place) {
        self.disturb();
        self.routers[place - 1] = Router::new(router_config(), self.authority.clone(), self.unix(), self.now);
        self.datapaths[place] = Datapath::default();
        self.wires.retain(|transit| transit.to != place && transit.from != place);
    }

    pub(crate) fn sender_state(&self) -> String {
        self.sender.sessions().first().map_or_else(|| "Idle".to_owned(), |session| session.state.clone())
    }

    pub(crate) fn router_state(&self, place: Place) -> String {
        self.routers[place - 1].sessions().first().map_or_else(|| "Idle".to_owned(), |session| session.state.clone())
    }

    pub(crate) fn receiver_state(&self) -> String {
        self.receiver.sessions().first().map_or_else(|| "Idle".to_owned(), |session| session.state.clone())
    }

    /// The states of all nodes, from the sender on.
    pub(crate) fn states(&self) -> Vec<String> {
        let mut states = vec![self.sender_state()];
        states.extend((1..=self.routers.len()).map(|place| self.router_state(place)));
        states.push(self.receiver_state());
        states
    }

    pub(crate) fn session(&self) -> SessionId {
        self.sender.sessions().first().map_or(SessionId([0; 16]), |session| session.session)
    }

    /// Whether no node permits anything.
    pub(crate) fn is_clean(&self) -> bool {
        let idle = |state: &String| matches!(state.as_str(), "Idle");
        self.states().iter().all(idle) && self.datapaths.iter().all(|datapath| datapath.table.is_empty())
    }

    pub(crate) fn events(&self, place: Place) -> Vec<&ReportEvent> {
        self.reports.iter().filter(|(at, _)| *at == place).map(|(_, report)| &report.event).collect()
    }

    pub(crate) fn saw(&self, place: Place, wanted: impl Fn(&ReportEvent) -> bool) -> bool {
        self.events(place).into_iter().any(wanted)
    }

    /// The end of what happened, without the bytes of messages.
    pub(crate) fn story(&self) -> String {
        let lines = self.trace.iter().rev().take(60).map(|line| line.split(" [").next().unwrap_or_default().to_owned());
        let mut lines: Vec<_> = lines.collect();
        lines.reverse();
        lines.join("\n")
    }

    pub(crate) fn rules(&self, place: Place) -> BTreeSet<&'static str> {
        let counters = if place == SENDER {
            self.sender.counters()
        } else if place == self.end() {
            self.receiver.counters()
        } else {
            self.routers[place - 1].counters()
        };
        counters.rules.keys().copied().collect()
    }

    pub(crate) fn took(&self, place: Place, rules: &[&str]) {
        let taken = self.rules(place);
        for rule in rules {
            assert!(taken.contains(rule), "{rule} not taken at {place}, but {taken:?}\n{}", self.trace.join("\n"));
            let of_rule = || self.reports.iter().filter(|(at, report)| *at == place && report.rule == *rule);
            let is_told = of_rule().any(|(_, report)| is_due(rule, &report.event) == Some(true));
            assert!(is_told || is_due(rule, &ReportEvent::NotActedUpon).is_none(), "nothing said of {rule} at {place}\n{}", self.story());
        }
    }

    /// The messages of a kind that left a node.
    pub(crate) fn sent(&self, from: Place, kind: MessageKind) -> Vec<&Transit> {
        self.recorded.iter().filter(|transit| transit.from == from && transit.kind() == kind).collect()
    }

    /// Everything that decides what happens next, without the clock and the number counters.
    pub(crate) fn permissions(&self) -> Vec<Vec<(FlowId, u32, u64)>> {
        let rows = |datapath: &Datapath| datapath.table.iter().map(|((f, spi), e)| (*f, *spi, e.grant.allowed)).collect();
        self.datapaths.iter().map(rows).collect()
    }
}

/// A message as the neighbour gets it.
pub(crate) fn arriving(from: Place, message: SendMessage) -> ReceivedMessage {
    ReceivedMessage {
        nslp_id: message.nslp_id,
        session: message.session,
        mri: message.mri,
        payload: message.payload,
        association: None,
        peer: peer(from),
        peer_handle: handle(from),
        principal: principal(from),
        tentative: false,
        authenticated: true,
        hop_count: message.hop_count.unwrap_or(64) - 1,
        ip_distance: None,
        reception: Default::default(),
    }
}

/// GIST's name for a neighbour.
pub(crate) fn handle(place: Place) -> PeerHandle {
    PeerHandle([u8::try_from(place).unwrap(); 16])
}

pub(crate) fn peer(place: Place) -> PeerIdentity {
    PeerIdentity::new(Bytes::from(format!("node {place}"))).unwrap()
}

/// The key of a neighbour's certificate, by its place.
pub(crate) fn principal(place: Place) -> Principal {
    let mut key_hash = [0; 32];
    key_hash.iter_mut().zip(format!("node {place}").into_bytes()).for_each(|(byte, letter)| *byte = letter);
    Principal(key_hash)
}

/// What a core draws from.
pub(crate) fn entropy(seed: u8) -> Entropy {
    Entropy::new(Arc::new(HmacGenerator), [seed; 32])
}
