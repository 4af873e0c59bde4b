//! The common header and its six ways to be wrong.

use gist::wire::{DecodeError, ErrorInfo, HeaderFault, Message, MessageType, header_bytes};
use gist::wire::{DecodeFault, ErrorCause};

use crate::samples::{sample, samples};

/// G-005, G-345: message types 0 to 5, and no other.
#[test]
fn message_types_have_their_assigned_numbers() {
    for (number, known) in (0..).zip(MessageType::ALL) {
        assert_eq!(MessageType::try_from(number), Ok(known));
    }
    for number in 6..=127 {
        assert_eq!(MessageType::try_from(number), Err(number));
    }
}

/// G-153, G-351, G-375: subcode 0.
#[test]
fn any_version_but_1_is_unknown() {
    for sample in samples() {
        for version in (0..=255).filter(|version| *version != 1) {
            let mut bytes = sample.bytes.to_vec();
            bytes[0] = version;
            let error = Message::decode(bytes.into()).unwrap_err();
            assert_fault(&error, HeaderFault::UnknownVersion);
            assert_eq!(error.context.nli, None, "what is not understood is not believed");
        }
    }
}

/// G-351, G-375: subcode 1.
#[test]
fn any_type_above_5_is_unknown() {
    for sample in samples() {
        for number in 6..=127 {
            let mut bytes = sample.bytes.to_vec();
            bytes[6] = bytes[6] & 0x80 | number;
            assert_fault(&Message::decode(bytes.into()).unwrap_err(), HeaderFault::UnknownType);
        }
    }
}

/// G-139, G-144, G-350: subcode 2, for each message type.
#[test]
fn the_r_flag_must_fit_the_message() {
    // Name, R, legal.
    let cases = [
        ("full Query", false, false),
        ("full Query", true, true),
        ("full Response", false, false),
        ("full Response", true, true),
        ("smallest Response", false, true),
        ("smallest Response", true, true),
        ("full Confirm", true, false),
        ("full Data", true, false),
        ("full Error", false, true),
        ("full Error", true, false),
        ("MA-Hello that asks", false, true),
        ("MA-Hello that answers", true, true),
    ];
    for (name, reply_requested, legal) in cases {
        let mut bytes = sample(name).to_vec();
        bytes[7] = bytes[7] & !0x40 | u8::from(reply_requested) << 6;
        match Message::decode(bytes.into()) {
            Ok(_) => assert!(legal, "{name}"),
            Err(error) => {
                assert!(!legal, "{name}: {error}");
                assert_fault(&error, HeaderFault::InvalidRFlag);
            }
        }
    }
}

/// G-350, G-375: subcode 4, for each message type.
#[test]
fn the_e_flag_belongs_to_data_only() {
    for sample in samples() {
        let mut bytes = sample.bytes.to_vec();
        bytes[7] |= 0x20;
        match Message::decode(bytes.into()) {
            Ok(message) => assert_eq!(message.message_type(), MessageType::Data),
            Err(error) => assert_fault(&error, HeaderFault::InvalidEFlag),
        }
    }
}

/// G-154, G-350, G-375: subcode 5, for each message type.
#[test]
fn the_c_flag_belongs_to_query_and_may_be_on_data() {
    for sample in samples() {
        for context_free in [false, true] {
            let mut bytes = sample.bytes.to_vec();
            bytes[6] = bytes[6] & 0x7f | u8::from(context_free) << 7;
            let legal = match sample.value.message_type() {
                MessageType::Query => context_free,
                MessageType::Data => true,
                _ => !context_free,
            };
            match Message::decode(bytes.into()) {
                Ok(_) => assert!(legal, "{}", sample.name),
                Err(error) => {
                    assert!(!legal, "{}: {error}", sample.name);
                    assert_fault(&error, HeaderFault::InvalidCFlag);
                }
            }
        }
    }
}

/// G-351, G-375: subcode 3 also if the last object runs over the end of the message.
#[test]
fn an_object_that_runs_over_the_end_is_a_wrong_message_length() {
    for sample in samples() {
        let mut bytes = sample.bytes.to_vec();
        let last = bytes.len() - crate::picture::split(&sample.bytes).last().unwrap().len();
        bytes[last + 3] += 1;
        let error = Message::decode(bytes.into()).unwrap_err();
        assert_fault(&error, HeaderFault::IncorrectMessageLength);
        let words = u16::try_from((sample.bytes.len() - 8) / 4 + 1).unwrap();
        if let Some(error) = error.to_gist_error() {
            assert_eq!(error.info, [ErrorInfo::MessageLength(words)]);
        }
    }
}

/// The calculated length of the error report has 16 bits, and stays at the highest value it can say.
#[test]
fn a_calculated_length_beyond_16_bits_is_reported_as_the_highest() {
    // 100 objects which all claim 4095 words, of which none is there but the headers.
    let bytes: Vec<u8> = [vec![1, 9, 0, 100, 0, 5, 3, 0], [0x4f, 0xff, 0x00, 0x00].repeat(100)].concat();
    assert_fault_length(bytes.clone(), None);
    let huge = [&bytes[..8], &[0x4f, 0xff, 0x0f, 0xff].repeat(4096 * 17)[..]].concat();
    assert_fault_length(huge, Some(u16::MAX));
}

fn assert_fault_length(bytes: Vec<u8>, expected: Option<u16>) {
    let calculated = match Message::decode(bytes.into()).unwrap_err().fault {
        DecodeFault::Header { calculated_length, .. } => calculated_length,
        _ => None,
    };
    assert_eq!(calculated, expected);
}

/// The fault is as expected; its report has class 2, code 1, the original header, and neither MRI nor session (G-375).
fn assert_fault(error: &DecodeError, fault: HeaderFault) {
    assert_eq!(error.cause(), Some(ErrorCause::CommonHeaderParse(fault)), "{error}");
    let header = error.context.header.unwrap();
    if let Some(report) = error.to_gist_error() {
        assert_eq!((u8::from(report.class), report.code, report.subcode), (2, 1, fault as u8));
        assert_eq!(report.header, header);
        assert_eq!((report.session, report.mri), (None, None));
        assert_eq!(report.info.is_empty(), fault != HeaderFault::IncorrectMessageLength);
    } else {
        assert!(error.is_about_error_message(), "only an Error goes unanswered");
    }
    assert_eq!(header_bytes(&header), Some(header));
}
