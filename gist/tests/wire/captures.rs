//! Messages of an independent implementation, captured from the network.
//!
//! Its habits: the first Query has S=1, the Query-Cookie is one word, a Forwards-TCP option's length is 2.

use std::fs::File;
use std::path::PathBuf;

use bytes::Bytes;
use gist::wire::stream::Framer;
use gist::wire::{Body, MaOptions, MaProtocol, Message, MessageType, Mri, NslpId, datagram};
use pcap_file::pcap::PcapReader;

use MessageType::{Confirm, Data, Hello, Query, Response};

/// G-349, G-352, G-358, G-359, G-365 to G-368, G-370: read, and written again to the same bytes.
#[test]
fn messages_of_another_implementation_are_read_and_written_byte_for_byte() {
    let expected: [(&str, &[MessageType]); 4] = [
        ("dmode-ab", &[Query, Response, Confirm, Data]),
        ("cmode-tcp-ab", &[Query, Response, Confirm, Data, Data]),
        // What follows goes through TLS.
        ("cmode-tls-ab", &[Query, Response]),
        ("cmode-refresh-short", &[Query, Response, Query, Confirm, Data, Confirm, Hello, Hello, Response, Hello, Hello]),
    ];
    for (name, types) in expected {
        let messages = capture(name);
        let found: Vec<_> = messages.iter().map(|bytes| Message::decode(bytes.clone()).unwrap().message_type()).collect();
        assert_eq!(found, types, "{name}");
        for bytes in messages {
            assert_eq!(Message::decode(bytes.clone()).unwrap().to_bytes().unwrap(), bytes, "{name}");
        }
    }
}

/// G-351.
#[test]
fn no_strict_prefix_of_a_captured_message_is_a_message() {
    for name in ["dmode-ab", "cmode-tcp-ab", "cmode-tls-ab", "cmode-refresh-short"] {
        for bytes in capture(name) {
            for length in 0..bytes.len() {
                assert!(Message::decode(bytes.slice(..length)).is_err(), "{name}, {length} bytes");
            }
        }
    }
}

/// G-140, G-142 to G-144, G-146, G-147: the values are those of the two nodes.
#[test]
fn a_captured_handshake_makes_sense() {
    let messages: Vec<Message> = capture("cmode-tcp-ab").into_iter().map(|bytes| Message::decode(bytes).unwrap()).collect();
    let [query, response, confirm, data, _] = &messages[..] else { panic!("five messages") };
    for message in &messages {
        assert_eq!((message.nslp_id, message.session()), (NslpId(100), query.session()));
        let Some(Mri::PathCoupled(mri)) = message.mri() else { panic!("path-coupled") };
        assert_eq!((mri.source.to_string(), mri.destination.to_string()), ("10.71.1.1".into(), "10.71.2.4".into()));
    }
    assert_eq!(response.mri(), query.mri().map(Mri::inverted).as_ref());
    assert_eq!(confirm.mri(), query.mri());
    assert_eq!(query.nli().unwrap().peer.as_bytes(), b"ka-a");
    assert_eq!(data.payload().unwrap(), "Hello World!");
    let (Body::Query(query), Body::Response(response), Body::Confirm(confirm)) = (&query.body, &response.body, &confirm.body) else {
        panic!("a handshake");
    };
    assert_eq!(response.query_cookie, query.cookie);
    let responder = response.responder.as_ref().unwrap();
    assert_eq!(confirm.responder_cookie.as_ref(), Some(&responder.cookie));
    let offer = responder.stack.as_ref().unwrap();
    assert_eq!(confirm.proposal.as_ref(), Some(&offer.proposal));
    let ports = [1, 2].map(|profile| offer.options(MaProtocol::ForwardsTcp, profile).and_then(MaOptions::tcp_port));
    assert_eq!(ports, [Some(30000), Some(30001)]);
}

/// The GIST messages of a capture: those in datagrams, then those in each direction of plain TCP connections.
pub(crate) fn capture(name: &str) -> Vec<Bytes> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/gist");
    let mut reader = PcapReader::new(File::open(directory.join(format!("{name}.pcap"))).unwrap()).unwrap();
    let link_header = match reader.header().datalink {
        pcap_file::DataLink::ETHERNET => 14,
        _ => 0,
    };
    let mut messages = Vec::new();
    let mut streams: Vec<(Vec<u8>, Stream)> = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        let ip = &packet.data[link_header..];
        let (header, end) = (usize::from(ip[0] & 15) * 4, usize::from(u16::from_be_bytes([ip[2], ip[3]])));
        let segment = &ip[header..end];
        match ip[9] {
            17 => messages.push(datagram::message(&Bytes::copy_from_slice(&segment[8..])).unwrap()),
            6 if !segment[..4].chunks(2).any(|port| port == 30001_u16.to_be_bytes()) => {
                let key = [&ip[12..20], &segment[..4]].concat();
                let index = streams.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
                    streams.push((key, Stream::default()));
                    streams.len() - 1
                });
                streams[index].1.push(segment);
            }
            _ => {}
        }
    }
    for (_, mut stream) in streams {
        while let Some(message) = stream.framer.next_message().unwrap() {
            messages.push(message);
        }
        assert_eq!(stream.framer.buffered(), 0);
    }
    messages
}

/// One direction of a TCP connection, which was captured without loss.
#[derive(Default)]
struct Stream {
    framer: Framer,
    next: Option<u32>,
}

impl Stream {
    fn push(&mut self, segment: &[u8]) {
        let number = u32::from_be_bytes(segment[4..8].try_into().unwrap());
        let payload = &segment[usize::from(segment[12] >> 4) * 4..];
        let is_syn = segment[13] & 2 != 0;
        let expected = self.next.unwrap_or(number);
        if number == expected {
            self.framer.push(payload);
            self.next = Some(number.wrapping_add(u32::try_from(payload.len()).unwrap() + u32::from(is_syn)));
        }
    }
}
