//! Whole messages, read and written.

use gist::wire::{Body, DecodeFault, EncodeError, ErrorInfo, HeaderFault, Message, NslpId, datagram};

use crate::picture::split;
use crate::samples::{from, sample, samples};

/// G-136, G-139, G-140, G-142 to G-144, G-146 to G-150, G-153, G-349, G-352.
#[test]
fn every_message_is_read_as_the_value_it_pictures() {
    for sample in samples() {
        assert_eq!(Message::decode(sample.bytes), Ok(sample.value), "{}", sample.name);
    }
}

/// G-139, G-140, G-143, G-147, G-154, G-348, G-349.
#[test]
fn every_message_is_written_as_the_bytes_that_picture_it() {
    for sample in samples() {
        assert_eq!(sample.value.to_bytes().unwrap(), sample.bytes, "{}", sample.name);
    }
}

/// G-351, G-396: a message shorter than announced is refused, with the length its objects add up to.
#[test]
fn no_strict_prefix_of_a_message_is_a_message() {
    for sample in samples() {
        for length in 0..sample.bytes.len() {
            let error = Message::decode(sample.bytes.slice(..length)).unwrap_err();
            if length < 8 {
                assert_eq!(error.fault, DecodeFault::TooShort(length));
                assert_eq!(error.to_gist_error(), None, "without a common header nothing can be answered");
            } else {
                let DecodeFault::Header { fault: HeaderFault::IncorrectMessageLength, calculated_length: Some(words) } = error.fault else {
                    panic!("{} cut to {length} bytes: {error}", sample.name);
                };
                assert!(usize::from(words) * 4 <= sample.bytes.len() - 8);
            }
        }
    }
}

/// G-351: cutting off a message together with its length field leaves a message without some of its objects, or none.
#[test]
fn a_prefix_with_its_length_set_right_is_never_the_whole_message() {
    for sample in samples() {
        for length in 8..sample.bytes.len() {
            let mut bytes = sample.bytes[..length].to_vec();
            bytes[2..4].copy_from_slice(&u16::try_from((length - 8) / 4).unwrap().to_be_bytes());
            assert_ne!(Message::decode(bytes.into()), Ok(sample.value.clone()), "{}", sample.name);
        }
    }
}

/// G-351, G-373: the answer has a Message Length Info field with the sum of all objects.
#[test]
fn bytes_after_the_message_are_refused_with_the_calculated_length() {
    for sample in samples() {
        for extra in 1..=9 {
            let bytes = [&sample.bytes[..], &vec![0; extra]].concat();
            let error = Message::decode(bytes.into()).unwrap_err();
            // Four zero bytes are one more object, without a value.
            let words = u16::try_from((sample.bytes.len() - 8) / 4 + extra / 4).unwrap();
            let fault = HeaderFault::IncorrectMessageLength;
            assert_eq!(error.fault, DecodeFault::Header { fault, calculated_length: Some(words) });
            if let Some(error) = error.to_gist_error() {
                assert_eq!(error.info, [ErrorInfo::MessageLength(words)]);
            }
        }
    }
}

/// G-348: reserved bits of the common header, of object headers and of values do not matter.
#[test]
fn reserved_bits_are_ignored_in_headers() {
    for sample in samples() {
        let mut bytes = sample.bytes.to_vec();
        bytes[7] |= 0x1f;
        let mut at = 8;
        for object in split(&sample.bytes) {
            bytes[at] |= 0x30;
            bytes[at + 2] |= 0xf0;
            at += object.len();
        }
        assert_eq!(Message::decode(bytes.into()), Ok(sample.value), "{}", sample.name);
    }
}

/// G-150, G-346: Error and MA-Hello are sent with NSLPID 0 whatever the value says.
#[test]
fn messages_without_an_application_are_written_with_nslpid_0() {
    for sample in samples() {
        if matches!(sample.value.body, Body::Error(_) | Body::Hello(_)) {
            let value = Message { nslp_id: NslpId(5), ..sample.value };
            assert_eq!(value.to_bytes().unwrap(), sample.bytes);
        }
    }
}

/// G-352: 4095 words of payload are the most an object can hold.
#[test]
fn the_longest_payload_is_4095_words() {
    let Ok(Message { body: Body::Data(data), .. }) = Message::decode(sample("smallest Data")) else {
        panic!("the sample is Data");
    };
    for (length, fits) in [(16380, true), (16384, false), (16379, false), (0, true)] {
        let message = from(true, Body::Data(gist::wire::Data { payload: vec![7; length].into(), ..data.clone() }));
        match message.to_bytes() {
            Ok(bytes) => assert!(fits && Message::decode(bytes) == Ok(message)),
            Err(error) => assert!(!fits && matches!(error, EncodeError::ObjectLength { .. }), "{error}"),
        }
    }
}

/// Nothing is left behind by a message that cannot be written.
#[test]
fn a_message_that_cannot_be_written_writes_nothing() {
    let Ok(Message { body: Body::Data(data), .. }) = Message::decode(sample("smallest Data")) else {
        panic!("the sample is Data");
    };
    let message = from(true, Body::Data(gist::wire::Data { payload: vec![7; 3].into(), ..data }));
    let mut out = bytes::BytesMut::from(&b"before"[..]);
    assert!(message.encode(&mut out).is_err());
    assert!(datagram::encode(&message, &mut out).is_err());
    assert_eq!(out, &b"before"[..]);
}
