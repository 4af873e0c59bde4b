//! First pass over a message: splits it into objects and enforces everything that holds for objects of any type.

use core::ops::Range;

use super::object::HEADER_LENGTH;
use super::{DecodeError, MESSAGE_LIMIT, Malformation, MessageKind, ObjectType, Treatment};

/// An object in its place, header checked, value not looked at.
#[derive(Debug, Clone)]
pub(super) struct RawObject {
    pub(super) object: ObjectType,
    pub(super) treatment: Treatment,
    /// Header, value and padding.
    pub(super) whole: Range<usize>,
    /// The value alone.
    pub(super) value: Range<usize>,
}

/// A message's kind and its objects in transmitted order, each type at most once.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    pub(super) kind: MessageKind,
    pub(super) objects: Vec<RawObject>,
}

impl Scan {
    /// Splits a message.
    pub(super) fn new(raw: &[u8]) -> Result<Self, DecodeError> {
        if raw.len() > MESSAGE_LIMIT {
            return Err(at(MESSAGE_LIMIT, Malformation::TooLarge));
        }
        let header: [u8; HEADER_LENGTH] = head(raw, 0).ok_or(at(0, Malformation::Truncated))?;
        let [number, ..] = header; // the rest is reserved and ignored
        let kind = MessageKind::from_number(number).ok_or(at(0, Malformation::UnknownMessageType(number)))?;

        let mut scan = Self { kind, objects: Vec::new() };
        let mut seen = [false; 256];
        let mut after_signature = false;
        let mut offset = HEADER_LENGTH;
        while offset < raw.len() {
            let found = read_object(raw, offset).map_err(|error| scan.name(raw, error))?;
            let object = found.object;
            let fail = |reason| scan.name(raw, of(object, offset, reason));
            match object.known() {
                Some(known) if known.treatment != found.treatment => return Err(fail(Malformation::Treatment)),
                Some(known) if !known.may_stand_in(kind) => return Err(fail(Malformation::Misplaced)),
                None if found.treatment == Treatment::Mandatory => return Err(fail(Malformation::UnknownMandatory)),
                Some(_) | None => {}
            }
            if after_signature && found.treatment != Treatment::Ignore {
                // A second Auth-data is reported as what it is.
                let repeated = object == ObjectType::AUTH_DATA;
                let reason = if repeated { Malformation::Duplicate } else { Malformation::AfterSignature };
                return Err(fail(reason));
            }
            match seen.get_mut(usize::from(object.0)) {
                Some(seen) if !*seen => *seen = true,
                Some(_) | None => return Err(fail(Malformation::Duplicate)),
            }
            after_signature |= object == ObjectType::AUTH_DATA;
            offset = found.whole.end;
            scan.objects.push(found);
        }
        Ok(scan)
    }

    /// The object of a type, if present.
    pub(super) fn find(&self, object: ObjectType) -> Option<&RawObject> {
        self.objects.iter().find(|found| found.object == object)
    }

    /// The message's number if it has been met and has the right length.
    pub(super) fn number(&self, raw: &[u8]) -> Option<u32> {
        let value = self.find(ObjectType::MESSAGE_SEQ)?.value.clone();
        raw.get(value)?.try_into().map(u32::from_be_bytes).ok()
    }

    /// Puts the message's number into an error.
    pub(super) fn name(&self, raw: &[u8], error: DecodeError) -> DecodeError {
        DecodeError { number: self.number(raw), ..error }
    }
}

/// Reads one object's header and checks its extent and padding.
fn read_object(raw: &[u8], offset: usize) -> Result<RawObject, DecodeError> {
    let header: [u8; HEADER_LENGTH] = head(raw, offset).ok_or(at(offset, Malformation::Truncated))?;
    // Type in bits 4 to 11 and length in bits 16 to 31, unlike the shared NSLP object header.
    let [first, second, high, low] = header;
    let object = ObjectType(first << 4 | second >> 4);
    let treatment = Treatment::from_bits(first).ok_or(of(object, offset, Malformation::ReservedTreatment))?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let start = offset.saturating_add(HEADER_LENGTH);
    let value = start..start.saturating_add(length);
    let whole = offset..start.saturating_add(length.next_multiple_of(4));
    let padding = raw.get(value.end..whole.end).ok_or(of(object, offset, Malformation::Truncated))?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(of(object, value.end, Malformation::Padding));
    }
    Ok(RawObject { object, treatment, whole, value })
}

fn head<const N: usize>(raw: &[u8], offset: usize) -> Option<[u8; N]> {
    raw.get(offset..)?.first_chunk().copied()
}

fn at(offset: usize, reason: Malformation) -> DecodeError {
    DecodeError { reason, object: None, offset, number: None }
}

/// An error in an object.
pub(super) fn of(object: ObjectType, offset: usize, reason: Malformation) -> DecodeError {
    DecodeError { reason, object: Some(object), offset, number: None }
}
