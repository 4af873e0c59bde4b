//! A router that tampers with the Permissions it passes on: it adds a volume that the receiver never signed.

use bytes::{BufMut, Bytes, BytesMut};
use gist::api::SendMessage;
use pbs_nslp::wire::{MessageKind, ObjectType, Treatment};
use router_agent::Parts;

use crate::rogue;

/// The flow whose Permissions get an Allow-vol64 marked AB=01, before the signature, which does not cover such objects.
pub(crate) const MARKED_PORT: u16 = 9040;
/// The flow whose Permissions get an Allow-vol64 as it should be marked, but after the signature.
pub(crate) const APPENDED_PORT: u16 = 9041;

/// What the router would like the sender to have, in bytes.
const VOLUME: u64 = 1 << 40;
/// Octets of a message's header, and of an object's.
const HEADER: usize = 4;

/// A router's parts with its messages tampered with.
pub(crate) fn parts(parts: Parts) -> Parts {
    Parts { around: rogue::around(|message| vec![tamper(message)]), ..parts }
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
