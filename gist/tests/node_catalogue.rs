//! The error catalogue in use (RFC 5971 §5.6, A.4): each entry is provoked from a node as a stranger or a peer could, and each is understood.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use bytes::Bytes;
use gist::api::{NetworkEvent, SendError, SendMessage};
use gist::node::{AssociationEvent, Datagram, NodeConfig, Output, PeerCredentials, Registration, Transmit};
use gist::wire::{
    Body, Cookie, Data, ErrorBody, ErrorCause, ErrorInfo, GistError, HeaderFault, Message, MessageType, Mri, MriFault, NslpId,
    ObjectTypeFault, ObjectValueFault, PathCoupled,
};
use node_world::*;

/// The sender's first Query, for session 5 and the flow.
fn query() -> Message {
    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.datagrams_of(0, MessageType::Query)[0].2.clone()
}

fn query_for(mri: Mri) -> Message {
    let mut message = query();
    let Body::Query(query) = &mut message.body else { panic!("Query") };
    query.mri = mri;
    message
}

fn path_coupled(change: impl FnOnce(&mut PathCoupled)) -> Mri {
    let Mri::PathCoupled(mut mri) = down() else { panic!("path-coupled") };
    change(&mut mri);
    Mri::PathCoupled(mri)
}

fn data(change: impl FnOnce(&mut Data)) -> Message {
    let nli = query().nli().cloned();
    let payload = Bytes::from_static(b"data");
    let mut data = Data { nat: None, mri: down(), session: session(5), nli, payload, explicit: false, context_free: false };
    change(&mut data);
    Message { hop_count: 5, nslp_id: NSLP, source_is_signalling: true, body: Body::Data(data), unknown: Vec::new() }
}

/// The Query in bytes behind the magic number, to be changed by hand.
fn bytes_of(change: impl FnOnce(&mut Vec<u8>)) -> Datagram {
    let mut datagram = passing("10.0.1.1:270", &query());
    let mut bytes = datagram.payload.to_vec();
    change(&mut bytes);
    // The length field, whatever has become of the objects.
    let words = u16::try_from((bytes.len() - 12) / 4).unwrap().to_be_bytes();
    bytes[6..8].copy_from_slice(&words);
    datagram.payload = bytes.into();
    datagram
}

/// Where an object with its header begins in the datagram.
fn at(bytes: &[u8], kind: u8) -> usize {
    let mut place = 12;
    while bytes[place + 1] != kind {
        place += 4 + usize::from(bytes[place + 3]) * 4;
    }
    place
}

fn length(bytes: &[u8], place: usize) -> usize {
    4 + usize::from(bytes[place + 3]) * 4
}

/// The Error that the router answers a datagram with, and where it goes.
fn refused_with(datagram: Datagram, change: impl Fn(usize, &mut NodeConfig)) -> (Message, Transmit) {
    let mut world = World::chain_with(change);
    let now = world.now;
    let router = &mut world.members[1].node;
    router.handle_datagram(datagram, now);
    let Some(Output::Transmit(transmit)) = router.poll_output() else { panic!("an Error") };
    assert_eq!(router.poll_output(), None, "one answer");
    // One count, under the very entry.
    let counted: Vec<(String, u64)> = router.counters().refused.by_word().filter(|(_, count)| *count > 0).collect();
    let Body::Error(body) = message_in(&transmit).body else { panic!("an Error") };
    assert_eq!(counted, [(body.error.cause().expect("an entry of the catalogue").word(), 1)]);
    // G-214: nothing is kept for it, nothing repeated.
    assert!(router.routing_table().is_empty() && router.associations().is_empty());
    assert_eq!(router.poll_timeout(), None);
    (message_in(&transmit), transmit)
}

/// The causes that a datagram to the router brings about, each with it.
fn by_datagram() -> Vec<(ErrorCause, Datagram)> {
    let header = ErrorCause::CommonHeaderParse;
    let object = ErrorCause::ObjectType;
    let value = ErrorCause::ObjectValue;
    let from = "10.0.1.1:270";
    let upstream = query_for(up());
    let wrong_length = {
        // 8 words behind the last object, which the header does not count.
        let mut datagram = passing(from, &query());
        datagram.payload = [&datagram.payload[..], &[0; 4]].concat().into();
        datagram
    };
    let without = |kind: u8| {
        bytes_of(|bytes| {
            let place = at(bytes, kind);
            bytes.drain(place..place + length(bytes, place));
        })
    };
    let again = bytes_of(|bytes| {
        let place = at(bytes, 1);
        let object = bytes[place..place + length(bytes, place)].to_vec();
        bytes.splice(place..place, object);
    });
    let with_flags = |flags: u8| {
        bytes_of(|bytes| {
            let place = at(bytes, 5);
            bytes.splice(place..place, [flags, 0x0b, 0, 1, 1, 2, 3, 4]);
        })
    };
    let mri_byte = |offset: usize, byte: u8| {
        bytes_of(|bytes| {
            let place = at(bytes, 0) + 4 + offset;
            bytes[place] = byte;
        })
    };
    let ipv6 = path_coupled(|mri| {
        (mri.source, mri.destination) = (address("fd00::1"), address("fd00::2"));
        (mri.source_prefix, mri.destination_prefix) = (128, 128);
    });
    let foreign_query = {
        let mut world = World::chain_with(|_, config| config.registrations.push(Registration::secure(NslpId(12), Some(1))));
        let mri = path_coupled(|mri| mri.destination = address("10.0.5.1"));
        world.send(0, SendMessage { nslp_id: NslpId(12), mri, ..text("past") });
        world.datagrams_of(0, MessageType::Query)[0].2.clone()
    };
    vec![
        (header(HeaderFault::UnknownVersion), bytes_of(|bytes| bytes[4] = 7)),
        (header(HeaderFault::UnknownType), bytes_of(|bytes| bytes[10] |= 0x3f)),
        (header(HeaderFault::InvalidRFlag), bytes_of(|bytes| bytes[11] &= !0x40)),
        (header(HeaderFault::IncorrectMessageLength), wrong_length),
        (header(HeaderFault::InvalidEFlag), bytes_of(|bytes| bytes[11] |= 0x20)),
        (header(HeaderFault::InvalidCFlag), bytes_of(|bytes| bytes[10] &= 0x7f)),
        (ErrorCause::HopLimitExceeded, passing(from, &Message { hop_count: 0, ..query() })),
        (ErrorCause::IncorrectEncapsulation, direct(from, "10.0.1.254", &query())),
        (ErrorCause::NoRoutingState, direct(from, "10.0.1.254", &data(|_| {}))),
        (ErrorCause::UnknownNslpId, direct(from, "10.0.1.254", &Message { nslp_id: NslpId(12), ..data(|_| {}) })),
        (ErrorCause::MessageTooLarge, Datagram { destination: address("10.0.5.1"), ..passing(from, &foreign_query) }),
        (object(ObjectTypeFault::Duplicate), again),
        (object(ObjectTypeFault::Unrecognised), with_flags(0x00)),
        (object(ObjectTypeFault::Missing), without(5)),
        (
            object(ObjectTypeFault::Invalid),
            bytes_of(|bytes| {
                let place = at(bytes, 5);
                bytes.splice(place..place, [0, 10, 0, 1, 0, 0, 0, 1]);
            }),
        ),
        (object(ObjectTypeFault::Untranslated), passing("192.0.2.1:6000", &query())),
        (object(ObjectTypeFault::InvalidExtensibilityFlags), with_flags(0xc0)),
        (
            value(ObjectValueFault::IncorrectLength),
            bytes_of(|bytes| {
                let place = at(bytes, 1);
                bytes[place + 3] = 5;
                bytes.splice(place + 4..place + 4, [0; 4]);
            }),
        ),
        (value(ObjectValueFault::ValueNotSupported), mri_byte(0, 120)),
        (value(ObjectValueFault::InvalidFlagFieldCombination), mri_byte(2, 0x4c | 0x02)),
        (
            value(ObjectValueFault::EmptyList),
            bytes_of(|bytes| {
                let place = at(bytes, 3) + 4;
                bytes[place + 4..place + 8].fill(0);
            }),
        ),
        (
            value(ObjectValueFault::StackMismatch),
            bytes_of(|bytes| {
                let place = at(bytes, 4) + 4 + 8;
                bytes[place + 1] = 9;
            }),
        ),
        (ErrorCause::InvalidIpTtl, Datagram { ip_ttl: Some(200), ..passing(from, &upstream) }),
        (ErrorCause::MriValidation(MriFault::TooWild), passing(from, &query_for(path_coupled(|mri| mri.destination_prefix = 8)))),
        (ErrorCause::MriValidation(MriFault::IpVersionMismatch), passing(from, &query_for(ipv6))),
        (ErrorCause::MriValidation(MriFault::IngressFilterFailure), passing(from, &query_for(path_coupled(|mri| mri.source_prefix = 8)))),
    ]
}

/// The field that A.4.4 wants for an entry, if it wants one.
fn has_its_info(cause: ErrorCause, info: &[ErrorInfo]) -> bool {
    let objects = info.iter().filter(|one| matches!(one, ErrorInfo::ObjectValue(_))).count();
    match cause {
        ErrorCause::CommonHeaderParse(HeaderFault::IncorrectMessageLength) => matches!(info, [ErrorInfo::MessageLength(_)]),
        ErrorCause::MessageTooLarge => info == [ErrorInfo::LinkMtu(NARROW)],
        ErrorCause::ObjectType(_) => matches!(info, [ErrorInfo::ObjectType(_)]),
        ErrorCause::ObjectValue(ObjectValueFault::StackMismatch) => objects == 2 && info.len() == 2,
        ErrorCause::ObjectValue(_) => objects == 1 && info.len() == 1,
        ErrorCause::MriValidation(_) => match info {
            [ErrorInfo::ObjectValue(mri)] => mri.object[..2] == [0, 0],
            _ => false,
        },
        _ => info.is_empty(),
    }
}

/// G-374…G-386 by name: G-375, G-376, G-377, G-379, G-380, G-382, G-383, G-384, G-385, G-386; G-027, G-149, G-214, G-215, G-217, G-249,
/// G-366, G-371, G-373: what a datagram brings about: class, code, subcode and fields of the catalogue; NSLPID 0, an NLI, the original common header, session and flow
/// as far as they could be read; to the NLI's address in normal encapsulation.
#[test]
fn each_entry_is_sent_for_what_it_stands_for() {
    for (cause, datagram) in by_datagram() {
        let original: [u8; 8] = datagram.payload[4..12].try_into().unwrap();
        let (is_query_mode, source) = (datagram.query_mode, datagram.source);
        let (message, transmit) = refused_with(datagram, |_, config| config.registrations[0].upstream_queries = true);
        let Transmit::Normal { destination, .. } = transmit else { panic!("{cause}: normal encapsulation") };
        assert_eq!(message.nslp_id, NslpId::NONE, "{cause}");
        let Body::Error(ErrorBody { nli, error, .. }) = message.body else { panic!("{cause}") };
        assert_eq!(error.cause(), Some(cause));
        assert_eq!((error.class, error.code, error.subcode), (cause.class(), cause.code(), cause.subcode()), "{cause}");
        assert_eq!(nli.expect("an NLI").peer, identity(1), "{cause}");
        assert_eq!((error.datagram_mode, error.query_mode), (true, is_query_mode), "{cause}");
        assert_eq!(error.header, original, "{cause}");
        assert!(has_its_info(cause, &error.info), "{cause}: {:?}", error.info);
        let (is_header, wrong_session) = (cause.code() == 1, cause == ErrorCause::ObjectValue(ObjectValueFault::IncorrectLength));
        let unread = [ObjectValueFault::ValueNotSupported, ObjectValueFault::InvalidFlagFieldCombination].map(ErrorCause::ObjectValue);
        let wrong_mri = unread.contains(&cause);
        assert_eq!(error.session.is_some(), !is_header && !wrong_session, "{cause}: session");
        assert_eq!(error.mri.is_some(), !is_header && !wrong_mri, "{cause}: MRI");
        assert_eq!(destination, source, "{cause}");
    }
}

/// G-045, G-378, G-216, G-381, G-337: the rest: code 4 goes over the association that the cause came by and nowhere else, code 7 comes from the end of
/// the path, and code 10 subcode 4 only where somebody has asked for it. With these every entry is sent.
#[test]
fn the_other_entries_are_sent_too() {
    let mut sent: BTreeSet<String> = by_datagram().iter().map(|(cause, _)| format!("{cause:?}")).collect();
    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.run(secs(1));
    let other = PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..PeerCredentials::default() };
    let id = world.accept(1, "10.0.1.9:40000", other.clone());
    let now = world.now;
    let router = &mut world.members[1].node;
    let bytes = data(|data| data.nli = None).to_bytes().unwrap();
    router.handle_association(id, AssociationEvent::Received(bytes), now);
    let Some(Output::SendOnAssociation { association, message }) = router.poll_output() else { panic!("an Error") };
    assert_eq!((association, router.poll_output()), (id, None));
    let message = Message::decode(message).unwrap();
    let Body::Error(ErrorBody { error, .. }) = &message.body else { panic!("an Error") };
    assert_eq!((message.nslp_id, error.cause()), (NslpId::NONE, Some(ErrorCause::IncorrectlyDelivered)));
    assert!(!error.datagram_mode && !error.query_mode);
    sent.insert(format!("{:?}", ErrorCause::IncorrectlyDelivered));

    let mut world = World::chain();
    world.inject(2, passing("10.0.1.1:270", &Message { nslp_id: NslpId(12), ..query() }));
    assert_eq!((world.errors_of(2)[0].class, world.errors_of(2)[0].code), (ErrorCause::EndpointFound.class(), 7));
    sent.insert(format!("{:?}", ErrorCause::EndpointFound));

    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let mut confirm = world.on_associations[0].2.clone();
    let Body::Confirm(body) = &mut confirm.body else { panic!("Confirm") };
    body.responder_cookie = Cookie::new(vec![0x22; 32]);
    for asked_for in [true, false] {
        let mut fresh = World::chain_with(|_, config| config.answer_bad_cookies = asked_for);
        let id = fresh.accept(2, "10.0.1.9:40000", other.clone());
        fresh.inject_on(2, id, &confirm);
        let causes: Vec<_> = fresh.errors_of(2).iter().map(|error| error.cause().unwrap()).collect();
        let cause = ErrorCause::ObjectValue(ObjectValueFault::InvalidCookie);
        assert_eq!(causes, if asked_for { vec![cause] } else { vec![] });
        sent.insert(format!("{cause:?}"));
    }
    let all: BTreeSet<String> = ErrorCause::ALL.iter().map(|cause| format!("{cause:?}")).collect();
    assert_eq!(sent, all);
}

/// An Error about the sender's Query, as somebody on its way could write it.
fn about_query(world: &World, cause: ErrorCause) -> Message {
    let header = world.datagrams_of(0, MessageType::Query)[0].2.to_bytes().unwrap()[..8].try_into().unwrap();
    let error =
        GistError { session: Some(session(1)), mri: Some(down()), datagram_mode: true, query_mode: true, ..GistError::new(cause, header) };
    let body = Body::Error(ErrorBody { nat: None, nli: None, error });
    Message { hop_count: 9, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

/// G-129, G-213, G-374: every entry is understood: about a Query it is counted and never answered, and ends nothing; if nobody takes the Query, the
/// application hears what was said. Code 7 is the last node (§4.3.4 case 5), codes 4 to 6 are about state that a Query has not yet.
#[test]
fn each_entry_is_understood_and_none_is_answered() {
    for cause in ErrorCause::ALL {
        let mut world = World::chain();
        world.members[1].alive = false;
        world.send(0, text("down"));
        let error = about_query(&world, cause);
        world.inject(0, direct("10.9.9.9:270", "10.0.1.1", &error));
        assert_eq!(world.node(0).counters().errors_received, 1, "{cause}");
        assert_eq!(world.datagrams.len(), 1, "{cause}");
        world.run(secs(33));
        let sent: BTreeSet<_> = world.datagrams.iter().map(|(_, _, transmit)| message_in(transmit).message_type() as u8).collect();
        assert_eq!(sent, [MessageType::Query as u8].into(), "{cause}");
        let expected = match cause {
            ErrorCause::EndpointFound
            | ErrorCause::NoRoutingState
            | ErrorCause::IncorrectlyDelivered
            | ErrorCause::UnknownNslpId
            | ErrorCause::ObjectValue(ObjectValueFault::InvalidCookie) => SendError::NoResponse,
            refused => SendError::Refused(refused),
        };
        assert_eq!(world.failures(0)[0].1, expected, "{cause}");
        let is_last = world.events(0).contains(&NetworkEvent::LastNode);
        assert_eq!(is_last, cause == ErrorCause::EndpointFound, "{cause}");
    }
}

/// An Error says nothing about Queries that it does not echo: another length, another flow.
#[test]
fn an_error_about_another_query_is_not_believed() {
    for spoil in [|error: &mut GistError| error.header[3] += 1, |error: &mut GistError| error.session = Some(session(2))] {
        let mut world = World::chain();
        world.members[1].alive = false;
        world.send(0, text("down"));
        let mut error = about_query(&world, ErrorCause::InvalidIpTtl);
        let Body::Error(body) = &mut error.body else { panic!("Error") };
        spoil(&mut body.error);
        world.inject(0, direct("10.9.9.9:270", "10.0.1.1", &error));
        world.run(secs(33));
        assert_eq!(world.failures(0)[0].1, SendError::NoResponse);
    }
}

/// G-219: state that knows the sender at another address, or by another way, does not decide where the Error goes.
#[test]
fn routing_state_does_not_route_errors() {
    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.run(secs(1));
    world.datagrams.clear();
    let entry = world.node(1).routing_table().into_iter().find(|entry| entry.peer == Some(identity(0))).unwrap();
    assert_eq!(entry.peer_address, Some(address("10.0.1.1")));
    let message = Message { hop_count: 0, ..query() };
    let mut moved = message.clone();
    let Body::Query(body) = &mut moved.body else { panic!("Query") };
    body.nli.address = address("10.0.1.77");
    let before = world.on_associations.len();
    world.inject(1, passing("10.0.1.77:6000", &moved));
    let Transmit::Normal { destination, .. } = &world.datagrams[0].2 else { panic!("normal") };
    assert_eq!(destination.to_string(), "10.0.1.77:6000");
    assert_eq!(world.on_associations.len(), before, "nor the association to that peer");
}

/// What is logged meanwhile, a line each: the level, and the fields.
fn logged(act: impl FnOnce()) -> Vec<String> {
    struct Line(String);
    impl tracing::field::Visit for Line {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0 += &format!("{field}={value:?} ");
        }
    }
    let lines = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&lines);
    let ear = move |event: &tracing::Event<'_>| {
        let mut line = Line(format!("{} ", event.metadata().level()));
        event.record(&mut line);
        kept.borrow_mut().push(line.0);
    };
    log::hear(ear, act);
    lines.take()
}

/// G-218: an Error that has nowhere to go is in the log.
#[test]
fn an_error_that_cannot_be_sent_is_logged() {
    let lines = logged(|| {
        let mut world = World::chain();
        world.inject(1, {
            let mut datagram = passing("10.9.9.9:1234", &Message { source_is_signalling: false, ..query() });
            let mut bytes = datagram.payload.to_vec();
            bytes[4] = 7;
            datagram.payload = bytes.into();
            datagram
        });
        assert!(world.datagrams.is_empty());
    });
    assert!(
        lines.iter().any(|line| line.starts_with("INFO") && line.contains("Error message cannot be sent") && line.contains("code=1")),
        "{lines:?}"
    );
}

/// G-338, G-232, G-096, G-127: a bad cookie, an altered proposal and a peer that is not authorised are in the log, with session or subject.
#[test]
fn what_is_refused_in_silence_is_logged() {
    let other =
        PeerCredentials { dns_names: vec!["other.example".to_owned()], subject: "CN=other".to_owned(), ..PeerCredentials::default() };
    let lines = logged(|| {
        let mut world = World::chain();
        world.send(0, text("down"));
        world.run(secs(1));
        let good = world.on_associations[0].2.clone();
        let friend = PeerCredentials { dns_names: vec!["friend.pbs.test".to_owned()], ..PeerCredentials::default() };
        let mut fresh = World::chain();
        for change in [
            |body: &mut gist::wire::Confirm| body.responder_cookie = Cookie::new(vec![0x22; 32]),
            |body: &mut gist::wire::Confirm| {
                body.proposal = Some(gist::wire::StackProposal { profiles: vec![gist::wire::Profile::tcp()] });
            },
        ] {
            let mut confirm = good.clone();
            let Body::Confirm(body) = &mut confirm.body else { panic!("Confirm") };
            change(body);
            let id = fresh.accept(1, "10.0.1.9:40000", friend.clone());
            fresh.inject_on(1, id, &confirm);
        }
        fresh.accept(1, "10.0.1.9:40001", other.clone());
    });
    let warned = |words: [&str; 2]| lines.iter().any(|line| line.starts_with("WARN") && words.iter().all(|word| line.contains(word)));
    assert!(
        warned(["Confirm refused", "Cookie("]) && warned(["Confirm refused", "Proposal"]) && warned(["not authorised", "CN=other"]),
        "{lines:#?}"
    );
}
