//! What an application may count on, whatever carries its messages (RFC 5971 §4.1, §4.3.3, §4.4.5, Appendix B).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use bytes::Bytes;
use gist::api::{
    Indication, MessageHandle, PeerHandle, Principal, ReceivedMessage, Reception, Request, SendMessage, TransferAttributes, Transport,
};
use gist::node::{NodeConfig, Registration, Role, Transmit};
use gist::wire::{Body, Message, MessageType, Mri, NslpId};
use node_world::*;
use proptest::prelude::*;

fn with(attributes: TransferAttributes, message: SendMessage) -> SendMessage {
    SendMessage { attributes, ..message }
}

fn unreliable(payload: &'static str) -> SendMessage {
    with(TransferAttributes::default(), text(payload))
}

/// Messages on associations of one node, by type and session.
fn on_associations(world: &World, number: usize) -> Vec<&Message> {
    world.on_associations.iter().filter(|(_, from, _)| *from == number).map(|(_, _, message)| message).collect()
}

/// What is the same whatever carried the message.
fn essence(received: &ReceivedMessage) -> ReceivedMessage {
    ReceivedMessage {
        association: None,
        authenticated: false,
        principal: Principal([0; 32]),
        peer_handle: PeerHandle([0; 16]),
        reception: Reception::default(),
        ..received.clone()
    }
}

/// G-006, G-212: the same call by either mode gives the application the same message; only what is reported about the way differs.
#[test]
fn the_mode_is_chosen_inside_and_changes_nothing_but_what_is_reported() {
    let received = [false, true].map(|datagrams| {
        let mut world = World::chain_with(|_, config| {
            if datagrams {
                config.registrations[0].offer.clear();
            }
        });
        world.send(0, unreliable("down"));
        world.run(secs(1));
        assert_eq!(world.datagrams_of(0, MessageType::Data).len(), usize::from(datagrams));
        world.received(1).remove(0)
    });
    assert_eq!(essence(&received[0]), essence(&received[1]));
    assert_eq!(received.map(|received| received.authenticated), [true, false]);
}

/// G-016, G-056, G-320: where associations are offered no message of the application leaves in a datagram, secure or not, and the
/// receiver is told that its peer is authenticated.
#[test]
fn nothing_of_the_application_leaves_in_a_datagram_where_there_is_an_association() {
    for attributes in [TransferAttributes::default(), TransferAttributes::RELIABLE_AND_SECURE] {
        let mut world = World::chain();
        world.send(0, with(attributes, text("down")));
        world.run(secs(30));
        world.send(0, with(attributes, text("more")));
        world.run(secs(1));
        let types: Vec<_> = world.datagrams.iter().map(|(_, _, transmit)| message_in(transmit).message_type()).collect();
        assert!(types.iter().all(|kind| matches!(kind, MessageType::Query | MessageType::Response)), "{types:?}");
        let over_tls = |message: &ReceivedMessage| message.authenticated && message.reception.transport == Transport::Tls;
        assert!(world.received(2).iter().all(|message| over_tls(message) && message.association.is_some()));
        assert_eq!(world.payloads(2).len(), 2);
    }
}

/// G-052: whatever its size, a message that does not fit a datagram goes over the association.
#[test]
fn a_long_message_travels_over_an_association() {
    let mut world = World::chain();
    let lengths = [4, 508, 512, 516, 1400, 16_380];
    for length in lengths {
        world.send(0, SendMessage { payload: vec![7; length].into(), ..unreliable("long") });
        world.run(secs(1));
    }
    assert_eq!(world.payloads(2).iter().map(Bytes::len).collect::<Vec<_>>(), lengths);
    assert!(world.datagrams_of(0, MessageType::Data).is_empty());
}

/// G-017: nothing but the order of handing over decides the order within a session, and nothing on the wire says how a message
/// is to be treated.
#[test]
fn attributes_reorder_nothing_and_do_not_show() {
    let every = [false, true].map(|reliable| [false, true].map(|secure| TransferAttributes { reliable, secure }));
    let mut world = World::chain();
    let words = ["one.", "two.", "tree", "four", "five", "six.", "sevn", "eigt"];
    for (word, attributes) in words.into_iter().zip(every.as_flattened().iter().cycle()) {
        world.send(0, with(*attributes, text(word)));
        world.run(Duration::from_micros(700));
    }
    world.run(secs(1));
    assert_eq!(world.payloads(2), words);
    let same = every.map(|pair| {
        pair.map(|attributes| {
            let mut world = World::chain();
            world.send(0, with(attributes, text("same")));
            world.run(secs(1));
            on_associations(&world, 0).into_iter().find(|message| message.message_type() == MessageType::Data).unwrap().to_bytes().unwrap()
        })
    });
    assert!(same.as_flattened().windows(2).all(|pair| pair[0] == pair[1]));
}

/// G-042, G-009: several applications on one node: each gets the messages with its own number, and one that does not want to peer, or
/// is not there, keeps nothing from the others.
#[test]
fn each_of_several_applications_gets_its_own_messages() {
    let other = NslpId(32705);
    let both = move |_: usize, config: &mut NodeConfig| config.registrations.push(Registration::secure(other, Some(65503)));
    let mut world = World::chain_with(both);
    world.members[1].relays = false;
    world.send(0, text("ours"));
    world.send(0, SendMessage { nslp_id: other, ..text("thrs") });
    world.run(secs(1));
    let got: Vec<_> = world.received(1).into_iter().map(|message| (message.nslp_id, message.payload)).collect();
    assert_eq!(got, [(NSLP, "ours".into()), (other, "thrs".into())]);
    // The same session and flow, and two routing states (G-002); G-347: both with the one router alert value they share.
    assert_eq!(world.node(1).routing_table().len(), 2);
    let alert = |transmit: &Transmit| if let Transmit::QueryMode { router_alert, .. } = transmit { *router_alert } else { None };
    assert!(world.datagrams_of(0, MessageType::Query).iter().all(|(_, transmit, _)| alert(transmit) == Some(65503)));
    world.members[1].node.set_peering(other, false);
    world.send(0, SendMessage { nslp_id: other, ..text_for(session(2), b"past") });
    world.send(0, text_for(session(2), b"here"));
    world.run(secs(1));
    assert_eq!(world.payloads(1).last().unwrap(), "here");
    assert_eq!(
        world.received(2).iter().map(|message| (message.nslp_id, &message.payload[..])).collect::<Vec<_>>(),
        [(other, &b"past"[..])]
    );
}

/// G-273, G-026, G-291, G-083, G-080: what waits for an association leaves in its order as soon as it is open, behind the
/// Confirm, which goes
/// only then; the connection is begun with the Response.
#[test]
fn what_waits_for_an_association_leaves_in_order_behind_the_confirm() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.connect_delay = secs(3);
    for word in ["one.", "two.", "tree"] {
        world.send(0, text(word));
    }
    world.run(DELAY * 2);
    assert_eq!(world.connects, 1, "two ways on the link after the Query");
    let connects: Vec<_> = world.trace.iter().filter(|line| line.contains("-> Connect")).collect();
    assert_eq!(connects.len(), 1);
    let association = world.node(0).associations().remove(0);
    assert_eq!(association.state, "Awaiting Connection");
    assert_eq!(world.node(0).routing_table()[0].queued, 3);
    world.run(secs(2));
    assert!(world.on_associations.is_empty());
    world.run(secs(2));
    let types: Vec<_> = on_associations(&world, 0).iter().map(|message| message.message_type()).collect();
    assert_eq!(types, [MessageType::Confirm, MessageType::Hello, MessageType::Data, MessageType::Data, MessageType::Data]);
    assert_eq!(world.payloads(1), ["one.", "two.", "tree"]);
    let association = world.node(0).associations().remove(0);
    assert_eq!(association.state, "Connected");
    assert!(world.now.saturating_duration_since(association.last_heard) < secs(1), "how long the peer has been silent is known");
    // SendHello runs from now on: with nothing else to say the node speaks before the peer's hold time is over.
    let before = world.on_associations.len();
    world.run(secs(23));
    assert!(world.on_associations[before..].iter().any(|(_, from, _)| *from == 0));
}

/// G-081, G-235: whoever asks opens the connection, to the address of the Response's NLI and the port of its configuration data.
#[test]
fn the_querying_node_opens_every_connection() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    world.send(2, SendMessage { mri: up(), ..text("back") });
    world.run(secs(60));
    let connects: Vec<_> = world.trace.iter().filter(|line| line.contains("-> Connect")).collect();
    assert_eq!(connects.len(), 2);
    for (line, by, remote) in [(connects[0], "0 ->", "remote: 10.0.1.254:30270"), (connects[1], "1 ->", "remote: 10.0.2.1:30270")] {
        assert!(line.contains(by) && line.contains(remote), "{line}");
    }
}

/// G-126: the application sees the same whether an association was open before or had to be made for it.
#[test]
fn whether_an_association_is_open_does_not_show() {
    let mut seen = Vec::new();
    for open in [false, true] {
        let mut world = World::chain();
        if open {
            world.send(0, text_for(session(9), b"open"));
            world.run(secs(5));
            world.members.iter_mut().for_each(|member| member.indications.clear());
        }
        world.send(0, text("down"));
        world.run(secs(1));
        world.send(2, SendMessage { mri: up(), ..text("back") });
        world.run(secs(1));
        let without_way = |indication: &Indication| match indication {
            Indication::Received(message) => format!("{:?}", essence(message)),
            other => format!("{other:?}"),
        };
        seen.push([0, 1, 2].map(|number| world.members[number].indications.iter().map(|(_, one)| without_way(one)).collect::<Vec<_>>()));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].each_ref().map(Vec::len), [1, 2, 1]);
}

/// G-058, G-123: reliable messages of a session travel over one association; over another one only what was handed over after the
/// application had heard of the change.
#[test]
fn a_session_uses_one_association_at_a_time() {
    let mut world = World::fork();
    let switch = world.reroute();
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    for word in ["one.", "two."] {
        world.send(0, text(word));
        world.run(Duration::from_millis(100));
    }
    switch.set(true);
    world.route_changes(0, address("10.0.2.1"));
    for word in ["tree", "four", "five", "six.", "sevn", "eigt", "nine", "ten."] {
        world.send(0, text(word));
        world.run(Duration::from_millis(2));
    }
    world.run(secs(1));
    let sent: Vec<_> = world.trace.iter().filter(|line| line.contains(" 0 -> SendOnAssociation")).collect();
    assert!(!sent.is_empty());
    let (first, second) = (world.payloads(1), world.payloads(BYPASS));
    let together: Vec<_> = first.iter().chain(&second).cloned().collect();
    assert_eq!(
        together,
        ["one.", "two.", "tree", "four", "five", "six.", "sevn", "eigt", "nine", "ten."],
        "one after the other, none twice"
    );
    assert!(!second.is_empty() && first.len() >= 2);
}

/// G-157, G-170, G-185: wherever S=1, the signalling address is the one the packet leaves with; in normal encapsulation it always is.
#[test]
fn a_message_that_says_so_leaves_from_its_signalling_address() {
    for datagrams in [false, true] {
        let mut world = World::chain_with(|_, config| {
            if datagrams {
                config.registrations[0].offer.clear();
            }
        });
        world.send(0, unreliable("down"));
        world.run(secs(2));
        world.inject(1, direct("10.0.1.1:270", "10.0.1.254", &Message { hop_count: 0, ..message_in(&world.datagrams[0].2) }));
        assert!(world.datagrams.len() > 4);
        for (_, _, transmit) in &world.datagrams {
            let message = message_in(transmit);
            let source = match transmit {
                Transmit::Normal { source, .. } => source.expect("the node says which"),
                Transmit::QueryMode { source, .. } => *source,
            };
            let own = message.nli().expect("an NLI in D-mode (G-149)").address;
            assert_eq!(message.source_is_signalling, own == source, "{message:?}");
            assert!(message.source_is_signalling || matches!(transmit, Transmit::QueryMode { .. }));
        }
    }
}

/// G-116: whoever wants no state any more sends nothing about it; the peer's ends by itself.
#[test]
fn state_is_not_torn_down_by_a_message() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    let (datagrams, messages) = (world.datagrams.len(), world.on_associations.len());
    let lifetime = Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: Duration::ZERO };
    world.request(0, lifetime);
    world.run(secs(5));
    assert_eq!((world.datagrams.len(), world.on_associations.len()), (datagrams, messages));
    assert_eq!(world.node(1).routing_table().len(), 1);
    world.run(secs(30));
    assert!(world.node(1).routing_table().is_empty());
}

/// G-041, G-198, G-339: the Response leaves while the Query is being handled, and there is one.
#[test]
fn a_query_is_answered_while_it_is_handled() {
    let mut world = World::chain();
    world.send(0, text("down"));
    let query = message_in(&world.datagrams[0].2);
    let mut fresh = World::chain();
    let before = fresh.now;
    fresh.inject(1, passing("10.0.1.1:270", &query));
    let responses = fresh.datagrams_of(1, MessageType::Response);
    assert_eq!(responses.len(), 1);
    assert_eq!(responses[0].0, before);
    assert_eq!(fresh.node(1).poll_timeout(), None, "nothing is left to be done");
}

/// G-224: what a Response offers is forgotten when the handshake is over.
#[test]
fn the_offer_of_a_response_is_not_kept() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.connect_delay = secs(1);
    world.send(0, text("down"));
    let offers = |world: &World| format!("{:?}", world.node(0)).matches("StackOffer").count();
    world.run(Duration::from_millis(100));
    assert!(offers(&world) > 0, "it is needed for the Confirm");
    world.run(secs(2));
    assert_eq!(world.payloads(1), ["down"]);
    assert_eq!(offers(&world), 0);
    // The association never opens: in 30 s and no later than the handshake ends.
    let mut world = World::chain();
    world.members[1].listens = false;
    world.send(0, text("down"));
    world.run(secs(33));
    assert_eq!(offers(&world), 0);
}

/// G-288, G-276: a Confirm that comes twice is answered by nothing and changes nothing but the time the state ends.
#[test]
fn a_repeated_confirm_is_ignored_in_silence() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    let confirm = world.on_associations[0].2.clone();
    assert_eq!(confirm.message_type(), MessageType::Confirm);
    let before = world.node(1).routing_table();
    let (datagrams, messages) = (world.datagrams.len(), world.on_associations.len());
    let id = before[0].association.unwrap();
    world.inject_on(1, id, &confirm);
    assert_eq!((world.datagrams.len(), world.on_associations.len()), (datagrams, messages));
    let after = world.node(1).routing_table();
    assert_eq!((after.len(), &after[0].peer, after[0].association), (1, &before[0].peer, before[0].association));
    assert_eq!(world.payloads(1), ["down"]);
}

/// G-025: a routing state without a peer is an entry like any other, while nobody has answered and after the peer was given up.
#[test]
fn an_entry_may_have_no_peer() {
    let mut world = World::chain();
    world.members[1].alive = false;
    world.send(0, text("down"));
    let entry = world.node(0).routing_table().remove(0);
    assert_eq!((entry.peer, entry.peer_address, entry.association, entry.datagram_port), (None, None, None, None));
    assert!(entry.valid_until.is_some());
    assert_eq!(world.node(0).clone().routing_table(), world.node(0).routing_table(), "as it is in any copy");
    world.run(secs(40));
    assert!(world.node(0).routing_table().is_empty());
}

/// G-248: a flow with wildcards is asked for at the very addresses it names, and is another flow than one of single addresses.
#[test]
fn prefixes_are_wildcards_and_addresses_real() {
    let Mri::PathCoupled(mut wide) = down() else { panic!("path-coupled") };
    (wide.source_prefix, wide.destination_prefix) = (24, 28);
    let mut world = World::chain();
    world.send(0, SendMessage { mri: Mri::PathCoupled(wide), ..text("wide") });
    world.send(0, text("down"));
    for (_, transmit, _) in world.datagrams_of(0, MessageType::Query) {
        let Transmit::QueryMode { source, destination, .. } = transmit else { panic!("Q-mode") };
        assert_eq!((source, destination), (address("10.0.1.1"), address("10.0.2.1")));
    }
    assert_eq!(world.node(0).routing_table().len(), 2);
}

/// G-108, G-118, G-191, G-174: the defaults of RFC 5971.
#[test]
fn the_defaults_are_those_of_the_rfc() {
    let config = NodeConfig::new(identity(0), Role::Host);
    assert_eq!((config.validity, config.hold_time, config.query_timer), (secs(30), secs(30), Duration::from_millis(500)));
    assert!(!config.answer_bad_cookies, "G-337");
}

/// G-015, G-019, G-387: an unreliable message may be lost in a datagram without a word, and travels over an association if there is one.
#[test]
fn an_unreliable_message_may_be_lost_and_may_be_carried_better() {
    let mut world = World::chain_with(|_, config| config.registrations[0].offer.clear());
    world.members[1].relays = false;
    world.send(0, unreliable("down"));
    world.run(secs(1));
    let mut number = 0;
    world.tap(move |_, parcel| {
        number += usize::from(message_of(parcel).is_some_and(|message| matches!(message.body, Body::Data(_))));
        if number == 1 { Fate::Lose } else { Fate::Pass }
    });
    for word in ["lost", "more"] {
        world.send(0, unreliable(word));
    }
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
    assert_eq!(world.members[0].indications, [], "nobody says anything about the one that was lost");

    let mut world = World::chain();
    world.send(0, unreliable("down"));
    world.run(secs(1));
    assert!(world.received(2)[0].authenticated);
}

/// G-387: what the application leaves out GIST chooses, and what it says is kept: hop count, timeout, handle.
#[test]
fn a_message_needs_no_more_than_application_session_flow_and_payload() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.send(0, SendMessage { hop_count: Some(17), ..text("hops") });
    world.run(secs(1));
    assert_eq!(world.received(1).iter().map(|message| message.hop_count).collect::<Vec<_>>(), [63, 16]);
    world.members[1].alive = false;
    world.send(0, SendMessage { handle: MessageHandle(4711), timeout: Some(secs(2)), ..text_for(session(3), b"late") });
    world.run(secs(3));
    let status = world.members[0].indications.iter().find_map(|(_, indication)| match indication {
        Indication::MessageStatus { handle, session, .. } => Some((*handle, *session)),
        _ => None,
    });
    assert_eq!(status, Some((MessageHandle(4711), session(3))));
}

/// G-391: SetStateLifetime names application, session and flow in its direction, and reaches that state and no other.
#[test]
fn a_lifetime_is_that_of_one_session() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    let of = |mri: Mri| Request::SetStateLifetime { nslp_id: NSLP, session: session(2), mri, lifetime: Duration::ZERO };
    world.request(0, of(up()));
    assert_eq!(world.node(0).routing_table().len(), 2, "the other direction is another state");
    world.request(0, of(down()));
    let left: Vec<_> = world.node(0).routing_table().into_iter().map(|entry| entry.session).collect();
    assert_eq!(left, [session(1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// G-043, G-388: any words pass unchanged, by either mode.
    #[test]
    fn payloads_are_carried_as_they_are(words in proptest::collection::vec(any::<[u8; 4]>(), 1..60), datagrams in any::<bool>()) {
        let mut world = World::chain_with(|_, config| if datagrams { config.registrations[0].offer.clear() });
        world.members[1].relays = false;
        let payload = Bytes::from(words.concat());
        world.send(0, SendMessage { payload: payload.clone(), ..unreliable("down") });
        world.run(secs(1));
        prop_assert_eq!(world.payloads(1), [payload]);
    }
}
