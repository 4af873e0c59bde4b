//! The sequence of objects after the common header: which may be there, and in which order (RFC 5971 §5.1).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::decode_error::{DecodeFault, MessageContext, ValueError};
use super::error_cause::ObjectTypeFault;
use super::error_object::ObjectValueInfo;
use super::header::{HEADER_LENGTH, MessageType};
use super::identifiers::SessionId;
use super::mri::Mri;
use super::nat_traversal::NatTraversal;
use super::nli::NetworkLayerInformation;
use super::object::{Extensibility, OBJECT_HEADER_LENGTH, ObjectHeader, ObjectType, UnknownObject};
use super::reader::Reader;

/// The objects a message type can have, in their order. Which of them it must have is said where it is read.
fn grammar(message_type: MessageType) -> &'static [ObjectType] {
    match message_type {
        MessageType::Query => &[
            ObjectType::NatTraversal,
            ObjectType::MessageRoutingInformation,
            ObjectType::SessionIdentifier,
            ObjectType::NetworkLayerInformation,
            ObjectType::QueryCookie,
            ObjectType::StackProposal,
            ObjectType::StackConfigurationData,
            ObjectType::NslpData,
        ],
        MessageType::Response => &[
            ObjectType::NatTraversal,
            ObjectType::MessageRoutingInformation,
            ObjectType::SessionIdentifier,
            ObjectType::NetworkLayerInformation,
            ObjectType::QueryCookie,
            ObjectType::ResponderCookie,
            ObjectType::StackProposal,
            ObjectType::StackConfigurationData,
            ObjectType::NslpData,
        ],
        MessageType::Confirm => &[
            ObjectType::MessageRoutingInformation,
            ObjectType::SessionIdentifier,
            ObjectType::NetworkLayerInformation,
            ObjectType::ResponderCookie,
            ObjectType::StackProposal,
            ObjectType::StackConfigurationData,
            ObjectType::NslpData,
        ],
        MessageType::Data => &[
            ObjectType::NatTraversal,
            ObjectType::MessageRoutingInformation,
            ObjectType::SessionIdentifier,
            ObjectType::NetworkLayerInformation,
            ObjectType::NslpData,
        ],
        MessageType::Error => &[ObjectType::NatTraversal, ObjectType::NetworkLayerInformation, ObjectType::Error],
        MessageType::Hello => &[ObjectType::HelloId],
    }
}

/// Walks over whole objects; stops before one that is cut off.
struct Objects {
    rest: Bytes,
}

impl Iterator for Objects {
    type Item = (ObjectHeader, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        let header = ObjectHeader::from_bytes(*self.rest.first_chunk()?);
        let length = OBJECT_HEADER_LENGTH + usize::from(header.words) * 4;
        (length <= self.rest.len()).then(|| (header, self.rest.split_to(length)))
    }
}

/// The message routing information of a message of which nothing else need be understood: its first object, behind a NAT-Traversal
/// object if there is one. `None` if it is not there, or of an unknown method (RFC 5971 §4.3.4).
#[must_use]
pub fn routing_information(message: &Bytes) -> Option<Mri> {
    let rest = message.slice(HEADER_LENGTH.min(message.len())..);
    let mut objects = Objects { rest }.skip_while(|(header, _)| header.kind == ObjectType::NatTraversal);
    let (header, object) = objects.next()?;
    let value = object.slice(OBJECT_HEADER_LENGTH..);
    (header.kind == ObjectType::MessageRoutingInformation).then(|| Mri::decode(value).ok()).flatten()
}

/// The words all objects in `body` together say they have, a last one that is cut off included.
pub(super) fn calculated_length(body: &Bytes) -> usize {
    let mut objects = Objects { rest: body.clone() };
    let whole: usize = objects.by_ref().map(|(_, object)| object.len() / 4).sum();
    let cut_off = objects.rest.first_chunk().map_or(0, |header| 1 + usize::from(ObjectHeader::from_bytes(*header).words));
    whole + cut_off
}

/// Reads what an Error about the message should contain, or needs to find its way, as far as it can be read.
pub(super) fn read_context(body: &Bytes, context: &mut MessageContext) {
    for (header, object) in (Objects { rest: body.clone() }) {
        let value = value_of(&object);
        match header.kind {
            ObjectType::MessageRoutingInformation if context.mri.is_none() => context.mri = Mri::decode(value).ok(),
            ObjectType::SessionIdentifier if context.session.is_none() => context.session = session(value).ok(),
            ObjectType::NetworkLayerInformation if context.nli.is_none() => {
                context.nli = NetworkLayerInformation::decode(value).ok();
            }
            ObjectType::NatTraversal if context.nat.is_none() => context.nat = NatTraversal::decode(value).ok(),
            _ => {}
        }
    }
}

/// Reads a Session-Identifier's value (RFC 5971 A.3.2).
pub(super) fn session(value: Bytes) -> Result<SessionId, ValueError> {
    let mut reader = Reader::new(value);
    let session = SessionId(reader.array()?);
    reader.finish()?;
    Ok(session)
}

/// A message's objects, each allowed in it, in order, and there at most once.
#[derive(Debug)]
pub(super) struct ObjectSequence {
    objects: BTreeMap<ObjectType, Bytes>,
    /// Unknown objects to be passed on.
    pub(super) unknown: Vec<UnknownObject>,
}

impl ObjectSequence {
    /// Takes the objects apart; reports the first that may not be there.
    pub(super) fn read(body: Bytes, message_type: MessageType) -> Result<Self, DecodeFault> {
        let grammar = grammar(message_type);
        let mut sequence = Self { objects: BTreeMap::new(), unknown: Vec::new() };
        let mut next_place = 0;
        for (header, object) in (Objects { rest: body }) {
            let refused = |fault| DecodeFault::ObjectType { fault, object: header.kind };
            // RFC 5971 A.2.1: AB=11 is refused whether the object is known or not.
            if header.extensibility == Extensibility::Reserved {
                return Err(refused(ObjectTypeFault::InvalidExtensibilityFlags));
            }
            if matches!(header.kind, ObjectType::Unknown(_)) {
                match header.extensibility {
                    Extensibility::Ignore => {}
                    Extensibility::Forward => sequence.unknown.extend(UnknownObject::new(object)),
                    _ => return Err(refused(ObjectTypeFault::Unrecognised)),
                }
                continue;
            }
            let place = grammar.iter().position(|kind| *kind == header.kind);
            let place = place.ok_or_else(|| refused(ObjectTypeFault::Invalid))?;
            if sequence.objects.insert(header.kind, object).is_some() {
                return Err(refused(ObjectTypeFault::Duplicate));
            }
            // The catalogue has no subcode of its own for a wrong order: the object is not valid at this place.
            if place < next_place {
                return Err(refused(ObjectTypeFault::Invalid));
            }
            next_place = place + 1;
        }
        Ok(sequence)
    }

    pub(super) fn contains(&self, kind: ObjectType) -> bool {
        self.objects.contains_key(&kind)
    }

    /// Reads an object's value; `None` if the object is absent.
    pub(super) fn optional<T>(
        &self,
        kind: ObjectType,
        read: impl FnOnce(Bytes) -> Result<T, ValueError>,
    ) -> Result<Option<T>, DecodeFault> {
        let Some(object) = self.objects.get(&kind) else {
            return Ok(None);
        };
        match read(value_of(object)) {
            Ok(value) => Ok(Some(value)),
            Err(error) => Err(DecodeFault::ObjectValue { fault: error.fault, objects: self.info(kind, error.offset).collect() }),
        }
    }

    /// Reads an object's value; an absent object is [`ObjectTypeFault::Missing`].
    pub(super) fn mandatory<T>(&self, kind: ObjectType, read: impl FnOnce(Bytes) -> Result<T, ValueError>) -> Result<T, DecodeFault> {
        self.optional(kind, read)?.ok_or(missing_object(kind))
    }

    /// The object for an error report, with the byte at fault counted from the start of the value.
    pub(super) fn info(&self, kind: ObjectType, offset_in_value: usize) -> impl Iterator<Item = ObjectValueInfo> {
        let object = self.objects.get(&kind);
        object.map(|object| ObjectValueInfo::new(object, OBJECT_HEADER_LENGTH + offset_in_value)).into_iter()
    }
}

pub(super) fn missing_object(object: ObjectType) -> DecodeFault {
    DecodeFault::ObjectType { fault: ObjectTypeFault::Missing, object }
}

fn value_of(object: &Bytes) -> Bytes {
    object.slice(OBJECT_HEADER_LENGTH.min(object.len())..)
}
