//! Memory of routing state: a million sessions held, and what the allocator has handed out for them.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use gist::api::{AssociationId, Request};
use gist::node::{AssociationEvent, Node, Output};
use gist::time::Instant;

use super::SESSIONS;
use super::core_data::{DOWNSTREAM, UPSTREAM, join_downstream, join_upstream};
use super::core_handshakes::{ROUTER, message, query_in, response_in};
use super::flows::{Neighbour, Session, arriving, confirm, query, response};
use super::node::{Carrier, bare};
use crate::bench::pairs::{Goal, Measure, Sample, Trial};
use crate::dice::Dice;
use crate::network::sys;

/// What is wanted of one session.
const GOAL: f64 = 400.0;

pub(super) fn trials() -> Vec<Trial> {
    let trial = |name: &str, goal: Goal, ours: Measure| Trial {
        name: format!("gist memory: {name}, {SESSIONS} sessions held"),
        unit: "bytes per session",
        goal,
        bound_is: "the standard library's hash map with a key of 40 bytes (session, addresses, ports, application) and a value of 24 \
                   (peer, association, expiry)",
        ours,
        bound: Box::new(plain_table),
    };
    vec![
        trial("responding state over associations", Goal::AtMost(GOAL), Box::new(|| held(responding))),
        trial("querying state over associations", Goal::AtMost(GOAL), Box::new(|| held(querying))),
        trial("a router's two states of each session", Goal::AtMost(GOAL), Box::new(|| held(both))),
        trial("responding state by datagram", Goal::AtMost(GOAL), Box::new(|| held(by_datagram))),
        trial("querying state by datagram", Goal::AtMost(GOAL), Box::new(|| held(asked_by_datagram))),
    ]
}

/// Bytes that the allocator has handed out for each session, with what it needs for itself.
fn held(fill: fn(usize) -> io::Result<Node>) -> io::Result<Sample> {
    sys::release_free_memory();
    let (allocated, resident) = (sys::allocated_bytes(), resident_bytes()?);
    let node = fill(SESSIONS)?;
    sys::release_free_memory();
    let per_session = |after: usize, before: usize| after.saturating_sub(before) as f64 / SESSIONS as f64;
    let sample = Sample::of(per_session(sys::allocated_bytes(), allocated))
        .with("resident bytes per session", per_session(resident_bytes()?, resident))
        .with("routing-state entries held", node.routing_states() as f64);
    if node.routing_states() < SESSIONS {
        return Err(io::Error::other(format!("{} routing states of {SESSIONS}", node.routing_states())));
    }
    Ok(sample)
}

const NOW: Instant = Instant::from_micros(1_000_000);

fn by_datagram(count: usize) -> io::Result<Node> {
    let mut node = bare(ROUTER, Carrier::Datagram, count);
    for number in 0..count {
        let neighbour = Neighbour::asking(10, number);
        let from = (neighbour.address, 40_000).into();
        let asked = query(&neighbour, Session::new(number, neighbour.address, ROUTER), Carrier::Datagram);
        node.handle_datagram(arriving(from, ROUTER, &asked, true), NOW + WINDOW * u32::try_from(number / PER_WINDOW).unwrap_or(0));
        let answer = response_in(&node.poll_output().ok_or_else(|| io::Error::other("no answer"))?)?;
        node.handle_datagram(arriving(from, ROUTER, &confirm(&neighbour, &answer, false), false), NOW);
    }
    Ok(node)
}

/// As many peers downstream as there are addresses for.
fn asked_by_datagram(count: usize) -> io::Result<Node> {
    let mut node = bare(ROUTER, Carrier::Datagram, count);
    for number in 0..count {
        let neighbour = Neighbour::asking(10, number);
        let session = Session::new(number, ROUTER, neighbour.address);
        node.handle_request(Request::Send(message(session, Bytes::from_static(b"four"))), NOW);
        let asked = query_in(&node.poll_output().ok_or_else(|| io::Error::other("no Query"))?)?;
        let answer = response(&neighbour, &asked, Carrier::Datagram, false);
        node.handle_datagram(arriving((neighbour.address, 270).into(), ROUTER, &answer, false), NOW);
        // The Confirm and the message that has waited.
        for _ in 0..2 {
            node.poll_output().ok_or_else(|| io::Error::other("the peer is not taken"))?;
        }
    }
    Ok(node)
}

fn responding(count: usize) -> io::Result<Node> {
    let mut node = bare(ROUTER, Carrier::Tls, count);
    let association = join_upstream(&mut node, Session::new(0, UPSTREAM, ROUTER), NOW)?;
    for number in 1..count {
        respond(&mut node, association, Session::new(number, UPSTREAM, ROUTER))?;
    }
    Ok(node)
}

fn querying(count: usize) -> io::Result<Node> {
    let mut node = bare(ROUTER, Carrier::Tls, count);
    let association = join_downstream(&mut node, Session::new(0, ROUTER, DOWNSTREAM), NOW)?;
    for number in 1..count {
        ask(&mut node, association, Session::new(number, ROUTER, DOWNSTREAM))?;
    }
    Ok(node)
}

/// As where a flow passes: the same flow and session on both sides.
fn both(count: usize) -> io::Result<Node> {
    let mut node = bare(ROUTER, Carrier::Tls, count);
    let session = |number| Session::new(number, UPSTREAM, DOWNSTREAM);
    let above = join_upstream(&mut node, session(0), NOW)?;
    let below = join_downstream(&mut node, session(0), NOW)?;
    for number in 1..count {
        respond(&mut node, above, session(number))?;
        ask(&mut node, below, session(number))?;
    }
    Ok(node)
}

/// One more session of the neighbour upstream, whose association stands.
fn respond(node: &mut Node, association: AssociationId, session: Session) -> io::Result<()> {
    let neighbour = Neighbour::at(UPSTREAM);
    node.handle_datagram(arriving((UPSTREAM, 40_000).into(), session.destination(), &query(&neighbour, session, Carrier::Tls), true), NOW);
    let output = node.poll_output().ok_or_else(|| io::Error::other("no answer"))?;
    let answer = response_in(&output)?;
    node.handle_association(association, AssociationEvent::Received(confirm(&neighbour, &answer, false)), NOW);
    written(node, association, output)
}

/// One more session to the neighbour downstream, whose association stands.
fn ask(node: &mut Node, association: AssociationId, session: Session) -> io::Result<()> {
    node.handle_request(Request::Send(message(session, Bytes::from_static(b"four"))), NOW);
    let asked = query_in(&node.poll_output().ok_or_else(|| io::Error::other("no Query"))?)?;
    let answer = response(&Neighbour::at(DOWNSTREAM), &asked, Carrier::Tls, true);
    node.handle_association(association, AssociationEvent::Received(answer), NOW);
    let output = node.poll_output().ok_or_else(|| io::Error::other("no Confirm"))?;
    written(node, association, output)
}

/// What the node writes to the association counts as written at once.
fn written(node: &mut Node, association: AssociationId, first: Output) -> io::Result<()> {
    let mut next = Some(first);
    while let Some(output) = next {
        let Output::SendOnAssociation { message, .. } = output else { return Err(io::Error::other(format!("unexpected {output:?}"))) };
        node.handle_association(association, AssociationEvent::Written { bytes: message.len() }, NOW);
        next = node.poll_output();
    }
    Ok(())
}

/// What a neighbour gets answers in, for [`by_datagram`].
const WINDOW: Duration = Duration::from_secs(4);
/// Sessions in a window: 16 for each of the addresses that [`Neighbour::asking`] knows.
const PER_WINDOW: usize = 1 << 19;

fn plain_table() -> io::Result<Sample> {
    sys::release_free_memory();
    let (allocated, resident) = (sys::allocated_bytes(), resident_bytes()?);
    let mut table = HashMap::<[u8; 40], [u8; 24]>::new();
    for number in 0..SESSIONS {
        let octets = Dice::new(number as u64).octets(40);
        table.insert(octets.first_chunk().copied().unwrap_or([0; 40]), [1; 24]);
    }
    let per_session = |after: usize, before: usize| after.saturating_sub(before) as f64 / table.len() as f64;
    Ok(Sample::of(per_session(sys::allocated_bytes(), allocated))
        .with("resident bytes per session", per_session(resident_bytes()?, resident)))
}

/// What the process holds in memory: the second figure of `statm`, in pages.
fn resident_bytes() -> io::Result<usize> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: Option<usize> = text.split(' ').nth(1).and_then(|second| second.parse().ok());
    pages.map(|pages| pages * PAGE).ok_or_else(|| io::Error::other(format!("/proc/self/statm: {text:?}")))
}

const PAGE: usize = 4096;
