//! Data messages through the node alone, without sockets: in over one association, to the application, and out over another.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use bytes::{Bytes, BytesMut};
use gist::api::{AssociationId, Indication, Request};
use gist::node::{AssociationEvent, Node, Output};
use gist::time::Instant;
use gist::wire::{Body, Hello, Message};

use super::core_handshakes::{ROUTER, message, query_in, response_in};
use super::flows::{Neighbour, Session, arriving, confirm, data, hello, query, response};
use super::node::{Carrier, accept, bare, credentials};
use crate::bench::pairs::{Goal, Sample, Trial};
use crate::bench::processor::{Thread, Watch};

const MESSAGES: usize = 100_000;
/// Octets of the application's message: about what a signed Query of PBS without its certificate has.
pub(super) const PAYLOAD: usize = 256;
pub(super) const UPSTREAM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
pub(super) const DOWNSTREAM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));

pub(super) fn trials() -> Vec<Trial> {
    vec![Trial {
        name: "gist node alone: Data messages through".to_owned(),
        unit: "messages per second of processor time",
        goal: Goal::AtLeast(60_000.0),
        bound_is: "a copy of each message, with one hop less in its header",
        ours: Box::new(through),
        bound: Box::new(copied),
    }]
}

/// The way of one flow before the router, and of another behind it.
fn sessions() -> [Session; 2] {
    [Session::new(1, UPSTREAM, ROUTER), Session::new(2, ROUTER, DOWNSTREAM)]
}

fn through() -> io::Result<Sample> {
    let mut node = bare(ROUTER, Carrier::Tls, 2);
    let now = Instant::from_micros(1_000_000);
    let [above, below] = sessions();
    let from = join_upstream(&mut node, above, now)?;
    let to = join_downstream(&mut node, below, now)?;
    let raw = data(above, vec![0x5a; PAYLOAD].into());
    let watch = Watch::start(Thread::current())?;
    let mut sent = 0_usize;
    for _ in 0..MESSAGES {
        // As a framer cuts it out of what was read.
        let event = AssociationEvent::Received(Bytes::copy_from_slice(&raw));
        node.handle_association(from, event, now);
        while let Some(output) = node.poll_output() {
            let Output::Indicate(Indication::Received(received)) = output else { continue };
            node.handle_request(Request::Send(message(below, received.payload)), now);
            while let Some(output) = node.poll_output() {
                let Output::SendOnAssociation { message, .. } = output else { continue };
                sent += 1;
                node.handle_association(to, AssociationEvent::Written { bytes: message.len() }, now);
            }
        }
    }
    let busy = watch.busy()?;
    if sent != MESSAGES {
        return Err(io::Error::other(format!("{sent} of {MESSAGES} messages came out")));
    }
    Ok(Sample::of(MESSAGES as f64 / busy))
}

/// The neighbour that the messages come from opens an association and confirms its flow.
pub(super) fn join_upstream(node: &mut Node, session: Session, now: Instant) -> io::Result<AssociationId> {
    let neighbour = Neighbour::at(UPSTREAM);
    let message = query(&neighbour, session, Carrier::Tls);
    node.handle_datagram(arriving((UPSTREAM, 40_000).into(), session.destination(), &message, true), now);
    let answer = response_in(&node.poll_output().ok_or_else(|| io::Error::other("no answer"))?)?;
    let association = accept(node, &neighbour, now);
    node.handle_association(association, AssociationEvent::Received(confirm(&neighbour, &answer, true)), now);
    while node.poll_output().is_some() {}
    Ok(association)
}

/// The neighbour that the messages go to answers the router's Query and proves itself over the association that is opened to it.
pub(super) fn join_downstream(node: &mut Node, session: Session, now: Instant) -> io::Result<AssociationId> {
    let neighbour = Neighbour::at(DOWNSTREAM);
    node.handle_request(Request::Send(message(session, Bytes::from_static(b"four"))), now);
    let asked = query_in(&node.poll_output().ok_or_else(|| io::Error::other("no Query"))?)?;
    let answer = response(&neighbour, &asked, Carrier::Tls, false);
    node.handle_datagram(arriving((DOWNSTREAM, 270).into(), ROUTER, &answer, false), now);
    let Some(Output::Connect { association, .. }) = node.poll_output() else { return Err(io::Error::other("no association is opened")) };
    node.handle_association(association, AssociationEvent::Connected { credentials: credentials(&neighbour) }, now);
    let mut asked = None;
    while let Some(output) = node.poll_output() {
        let Output::SendOnAssociation { message, .. } = output else { continue };
        node.handle_association(association, AssociationEvent::Written { bytes: message.len() }, now);
        if let Ok(Message { body: Body::Hello(Hello { request: true, id }), .. }) = Message::decode(message) {
            asked = Some(id);
        }
    }
    let id = asked.ok_or_else(|| io::Error::other("no MA-Hello asks for a proof"))?;
    node.handle_association(association, AssociationEvent::Received(hello(id)), now);
    let mut written = 0;
    while let Some(output) = node.poll_output() {
        if let Output::SendOnAssociation { message, .. } = output {
            written += message.len();
        }
    }
    if written == 0 {
        return Err(io::Error::other("the message that waited for the peer was not sent"));
    }
    node.handle_association(association, AssociationEvent::Written { bytes: written }, now);
    Ok(association)
}

fn copied() -> io::Result<Sample> {
    let raw = data(sessions()[0], vec![0x5a; PAYLOAD].into());
    let watch = Watch::start(Thread::current())?;
    for _ in 0..MESSAGES {
        let mut copy = BytesMut::from(&raw[..]);
        if let Some(hops) = copy.get_mut(1) {
            *hops = hops.saturating_sub(1);
        }
        std::hint::black_box(copy.freeze());
    }
    Ok(Sample::of(MESSAGES as f64 / watch.busy()?))
}
