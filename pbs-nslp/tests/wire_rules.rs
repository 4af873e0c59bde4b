//! What makes a message unacceptable, and the Notify code and detail that say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod wire_support;

use pbs_nslp::wire::{Malformation, Message, NotifyCode, ObjectType};
use wire_support::bytes_of::*;
use wire_support::*;

/// P-022, X-06: any order will do as long as Auth-data comes last.
#[test]
fn objects_may_come_in_any_order_before_the_signature() {
    for (kind, objects) in [(QUERY, least_query()), (PERMISSION, least_permission())] {
        let in_order = decode_bytes(&message(kind, &objects)).unwrap();
        let movable = objects.len() - 1;
        for rotation in 0..movable {
            for swap in 0..movable {
                let mut objects = objects.clone();
                objects[..movable].rotate_left(rotation);
                objects.swap(0, swap);
                let decoded = decode_bytes(&message(kind, &objects)).unwrap();
                match (&decoded, &in_order) {
                    (Message::Query(one), Message::Query(other)) => assert_eq!(one.message, other.message),
                    (Message::Permission(one), Message::Permission(other)) => assert_eq!(one.message, other.message),
                    _ => panic!("kinds differ"),
                }
            }
        }
    }
}

/// P-023, P-024, P-045: every object that a message cannot do without.
#[test]
fn each_mandatory_object_is_missed() {
    for (kind, objects) in [(QUERY, least_query()), (PERMISSION, least_permission()), (NOTIFY, vec![FID, INFO])] {
        for omitted in 0..objects.len() {
            let mut objects = objects.clone();
            let removed = hex(objects.remove(omitted));
            let expected = u16::from(removed[0] << 4 | removed[1] >> 4);
            assert_eq!(refusal(&message(kind, &objects)), (NotifyCode::MissingObject, expected));
        }
    }
}

/// P-023: Send-vol alone makes a Query too.
#[test]
fn query_needs_one_of_the_two_volumes() {
    let Message::Query(query) = decode_bytes(&message(QUERY, &[FID, MESSAGE_SEQ, SEND_VOL, PK_CERT, AUTH_DATA])).unwrap() else {
        panic!("a Query")
    };
    assert_eq!((query.message.requested, query.message.sent.map(|sent| sent.0)), (None, Some(0x4000)));
    assert!(!query.message.is_release());
}

/// P-025, X-07: every known object twice, unknown ones too.
#[test]
fn each_repeated_object_is_refused() {
    let query = [FID, MESSAGE_SEQ, REQ_VOL, SEND_VOL, PK_CERT, VOL_CONTEXT, CERT_CHAIN, ALGS, PUZZLE_SOLUTION, "8ef0 0000", "4ee0 0000"];
    let permission = [FID, MESSAGE_SEQ, ALLOW_VOL, TTL, REFRESH, PK_CERT, DEFENSE, SA_PARAMS, ECHO, "8e50 0008 00000000 00100000"];
    for (kind, objects, last) in
        [(QUERY, &query[..], AUTH_DATA), (PERMISSION, &permission[..], AUTH_DATA), (NOTIFY, &[FID, INFO, PUZZLE_CHALLENGE], "")]
    {
        decode_bytes(&message(kind, &[objects, &[last]].concat())).unwrap();
        for repeated in objects {
            let bytes = message(kind, &[objects, &[*repeated, last]].concat());
            assert_eq!(refusal(&bytes), (NotifyCode::DuplicateObject, type_of(repeated)));
        }
    }
    let twice_signed = [least_query(), vec![AUTH_DATA]].concat();
    assert_eq!(refusal(&message(QUERY, &twice_signed)), (NotifyCode::DuplicateObject, 10));
}

/// P-026: no object of another message type, before or after the signature.
#[test]
fn objects_of_other_messages_are_refused() {
    let everywhere = [FID, MESSAGE_SEQ, PK_CERT, AUTH_DATA, CERT_CHAIN, CGA_PARAMS];
    let of_query = [REQ_VOL, SEND_VOL, VOL_CONTEXT, "8e30 0008 00000000 00100000", "8e40 0008 00000000 00004000", ALGS, PUZZLE_SOLUTION];
    let of_permission = [ALLOW_VOL, TTL, REFRESH, DEFENSE, SA_PARAMS, ECHO, "8e50 0008 00000000 00100000"];
    let of_notify = [INFO, PUZZLE_CHALLENGE];
    let foreign = |kind: u8, objects: Vec<&str>, least: Vec<&str>| {
        for object in objects {
            let bytes = message(kind, &[vec![object], least.clone()].concat());
            assert_eq!(refusal(&bytes), (NotifyCode::Malformed, type_of(object)), "{object}");
        }
    };
    foreign(QUERY, [&of_permission[..], &of_notify].concat(), least_query());
    foreign(PERMISSION, [&of_query[..], &of_notify].concat(), least_permission());
    foreign(NOTIFY, [&everywhere[1..], &of_query, &of_permission].concat(), vec![FID, INFO]);
    let after = message(QUERY, &[least_query(), vec![INFO]].concat());
    assert_eq!(refusal(&after), (NotifyCode::Malformed, 0xEA));
}

/// P-036, X-10: a known object with another AB, for example Allow-vol64 marked as an unsigned hint.
#[test]
fn known_objects_with_another_treatment_are_refused() {
    let query = [FID, MESSAGE_SEQ, REQ_VOL, SEND_VOL, PK_CERT, VOL_CONTEXT, CERT_CHAIN, ALGS, PUZZLE_SOLUTION, AUTH_DATA];
    let permission =
        [FID, MESSAGE_SEQ, ALLOW_VOL, TTL, REFRESH, PK_CERT, DEFENSE, SA_PARAMS, ECHO, "8e50 0008 00000000 00100000", AUTH_DATA];
    for (kind, objects) in [(QUERY, &query[..]), (PERMISSION, &permission), (NOTIFY, &[FID, INFO, PUZZLE_CHALLENGE])] {
        decode_bytes(&message(kind, objects)).unwrap();
        for changed in 0..objects.len() {
            let offset = 4 + objects[..changed].iter().map(|object| hex(object).len()).sum::<usize>();
            for treatment in 0..4 {
                let mut bytes = message(kind, objects);
                if bytes[offset] >> 6 == treatment {
                    continue;
                }
                bytes[offset] = bytes[offset] & 0x3f | treatment << 6;
                // AB=11 has a code of its own.
                let code = if treatment == 3 { NotifyCode::ReservedTreatment } else { NotifyCode::Malformed };
                assert_eq!(refusal(&bytes), (code, type_of(objects[changed])));
            }
        }
    }
}

/// P-021, X-20: nothing but AB=01 after the signature, neither known nor unknown.
#[test]
fn only_hints_may_follow_the_signature() {
    for late in ["8ef0 0004 01020304", SEND_VOL, VOL_CONTEXT, ALGS] {
        let bytes = message(QUERY, &[least_query(), vec![late]].concat());
        assert_eq!(refusal(&bytes), (NotifyCode::Malformed, type_of(late)));
    }
    decode_bytes(&message(QUERY, &[least_query(), vec!["4ef0 0004 01020304"]].concat())).unwrap();
}

/// P-032, P-035: unknown objects marked AB=00 and AB=11, with their type in the answer.
#[test]
fn unknown_mandatory_objects_are_refused() {
    for (object, code) in [
        ("0ef0 0000", NotifyCode::UnknownMandatoryObject),
        ("0000 0000", NotifyCode::UnknownMandatoryObject),
        ("0ff0 0004 01020304", NotifyCode::UnknownMandatoryObject),
        ("cef0 0000", NotifyCode::ReservedTreatment),
    ] {
        for (kind, least) in [(QUERY, least_query()), (PERMISSION, least_permission()), (NOTIFY, vec![FID, INFO])] {
            let bytes = message(kind, &[vec![object], least].concat());
            assert_eq!(refusal(&bytes), (code, type_of(object)));
        }
    }
}

/// P-017.
#[test]
fn unknown_message_types_are_refused() {
    for kind in (0..=u8::MAX).filter(|kind| ![QUERY, PERMISSION, NOTIFY].contains(kind)) {
        assert_eq!(refusal(&message(kind, &least_query())), (NotifyCode::UnknownMessageType, u16::from(kind)));
    }
}

/// P-015, X-05, X-02, X-11: reserved bits of every header and object are ignored.
#[test]
fn reserved_bits_are_ignored() {
    let reserved = [
        "301f 0010  411f ffff 1388 2328 c000 0201 c633 6402",
        "302f 0004  6a5e 1234",
        "305f 0004  0010 0000",
        "306f 0004  0009 27c0",
        "307f 0004  0000 1388",
        "308f 0005  3003 0201 2a00 0000",
        "309f 0004  0100 ffff",
        "30af 0006  a1a2 a3a4 a5a6 0000",
    ];
    let mut bytes = message(PERMISSION, &reserved);
    bytes[1..4].fill(0xff);
    let Message::Permission(permission) = decode_bytes(&bytes).unwrap() else { panic!("a Permission") };
    assert_eq!((permission.message.flow, permission.message.allowed.0), (flow(), 0x10_0000));
    assert_eq!(permission.forwarded, bytes, "and passed on as they came");
    let objects = [FID, MESSAGE_SEQ, ALLOW_VOL, TTL, REFRESH, PK_CERT, DEFENSE, "3e0f 0008 00001001 07d0 7fff", AUTH_DATA];
    let Message::Permission(permission) = decode_bytes(&message(PERMISSION, &objects)).unwrap() else { panic!("a Permission") };
    assert!(!permission.message.sa.unwrap().new_epoch);
}

/// Errors name the object, the byte and, for the answer, the message's number.
#[test]
fn errors_say_what_is_wrong_and_where() {
    let error = decode_bytes(&message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, "0060 0004 00000001"])).unwrap_err();
    assert_eq!(error.to_string(), "TTL (6) at byte 40: does not belong in this message");
    assert_eq!((error.object, error.offset, error.number), (Some(ObjectType::TTL), 40, Some(0x6a5e_1234)));
    let error = decode_bytes(&message(0x77, &[FID])).unwrap_err();
    assert_eq!(error.to_string(), "byte 0: unknown message type 119");
    assert_eq!((error.reason, error.number), (Malformation::UnknownMessageType(0x77), None));
    let error = decode_bytes(&message(QUERY, &["0ef0 0000"])).unwrap_err();
    assert_eq!(error.to_string(), "unknown object (239) at byte 4: unknown and mandatory");
}

fn type_of(object: &str) -> u16 {
    let bytes = hex(object);
    u16::from(bytes[0] << 4 | bytes[1] >> 4)
}
