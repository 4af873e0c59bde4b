//! Which message of the protocol a frame on a link carries, as somebody there can tell without any key: GIST's first words are in the
//! clear, and in an association each message is a TLS record whose length and direction tell what it is.

use crate::ground::ASSOCIATION_PORT;
use crate::network::frame::{self, Seen};
use crate::network::relay::{Way, packet};

const TCP: u8 = 6;
const UDP: u8 = 17;
const GIST_PORT: u16 = 270;
/// Magic number and version of GIST in Q-mode.
const MAGIC_AND_VERSION: [u8; 5] = [0x4e, 0x04, 0xbd, 0xa5, 1];
/// TLS records of application data begin so (RFC 8446 §5.1); those of a handshake that are encrypted follow others in a segment.
const APPLICATION_DATA: u8 = 23;
const RECORD_HEADER: usize = 5;
/// Octets of a record: MA-Hello and the like are shorter than the first, and messages with a certificate longer than the second.
const SHORT: usize = 100;
const LONG: usize = 400;

/// A message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// GIST's Query.
    GistQuery,
    /// GIST's Response.
    Response,
    /// GIST's Confirm.
    Confirm,
    /// The sender's Query: the first one, a refresh, a release.
    Query,
    /// The receiver's Permission, that of no volume among them.
    Permission,
    /// A notice to the sender.
    Notify,
    /// A packet of the flow under this SPI.
    Data(u32),
}

/// Somebody who watches one link.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// Whether a Query of GIST has gone by that no Response has answered yet.
    is_asked: bool,
}

impl Watcher {
    /// What a frame carries, in order.
    pub(super) fn hear(&mut self, way: Way, frame: &[u8]) -> Vec<Message> {
        let Some(seen) = packet(frame).and_then(frame::read) else { return Vec::new() };
        let heard = match (&seen.authentication, seen.protocol) {
            (Some(ah), _) => vec![Message::Data(ah.spi)],
            (None, UDP) if seen.ports.1 == GIST_PORT => discovery(seen.payload).into_iter().collect(),
            (None, TCP) if [seen.ports.0, seen.ports.1].contains(&ASSOCIATION_PORT) => self.association(way, &seen),
            _ => Vec::new(),
        };
        for message in &heard {
            match message {
                Message::GistQuery => self.is_asked = true,
                Message::Response => self.is_asked = false,
                _ => {}
            }
        }
        heard
    }

    fn association(&self, way: Way, seen: &Seen<'_>) -> Vec<Message> {
        let mut is_asked = self.is_asked;
        let records = records(data(seen));
        records
            .into_iter()
            .filter_map(|octets| {
                Some(match way {
                    _ if octets < SHORT => return None,
                    Way::There if octets < LONG => Message::Confirm,
                    Way::There => Message::Query,
                    Way::Back if octets >= LONG => Message::Permission,
                    Way::Back if std::mem::take(&mut is_asked) => Message::Response,
                    Way::Back => Message::Notify,
                })
            })
            .collect()
    }
}

/// The TCP data of a segment.
pub(super) fn data<'a>(seen: &Seen<'a>) -> &'a [u8] {
    // What stands behind the ports: sequence and acknowledgement number, then the header's length in words.
    let header = seen.payload.get(8).map_or(0, |byte| usize::from(byte >> 4) * 4);
    seen.payload.get(header.saturating_sub(4)..).unwrap_or_default()
}

/// Sequence and acknowledgement number of a segment.
pub(super) fn numbers(seen: &Seen<'_>) -> Option<(u32, u32)> {
    let number = |at: usize| seen.payload.get(at..)?.first_chunk().copied().map(u32::from_be_bytes);
    Some((number(0)?, number(4)?))
}

/// GIST outside of associations: which of its messages.
fn discovery(payload: &[u8]) -> Option<Message> {
    // Behind the version: hop count, length, NSLPID, and the type below the context bit (RFC 5971 §A.1).
    match payload.first_chunk::<11>().filter(|header| header.starts_with(&MAGIC_AND_VERSION))?.last()? & 0x7f {
        0 => Some(Message::GistQuery),
        1 => Some(Message::Response),
        2 => Some(Message::Confirm),
        _ => None,
    }
}

/// The lengths of a segment's records, if all of them are application data.
fn records(mut data: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let Some((header, rest)) = data.split_first_chunk::<RECORD_HEADER>() {
        let &[kind, 3, 3, high, low] = header else { return Vec::new() };
        if kind != APPLICATION_DATA {
            return Vec::new();
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        lengths.push(length);
        data = rest.get(length..).unwrap_or_default();
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::packet as made;
    use crate::network::topology::{RECEIVER, SENDER};

    fn framed(packet: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &[0x08, 0x00], packet].concat()
    }

    fn record(kind: u8, length: usize) -> Vec<u8> {
        [&[kind, 3, 3, (length >> 8) as u8, length as u8][..], &vec![0; length]].concat()
    }

    fn segment(records: &[(u8, usize)]) -> Vec<u8> {
        let data: Vec<u8> = records.iter().flat_map(|(kind, length)| record(*kind, *length)).collect();
        framed(&made::tcp_data((SENDER, 40_000), (RECEIVER, ASSOCIATION_PORT), &data).unwrap())
    }

    fn gist(kind: u8) -> Vec<u8> {
        let header = [&MAGIC_AND_VERSION[..], &[1, 0, 40, 0x7f, 0xc0, 0x80 | kind, 0, 0]].concat();
        framed(&made::udp((SENDER, 270), (RECEIVER, GIST_PORT), &header).unwrap())
    }

    #[test]
    fn messages_are_told_apart_by_their_first_words_lengths_and_directions() {
        let mut watcher = Watcher::default();
        assert_eq!(watcher.hear(Way::There, &gist(0)), [Message::GistQuery]);
        assert_eq!(watcher.hear(Way::Back, &segment(&[(23, 193)])), [Message::Response]);
        assert_eq!(watcher.hear(Way::There, &segment(&[(23, 173), (23, 609)])), [Message::Confirm, Message::Query]);
        assert_eq!(watcher.hear(Way::Back, &segment(&[(23, 721)])), [Message::Permission]);
        assert_eq!(watcher.hear(Way::Back, &segment(&[(23, 177)])), [Message::Notify], "nobody asked GIST anything");
        assert_eq!(watcher.hear(Way::Back, &gist(1)), [Message::Response]);
    }

    #[test]
    fn handshakes_hellos_and_other_programs_are_no_messages() {
        let mut watcher = Watcher::default();
        assert!(watcher.hear(Way::Back, &segment(&[(22, 122), (20, 1), (23, 589)])).is_empty());
        assert!(watcher.hear(Way::There, &segment(&[(20, 1), (23, 514)])).is_empty());
        assert!(watcher.hear(Way::There, &segment(&[(23, 33)])).is_empty());
        assert!(watcher.hear(Way::There, &framed(&made::udp((SENDER, 1), (RECEIVER, 9001), &[0; 600]).unwrap())).is_empty());
        assert!(watcher.hear(Way::There, b"short").is_empty());
    }
}
