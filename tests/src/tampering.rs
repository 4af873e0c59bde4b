//! A router that tampers with what it passes on: it adds a volume that the receiver never signed, changes single bits, moves messages into
//! other sessions, repeats everything, and says notices of everything.

use std::net::IpAddr;
use std::sync::Mutex;

use bytes::{BufMut, Bytes, BytesMut};
use gist::api::SendMessage;
use gist::wire::SessionId;
use pbs_nslp::wire::{MessageKind, ObjectType, Treatment};
use router_agent::Parts;

use crate::{hostile, rogue};

/// The flow whose Permissions get an Allow-vol64 marked AB=01, before the signature, which does not cover such objects.
pub(crate) const MARKED_PORT: u16 = 9040;
/// The flow whose Permissions get an Allow-vol64 as it should be marked, but after the signature.
pub(crate) const APPENDED_PORT: u16 = 9041;

/// The flows of whose Permissions, and of whose Queries, a bit is changed: another one each time.
const PERMISSIONS_CHANGED_PORT: u16 = 9042;
const QUERIES_CHANGED_PORT: u16 = 9043;
/// The flow whose Queries are passed on in another session.
const QUERIES_MOVED_PORT: u16 = 9044;
/// The flow of which every message is followed by all before it.
const ALL_REPEATED_PORT: u16 = 9045;
/// The flow of which every message comes between notices of everything, to both ends: one state is theirs, and then the next.
const NOTICES_PORT: u16 = 9046;
/// Messages that are repeated at most.
const MOST_REPEATED: usize = 32;

/// What the router would like the sender to have, in bytes.
const VOLUME: u64 = 1 << 40;
/// Octets of a message's header, and of an object's.
const HEADER: usize = 4;

/// A router's parts with its messages tampered with.
pub(crate) fn parts(parts: Parts) -> Parts {
    let (changes, past) = (Mutex::new(0), Mutex::new(Vec::new()));
    let around = rogue::around(move |message| match rogue::destination_port(&message) {
        Some(PERMISSIONS_CHANGED_PORT) if is(&message, MessageKind::Permission) => vec![change(message, &changes)],
        Some(QUERIES_CHANGED_PORT) if is(&message, MessageKind::Query) => vec![change(message, &changes)],
        Some(QUERIES_MOVED_PORT) if is(&message, MessageKind::Query) => {
            let SessionId(session) = message.session;
            vec![SendMessage { session: SessionId(session.map(|octet| !octet)), ..message }]
        }
        Some(ALL_REPEATED_PORT) => repeat(message, &past),
        Some(NOTICES_PORT) => {
            let notices = hostile::notices(&message, IpAddr::from([192, 0, 2, 77]));
            [notices.clone(), vec![message], notices].concat()
        }
        _ => vec![tamper(message)],
    });
    Parts { around, ..parts }
}

fn is(message: &SendMessage, kind: MessageKind) -> bool {
    message.payload.first() == Some(&kind.number())
}

/// The message with one bit turned over, in another octet than the last one.
fn change(message: SendMessage, changes: &Mutex<usize>) -> SendMessage {
    // No divisor of any length: sooner or later it has been everywhere.
    const STEP: usize = 37;
    let Ok(mut changes) = changes.lock() else { return message };
    *changes += 1;
    let mut payload = message.payload.to_vec();
    let at = *changes * STEP % payload.len().max(1);
    if let Some(octet) = payload.get_mut(at) {
        *octet ^= 1 << (*changes % 8);
    }
    SendMessage { payload: payload.into(), ..message }
}

/// The message, and everything that was said before about such flows.
fn repeat(message: SendMessage, past: &Mutex<Vec<SendMessage>>) -> Vec<SendMessage> {
    let Ok(mut past) = past.lock() else { return vec![message] };
    let all = std::iter::once(message.clone()).chain(past.iter().cloned()).collect();
    if past.len() < MOST_REPEATED {
        past.push(message);
    }
    all
}

fn tamper(message: SendMessage) -> SendMessage {
    if message.payload.first() != Some(&MessageKind::Permission.number()) {
        return message;
    }
    let payload = match rogue::destination_port(&message) {
        Some(MARKED_PORT) => insert(&message.payload, signature_at(&message.payload), Treatment::Ignore),
        Some(APPENDED_PORT) => insert(&message.payload, message.payload.len(), Treatment::Forward),
        _ => return message,
    };
    SendMessage { payload, ..message }
}

/// The message with an Allow-vol64 at `at`.
fn insert(message: &[u8], at: usize, treatment: Treatment) -> Bytes {
    let (before, after) = message.split_at_checked(at).unwrap_or((message, &[]));
    let ObjectType(object) = ObjectType::ALLOW_VOL64;
    let treatment = match treatment {
        Treatment::Mandatory => 0b00,
        Treatment::Ignore => 0b01,
        Treatment::Forward => 0b10,
    };
    let mut out = BytesMut::from(before);
    out.put_slice(&[treatment << 6 | object >> 4, object << 4, 0, 8]);
    out.put_u64(VOLUME);
    out.put_slice(after);
    out.freeze()
}

/// Where Auth-data begins; the end of the message if it has none.
fn signature_at(message: &[u8]) -> usize {
    let mut at = HEADER;
    while let Some(&[first, second, high, low]) = message.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) {
        if ObjectType(first << 4 | second >> 4) == ObjectType::AUTH_DATA {
            return at;
        }
        at += HEADER + usize::from(u16::from_be_bytes([high, low])).next_multiple_of(4);
    }
    message.len()
}
