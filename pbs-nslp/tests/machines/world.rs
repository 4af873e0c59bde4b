//! A line of nodes: sender, routers, receiver. Messages take time and may be lost; the clock moves from event to event.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use gist::api::{Indication, MessageHandle, NetworkEvent, Principal, ReceivedMessage, SendError, SendMessage};
use gist::time::Instant;
use gist::wire::{Direction, NslpId, PeerIdentity, SessionId};
use pbs_nslp::credentials::{Authority, Signer};
use pbs_nslp::flow::FlowId;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::output::Output;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Receiver, ReceiverConfig, Terms};
use pbs_nslp::report::{Report, ReportEvent};
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::{AskRule, Sender, SenderConfig};
use pbs_nslp::wire::{self, Message, MessageKind, Permission, Query, Volume};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::datapath::{Datapath, Fate};

pub(crate) const NSLP_ID: NslpId = NslpId(32704);
pub(crate) const START_UNIX: u64 = 1_800_000_000;
pub(crate) const LATENCY: Duration = Duration::from_millis(10);
pub(crate) const T: Duration = Duration::from_secs(5);
/// L = 3.5 T.
pub(crate) const L: Duration = Duration::from_millis(17_500);
pub(crate) const VOLUME: u64 = 10_000;
pub(crate) const LIMIT: u64 = 30_000;
pub(crate) const TTL: Duration = Duration::from_secs(600);

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn sender_address() -> IpAddr {
    [192, 0, 2, 1].into()
}

pub(crate) fn receiver_address() -> IpAddr {
    [198, 51, 100, 1].into()
}

pub(crate) fn flow() -> FlowId {
    flow_to(9000)
}

pub(crate) fn flow_to(port: u16) -> FlowId {
    FlowId::new(sender_address(), receiver_address(), 17, 5000, port).unwrap()
}

pub(crate) fn terms() -> Terms {
    Terms { volume: Volume(VOLUME), limit: Volume(LIMIT), ttl: TTL, refresh: T }
}

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
    /// Whether the path has been whole since the start, so that INV-11 holds from end to end.
    pub(crate) stable: bool,
    pub(crate) authority: Arc<ToyAuthority>,
    pub(crate) lifetimes: Vec<(Place, Duration)>,
    pub(crate) last_handle: Option<(MessageHandle, SessionId)>,
    /// Whether the receiver has lowered an allowed volume.
    pub(crate) lowered: bool,
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
        let now = Instant::from_micros(1_000_000);
        let datapath = |place: Place| Datapath { is_sender: place == SENDER, ..Datapath::default() };
        Self {
            now,
            sender: Sender::new(sender_config(), asking, trusted.clone(), [seed; 32], START_UNIX, now),
            routers: (0..routers).map(|_| Router::new(router_config(), trusted.clone(), START_UNIX, now)).collect(),
            receiver: Receiver::new(receiver_config(), granting, trusted, [seed.wrapping_add(1); 32], START_UNIX, now),
            datapaths: (0..routers + 2).map(datapath).collect(),
            wires: VecDeque::new(),
            loses: Box::new(|_| false),
            down: BTreeSet::new(),
            reports: Vec::new(),
            recorded: Vec::new(),
            delivered: Vec::new(),
            trace: Vec::new(),
            stable: true,
            authority,
            lifetimes: Vec::new(),
            last_handle: None,
            lowered: false,
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
        self.stable &= !self.down.contains(&transit.to);
        if !self.down.contains(&transit.to) {
            let received = Indication::Received(transit.received);
            self.tell(transit.to, received);
            self.settle();
        }
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
        self.tell(place, Indication::NetworkNotification { nslp_id: NSLP_ID, session, mri, event });
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
                while let Some(event) = self.datapaths[place].events.pop_front() {
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
        if self.down.contains(&place) {
        } else if place == SENDER {
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
            Output::SetStateLifetime { lifetime, .. } => self.lifetimes.push((place, lifetime)),
            Output::Datapath(command) => {
                self.trace.push(format!("{} {place} {command:?}", self.now));
                self.datapaths[place].apply(&command);
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
        let transit = Transit { from, to, arrives_at: self.now + LATENCY, received: arriving(from, message.clone()) };
        if from == SENDER {
            self.last_handle = Some((message.handle, message.session));
        }
        self.check_departure(&transit);
        self.trace.push(format!("{} {from} -> {to} {:?} {:02x?}", self.now, transit.kind(), &transit.received.payload[..]));
        self.recorded.push(transit.clone());
        if to > self.end() {
        } else if (self.loses)(&transit) {
            self.stable = false;
        } else {
            self.wires.push_back(transit);
        }
    }

    /// Kills a router and starts another in its place, with empty tables and no packet side left.
    pub(crate) fn restart_router(&mut self, place: Place) {
        self.stable = false;
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
        principal: principal(from),
        authenticated: true,
        hop_count: message.hop_count.unwrap_or(64) - 1,
        ip_distance: None,
    }
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

pub(crate) fn node_config(address: IpAddr) -> NodeConfig {
    NodeConfig::new(NSLP_ID, address)
}

pub(crate) fn sender_config() -> SenderConfig {
    let rule = AskRule { selector: Selector { protocol: Some(17), ..Selector::default() }, volume: Volume(VOLUME) };
    SenderConfig::new(node_config(sender_address()), vec![sender_address()], vec![rule])
}

pub(crate) fn router_config() -> RouterConfig {
    RouterConfig::new(node_config([203, 0, 113, 1].into()))
}

pub(crate) fn receiver_config() -> ReceiverConfig {
    let selector = Selector { destination_ports: Some(9000..=9099), ..Selector::default() };
    let policy = GrantPolicy { rules: vec![GrantRule { selector, terms: terms() }], ask: false };
    ReceiverConfig::new(node_config(receiver_address()), vec![receiver_address()], policy)
}
