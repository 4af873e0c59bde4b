//! One object of each type and one message of each shape, in bytes and as values, the bytes written by hand.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use bytes::Bytes;
use gist::wire::{
    Body, Confirm, Cookie, Data, Direction, ErrorBody, ErrorCause, ErrorInfo, GistError, Hello, MaOptions, Message, Mri, NatTraversal,
    NetworkLayerInformation, NslpId, ObjectTypeFault, PathCoupled, PeerIdentity, Profile, Query, ResponderPart, Response, SessionId,
    StackConfiguration, StackOffer, StackProposal,
};

use crate::picture::{message, message_for, object};

/// A message in both forms.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) bytes: Bytes,
    pub(crate) value: Message,
}

/// UDP from 192.0.2.1 port 5000 to 198.51.100.7 port 9000.
pub(crate) const MRI_DOWNSTREAM: &str = "
    00 00 48c0  ; path-coupled, N=0; IPv4, P, A, B, D=0
    c0000201    ; source
    c6336407    ; destination
    20 20 11 00 ; /32, /32, UDP, no DS-field
    1388 2328   ; ports";

/// The same flow against its direction.
pub(crate) const MRI_UPSTREAM: &str = "
    00 00 48e0  ; D=1
    c0000201
    c6336407
    20 20 11 00
    1388 2328";

/// A session.
pub(crate) const SESSION: &str = "00010203 04050607 08090a0b 0c0d0e0f";

/// `host1` at 192.0.2.1, TTL 64, 30 seconds.
pub(crate) const NLI: &str = "
    05 40 40 00       ; PI-Length 5, TTL 64, IPv4
    00007530          ; 30000 ms
    686f737431 000000 ; identity, padded
    c0000201          ; address";

/// TLS over TCP, then TCP.
pub(crate) const PROPOSAL: &str = "
    02 000000   ; two profiles
    02 02 01 00 ; TLS, TCP, padding
    01 01 0000  ; TCP, padding";

/// A Query's: 30 seconds, TCP for every profile without data.
pub(crate) const CONFIGURATION_OF_QUERY: &str = "
    01 000000   ; one option
    00007530    ; 30000 ms
    01 00 00 00 ; TCP, all profiles, no data, D=0";

/// A Response's: 40 seconds, TCP with a port for each profile.
pub(crate) const CONFIGURATION_OF_RESPONSE: &str = "
    02 000000   ; two options
    00009c40    ; 40000 ms
    01 01 02 00 ; TCP, profile 1, two bytes
    763e 0000   ; port 30270, padding
    01 02 02 00 ; TCP, profile 2, two bytes
    763f 0000   ; port 30271, padding";

/// A Confirm's: the hold time only.
pub(crate) const CONFIGURATION_OF_CONFIRM: &str = "00 000000 00007530";

/// Two words.
pub(crate) const QUERY_COOKIE: &str = "13947123 94719235";

/// One word.
pub(crate) const RESPONDER_COOKIE: &str = "acdefedc";

/// The flow before translation, two translated types, notes of two NATs.
pub(crate) const NAT: &str = "
    05 02 02 00 ; MRI of five words, two types, two NATs
    00 00 48c0
    0a000001    ; 10.0.0.1
    c6336407
    20 20 11 00
    1388 2328
    0000 0002   ; MRI and NLI, AB=00
    0003 616263 000000
    0002 7879";

/// What an application has to say.
pub(crate) const PAYLOAD: &str = "48656c6c 6f210000";

/// About a Query: object type 6 was missing. Received in Q-mode.
pub(crate) const ERROR: &str = "
    02 0009 02                ; Protocol-Error, 9, 2
    f8 00 05 01               ; S M C D Q; MRI of five words; one field
    01 09 0018 7fc0 80 c0     ; the Query's common header
    00010203 04050607 08090a0b 0c0d0e0f
    00 00 48c0 c0000201 c6336407 20 20 11 00 1388 2328
    0003 0001 0006 0000       ; Object Type Info
    68c3a9 00                 ; comment: two letters, three bytes, one NUL";

/// Every message shape: with all optional objects, and with none.
pub(crate) fn samples() -> Vec<Sample> {
    vec![
        Sample {
            name: "full Query",
            bytes: message(
                [0x80, 0x40], // C, Query; R
                &[
                    object(7, NAT),
                    object(0, MRI_DOWNSTREAM),
                    object(1, SESSION),
                    object(2, NLI),
                    object(5, QUERY_COOKIE),
                    object(3, PROPOSAL),
                    object(4, CONFIGURATION_OF_QUERY),
                    object(8, PAYLOAD),
                ],
            ),
            value: from(false, Body::Query(Query { nat: Some(nat()), stack: Some(query_offer()), payload: Some(payload()), ..query() })),
        },
        Sample {
            name: "smallest Query",
            bytes: message(
                [0x80, 0xc0], // C, Query; S, R
                &[object(0, MRI_DOWNSTREAM), object(1, SESSION), object(2, NLI), object(5, QUERY_COOKIE)],
            ),
            value: from(true, Body::Query(query())),
        },
        Sample {
            name: "full Response",
            bytes: message(
                [0x01, 0xc0], // Response; S, R
                &[
                    object(7, NAT),
                    object(0, MRI_UPSTREAM),
                    object(1, SESSION),
                    object(2, NLI),
                    object(5, QUERY_COOKIE),
                    object(6, RESPONDER_COOKIE),
                    object(3, PROPOSAL),
                    object(4, CONFIGURATION_OF_RESPONSE),
                    object(8, PAYLOAD),
                ],
            ),
            value: from(
                true,
                Body::Response(Response {
                    nat: Some(nat()),
                    confirm_requested: true,
                    responder: Some(ResponderPart { cookie: responder_cookie(), stack: Some(response_offer()) }),
                    payload: Some(payload()),
                    ..response()
                }),
            ),
        },
        Sample {
            name: "Response with a cookie only",
            bytes: message(
                [0x01, 0xc0],
                &[object(0, MRI_UPSTREAM), object(1, SESSION), object(2, NLI), object(5, QUERY_COOKIE), object(6, RESPONDER_COOKIE)],
            ),
            value: from(
                true,
                Body::Response(Response {
                    confirm_requested: true,
                    responder: Some(ResponderPart { cookie: responder_cookie(), stack: None }),
                    ..response()
                }),
            ),
        },
        Sample {
            name: "smallest Response",
            bytes: message(
                [0x01, 0x80], // Response; S
                &[object(0, MRI_UPSTREAM), object(1, SESSION), object(2, NLI), object(5, QUERY_COOKIE)],
            ),
            value: from(true, Body::Response(response())),
        },
        Sample {
            name: "full Confirm",
            bytes: message(
                [0x02, 0x80], // Confirm; S
                &[
                    object(0, MRI_DOWNSTREAM),
                    object(1, SESSION),
                    object(2, NLI),
                    object(6, RESPONDER_COOKIE),
                    object(3, PROPOSAL),
                    object(4, CONFIGURATION_OF_CONFIRM),
                    object(8, PAYLOAD),
                ],
            ),
            value: from(
                true,
                Body::Confirm(Confirm {
                    responder_cookie: Some(responder_cookie()),
                    proposal: Some(proposal()),
                    configuration: Some(StackConfiguration { hold_time: Duration::from_secs(30), options: vec![] }),
                    payload: Some(payload()),
                    ..confirm()
                }),
            ),
        },
        Sample {
            name: "smallest Confirm",
            bytes: message([0x02, 0x80], &[object(0, MRI_DOWNSTREAM), object(1, SESSION), object(2, NLI)]),
            value: from(true, Body::Confirm(confirm())),
        },
        Sample {
            name: "full Data",
            bytes: message(
                [0x83, 0x20], // C, Data; E
                &[object(7, NAT), object(0, MRI_DOWNSTREAM), object(1, SESSION), object(2, NLI), object(8, PAYLOAD)],
            ),
            value: from(false, Body::Data(Data { nat: Some(nat()), nli: Some(nli()), explicit: true, context_free: true, ..data() })),
        },
        Sample {
            name: "smallest Data",
            bytes: message([0x03, 0x80], &[object(0, MRI_DOWNSTREAM), object(1, SESSION), object(8, PAYLOAD)]),
            value: from(true, Body::Data(data())),
        },
        Sample {
            name: "full Error",
            bytes: message_for(0, [0x04, 0x80], &[object(7, NAT), object(2, NLI), object(9, ERROR)]),
            value: without_application(Body::Error(ErrorBody { nat: Some(nat()), nli: Some(nli()), error: error() })),
        },
        Sample {
            name: "smallest Error",
            bytes: message_for(0, [0x04, 0x80], &[object(9, "02 0001 01  00000000  01 09 0000 7fc0 06 00")]),
            value: without_application(Body::Error(ErrorBody {
                nat: None,
                nli: None,
                error: GistError::new(ErrorCause::CommonHeaderParse(gist::wire::HeaderFault::UnknownType), [1, 9, 0, 0, 0x7f, 0xc0, 6, 0]),
            })),
        },
        Sample {
            name: "MA-Hello that asks",
            bytes: message_for(0, [0x05, 0xc0], &[object(10, "deadbeef")]), // MA-Hello; S, R
            value: without_application(Body::Hello(Hello { request: true, id: 0xdead_beef })),
        },
        Sample {
            name: "MA-Hello that answers",
            bytes: message_for(0, [0x05, 0x80], &[object(10, "deadbeef")]),
            value: without_application(Body::Hello(Hello { request: false, id: 0xdead_beef })),
        },
        Sample {
            name: "MA-Hello that keeps alive",
            bytes: message_for(0, [0x05, 0x80], &[object(10, "00000000")]),
            value: without_application(Body::Hello(Hello { request: false, id: 0 })),
        },
    ]
}

/// The bytes of the sample with this name.
pub(crate) fn sample(name: &str) -> Bytes {
    samples().into_iter().find(|sample| sample.name == name).unwrap().bytes
}

pub(crate) fn from(source_is_signalling: bool, body: Body) -> Message {
    Message { hop_count: 9, nslp_id: NslpId(0x7fc0), source_is_signalling, body, unknown: vec![] }
}

pub(crate) fn path_coupled(direction: Direction, source: [u8; 4]) -> Mri {
    Mri::PathCoupled(PathCoupled {
        direction,
        source: Ipv4Addr::from(source).into(),
        destination: Ipv4Addr::new(198, 51, 100, 7).into(),
        source_prefix: 32,
        destination_prefix: 32,
        protocol: Some(17),
        ds_field: None,
        flow_label: None,
        spi: None,
        source_port: Some(5000),
        destination_port: Some(9000),
    })
}

pub(crate) fn downstream() -> Mri {
    path_coupled(Direction::Downstream, [192, 0, 2, 1])
}

pub(crate) fn session() -> SessionId {
    SessionId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
}

pub(crate) fn nli() -> NetworkLayerInformation {
    NetworkLayerInformation {
        ip_ttl: 64,
        validity: Duration::from_secs(30),
        peer: PeerIdentity::new(&b"host1"[..]).unwrap(),
        address: IpAddr::from([192, 0, 2, 1]),
    }
}

pub(crate) fn proposal() -> StackProposal {
    StackProposal { profiles: vec![Profile::tls_over_tcp(), Profile::tcp()] }
}

pub(crate) fn query_offer() -> StackOffer {
    let configuration = StackConfiguration { hold_time: Duration::from_secs(30), options: vec![MaOptions::tcp_query(0)] };
    StackOffer { proposal: proposal(), configuration }
}

pub(crate) fn response_offer() -> StackOffer {
    let options = vec![MaOptions::tcp_response(1, 30270), MaOptions::tcp_response(2, 30271)];
    StackOffer { proposal: proposal(), configuration: StackConfiguration { hold_time: Duration::from_secs(40), options } }
}

pub(crate) fn nat() -> NatTraversal {
    NatTraversal {
        original: path_coupled(Direction::Downstream, [10, 0, 0, 1]),
        translated: vec![0, 2],
        opaque: vec![Bytes::from_static(b"abc"), Bytes::from_static(b"xy")],
    }
}

pub(crate) fn error() -> GistError {
    GistError {
        datagram_mode: true,
        query_mode: true,
        session: Some(session()),
        mri: Some(downstream()),
        info: vec![ErrorInfo::ObjectType(6)],
        comment: Some("hé".into()),
        ..GistError::new(ErrorCause::ObjectType(ObjectTypeFault::Missing), [1, 9, 0, 0x18, 0x7f, 0xc0, 0x80, 0xc0])
    }
}

pub(crate) fn payload() -> Bytes {
    Bytes::from_static(b"Hello!\0\0")
}

fn query() -> Query {
    let cookie = Cookie::new(vec![0x13, 0x94, 0x71, 0x23, 0x94, 0x71, 0x92, 0x35]).unwrap();
    Query { nat: None, mri: downstream(), session: session(), nli: nli(), cookie, stack: None, payload: None }
}

fn response() -> Response {
    Response {
        nat: None,
        mri: downstream().inverted(),
        session: session(),
        nli: nli(),
        query_cookie: query().cookie,
        confirm_requested: false,
        responder: None,
        payload: None,
    }
}

fn confirm() -> Confirm {
    Confirm {
        mri: downstream(),
        session: session(),
        nli: nli(),
        responder_cookie: None,
        proposal: None,
        configuration: None,
        payload: None,
    }
}

fn data() -> Data {
    Data { nat: None, mri: downstream(), session: session(), nli: None, payload: payload(), explicit: false, context_free: false }
}

fn responder_cookie() -> Cookie {
    Cookie::new(vec![0xac, 0xde, 0xfe, 0xdc]).unwrap()
}

fn without_application(body: Body) -> Message {
    Message { nslp_id: NslpId::NONE, ..from(true, body) }
}
