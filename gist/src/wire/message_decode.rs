//! Reading a message (RFC 5971 Appendix A).

use bytes::Bytes;

use super::cookie::Cookie;
use super::decode_error::{DecodeError, DecodeFault, MessageContext, ValueError};
use super::error_cause::{HeaderFault, ObjectTypeFault, ObjectValueFault};
use super::error_object::GistError;
use super::header::{CommonHeader, HEADER_LENGTH, MessageType, VERSION, header_bytes};
use super::identifiers::SessionId;
use super::message::{Body, Confirm, Data, ErrorBody, Hello, Message, Query, ResponderPart, Response};
use super::mri::Mri;
use super::nat_traversal::NatTraversal;
use super::nli::NetworkLayerInformation;
use super::object::ObjectType;
use super::object_sequence::{ObjectSequence, calculated_length, missing_object, read_context, session};
use super::reader::Reader;
use super::stack_configuration::StackConfiguration;
use super::stack_offer::StackOffer;
use super::stack_proposal::StackProposal;

impl Message {
    /// Reads exactly one message: the common header and every object, without the magic number of D-mode.
    ///
    /// # Errors
    ///
    /// A [`DecodeError`] from which the Error message to send back can be made (RFC 5971 A.4.4.1, A.4.4.9, A.4.4.10).
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let Some(header) = header_bytes(&bytes) else {
            return Err(DecodeError { fault: DecodeFault::TooShort(bytes.len()), context: Box::default() });
        };
        let body = bytes.slice(HEADER_LENGTH..);
        let fields = CommonHeader::from_bytes(header);
        decode_body(fields, &body).map_err(|fault| {
            let mut context = MessageContext { header: Some(header), ..MessageContext::default() };
            // Another version's objects may look different.
            if fields.version == VERSION {
                read_context(&body, &mut context);
            }
            DecodeError { fault, context: Box::new(context) }
        })
    }
}

fn decode_body(header: CommonHeader, body: &Bytes) -> Result<Message, DecodeFault> {
    let message_type = check_header(header).map_err(header_fault)?;
    let calculated = calculated_length(body);
    let announced = usize::from(header.words);
    if body.len() != announced * 4 || calculated != announced {
        let calculated_length = Some(u16::try_from(calculated).unwrap_or(u16::MAX));
        return Err(DecodeFault::Header { fault: HeaderFault::IncorrectMessageLength, calculated_length });
    }
    let objects = ObjectSequence::read(body.clone(), message_type)?;
    let body = match message_type {
        MessageType::Query => Body::Query(query(&objects)?),
        MessageType::Response => Body::Response(response(&objects, header.reply_requested)?),
        MessageType::Confirm => Body::Confirm(confirm(&objects)?),
        MessageType::Data => Body::Data(data(&objects, header)?),
        MessageType::Error => Body::Error(error(&objects)?),
        MessageType::Hello => Body::Hello(hello(&objects, header.reply_requested)?),
    };
    Ok(Message {
        hop_count: header.hop_count,
        nslp_id: header.nslp_id,
        source_is_signalling: header.source_is_signalling,
        body,
        unknown: objects.unknown,
    })
}

/// What the header alone can have wrong, in the order of the subcodes.
fn check_header(header: CommonHeader) -> Result<MessageType, HeaderFault> {
    if header.version != VERSION {
        return Err(HeaderFault::UnknownVersion);
    }
    let message_type = header.message_type.map_err(|_| HeaderFault::UnknownType)?;
    let reply_fits = match message_type {
        MessageType::Query => header.reply_requested,
        MessageType::Response | MessageType::Hello => true,
        MessageType::Confirm | MessageType::Data | MessageType::Error => !header.reply_requested,
    };
    if !reply_fits {
        return Err(HeaderFault::InvalidRFlag);
    }
    if header.explicit && message_type != MessageType::Data {
        return Err(HeaderFault::InvalidEFlag);
    }
    let context_fits = match message_type {
        MessageType::Query => header.context_free,
        // Whether Data came in Q-mode is known to the receiver of the packet, not here.
        MessageType::Data => true,
        _ => !header.context_free,
    };
    if context_fits { Ok(message_type) } else { Err(HeaderFault::InvalidCFlag) }
}

fn query(objects: &ObjectSequence) -> Result<Query, DecodeFault> {
    Ok(Query {
        nat: complete_nat(objects)?,
        mri: mri(objects)?,
        session: session_of(objects)?,
        nli: objects.mandatory(ObjectType::NetworkLayerInformation, NetworkLayerInformation::decode)?,
        cookie: objects.mandatory(ObjectType::QueryCookie, cookie)?,
        stack: stack(objects)?,
        payload: payload(objects)?,
    })
}

fn response(objects: &ObjectSequence, confirm_requested: bool) -> Result<Response, DecodeFault> {
    let responder_cookie = objects.optional(ObjectType::ResponderCookie, cookie)?;
    // RFC 5971 A.1: whoever sends a Responder-Cookie wants it back.
    if responder_cookie.is_some() && !confirm_requested {
        return Err(header_fault(HeaderFault::InvalidRFlag));
    }
    needs(objects, ObjectType::StackProposal, ObjectType::ResponderCookie)?;
    needs(objects, ObjectType::StackConfigurationData, ObjectType::ResponderCookie)?;
    let stack = stack(objects)?;
    if let Some(offer) = &stack {
        ports(objects, &offer.configuration)?;
    }
    Ok(Response {
        nat: nat(objects)?,
        mri: mri(objects)?,
        session: session_of(objects)?,
        nli: objects.mandatory(ObjectType::NetworkLayerInformation, NetworkLayerInformation::decode)?,
        query_cookie: objects.mandatory(ObjectType::QueryCookie, cookie)?,
        confirm_requested,
        responder: responder_cookie.map(|cookie| ResponderPart { cookie, stack }),
        payload: payload(objects)?,
    })
}

fn confirm(objects: &ObjectSequence) -> Result<Confirm, DecodeFault> {
    needs(objects, ObjectType::StackProposal, ObjectType::ResponderCookie)?;
    needs(objects, ObjectType::StackConfigurationData, ObjectType::StackProposal)?;
    // Proposal and configuration are not held against each other here: one is the Responder's, the other the Querier's.
    Ok(Confirm {
        mri: mri(objects)?,
        session: session_of(objects)?,
        nli: objects.mandatory(ObjectType::NetworkLayerInformation, NetworkLayerInformation::decode)?,
        responder_cookie: objects.optional(ObjectType::ResponderCookie, cookie)?,
        proposal: objects.optional(ObjectType::StackProposal, StackProposal::decode)?,
        configuration: objects.optional(ObjectType::StackConfigurationData, StackConfiguration::decode)?,
        payload: payload(objects)?,
    })
}

fn data(objects: &ObjectSequence, header: CommonHeader) -> Result<Data, DecodeFault> {
    Ok(Data {
        nat: complete_nat(objects)?,
        mri: mri(objects)?,
        session: session_of(objects)?,
        nli: objects.optional(ObjectType::NetworkLayerInformation, NetworkLayerInformation::decode)?,
        payload: objects.mandatory(ObjectType::NslpData, Ok)?,
        explicit: header.explicit,
        context_free: header.context_free,
    })
}

fn error(objects: &ObjectSequence) -> Result<ErrorBody, DecodeFault> {
    Ok(ErrorBody {
        nat: nat(objects)?,
        nli: objects.optional(ObjectType::NetworkLayerInformation, NetworkLayerInformation::decode)?,
        error: objects.mandatory(ObjectType::Error, GistError::decode)?,
    })
}

fn hello(objects: &ObjectSequence, request: bool) -> Result<Hello, DecodeFault> {
    let id = objects.mandatory(ObjectType::HelloId, |value| {
        let mut reader = Reader::new(value);
        let id = reader.u32()?;
        reader.finish()?;
        // RFC 5971 §5.2.2: a request without an ID cannot be answered.
        if request && id == 0 {
            return Err(ValueError { fault: ObjectValueFault::ValueNotSupported, offset: 0 });
        }
        Ok(id)
    })?;
    Ok(Hello { request, id })
}

fn nat(objects: &ObjectSequence) -> Result<Option<NatTraversal>, DecodeFault> {
    objects.optional(ObjectType::NatTraversal, NatTraversal::decode)
}

/// On the way to the receiver every object with addresses must have been translated; a Response and an Error only echo
/// what was found there (RFC 5971 §7.2.3).
fn complete_nat(objects: &ObjectSequence) -> Result<Option<NatTraversal>, DecodeFault> {
    let nat = nat(objects)?;
    let untranslated = nat.as_ref().and_then(|nat| nat.untranslated(|kind| objects.contains(kind)));
    match untranslated {
        Some(object) => Err(DecodeFault::ObjectType { fault: ObjectTypeFault::Untranslated, object }),
        None => Ok(nat),
    }
}

fn mri(objects: &ObjectSequence) -> Result<Mri, DecodeFault> {
    objects.mandatory(ObjectType::MessageRoutingInformation, Mri::decode)
}

fn session_of(objects: &ObjectSequence) -> Result<SessionId, DecodeFault> {
    objects.mandatory(ObjectType::SessionIdentifier, session)
}

fn payload(objects: &ObjectSequence) -> Result<Option<Bytes>, DecodeFault> {
    objects.optional(ObjectType::NslpData, Ok)
}

fn cookie(value: Bytes) -> Result<Cookie, ValueError> {
    Ok(Cookie::from_value(value))
}

/// Proposal and configuration go together, and must fit each other (RFC 5971 §5.1, §5.7.1).
fn stack(objects: &ObjectSequence) -> Result<Option<StackOffer>, DecodeFault> {
    let proposal = objects.optional(ObjectType::StackProposal, StackProposal::decode)?;
    let configuration = objects.optional(ObjectType::StackConfigurationData, StackConfiguration::decode)?;
    let offer = match (proposal, configuration) {
        (None, None) => return Ok(None),
        (Some(proposal), Some(configuration)) => StackOffer { proposal, configuration },
        (Some(_), None) => return Err(missing_object(ObjectType::StackConfigurationData)),
        (None, Some(_)) => return Err(missing_object(ObjectType::StackProposal)),
    };
    match offer.mismatch() {
        None => Ok(Some(offer)),
        Some(mismatch) => Err(DecodeFault::ObjectValue {
            fault: ObjectValueFault::StackMismatch,
            objects: objects
                .info(ObjectType::StackProposal, mismatch.proposal_offset)
                .chain(objects.info(ObjectType::StackConfigurationData, mismatch.configuration_offset))
                .collect(),
        }),
    }
}

/// In a Response each usable Forwards-TCP must say at which port (RFC 5971 §5.7.2).
fn ports(objects: &ObjectSequence, configuration: &StackConfiguration) -> Result<(), DecodeFault> {
    match configuration.port_fault() {
        None => Ok(()),
        Some(ValueError { fault, offset }) => {
            Err(DecodeFault::ObjectValue { fault, objects: objects.info(ObjectType::StackConfigurationData, offset).collect() })
        }
    }
}

fn needs(objects: &ObjectSequence, present: ObjectType, needed: ObjectType) -> Result<(), DecodeFault> {
    if objects.contains(present) && !objects.contains(needed) { Err(missing_object(needed)) } else { Ok(()) }
}

fn header_fault(fault: HeaderFault) -> DecodeFault {
    DecodeFault::Header { fault, calculated_length: None }
}
