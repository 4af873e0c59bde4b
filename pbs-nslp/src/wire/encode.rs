//! Messages into bytes, in the draft's object order with extensions before Auth-data (P-021).

use bytes::Bytes;
use gist::wire::{NslpId, SessionId};

use super::rules::Violation;
use super::writer::Writer;
use super::{BuildError, MessageKind, Notify, ObjectType, Permission, Query};
use crate::credentials::Signer;

/// Builds and signs a Query.
///
/// # Errors
/// [`BuildError`] if receivers would refuse it, it is too large, or it cannot be signed.
pub fn build_query(query: &Query, session: SessionId, nslp_id: NslpId, signer: &dyn Signer) -> Result<Bytes, BuildError> {
    query.check().map_err(invalid)?;
    let mut writer = Writer::new(MessageKind::Query);
    writer.flow(query.flow)?;
    writer.word(ObjectType::MESSAGE_SEQ, query.number)?;
    if let Some(requested) = query.requested {
        writer.word(ObjectType::REQ_VOL, requested.saturated())?;
    }
    if let Some(sent) = query.sent {
        writer.word(ObjectType::SEND_VOL, sent.saturated())?;
    }
    writer.credential(&query.credential, signer)?;
    if let Some(context) = query.context {
        let words = [context.spi, context.highest, context.permission].map(u32::to_be_bytes);
        writer.object(ObjectType::VOL_CONTEXT, &[words.as_flattened()])?;
    }
    writer.twin(ObjectType::REQ_VOL64, query.requested)?;
    writer.twin(ObjectType::SEND_VOL64, query.sent)?;
    writer.chain(&query.credential)?;
    if let Some(algorithms) = &query.algorithms {
        writer.object(ObjectType::ALGS, &[algorithms])?;
    }
    if let Some(puzzle) = query.puzzle {
        writer.object(
            ObjectType::PUZZLE_SOLUTION,
            &[&puzzle.issuer.to_be_bytes(), &puzzle.nonce.to_be_bytes(), &puzzle.solution.to_be_bytes()],
        )?;
    }
    writer.sign(session, nslp_id, signer)
}

/// Builds and signs a Permission. The buffer is wiped when the last clone of it is dropped.
///
/// # Errors
/// [`BuildError`] if receivers would refuse it, it is too large, or it cannot be signed.
pub fn build_permission(permission: &Permission, session: SessionId, nslp_id: NslpId, signer: &dyn Signer) -> Result<Bytes, BuildError> {
    permission.check().map_err(invalid)?;
    let mut writer = Writer::new(MessageKind::Permission);
    writer.flow(permission.flow)?;
    writer.word(ObjectType::MESSAGE_SEQ, permission.number)?;
    writer.word(ObjectType::ALLOW_VOL, permission.allowed.saturated())?;
    writer.milliseconds(ObjectType::TTL, permission.ttl)?;
    writer.milliseconds(ObjectType::REFRESH, permission.refresh)?;
    writer.credential(&permission.credential, signer)?;
    if let Some(defense) = &permission.defense {
        writer.defense(defense)?;
    }
    if let Some(sa) = permission.sa {
        writer.sa_parameters(sa)?;
    }
    if let Some(echo) = permission.echo {
        writer.word(ObjectType::ECHO, echo)?;
    }
    writer.twin(ObjectType::ALLOW_VOL64, Some(permission.allowed))?;
    writer.chain(&permission.credential)?;
    writer.sign(session, nslp_id, signer)
}

/// Builds a Notify, which nobody signs.
///
/// # Errors
/// None for a Notify of this profile; the type is shared with the other messages.
pub fn build_notify(notify: &Notify) -> Result<Bytes, BuildError> {
    let mut writer = Writer::new(MessageKind::Notify);
    writer.flow(notify.flow)?;
    writer.info(notify)?;
    if let Some(challenge) = notify.challenge {
        writer.challenge(challenge)?;
    }
    Ok(writer.finish())
}

fn invalid((object, reason): Violation) -> BuildError {
    BuildError::Invalid { object, reason }
}
