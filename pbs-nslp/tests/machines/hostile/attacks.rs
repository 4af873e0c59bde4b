//! What an attacker makes of a message that an honest node might send.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gist::api::ReceivedMessage;
use gist::wire::{Direction, NslpId, SessionId};
use pbs_nslp::credentials::{SignError, Signer};
use pbs_nslp::wire::{self, Credential, NotifyCode, Permission, Query};

use super::messages::{Content, Genuine};
use super::settings::bystander;
use crate::credentials::ToySigner;
use crate::forge;
use crate::world::{NSLP_ID, flow, receiver_address, sender_address};

/// An attack on a node.
pub(super) struct Attack {
    pub(super) what: String,
    pub(super) received: ReceivedMessage,
    pub(super) expected: Expected,
}

/// What the node is to make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// It is refused, for whichever reason comes first.
    Refused,
    /// It is refused, for this reason.
    Code(NotifyCode),
    /// It says what the genuine message says, and is taken as that.
    Harmless,
}

fn attack(what: impl Into<String>, received: ReceivedMessage, expected: Expected) -> Attack {
    Attack { what: what.into(), received, expected }
}

/// A node on the path, with a router's certificate and none of the ends' keys, changes the octets.
pub(super) fn of_a_node_on_the_path(genuine: &Genuine, others: &[Bytes]) -> Vec<Attack> {
    let original = &genuine.received.payload[..];
    let with = |payload: Vec<u8>| ReceivedMessage { payload: payload.into(), ..genuine.received.clone() };
    let mut all = Vec::new();
    for at in 0..original.len() {
        // Of each octet one bit, another one from octet to octet.
        let mut payload = original.to_vec();
        payload[at] ^= 1 << (at % 8);
        let is_reserved = (1..4).contains(&at);
        all.push(attack(
            format!("bit {} of octet {at} changed{}", at % 8, if is_reserved { ", reserved" } else { "" }),
            with(payload),
            Expected::Refused,
        ));
    }
    for length in (0..original.len()).filter(|length| length % 4 == 0 || length % 7 == 0) {
        all.push(attack(format!("cut to {length} octets"), with(original[..length].to_vec()), Expected::Refused));
    }
    let objects = objects(original);
    let join = |objects: &[&[u8]]| with([&original[..4], &objects.concat()].concat());
    for at in 0..=objects.len() {
        for (name, header, expected) in [
            ("to be refused", 0x0f, Expected::Refused),
            ("to be passed on", 0x8f, Expected::Refused),
            ("of no meaning", 0xcf, Expected::Refused),
            ("to be left out", 0x4f, Expected::Harmless),
        ] {
            let inserted: &[u8] = &[header, 0x10, 0, 4, 1, 2, 3, 4];
            let with_it = [&objects[..at], &[inserted], &objects[at..]].concat();
            all.push(attack(format!("an unknown object {name} put in at {at}"), join(&with_it), expected));
        }
    }
    for (at, object) in objects.iter().enumerate() {
        let kind = object_type(object);
        let without = [&objects[..at], &objects[at + 1..]].concat();
        all.push(attack(format!("object {kind} left out"), join(&without), Expected::Refused));
        let twice = [&objects[..=at], &objects[at..]].concat();
        all.push(attack(format!("object {kind} twice"), join(&twice), Expected::Refused));
        if at + 1 < objects.len() {
            let mut exchanged = objects.clone();
            exchanged.swap(at, at + 1);
            all.push(attack(format!("object {kind} and the next one exchanged"), join(&exchanged), Expected::Refused));
        }
        for other in others {
            for foreign in self::objects(other).into_iter().filter(|foreign| object_type(foreign) == kind && foreign != object) {
                let mut spliced = objects.clone();
                spliced[at] = foreign;
                all.push(attack(format!("object {kind} of another message"), join(&spliced), Expected::Refused));
            }
        }
    }
    all
}

/// The message as it is, but elsewhere: in another session, about another flow, the other way, over nothing secure.
pub(super) fn moved(genuine: &Genuine, other_sessions: &[SessionId]) -> Vec<Attack> {
    let with = |change: &dyn Fn(&mut ReceivedMessage)| {
        let mut received = genuine.received.clone();
        change(&mut received);
        received
    };
    let signature = if genuine.is_notice() { Expected::Refused } else { Expected::Code(NotifyCode::Signature) };
    let mut all = vec![
        attack("no authenticated association", with(&|r| r.authenticated = false), Expected::Code(NotifyCode::NoSecureChannel)),
        attack("another application", with(&|r| r.nslp_id = NslpId(7)), Expected::Code(NotifyCode::UnknownMessageType)),
        attack("the other direction", with(&|r| r.mri = r.mri.inverted()), Expected::Code(NotifyCode::FlowMismatch)),
    ];
    let direction = genuine.received.mri.direction();
    for (what, other) in [("a flow beside it", bystander()), ("the reverse flow", flow().reversed())] {
        let mri = other.to_mri(direction);
        all.push(attack(format!("routed as {what}"), with(&|r| r.mri = mri.clone()), Expected::Code(NotifyCode::FlowMismatch)));
    }
    if !genuine.is_notice() {
        for session in other_sessions.iter().filter(|session| **session != genuine.received.session) {
            all.push(attack("in another session", with(&|r| r.session = *session), signature));
        }
    }
    all
}

/// The same content, signed by others.
pub(super) fn signed_by_others(genuine: &Genuine, state_is_held: bool) -> Vec<Attack> {
    let (own, other_end, own_key, end_key) = match &genuine.content {
        Content::Query(_) => (sender_address(), receiver_address(), 1, 2),
        Content::Permission(_) => (receiver_address(), sender_address(), 2, 1),
        Content::Notice => return Vec::new(),
    };
    let stranger = ToySigner::new([192, 0, 2, 66].into(), 66);
    let impostor = Impostor { shows: ToySigner::new(own, own_key), signs: ToySigner::new(own, 66) };
    let other = ToySigner::new(other_end, end_key);
    let mut all = vec![
        attack("a host with a certificate of its own", signed(genuine, &*stranger), Expected::Code(NotifyCode::Certificate)),
        attack("a host that shows the owner's certificate", signed(genuine, &impostor), Expected::Code(NotifyCode::Signature)),
        attack("the other end of the flow", signed(genuine, &*other), Expected::Code(NotifyCode::Certificate)),
    ];
    if state_is_held {
        // Another key that is certified for the address may begin a flow, but not go on with one.
        let second = ToySigner::new(own, 9);
        all.push(attack("another key of the same address", signed(genuine, &*second), Expected::Code(NotifyCode::LocalPolicy)));
    }
    all
}

/// What the owner would never sign now, since its clock is right: by who has its key and a clock of his own, or kept it for long.
pub(super) fn out_of_time(genuine: &Genuine, clock: u32) -> Vec<Attack> {
    let renumbered = |number| {
        let content = match &genuine.content {
            Content::Query(query) => Content::Query(Query { number, ..query.clone() }),
            Content::Permission(permission) => Content::Permission(Permission { number, ..permission.clone() }),
            Content::Notice => Content::Notice,
        };
        signed(&Genuine { content, ..genuine.clone() }, &*owner(genuine))
    };
    if genuine.is_notice() {
        return Vec::new();
    }
    [
        ("before the window", clock - 301),
        ("far ahead of the clock", clock + 301),
        ("half a circle ahead", clock.wrapping_add(1 << 31)),
        ("zero", 0),
    ]
    .map(|(what, number)| attack(what, renumbered(number), Expected::Code(NotifyCode::Stale)))
    .into()
}

/// Who signs such a message.
pub(super) fn owner(genuine: &Genuine) -> Arc<ToySigner> {
    if matches!(genuine.content, Content::Query(_)) { forge::sender() } else { forge::receiver() }
}

/// The message's content, signed by this one.
pub(super) fn signed(genuine: &Genuine, signs: &dyn Signer) -> ReceivedMessage {
    let session = genuine.received.session;
    let credential = Credential::Certificate { certificate: signs.certificate().clone(), chain: Vec::new() };
    let payload = match &genuine.content {
        Content::Query(query) => wire::build_query(&Query { credential, ..query.clone() }, session, NSLP_ID, signs),
        Content::Permission(permission) => {
            wire::build_permission(&Permission { credential, ..permission.clone() }, session, NSLP_ID, signs)
        }
        Content::Notice => return genuine.received.clone(),
    };
    ReceivedMessage { payload: payload.unwrap(), ..genuine.received.clone() }
}

/// Somebody who shows the certificate of another and signs with a key of his own.
#[derive(Debug)]
struct Impostor {
    shows: Arc<ToySigner>,
    signs: Arc<ToySigner>,
}

impl Signer for Impostor {
    fn certificate(&self) -> &Bytes {
        self.shows.certificate()
    }

    fn chain(&self) -> &[Bytes] {
        &[]
    }

    fn signature_length(&self) -> usize {
        self.signs.signature_length()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.signs.sign(message)
    }
}

/// One message of each shape among what others have sent.
pub(super) fn distinct(payloads: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
    let shape = |payload: &Bytes| (payload[0], objects(payload).iter().map(|object| object_type(object)).collect::<Vec<_>>());
    let by_shape: BTreeMap<_, _> = payloads.map(|payload| (shape(&payload), payload)).collect();
    by_shape.into_values().collect()
}

/// The objects of a whole message, with header and padding.
fn objects(message: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut objects) = (&message[4..], Vec::new());
    while rest.len() >= 4 {
        let length = 4 + usize::from(u16::from_be_bytes([rest[2], rest[3]])).next_multiple_of(4);
        let (object, behind) = rest.split_at(length);
        objects.push(object);
        rest = behind;
    }
    objects
}

fn object_type(object: &[u8]) -> u8 {
    object[0] << 4 | object[1] >> 4
}

/// The way of the message, for a flow that the attacker chooses.
pub(super) fn downstream(genuine: &Genuine) -> bool {
    genuine.received.mri.direction() == Direction::Downstream
}
