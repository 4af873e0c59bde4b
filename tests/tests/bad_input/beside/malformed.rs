//! A Query spoilt in every way that the decoder tells apart (RFC 5971 A.4.4.1, A.4.4.9, A.4.4.10).

use bytes::{Bytes, BytesMut};
use gist::wire::{Body, ErrorCause, HeaderFault, NatTraversal, ObjectTypeFault, ObjectValueFault, datagram};

/// Where the common header and the objects begin behind the magic number.
const HEADER: usize = 4;
const OBJECTS: usize = 12;

/// Octets of an object's header, and of its value where the number of words is told.
const OBJECT_HEADER: usize = 4;

/// The Query for each entry of the catalogue that it can be refused for when it is read: payloads of datagrams.
pub(super) fn each_class(query: &[u8]) -> Vec<(ErrorCause, Vec<u8>)> {
    let header = |fault, at: usize, change: &dyn Fn(u8) -> u8| (ErrorCause::CommonHeaderParse(fault), changed(query, HEADER + at, change));
    let object = |fault, query| (ErrorCause::ObjectType(fault), query);
    let value = |fault, query| (ErrorCause::ObjectValue(fault), query);
    let [session, proposal, configuration, cookie] = [1, 3, 4, 5].map(|kind| place(query, kind));
    let whole = |place: usize| query[place..place + length(query, place)].to_vec();
    let unknown = |flags: u8| with(query, cookie, &[flags, 0xee, 0, 1, 1, 2, 3, 4]);
    let mri = place(query, 0) + OBJECT_HEADER;
    vec![
        header(HeaderFault::UnknownVersion, 0, &|_| 7),
        header(HeaderFault::UnknownType, 6, &|octet| octet | 0x3f),
        header(HeaderFault::InvalidRFlag, 7, &|octet| octet & !0x40),
        // The last object says that it has a word more.
        (ErrorCause::CommonHeaderParse(HeaderFault::IncorrectMessageLength), changed(query, configuration + 3, |words| words + 1)),
        header(HeaderFault::InvalidEFlag, 7, &|octet| octet | 0x20),
        header(HeaderFault::InvalidCFlag, 6, &|octet| octet & 0x7f),
        object(ObjectTypeFault::Duplicate, with(query, session, &whole(session))),
        object(ObjectTypeFault::Unrecognised, unknown(0)),
        object(ObjectTypeFault::Missing, without(query, cookie)),
        // A Hello-ID.
        object(ObjectTypeFault::Invalid, with(query, cookie, &[0, 10, 0, 1, 0, 0, 0, 1])),
        object(ObjectTypeFault::Untranslated, with(query, OBJECTS, &untranslated(query))),
        object(ObjectTypeFault::InvalidExtensibilityFlags, unknown(0xc0)),
        value(ObjectValueFault::IncorrectLength, with(&changed(query, session + 3, |words| words + 1), session + OBJECT_HEADER, &[0; 4])),
        value(ObjectValueFault::ValueNotSupported, changed(query, mri, |_| 120)),
        // Says that there is a flow label, in IPv4.
        value(ObjectValueFault::InvalidFlagFieldCombination, changed(query, mri + 1, |octet| octet | 0x80)),
        value(ObjectValueFault::EmptyList, changed(query, proposal + OBJECT_HEADER + 4, |_| 0)),
        // Options of a stack that is not offered.
        value(ObjectValueFault::StackMismatch, changed(query, configuration + OBJECT_HEADER + 8 + 1, |_| 9)),
    ]
}

/// Where an object begins.
fn place(query: &[u8], kind: u8) -> usize {
    let mut place = OBJECTS;
    while query[place + 1] != kind {
        place += length(query, place);
    }
    place
}

fn length(query: &[u8], place: usize) -> usize {
    OBJECT_HEADER + usize::from(query[place + 3]) * 4
}

fn changed(query: &[u8], at: usize, change: impl Fn(u8) -> u8) -> Vec<u8> {
    let mut query = query.to_vec();
    query[at] = change(query[at]);
    query
}

fn with(query: &[u8], at: usize, more: &[u8]) -> Vec<u8> {
    let (before, after) = query.split_at(at);
    measured([before, more, after].concat())
}

fn without(query: &[u8], place: usize) -> Vec<u8> {
    measured([&query[..place], &query[place + length(query, place)..]].concat())
}

/// Says its new length.
fn measured(mut query: Vec<u8>) -> Vec<u8> {
    let words = u16::try_from((query.len() - OBJECTS) / 4).unwrap();
    query[HEADER + 2..HEADER + 4].copy_from_slice(&words.to_be_bytes());
    query
}

/// What a NAT would have put in that has translated nothing.
fn untranslated(query: &[u8]) -> Vec<u8> {
    let Body::Query(body) = datagram::decode(Bytes::copy_from_slice(query)).unwrap().body else { panic!("a Query") };
    let mut value = BytesMut::new();
    NatTraversal { original: body.mri, translated: Vec::new(), opaque: Vec::new() }.encode(&mut value).unwrap();
    let words = u8::try_from(value.len() / 4).unwrap();
    [&[0, 7, 0, words], &value[..]].concat()
}
