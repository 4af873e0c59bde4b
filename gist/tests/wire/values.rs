//! Objects whose content is refused, inside the message they came in: what the answer says about them.

use bytes::Bytes;
use gist::wire::{DecodeError, DecodeFault, ErrorCause, ErrorInfo, Message, ObjectValueFault, ObjectValueInfo};

use crate::picture::{object, split, with_objects};
use crate::samples::{
    CONFIGURATION_OF_QUERY, CONFIGURATION_OF_RESPONSE, ERROR, MRI_DOWNSTREAM, NAT, NLI, PROPOSAL, SESSION, downstream, sample, session,
};

use ObjectValueFault::{EmptyList, IncorrectLength, InvalidFlagFieldCombination, StackMismatch, ValueNotSupported};

/// G-353, G-384: a word more or less in each object of fixed or self-describing length is subcode 0.
#[test]
fn an_object_of_the_wrong_length_is_refused() {
    for (message, kind, rows) in [
        ("full Query", 0, MRI_DOWNSTREAM),
        ("full Query", 1, SESSION),
        ("full Query", 2, NLI),
        ("full Query", 3, PROPOSAL),
        ("full Query", 4, CONFIGURATION_OF_QUERY),
        ("full Query", 7, NAT),
        ("full Response", 4, CONFIGURATION_OF_RESPONSE),
        ("MA-Hello that asks", 10, "00000001"),
    ] {
        let good = object(kind, rows);
        let longer = object(kind, &format!("{rows}\n 00000000"));
        let end = good.len();
        assert_refused(message, &longer, IncorrectLength, end);
        let shorter = resized(&good, good.len() - 4);
        assert_refused_somewhere(message, &shorter, IncorrectLength);
        assert_refused_somewhere(message, &resized(&good, 4), IncorrectLength);
    }
}

/// G-151, G-152: R=1 with Hello-ID 0.
#[test]
fn a_hello_that_asks_needs_an_id() {
    assert_refused("MA-Hello that asks", &object(10, "00000000"), ValueNotSupported, 4);
}

/// G-164: the times that are never sent are not taken either.
#[test]
fn zero_times_are_refused() {
    assert_refused("full Query", &object(2, &NLI.replace("00007530", "00000000")), ValueNotSupported, 8);
    assert_refused("full Data", &object(2, &NLI.replace("00007530", "00000000")), ValueNotSupported, 8);
    let configuration = CONFIGURATION_OF_QUERY.replace("00007530", "00000000");
    assert_refused("full Query", &object(4, &configuration), ValueNotSupported, 8);
    assert_refused("full Confirm", &object(4, "00 000000 00000000"), ValueNotSupported, 8);
}

/// G-365: an identity nobody has, an address of an unknown IP version.
#[test]
fn network_layer_information_without_identity_or_address_is_refused() {
    assert_refused("full Query", &object(2, "00 40 40 00 00007530 c0000201"), ValueNotSupported, 4);
    assert_refused("full Query", &object(2, &NLI.replace("05 40 40", "05 40 50")), ValueNotSupported, 6);
}

/// G-366: no profile is subcode 1, an empty profile subcode 3; protocol 0 is reserved.
#[test]
fn empty_stack_proposals_are_refused() {
    for message in ["full Query", "full Response", "full Confirm"] {
        assert_refused(message, &object(3, "00 000000"), ValueNotSupported, 4);
        assert_refused(message, &object(3, "01 000000 00 000000"), EmptyList, 8);
        assert_refused(message, &object(3, "02 000000 01 010000 00 000000"), EmptyList, 12);
        assert_refused(message, &object(3, "02 000000 01 010000 02 020000"), ValueNotSupported, 14);
    }
}

/// G-360, G-384: one MRI for all; the module on MRIs has every combination.
#[test]
fn an_mri_that_contradicts_itself_is_refused() {
    for message in ["full Query", "full Response", "full Confirm", "full Data"] {
        let contradicting = MRI_DOWNSTREAM.replace("48c0", "40c0");
        assert_refused(message, &object(0, &contradicting), InvalidFlagFieldCombination, 7);
    }
}

/// G-369: the original MRI is checked like any other; the offset counts from the object's start.
#[test]
fn a_contradiction_within_nat_traversal_is_found_where_it_stands() {
    assert_refused("full Query", &object(7, &NAT.replace("48c0", "40c0")), InvalidFlagFieldCombination, 4 + 4 + 3);
    assert_refused("full Data", &object(7, &NAT.replace("00 00 48c0", "07 00 48c0")), ValueNotSupported, 4 + 4);
    assert_refused("full Query", &object(7, "01 00 00 00 00004800"), IncorrectLength, 4 + 4 + 4);
}

/// G-371 to G-373; an Error is never answered with an Error (RFC 5971 §5.6).
#[test]
fn a_malformed_error_is_refused_and_not_answered() {
    let cases = [
        (ERROR.replace("f8 00 05 01", "e8 00 05 01"), InvalidFlagFieldCombination, 8), // Q without D
        (ERROR.replace("f8 00 05 01", "b8 00 05 01"), InvalidFlagFieldCombination, 10), // MRI length without M
        (ERROR.replace("f8 00 05 01", "f8 00 00 01"), InvalidFlagFieldCombination, 10), // M without MRI length
        (ERROR.replace("48c0", "40c0"), InvalidFlagFieldCombination, 4 + 32 + 3),      // in the MRI
        (ERROR.replace("68c3a9 00", "68c328 00"), ValueNotSupported, 4 + 60 + 1),      // not UTF-8
        (ERROR.replace("68c3a9 00", "68c3a961"), IncorrectLength, 4 + 64),             // no NUL
        (ERROR.replace("68c3a9 00", "68c3a900 00000000"), IncorrectLength, 4 + 68),    // a word of NULs too many
        (ERROR.replace("f8 00 05 01", "d8 00 05 01"), IncorrectLength, 4 + 60),        // a comment without C
        (ERROR.replace("0003 0001 0006 0000", "0003 0000 00000000"), IncorrectLength, 4 + 54), // information too short
        (ERROR.replace("0003 0001 0006 0000", "0004 0001 0006 0000"), IncorrectLength, 4 + 54), // an object that is not there
        (ERROR.replace("0003 0001 0006 0000", "0003 0009 0006 0000"), IncorrectLength, 4 + 64), // information too long
    ];
    for (rows, fault, offset) in cases {
        let error = decode_with("full Error", &object(9, &rows)).unwrap_err();
        assert_info(&error, fault, &[(object(9, &rows), offset)]);
        assert!(error.is_about_error_message());
        assert_eq!(error.to_gist_error(), None);
    }
}

/// G-222, G-234: options for a profile that does not exist, for a protocol not offered there, and TCP without options.
#[test]
fn a_stack_offer_that_contradicts_itself_is_refused_with_both_objects() {
    // Configuration, and the byte at fault in proposal and configuration.
    let cases = [
        ("01 000000 00007530 01 03 00 00", 4, 12),             // a third profile
        ("02 000000 00007530 01 00 00 00 02 02 00 00", 4, 16), // TLS in the profile of TCP alone
        ("02 000000 00007530 01 00 00 00 03 00 00 00", 4, 16), // a protocol offered nowhere
        ("02 000000 00007530 01 00 02 00 abcd0000 03 00 00 00", 4, 20),
        ("00 000000 00007530", 8, 4),              // TCP without options
        ("01 000000 00007530 01 01 00 00", 12, 4), // for one profile only
    ];
    for (rows, in_proposal, in_configuration) in cases {
        let configuration = object(4, rows);
        let error = decode_with("full Query", &configuration).unwrap_err();
        assert_info(&error, StackMismatch, &[(object(3, PROPOSAL), in_proposal), (configuration, in_configuration)]);
        assert_report(&error, StackMismatch);
    }
    let good = [
        "01 000000 00007530 01 00 00 00",             // for all
        "02 000000 00007530 01 01 00 00 01 02 00 00", // one by one
        "02 000000 00007530 01 00 00 00 02 00 00 00", // TLS needs no options and may have some
        "01 000000 00007530 01 00 00 80",             // a NAT forbids TCP
    ];
    for rows in good {
        assert!(decode_with("full Query", &object(4, rows)).is_ok(), "{rows}");
    }
}

/// G-146: a Confirm repeats the Responder's proposal and the Querier's hold time, which are not held against each other.
#[test]
fn a_confirm_may_leave_out_all_options() {
    assert!(decode_with("full Confirm", &object(4, "00 000000 00007530")).is_ok());
    assert!(decode_with("full Confirm", &object(4, "01 000000 00007530 01 09 00 00")).is_ok());
}

/// G-234: a Response says at which port; a protocol that is forbidden needs none.
#[test]
fn a_response_without_a_port_is_refused() {
    assert_refused("full Response", &object(4, "01 000000 00007530 01 00 00 00"), IncorrectLength, 14);
    assert_refused("full Response", &object(4, "01 000000 00007530 01 00 01 00 76000000"), IncorrectLength, 14);
    assert_refused("full Response", &object(4, "01 000000 00007530 01 00 02 00 00000000"), ValueNotSupported, 16);
    assert!(decode_with("full Response", &object(4, "01 000000 00007530 01 00 04 00 763e0000")).is_ok());
    assert!(decode_with("full Response", &object(4, "01 000000 00007530 01 00 00 80")).is_ok());
}

/// An answer that repeats a refused object must itself fit a datagram.
#[test]
fn a_long_object_is_cut_in_the_report() {
    let rows = format!("01 000000 {}", "00000000".repeat(1000));
    let error = decode_with("full Query", &object(3, &rows)).unwrap_err();
    let DecodeFault::ObjectValue { objects, .. } = &error.fault else { panic!("{error}") };
    assert_eq!(objects[0].object, object(3, &rows).slice(..ObjectValueInfo::MAX_OBJECT_LENGTH));
}

/// The message with the object of the same type replaced.
fn decode_with(name: &str, replacement: &Bytes) -> Result<Message, DecodeError> {
    let message = sample(name);
    let mut objects = split(&message);
    let place = objects.iter().position(|object| object[..2] == replacement[..2]).unwrap();
    objects[place] = replacement.clone();
    Message::decode(with_objects(&message, &objects))
}

fn assert_refused(name: &str, replacement: &Bytes, fault: ObjectValueFault, offset: usize) {
    let error = decode_with(name, replacement).unwrap_err();
    assert_info(&error, fault, &[(replacement.clone(), offset)]);
    assert_report(&error, fault);
}

fn assert_refused_somewhere(name: &str, replacement: &Bytes, fault: ObjectValueFault) {
    let error = decode_with(name, replacement).unwrap_err();
    let DecodeFault::ObjectValue { fault: found, objects } = &error.fault else { panic!("{name}: {error}") };
    assert_eq!((*found, objects.len(), &objects[0].object), (fault, 1, replacement), "{name}");
    assert!(usize::from(objects[0].offset) <= replacement.len(), "the fault is in the object, or at its end");
    assert_report(&error, fault);
}

fn assert_info(error: &DecodeError, fault: ObjectValueFault, objects: &[(Bytes, usize)]) {
    let objects = objects.iter().map(|(object, offset)| ObjectValueInfo::new(object, *offset)).collect();
    assert_eq!(error.fault, DecodeFault::ObjectValue { fault, objects });
}

/// Class 2, code 10, the subcode, the objects, and session and MRI as far as they are good (G-371, G-384).
fn assert_report(error: &DecodeError, fault: ObjectValueFault) {
    assert_eq!(error.cause(), Some(ErrorCause::ObjectValue(fault)));
    let report = error.to_gist_error().unwrap();
    assert_eq!((u8::from(report.class), report.code, report.subcode), (2, 10, fault as u8));
    let DecodeFault::ObjectValue { objects, .. } = &error.fault else { panic!("{error}") };
    assert_eq!(report.info, objects.iter().cloned().map(ErrorInfo::ObjectValue).collect::<Vec<_>>());
    let is_faulty = |kind: u8| objects[0].object[..2] == [0, kind];
    let has_none = report.header[6] & 0x7f == 5;
    assert_eq!(report.session, Some(session()).filter(|_| !is_faulty(1) && !has_none));
    let mri = report.mri.map(|mri| mri.with_direction(downstream().direction()));
    assert_eq!(mri, Some(downstream()).filter(|_| !is_faulty(0) && !has_none));
}

/// The object cut to `length` bytes, its header set right.
fn resized(object: &[u8], length: usize) -> Bytes {
    let mut object = object[..length].to_vec();
    object[2..4].copy_from_slice(&u16::try_from((length - 4) / 4).unwrap().to_be_bytes());
    object.into()
}
