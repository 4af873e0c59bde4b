//! A node and what comes to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use gist::api::Indication;
use gist::node::{AssociationEntry, AssociationEvent, Datagram, Node, Output, RoutingEntry};
use gist::time::Instant;
use gist::wire::{Message, MessageType, datagram};

use super::nodes::{ADDRESSES, Input, SETTINGS, STRANGER, drained, length, setting};
use crate::fuzz::mark;

/// Octets of the longest answer to what cannot be read: an Error in a datagram (RFC 5971 §4.3.3).
const LONGEST_ANSWER: usize = datagram::LONGEST_MESSAGE + datagram::MAGIC_LENGTH;
/// How long a node goes on afterwards, and how often it may want to be woken for that.
const AFTERWARDS: Duration = Duration::from_secs(5);
const MOST_WAKES: usize = 400;

/// How a datagram comes: bits of the second octet.
const INTERCEPTED: u8 = 1;
const FROM_STRANGER: u8 = 2;
const PASSING: u8 = 4;
const WITH_ALERT: u8 = 8;
const WITHOUT_MAGIC: u8 = 16;

/// Each datagram that ever came, to the state that it came to.
pub(super) fn datagrams() -> Vec<Vec<u8>> {
    let seed = |(number, input): (usize, &Input)| {
        let Input::Datagram(datagram) = input else { return None };
        let form = if datagram.query_mode { INTERCEPTED } else { 0 };
        Some([&[number as u8, form][..], datagram.payload.get(datagram::MAGIC_LENGTH..)?].concat())
    };
    SETTINGS.iter().map(|setting| &setting.input).enumerate().filter_map(seed).collect()
}

/// Each message that ever came over an association, to the state that it came to.
pub(super) fn messages() -> Vec<Vec<u8>> {
    let seed = |(number, input): (usize, &Input)| {
        let Input::Association(_, AssociationEvent::Received(message)) = input else { return None };
        Some([&[number as u8, 0][..], &message[..]].concat())
    };
    SETTINGS.iter().map(|setting| &setting.input).enumerate().filter_map(seed).collect()
}

/// A datagram.
pub(super) fn take_datagram(input: &[u8]) -> u64 {
    let Some(([number, form], rest)) = input.split_first_chunk::<2>().map(|(head, rest)| (*head, rest)) else { return 0 };
    let setting = setting(number);
    let [asker, answerer] = ADDRESSES;
    let (to, other) = if setting.number == 0 { (asker, answerer) } else { (answerer, asker) };
    let source = if form & FROM_STRANGER == 0 { other } else { STRANGER };
    let passing = IpAddr::V4(Ipv4Addr::new(10, 0, 3, 1));
    let magic = if form & WITHOUT_MAGIC == 0 { &datagram::MAGIC.to_be_bytes()[..] } else { &[] };
    let payload = Bytes::from([magic, rest].concat());
    let datagram = Datagram {
        source: SocketAddr::new(source, datagram::GIST_PORT),
        destination: if form & PASSING == 0 { to } else { passing },
        ip_ttl: Some(64),
        interface: 1,
        query_mode: form & INTERCEPTED != 0,
        router_alert: (form & WITH_ALERT != 0).then_some(65503),
        payload: payload.clone(),
    };
    let read = datagram::decode(payload).ok();
    // What passes by is not read.
    let is_read = read.is_some() || form & (PASSING | INTERCEPTED) == PASSING | INTERCEPTED;
    give(&setting.node, setting.now, rest, read.as_ref(), is_read, |node, now| node.handle_datagram(datagram.clone(), now))
}

/// A message on an association, if the state has one.
pub(super) fn take_message(input: &[u8]) -> u64 {
    let Some(([number, which], message)) = input.split_first_chunk::<2>().map(|(head, rest)| (*head, rest)) else { return 0 };
    let setting = setting(number);
    // On one that is not open nothing comes.
    let is_open = |entry: &AssociationEntry| ["Connected", "Idle"].contains(&entry.state.as_str());
    let associations: Vec<_> = setting.node.associations().into_iter().filter(is_open).collect();
    let Some(association) = associations.get(usize::from(which) % associations.len().max(1)) else { return 0 };
    let bytes = Bytes::copy_from_slice(message);
    let read = Message::decode(bytes.clone()).ok();
    give(&setting.node, setting.now, message, read.as_ref(), read.is_some(), |node, now| {
        node.handle_association(association.association, AssociationEvent::Received(bytes.clone()), now);
    })
}

/// What must hold of a node in any state, whatever it is given.
fn give(node: &Node, now: Instant, octets: &[u8], read: Option<&Message>, is_read: bool, input: impl Fn(&mut Node, Instant)) -> u64 {
    let before = view(node);
    let (mut after, mut again) = (node.clone(), node.clone());
    input(&mut after, now);
    let outputs = drained(&mut after);
    input(&mut again, now);
    assert_eq!(drained(&mut again), outputs, "not the same the second time");
    assert!(after == again, "not the same state the second time");

    let answers: Vec<usize> = outputs.iter().map(length).filter(|length| *length > 0).collect();
    if !is_read {
        assert!(answers.len() <= 1 && outputs.len() == answers.len(), "more than an answer: {outputs:?}");
        assert!(answers.iter().all(|length| *length <= LONGEST_ANSWER), "too long an answer: {outputs:?}");
        assert_eq!(view(&after), before, "a machine has moved");
        assert!(after.counters() != node.counters(), "counted nowhere");
    }
    if read.is_some_and(|message| message.message_type() == MessageType::Error) {
        assert!(!outputs.iter().any(|output| matches!(output, Output::Transmit(_))), "an Error is answered: {outputs:?}");
    }
    let (states, associations) = view(&after);
    assert!(states.len() <= before.0.len() + 1 && associations.len() <= before.1.len() + 1, "grown by more than one");
    let told: usize = outputs.iter().map(handed_up).sum();
    assert!(told <= octets.len(), "{told} octets handed up of {}", octets.len());

    let kind = mark(&(after.counters(), outputs.iter().map(std::mem::discriminant).collect::<Vec<_>>()));
    goes_on(after, now);
    kind
}

/// No timer is due at once when it has just been served, and there is an end to them.
pub(super) fn goes_on(mut node: Node, now: Instant) {
    let end = now + AFTERWARDS;
    let mut wakes = 0;
    while let Some(at) = node.poll_timeout().filter(|at| *at <= end) {
        let at = at.max(now);
        node.handle_timeout(at);
        drained(&mut node);
        assert!(node.poll_timeout().is_none_or(|next| next > at), "due again at once");
        wakes += 1;
        assert!(wakes <= MOST_WAKES, "it does not come to rest");
    }
}

fn handed_up(output: &Output) -> usize {
    if let Output::Indicate(Indication::Received(message)) = output { message.payload.len() } else { 0 }
}

/// What nobody may move who cannot be understood. That an association has been heard of counts for nothing.
fn view(node: &Node) -> (Vec<RoutingEntry>, Vec<AssociationEntry>) {
    let associations = node.associations().into_iter().map(|entry| AssociationEntry { last_heard: Instant::ZERO, ..entry });
    (node.routing_table(), associations.collect())
}
