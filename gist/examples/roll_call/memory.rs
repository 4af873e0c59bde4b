//! Nodes in memory: what surrounds a [`Node`] when there are neither sockets nor a clock. In tests and simulators the whole network is
//! a sorted list of parcels, and a second passes as fast as nothing happens in it.
//!
//! The contract is short. Something happens: one `handle_*`, with the time as its last parameter. Then [`Node::poll_output`] until it has
//! nothing more to say, doing each thing in order. Then nothing, until something happens or it is [`Node::poll_timeout`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gist::api::{AssociationId, Request};
use gist::node::{
    ApdEntry, AssociationEvent, Backend, Datagram, IdentityPattern, Node, NodeConfig, Output, PeerCredentials, PeerRole, Registration,
    Role, Transmit,
};
use gist::time::Instant;
use gist::wire::PeerIdentity;
use gist::wire::datagram::GIST_PORT;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::application::{ROLL_CALL, ROUTER_ALERT, RollCall};

/// From one node to the next.
const DELAY: Duration = Duration::from_millis(2);
const PORT: u16 = 30270;

/// What a node cannot compute by itself.
#[derive(Debug)]
struct Surroundings {
    own_addresses: Vec<IpAddr>,
}

impl Backend for Surroundings {
    fn mac(&self, key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    fn egress_address(&self, destination: IpAddr) -> Option<IpAddr> {
        let on_the_link = self.own_addresses.iter().find(|own| network(**own) == network(destination));
        on_the_link.or(self.own_addresses.first()).copied()
    }
}

/// One node and its application.
struct Member {
    node: Node,
    application: RollCall,
    own_addresses: Vec<IpAddr>,
    credentials: PeerCredentials,
    runs: bool,
}

/// What is on its way to a member.
enum Parcel {
    Datagram(Datagram),
    Association(AssociationId, AssociationEvent),
}

/// Nodes in a row, the first and the last of which are hosts.
pub(crate) struct Network {
    now: Instant,
    members: Vec<Member>,
    /// By the time of arrival, and within that in the order of sending.
    parcels: BTreeMap<(Instant, u64), (usize, Parcel)>,
    sent: u64,
    /// The two ends of each association.
    associations: BTreeMap<(usize, AssociationId), (usize, AssociationId)>,
}

impl Network {
    /// Nodes with names and addresses, each on a link with the next one.
    pub(crate) fn row(nodes: &[(&str, &[IpAddr])]) -> Self {
        let last = nodes.len().saturating_sub(1);
        let members = nodes.iter().enumerate().map(|(number, (name, addresses))| {
            let role = if number == 0 || number == last { Role::Host } else { Role::Router };
            Member::new(name, addresses, role, u8::try_from(number).unwrap_or(u8::MAX))
        });
        let members = members.collect();
        Self { now: Instant::ZERO, members, parcels: BTreeMap::new(), sent: 0, associations: BTreeMap::new() }
    }

    /// What a member's application knows.
    pub(crate) fn application(&self, number: usize) -> Option<&RollCall> {
        self.members.get(number).map(|member| &member.application)
    }

    /// Entries of a member's routing state table.
    pub(crate) fn routing_states(&self, number: usize) -> usize {
        self.members.get(number).map_or(0, |member| member.node.routing_table().len())
    }

    /// A member's application asks its node for something.
    pub(crate) fn ask(&mut self, number: usize, ask: impl FnOnce(&mut RollCall) -> Request) {
        let now = self.now;
        if let Some(member) = self.members.get_mut(number) {
            let request = ask(&mut member.application);
            member.node.handle_request(request, now);
        }
        self.drain(number);
    }

    /// A member stops, without a word: nothing is taken there any more, and what goes to others passes.
    pub(crate) fn stop(&mut self, number: usize) {
        if let Some(member) = self.members.get_mut(number) {
            member.runs = false;
        }
    }

    /// Lets virtual time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let parcel = self.parcels.keys().next().map(|(at, _)| (*at, None));
            let running = self.members.iter().enumerate().filter(|(_, member)| member.runs);
            let timers = running.filter_map(|(number, member)| Some((member.node.poll_timeout()?, Some(number))));
            let Some((at, timer)) = timers.chain(parcel).min_by_key(|(at, _)| *at).filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            match timer {
                Some(number) => self.give(number, |node, now| node.handle_timeout(now)),
                None => self.deliver(),
            }
        }
        self.now = end;
    }

    fn deliver(&mut self) {
        let Some((_, (to, parcel))) = self.parcels.pop_first() else { return };
        self.give(to, |node, now| match parcel {
            Parcel::Datagram(datagram) => node.handle_datagram(datagram, now),
            Parcel::Association(association, event) => node.handle_association(association, event, now),
        });
    }

    /// One input, and all that comes of it.
    fn give(&mut self, number: usize, input: impl FnOnce(&mut Node, Instant)) {
        let now = self.now;
        let Some(member) = self.members.get_mut(number).filter(|member| member.runs) else { return };
        input(&mut member.node, now);
        self.drain(number);
    }

    fn drain(&mut self, number: usize) {
        let now = self.now;
        while let Some(output) = self.members.get_mut(number).and_then(|member| member.node.poll_output()) {
            match output {
                Output::Indicate(indication) => {
                    let Some(member) = self.members.get_mut(number) else { return };
                    for request in member.application.hear(indication) {
                        member.node.handle_request(request, now);
                    }
                }
                Output::Transmit(transmit) => self.transmit(number, transmit),
                Output::Connect { association, remote, .. } => self.connect(number, association, remote),
                Output::SendOnAssociation { association, message } => {
                    // Nothing here is ever full.
                    let written = AssociationEvent::Written { bytes: message.len() };
                    self.post(number, Parcel::Association(association, written));
                    if let Some((to, association)) = self.associations.get(&(number, association)).copied() {
                        self.post(to, Parcel::Association(association, AssociationEvent::Received(message)));
                    }
                }
                Output::CloseAssociation { association } => {
                    if let Some((to, other)) = self.associations.remove(&(number, association)) {
                        self.associations.remove(&(to, other));
                        self.post(to, Parcel::Association(other, AssociationEvent::Closed));
                    }
                }
            }
        }
    }

    fn transmit(&mut self, from: usize, transmit: Transmit) {
        match transmit {
            // To a peer that is known: to its address.
            Transmit::Normal { destination, source, payload } => {
                let Some(to) = self.owner(destination.ip()) else { return };
                let Some(source) = source.or_else(|| self.facing(from, destination.ip())) else { return };
                let (source, destination) = (SocketAddr::new(source, GIST_PORT), destination.ip());
                self.post(to, datagram(source, destination, 64, None, payload));
            }
            // Along the path of the flow: to the next node, which takes it off its way.
            Transmit::QueryMode { source, destination, source_port, ip_ttl, router_alert, payload, .. } => {
                let Some(end) = self.owner(destination) else { return };
                let runs = |to: &usize| *to == end || self.members.get(*to).is_some_and(|member| member.runs);
                let to = if end > from { (from + 1..=end).find(runs) } else { (end..from).rev().find(runs) };
                let Some(to) = to else { return };
                let source = SocketAddr::new(source, source_port);
                let mut packet = datagram(source, destination, ip_ttl, router_alert, payload);
                if let Parcel::Datagram(datagram) = &mut packet {
                    datagram.query_mode = true;
                }
                self.post(to, packet);
            }
        }
    }

    /// What TCP and TLS would do: both ends learn who the other is.
    fn connect(&mut self, from: usize, association: AssociationId, remote: SocketAddr) {
        let source = self.facing(from, remote.ip());
        let own = self.members.get(from).map(|member| member.credentials.clone());
        let other = self.owner(remote.ip()).filter(|_| remote.port() == PORT);
        let accepting = other.and_then(|to| Some((to, self.members.get_mut(to).filter(|member| member.runs)?)));
        let (Some(source), Some(own), Some((to, member))) = (source, own, accepting) else {
            let refused = AssociationEvent::Failed("connection refused".to_owned());
            return self.post(from, Parcel::Association(association, refused));
        };
        let (accepted, theirs) = (member.node.accept_id(), member.credentials.clone());
        self.associations.insert((from, association), (to, accepted));
        self.associations.insert((to, accepted), (from, association));
        let peer_address = SocketAddr::new(source, 49152);
        self.post(to, Parcel::Association(accepted, AssociationEvent::Accepted { peer_address, credentials: own }));
        self.post(from, Parcel::Association(association, AssociationEvent::Connected { credentials: theirs }));
    }

    fn post(&mut self, to: usize, parcel: Parcel) {
        self.sent += 1;
        self.parcels.insert((self.now + DELAY, self.sent), (to, parcel));
    }

    fn owner(&self, address: IpAddr) -> Option<usize> {
        self.members.iter().position(|member| member.own_addresses.contains(&address))
    }

    /// A member's address that faces another one.
    fn facing(&self, number: usize, other: IpAddr) -> Option<IpAddr> {
        let own = &self.members.get(number)?.own_addresses;
        own.iter().find(|own| network(**own) == network(other)).or(own.first()).copied()
    }
}

impl Member {
    fn new(name: &str, own_addresses: &[IpAddr], role: Role, number: u8) -> Self {
        let own_addresses = own_addresses.to_vec();
        // 16 octets that nobody else has; any would do.
        let identity = PeerIdentity::new(vec![number.saturating_add(1); 16]).unwrap_or_else(|| unreachable!("16 octets are not too many"));
        let mut config = NodeConfig::new(identity, role);
        config.registrations = vec![Registration::secure(ROLL_CALL, Some(ROUTER_ALERT))];
        config.association_port = PORT;
        config.local_addresses.clone_from(&own_addresses);
        // Nodes that are on anybody's path must be allowed to be. A real network names its routers here, and hosts apart.
        config.authorised_peers = vec![ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Router, allow: true }];
        let credentials = PeerCredentials {
            dns_names: vec![format!("{name}.example")],
            addresses: own_addresses.clone(),
            key_hash: [number; 32],
            valid_for: None,
            subject: name.to_owned(),
        };
        let backend = Arc::new(Surroundings { own_addresses: own_addresses.clone() });
        // Secret, and new for each start, wherever it matters.
        let seed = [number; 32];
        let application = RollCall::new(name, own_addresses.clone());
        Self { node: Node::new(config, backend, seed), application, own_addresses, credentials, runs: true }
    }
}

fn datagram(source: SocketAddr, destination: IpAddr, ip_ttl: u8, router_alert: Option<u16>, payload: bytes::Bytes) -> Parcel {
    Parcel::Datagram(Datagram { source, destination, ip_ttl: Some(ip_ttl), interface: 1, query_mode: false, router_alert, payload })
}

/// The first three octets of an IPv4 address, the first eight of an IPv6 address.
fn network(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => (address.to_bits() >> 8).into(),
        IpAddr::V6(address) => address.to_bits() >> 64,
    }
}
