//! Flows, sessions and messages as the tests use them.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gist::api::{Carriage, MessageHandle, PathId, Routing, SendMessage, TransferAttributes};
use gist::node::Datagram;
use gist::time::Instant;
use gist::wire::{Direction, Message, Mri, PathCoupled, SessionId, datagram};

use super::{NSLP, Parcel};

/// The flow from sender to receiver.
pub fn flow(direction: Direction) -> Mri {
    Mri::PathCoupled(PathCoupled {
        direction,
        source: "10.0.1.1".parse().unwrap(),
        destination: "10.0.2.1".parse().unwrap(),
        source_prefix: 32,
        destination_prefix: 32,
        protocol: Some(17),
        ds_field: None,
        flow_label: None,
        spi: None,
        source_port: Some(5000),
        destination_port: Some(9000),
    })
}

pub fn down() -> Mri {
    flow(Direction::Downstream)
}

pub fn up() -> Mri {
    flow(Direction::Upstream)
}

pub fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

pub fn text_for(session: SessionId, payload: &[u8]) -> SendMessage {
    SendMessage {
        nslp_id: NSLP,
        session,
        mri: down(),
        payload: Bytes::copy_from_slice(payload),
        attributes: TransferAttributes::RELIABLE_AND_SECURE,
        handle: MessageHandle(1),
        timeout: None,
        hop_count: None,
        on_behalf_of: None,
        path: PathId::ROUTED,
        routing: Routing::State,
        carriage: Carriage::Any,
    }
}

/// A message downstream in session 1.
pub fn text(payload: &'static str) -> SendMessage {
    text_for(session(1), payload.as_bytes())
}

pub fn at_millis(millis: u64) -> Instant {
    Instant::from_micros(1_000_000) + Duration::from_millis(millis)
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn encoded(message: &Message) -> Bytes {
    let mut out = BytesMut::new();
    datagram::encode(message, &mut out).unwrap();
    out.freeze()
}

/// The message in a datagram on its way.
pub fn message_of(parcel: &Parcel) -> Option<Message> {
    match parcel {
        Parcel::Datagram { datagram, .. } => gist::wire::datagram::decode(datagram.payload.clone()).ok(),
        Parcel::Association { event: gist::node::AssociationEvent::Received(bytes), .. } => Message::decode(bytes.clone()).ok(),
        Parcel::Association { .. } => None,
    }
}

/// A datagram to one of a node's own addresses.
pub fn direct(source: &str, destination: &str, message: &Message) -> Datagram {
    Datagram {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        ip_ttl: Some(64),
        interface: 1,
        query_mode: false,
        router_alert: None,
        payload: encoded(message),
    }
}

/// A Query on its way past a node.
pub fn passing(source: &str, message: &Message) -> Datagram {
    Datagram { query_mode: true, ..direct(source, "10.0.2.1", message) }
}
