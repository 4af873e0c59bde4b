//! Messages made by hand, signed or not, from anybody.

use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use gist::api::ReceivedMessage;
use gist::wire::{Direction, Mri, SessionId};
use pbs_nslp::credentials::Signer;
use pbs_nslp::flow::FlowId;
use pbs_nslp::wire::{
    self, Credential, Defense, Notify, NotifyCode, Permission, Query, SaParameters, SharedKey, SymmetricAlgorithm, Volume,
};

use crate::credentials::ToySigner;
use crate::world::{NSLP_ID, Place, T, TTL, flow, handle, peer, principal, receiver_address, sender_address};

pub(crate) const SPI: u32 = 0x5000;

pub(crate) fn sender() -> Arc<ToySigner> {
    ToySigner::new(sender_address(), 1)
}

pub(crate) fn receiver() -> Arc<ToySigner> {
    ToySigner::new(receiver_address(), 2)
}

pub(crate) fn credential(signer: &ToySigner) -> Credential {
    Credential::Certificate { certificate: signer.certificate().clone(), chain: Vec::new() }
}

pub(crate) fn key(byte: u8) -> Defense {
    let algorithm = SymmetricAlgorithm::HmacSha256;
    Defense::SymmetricKey { algorithm, key: SharedKey::new(algorithm, vec![byte; 32]).unwrap() }
}

pub(crate) fn query(number: u32) -> Query {
    Query {
        flow: flow(),
        number,
        requested: Some(Volume(1000)),
        sent: None,
        credential: credential(&sender()),
        context: None,
        algorithms: None,
        puzzle: None,
    }
}

pub(crate) fn permission(number: u32) -> Permission {
    Permission {
        flow: flow(),
        number,
        allowed: Volume(1000),
        ttl: TTL,
        refresh: T,
        credential: credential(&receiver()),
        defense: Some(key(7)),
        sa: Some(SaParameters { spi: SPI, drain: Duration::from_millis(500), new_epoch: true }),
        echo: None,
    }
}

pub(crate) fn denial(number: u32) -> Permission {
    Permission { allowed: Volume::ZERO, ttl: Duration::ZERO, defense: None, sa: None, ..permission(number) }
}

/// A Query as it arrives from a neighbour.
pub(crate) fn query_from(from: Place, session: SessionId, query: &Query, signer: &ToySigner) -> ReceivedMessage {
    let payload = wire::build_query(query, session, NSLP_ID, signer).unwrap();
    arriving(from, session, query.flow.to_mri(Direction::Downstream), payload)
}

/// A Permission as it arrives from a neighbour.
pub(crate) fn permission_from(from: Place, session: SessionId, permission: &Permission, signer: &ToySigner) -> ReceivedMessage {
    let payload = wire::build_permission(permission, session, NSLP_ID, signer).unwrap();
    arriving(from, session, permission.flow.to_mri(Direction::Upstream), payload)
}

/// A notice as it arrives from a neighbour.
pub(crate) fn notice_from(from: Place, session: SessionId, flow: FlowId, code: NotifyCode) -> ReceivedMessage {
    let notify = Notify { flow, class: code.class(), code, detail: 0, number: 0, reporter: [192, 0, 2, 66].into(), challenge: None };
    arriving(from, session, flow.to_mri(Direction::Upstream), wire::build_notify(&notify).unwrap())
}

pub(crate) fn arriving(from: Place, session: SessionId, mri: Mri, payload: Bytes) -> ReceivedMessage {
    ReceivedMessage {
        nslp_id: NSLP_ID,
        session,
        mri,
        payload,
        association: None,
        peer: peer(from),
        peer_handle: handle(from),
        principal: principal(from),
        tentative: false,
        authenticated: true,
        hop_count: 60,
        ip_distance: None,
        reception: Default::default(),
    }
}

/// The same message with another signature.
pub(crate) fn spoiled(received: ReceivedMessage) -> ReceivedMessage {
    let mut payload = received.payload.to_vec();
    *payload.last_mut().unwrap() ^= 1;
    ReceivedMessage { payload: payload.into(), ..received }
}
