//! Handshakes of the node alone, without sockets: what its own code costs.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use gist::api::{Carriage, MessageHandle, PathId, Request, Routing, SendMessage, TransferAttributes};
use gist::node::{Node, Output, Transmit};
use gist::time::Instant;
use gist::wire::{Body, Direction, Message, Query, Response, datagram};

use super::flows::{Neighbour, Session, arriving, confirm, query, response};
use super::node::{Carrier, NSLP, bare, mac};
use crate::bench::pairs::{Goal, Measure, Sample, Trial};
use crate::bench::processor::{Thread, Watch};

/// Where the router is.
pub(super) const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// The port that neighbours send from.
const PORT: u16 = 40_000;
/// Handshakes of one measurement.
const HANDSHAKES: usize = 50_000;
/// Handshakes whose messages lie ready at a time.
const BATCH: usize = 1000;

/// What 20,000 handshakes a second need of the node's own code is a fraction of it.
const GOAL: f64 = 20_000.0;

pub(super) fn trials() -> Vec<Trial> {
    let trial = |name: &str, ours: Measure| Trial {
        name: name.to_owned(),
        unit: "handshakes per second of processor time",
        goal: Goal::AtLeast(GOAL),
        bound_is: "the two HMAC-SHA-256 of a cookie of that length, made and judged, and nothing else",
        ours,
        bound: Box::new(two_macs),
    };
    vec![
        trial("gist node alone: D-mode handshakes answered", Box::new(|| answered(HANDSHAKES))),
        trial("gist node alone: D-mode handshakes asked for", Box::new(|| asked(HANDSHAKES))),
    ]
}

/// Queries of many neighbours, and their Confirms.
fn answered(count: usize) -> io::Result<Sample> {
    let mut node = bare(ROUTER, Carrier::Datagram, count);
    let mut now = Instant::from_micros(1_000_000);
    let mut busy = 0.0;
    for batch in 0..count / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let queries: Vec<_> = numbers
            .map(|number| {
                let neighbour = Neighbour::asking(10, number);
                let message = query(&neighbour, Session::new(number, neighbour.address, ROUTER), Carrier::Datagram);
                (arriving((neighbour.address, PORT).into(), ROUTER, &message, true), neighbour)
            })
            .collect();
        let (queries, neighbours): (Vec<_>, Vec<_>) = queries.into_iter().unzip();
        let mut answers = Vec::with_capacity(BATCH);
        let watch = Watch::start(Thread::current())?;
        for datagram in queries {
            node.handle_datagram(datagram, now);
            answers.extend(node.poll_output());
        }
        busy += watch.busy()?;
        let confirms = neighbours.iter().zip(&answers).map(|(neighbour, answer)| {
            let message = confirm(neighbour, &response_in(answer)?, false);
            Ok(arriving((neighbour.address, PORT).into(), ROUTER, &message, false))
        });
        let confirms: Vec<_> = confirms.collect::<io::Result<_>>()?;
        let watch = Watch::start(Thread::current())?;
        for datagram in confirms {
            node.handle_datagram(datagram, now);
        }
        busy += watch.busy()?;
        now += Duration::from_millis(50);
    }
    holds(&node, count)?;
    Ok(Sample::of(count as f64 / busy))
}

/// Messages of the application for new flows, each answered by one of many neighbours.
fn asked(count: usize) -> io::Result<Sample> {
    let mut node = bare(ROUTER, Carrier::Datagram, count);
    let mut now = Instant::from_micros(1_000_000);
    let mut busy = 0.0;
    for batch in 0..count / BATCH {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let (neighbours, requests): (Vec<_>, Vec<_>) = numbers
            .map(|number| {
                let neighbour = Neighbour::asking(10, number);
                let session = Session::new(number, ROUTER, neighbour.address);
                (neighbour, Request::Send(message(session, Bytes::from_static(b"four"))))
            })
            .unzip();
        let mut queries = Vec::with_capacity(BATCH);
        let watch = Watch::start(Thread::current())?;
        for request in requests {
            node.handle_request(request, now);
            queries.extend(node.poll_output());
        }
        busy += watch.busy()?;
        let answers = neighbours.iter().zip(&queries).map(|(neighbour, query)| {
            let message = response(neighbour, &query_in(query)?, Carrier::Datagram, false);
            Ok(arriving((neighbour.address, PORT).into(), ROUTER, &message, false))
        });
        let answers: Vec<_> = answers.collect::<io::Result<_>>()?;
        let mut sent = 0;
        let watch = Watch::start(Thread::current())?;
        for datagram in answers {
            node.handle_datagram(datagram, now);
            // The Confirm, and the message that waited for a peer.
            while node.poll_output().is_some() {
                sent += 1;
            }
        }
        busy += watch.busy()?;
        if sent != 2 * BATCH {
            return Err(io::Error::other(format!("{sent} datagrams after {BATCH} Responses")));
        }
        now += Duration::from_millis(50);
    }
    holds(&node, count)?;
    Ok(Sample::of(count as f64 / busy))
}

/// A message of the application that goes along the flow and needs no protection.
pub(super) fn message(session: Session, payload: Bytes) -> SendMessage {
    SendMessage {
        nslp_id: NSLP,
        session: session.id(),
        mri: session.mri(Direction::Downstream),
        payload,
        attributes: TransferAttributes::default(),
        handle: MessageHandle(0),
        timeout: None,
        hop_count: None,
        on_behalf_of: None,
        path: PathId::ROUTED,
        routing: Routing::State,
        carriage: Carriage::Any,
    }
}

fn two_macs() -> io::Result<Sample> {
    // As long as what a Responder-Cookie is bound to here: flow, session and peer.
    let text = [0x5a; 128];
    let watch = Watch::start(Thread::current())?;
    let mut key = [1; 32];
    for _ in 0..2 * HANDSHAKES {
        key = mac(&key, &text);
    }
    std::hint::black_box(key);
    Ok(Sample::of(HANDSHAKES as f64 / watch.busy()?))
}

/// Every handshake must have made its state.
fn holds(node: &Node, count: usize) -> io::Result<()> {
    let held = node.routing_states();
    if held == count { Ok(()) } else { Err(io::Error::other(format!("{held} routing states after {count} handshakes"))) }
}

/// The Response that the node sends as a datagram.
pub(super) fn response_in(output: &Output) -> io::Result<Response> {
    match decoded(output)?.body {
        Body::Response(response) => Ok(response),
        other => Err(io::Error::other(format!("no Response but {other:?}"))),
    }
}

/// The Query that the node sends.
pub(super) fn query_in(output: &Output) -> io::Result<Query> {
    match decoded(output)?.body {
        Body::Query(query) => Ok(query),
        other => Err(io::Error::other(format!("no Query but {other:?}"))),
    }
}

fn decoded(output: &Output) -> io::Result<Message> {
    let message = match output {
        Output::Transmit(Transmit::Normal { payload, .. } | Transmit::QueryMode { payload, .. }) => datagram::decode(payload.clone()).ok(),
        Output::SendOnAssociation { message, .. } => Message::decode(message.clone()).ok(),
        _ => None,
    };
    message.ok_or_else(|| io::Error::other(format!("no message in {output:?}")))
}
