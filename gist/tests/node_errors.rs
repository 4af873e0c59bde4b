//! What a node refuses, and what it says about it (RFC 5971 §4.3, §5.5, §5.6, Appendix A.4.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use bytes::Bytes;
use gist::api::{Request, RoutingStatus, SendError};
use gist::node::{AssociationEvent, Datagram, PeerCredentials, Transmit};
use gist::wire::{
    Body, Data, Direction, ErrorCause, HeaderFault, Hello, LooseEnd, Message, MessageType, Mri, MriFault, Nli, NslpId, ObjectTypeFault,
    SessionId, StackOffer,
};
use node_world::*;

/// A Query as the sender's own first one, for session 5.
fn query() -> Message {
    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.datagrams_of(0, MessageType::Query)[0].2.clone()
}

fn with_query(change: impl FnOnce(&mut gist::wire::Query)) -> Message {
    let mut message = query();
    let Body::Query(body) = &mut message.body else { panic!("Query") };
    change(body);
    message
}

fn nli() -> Nli {
    Nli { ip_ttl: 0, validity: secs(30), peer: identity(0), address: address("10.0.1.1") }
}

fn data(nli: Option<Nli>) -> Message {
    let payload = Bytes::from_static(b"data");
    let body = Body::Data(Data { nat: None, mri: down(), session: session(5), nli, payload, explicit: false, context_free: false });
    Message { hop_count: 5, nslp_id: NSLP, source_is_signalling: true, body, unknown: Vec::new() }
}

/// Hands the datagram to the router and gives its only answer.
fn answer(datagram: Datagram) -> Option<(ErrorCause, Transmit)> {
    let mut world = World::chain();
    let before = world.node(1).routing_table();
    world.inject(1, datagram);
    let (_, _, sent) = world.datagrams.first().cloned()?;
    assert_eq!(world.datagrams.len(), 1, "one answer");
    assert_eq!(world.node(1).routing_table(), before, "G-214");
    let message = message_in(&sent);
    assert_eq!(message.nslp_id, NslpId::NONE, "G-217");
    let Body::Error(body) = message.body else { panic!("{message:?}") };
    assert!(body.nli.is_some(), "G-149");
    assert!(body.error.datagram_mode);
    Some((body.error.cause().unwrap(), sent))
}

fn destination(transmit: &Transmit) -> String {
    match transmit {
        Transmit::Normal { destination, .. } => destination.to_string(),
        Transmit::QueryMode { .. } => panic!("G-215: normal encapsulation"),
    }
}

/// G-032, G-213, G-215.
#[test]
fn hop_count_zero_is_refused() {
    let message = Message { hop_count: 0, ..query() };
    let (cause, sent) = answer(passing("10.0.1.1:270", &message)).unwrap();
    assert_eq!(cause, ErrorCause::HopLimitExceeded);
    assert_eq!(destination(&sent), "10.0.1.1:270");
}

/// G-033, G-050, X-115: the hop count falls by one at each node, and the application's count is used.
#[test]
fn the_hop_count_falls_by_one_at_each_node() {
    let mut world = World::chain();
    let mut message = text("down");
    message.hop_count = Some(9);
    world.send(0, message);
    world.run(secs(1));
    assert_eq!((world.received(1)[0].hop_count, world.received(2)[0].hop_count), (8, 7));
    let mut last = text("last");
    last.hop_count = Some(1);
    world.send(0, last);
    world.run(secs(1));
    // The router's application gets count 0 and may not send it on (G-049).
    assert_eq!(world.received(1)[1].hop_count, 0);
    assert_eq!(world.failures(1)[0].1, SendError::HopCountZero);
    assert_eq!(world.payloads(2), ["down"]);
}

/// G-024, G-048, G-049, G-051, G-062: what cannot be sent is said at once, and no packet leaves.
#[test]
fn messages_that_cannot_be_sent_are_refused_at_once() {
    let mut world = World::chain();
    let upstream = |mut message: gist::api::SendMessage| {
        message.mri = up();
        message
    };
    let mut zero = text("zero");
    zero.hop_count = Some(0);
    let mut foreign = text("what");
    foreign.nslp_id = NslpId(99);
    let mut long = text("long");
    long.payload = Bytes::from(vec![0; 16_384]);
    for (number, message, error) in [
        (2, text("self"), SendError::SelfDestination),
        (0, upstream(text("self")), SendError::SelfDestination),
        (1, upstream(text("none")), SendError::NoEncapsulation),
        (0, zero, SendError::HopCountZero),
        (0, foreign, SendError::NoEncapsulation),
        (0, long, SendError::TooLarge),
        (0, text("odd"), SendError::TooLarge),
    ] {
        world.send(number, message);
        assert_eq!(world.members[number].indications.len(), 1);
        assert_eq!(world.failures(number)[0].1, error);
        world.members[number].indications.clear();
    }
    assert!(world.datagrams.is_empty());
}

/// G-004, G-168.
#[test]
fn a_datagram_without_magic_number_is_dropped_in_silence() {
    let mut datagram = passing("10.0.1.1:270", &query());
    datagram.payload = datagram.payload.slice(4..);
    assert_eq!(answer(datagram), None);
}

/// G-137, G-210: the matrix of message types and encapsulations, each refused with code 3 (or 1/5 for Data).
#[test]
fn message_types_in_the_wrong_encapsulation_are_refused() {
    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.run(secs(1));
    let response = world.datagrams_of(1, MessageType::Response)[0].2.clone();
    let confirm = world.on_associations[0].2.clone();
    let hello = Message { nslp_id: NslpId::NONE, body: Body::Hello(Hello { request: false, id: 0 }), ..query() };
    let from = "10.0.1.1:270";
    let mut from_peer = response.clone();
    let Body::Response(body) = &mut from_peer.body else { panic!("Response") };
    body.nli.address = address("10.0.1.1");
    for (name, datagram, cause) in [
        ("Query, directly addressed", direct(from, "10.0.1.254", &query()), ErrorCause::IncorrectEncapsulation),
        (
            "Query, directly addressed",
            Datagram { query_mode: true, ..direct(from, "10.0.1.254", &query()) },
            ErrorCause::IncorrectEncapsulation,
        ),
        ("Response, intercepted", passing(from, &from_peer), ErrorCause::IncorrectEncapsulation),
        ("Confirm, intercepted", passing(from, &confirm), ErrorCause::IncorrectEncapsulation),
        ("Confirm for an association, in D-mode", direct(from, "10.0.1.254", &confirm), ErrorCause::IncorrectEncapsulation),
        ("MA-Hello in D-mode", direct(from, "10.0.1.254", &hello), ErrorCause::IncorrectEncapsulation),
        ("Data, intercepted, C=0", passing(from, &data(Some(nli()))), ErrorCause::CommonHeaderParse(HeaderFault::InvalidCFlag)),
    ] {
        let got = answer(datagram).map(|(cause, _)| cause);
        // An MA-Hello has no NLI: S=1 lets the answer go to the source.
        assert_eq!(got, Some(cause), "{name}");
    }
    // A Query on an association.
    let mut world = World::chain();
    let friend = PeerCredentials { dns_names: vec!["friend.pbs.test".to_owned()], ..PeerCredentials::default() };
    let id = world.accept(1, "10.0.1.9:40000", friend);
    world.inject_on(1, id, &query());
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::IncorrectEncapsulation));
    assert!(!world.errors_of(1)[0].datagram_mode);
}

/// G-270, G-130, G-148: Data as a datagram. Without state code 5; without NLI missing object; for a session on an association
/// code 3.
#[test]
fn data_in_datagrams_never_reaches_an_application_that_demands_protection() {
    let from = "10.0.1.1:270";
    let to = "10.0.1.254";
    let cause = |message: &Message| answer(direct(from, to, message)).map(|(cause, _)| cause);
    assert_eq!(cause(&data(Some(nli()))), Some(ErrorCause::NoRoutingState));
    assert_eq!(cause(&data(None)), Some(ErrorCause::ObjectType(ObjectTypeFault::Missing)));

    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.run(secs(1));
    world.inject(1, direct(from, to, &data(Some(nli()))));
    assert_eq!(world.payloads(1), ["down"]);
    assert_eq!(world.node(1).counters().unprotected, 1);
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::IncorrectEncapsulation));
}

/// G-002: flow and application are right and the session is another one: Response, Confirm and Data leave every table as it is, wherever they
/// come from.
#[test]
fn a_message_of_another_session_touches_no_state() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text_for(session(5), b"down"));
    world.run(secs(1));
    let mut others: Vec<_> = [(0, world.datagrams_of(1, MessageType::Response)[0].2.clone())].into();
    others.extend(world.on_associations.iter().filter(|(_, from, _)| *from == 0).map(|(_, _, message)| (1, message.clone())));
    let kinds: Vec<_> = others.iter().map(|(_, message)| message.message_type()).collect();
    assert!([MessageType::Response, MessageType::Confirm, MessageType::Data].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    let tables = |world: &World| [0, 1].map(|number| world.node(number).routing_table());
    let before = tables(&world);
    for (number, mut message) in others {
        match &mut message.body {
            Body::Response(body) => body.session = session(6),
            Body::Confirm(body) => body.session = session(6),
            Body::Data(body) => body.session = session(6),
            _ => continue,
        }
        let (from, to) = if number == 0 { ("10.0.1.254:270", "10.0.1.1") } else { ("10.0.1.1:270", "10.0.1.254") };
        world.inject(number, direct(from, to, &message));
        let id = world.node(number).associations()[0].association;
        world.inject_on(number, id, &message);
        assert_eq!(tables(&world), before, "{:?}", message.message_type());
    }
    assert_eq!(world.payloads(1), ["down"]);
    world.send(1, gist::api::SendMessage { mri: up(), ..text_for(session(5), b"back") });
    world.run(secs(1));
    assert_eq!(world.payloads(0), ["back"], "and the session works");
}

/// G-047: which check decides, in every combination of what each of them asks: the first of explicit routing that the application takes, the
/// association of the session, the absence of state.
#[test]
fn the_checks_of_data_are_made_in_their_order() {
    for (takes, explicit, case) in [false, true].into_iter().flat_map(|takes| {
        [false, true].into_iter().flat_map(move |explicit| ["own", "foreign", "stateless"].map(|case| (takes, explicit, case)))
    }) {
        let mut world = World::chain_with(|_, config| config.registrations[0].unvalidated_data = takes);
        world.members[1].relays = false;
        world.send(0, text_for(session(5), b"down"));
        world.run(secs(1));
        let own = world.node(1).associations()[0].association;
        let friend = PeerCredentials { dns_names: vec!["friend.pbs.test".to_owned()], ..PeerCredentials::default() };
        let other = world.accept(1, "10.0.1.9:40000", friend);
        let mut message = data(None);
        let Body::Data(body) = &mut message.body else { panic!("Data") };
        body.explicit = explicit;
        body.session = session(if case == "stateless" { 77 } else { 5 });
        world.inject_on(1, if case == "own" { own } else { other }, &message);
        let name = format!("takes {takes}, explicit {explicit}, {case}");
        let wanted = match case {
            // Nobody is known on the stranger's association, so even who takes unvalidated messages could not be told whose it is.
            "foreign" | "stateless" if takes && explicit => (1, None),
            "own" => (2, None),
            "foreign" => (1, Some(ErrorCause::IncorrectlyDelivered)),
            _ => (1, Some(ErrorCause::NoRoutingState)),
        };
        assert_eq!((world.received(1).len(), world.errors_of(1).first().and_then(gist::wire::GistError::cause)), wanted, "{name}");
        if case == "own" {
            let received = world.received(1).remove(1);
            assert_eq!((received.reception.unvalidated, received.reception.explicit), (takes && explicit, explicit), "{name}");
        }
    }
}

/// G-346: NSLPID 0 is nobody's: no application sends by it, and what comes with it in a message of an application is taken by none.
#[test]
fn nslpid_0_is_no_applications() {
    let mut world = World::chain();
    world.send(0, gist::api::SendMessage { nslp_id: NslpId::NONE, ..text("none") });
    assert_eq!(world.failures(0)[0].1, SendError::NoEncapsulation);
    assert!(world.datagrams.is_empty());
    let nobodys = Message { nslp_id: NslpId::NONE, ..query() };
    world.inject(2, passing("10.0.1.1:270", &nobodys));
    let friend = PeerCredentials { dns_names: vec!["friend.pbs.test".to_owned()], ..PeerCredentials::default() };
    let id = world.accept(2, "10.0.2.9:40000", friend);
    world.inject_on(2, id, &Message { nslp_id: NslpId::NONE, ..data(None) });
    assert!(world.datagrams_of(2, MessageType::Response).is_empty() && world.node(2).routing_table().is_empty());
    assert!(world.received(2).is_empty());
}

/// G-003, G-045, G-046: Data on an authenticated association of somebody else.
#[test]
fn data_on_an_association_that_does_not_carry_its_session_is_refused() {
    let mut world = World::chain();
    world.send(0, text_for(session(5), b"down"));
    world.run(secs(1));
    let other = PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..PeerCredentials::default() };
    let id = world.accept(1, "10.0.1.9:40000", other);
    let before = world.node(1).routing_table();
    world.inject_on(1, id, &data(None));
    let mut unknown = data(None);
    let Body::Data(body) = &mut unknown.body else { panic!("Data") };
    body.session = SessionId([77; 16]);
    world.inject_on(1, id, &unknown);
    let mut with_nli = data(Some(nli()));
    let Body::Data(body) = &mut with_nli.body else { panic!("Data") };
    body.session = session(5);
    world.inject_on(1, id, &with_nli);
    let causes: Vec<_> = world.errors_of(1).iter().map(|error| error.cause().unwrap()).collect();
    let invalid = ErrorCause::ObjectType(ObjectTypeFault::Invalid);
    assert_eq!(causes, [ErrorCause::IncorrectlyDelivered, ErrorCause::NoRoutingState, invalid]);
    assert_eq!(world.node(1).routing_table(), before);
    assert_eq!(world.payloads(1), ["down"]);
}

/// G-063, G-064, G-127: applications that are not here.
#[test]
fn an_unknown_application_is_told_apart_by_encapsulation() {
    let mut foreign = data(Some(nli()));
    foreign.nslp_id = NslpId(12);
    let (cause, _) = answer(direct("10.0.1.1:270", "10.0.1.254", &foreign)).unwrap();
    assert_eq!(cause, ErrorCause::UnknownNslpId);
    // In passing it is none of this node's business (node_passing); at the flow's end it is.
    let mut world = World::chain();
    let unknown = Message { nslp_id: NslpId(12), ..query() };
    world.inject(2, passing("10.0.1.1:270", &unknown));
    let error = world.errors_of(2)[0].clone();
    assert_eq!(error.cause(), Some(ErrorCause::EndpointFound));
    assert_eq!((error.session, error.mri), (unknown.session(), Some(down())), "as they came");
    let Body::Data(body) = &mut foreign.body else { panic!("Data") };
    body.context_free = true;
    world.inject(2, passing("10.0.1.1:270", &foreign));
    assert_eq!(world.errors_of(2)[1].cause(), Some(ErrorCause::EndpointFound));
}

/// G-129, G-131: Errors are never answered, whatever they hold.
#[test]
fn errors_are_never_answered() {
    let mut world = World::chain();
    world.inject(1, passing("10.0.1.1:270", &Message { hop_count: 0, ..query() }));
    let mut error = message_in(&world.datagrams[0].2);
    let Body::Error(body) = &mut error.body else { panic!("Error") };
    body.nli.as_mut().unwrap().address = address("10.0.1.254");
    for hop_count in [0, 5] {
        let error = Message { hop_count, ..error.clone() };
        world.inject(0, direct("10.0.1.254:270", "10.0.1.1", &error));
        let mut broken = direct("10.0.1.254:270", "10.0.1.1", &Message { hop_count: 5, ..error });
        broken.payload = broken.payload.slice(..broken.payload.len() - 4);
        world.inject(0, broken);
    }
    assert_eq!(world.datagrams.len(), 1);
}

/// G-268, G-127: a Response nobody asked for; node rule 2.
#[test]
fn a_stray_response_is_dropped_in_silence() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let response = world.datagrams_of(1, MessageType::Response)[0].2.clone();
    let mut fresh = World::chain();
    fresh.inject(0, direct("10.0.1.254:270", "10.0.1.1", &response));
    assert!(fresh.datagrams.is_empty());
    assert_eq!(fresh.node(0).counters().stray, 1);
}

/// G-215: the NLI decides where the Error goes; without one the source, and only with S=1.
#[test]
fn an_error_goes_to_the_signalling_address_or_nowhere() {
    let spoiled = |message: &Message| {
        let mut datagram = passing("10.9.9.9:1234", message);
        let mut bytes = datagram.payload.to_vec();
        // The version: nothing but the header can be read.
        bytes[4] = 7;
        datagram.payload = bytes.into();
        datagram
    };
    let quiet = Message { source_is_signalling: false, ..query() };
    assert_eq!(answer(spoiled(&quiet)), None);
    let (cause, sent) = answer(spoiled(&query())).unwrap();
    assert_eq!((cause, destination(&sent).as_str()), (ErrorCause::CommonHeaderParse(HeaderFault::UnknownVersion), "10.9.9.9:1234"));
    let hopeless = Message { hop_count: 0, source_is_signalling: false, ..query() };
    let (_, sent) = answer(passing("10.9.9.9:1234", &hopeless)).unwrap();
    assert_eq!(destination(&sent), "10.0.1.1:270", "whose port 1234 nobody has named");
}

/// G-185, G-171, G-317, G-318, G-319: S=1 and another source.
#[test]
fn a_query_changed_by_a_nat_is_answered_to_its_source() {
    let (cause, sent) = answer(passing("192.0.2.1:6000", &query())).unwrap();
    assert_eq!((cause, destination(&sent).as_str()), (ErrorCause::ObjectType(ObjectTypeFault::Untranslated), "192.0.2.1:6000"));
    assert_eq!(answer(direct("192.0.2.1:6000", "10.0.1.254", &data(Some(nli())))), None);
    // A Response whose NLI is not where it comes from ends nothing and begins nothing.
    let mut world = World::chain();
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { from: 1, to: 0, datagram } => {
            let datagram = Datagram { source: "192.0.2.1:270".parse().unwrap(), ..datagram.clone() };
            Fate::Change(Parcel::Datagram { from: 1, to: 0, datagram })
        }
        _ => Fate::Pass,
    });
    world.send(0, text("down"));
    world.run(secs(40));
    assert!(world.datagrams_of(1, MessageType::Response).iter().all(|(_, _, message)| message.source_is_signalling));
    assert_eq!((world.connects, world.node(0).counters().address_mismatch), (0, 7));
    assert_eq!(world.failures(0)[0].1, SendError::NoResponse);
}

/// G-253, G-254, G-256, G-261, G-266, G-329.
#[test]
fn queries_for_flows_that_cannot_come_this_way_are_refused() {
    let version = with_query(|body| {
        let Mri::PathCoupled(mri) = &mut body.mri else { panic!("path-coupled") };
        (mri.source, mri.destination) = (address("fd00::1"), address("fd00::2"));
        (mri.source_prefix, mri.destination_prefix) = (128, 128);
    });
    let upstream = with_query(|body| body.mri = body.mri.inverted());
    let loose = with_query(|body| {
        let (source, destination) = (body.mri.source(), body.mri.destination());
        body.mri = Mri::LooseEnd(LooseEnd { direction: Direction::Upstream, source, destination });
    });
    let cause = |message: &Message, ttl| answer(Datagram { ip_ttl: Some(ttl), ..passing("10.0.1.1:270", message) }).map(|(cause, _)| cause);
    assert_eq!(cause(&version, 64), Some(ErrorCause::MriValidation(MriFault::IpVersionMismatch)));
    assert_eq!(cause(&upstream, 253), Some(ErrorCause::InvalidIpTtl));
    assert_eq!(cause(&loose, 255), Some(ErrorCause::IncorrectEncapsulation));
    for (wanted, answers) in [(true, 1), (false, 0)] {
        let mut world = World::chain_with(|_, config| config.registrations[0].upstream_queries = wanted);
        world.inject(1, Datagram { ip_ttl: Some(254), ..passing("10.0.1.1:270", &upstream) });
        assert_eq!(world.datagrams_of(1, MessageType::Response).len(), answers, "G-256");
        assert_eq!(world.node(1).counters().upstream_queries_refused, 1 - answers as u64);
    }
}

/// G-226, G-339: what the Query offers changes nothing in the Response, and the Response is about as long.
#[test]
fn the_offer_of_the_response_does_not_depend_on_the_query() {
    let mut offers = Vec::new();
    for change in [|_: &mut Option<StackOffer>| {}, |stack: &mut Option<StackOffer>| *stack = None] {
        let mut world = World::chain();
        let message = with_query(|body| change(&mut body.stack));
        let datagram = passing("10.0.1.1:270", &message);
        let asked = datagram.payload.len();
        world.inject(1, datagram);
        let (_, transmit, message) = world.datagrams_of(1, MessageType::Response)[0].clone();
        let Body::Response(response) = message.body else { panic!("Response") };
        offers.push(response.responder.unwrap().stack.unwrap());
        let Transmit::Normal { payload, .. } = transmit else { panic!("normal") };
        assert!(payload.len() <= asked * 2, "{} for {asked}", payload.len());
    }
    assert_eq!(offers[0], offers[1]);
}

/// G-267, G-035, G-038, G-040, G-065, G-066: node rule 1 without peering. Only hop count and TTL change; the destination always
/// peers.
#[test]
fn a_declined_query_goes_on_unchanged_but_for_its_hop_count() {
    let mut world = World::chain();
    let now = world.now;
    world.members[1].node.handle_request(Request::SetPeering { nslp_id: NSLP, willing: false }, now);
    world.members[2].node.set_peering(NSLP, false);
    world.send(0, text("down"));
    world.run(secs(1));
    assert!(world.payloads(1).is_empty());
    assert_eq!(world.payloads(2), ["down"]);
    let [(_, sent, _), (_, passed, _)] = [0, 1].map(|number| world.datagrams_of(number, MessageType::Query)[0].clone());
    let parts = |transmit: Transmit| match transmit {
        Transmit::QueryMode { source, destination, source_port, ip_ttl, payload, .. } => {
            (source, destination, source_port, ip_ttl, payload)
        }
        Transmit::Normal { .. } => panic!("Q-mode"),
    };
    let (sent, passed) = (parts(sent), parts(passed));
    assert_eq!((sent.0, sent.1, sent.2, sent.3 - 1), (passed.0, passed.1, passed.2, passed.3));
    let changed: Vec<_> = sent.4.iter().zip(&passed.4).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
    assert_eq!(changed, [5], "the hop count alone");
    assert!(world.datagrams_of(1, MessageType::Response).is_empty());
}

/// G-397: a malformed message on an association is answered there and the association goes on.
#[test]
fn a_malformed_message_on_an_association_is_answered_and_survived() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let id = world.node(1).associations().iter().find(|entry| !entry.opened_here).unwrap().association;
    let mut bytes = data(None).to_bytes().unwrap().to_vec();
    bytes[6] |= 0x3f;
    let now = world.now;
    world.members[1].node.handle_association(id, AssociationEvent::Received(bytes.into()), now);
    world.request(
        1,
        Request::InvalidateRoutingState {
            nslp_id: NSLP,
            session: session(8),
            mri: down(),
            status: RoutingStatus::Tentative,
            urgent: false,
        },
    );
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::CommonHeaderParse(HeaderFault::UnknownType)));
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
}

/// G-340: an Error has more octets than what is wrong, and whoever has an association may say as much that is wrong as it takes.
#[test]
fn whoever_goes_on_saying_what_is_refused_over_an_association_is_answered_at_the_rate_of_errors() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let id = world.node(1).associations().iter().find(|entry| !entry.opened_here).unwrap().association;
    // Of no session that there is.
    let wrong = data(None).to_bytes().unwrap();
    let say = |world: &mut World, times: usize| {
        let before = world.node(1).counters().errors_sent;
        for _ in 0..times {
            let event = AssociationEvent::Received(wrong.clone());
            let now = world.now;
            world.members[1].node.handle_association(id, event, now);
        }
        // What it has said is taken by its peer.
        world.run(secs(1));
        world.node(1).counters().errors_sent - before
    };
    assert_eq!(say(&mut world, 1000), 32);
    assert_eq!(world.node(1).counters().rate_dropped, 968);
    assert_eq!(say(&mut world, 1000), 32, "and so in every moment");
    assert_eq!(world.node(1).counters().no_routing_state, 2000);
    assert_eq!(world.node(1).counters().refused.of(ErrorCause::NoRoutingState), 2000);
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
}

/// Association 8 (er_Misused): what cannot be read costs its sender nothing, so that it has to pay for another association; nobody
/// else's suffers.
#[test]
fn whoever_goes_on_saying_what_only_it_can_be_blamed_for_loses_its_association() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let other = PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..PeerCredentials::default() };
    let id = world.accept(1, "10.0.1.9:40000", other);
    let associations = world.node(1).associations().len();
    // Of another type than there are; an Error, which is never answered and must cost as much as anything else; and Data of no session, from
    // who has confirmed nothing.
    for kind in [0x3f, 4, 3] {
        let mut wrong = data(None).to_bytes().unwrap().to_vec();
        wrong[6] = kind;
        let now = world.now;
        for _ in 0..96 {
            assert_eq!(world.node(1).associations().len(), associations);
            world.members[1].node.handle_association(id, AssociationEvent::Received(wrong.clone().into()), now);
        }
    }
    let counters = *world.node(1).counters();
    assert_eq!((counters.malformed, counters.no_routing_state), (192, 96));
    assert_eq!((counters.rate_dropped, counters.misused_ended), (256, 1));
    assert_eq!(world.node(1).associations().len(), associations - 1);
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
}

/// G-397: a peer that is newer, or has lost its state, says now and then a hundred things that are not understood; nobody takes that for
/// misuse.
#[test]
fn what_is_wrong_now_and_then_ends_no_association_however_often_it_happens() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let id = world.node(1).associations().iter().find(|entry| !entry.opened_here).unwrap().association;
    let mut wrong = data(None).to_bytes().unwrap().to_vec();
    wrong[6] = 0x3f;
    for minute in 1..=10 {
        for _ in 0..132 {
            let now = world.now;
            world.members[1].node.handle_association(id, AssociationEvent::Received(wrong.clone().into()), now);
        }
        world.send(0, text("more"));
        world.run(secs(61));
        assert_eq!(world.node(1).counters().rate_dropped, minute * 100);
    }
    assert_eq!(world.node(1).counters().misused_ended, 0);
    assert!(world.node(1).associations().iter().any(|entry| entry.association == id));
}

/// G-337: the debugging switch.
#[test]
fn a_bad_cookie_is_answered_only_on_demand() {
    let mut world = World::chain_with(|_, config| config.answer_bad_cookies = true);
    world.send(0, text("down"));
    world.run(secs(1));
    let confirm = world.on_associations[0].2.clone();
    let other = PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..PeerCredentials::default() };
    let mut fresh = World::chain_with(|_, config| config.answer_bad_cookies = true);
    let id = fresh.accept(2, "10.0.1.9:40000", other);
    fresh.inject_on(2, id, &confirm);
    assert_eq!((fresh.errors_of(2)[0].code, fresh.errors_of(2)[0].subcode), (10, 4));
    assert!(fresh.node(2).associations().is_empty());
    assert!(fresh.node(2).routing_table().is_empty());
}
