//! A small network of nodes in memory with a virtual clock: what the shell and the wires would do.

#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod fork;
pub mod log;
mod members;
mod messages;
pub mod mixed;
mod observed;

use std::cell::Cell;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gist::api::{AssociationId, Indication, NetworkEvent, PeerHandle, ReceivedMessage, Request, RoutingStatus, SendError, SendMessage};
use gist::node::{
    AddressPrefix, ApdEntry, AssociationEvent, Backend, Datagram, IdentityPattern, Node, NodeConfig, Output, PeerCredentials, PeerRole,
    Registration, Role, Transmit,
};
use gist::time::Instant;
use gist::wire::{Message, NslpId, PeerIdentity, datagram};

pub use fork::*;
pub use members::*;
pub use messages::*;

/// One way over one link.
pub const DELAY: Duration = Duration::from_millis(1);

pub const NSLP: NslpId = NslpId(32704);

/// The MTU of the narrow link.
pub const NARROW: u16 = 160;

/// The MTU of the path that something is known about.
pub const KNOWN_PATH_MTU: u16 = 400;

/// Where every node of the world listens for associations.
pub const LISTENING_PORT: u16 = 30270;

/// And where for those over TCP alone.
pub const PLAIN_PORT: u16 = 30271;

/// Mixes well and is no MAC; knows which own address faces which prefix.
#[derive(Debug)]
pub struct WorldBackend {
    routes: Mutex<Vec<(AddressPrefix, IpAddr)>>,
}

impl Backend for WorldBackend {
    fn mac(&self, key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        let mut output = [0; 32];
        for (number, chunk) in output.chunks_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            (number, key, message).hash(&mut hasher);
            chunk.copy_from_slice(&hasher.finish().to_be_bytes());
        }
        output
    }

    fn egress_address(&self, destination: IpAddr) -> Option<IpAddr> {
        self.routes.lock().unwrap().iter().find(|(prefix, _)| prefix.contains(destination)).map(|(_, own)| *own)
    }

    /// 10.0.3.0/24 is nowhere, and 10/8 not on one side of anything.
    fn may_come_from(&self, sources: AddressPrefix, _interface: u32) -> bool {
        let first = "10.0.3.1".parse().unwrap();
        !sources.contains(first)
    }

    /// The link of 10.0.5.0/24 is a narrow one, behind a router.
    fn link_mtu(&self, destination: IpAddr) -> Option<u16> {
        let narrow: AddressPrefix = "10.0.5.0/24".parse().unwrap();
        Some(if self.routes.lock().unwrap().len() > 1 && narrow.contains(destination) { NARROW } else { 1500 })
    }

    /// Something is known about the path to 10.0.4.0/24.
    fn path_mtu(&self, destination: IpAddr) -> Option<u16> {
        let known: AddressPrefix = "10.0.4.0/24".parse().unwrap();
        known.contains(destination).then_some(KNOWN_PATH_MTU)
    }
}

/// What travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    Datagram { from: usize, to: usize, datagram: Datagram },
    Association { from: usize, to: usize, id: AssociationId, event: AssociationEvent },
}

/// What the network does with a parcel.
pub enum Fate {
    Pass,
    Lose,
    Change(Parcel),
    /// It arrives so much later, and others before it.
    Later(Duration),
    /// It arrives, and so much later once more.
    Twice(Duration),
}

type Tap = Box<dyn FnMut(Instant, &Parcel) -> Fate>;

pub struct Member {
    pub node: Node,
    backend: Arc<WorldBackend>,
    pub addresses: Vec<IpAddr>,
    pub credentials: PeerCredentials,
    /// Passes the application's messages on in their direction.
    pub relays: bool,
    /// Whether TCP connections are accepted.
    pub listens: bool,
    pub alive: bool,
    /// Whether nobody takes what it writes.
    pub stalled: bool,
    unwritten: BTreeMap<AssociationId, usize>,
    pub indications: Vec<(Instant, Indication)>,
}

pub struct World {
    pub now: Instant,
    pub members: Vec<Member>,
    /// What was handed in and out, one line each.
    pub trace: Vec<String>,
    /// Every datagram as it left a node.
    pub datagrams: Vec<(Instant, usize, Transmit)>,
    /// Everything that a node did.
    pub outputs: Vec<(Instant, usize, Output)>,
    /// Every message as it left on an association.
    pub on_associations: Vec<(Instant, usize, Message)>,
    pub connects: usize,
    /// How long TLS takes, beyond the way.
    pub connect_delay: Duration,
    /// For taps that shut and open a way.
    pub blackout: Rc<Cell<bool>>,
    tap: Tap,
    parcels: BTreeMap<(Instant, u64), Parcel>,
    sent: u64,
    links: BTreeMap<(usize, AssociationId), (usize, AssociationId)>,
}

impl World {
    pub fn new() -> Self {
        Self {
            now: Instant::from_micros(1_000_000),
            members: Vec::new(),
            trace: Vec::new(),
            datagrams: Vec::new(),
            outputs: Vec::new(),
            on_associations: Vec::new(),
            connects: 0,
            connect_delay: Duration::ZERO,
            blackout: Rc::default(),
            tap: Box::new(|_, _| Fate::Pass),
            parcels: BTreeMap::new(),
            sent: 0,
            links: BTreeMap::new(),
        }
    }

    /// Sender 10.0.1.1, router 10.0.1.254 / 10.0.2.254, receiver 10.0.2.1: each a GIST node of the application.
    pub fn chain() -> Self {
        Self::chain_with(|_, _| {})
    }

    pub fn chain_with(change: impl Fn(usize, &mut NodeConfig)) -> Self {
        let mut world = Self::new();
        let change = &change;
        world.add("sender", Role::Host, &["10.0.1.1"], &[("0.0.0.0/0", "10.0.1.1")], change);
        let facing = [("10.0.1.0/24", "10.0.1.254"), ("0.0.0.0/0", "10.0.2.254")];
        world.add("router", Role::Router, &["10.0.1.254", "10.0.2.254"], &facing, change);
        world.add("receiver", Role::Host, &["10.0.2.1"], &[("0.0.0.0/0", "10.0.2.1")], change);
        world.members[1].relays = true;
        world
    }

    fn add(&mut self, name: &str, role: Role, addresses: &[&str], routes: &[(&str, &str)], change: &impl Fn(usize, &mut NodeConfig)) {
        let number = self.members.len();
        let config = config(number, role, addresses, change);
        let credentials = credentials(name, addresses);
        let routes = routes.iter().map(|(prefix, own)| (prefix.parse().unwrap(), own.parse().unwrap())).collect();
        let addresses = config.local_addresses.clone();
        let backend = Arc::new(WorldBackend { routes: Mutex::new(routes) });
        let node = Node::new(config, Arc::<WorldBackend>::clone(&backend), [number as u8 + 1; 32]);
        let indications = Vec::new();
        let (stalled, unwritten) = (false, BTreeMap::new());
        self.members.push(Member {
            node,
            backend,
            addresses,
            credentials,
            relays: false,
            listens: true,
            alive: true,
            stalled,
            unwritten,
            indications,
        });
    }

    pub fn tap(&mut self, tap: impl FnMut(Instant, &Parcel) -> Fate + 'static) {
        self.tap = Box::new(tap);
    }

    pub fn node(&self, number: usize) -> &Node {
        &self.members[number].node
    }

    /// Hands a request in and lets the node finish.
    pub fn request(&mut self, number: usize, request: Request) {
        self.note(format!("{number} <- {request:?}"));
        let now = self.now;
        self.members[number].node.handle_request(request, now);
        self.drain(number);
    }

    /// What goes to these destinations leaves the node by another address from now on, and nobody says so.
    pub fn leaves_by(&mut self, number: usize, destinations: &str, own: &str) {
        let route = (destinations.parse().unwrap(), own.parse().unwrap());
        self.members[number].backend.routes.lock().unwrap().insert(0, route);
    }

    /// The node's own routes to this destination have changed.
    pub fn route_changes(&mut self, number: usize, destination: IpAddr) {
        self.note(format!("{number} <- another next hop to {destination}"));
        let now = self.now;
        self.members[number].node.handle_route_change(&[destination].into(), now);
        self.drain(number);
    }

    pub fn send(&mut self, number: usize, message: SendMessage) {
        self.request(number, Request::Send(message));
    }

    /// Hands a datagram in as if it had arrived.
    pub fn inject(&mut self, number: usize, datagram: Datagram) {
        self.hand_over(Parcel::Datagram { from: usize::MAX, to: number, datagram });
    }

    /// Hands a message in on an association as if the peer had sent it.
    pub fn inject_on(&mut self, number: usize, id: AssociationId, message: &Message) {
        let event = AssociationEvent::Received(message.to_bytes().unwrap());
        self.hand_over(Parcel::Association { from: usize::MAX, to: number, id, event });
    }

    /// A stranger or friend opens an association to the node.
    pub fn accept(&mut self, number: usize, peer_address: &str, credentials: PeerCredentials) -> AssociationId {
        let id = self.members[number].node.accept_id();
        let event = AssociationEvent::Accepted { peer_address: peer_address.parse().unwrap(), credentials };
        self.hand_over(Parcel::Association { from: usize::MAX, to: number, id, event });
        id
    }

    /// The process dies: its connections break, its datagrams are lost.
    pub fn kill(&mut self, number: usize) {
        self.members[number].alive = false;
        let broken: Vec<_> = self.links.keys().filter(|(owner, _)| *owner == number).copied().collect();
        for (owner, id) in broken {
            let Some((to, other)) = self.unlink(owner, id) else { continue };
            self.post(Parcel::Association { from: owner, to, id: other, event: AssociationEvent::Failed("connection reset".to_owned()) });
        }
    }

    /// The process starts anew, having forgotten everything.
    pub fn restart(&mut self, number: usize, change: impl Fn(usize, &mut NodeConfig)) {
        let fresh = Self::chain_with(change).members.swap_remove(number);
        (self.members[number].node, self.members[number].backend) = (fresh.node, fresh.backend);
        self.members[number].alive = true;
    }

    /// From now on nothing arrives anywhere, nor does what is under way.
    pub fn cut(&mut self) {
        self.parcels.clear();
        self.tap(|_, _| Fate::Lose);
    }

    /// The connection stays open for this node and is gone for the other, without a word.
    pub fn forget_link(&mut self, number: usize, id: AssociationId) {
        self.unlink(number, id);
    }

    /// The node hears that its end of a connection is gone.
    pub fn break_association(&mut self, number: usize, id: AssociationId, reason: &str) {
        self.hand_over(Parcel::Association { from: usize::MAX, to: number, id, event: AssociationEvent::Failed(reason.to_owned()) });
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let parcel = self.parcels.keys().next().map(|(at, _)| *at);
            let timer = self.members.iter().filter(|m| m.alive).filter_map(|m| m.node.poll_timeout()).min();
            let Some(next) = parcel.into_iter().chain(timer).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if parcel.is_some_and(|at| at <= self.now) {
                let (_, parcel) = self.parcels.pop_first().unwrap();
                self.hand_over(parcel);
                continue;
            }
            for number in 0..self.members.len() {
                let due = self.members[number].node.poll_timeout().is_some_and(|at| at <= self.now);
                if due && self.members[number].alive {
                    let now = self.now;
                    self.members[number].node.handle_timeout(now);
                    self.drain(number);
                }
            }
        }
        self.now = end;
    }

    fn hand_over(&mut self, parcel: Parcel) {
        let (Parcel::Datagram { to, .. } | Parcel::Association { to, .. }) = &parcel;
        let to = *to;
        if !self.members[to].alive {
            return;
        }
        self.note(format!("{to} <- {parcel:?}"));
        let now = self.now;
        let node = &mut self.members[to].node;
        match parcel {
            Parcel::Datagram { datagram, .. } => node.handle_datagram(datagram, now),
            Parcel::Association { id, event, .. } => node.handle_association(id, event, now),
        }
        self.drain(to);
    }

    pub fn drain(&mut self, number: usize) {
        let mut relayed = VecDeque::new();
        while let Some(output) = self.members[number].node.poll_output() {
            self.note(format!("{number} -> {output:?}"));
            self.outputs.push((self.now, number, output.clone()));
            match output {
                Output::Transmit(transmit) => self.carry(number, transmit),
                Output::Connect { association, remote, peer_address_for_certificate, .. } => {
                    self.connect(number, association, remote, peer_address_for_certificate.is_some());
                }
                Output::SendOnAssociation { association, message } => {
                    self.write(number, association, message.len());
                    let decoded = Message::decode(message.clone()).expect("nodes write what decodes");
                    assert_ne!(decoded.hop_count, 0, "G-034");
                    self.on_associations.push((self.now, number, decoded));
                    if let Some((to, id)) = self.links.get(&(number, association)).copied() {
                        self.post(Parcel::Association { from: number, to, id, event: AssociationEvent::Received(message) });
                    }
                }
                Output::CloseAssociation { association } => {
                    if let Some((to, id)) = self.unlink(number, association) {
                        self.post(Parcel::Association { from: number, to, id, event: AssociationEvent::Closed });
                    }
                }
                Output::Indicate(indication) => {
                    if let (true, Indication::Received(message)) = (self.members[number].relays, &indication) {
                        relayed.push_back(relay(message));
                    }
                    self.members[number].indications.push((self.now, indication));
                }
            }
        }
        relayed.into_iter().for_each(|message| self.send(number, message));
    }

    /// The shell writes, unless the peer takes nothing.
    fn write(&mut self, number: usize, id: AssociationId, bytes: usize) {
        if self.members[number].stalled {
            *self.members[number].unwritten.entry(id).or_default() += bytes;
        } else {
            let now = self.now;
            self.members[number].node.handle_association(id, AssociationEvent::Written { bytes }, now);
        }
    }

    /// What the node writes from now on is taken by nobody, or again by its peers. Messages that have been handed out cross all
    /// the same.
    pub fn stall(&mut self, number: usize, stalled: bool) {
        self.members[number].stalled = stalled;
        for peer in (0..self.members.len()).filter(|peer| *peer != number) {
            let now = self.now;
            self.members[peer].node.set_reading(!stalled, now);
        }
        if !stalled {
            for (id, bytes) in std::mem::take(&mut self.members[number].unwritten) {
                self.write(number, id, bytes);
                self.drain(number);
            }
        }
    }

    fn connect(&mut self, from: usize, id: AssociationId, remote: SocketAddr, protected: bool) {
        self.connects += 1;
        let Some(to) = self.owner(remote.ip()).filter(|to| self.members[*to].listens && self.members[*to].alive) else {
            let event = AssociationEvent::Failed("connection refused".to_owned());
            return self.post(Parcel::Association { from, to: from, id, event });
        };
        if remote.port() != if protected { LISTENING_PORT } else { PLAIN_PORT } {
            // Nothing listens there, and the packets are dropped in silence.
            return;
        }
        let other = self.members[to].node.accept_id();
        self.links.insert((from, id), (to, other));
        self.links.insert((to, other), (from, id));
        let credentials = |number: usize| self.members[number].credentials.clone();
        let own = &self.members[from].addresses;
        let facing = own.iter().copied().find(|own| same_link(*own, remote.ip())).unwrap_or(own[0]);
        let peer_address = SocketAddr::new(facing, 49152);
        if !protected {
            self.post(Parcel::Association { from, to, id: other, event: AssociationEvent::AcceptedUnprotected { peer_address } });
            return self.post(Parcel::Association { from: to, to: from, id, event: AssociationEvent::ConnectedUnprotected });
        }
        let accepted = AssociationEvent::Accepted { peer_address, credentials: credentials(from) };
        let connected = AssociationEvent::Connected { credentials: credentials(to) };
        self.post(Parcel::Association { from, to, id: other, event: accepted });
        self.post_after(self.connect_delay, Parcel::Association { from: to, to: from, id, event: connected });
    }

    fn unlink(&mut self, number: usize, id: AssociationId) -> Option<(usize, AssociationId)> {
        let other = self.links.remove(&(number, id))?;
        self.links.remove(&other);
        Some(other)
    }

    /// Takes a datagram to whoever gets it: a Query to the next node on the way to its destination.
    fn carry(&mut self, from: usize, transmit: Transmit) {
        self.datagrams.push((self.now, from, transmit.clone()));
        let (datagram, to) = match transmit {
            Transmit::Normal { destination, source, payload } => {
                let Some(to) = self.owner(destination.ip()) else { return };
                let source = SocketAddr::new(source.unwrap_or(self.members[from].addresses[0]), datagram::GIST_PORT);
                (
                    Datagram {
                        source,
                        destination: destination.ip(),
                        ip_ttl: Some(64),
                        interface: 1,
                        query_mode: false,
                        router_alert: None,
                        payload,
                    },
                    to,
                )
            }
            Transmit::QueryMode { source, destination, source_port, ip_ttl, router_alert, payload, .. } => {
                let Some(end) = self.owner(destination) else { return };
                let to = if end > from { from + 1 } else { from - 1 };
                let source = SocketAddr::new(source, source_port);
                (Datagram { source, destination, ip_ttl: Some(ip_ttl), interface: 1, query_mode: true, router_alert, payload }, to)
            }
        };
        let message = datagram::decode(datagram.payload.clone()).expect("nodes write what decodes");
        assert_ne!(message.hop_count, 0, "G-034");
        self.post(Parcel::Datagram { from, to, datagram });
    }

    fn post(&mut self, parcel: Parcel) {
        self.post_after(Duration::ZERO, parcel);
    }

    fn post_after(&mut self, delay: Duration, parcel: Parcel) {
        let arrivals = match (self.tap)(self.now, &parcel) {
            Fate::Pass => vec![(parcel, Duration::ZERO)],
            Fate::Lose => vec![],
            Fate::Change(parcel) => vec![(parcel, Duration::ZERO)],
            Fate::Later(later) => vec![(parcel, later)],
            Fate::Twice(later) => vec![(parcel.clone(), Duration::ZERO), (parcel, later)],
        };
        for (parcel, later) in arrivals {
            self.sent += 1;
            self.parcels.insert((self.now + delay + DELAY + later, self.sent), parcel);
        }
    }

    fn owner(&self, address: IpAddr) -> Option<usize> {
        self.members.iter().position(|member| member.addresses.contains(&address))
    }

    fn note(&mut self, line: String) {
        self.trace.push(format!("{} {line}", self.now));
    }
}
