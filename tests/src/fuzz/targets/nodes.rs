//! Nodes in each state that a handshake, messages, refreshes and losses lead to, as inputs find them.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use gist::api::{
    AssociationId, Carriage, Indication, MessageHandle, PathId, Request, Routing, RoutingStatus, SendMessage, TransferAttributes,
};
use gist::node::{
    ApdEntry, AssociationEvent, Backend, Datagram, IdentityPattern, Installation, Node, NodeConfig, Output, PeerCredentials, PeerRole,
    Registration, Role, Transmit,
};
use gist::time::Instant;
use gist::wire::datagram::GIST_PORT;
use gist::wire::{Direction, Mri, NslpId, PathCoupled, PeerIdentity, Profile, SessionId};
use ring::hmac;

/// The application of every node here.
pub(super) const APPLICATION: u16 = 32704;
/// Asker and answerer, and a host that has no part in anything.
pub(super) const ADDRESSES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1))];
pub(super) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 66));

/// One way over the link.
const DELAY: Duration = Duration::from_millis(1);
/// Long enough for refreshes and MA-Hellos.
const PLAYED: Duration = Duration::from_secs(40);
pub(super) const SESSION: SessionId = SessionId([7; 16]);
const TLS_PORT: u16 = 30270;
const PLAIN_PORT: u16 = 30271;
/// What a single input may have a node do, whatever it is: more would be a flood.
const MOST_OUTPUTS: usize = 24;

/// A node at the moment in which it gets something.
#[derive(Debug)]
pub(super) struct Setting {
    /// 0 is the asker.
    pub(super) number: usize,
    pub(super) node: Node,
    pub(super) now: Instant,
    pub(super) input: Input,
}

/// What it gets.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Datagram(Datagram),
    Association(AssociationId, AssociationEvent),
}

/// Every setting, in the order in which they come about.
pub(super) static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let [tls, tcp] = [Profile::tls_over_tcp(), Profile::tcp()];
    let [on_confirm, on_query, without] = [Installation::OnConfirm, Installation::OnQuery, Installation::WithoutConfirm];
    let both = vec![tls.clone(), tcp.clone()];
    let datagrams = [on_query, without, on_confirm].map(|installation| (Vec::new(), installation));
    let others = [vec![tls], vec![tcp], both].map(|offer| (offer, on_confirm));
    datagrams.into_iter().chain(others).flat_map(|(offer, installation)| Pair::new(&offer, installation).play()).collect()
});

/// The setting that an octet names.
pub(super) fn setting(number: u8) -> &'static Setting {
    let all = &*SETTINGS;
    // There are always some.
    all.get(usize::from(number) % all.len().max(1)).unwrap_or_else(|| unreachable!("no setting"))
}

/// Gives a request to a node that knows a peer; how much came of it. A payload of so many octets is no reason for more.
pub(super) fn ask(request: Request, octets: usize) -> usize {
    let Some(setting) = SETTINGS.last() else { return 0 };
    let mut node = setting.node.clone();
    node.handle_request(request, setting.now);
    let outputs = drained(&mut node);
    let sent: usize = outputs.iter().map(length).sum();
    assert!(sent <= 2 * octets + 2048, "{sent} octets for a line of {octets}");
    outputs.len()
}

/// Everything that a node wants done, which is not too much.
pub(super) fn drained(node: &mut Node) -> Vec<Output> {
    let outputs: Vec<Output> = std::iter::from_fn(|| node.poll_output()).take(MOST_OUTPUTS + 1).collect();
    assert!(outputs.len() <= MOST_OUTPUTS, "no end of {outputs:?}");
    outputs
}

/// Octets that go out.
pub(super) fn length(output: &Output) -> usize {
    match output {
        Output::Transmit(Transmit::Normal { payload, .. } | Transmit::QueryMode { payload, .. }) => payload.len(),
        Output::SendOnAssociation { message, .. } => message.len(),
        Output::Connect { .. } | Output::CloseAssociation { .. } | Output::Indicate(_) => 0,
    }
}

#[derive(Debug)]
struct Real;

impl Backend for Real {
    fn mac(&self, key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
        tag.as_ref().try_into().unwrap_or_default()
    }

    fn egress_address(&self, destination: IpAddr) -> Option<IpAddr> {
        // What goes to the one is the other's.
        let [asker, answerer] = ADDRESSES;
        Some(if destination == answerer { asker } else { answerer })
    }
}

/// An asker and an answerer.
struct Pair {
    nodes: [Node; 2],
    now: Instant,
    /// When, to whom, what.
    under_way: VecDeque<(Instant, usize, Input)>,
    /// The other end's name for each association.
    names: Vec<[AssociationId; 2]>,
    secure: bool,
    /// Over TLS or over TCP alone, as each message asks.
    mixed: bool,
    settings: Vec<Setting>,
    answers: u64,
}

impl Pair {
    fn new(offer: &[Profile], installation: Installation) -> Self {
        let nodes = [0, 1].map(|number| node(number, offer, installation));
        let secure = offer.contains(&Profile::tls_over_tcp());
        let now = Instant::from_micros(1_000_000);
        let mixed = offer.len() > 1;
        Self { nodes, now, mixed, under_way: VecDeque::new(), names: Vec::new(), secure, settings: Vec::new(), answers: 0 }
    }

    /// A message there, one back, refreshes, a doubt, and the end.
    fn play(mut self) -> Vec<Setting> {
        self.request(0, send(false, self.secure));
        if self.mixed {
            self.request(0, send(false, false));
        }
        self.go_on(Duration::from_secs(2));
        self.request(1, send(true, self.secure));
        let lasting = Request::SetStateLifetime {
            nslp_id: NslpId(APPLICATION),
            session: SESSION,
            mri: flow(Direction::Downstream),
            lifetime: Duration::from_secs(3600),
        };
        self.request(0, lasting);
        self.go_on(PLAYED);
        let (status, urgent) = (RoutingStatus::Tentative, true);
        let (session, mri) = (SESSION, flow(Direction::Downstream));
        self.request(0, Request::InvalidateRoutingState { nslp_id: NslpId(APPLICATION), session, mri, status, urgent });
        self.go_on(Duration::from_secs(1));
        self.settings
    }

    fn request(&mut self, number: usize, request: Request) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(number) {
            node.handle_request(request, now);
        }
        self.drain(number);
    }

    fn go_on(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let parcel = self.under_way.front().map(|(at, ..)| *at);
            let timer = self.nodes.iter().filter_map(Node::poll_timeout).min();
            let Some(next) = parcel.into_iter().chain(timer).min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if parcel.is_some_and(|at| at <= self.now) {
                if let Some((_, to, input)) = self.under_way.pop_front() {
                    self.give(to, input);
                }
                continue;
            }
            for number in 0..self.nodes.len() {
                let now = self.now;
                if let Some(node) = self.nodes.get_mut(number) {
                    node.handle_timeout(now);
                }
                self.drain(number);
            }
        }
        self.now = end;
    }

    fn give(&mut self, to: usize, input: Input) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(to) else { return };
        // What has been written is no news to anybody but the one who counts it.
        if !matches!(input, Input::Association(_, AssociationEvent::Written { .. })) {
            self.settings.push(Setting { number: to, node: node.clone(), now, input: input.clone() });
        }
        match input {
            Input::Datagram(datagram) => node.handle_datagram(datagram, now),
            Input::Association(association, event) => node.handle_association(association, event, now),
        }
        self.drain(to);
    }

    fn drain(&mut self, number: usize) {
        while let Some(output) = self.nodes.get_mut(number).and_then(Node::poll_output) {
            let other = 1 - number;
            match output {
                Output::Transmit(transmit) => {
                    let input = Input::Datagram(arriving(number, transmit));
                    self.post(other, input);
                }
                Output::Connect { association, peer_address_for_certificate, .. } => {
                    self.connect(number, association, peer_address_for_certificate.is_some());
                }
                Output::SendOnAssociation { association, message } => {
                    let written = AssociationEvent::Written { bytes: message.len() };
                    self.post(number, Input::Association(association, written));
                    if let Some(theirs) = self.name(number, association) {
                        self.post(other, Input::Association(theirs, AssociationEvent::Received(message)));
                    }
                }
                Output::CloseAssociation { association } => {
                    if let Some(theirs) = self.name(number, association) {
                        self.post(other, Input::Association(theirs, AssociationEvent::Closed));
                    }
                }
                Output::Indicate(Indication::Received(_)) => self.answers += 1,
                Output::Indicate(_) => {}
            }
        }
    }

    fn connect(&mut self, number: usize, association: AssociationId, protected: bool) {
        let other = 1 - number;
        let Some(accepted) = self.nodes.get_mut(other).map(Node::accept_id) else { return };
        self.names.push(if number == 0 { [association, accepted] } else { [accepted, association] });
        let peer_address = SocketAddr::new(address(number), 49152);
        let (there, here) = if protected {
            let accepted = AssociationEvent::Accepted { peer_address, credentials: credentials(number) };
            (accepted, AssociationEvent::Connected { credentials: credentials(other) })
        } else {
            (AssociationEvent::AcceptedUnprotected { peer_address }, AssociationEvent::ConnectedUnprotected)
        };
        self.post(other, Input::Association(accepted, there));
        self.post(number, Input::Association(association, here));
    }

    fn post(&mut self, to: usize, input: Input) {
        self.under_way.push_back((self.now + DELAY, to, input));
    }

    fn name(&self, number: usize, association: AssociationId) -> Option<AssociationId> {
        self.names.iter().rev().find_map(|[asker, answerer]| match number {
            0 => (*asker == association).then_some(*answerer),
            _ => (*answerer == association).then_some(*asker),
        })
    }
}

/// A short message along the flow.
pub(super) fn send(upstream: bool, secure: bool) -> Request {
    let (direction, payload) = if upstream { (Direction::Upstream, b"yes.") } else { (Direction::Downstream, b"ask.") };
    Request::Send(SendMessage {
        nslp_id: NslpId(APPLICATION),
        session: SESSION,
        mri: flow(direction),
        payload: Bytes::from_static(payload),
        attributes: TransferAttributes { reliable: false, secure },
        handle: MessageHandle(1),
        timeout: None,
        hop_count: None,
        on_behalf_of: None,
        path: PathId::ROUTED,
        routing: Routing::State,
        carriage: Carriage::Any,
    })
}

fn arriving(from: usize, transmit: Transmit) -> Datagram {
    let (source, destination, query_mode, payload) = match transmit {
        Transmit::Normal { destination, source, payload } => {
            (SocketAddr::new(source.unwrap_or(address(from)), GIST_PORT), destination.ip(), false, payload)
        }
        Transmit::QueryMode { source, source_port, destination, payload, .. } => {
            (SocketAddr::new(source, source_port), destination, true, payload)
        }
    };
    Datagram { source, destination, ip_ttl: Some(64), interface: 1, query_mode, router_alert: None, payload }
}

fn address(number: usize) -> IpAddr {
    let [asker, answerer] = ADDRESSES;
    if number == 0 { asker } else { answerer }
}

fn node(number: usize, offer: &[Profile], installation: Installation) -> Node {
    let Some(identity) = PeerIdentity::new(vec![number as u8 + 1; 8]) else { unreachable!("eight octets are no too many") };
    // The answerer forwards for others as well, so that what passes by is looked at too.
    let mut config = NodeConfig::new(identity, if number == 0 { Role::Host } else { Role::Router });
    let secure = Registration::secure(NslpId(APPLICATION), Some(65503));
    config.registrations = vec![Registration { offer: offer.to_vec(), unvalidated_data: true, installation, ..secure }];
    config.association_port = TLS_PORT;
    config.plain_association_port = PLAIN_PORT;
    config.local_addresses = vec![address(number)];
    config.authorised_peers = vec![ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Router, allow: true }];
    Node::new(config, Arc::new(Real), [number as u8 + 1; 32])
}

pub(super) fn credentials(number: usize) -> PeerCredentials {
    PeerCredentials {
        dns_names: vec![format!("node{number}.pbs.test")],
        addresses: vec![address(number)],
        key_hash: [number as u8 + 1; 32],
        valid_for: None,
        subject: format!("node{number}"),
    }
}

pub(super) fn flow(direction: Direction) -> Mri {
    let [source, destination] = ADDRESSES;
    Mri::PathCoupled(PathCoupled {
        direction,
        source,
        destination,
        source_prefix: 32,
        destination_prefix: 32,
        protocol: Some(17),
        ds_field: None,
        flow_label: None,
        spi: None,
        source_port: Some(4000),
        destination_port: Some(9000),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// An octet names each of them, and every state that lasts is among them.
    #[test]
    fn the_settings_are_those_of_every_state_of_the_machines() {
        assert!(SETTINGS.len() <= 256, "{} settings", SETTINGS.len());
        let routing = SETTINGS.iter().flat_map(|setting| setting.node.routing_table()).map(|entry| entry.state);
        let associations = SETTINGS.iter().flat_map(|setting| setting.node.associations()).map(|entry| entry.state);
        let found: BTreeSet<String> = routing.chain(associations).collect();
        let names =
            ["Awaiting Response", "Awaiting Confirm", "Established", "Awaiting Refresh", "Awaiting Connection", "Connected", "Idle"];
        for name in names {
            assert!(found.contains(name), "{name} is not among {found:?}");
        }
    }
}
