//! Which objects a message has, and in which order: what is missing, repeated, foreign or misplaced.

use gist::wire::{DecodeError, DecodeFault, ErrorCause, ErrorInfo, Message, ObjectType, ObjectTypeFault};

use crate::picture::{object, split, with_objects};
use crate::samples::{
    CONFIGURATION_OF_CONFIRM, CONFIGURATION_OF_QUERY, ERROR, MRI_DOWNSTREAM, NAT, NLI, PAYLOAD, PROPOSAL, QUERY_COOKIE, RESPONDER_COOKIE,
    SESSION, sample, samples,
};

/// The message types by what they must have, RFC 5971 §5.1.
const MANDATORY: [&[u16]; 6] = [&[0, 1, 2, 5], &[0, 1, 2, 5], &[0, 1, 2], &[0, 1, 8], &[9], &[10]];

/// The message types by what they may have.
const ALLOWED: [&[u16]; 6] =
    [&[7, 0, 1, 2, 5, 3, 4, 8], &[7, 0, 1, 2, 5, 6, 3, 4, 8], &[0, 1, 2, 6, 3, 4, 8], &[7, 0, 1, 2, 8], &[7, 2, 9], &[10]];

/// G-345: object types 0 to 10, and no other.
#[test]
fn object_types_have_their_assigned_numbers() {
    for (number, known) in (0..).zip(ObjectType::KNOWN) {
        assert_eq!((ObjectType::from_number(number), known.number()), (known, number));
    }
    for number in 11..4096 {
        assert_eq!(ObjectType::from_number(number), ObjectType::Unknown(number));
        assert_eq!(ObjectType::from_number(number).number(), number);
    }
}

/// G-136, G-383: subcode 2 for each mandatory object of each message; G-371: session and MRI go with the answer if there.
#[test]
fn a_message_without_a_mandatory_object_is_refused() {
    for sample in samples() {
        let objects = split(&sample.bytes);
        let mandatory = MANDATORY[sample.value.message_type() as usize];
        for (index, object) in objects.iter().enumerate() {
            let kind = u16::from_be_bytes([object[0], object[1]]);
            if !mandatory.contains(&kind) {
                continue;
            }
            let rest = [&objects[..index], &objects[index + 1..]].concat();
            let error = Message::decode(with_objects(&sample.bytes, &rest)).unwrap_err();
            assert_fault(&error, ObjectTypeFault::Missing, kind);
            if let Some(report) = error.to_gist_error() {
                assert_eq!(report.mri, sample.value.mri().cloned().filter(|_| kind != 0));
                assert_eq!(report.session, sample.value.session().filter(|_| kind != 1));
            }
        }
    }
}

/// G-136, G-383: subcode 0, whether the second one follows at once or at the end.
#[test]
fn a_repeated_object_is_refused() {
    for sample in samples() {
        let objects = split(&sample.bytes);
        for index in 0..objects.len() {
            let kind = u16::from_be_bytes([objects[index][0], objects[index][1]]);
            for place in [index + 1, objects.len()] {
                let mut repeated = objects.clone();
                repeated.insert(place, objects[index].clone());
                let error = Message::decode(with_objects(&sample.bytes, &repeated)).unwrap_err();
                assert_fault(&error, ObjectTypeFault::Duplicate, kind);
            }
        }
    }
}

/// G-136, G-148, G-383: subcode 3 for each known object in each message that does not have it.
#[test]
fn an_object_of_another_message_is_refused() {
    let all = [
        (0, MRI_DOWNSTREAM),
        (1, SESSION),
        (2, NLI),
        (3, PROPOSAL),
        (4, CONFIGURATION_OF_QUERY),
        (5, QUERY_COOKIE),
        (6, RESPONDER_COOKIE),
        (7, NAT),
        (8, PAYLOAD),
        (9, ERROR),
        (10, "00000001"),
    ];
    for sample in samples() {
        let allowed = ALLOWED[sample.value.message_type() as usize];
        for (kind, rows) in all.into_iter().filter(|(kind, _)| !allowed.contains(kind)) {
            for place in 0..=split(&sample.bytes).len() {
                let mut objects = split(&sample.bytes);
                objects.insert(place, object(kind, rows));
                let error = Message::decode(with_objects(&sample.bytes, &objects)).unwrap_err();
                assert_fault(&error, ObjectTypeFault::Invalid, kind);
            }
        }
    }
}

/// G-136, G-140, G-143, G-147: any two objects changed places are refused; the catalogue's nearest word is subcode 3.
#[test]
fn objects_that_changed_places_are_refused() {
    for sample in samples() {
        let objects = split(&sample.bytes);
        for first in 0..objects.len() {
            for second in first + 1..objects.len() {
                let mut swapped = objects.clone();
                swapped.swap(first, second);
                let error = Message::decode(with_objects(&sample.bytes, &swapped)).unwrap_err();
                let DecodeFault::ObjectType { fault, .. } = error.fault else {
                    panic!("{}: {error}", sample.name);
                };
                assert_eq!(fault, ObjectTypeFault::Invalid, "{}", sample.name);
            }
        }
    }
}

/// G-140, G-383: a Stack-Proposal and its configuration come together in a Query.
#[test]
fn a_query_with_half_a_stack_offer_is_refused() {
    let query = sample("smallest Query");
    let objects = split(&query);
    for (present, rows, missing) in [(3, PROPOSAL, 4), (4, CONFIGURATION_OF_QUERY, 3)] {
        let half = [&objects[..], &[object(present, rows)]].concat();
        assert_fault(&Message::decode(with_objects(&query, &half)).unwrap_err(), ObjectTypeFault::Missing, missing);
    }
}

/// G-143, G-383: in a Response the offer also needs the Responder-Cookie.
#[test]
fn a_response_with_half_an_offer_or_without_its_cookie_is_refused() {
    let bare = sample("smallest Response");
    let with_cookie = sample("Response with a cookie only");
    let cases = [
        (&with_cookie, vec![object(3, PROPOSAL)], 4),
        (&with_cookie, vec![object(4, CONFIGURATION_OF_QUERY)], 3),
        (&bare, vec![object(3, PROPOSAL)], 6),
        (&bare, vec![object(4, CONFIGURATION_OF_QUERY)], 6),
        (&bare, vec![object(3, PROPOSAL), object(4, CONFIGURATION_OF_QUERY)], 6),
    ];
    for (message, added, missing) in cases {
        let objects = [split(message), added].concat();
        assert_fault(&Message::decode(with_objects(message, &objects)).unwrap_err(), ObjectTypeFault::Missing, missing);
    }
}

/// G-147, G-383: in a Confirm the proposal needs the cookie, and the configuration needs the proposal.
#[test]
fn a_confirm_nests_cookie_proposal_and_configuration() {
    let bare = sample("smallest Confirm");
    let cookie = object(6, RESPONDER_COOKIE);
    let configuration = object(4, CONFIGURATION_OF_CONFIRM);
    let cases = [(vec![object(3, PROPOSAL)], 6), (vec![configuration.clone()], 3), (vec![cookie.clone(), configuration], 3)];
    for (added, missing) in cases {
        let objects = [split(&bare), added].concat();
        assert_fault(&Message::decode(with_objects(&bare, &objects)).unwrap_err(), ObjectTypeFault::Missing, missing);
    }
    let objects = [split(&bare), vec![cookie, object(3, PROPOSAL)]].concat();
    assert!(Message::decode(with_objects(&bare, &objects)).is_ok());
}

/// G-321, G-383: subcode 4 for each object with addresses that some NAT did not translate.
#[test]
fn an_untranslated_object_behind_a_nat_is_refused() {
    let cases = [
        ("full Query", "4001 0002", 0), // not the MRI, whatever the flags
        ("full Query", "0000 4001", 2),
        ("full Data", "0001 0002", 0),
        ("full Data", "0000 0001", 2),
    ];
    for (name, list, untranslated) in cases {
        let message = sample(name);
        let mut objects = split(&message);
        objects[0] = object(7, &NAT.replace("0000 0002", list));
        let error = Message::decode(with_objects(&message, &objects)).unwrap_err();
        assert_fault(&error, ObjectTypeFault::Untranslated, untranslated);
        assert!(error.context.nat.is_some(), "the answer has to repeat it (G-322)");
    }
    // In the other direction the object is only an echo.
    for name in ["full Response", "full Error"] {
        let message = sample(name);
        let mut objects = split(&message);
        objects[0] = object(7, &NAT.replace("0000 0002", "0001 0001"));
        assert!(Message::decode(with_objects(&message, &objects)).is_ok());
    }
}

/// Class 2, code 9, the subcode, and the object's type in an Object Type Info field (G-383).
pub(crate) fn assert_fault(error: &DecodeError, fault: ObjectTypeFault, kind: u16) {
    let object = ObjectType::from_number(kind);
    assert_eq!(error.fault, DecodeFault::ObjectType { fault, object }, "{error}");
    assert_eq!(error.cause(), Some(ErrorCause::ObjectType(fault)));
    if let Some(report) = error.to_gist_error() {
        assert_eq!((u8::from(report.class), report.code, report.subcode), (2, 9, fault as u8));
        assert_eq!(report.info, [ErrorInfo::ObjectType(kind)]);
    } else {
        assert!(error.is_about_error_message(), "only an Error goes unanswered");
    }
}
