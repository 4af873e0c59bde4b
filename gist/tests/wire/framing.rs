//! The magic number of D-mode, and messages in the byte stream of an association.

use bytes::{Bytes, BytesMut};
use gist::wire::datagram::{self, DatagramError, GIST_PORT, MAGIC};
use gist::wire::stream::{FrameError, Framer, MAX_MESSAGE_LENGTH};
use gist::wire::{ErrorCause, HeaderFault, Message};

use crate::samples::{sample, samples};

/// G-167, G-345.
#[test]
fn a_datagram_is_the_magic_number_and_a_message() {
    assert_eq!((MAGIC, GIST_PORT), (0x4e04_bda5, 270));
    for sample in samples() {
        let bytes: Bytes = [&[0x4e, 0x04, 0xbd, 0xa5], &sample.bytes[..]].concat().into();
        let mut out = BytesMut::new();
        datagram::encode(&sample.value, &mut out).unwrap();
        assert_eq!(out, bytes, "{}", sample.name);
        assert_eq!(datagram::message(&bytes), Some(sample.bytes));
        assert_eq!(datagram::decode(bytes), Ok(sample.value), "{}", sample.name);
    }
}

/// G-168: nothing to answer with.
#[test]
fn a_datagram_without_the_magic_number_is_told_from_a_bad_message() {
    for bytes in [&b""[..], b"\x4e\x04\xbd", b"\x4e\x04\xbd\xa4", &sample("full Query")] {
        assert_eq!(datagram::decode(Bytes::copy_from_slice(bytes)), Err(DatagramError::NoMagic));
    }
    let error = datagram::decode(Bytes::from_static(b"\x4e\x04\xbd\xa5")).unwrap_err();
    assert!(matches!(error, DatagramError::Message(_)), "{error}");
}

/// RFC 5971 §5.4: the length field tells messages apart, wherever the stream is cut.
#[test]
fn a_stream_is_cut_into_the_messages_it_was_made_of() {
    let messages: Vec<Bytes> = samples().into_iter().map(|sample| sample.bytes).collect();
    let stream = messages.concat();
    for chunk in [1, 2, 3, 7, 8, 9, 64, 1000, stream.len()] {
        let mut framer = Framer::default();
        let mut found = Vec::new();
        for bytes in stream.chunks(chunk) {
            framer.push(bytes);
            while let Some(message) = framer.next_message().unwrap() {
                found.push(message);
            }
        }
        assert_eq!(found, messages, "in pieces of {chunk} bytes");
        assert_eq!(framer.buffered(), 0);
    }
}

/// A stream cut off within a message leaves something behind.
#[test]
fn an_incomplete_message_waits_for_the_rest() {
    let message = sample("full Query");
    let mut framer = Framer::default();
    framer.push(&message[..message.len() - 1]);
    assert_eq!(framer.next_message(), Ok(None));
    assert_eq!(framer.buffered(), message.len() - 1);
    framer.push(&message[message.len() - 1..]);
    assert_eq!(framer.next_message(), Ok(Some(message)));
}

/// G-351, G-397: where another version keeps its length is not known, so nothing after it can be found.
#[test]
fn another_version_ends_the_stream() {
    let mut bytes = sample("full Query").to_vec();
    bytes[0] = 2;
    let mut framer = Framer::default();
    framer.push(&bytes[..8]);
    let error = framer.next_message().unwrap_err();
    assert_eq!(error, FrameError::UnknownVersion { header: bytes[..8].try_into().unwrap() });
    framer.push(&sample("full Query"));
    assert_eq!(framer.next_message(), Err(error), "for good");
    assert_eq!(error.to_gist_error().unwrap().cause(), Some(ErrorCause::CommonHeaderParse(HeaderFault::UnknownVersion)));
    assert_eq!(error.to_string(), "the stream continues with GIST version 2, which is not known");
}

/// A message of unknown type is whole all the same, and can be answered (G-351, G-397).
#[test]
fn an_unknown_type_does_not_end_the_stream() {
    let good = sample("full Query");
    let mut bytes = good.to_vec();
    bytes[6] = 0x7f;
    let mut framer = Framer::default();
    framer.push(&[&bytes[..], &good].concat());
    let unknown = framer.next_message().unwrap().unwrap();
    let error = Message::decode(unknown).unwrap_err();
    assert_eq!(error.cause(), Some(ErrorCause::CommonHeaderParse(HeaderFault::UnknownType)));
    assert_eq!(framer.next_message(), Ok(Some(good)));
}

/// The cap is checked before anything is held for the message.
#[test]
fn a_message_beyond_the_cap_ends_the_stream() {
    let mut framer = Framer::new(24);
    framer.push(b"\x01\x09\x00\x04\x00\x00\x05\x80");
    assert_eq!(framer.next_message(), Ok(None), "24 bytes are accepted");
    let mut framer = Framer::new(24);
    framer.push(b"\x01\x09\x00\x05\x00\x00\x05\x80");
    assert_eq!(framer.next_message(), Err(FrameError::TooLong { length: 28, cap: 24 }));
    let mut framer = Framer::new(usize::MAX);
    framer.push(b"\x01\x09\xff\xff\x00\x00\x05\x80");
    assert_eq!(framer.next_message(), Ok(None), "every length the header can say");
    assert_eq!(MAX_MESSAGE_LENGTH, 262_148);
}
