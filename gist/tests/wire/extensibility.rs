//! Objects that are not known: refused, dropped or passed on as their flags say.

use gist::wire::{Message, ObjectTypeFault, UnknownObject};

use crate::order::assert_fault;
use crate::picture::{flagged_object, split, with_objects};
use crate::samples::samples;

/// G-354: AB=00, at any place of any message.
#[test]
fn an_unknown_mandatory_object_refuses_the_message() {
    at_every_place(0, 11, |message, _| assert_fault(&message.unwrap_err(), ObjectTypeFault::Unrecognised, 11));
    at_every_place(0, 4095, |message, _| assert_fault(&message.unwrap_err(), ObjectTypeFault::Unrecognised, 4095));
}

/// G-355: AB=01.
#[test]
fn an_unknown_object_to_be_ignored_is_dropped() {
    at_every_place(1, 2000, |message, original| assert_eq!(message, Ok(original)));
}

/// G-356: AB=10; behind all others when sent on, unchanged.
#[test]
fn an_unknown_object_to_be_forwarded_is_kept_unchanged() {
    at_every_place(2, 2047, |message, original| {
        let message = message.unwrap();
        let object = flagged_object(2, 2047, "01020304");
        assert_eq!(message.unknown, [UnknownObject::new(object.clone()).unwrap()]);
        assert_eq!(Message { unknown: vec![], ..message.clone() }, original);
        let sent = message.to_bytes().unwrap();
        assert_eq!(split(&sent).last(), Some(&object));
        assert_eq!(Message::decode(sent), Ok(message));
    });
}

/// G-356: several, also of one type, stay in their order; reserved bits of the header are kept as well.
#[test]
fn unknown_objects_stay_in_order_and_verbatim() {
    for sample in samples() {
        let mut kept = [flagged_object(2, 3000, ""), flagged_object(2, 12, "00000001 00000002"), flagged_object(2, 3000, "ffffffff")];
        let mut header = kept[1].to_vec();
        header[0] |= 0x30;
        header[2] |= 0xf0;
        kept[1] = header.into();
        let bytes = with_objects(&sample.bytes, &[split(&sample.bytes), kept.to_vec()].concat());
        let message = Message::decode(bytes.clone()).unwrap();
        assert_eq!(message.unknown.iter().map(UnknownObject::as_bytes).collect::<Vec<_>>(), kept);
        assert_eq!(message.to_bytes().unwrap(), bytes);
    }
}

/// G-357: AB=11, whether the object is known or not.
#[test]
fn both_flags_set_refuse_the_message() {
    at_every_place(3, 11, |message, _| {
        assert_fault(&message.unwrap_err(), ObjectTypeFault::InvalidExtensibilityFlags, 11);
    });
    for sample in samples() {
        let mut at = 8;
        for object in split(&sample.bytes) {
            let mut bytes = sample.bytes.to_vec();
            bytes[at] |= 0xc0;
            let error = Message::decode(bytes.into()).unwrap_err();
            assert_fault(&error, ObjectTypeFault::InvalidExtensibilityFlags, u16::from_be_bytes([object[0], object[1]]));
            at += object.len();
        }
    }
}

/// The flags only say what to do with objects that are not understood (RFC 5971 A.2.1).
#[test]
fn one_flag_on_a_known_object_changes_nothing() {
    for sample in samples() {
        let mut at = 8;
        for object in split(&sample.bytes) {
            for flag in [0x40, 0x80] {
                let mut bytes = sample.bytes.to_vec();
                bytes[at] |= flag;
                assert_eq!(Message::decode(bytes.into()), Ok(sample.value.clone()));
            }
            at += object.len();
        }
    }
}

/// Only what would be passed on can be given as such.
#[test]
fn an_unknown_object_is_checked_when_made() {
    assert!(UnknownObject::new(flagged_object(2, 11, "01020304")).is_some());
    assert!(UnknownObject::new(flagged_object(2, 10, "01020304")).is_none(), "known");
    assert!(UnknownObject::new(flagged_object(0, 11, "01020304")).is_none(), "mandatory");
    assert!(UnknownObject::new(flagged_object(1, 11, "01020304")).is_none(), "to be ignored");
    assert!(UnknownObject::new(flagged_object(2, 11, "01020304").slice(..7)).is_none(), "cut off");
    assert!(UnknownObject::new(&b"\x80"[..]).is_none(), "no header");
}

type Decoded = Result<Message, gist::wire::DecodeError>;

/// Puts an object with one word of value into each sample at each place.
fn at_every_place(extensibility: u16, kind: u16, check: impl Fn(Decoded, Message)) {
    for sample in samples() {
        for place in 0..=split(&sample.bytes).len() {
            let mut objects = split(&sample.bytes);
            objects.insert(place, flagged_object(extensibility, kind, "01020304"));
            check(Message::decode(with_objects(&sample.bytes, &objects)), sample.value.clone());
        }
    }
}
