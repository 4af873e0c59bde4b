//! Second pass over a message: object values into the typed message, with every rule that needs no other knowledge.

use bytes::Bytes;
use gist::wire::{NslpId, SessionId};
use zeroize::Zeroizing;

use super::scan::{RawObject, Scan, of};
use super::secret::wiped_on_drop;
use super::signature::signed_bytes;
use super::value::Reader;
use super::{
    Credential, DecodeError, Malformation, Message, MessageKind, Notify, ObjectType, Permission, Query, Signed, Treatment, Unsigned, Volume,
};
use crate::flow::FlowId;

/// Decodes a message received under a session and NSLP identifier, which its signature covers too.
///
/// # Errors
/// [`DecodeError`] names the fault, the object and the offset, and the Notify that answers.
pub fn decode(raw: Bytes, session: SessionId, nslp_id: NslpId) -> Result<Message, DecodeError> {
    let scan = Scan::new(&raw)?;
    let objects = Objects { raw: &raw, scan: &scan };
    let message = match scan.kind {
        MessageKind::Query => objects.query().and_then(|query| objects.signed(query, session, nslp_id)).map(Message::Query),
        MessageKind::Permission => {
            objects.permission().and_then(|permission| objects.signed(permission, session, nslp_id)).map(Message::Permission)
        }
        MessageKind::Notify => objects.notify().map(|message| {
            let forwarded = objects.forwarded().map_or_else(|| raw.clone(), Bytes::from);
            Message::Notify(Unsigned { message, raw: raw.clone(), forwarded })
        }),
    };
    message.map_err(|error| scan.name(&raw, error))
}

/// The objects of one message.
struct Objects<'a> {
    raw: &'a [u8],
    scan: &'a Scan,
}

impl<'a> Objects<'a> {
    fn query(&self) -> Result<Query, DecodeError> {
        let flow = self.flow()?;
        let query = Query {
            flow,
            number: self.required(ObjectType::MESSAGE_SEQ, Reader::word)?,
            requested: self.volume(ObjectType::REQ_VOL, ObjectType::REQ_VOL64)?,
            sent: self.volume(ObjectType::SEND_VOL, ObjectType::SEND_VOL64)?,
            credential: self.credential()?,
            context: self.optional(ObjectType::VOL_CONTEXT, Reader::volume_context)?,
            algorithms: self.optional(ObjectType::ALGS, Reader::algorithms)?,
            puzzle: self.optional(ObjectType::PUZZLE_SOLUTION, Reader::puzzle_solution)?,
        };
        query.check().map_err(|(object, reason)| self.error(object, reason))?;
        Ok(query)
    }

    fn permission(&self) -> Result<Permission, DecodeError> {
        let flow = self.flow()?;
        let allowed = self.volume(ObjectType::ALLOW_VOL, ObjectType::ALLOW_VOL64)?;
        let permission = Permission {
            flow,
            number: self.required(ObjectType::MESSAGE_SEQ, Reader::word)?,
            allowed: allowed.ok_or_else(|| self.missing(ObjectType::ALLOW_VOL))?,
            ttl: self.required(ObjectType::TTL, Reader::milliseconds)?,
            refresh: self.required(ObjectType::REFRESH, Reader::milliseconds)?,
            credential: self.credential()?,
            defense: self.optional(ObjectType::DEFENSE, Reader::defense)?,
            sa: self.optional(ObjectType::SA_PARAMS, Reader::sa_parameters)?,
            echo: self.optional(ObjectType::ECHO, Reader::word)?,
        };
        permission.check().map_err(|(object, reason)| self.error(object, reason))?;
        Ok(permission)
    }

    fn notify(&self) -> Result<Notify, DecodeError> {
        let flow = self.flow()?;
        let info = self.required(ObjectType::INFO, Reader::info)?;
        let challenge = self.optional(ObjectType::PUZZLE_CHALLENGE, Reader::puzzle_challenge)?;
        Ok(info.into_notify(flow, challenge))
    }

    fn signed<M>(&self, message: M, session: SessionId, nslp_id: NslpId) -> Result<Signed<M>, DecodeError> {
        let signature = self.required(ObjectType::AUTH_DATA, Reader::signature)?;
        // Own copies, wiped when dropped, since a Permission contains the key.
        let raw = wiped_on_drop(Zeroizing::new(self.raw.to_vec()));
        let forwarded = self.forwarded().map_or_else(|| raw.clone(), |bytes| wiped_on_drop(Zeroizing::new(bytes)));
        let signed_bytes = wiped_on_drop(signed_bytes(self.raw, self.scan, session, nslp_id));
        Ok(Signed { message, raw, forwarded, signed_bytes, signature })
    }

    /// The message without unknown objects marked AB=01; `None` if it has none (P-033).
    fn forwarded(&self) -> Option<Vec<u8>> {
        let deleted = |object: &RawObject| object.treatment == Treatment::Ignore && object.object.known().is_none();
        if !self.scan.objects.iter().any(deleted) {
            return None;
        }
        let mut kept = Vec::with_capacity(self.raw.len());
        let header = self.scan.objects.first().map_or(self.raw.len(), |first| first.whole.start);
        kept.extend_from_slice(self.raw.get(..header).unwrap_or_default());
        for object in self.scan.objects.iter().filter(|object| !deleted(object)) {
            kept.extend_from_slice(self.raw.get(object.whole.clone()).unwrap_or_default());
        }
        Some(kept)
    }

    fn flow(&self) -> Result<FlowId, DecodeError> {
        self.required(ObjectType::FID, Reader::flow)
    }

    /// A 32-bit volume, or its 64-bit twin if that is there too and agrees.
    fn volume(&self, object: ObjectType, twin: ObjectType) -> Result<Option<Volume>, DecodeError> {
        let word = self.optional(object, Reader::word)?;
        let exact = self.optional(twin, Reader::long)?.map(Volume);
        match (word, exact) {
            (Some(word), Some(exact)) if exact.saturated() == word => Ok(Some(exact)),
            (Some(_), Some(_)) => Err(self.error(twin, Malformation::TwinMismatch)),
            (None, Some(_)) => Err(self.missing(object)),
            (word, None) => Ok(word.map(|word| Volume(u64::from(word)))),
        }
    }

    fn credential(&self) -> Result<Credential, DecodeError> {
        let certificate = self.optional(ObjectType::PK_CERT, Reader::certificate)?;
        let chain = self.optional(ObjectType::CERT_CHAIN, Reader::chain)?;
        let cga = self.optional(ObjectType::CGA_PARAMS, Reader::cga)?;
        match (certificate, cga) {
            (Some(certificate), None) => Ok(Credential::Certificate { certificate, chain: chain.unwrap_or_default() }),
            (Some(_), Some(_)) => Err(self.error(ObjectType::CGA_PARAMS, Malformation::Combination("stands beside PK-cert"))),
            (None, Some(_)) if chain.is_some() => {
                Err(self.error(ObjectType::CERT_CHAIN, Malformation::Combination("stands beside CGA-Params")))
            }
            (None, Some(cga)) => Ok(Credential::Cga(cga)),
            (None, None) => Err(self.missing(ObjectType::PK_CERT)),
        }
    }

    fn required<T>(&self, object: ObjectType, read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformation>) -> Result<T, DecodeError> {
        self.optional(object, read)?.ok_or_else(|| self.missing(object))
    }

    /// Reads an object's whole value.
    fn optional<T>(
        &self,
        object: ObjectType,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformation>,
    ) -> Result<Option<T>, DecodeError> {
        let Some(found) = self.scan.find(object) else {
            return Ok(None);
        };
        let value = self.raw.get(found.value.clone()).unwrap_or_default();
        let mut reader = Reader::new(value);
        let result = read(&mut reader).and_then(|value| reader.finish().map(|()| value));
        result.map(Some).map_err(|reason| self.error(object, reason))
    }

    fn missing(&self, object: ObjectType) -> DecodeError {
        self.error(object, Malformation::Missing)
    }

    /// An error at an object, or at the end of the message if it is not there.
    fn error(&self, object: ObjectType, reason: Malformation) -> DecodeError {
        let offset = self.scan.find(object).map_or(self.raw.len(), |found| found.whole.start);
        of(object, offset, reason)
    }
}
