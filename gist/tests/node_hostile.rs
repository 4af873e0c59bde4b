//! Bad input at every state: what anybody sends as a datagram, and what a host with a good certificate says on an association of its
//! own, leaves routing state and associations as they were, is counted, and is answered by one message at the most (G-127, G-129,
//! G-130, G-135, G-210, G-282). The whole matrix stands in `fsm-specs/requirements/bad-input.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use gist::api::{AssociationId, Request, RoutingStatus};
use gist::node::{AssociationEntry, AssociationEvent, Counters, Datagram, Node, Output, PeerCredentials, RoutingEntry, Transmit};
use gist::time::Instant;
use gist::wire::{Body, ErrorBody, ErrorCause, GistError, Message, MessageType, NslpId, datagram};
use node_world::*;

const TABLES: [(&str, &str); 2] = [
    ("querying", include_str!("../../fsm-specs/tables/gist/querying.fsm")),
    ("association", include_str!("../../fsm-specs/tables/gist/association.fsm")),
];

const EVE: &str = "10.0.1.66";

/// Octets of the longest answer to a datagram from nowhere, and of the longest to one on an association.
const LONGEST_ANSWER: usize = 320;

type Record = Rc<RefCell<Vec<Parcel>>>;

/// A state of the nodes, and all that has travelled on the way there.
struct Setting {
    name: &'static str,
    world: World,
    record: Record,
}

/// Has everything recorded, and lost what is to be.
fn listen(world: &mut World, loses: impl Fn(&Parcel) -> bool + 'static) -> Record {
    let record = Record::default();
    let kept = Rc::clone(&record);
    world.tap(move |_, parcel| {
        kept.borrow_mut().push(parcel.clone());
        if loses(parcel) { Fate::Lose } else { Fate::Pass }
    });
    record
}

fn settings() -> Vec<Setting> {
    let lasting = |world: &mut World, number: usize| {
        world.request(number, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    };
    let talking = |loses: fn(&Parcel) -> bool| {
        let mut world = World::chain();
        let shut = Rc::clone(&world.blackout);
        let record = listen(&mut world, move |parcel| shut.get() && loses(parcel));
        world.send(0, text("ask."));
        world.send(0, text_for(session(2), b"also"));
        world.run(secs(1));
        assert_eq!(world.payloads(2).len(), 2);
        (world, record)
    };
    let mut all = Vec::new();
    let mut world = World::chain();
    let record = listen(&mut world, |_| false);
    all.push(Setting { name: "nothing said", world, record });

    let mut world = World::chain();
    let record = listen(&mut world, |parcel| matches!(parcel, Parcel::Datagram { to: 0, .. }));
    world.send(0, text("ask."));
    world.run(Duration::from_millis(20));
    all.push(Setting { name: "asked", world, record });

    let mut world = World::chain();
    world.connect_delay = secs(5);
    let record = listen(&mut world, |_| false);
    world.send(0, text("ask."));
    world.run(Duration::from_millis(100));
    all.push(Setting { name: "connecting", world, record });

    let (mut world, record) = talking(|_| false);
    lasting(&mut world, 0);
    lasting(&mut world, 1);
    all.push(Setting { name: "talking", world, record });

    // The Responses to the refreshes are lost.
    let (mut world, record) = talking(|parcel| message_of(parcel).is_some_and(|m| m.message_type() == MessageType::Response));
    lasting(&mut world, 0);
    lasting(&mut world, 1);
    world.blackout.set(true);
    for number in [0, 1] {
        let (status, urgent) = (RoutingStatus::Tentative, true);
        world.request(number, Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status, urgent });
    }
    world.run(Duration::from_millis(20));
    all.push(Setting { name: "refreshing", world, record });

    let (mut world, record) = talking(|_| false);
    for number in [0, 1, 2] {
        for of in [session(1), session(2)] {
            for mri in [down(), up()] {
                world.request(number, Request::SetStateLifetime { nslp_id: NSLP, session: of, mri, lifetime: Duration::ZERO });
            }
        }
    }
    world.run(Duration::from_millis(20));
    all.push(Setting { name: "associations idle", world, record });

    // The flow has moved to another router, which the receiver has not been told to take for the peer.
    let mut world = World::fork();
    let (record, switch) = (Record::default(), Switch::default());
    let (kept, bypass) = (Rc::clone(&record), Rc::clone(&switch));
    world.tap(move |_, parcel| {
        kept.borrow_mut().push(parcel.clone());
        detour(parcel, bypass.get())
    });
    world.send(0, text("old."));
    world.run(secs(1));
    lasting(&mut world, 0);
    lasting(&mut world, 1);
    switch.set(true);
    let (status, urgent) = (RoutingStatus::Bad, true);
    world.request(0, Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status, urgent });
    world.send(0, text("new."));
    world.run(Duration::from_millis(50));
    assert!(world.node(2).routing_table().iter().any(|entry| entry.second_peer.is_some()));
    all.push(Setting { name: "a second peer claims the flow", world, record });
    all
}

fn states(node: &Node) -> (BTreeSet<String>, BTreeSet<String>) {
    let bare = |state: &str| state.replace(' ', "");
    let routing = node.routing_table().iter().map(|entry| bare(&entry.state)).collect();
    (routing, node.associations().iter().map(|entry| bare(&entry.state)).collect())
}

/// What a datagram may not touch.
fn view(node: &Node) -> (Vec<RoutingEntry>, Vec<AssociationEntry>) {
    (node.routing_table(), node.associations())
}

/// A message gets to a clone of the node: what it answers, and what has become of it.
fn given(node: &Node, input: Input, now: Instant) -> (Node, Vec<Output>) {
    let mut node = node.clone();
    match input {
        Input::Datagram(datagram) => node.handle_datagram(datagram, now),
        Input::Said(id, bytes) => node.handle_association(id, AssociationEvent::Received(bytes), now),
    }
    let outputs = std::iter::from_fn(|| node.poll_output()).collect();
    (node, outputs)
}

enum Input {
    Datagram(Datagram),
    Said(AssociationId, Bytes),
}

/// The message as it is, every change of one of its octets, and parts of it.
fn changes(bytes: &Bytes) -> Vec<Bytes> {
    let mut all = vec![bytes.clone()];
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        all.push(changed.into());
    }
    all.extend((0..bytes.len()).step_by(3).map(|length| bytes.slice(..length)));
    all.push([&bytes[..], &[0; 4]].concat().into());
    all
}

/// Every message of the record, without magic number: who got it, and by which datagram.
fn messages(setting: &Setting) -> Vec<(usize, Option<Datagram>, Bytes)> {
    let record = setting.record.borrow();
    let message = |parcel: &Parcel| match parcel {
        Parcel::Datagram { to, datagram, .. } => {
            Some((*to, Some(datagram.clone()), datagram::message(&datagram.payload).unwrap_or_default()))
        }
        Parcel::Association { to, event: AssociationEvent::Received(bytes), .. } => Some((*to, None, bytes.clone())),
        Parcel::Association { .. } => None,
    };
    record.iter().filter_map(message).collect()
}

/// Counters but those that count everything.
fn reasons(counters: &Counters) -> Counters {
    Counters { datagrams_received: 0, association_messages_received: 0, ..*counters }
}

fn length(output: &Output) -> usize {
    match output {
        Output::Transmit(Transmit::Normal { payload, .. } | Transmit::QueryMode { payload, .. }) => payload.len(),
        Output::SendOnAssociation { message, .. } => message.len(),
        Output::Connect { .. } | Output::CloseAssociation { .. } | Output::Indicate(_) => 0,
    }
}

/// One message at the most, nothing for an application, and nothing closed.
fn check_answers(outputs: &[Output], bytes: &[u8], told: &dyn Fn() -> String) {
    let sent: Vec<_> = outputs.iter().filter(|output| matches!(output, Output::Transmit(_) | Output::SendOnAssociation { .. })).collect();
    assert!(sent.len() <= 1 && sent.iter().all(|output| length(output) <= LONGEST_ANSWER), "{}: {outputs:?}", told());
    for output in outputs {
        assert!(!matches!(output, Output::Indicate(_) | Output::CloseAssociation { .. }), "{}: {output:?}", told());
    }
    let is_error = is_a(bytes, MessageType::Error);
    assert!(!is_error || outputs.is_empty(), "an error answered, {}: {outputs:?}", told());
}

fn is_a(bytes: &[u8], kind: MessageType) -> bool {
    Message::decode(Bytes::copy_from_slice(bytes)).is_ok_and(|message| message.message_type() == kind)
}

/// Errors of every cause that means something to a node, about every message.
fn errors() -> Vec<Message> {
    let causes = [
        ErrorCause::NoRoutingState,
        ErrorCause::IncorrectlyDelivered,
        ErrorCause::EndpointFound,
        ErrorCause::IncorrectEncapsulation,
        ErrorCause::HopLimitExceeded,
        ErrorCause::UnknownNslpId,
        ErrorCause::ObjectValue(gist::wire::ObjectValueFault::InvalidCookie),
    ];
    let mut all = Vec::new();
    for cause in causes {
        for mri in [down(), up()] {
            for of in [MessageType::Query, MessageType::Response, MessageType::Confirm, MessageType::Data] {
                let header = [1, 64, 0, 0, 0x7f, 0xc0, of as u8, 0xc0];
                let error = GistError { session: Some(session(1)), mri: Some(mri.clone()), ..GistError::new(cause, header) };
                let body = Body::Error(ErrorBody { nat: None, nli: None, error });
                all.push(Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() });
            }
        }
    }
    all
}

fn eve() -> PeerCredentials {
    credentials("eve", &[EVE])
}

#[test]
fn every_state_of_the_machines_is_among_the_settings() {
    let settings = settings();
    for (machine, table) in TABLES {
        let word = |directive: &str| {
            let line = table.lines().find(|line| line.starts_with(directive)).unwrap_or_default();
            line.split_whitespace().skip(1).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        // A machine is in Birth only while the event that creates it is handled.
        let wanted: BTreeSet<String> = word("states").difference(&word("initial")).cloned().collect();
        let mut reached = BTreeSet::new();
        for setting in &settings {
            for member in &setting.world.members {
                let (routing, associations) = states(&member.node);
                reached.extend(if machine == "association" { associations } else { routing });
            }
        }
        assert_eq!(reached, wanted, "{machine}");
    }
}

/// G-168, G-210, G-127, G-130, G-135: whoever can send a datagram, from his own address or in the name of whoever sent it first, and
/// whoever is on the path and changes it. A Response that bears the cookie of an open question may have a connection opened to the
/// address it names if a neighbour may be there; nothing follows from that before TLS has told who is.
#[test]
fn no_datagram_changes_what_a_node_knows_in_any_state() {
    let (mut tried, mut connects) = (0, 0);
    for setting in settings() {
        for (to, first, message) in messages(&setting) {
            let node = setting.world.node(to);
            let before = view(node);
            let own = setting.world.members[to].addresses[0];
            let (original, query_mode) = first.map_or((own, false), |first| (first.destination, first.query_mode));
            for source in [first_source(&setting, to, &message), format!("{EVE}:270")] {
                let source = source.parse().unwrap();
                for changed in changes(&message) {
                    for (destination, query_mode) in [(original, query_mode), (own, false)] {
                        let payload: Bytes = [&datagram::MAGIC.to_be_bytes()[..], &changed].concat().into();
                        let datagram =
                            Datagram { source, destination, ip_ttl: Some(64), interface: 1, query_mode, router_alert: None, payload };
                        let told = || format!("{} at {to} from {source}: {changed:02x?}", setting.name);
                        let (after, outputs) = given(node, Input::Datagram(datagram), setting.world.now);
                        check_answers(&outputs, &changed, &told);
                        let opened = outputs.iter().filter(|output| matches!(output, Output::Connect { .. })).count();
                        connects += opened;
                        let (routing, mut associations) = view(&after);
                        associations.retain(|entry| opened == 0 || before.1.contains(entry));
                        assert_eq!((&routing, &associations), (&before.0, &before.1), "{}", told());
                        assert!(opened <= 1, "{}", told());
                        // An answer once more, while the connection that the first one has led to is being opened, is as good as that.
                        let again = setting.name == "connecting" && is_a(&changed, MessageType::Response);
                        let is_counted = reasons(after.counters()) != reasons(node.counters());
                        assert!(is_counted || again || opened == 1, "counted nowhere, {}", told());
                        tried += 1;
                    }
                }
            }
        }
    }
    assert!(tried > 20_000 && connects > 0, "{tried} {connects}");
}

/// Where the message came from, if it was a datagram; else the address of whoever said it on an association.
fn first_source(setting: &Setting, to: usize, message: &Bytes) -> String {
    let record = setting.record.borrow();
    let source = record.iter().find_map(|parcel| match parcel {
        Parcel::Datagram { to: at, datagram, .. } if *at == to && datagram.payload.ends_with(message) => Some(datagram.source.to_string()),
        _ => None,
    });
    let neighbour = if to == 1 { "10.0.1.1:270" } else { "10.0.1.254:270" };
    source.unwrap_or_else(|| neighbour.to_owned())
}

/// G-092, G-045, G-106: a host of the domain says on its own association whatever was ever said to the node, and every change of it.
#[test]
fn a_host_on_an_association_of_its_own_changes_nothing_of_others_in_any_state() {
    let mut tried = 0;
    for mut setting in settings() {
        for number in 0..setting.world.members.len() {
            let id = setting.world.accept(number, &format!("{EVE}:4000"), eve());
            let node = setting.world.node(number);
            let before = view(node);
            for (_, _, message) in messages(&setting).into_iter().filter(|(to, ..)| *to == number) {
                for changed in changes(&message) {
                    let told = || format!("{} at {number}: {changed:02x?}", setting.name);
                    let (after, outputs) = given(node, Input::Said(id, changed.clone()), setting.world.now);
                    // The first bad Confirm on a new association ends that, and nothing else (G-231).
                    let ends = |output: &Output| *output == Output::CloseAssociation { association: id };
                    let others: Vec<Output> = outputs.iter().filter(|output| !ends(output)).cloned().collect();
                    check_answers(&others, &changed, &told);
                    let (routing, associations) = view(&after);
                    assert_eq!(routing, before.0, "{}", told());
                    let of_others =
                        |entries: &[AssociationEntry]| entries.iter().filter(|entry| entry.association != id).cloned().collect::<Vec<_>>();
                    assert_eq!(of_others(&associations), of_others(&before.1), "{}", told());
                    let is_hello = is_a(&changed, MessageType::Hello);
                    assert!(is_hello || reasons(after.counters()) != reasons(node.counters()), "counted nowhere, {}", told());
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 5_000, "{tried}");
}

/// G-129, G-135, G-337: errors of whatever cause, from wherever but the peer's own route, change nothing and are not answered.
#[test]
fn no_error_from_anybody_changes_anything_or_is_answered_in_any_state() {
    for mut setting in settings() {
        for number in 0..setting.world.members.len() {
            let id = setting.world.accept(number, &format!("{EVE}:4000"), eve());
            let node = setting.world.node(number);
            let own = setting.world.members[number].addresses[0];
            let neighbour = if number == 1 { "10.0.1.1:270" } else { "10.0.1.254:270" };
            let before = view(node);
            for message in errors() {
                let mut inputs = vec![Input::Said(id, message.to_bytes().unwrap())];
                for source in [neighbour, "10.0.1.66:270", "203.0.113.9:270"] {
                    inputs.push(Input::Datagram(direct(source, &own.to_string(), &message)));
                }
                for input in inputs {
                    let (after, outputs) = given(node, input, setting.world.now);
                    assert_eq!(outputs, [], "{} at {number}: {message:?}", setting.name);
                    let unheard = |mut view: (Vec<RoutingEntry>, Vec<AssociationEntry>)| {
                        view.1.retain(|entry| entry.association != id);
                        view
                    };
                    assert_eq!(unheard(view(&after)), unheard(before.clone()), "{} at {number}: {message:?}", setting.name);
                    assert_eq!(after.counters().errors_received, node.counters().errors_received + 1);
                }
            }
        }
    }
}

/// The peer itself, authorised and on the state's own association, sends what it likes: the session that it does not speak of stays,
/// and so does the association.
#[test]
fn what_a_peer_says_of_one_session_leaves_the_other_alone() {
    let mut tried = 0;
    let setting = settings().into_iter().find(|setting| setting.name == "talking").unwrap();
    let record = setting.record.borrow();
    let other = |node: &Node| node.routing_table().into_iter().filter(|entry| entry.session == session(2)).collect::<Vec<_>>();
    for parcel in record.iter() {
        let Parcel::Association { to, id, event: AssociationEvent::Received(bytes), .. } = parcel else { continue };
        if !bytes.windows(16).any(|window| window == [1; 16]) {
            continue;
        }
        let node = setting.world.node(*to);
        let before = other(node);
        assert!(!before.is_empty());
        for changed in changes(bytes) {
            let (after, outputs) = given(node, Input::Said(*id, changed.clone()), setting.world.now);
            assert_eq!(other(&after), before, "at {to}: {changed:02x?}");
            assert_eq!(after.associations().len(), node.associations().len(), "at {to}: {changed:02x?}: {outputs:?}");
            assert!(outputs.len() <= 2, "at {to}: {changed:02x?}: {outputs:?}");
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried}");
}
