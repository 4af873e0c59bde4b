//! A line of nodes: the host that asks, routers, the host that grants.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use gist::api::{Indication, PeerHandle, Principal, ReceivedMessage, SendMessage};
use gist::time::Instant;
use gist::wire::{Direction, NslpId, PeerIdentity};
use pbs_nslp::credentials::HmacGenerator;
use pbs_nslp::datapath::Event;
use pbs_nslp::entropy::Entropy;
use pbs_nslp::flow::FlowId;
use pbs_nslp::host::{Host, Part};
use pbs_nslp::node::NodeConfig;
use pbs_nslp::output::{Ask, Output};
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Receiver, ReceiverConfig, Terms};
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::{AskRule, Sender, SenderConfig};
use pbs_nslp::status::SessionStatus;
use pbs_nslp::wire::{self, Message, Permission, Query, Volume};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::packets::{Fate, Packets};

pub(crate) const NSLP_ID: NslpId = NslpId(32704);
pub(crate) const START_UNIX: u64 = 1_800_000_000;
pub(crate) const LATENCY: Duration = Duration::from_millis(10);
pub(crate) const T: Duration = Duration::from_secs(5);
/// L = 3.5 T.
pub(crate) const L: Duration = Duration::from_millis(17_500);
pub(crate) const TTL: Duration = Duration::from_secs(600);
/// What the granting host grants.
pub(crate) const VOLUME: u64 = 8 << 20;
/// What extensions may bring it to.
pub(crate) const LIMIT: u64 = 64 << 20;
/// The reverse flow's share of it.
pub(crate) const SHARE: u64 = 1 << 20;
pub(crate) const TCP: u8 = 6;
/// The port that the asking host asks for and the granting host grants.
pub(crate) const PORT: u16 = 80;

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn asking_address() -> IpAddr {
    [192, 0, 2, 1].into()
}

pub(crate) fn granting_address() -> IpAddr {
    [198, 51, 100, 1].into()
}

/// The flow that an application begins.
pub(crate) fn forward() -> FlowId {
    flow_of(TCP)
}

/// Its reverse.
pub(crate) fn reverse() -> FlowId {
    forward().reversed()
}

pub(crate) fn flow_of(protocol: u8) -> FlowId {
    let (from, to) = if protocol == 1 { (0, 0) } else { (5000, PORT) };
    FlowId::new(asking_address(), granting_address(), protocol, from, to).unwrap()
}

/// Which node; the routers lie between.
pub(crate) type Place = usize;
pub(crate) const ASKING: Place = 0;

/// A message between two neighbours.
#[derive(Debug, Clone)]
pub(crate) struct Transit {
    pub(crate) from: Place,
    pub(crate) to: Place,
    pub(crate) left_at: Instant,
    pub(crate) arrives_at: Instant,
    pub(crate) received: ReceivedMessage,
}

impl Transit {
    pub(crate) fn message(&self) -> Message {
        wire::decode(self.received.payload.clone(), self.received.session, NSLP_ID).unwrap()
    }

    pub(crate) fn query(&self) -> Option<Query> {
        if let Message::Query(query) = self.message() { Some(query.message) } else { None }
    }

    pub(crate) fn permission(&self) -> Option<Permission> {
        if let Message::Permission(permission) = self.message() { Some(permission.message) } else { None }
    }

    pub(crate) fn flow(&self) -> FlowId {
        match self.message() {
            Message::Query(query) => query.message.flow,
            Message::Permission(permission) => permission.message.flow,
            Message::Notify(notify) => notify.message.flow,
        }
    }
}

/// A packet that an application got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) at: Instant,
    pub(crate) flow: FlowId,
    pub(crate) length: u64,
}

/// How long a message takes; `None` if it is lost.
type Travel = Box<dyn FnMut(&Transit) -> Option<Duration>>;

pub(crate) struct World {
    pub(crate) now: Instant,
    /// The asking host and the granting one.
    pub(crate) hosts: [Host; 2],
    pub(crate) routers: Vec<Router>,
    pub(crate) packets: BTreeMap<(Place, Part), Packets>,
    pub(crate) wires: VecDeque<Transit>,
    pub(crate) travel: Travel,
    pub(crate) recorded: Vec<Transit>,
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) asked: Vec<Ask>,
    pub(crate) trace: Vec<String>,
    /// Whether the granting host wants the reverse flow for its own sake too, so that it needs no cause.
    pub(crate) both_want: bool,
    restarts: u8,
}

impl World {
    pub(crate) fn new(routers: usize) -> Self {
        let now = Instant::from_micros(1_000_000);
        let end = routers + 1;
        let mut packets = BTreeMap::new();
        for place in 0..=end {
            packets.insert((place, Part::Receiver), Packets::default());
        }
        packets.insert((ASKING, Part::Sender), Packets { asks_for: Some(PORT), ..Packets::default() });
        packets.insert((end, Part::Sender), Packets { asks_for: Some(0), ..Packets::default() });
        Self {
            now,
            hosts: [asking_host(1, START_UNIX, now), granting_host(2, START_UNIX, now)],
            routers: (0..routers).map(|_| router(START_UNIX, now)).collect(),
            packets,
            wires: VecDeque::new(),
            travel: Box::new(|_| Some(LATENCY)),
            recorded: Vec::new(),
            delivered: Vec::new(),
            asked: Vec::new(),
            trace: Vec::new(),
            both_want: false,
            restarts: 2,
        }
    }

    /// A world in which the connection's first packets have been exchanged.
    pub(crate) fn connected(routers: usize) -> Self {
        let mut world = Self::new(routers);
        world.send(forward(), 60);
        world.run(seconds(1));
        world.send(reverse(), 60);
        world.run(seconds(1));
        assert_eq!(world.permitted(), [(1, 1), (1, 1)], "{}", world.story());
        world
    }

    pub(crate) fn end(&self) -> Place {
        self.routers.len() + 1
    }

    pub(crate) fn unix(&self) -> u64 {
        START_UNIX + (self.now.micros() - 1_000_000) / 1_000_000
    }

    pub(crate) fn asking(&mut self) -> &mut Host {
        &mut self.hosts[0]
    }

    /// The granting host wants the reverse flow by itself.
    pub(crate) fn want_reverse(&mut self, volume: u64) {
        self.both_want = true;
        self.hosts[1].want(reverse(), Volume(volume), self.now).unwrap();
        self.settle();
    }

    pub(crate) fn granting(&mut self) -> &mut Host {
        &mut self.hosts[1]
    }

    /// An application sends a packet.
    pub(crate) fn send(&mut self, flow: FlowId, length: u64) -> Fate {
        let from = self.place_of(flow.source);
        let fate = self.packets.get_mut(&(from, Part::Sender)).unwrap().send(flow, length, self.now);
        if let Fate::Sent { spi } = fate {
            self.carry(flow, spi, length);
        }
        self.settle();
        fate
    }

    fn carry(&mut self, flow: FlowId, spi: u32, length: u64) {
        let end = self.end();
        let way: Vec<Place> = if flow.destination == granting_address() { (1..=end).collect() } else { (0..end).rev().collect() };
        for place in way {
            if !self.packets.get_mut(&(place, Part::Receiver)).unwrap().verify(flow, spi, length, self.now) {
                return;
            }
        }
        self.trace.push(format!("{} delivered {length} of {flow}", self.now));
        self.delivered.push(Delivered { at: self.now, flow, length });
    }

    pub(crate) fn place_of(&self, address: IpAddr) -> Place {
        if address == asking_address() { ASKING } else { self.end() }
    }

    /// Lets time pass, from one event to the next.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        while let Some(next) = self.next_event().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.hosts.iter_mut().for_each(|host| host.handle_timeout(self.now));
            self.routers.iter_mut().for_each(|router| router.handle_timeout(self.now));
            self.settle();
            while let Some(at) = self.wires.iter().position(|transit| transit.arrives_at <= self.now) {
                let transit = self.wires.remove(at).unwrap();
                self.deliver(transit);
            }
        }
        self.now = end;
    }

    /// Lets time pass until a packet of a flow has arrived.
    pub(crate) fn run_until_got(&mut self, flow: FlowId) {
        let end = self.now + seconds(10);
        while self.got(flow) == 0 {
            assert!(self.now < end, "no packet of {flow}\n{}", self.story());
            self.run(Duration::from_millis(1));
        }
    }

    fn next_event(&self) -> Option<Instant> {
        let hosts = self.hosts.iter().map(Host::poll_timeout);
        let routers = self.routers.iter().map(Router::poll_timeout);
        let wires = self.wires.iter().map(|transit| Some(transit.arrives_at));
        hosts.chain(routers).chain(wires).flatten().min()
    }

    pub(crate) fn deliver(&mut self, transit: Transit) {
        let received = Indication::Received(transit.received);
        if transit.to == ASKING {
            self.hosts[0].handle_gist(received, self.now);
        } else if transit.to == self.end() {
            self.hosts[1].handle_gist(received, self.now);
        } else {
            self.routers[transit.to - 1].handle_gist(received, self.now);
        }
        self.settle();
    }

    /// Drains outputs and packet sides until nothing moves, and checks what must always hold.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = false;
            for place in 0..=self.end() {
                while let Some((part, output)) = self.poll(place) {
                    moved = true;
                    self.act(place, part, output);
                }
                for part in [Part::Sender, Part::Receiver] {
                    while let Some(event) = self.packets.get_mut(&(place, part)).and_then(|packets| packets.events.pop_front()) {
                        moved = true;
                        self.answer(place, part, event);
                    }
                }
            }
            if !moved {
                break;
            }
        }
        self.check();
    }

    fn poll(&mut self, place: Place) -> Option<(Part, Output)> {
        if place == ASKING {
            self.hosts[0].poll_output()
        } else if place == self.end() {
            self.hosts[1].poll_output()
        } else {
            self.routers[place - 1].poll_output().map(|output| (Part::Receiver, output))
        }
    }

    fn answer(&mut self, place: Place, part: Part, event: Event) {
        if place == ASKING {
            self.hosts[0].handle_datapath(part, event, self.now);
        } else if place == self.end() {
            self.hosts[1].handle_datapath(part, event, self.now);
        } else {
            self.routers[place - 1].handle_datapath(event, self.now);
        }
    }

    fn act(&mut self, place: Place, part: Part, output: Output) {
        match output {
            Output::Send(message) => self.transmit(place, message),
            Output::SetStateLifetime { .. } | Output::AdoptPeer { .. } | Output::DoubtPeer { .. } | Output::SetPeering { .. } => {}
            Output::Datapath(command) => {
                self.trace.push(format!("{} {place} {part:?} {command:?}", self.now));
                let released = self.packets.get_mut(&(place, part)).unwrap().apply(&command, self.now);
                for (flow, length) in released {
                    let packets = self.packets.get_mut(&(place, part)).unwrap();
                    if let Fate::Sent { spi } = packets.send(flow, length, self.now) {
                        self.carry(flow, spi, length);
                    }
                }
            }
            Output::Ask(ask) => self.asked.push(ask),
            Output::Report(report) => self.trace.push(format!("{} {place} {report}", self.now)),
        }
    }

    fn transmit(&mut self, from: Place, message: SendMessage) {
        let flow = FlowId::from_mri(&message.mri).unwrap();
        let to_the_right = (flow.destination == granting_address()) == (message.mri.direction() == Direction::Downstream);
        let to = if to_the_right { from + 1 } else { from.wrapping_sub(1) };
        assert!(to <= self.end(), "{from} sends {message:?} out of the world");
        let received = arriving(from, message);
        let mut transit = Transit { from, to, left_at: self.now, arrives_at: self.now, received };
        self.trace.push(format!("{} {from} -> {to} {}: {:?}", self.now, flow, transit.message().kind()));
        self.recorded.push(transit.clone());
        if let Some(travel) = (self.travel)(&transit) {
            transit.arrives_at = self.now + travel;
            self.wires.push_back(transit);
        }
    }

    /// Kills a host and starts another in its place, which knows nothing; its packet side is new as well.
    pub(crate) fn restart(&mut self, place: Place) {
        self.restarts += 1;
        let unix = self.unix();
        if place == ASKING {
            self.hosts[0] = asking_host(self.restarts, unix, self.now);
        } else {
            self.hosts[1] = granting_host(self.restarts, unix, self.now);
        }
        for part in [Part::Sender, Part::Receiver] {
            let packets = self.packets.get_mut(&(place, part)).unwrap();
            *packets = Packets { asks_for: packets.asks_for, ..Packets::default() };
        }
        self.trace.push(format!("{} {place} restarts", self.now));
    }

    /// How many permissions the asking and the granting host have, each as (to send, to be sent to).
    pub(crate) fn permitted(&self) -> [(usize, usize); 2] {
        let count = |sessions: Vec<SessionStatus>| {
            sessions.iter().filter(|session| session.permission.is_some()).map(|session| session.flow).collect::<BTreeSet<_>>().len()
        };
        self.hosts.each_ref().map(|host| (count(host.sender().sessions()), count(host.receiver().sessions())))
    }

    /// Whether no node knows of any flow.
    pub(crate) fn is_clean(&self) -> bool {
        let none = |sessions: Vec<SessionStatus>| sessions.is_empty();
        self.hosts.iter().all(|host| none(host.sender().sessions()) && none(host.receiver().sessions()))
            && self.routers.iter().all(|router| none(router.sessions()))
            && self.packets.values().all(Packets::is_empty)
    }

    /// The rules that the asking and the granting host have taken, as (sender, receiver).
    pub(crate) fn rules(&self, host: usize) -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
        let host = &self.hosts[host];
        let keys = |rules: &BTreeMap<&'static str, u64>| rules.keys().copied().collect();
        (keys(&host.sender().counters().rules), keys(&host.receiver().counters().rules))
    }

    pub(crate) fn took(&self, host: usize, part: Part, rules: &[&str]) {
        let (sender, receiver) = self.rules(host);
        let taken = if part == Part::Sender { sender } else { receiver };
        for rule in rules {
            assert!(taken.contains(rule), "{rule} not taken, but {taken:?}\n{}", self.story());
        }
    }

    /// The Queries about a flow that left its source.
    pub(crate) fn queries(&self, flow: FlowId) -> Vec<&Transit> {
        let from = self.place_of(flow.source);
        self.recorded.iter().filter(|t| t.from == from && t.query().is_some_and(|query| query.flow == flow)).collect()
    }

    /// The Permissions about a flow that left its destination.
    pub(crate) fn permissions(&self, flow: FlowId) -> Vec<&Transit> {
        let from = self.place_of(flow.destination);
        self.recorded.iter().filter(|t| t.from == from && t.permission().is_some_and(|p| p.flow == flow)).collect()
    }

    /// What is allowed for a flow where it arrives.
    pub(crate) fn allowed(&self, flow: FlowId) -> Option<u64> {
        let host = if flow.destination == asking_address() { 0 } else { 1 };
        let sessions = self.hosts[host].receiver().sessions();
        let session = sessions.iter().find(|session| session.flow == flow && session.permission.is_some())?;
        session.permission.as_ref().map(|permission| permission.allowed.0)
    }

    /// Octets of a flow that arrived.
    pub(crate) fn octets(&self, flow: FlowId) -> u64 {
        self.delivered.iter().filter(|delivered| delivered.flow == flow).map(|delivered| delivered.length).sum()
    }

    pub(crate) fn got(&self, flow: FlowId) -> u64 {
        self.delivered.iter().filter(|delivered| delivered.flow == flow).count() as u64
    }

    pub(crate) fn story(&self) -> String {
        self.trace.join("\n")
    }
}

fn arriving(from: Place, message: SendMessage) -> ReceivedMessage {
    ReceivedMessage {
        nslp_id: message.nslp_id,
        session: message.session,
        mri: message.mri,
        payload: message.payload,
        association: None,
        peer: PeerIdentity::new(Bytes::from(format!("node {from}"))).unwrap(),
        peer_handle: PeerHandle([u8::try_from(from).unwrap(); 16]),
        principal: principal(from),
        tentative: false,
        authenticated: true,
        hop_count: message.hop_count.unwrap_or(64) - 1,
        ip_distance: None,
        reception: Default::default(),
    }
}

/// The key of a neighbour's certificate, by its place.
fn principal(place: Place) -> Principal {
    let mut key_hash = [0; 32];
    key_hash.iter_mut().zip(format!("node {place}").into_bytes()).for_each(|(byte, letter)| *byte = letter);
    Principal(key_hash)
}

fn router(unix: u64, now: Instant) -> Router {
    let config = RouterConfig::new(NodeConfig::new(NSLP_ID, [203, 0, 113, 1].into()));
    Router::new(config, Arc::new(ToyAuthority::default()), unix, now)
}

/// Asks for the port, and grants nothing by any rule.
fn asking_host(seed: u8, unix: u64, now: Instant) -> Host {
    let selector = Selector { destination_ports: Some(PORT..=PORT), ..Selector::default() };
    let ask = AskRule { selector, volume: Volume(VOLUME), signed: false, mac: None };
    host(asking_address(), vec![ask], GrantPolicy::default(), seed, unix, now)
}

/// Grants the port, and asks for nothing by any rule.
fn granting_host(seed: u8, unix: u64, now: Instant) -> Host {
    let selector = Selector { destination: None, destination_ports: Some(PORT..=PORT), ..Selector::default() };
    let terms = Terms { volume: Volume(VOLUME), limit: Volume(LIMIT), ttl: TTL, refresh: T };
    let policy = GrantPolicy { rules: vec![GrantRule { selector, terms, signed: false, mac: None }], ask: false };
    host(granting_address(), Vec::new(), policy, seed, unix, now)
}

pub(crate) fn host(address: IpAddr, ask: Vec<AskRule>, grant: GrantPolicy, seed: u8, unix: u64, now: Instant) -> Host {
    let node = NodeConfig::new(NSLP_ID, address);
    let key = if address == asking_address() { 1 } else { 2 };
    let (signer, authority) = (ToySigner::new(address, key), Arc::new(ToyAuthority::default()));
    let sender = SenderConfig::new(node.clone(), vec![address], ask);
    let sender = Sender::new(sender, signer.clone(), authority.clone(), entropy(seed), unix, now);
    let receiver = ReceiverConfig::new(node, vec![address], grant);
    let receiver = Receiver::new(receiver, signer, authority, entropy(seed ^ 0x80), unix, now);
    Host::new(sender, receiver)
}

fn entropy(seed: u8) -> Entropy {
    Entropy::new(Arc::new(HmacGenerator), [seed; 32])
}
