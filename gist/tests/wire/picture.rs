//! Bytes written as the RFC draws them: rows of hexadecimal digits, each with a remark after a semicolon.

use bytes::Bytes;

/// Reads rows such as `20 20 11 00 ; prefixes, protocol, DS-field`.
pub(crate) fn picture(rows: &str) -> Bytes {
    let digits: String = rows.lines().filter_map(|row| row.split(';').next()).flat_map(str::split_whitespace).collect();
    hex::decode(digits).unwrap().into()
}

/// An object: the header with AB=00 and no reserved bits, then the rows.
pub(crate) fn object(kind: u16, rows: &str) -> Bytes {
    flagged_object(0, kind, rows)
}

/// An object with the given A and B, as a number from 0 to 3.
pub(crate) fn flagged_object(extensibility: u16, kind: u16, rows: &str) -> Bytes {
    let value = picture(rows);
    assert_eq!(value.len() % 4, 0, "a value is whole words");
    let words = u16::try_from(value.len() / 4).unwrap();
    [&(extensibility << 14 | kind).to_be_bytes()[..], &words.to_be_bytes(), &value].concat().into()
}

/// A message: hop count 9, NSLPID 0x7fc0, the two bytes with C, type, S, R and E, then the objects.
pub(crate) fn message(type_and_flags: [u8; 2], objects: &[Bytes]) -> Bytes {
    message_for(0x7fc0, type_and_flags, objects)
}

/// A message with another NSLPID.
pub(crate) fn message_for(nslp_id: u16, type_and_flags: [u8; 2], objects: &[Bytes]) -> Bytes {
    let body = objects.concat();
    let words = u16::try_from(body.len() / 4).unwrap();
    [&[1, 9][..], &words.to_be_bytes(), &nslp_id.to_be_bytes(), &type_and_flags, &body].concat().into()
}

/// Takes the objects of a message apart by their length fields.
pub(crate) fn split(message: &[u8]) -> Vec<Bytes> {
    let mut rest = &message[8..];
    let mut objects = Vec::new();
    while !rest.is_empty() {
        let words = usize::from(u16::from_be_bytes([rest[2], rest[3]]) & 0x0fff);
        let (object, after) = rest.split_at(4 + words * 4);
        objects.push(Bytes::copy_from_slice(object));
        rest = after;
    }
    objects
}

/// The same header before other objects, its length field set right.
pub(crate) fn with_objects(message: &[u8], objects: &[Bytes]) -> Bytes {
    let body = objects.concat();
    let words = u16::try_from(body.len() / 4).unwrap().to_be_bytes();
    [&message[..2], &words, &message[4..8], &body].concat().into()
}
