//! A flow whose path changes between two routers that both live (RFC 5971 §7.1; X-95, TMP-12).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{Indication, NetworkEvent, PathId, PeerHandle, ReceivedMessage, Request, RoutingStatus, SendMessage};
use gist::node::{ApdEntry, AssociationEvent, IdentityPattern, PeerRole, Side, Transmit};
use gist::wire::{Body, ErrorBody, ErrorCause, GistError, Message, MessageType, Mri, NslpId, PathCoupled, PeerIdentity};
use node_world::*;

const RECEIVER: usize = 2;

/// A message has gone over the first router; then the flow moves to the second, and the sender asks and sends.
fn moved() -> (World, Switch) {
    let mut world = World::fork();
    let switch = world.reroute();
    world.send(0, text("old."));
    world.run(secs(1));
    assert_eq!(world.payloads(RECEIVER), ["old."]);
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    world.request(1, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    switch.set(true);
    world.request(0, invalidate(RoutingStatus::Bad));
    world.send(0, text("new."));
    world.run(Duration::from_millis(50));
    (world, switch)
}

fn invalidate(status: RoutingStatus) -> Request {
    Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status, urgent: true }
}

/// What the receiver's application has got with this payload.
fn got(world: &World, payload: &str) -> ReceivedMessage {
    world.received(RECEIVER).into_iter().find(|message| message.payload == payload).unwrap()
}

fn adopt(peer: PeerHandle) -> Request {
    Request::AdoptPeer { nslp_id: NSLP, session: session(1), mri: up(), peer }
}

fn answer(payload: &'static str) -> SendMessage {
    SendMessage { mri: up(), ..text(payload) }
}

/// The receiver's peer, and the one that claims to be it.
fn upstream(world: &World) -> Option<(PeerIdentity, Option<PeerIdentity>)> {
    let entry = world.node(RECEIVER).routing_table().pop()?;
    assert_eq!(entry.side, Side::Responding);
    Some((entry.peer.unwrap(), entry.second_peer))
}

/// The receiver's association with this peer.
fn with(world: &World, peer: usize) -> gist::api::AssociationId {
    let table = world.node(RECEIVER).associations();
    table.iter().find(|entry| entry.peer == Some(identity(peer))).unwrap().association
}

/// What a node was told about peers: event, former, new.
fn news(world: &World, number: usize) -> Vec<(NetworkEvent, Option<PeerHandle>, Option<PeerHandle>)> {
    let pick = |indication: &Indication| match indication {
        Indication::NetworkNotification { event, former, peer, .. } => Some((*event, *former, *peer)),
        _ => None,
    };
    world.members[number].indications.iter().filter_map(|(_, indication)| pick(indication)).collect()
}

fn error(cause: ErrorCause, mri: gist::wire::Mri) -> Message {
    let header = [1, 64, 0, 0, 0x7f, 0xc0, MessageType::Data as u8, 0x80];
    let error = GistError { session: Some(session(1)), mri: Some(mri), ..GistError::new(cause, header) };
    Message {
        hop_count: 1,
        nslp_id: NslpId::NONE,
        source_is_signalling: true,
        body: Body::Error(ErrorBody { nat: None, nli: None, error }),
        unknown: Vec::new(),
    }
}

/// X-95, TMP-12: within 50 ms, on links of 1 ms; before, this took until the first router let the state run out, 60 s at most.
#[test]
fn a_flow_that_moves_to_another_living_router_heals_with_its_first_signed_message() {
    let (mut world, _) = moved();
    let message = got(&world, "new.");
    assert!(message.tentative && message.authenticated);
    assert_eq!((message.peer.clone(), upstream(&world)), (identity(BYPASS), Some((identity(1), Some(identity(BYPASS))))));
    // Nothing of the application goes to the second peer before the application has judged.
    world.send(RECEIVER, answer("wait"));
    world.run(Duration::from_millis(50));
    assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["old.".into(), "wait".into()], vec!["new.".into()]));
    world.request(RECEIVER, adopt(message.peer_handle));
    assert_eq!(upstream(&world), Some((identity(BYPASS), None)));
    world.send(RECEIVER, answer("key."));
    world.run(Duration::from_millis(50));
    assert_eq!(world.payloads(0).last().unwrap(), "key.");
    assert_eq!(world.payloads(1), ["old.", "wait"]);
    assert!(news(&world, RECEIVER).is_empty(), "G-309: the application caused it");
    // The next one is the peer's, as any other.
    world.send(0, text("more"));
    world.run(Duration::from_millis(50));
    assert!(!got(&world, "more").tentative);
    assert_eq!(got(&world, "more").peer_handle, message.peer_handle);
    // The first router is out: what it still sends is not handed up, and it learns of it (G-047).
    world.send(1, text("late"));
    world.run(Duration::from_millis(50));
    assert!(!world.payloads(RECEIVER).contains(&"late".into()));
    assert_eq!(world.errors_of(RECEIVER).last().unwrap().cause(), Some(ErrorCause::IncorrectlyDelivered));
}

/// G-305, G-306 (RFC 5971 §7.1.2): nobody has asked for it, and nothing is lost meanwhile.
/// Takes: querying 4c, G-306.
#[test]
fn a_node_whose_own_route_changes_finds_the_new_peer_at_once_and_says_so() {
    let mut world = World::fork();
    let switch = world.reroute();
    world.send(0, text("old."));
    world.run(secs(1));
    switch.set(true);
    world.route_changes(0, "192.0.2.99".parse().unwrap());
    world.run(secs(1));
    assert!(news(&world, 0).is_empty(), "the way to another destination is no business of this flow");
    world.route_changes(0, down().destination());
    world.send(0, text("mean"));
    world.run(Duration::from_millis(50));
    let [(NetworkEvent::PeerChanged, Some(former), Some(new))] = news(&world, 0)[..] else { panic!("{:?}", news(&world, 0)) };
    assert_ne!(former, new);
    assert_eq!(world.payloads(1), ["old.", "mean"], "to the old peer until another has answered");
    world.send(0, text("new."));
    world.run(Duration::from_millis(50));
    assert_eq!(world.payloads(BYPASS), ["new."]);
}

/// A route that changes without leading to another peer costs a question and no word.
#[test]
fn a_route_that_still_leads_to_the_same_peer_changes_nothing() {
    let mut world = World::fork();
    world.send(0, text("old."));
    world.run(secs(1));
    world.route_changes(0, down().destination());
    world.run(secs(1));
    assert!(news(&world, 0).is_empty());
    world.send(0, text("more"));
    world.run(Duration::from_millis(50));
    assert_eq!(world.payloads(1), ["old.", "more"]);
}

/// RFC 5971 §7.1.4: the application moves its flow by itself, and GIST looks for the peer there; nothing is said on the old way.
/// Takes: querying 7.1.4, G-306.
#[test]
fn another_way_out_is_another_path() {
    let mut world = World::fork();
    let switch = world.reroute();
    world.send(0, text("old."));
    world.run(secs(1));
    switch.set(true);
    let sent = |world: &World| (world.datagrams.len(), world.on_associations.len());
    let before = sent(&world);
    world.send(0, SendMessage { path: PathId(2), ..text("new.") });
    world.run(Duration::from_millis(50));
    assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["old.".into()], vec!["new.".into()]));
    assert!(got(&world, "new.").tentative);
    let queries: Vec<_> = world.datagrams_of(0, MessageType::Query).into_iter().map(|(_, transmit, _)| path_of(&transmit)).collect();
    assert_eq!(queries, [PathId(0), PathId(2)]);
    // What goes by the same way again asks nothing; refreshes go that way too.
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(300) });
    world.send(0, SendMessage { path: PathId(2), ..text("more") });
    world.run(secs(60));
    assert_eq!(world.payloads(BYPASS), ["new.", "more"]);
    let later: Vec<_> = world.datagrams_of(0, MessageType::Query).into_iter().skip(2).map(|(_, transmit, _)| path_of(&transmit)).collect();
    assert!(!later.is_empty() && later.iter().all(|path| *path == PathId(2)), "{later:?}");
    let towards_the_old = |&(at, from, ref message): &(gist::time::Instant, usize, Message)| {
        at > gist::time::Instant::from_micros(2_000_000) && from == 0 && message.message_type() == MessageType::Data
    };
    let data = world.on_associations.iter().skip(before.1).filter(|entry| towards_the_old(entry)).count();
    assert_eq!(data, 2, "each message once, none of them to the old peer");
}

/// The same peer is next on both ways, and the routed one is dead both ways: it is reached by an association of its own that leaves
/// by the other way, from the address that Queries name, and neither end tries the one that stands.
#[test]
fn a_peer_that_is_next_on_both_ways_gets_an_association_on_each() {
    let mut world = World::chain();
    world.send(0, text("old."));
    world.run(secs(1));
    let dead: Vec<_> = [0, 1].map(|number| world.node(number).associations()[0].association).into();
    assert_eq!(world.connects, 2, "from the sender to the router, and on to the receiver");
    let [at_sender, at_router] = dead[..] else { panic!("two ends") };
    world.tap(move |_, parcel| match parcel {
        Parcel::Association { from: 0, to: 1, id, .. } if *id == at_router => Fate::Lose,
        Parcel::Association { from: 1, to: 0, id, .. } if *id == at_sender => Fate::Lose,
        _ => Fate::Pass,
    });
    world.send(0, SendMessage { path: PathId(2), ..text("new.") });
    world.run(Duration::from_millis(100));
    assert_eq!(world.payloads(RECEIVER), ["old.", "new."]);
    let connects: Vec<_> = world.trace.iter().filter(|line| line.contains(" 0 -> Connect")).cloned().collect();
    assert!(connects[0].ends_with("path: PathId(0), source: None }"), "{connects:?}");
    assert!(connects[1].ends_with("path: PathId(2), source: Some(10.0.1.1) }"), "{connects:?}");
    // Whatever else takes that way goes over it; what is routed does not, and has the old one.
    world.send(0, SendMessage { path: PathId(2), ..text_for(session(2), b"also") });
    world.run(Duration::from_millis(100));
    assert_eq!((world.payloads(RECEIVER).len(), world.connects), (3, 3));
    let of_sender = world.node(0).associations().len();
    world.tap(|_, _| Fate::Pass);
    world.send(0, text_for(session(3), b"here"));
    world.run(Duration::from_millis(100));
    assert_eq!((world.payloads(RECEIVER).len(), world.node(0).associations().len()), (4, of_sender));
}

/// By an association on another way this node goes by another name: who asks it for a flow of its own is answered by none of them.
#[test]
fn who_knows_this_node_by_another_way_alone_finds_it_as_a_peer_of_its_own_flows() {
    let mut world = World::chain();
    world.send(0, SendMessage { path: PathId(2), ..text("away") });
    world.run(secs(5));
    assert_eq!(world.payloads(RECEIVER), ["away"]);
    let Mri::PathCoupled(there) = down() else { panic!("path-coupled") };
    let back = PathCoupled {
        source: there.destination,
        destination: there.source,
        source_port: there.destination_port,
        destination_port: there.source_port,
        ..there
    };
    world.send(RECEIVER, SendMessage { mri: Mri::PathCoupled(back), ..text_for(session(2), b"back") });
    world.run(secs(1));
    assert_eq!(world.payloads(0), ["back"]);
}

/// A message for another way out, while the answer of the first is awaited: who answered there is not taken any more.
/// Takes: querying 1, 7.1.4.
#[test]
fn who_answers_on_the_way_given_up_is_not_heard() {
    let mut world = World::fork();
    let switch = world.reroute();
    world.connect_delay = Duration::from_millis(100);
    world.send(0, text("old."));
    world.run(Duration::from_millis(20));
    assert_eq!(world.connects, 1, "the first router has answered");
    switch.set(true);
    world.send(0, SendMessage { path: PathId(1), ..text("new.") });
    world.run(secs(1));
    assert_eq!(world.payloads(1), Vec::<bytes::Bytes>::new());
    assert_eq!(world.payloads(BYPASS), ["old.", "new."], "what waited goes the new way");
}

fn path_of(transmit: &Transmit) -> PathId {
    let Transmit::QueryMode { path, .. } = transmit else { panic!("Q-mode") };
    *path
}

/// And back again.
#[test]
fn a_flow_that_moves_back_heals_the_same_way() {
    let (mut world, switch) = moved();
    world.request(RECEIVER, adopt(got(&world, "new.").peer_handle));
    switch.set(false);
    world.request(0, invalidate(RoutingStatus::Tentative));
    world.run(Duration::from_millis(50));
    // The first router still believes in its state. Its peer says that it is wrong, so it asks again at once.
    world.send(0, text("lost"));
    world.run(secs(1));
    world.send(0, text("back"));
    world.run(secs(1));
    let message = got(&world, "back");
    assert!(message.tentative);
    world.request(RECEIVER, adopt(message.peer_handle));
    assert_eq!(upstream(&world), Some((identity(1), None)));
}

/// An adoption names one peer, and only the second one can be adopted.
#[test]
fn only_the_second_peer_can_be_adopted() {
    let (mut world, _) = moved();
    let before = world.node(RECEIVER).clone();
    let (first, second) = (got(&world, "old.").peer_handle, got(&world, "new.").peer_handle);
    for wrong in [first, PeerHandle([0; 16])] {
        world.request(RECEIVER, adopt(wrong));
        assert_eq!(world.node(RECEIVER).routing_table(), before.routing_table());
    }
    let elsewhere = Request::AdoptPeer { nslp_id: NSLP, session: session(2), mri: up(), peer: second };
    world.request(RECEIVER, elsewhere);
    assert_eq!(world.node(RECEIVER).routing_table(), before.routing_table());
    for _ in 0..2 {
        world.request(RECEIVER, adopt(second));
        assert_eq!(upstream(&world), Some((identity(BYPASS), None)));
    }
}

/// Note X-95: a claim that nobody judges ends, and what is handed up ends with it.
#[test]
fn a_second_peer_that_is_not_adopted_is_dropped() {
    let (mut world, switch) = moved();
    switch.set(false);
    // Nothing refreshes the claim; the first router goes on refreshing.
    let bypass = world.members[BYPASS].node.routing_table().len();
    assert_eq!(bypass, 2);
    world.members[BYPASS].alive = false;
    world.run(secs(31));
    assert_eq!(upstream(&world), Some((identity(1), None)));
    assert!(world.node(RECEIVER).associations().len() <= 2);
    world.run(secs(60));
    assert_eq!(world.node(RECEIVER).associations().len(), 1, "nobody uses the other any more");
}

/// G-128, G-309, G-390: whatever ends the first peer, the second one is its heir at once, and the application hears who.
#[test]
fn the_second_peer_inherits_when_the_first_is_gone() {
    for end in 0..4 {
        let (mut world, _) = moved();
        let (first, second) = (got(&world, "old.").peer_handle, got(&world, "new.").peer_handle);
        let old = with(&world, 1);
        match end {
            0 => world.kill(1),
            1 => world.inject_on(RECEIVER, old, &error(ErrorCause::NoRoutingState, up())),
            2 => {
                let now = world.now;
                let pattern = IdentityPattern::DnsName("router.pbs.test".to_owned());
                let mut entries = authorised_peers();
                entries[0] = ApdEntry { pattern, role: PeerRole::Router, allow: false };
                let pattern = IdentityPattern::DnsName("bypass.pbs.test".to_owned());
                entries.insert(0, ApdEntry { pattern, role: PeerRole::Router, allow: true });
                world.members[RECEIVER].node.set_authorised_peers(entries, now);
                world.request(RECEIVER, adopt(PeerHandle([0; 16])));
            }
            _ => {
                // The first router forgets the flow, and its state here runs out while the second refreshes its claim.
                world.request(1, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: Duration::ZERO });
                world.run(secs(45));
            }
        }
        world.run(Duration::from_millis(50));
        assert_eq!(upstream(&world), Some((identity(BYPASS), None)), "{end}");
        assert_eq!(news(&world, RECEIVER), [(NetworkEvent::PeerChanged, Some(first), Some(second))], "{end}");
        world.send(RECEIVER, answer("back"));
        world.run(Duration::from_millis(50));
        assert!(world.payloads(BYPASS).contains(&"back".into()), "{end}");
    }
}

/// The other way round: the second peer's end is nobody's news.
#[test]
fn the_end_of_the_second_peer_changes_nothing_for_the_first() {
    for end in 0..3 {
        let (mut world, _) = moved();
        let claim = with(&world, BYPASS);
        match end {
            0 => {
                let now = world.now;
                world.members[RECEIVER].node.handle_association(claim, AssociationEvent::Closed, now);
            }
            1 => world.inject_on(RECEIVER, claim, &error(ErrorCause::NoRoutingState, up())),
            _ => {
                let now = world.now;
                world.members[RECEIVER].node.set_authorised_peers(authorised_peers(), now);
                world.request(RECEIVER, adopt(PeerHandle([0; 16])));
            }
        }
        assert_eq!(upstream(&world), Some((identity(1), None)), "{end}");
        assert!(news(&world, RECEIVER).is_empty(), "{end}");
        world.send(RECEIVER, answer("back"));
        world.run(Duration::from_millis(50));
        assert_eq!(world.payloads(1).last().unwrap(), "back");
    }
}

/// The share of one key holds for claims too; who gets none is told so, and its flow is not handed up.
/// Takes: querying G-306.
#[test]
fn claims_count_against_the_share_of_who_makes_them() {
    let mut world = World::fork_with(|number, config| {
        if number == RECEIVER {
            // Three for a router.
            config.caps.routing_states = 4;
        }
    });
    let switch = world.reroute();
    for number in 1..=3 {
        world.send(0, text_for(session(number), b"old."));
    }
    switch.set(true);
    world.run(secs(1));
    world.send(0, text_for(session(4), b"own."));
    world.run(secs(1));
    assert_eq!(world.node(RECEIVER).routing_table().len(), 4);
    for number in 1..=3 {
        let mri = down();
        world.request(
            0,
            Request::InvalidateRoutingState { nslp_id: NSLP, session: session(number), mri, status: RoutingStatus::Bad, urgent: true },
        );
        world.send(0, text_for(session(number), b"new."));
        world.run(secs(1));
    }
    let claims = world.node(RECEIVER).routing_table().iter().filter(|entry| entry.second_peer.is_some()).count();
    assert_eq!(claims, 2, "one state and two claims");
    assert_eq!(world.payloads(RECEIVER).iter().filter(|payload| *payload == "new.").count(), 2);
    assert!(world.node(RECEIVER).counters().refused_when_full >= 1);
}

/// G-300, G-306, G-390: the querying node hears who it was and who it is; a handle is one peer's in every session (G-313).
#[test]
fn a_change_of_the_next_peer_names_both() {
    let (mut world, _) = moved();
    let [(event, Some(former), Some(new))] = news(&world, 0)[..] else { panic!("{:?}", news(&world, 0)) };
    assert_eq!(event, NetworkEvent::PeerChanged);
    assert_ne!(former, new);
    world.request(RECEIVER, adopt(got(&world, "new.").peer_handle));
    world.send(RECEIVER, answer("back"));
    world.send(0, text_for(session(2), b"two."));
    world.run(Duration::from_millis(50));
    world.send(RECEIVER, SendMessage { session: session(2), ..answer("two!") });
    world.run(Duration::from_millis(50));
    let handles: Vec<_> = world.received(0).iter().map(|message| message.peer_handle).collect();
    assert_eq!(handles, [new, new]);
}

/// The Queries come in by another interface.
/// Takes: responding G-306.
#[test]
fn another_interface_is_told_to_the_application() {
    let mut world = World::fork();
    world.members[1].relays = false;
    world.send(0, text("old."));
    world.run(secs(1));
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { from, to: 1, datagram } if datagram.interface == 1 => {
            let datagram = gist::node::Datagram { interface: 2, ..datagram.clone() };
            Fate::Change(Parcel::Datagram { from: *from, to: 1, datagram })
        }
        _ => Fate::Pass,
    });
    world.request(0, invalidate(RoutingStatus::Tentative));
    world.run(secs(1));
    let handle = world.received(1)[0].peer_handle;
    assert_eq!(news(&world, 1), [(NetworkEvent::PeerChanged, Some(handle), Some(handle))]);
    world.request(0, invalidate(RoutingStatus::Tentative));
    world.run(secs(1));
    assert_eq!(news(&world, 1).len(), 1, "said once");
}
