//! What holds for all messages and for all bytes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use bytes::Bytes;
use gist::wire::stream::Framer;
use gist::wire::{
    Body, Confirm, Cookie, Data, DecodeFault, Direction, ErrorBody, ErrorClass, ErrorInfo, GistError, Hello, LooseEnd, MaOptions,
    MaProtocol, Message, Mri, NatTraversal, NetworkLayerInformation, NslpId, ObjectTypeFault, ObjectValueInfo, PathCoupled, PeerIdentity,
    Profile, Query, ResponderPart, Response, SessionId, StackConfiguration, StackOffer, StackProposal, UnknownObject, datagram,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::picture::{flagged_object, split, with_objects};
use crate::samples::samples;

proptest! {
    /// G-348 to G-373: every message that can be written is read as what it was.
    #[test]
    fn a_written_message_is_read_as_itself(message in message()) {
        let bytes = message.to_bytes().unwrap();
        prop_assert_eq!(bytes.len() % 4, 0);
        prop_assert_eq!(Message::decode(bytes), Ok(message));
    }

    /// G-351.
    #[test]
    fn no_strict_prefix_of_a_message_is_a_message(message in message(), cut in any::<Index>()) {
        let bytes = message.to_bytes().unwrap();
        prop_assert!(Message::decode(bytes.slice(..cut.index(bytes.len()))).is_err());
    }

    /// G-136: no order but one.
    #[test]
    fn a_message_in_any_other_order_is_refused(message in known_message(), places in vec(any::<u64>(), 12)) {
        let bytes = message.to_bytes().unwrap();
        let objects = split(&bytes);
        let mut shuffled: Vec<_> = places.into_iter().zip(objects.iter().cloned()).collect();
        shuffled.sort();
        let shuffled: Vec<Bytes> = shuffled.into_iter().map(|(_, object)| object).collect();
        let decoded = Message::decode(with_objects(&bytes, &shuffled));
        if shuffled == objects {
            prop_assert_eq!(decoded, Ok(message));
        } else {
            let fault = decoded.unwrap_err().fault;
            prop_assert!(matches!(fault, DecodeFault::ObjectType { fault: ObjectTypeFault::Invalid, .. }), "{}", fault);
        }
    }

    /// G-136: no object twice.
    #[test]
    fn a_message_with_an_object_repeated_is_refused(message in known_message(), which in any::<Index>(), place in any::<Index>()) {
        let bytes = message.to_bytes().unwrap();
        let mut objects = split(&bytes);
        let repeated = objects[which.index(objects.len())].clone();
        objects.insert(place.index(objects.len() + 1), repeated);
        prop_assert!(Message::decode(with_objects(&bytes, &objects)).is_err());
    }

    /// G-395, G-396: whatever arrives, it is refused or read, and never more than that.
    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..600)) {
        survives(&bytes);
    }

    /// The same, starting from something that nearly is a message.
    #[test]
    fn a_damaged_message_does_no_harm(
        which in any::<Index>(),
        damage in vec((any::<Index>(), any::<u8>()), 1..8),
        cut in option::of(any::<Index>()),
    ) {
        let samples = samples();
        let mut bytes = which.get(&samples).bytes.to_vec();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            if bytes.len() >= 8 {
                let words = u16::try_from((bytes.len() - 8) / 4).unwrap();
                bytes[2..4].copy_from_slice(&words.to_be_bytes());
            }
        }
        survives(&bytes);
    }

    /// G-397: how a stream arrives does not matter.
    #[test]
    fn a_stream_in_any_pieces_is_the_same_messages(messages in vec(message(), 1..4), pieces in vec(1..200_usize, 1..50)) {
        let messages: Vec<Bytes> = messages.into_iter().map(|message| message.to_bytes().unwrap()).collect();
        let stream = messages.concat();
        let mut framer = Framer::default();
        let mut found = Vec::new();
        let mut rest = &stream[..];
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (bytes, after) = rest.split_at((*piece).min(rest.len()));
            framer.push(bytes);
            while let Some(message) = framer.next_message().unwrap() {
                found.push(message);
            }
            rest = after;
        }
        prop_assert_eq!(found, messages);
    }
}

/// Decoding never panics; what is read can be written, and is then read the same; what is refused can be reported.
fn survives(bytes: &[u8]) {
    let owned = Bytes::copy_from_slice(bytes);
    let _ = datagram::decode(owned.clone());
    let mut framer = Framer::default();
    framer.push(bytes);
    while let Ok(Some(_)) = framer.next_message() {}
    match Message::decode(owned) {
        Ok(message) => {
            let written = message.to_bytes().unwrap();
            let nslp_id = if matches!(message.body, Body::Error(_) | Body::Hello(_)) { NslpId::NONE } else { message.nslp_id };
            assert_eq!(Message::decode(written), Ok(Message { nslp_id, ..message }));
        }
        Err(error) => {
            let report = error.to_gist_error();
            let unanswerable = bytes.len() < 8 || error.is_about_error_message();
            assert_eq!(report.is_none(), unanswerable);
            if let Some(error) = report {
                let body = Body::Error(ErrorBody { nat: None, nli: None, error });
                let message = Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: vec![] };
                let written = message.to_bytes().unwrap();
                assert!(written.len() <= 1200, "fits a datagram: {} bytes", written.len());
                assert_eq!(Message::decode(written), Ok(message));
            }
        }
    }
}

fn message() -> BoxedStrategy<Message> {
    (known_message(), vec(unknown(), 0..3)).prop_map(|(message, unknown)| Message { unknown, ..message }).boxed()
}

/// A message of which every object is known.
fn known_message() -> BoxedStrategy<Message> {
    (any::<u8>(), any::<u16>(), any::<bool>(), body())
        .prop_map(|(hop_count, nslp_id, source_is_signalling, body)| {
            let has_none = matches!(body, Body::Error(_) | Body::Hello(_));
            let nslp_id = if has_none { NslpId::NONE } else { NslpId(nslp_id) };
            Message { hop_count, nslp_id, source_is_signalling, body, unknown: vec![] }
        })
        .boxed()
}

fn body() -> BoxedStrategy<Body> {
    prop_oneof![
        query().prop_map(Body::Query),
        response().prop_map(Body::Response),
        confirm().prop_map(Body::Confirm),
        data().prop_map(Body::Data),
        (option::of(nat()), option::of(nli()), error()).prop_map(|(nat, nli, error)| Body::Error(ErrorBody { nat, nli, error })),
        (any::<bool>(), any::<u32>()).prop_map(|(request, id)| Body::Hello(Hello { request: request && id != 0, id })),
    ]
    .boxed()
}

fn query() -> BoxedStrategy<Query> {
    (option::of(nat()), mri(), session(), nli(), cookie(), option::of(offer(false)), option::of(words()))
        .prop_map(|(nat, mri, session, nli, cookie, stack, payload)| Query { nat, mri, session, nli, cookie, stack, payload })
        .boxed()
}

fn response() -> BoxedStrategy<Response> {
    let responder = (cookie(), option::of(offer(true))).prop_map(|(cookie, stack)| ResponderPart { cookie, stack });
    (option::of(nat()), mri(), session(), nli(), cookie(), any::<bool>(), option::of(responder), option::of(words()))
        .prop_map(|(nat, mri, session, nli, query_cookie, confirm_requested, responder, payload)| Response {
            nat,
            mri,
            session,
            nli,
            query_cookie,
            confirm_requested: confirm_requested || responder.is_some(),
            responder,
            payload,
        })
        .boxed()
}

fn confirm() -> BoxedStrategy<Confirm> {
    let nested = option::of((cookie(), option::of((proposal(), option::of(hold_time())))));
    (mri(), session(), nli(), nested, option::of(words()))
        .prop_map(|(mri, session, nli, nested, payload)| {
            let (responder_cookie, stack) = nested.map_or((None, None), |(cookie, stack)| (Some(cookie), stack));
            let (proposal, hold_time) = stack.map_or((None, None), |(proposal, hold_time)| (Some(proposal), hold_time));
            let configuration = hold_time.map(|hold_time| StackConfiguration { hold_time, options: vec![] });
            Confirm { mri, session, nli, responder_cookie, proposal, configuration, payload }
        })
        .boxed()
}

fn data() -> BoxedStrategy<Data> {
    (option::of(nat()), mri(), session(), option::of(nli()), words(), any::<bool>(), any::<bool>())
        .prop_map(|(nat, mri, session, nli, payload, explicit, context_free)| Data {
            nat,
            mri,
            session,
            nli,
            payload,
            explicit,
            context_free,
        })
        .boxed()
}

fn mri() -> BoxedStrategy<Mri> {
    let direction = prop_oneof![Just(Direction::Downstream), Just(Direction::Upstream)];
    let addresses = prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(source, destination)| (IpAddr::V4(source), IpAddr::V4(destination))),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(source, destination)| (IpAddr::V6(source), IpAddr::V6(destination))),
    ];
    let upper = option::of((any::<u8>(), any::<Option<u32>>(), any::<Option<u16>>(), any::<Option<u16>>()));
    let fields = (0..=128_u8, 0..=128_u8, option::of(0..64_u8), option::of(0..1_u32 << 20), upper);
    (direction, addresses, option::weighted(0.9, fields))
        .prop_map(|(direction, (source, destination), fields)| {
            let Some((source_prefix, destination_prefix, ds_field, flow_label, upper)) = fields else {
                return Mri::LooseEnd(LooseEnd { direction, source, destination });
            };
            let host = if source.is_ipv4() { 32 } else { 128 };
            let (protocol, spi, source_port, destination_port) =
                upper.map_or((None, None, None, None), |(protocol, spi, source, destination)| (Some(protocol), spi, source, destination));
            Mri::PathCoupled(PathCoupled {
                direction,
                source,
                destination,
                source_prefix: source_prefix.min(host),
                destination_prefix: destination_prefix.min(host),
                protocol,
                ds_field,
                flow_label: flow_label.filter(|_| source.is_ipv6()),
                spi,
                source_port,
                destination_port,
            })
        })
        .boxed()
}

fn session() -> BoxedStrategy<SessionId> {
    any::<[u8; 16]>().prop_map(SessionId).boxed()
}

fn nli() -> BoxedStrategy<NetworkLayerInformation> {
    (any::<u8>(), hold_time(), vec(any::<u8>(), 1..=255), any::<IpAddr>())
        .prop_map(|(ip_ttl, validity, peer, address)| NetworkLayerInformation {
            ip_ttl,
            validity,
            peer: PeerIdentity::new(peer).unwrap(),
            address,
        })
        .boxed()
}

fn cookie() -> BoxedStrategy<Cookie> {
    words().prop_map(|words| Cookie::new(words).unwrap()).boxed()
}

fn hold_time() -> BoxedStrategy<Duration> {
    (1..=u32::MAX).prop_map(|millis| Duration::from_millis(millis.into())).boxed()
}

fn proposal() -> BoxedStrategy<StackProposal> {
    let profile = vec((1..=255_u8).prop_map(MaProtocol::from), 1..6).prop_map(Profile);
    vec(prop_oneof![profile, Just(Profile::tls_over_tcp()), Just(Profile::tcp())], 1..5)
        .prop_map(|profiles| StackProposal { profiles })
        .boxed()
}

/// Options for TCP in all profiles if it is offered, and for a layer of each profile.
fn offer(in_response: bool) -> BoxedStrategy<StackOffer> {
    (proposal(), hold_time(), any::<Index>(), vec(any::<u8>(), 0..=255), any::<bool>(), 1..=u16::MAX)
        .prop_map(move |(proposal, hold_time, layer, data, forbidden, port)| {
            let mut options = Vec::new();
            for (profile, Profile(layers)) in (1..).zip(&proposal.profiles) {
                let protocol = *layer.get(layers);
                if protocol != MaProtocol::ForwardsTcp {
                    options.push(MaOptions { protocol, profile, forbidden, data: data.clone().into() });
                }
            }
            if proposal.profiles.iter().any(|profile| profile.contains(MaProtocol::ForwardsTcp)) {
                options.push(if in_response { MaOptions::tcp_response(0, port) } else { MaOptions::tcp_query(0) });
            }
            StackOffer { proposal, configuration: StackConfiguration { hold_time, options } }
        })
        .boxed()
}

/// Always with MRI and NLI translated, as a Query and Data need it.
fn nat() -> BoxedStrategy<NatTraversal> {
    let translated = vec(any::<u16>(), 0..5).prop_map(|others| [&[0, 2], &others[..]].concat());
    (mri(), translated, vec(vec(any::<u8>(), 0..20).prop_map(Bytes::from), 0..3))
        .prop_map(|(original, translated, opaque)| NatTraversal { original, translated, opaque })
        .boxed()
}

fn error() -> BoxedStrategy<GistError> {
    let info = prop_oneof![
        any::<u16>().prop_map(ErrorInfo::MessageLength),
        any::<u16>().prop_map(ErrorInfo::LinkMtu),
        any::<u16>().prop_map(ErrorInfo::ObjectType),
        (any::<u16>(), words()).prop_map(|(offset, object)| ErrorInfo::ObjectValue(ObjectValueInfo { offset, object })),
        (5..=u16::MAX, words()).prop_map(|(kind, value)| ErrorInfo::Other { kind, value }),
    ];
    let cause = (any::<u8>().prop_map(ErrorClass::from), any::<u16>(), any::<u8>(), any::<[u8; 8]>());
    let mode = prop_oneof![Just((false, false)), Just((true, false)), Just((true, true))];
    (cause, mode, option::of(session()), option::of(mri()), vec(info, 0..4), option::of("[^\0]{0,20}"))
        .prop_map(|((class, code, subcode, header), (datagram_mode, query_mode), session, mri, info, comment)| GistError {
            class,
            code,
            subcode,
            datagram_mode,
            query_mode,
            header,
            session,
            mri,
            info,
            comment,
        })
        .boxed()
}

fn unknown() -> BoxedStrategy<UnknownObject> {
    (11..4096_u16, vec(any::<[u8; 4]>(), 0..4))
        .prop_map(|(kind, words)| UnknownObject::new(flagged_object(2, kind, &hex::encode(words.concat()))).unwrap())
        .boxed()
}

fn words() -> BoxedStrategy<Bytes> {
    vec(any::<[u8; 4]>(), 0..10).prop_map(|words| words.concat().into()).boxed()
}
