//! Writing a message (RFC 5971 Appendix A).

use bytes::{BufMut, Bytes, BytesMut};

use super::cookie::Cookie;
use super::encode_error::EncodeError;
use super::header::{CommonHeader, VERSION};
use super::identifiers::{NslpId, SessionId};
use super::message::{Body, Confirm, Data, ErrorBody, Hello, Message, Query, Response};
use super::mri::Mri;
use super::nat_traversal::NatTraversal;
use super::nli::NetworkLayerInformation;
use super::object::{ObjectType, put_object};
use super::stack_configuration::StackConfiguration;
use super::stack_offer::StackOffer;
use super::stack_proposal::StackProposal;

impl Message {
    /// Appends the whole message to `out`, which stays as it was if that cannot be done.
    ///
    /// # Errors
    ///
    /// An [`EncodeError`] if the message is one that [`Message::decode`] would refuse.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut objects = BytesMut::new();
        match &self.body {
            Body::Query(body) => query(&mut objects, body)?,
            Body::Response(body) => response(&mut objects, body)?,
            Body::Confirm(body) => confirm(&mut objects, body)?,
            Body::Data(body) => data(&mut objects, body)?,
            Body::Error(body) => error(&mut objects, body)?,
            Body::Hello(body) => hello(&mut objects, *body)?,
        }
        self.unknown.iter().for_each(|object| objects.put_slice(object.as_bytes()));

        let words = objects.len() / 4;
        let header = CommonHeader {
            version: VERSION,
            hop_count: self.hop_count,
            words: u16::try_from(words).map_err(|_| EncodeError::MessageLength { words })?,
            // RFC 5971 §9, §5.6: these two belong to no signalling application.
            nslp_id: match &self.body {
                Body::Error(_) | Body::Hello(_) => NslpId::NONE,
                _ => self.nslp_id,
            },
            context_free: match &self.body {
                Body::Query(_) => true,
                Body::Data(body) => body.context_free,
                _ => false,
            },
            message_type: Ok(self.message_type()),
            source_is_signalling: self.source_is_signalling,
            reply_requested: match &self.body {
                Body::Query(_) => true,
                Body::Response(body) => body.confirm_requested,
                Body::Hello(body) => body.request,
                _ => false,
            },
            explicit: matches!(&self.body, Body::Data(body) if body.explicit),
        };
        header.encode(out);
        out.put(objects);
        Ok(())
    }

    /// The whole message in bytes of its own.
    ///
    /// # Errors
    ///
    /// As [`Message::encode`].
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        let mut out = BytesMut::new();
        self.encode(&mut out)?;
        Ok(out.freeze())
    }
}

fn query(out: &mut BytesMut, body: &Query) -> Result<(), EncodeError> {
    check_translated(body.nat.as_ref(), true)?;
    put_nat(out, body.nat.as_ref())?;
    put_routing(out, &body.mri, body.session)?;
    put_nli(out, Some(&body.nli))?;
    put_cookie(out, ObjectType::QueryCookie, Some(&body.cookie))?;
    put_offer(out, body.stack.as_ref())?;
    put_payload(out, body.payload.as_ref())
}

fn response(out: &mut BytesMut, body: &Response) -> Result<(), EncodeError> {
    if body.responder.is_some() && !body.confirm_requested {
        return Err(EncodeError::ReplyFlag);
    }
    let stack = body.responder.as_ref().and_then(|part| part.stack.as_ref());
    if stack.is_some_and(|offer| offer.configuration.port_fault().is_some()) {
        return Err(EncodeError::Field { object: ObjectType::StackConfigurationData, field: "Options Data" });
    }
    put_nat(out, body.nat.as_ref())?;
    put_routing(out, &body.mri, body.session)?;
    put_nli(out, Some(&body.nli))?;
    put_cookie(out, ObjectType::QueryCookie, Some(&body.query_cookie))?;
    put_cookie(out, ObjectType::ResponderCookie, body.responder.as_ref().map(|part| &part.cookie))?;
    put_offer(out, stack)?;
    put_payload(out, body.payload.as_ref())
}

fn confirm(out: &mut BytesMut, body: &Confirm) -> Result<(), EncodeError> {
    if body.proposal.is_some() && body.responder_cookie.is_none() {
        return Err(EncodeError::Missing { missing: ObjectType::ResponderCookie, present: ObjectType::StackProposal });
    }
    if body.configuration.is_some() && body.proposal.is_none() {
        return Err(EncodeError::Missing { missing: ObjectType::StackProposal, present: ObjectType::StackConfigurationData });
    }
    put_routing(out, &body.mri, body.session)?;
    put_nli(out, Some(&body.nli))?;
    put_cookie(out, ObjectType::ResponderCookie, body.responder_cookie.as_ref())?;
    put_stack(out, body.proposal.as_ref(), body.configuration.as_ref())?;
    put_payload(out, body.payload.as_ref())
}

fn data(out: &mut BytesMut, body: &Data) -> Result<(), EncodeError> {
    check_translated(body.nat.as_ref(), body.nli.is_some())?;
    put_nat(out, body.nat.as_ref())?;
    put_routing(out, &body.mri, body.session)?;
    put_nli(out, body.nli.as_ref())?;
    put_payload(out, Some(&body.payload))
}

fn error(out: &mut BytesMut, body: &ErrorBody) -> Result<(), EncodeError> {
    put_nat(out, body.nat.as_ref())?;
    put_nli(out, body.nli.as_ref())?;
    put_object(out, ObjectType::Error, |out| body.error.encode(out))
}

fn hello(out: &mut BytesMut, body: Hello) -> Result<(), EncodeError> {
    if body.request && body.id == 0 {
        return Err(EncodeError::Field { object: ObjectType::HelloId, field: "Hello-ID" });
    }
    put_object(out, ObjectType::HelloId, |out| {
        out.put_u32(body.id);
        Ok(())
    })
}

/// A receiver refuses a Query or Data in which a NAT has left addresses untranslated (RFC 5971 §7.2.3).
fn check_translated(nat: Option<&NatTraversal>, has_nli: bool) -> Result<(), EncodeError> {
    let is_present = |kind| has_nli || kind != ObjectType::NetworkLayerInformation;
    match nat.and_then(|nat| nat.untranslated(is_present)) {
        Some(_) => Err(EncodeError::Field { object: ObjectType::NatTraversal, field: "List of translated objects" }),
        None => Ok(()),
    }
}

fn put_nat(out: &mut BytesMut, nat: Option<&NatTraversal>) -> Result<(), EncodeError> {
    nat.map_or(Ok(()), |nat| put_object(out, ObjectType::NatTraversal, |out| nat.encode(out)))
}

fn put_routing(out: &mut BytesMut, mri: &Mri, SessionId(session): SessionId) -> Result<(), EncodeError> {
    put_object(out, ObjectType::MessageRoutingInformation, |out| mri.encode(out))?;
    put_bytes(out, ObjectType::SessionIdentifier, &session)
}

fn put_nli(out: &mut BytesMut, nli: Option<&NetworkLayerInformation>) -> Result<(), EncodeError> {
    nli.map_or(Ok(()), |nli| put_object(out, ObjectType::NetworkLayerInformation, |out| nli.encode(out)))
}

fn put_cookie(out: &mut BytesMut, kind: ObjectType, cookie: Option<&Cookie>) -> Result<(), EncodeError> {
    cookie.map_or(Ok(()), |cookie| put_bytes(out, kind, cookie.as_bytes()))
}

fn put_offer(out: &mut BytesMut, offer: Option<&StackOffer>) -> Result<(), EncodeError> {
    if offer.is_some_and(|offer| !offer.is_consistent()) {
        return Err(EncodeError::StackMismatch);
    }
    put_stack(out, offer.map(|offer| &offer.proposal), offer.map(|offer| &offer.configuration))
}

fn put_stack(out: &mut BytesMut, proposal: Option<&StackProposal>, configuration: Option<&StackConfiguration>) -> Result<(), EncodeError> {
    if let Some(proposal) = proposal {
        put_object(out, ObjectType::StackProposal, |out| proposal.encode(out))?;
    }
    if let Some(configuration) = configuration {
        put_object(out, ObjectType::StackConfigurationData, |out| configuration.encode(out))?;
    }
    Ok(())
}

fn put_payload(out: &mut BytesMut, payload: Option<&Bytes>) -> Result<(), EncodeError> {
    payload.map_or(Ok(()), |payload| put_bytes(out, ObjectType::NslpData, payload))
}

fn put_bytes(out: &mut BytesMut, kind: ObjectType, value: &[u8]) -> Result<(), EncodeError> {
    put_object(out, kind, |out| {
        out.put_slice(value);
        Ok(())
    })
}
