//! The other ends: neighbours that ask and answer as the router's peers would, with as little as that takes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gist::node::Datagram;
use gist::wire::{
    Body, Confirm, Cookie, Data, Direction, Hello, MaOptions, Message, Mri, Nli, PathCoupled, PeerIdentity, Profile, Query, ResponderPart,
    Response, SessionId, StackConfiguration, StackOffer, StackProposal, datagram,
};

use super::node::{Carrier, NSLP, PLAIN_PORT, PORT};
use crate::dice::Dice;

/// How long its states are valid: longer than anything is measured.
const VALIDITY: Duration = Duration::from_secs(24 * 3600);
const HOLD_TIME: Duration = Duration::from_secs(24 * 3600);

/// Addresses of the networks of those who ask.
const NETWORKS: usize = 4096;

/// A GIST node next to the router.
#[derive(Debug, Clone)]
pub(super) struct Neighbour {
    pub(super) address: IpAddr,
    identity: PeerIdentity,
}

impl Neighbour {
    /// The `number`th of those who ask: 4096 networks of 24 bits within `block`, so that no destination and no network gets more answers
    /// than [`gist`] gives it in a time.
    pub(super) fn asking(block: u8, number: usize) -> Self {
        let (network, host) = (number % NETWORKS, number / NETWORKS % 16);
        let [_, _, high, low] = u32::try_from(network).unwrap_or(0).to_be_bytes();
        Self::at(Ipv4Addr::new(block, 16 + high, low, 1 + u8::try_from(host).unwrap_or(0)).into())
    }

    pub(super) fn at(address: IpAddr) -> Self {
        let text = format!("neighbour {address}");
        Self { address, identity: PeerIdentity::new(text.into_bytes()).unwrap_or_else(|| unreachable!("short and not empty")) }
    }

    fn nli(&self, ip_ttl: u8) -> Nli {
        Nli { ip_ttl, validity: VALIDITY, peer: self.identity.clone(), address: self.address }
    }
}

/// A session, by its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    number: u64,
    source: IpAddr,
    destination: IpAddr,
}

impl Session {
    pub(super) fn new(number: usize, source: IpAddr, destination: IpAddr) -> Self {
        Self { number: number as u64, source, destination }
    }

    /// Where a Query for it is addressed to.
    pub(super) fn destination(self) -> IpAddr {
        self.destination
    }

    pub(super) fn id(self) -> SessionId {
        let octets = Dice::new(self.number).octets(16);
        SessionId(octets.first_chunk().copied().unwrap_or_default())
    }

    /// One flow for each session.
    pub(super) fn mri(self, direction: Direction) -> Mri {
        let [_, _, _, _, a, b, c, d] = self.number.to_be_bytes();
        Mri::PathCoupled(PathCoupled {
            direction,
            source: self.source,
            destination: self.destination,
            source_prefix: 32,
            destination_prefix: 32,
            protocol: Some(17),
            ds_field: None,
            flow_label: None,
            spi: None,
            source_port: Some(u16::from_be_bytes([a, b])),
            destination_port: Some(u16::from_be_bytes([c, d])),
        })
    }
}

/// A Query of the neighbour, without magic number.
pub(super) fn query(from: &Neighbour, session: Session, carrier: Carrier) -> Bytes {
    let configuration = StackConfiguration { hold_time: HOLD_TIME, options: vec![MaOptions::tcp_query(0)] };
    let stack = proposal(carrier).map(|proposal| StackOffer { proposal, configuration });
    encode(Body::Query(Query {
        nat: None,
        mri: session.mri(Direction::Downstream),
        session: session.id(),
        nli: from.nli(64),
        cookie: cookie(16),
        stack,
        payload: None,
    }))
}

/// The Confirm for a Response that has come.
pub(super) fn confirm(from: &Neighbour, response: &Response, first: bool) -> Bytes {
    let responder = response.responder.as_ref();
    let proposal = responder.and_then(|part| part.stack.as_ref()).map(|stack| stack.proposal.clone());
    let configuration = (first && proposal.is_some()).then(|| StackConfiguration { hold_time: HOLD_TIME, options: Vec::new() });
    encode(Body::Confirm(Confirm {
        mri: response.mri.inverted(),
        session: response.session,
        nli: from.nli(0),
        responder_cookie: responder.map(|part| part.cookie.clone()),
        proposal,
        configuration,
        payload: None,
    }))
}

/// The Response to a Query of the router's.
pub(super) fn response(from: &Neighbour, query: &Query, carrier: Carrier, over_association: bool) -> Bytes {
    let port = if carrier == Carrier::Tls { PORT } else { PLAIN_PORT };
    let configuration = StackConfiguration { hold_time: HOLD_TIME, options: vec![MaOptions::tcp_response(0, port)] };
    let stack = proposal(carrier).filter(|_| !over_association).map(|proposal| StackOffer { proposal, configuration });
    encode(Body::Response(Response {
        nat: None,
        mri: query.mri.inverted(),
        session: query.session,
        nli: from.nli(0),
        query_cookie: query.cookie.clone(),
        confirm_requested: true,
        responder: Some(ResponderPart { cookie: cookie(32), stack }),
        payload: None,
    }))
}

/// A message of the application on its way along the flow.
pub(super) fn data(session: Session, payload: Bytes) -> Bytes {
    let mri = session.mri(Direction::Downstream);
    encode(Body::Data(Data { nat: None, mri, session: session.id(), nli: None, payload, explicit: false, context_free: false }))
}

/// The answer to an MA-Hello that asks for one.
pub(super) fn hello(id: u32) -> Bytes {
    encode(Body::Hello(Hello { request: false, id }))
}

/// With the magic number, as it travels in a datagram.
pub(super) fn in_datagram(message: &[u8]) -> Bytes {
    [&datagram::MAGIC.to_be_bytes(), message].concat().into()
}

/// A datagram as the node gets it from its shell.
pub(super) fn arriving(from: SocketAddr, at: IpAddr, message: &[u8], query_mode: bool) -> Datagram {
    Datagram {
        source: from,
        destination: at,
        ip_ttl: Some(64),
        interface: 2,
        query_mode,
        router_alert: None,
        payload: in_datagram(message),
    }
}

fn proposal(carrier: Carrier) -> Option<StackProposal> {
    let profiles: Vec<Profile> = carrier.offer();
    (!profiles.is_empty()).then_some(StackProposal { profiles })
}

fn cookie(length: usize) -> Cookie {
    Cookie::new(vec![0x5a; length]).unwrap_or_else(|| unreachable!("whole words"))
}

fn encode(body: Body) -> Bytes {
    let message = Message { hop_count: 64, nslp_id: NSLP, source_is_signalling: true, body, unknown: Vec::new() };
    let mut out = BytesMut::new();
    match message.encode(&mut out) {
        Ok(()) => out.freeze(),
        Err(error) => unreachable!("the load's own message: {error}"),
    }
}
