//! The error catalogue, and errors about messages that are well formed.

use gist::wire::{
    ErrorCause, ErrorClass, ErrorInfo, GistError, HeaderFault, Message, MriFault, ObjectType, ObjectValueFault, ObjectValueInfo,
    header_bytes,
};

use crate::picture::{object, split};
use crate::samples::{MRI_DOWNSTREAM, QUERY_COOKIE, downstream, sample, session};

/// G-374 to G-386: class, code and highest subcode of each entry.
#[test]
fn the_catalogue_has_the_assigned_numbers() {
    let catalogue = [
        (1, 2, 5),
        (2, 4, 0),
        (3, 2, 0),
        (4, 2, 0),
        (5, 2, 0),
        (6, 4, 0),
        (7, 4, 0),
        (8, 4, 0),
        (9, 2, 5),
        (10, 2, 5),
        (11, 4, 0),
        (12, 4, 2),
    ];
    let mut entries = 0;
    for (code, class, highest) in catalogue {
        for subcode in 0..=highest {
            let cause = ErrorCause::from_codes(code, subcode).unwrap();
            assert_eq!((cause.code(), u8::from(cause.class()), cause.subcode()), (code, class, subcode));
            entries += 1;
        }
        assert_eq!(ErrorCause::from_codes(code, highest + 1), None);
    }
    assert_eq!(entries, ErrorCause::ALL.len());
    assert_eq!((ErrorCause::from_codes(0, 0), ErrorCause::from_codes(13, 0)), (None, None));
    for number in 0..=255 {
        assert_eq!(u8::from(ErrorClass::from(number)), number);
    }
}

/// G-371, G-375: an error about a good message names its session and MRI, except a header error.
#[test]
fn an_error_about_a_good_message_says_which() {
    let bytes = sample("smallest Data");
    let header = header_bytes(&bytes).unwrap();
    let message = Message::decode(bytes).unwrap();
    let error = message.refused_for(ErrorCause::NoRoutingState, header);
    assert_eq!((error.session, error.mri, error.header), (Some(session()), Some(downstream()), header));
    assert_eq!((error.class, error.code), (ErrorClass::ProtocolError, 5));
    let error = message.refused_for(ErrorCause::CommonHeaderParse(HeaderFault::InvalidCFlag), header);
    assert_eq!((error.session, error.mri, error.code, error.subcode), (None, None, 1, 5));
}

/// G-384, G-386: faults found after decoding name the object like those found while decoding.
#[test]
fn an_object_can_be_named_after_decoding() {
    let mri = object(0, MRI_DOWNSTREAM);
    assert_eq!(
        ObjectValueInfo::from_value(ObjectType::MessageRoutingInformation, &mri[4..], 13),
        ObjectValueInfo { offset: 17, object: mri }
    );
    let cookie = split(&sample("smallest Query")).pop().unwrap();
    assert_eq!(cookie, object(5, QUERY_COOKIE));
    let info = ObjectValueInfo::from_value(ObjectType::QueryCookie, &cookie[4..], 0);
    let cause = ErrorCause::ObjectValue(ObjectValueFault::InvalidCookie);
    let error = GistError { info: vec![ErrorInfo::ObjectValue(info)], ..GistError::new(cause, [0; 8]) };
    let mut out = bytes::BytesMut::new();
    error.encode(&mut out).unwrap();
    assert_eq!(GistError::decode(out.freeze()), Ok(error));
    assert_eq!(ObjectValueInfo::from_value(ObjectType::QueryCookie, b"12345", 0).object.len(), 8, "whole words only");
}

/// A person reads the catalogue's own words.
#[test]
fn causes_print_as_the_catalogue_calls_them() {
    assert_eq!(ErrorCause::MriValidation(MriFault::TooWild).to_string(), "MRI Too Wild");
    let error = Message::decode(sample("smallest Data").slice(..20)).unwrap_err();
    assert_eq!(error.to_string(), "Common Header Parse Error: Incorrect Message Length");
}
