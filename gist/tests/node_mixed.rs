//! Applications that take TLS and TCP alone: who is authenticated goes before who is not, at either end and in every table (G-225, G-228,
//! G-343, RFC 5971 §8.6).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{AssociationId, Carriage, Indication, NetworkEvent, SendMessage, Transport};
use gist::node::{AssociationEvent, Caps, NodeConfig, PeerCredentials};
use gist::wire::{
    Body, Confirm, Cookie, MaOptions, Message, MessageType, Nli, PeerIdentity, Profile, Query, SessionId, StackConfiguration, StackOffer,
    StackProposal,
};
use node_world::mixed::*;
use node_world::*;

const EVE: &str = "10.0.1.66";

/// Every node takes both, in this order.
fn offering(profiles: [Profile; 2]) -> impl Fn(usize, &mut NodeConfig) {
    move |_, config| config.registrations[0].offer = profiles.to_vec()
}

fn tls_first() -> impl Fn(usize, &mut NodeConfig) {
    offering([Profile::tls_over_tcp(), Profile::tcp()])
}

fn tcp_first() -> impl Fn(usize, &mut NodeConfig) {
    offering([Profile::tcp(), Profile::tls_over_tcp()])
}

fn how(world: &World, number: usize) -> Vec<(String, Transport, bool)> {
    let received = world.received(number).into_iter();
    let text = |message: &gist::api::ReceivedMessage| String::from_utf8(message.payload.to_vec()).unwrap();
    received.map(|message| (text(&message), message.reception.transport, message.authenticated)).collect()
}

/// Somebody opens an association over TCP alone.
fn accept_plain(world: &mut World, number: usize, peer_address: &str) -> AssociationId {
    let id = world.members[number].node.accept_id();
    let now = world.now;
    let event = AssociationEvent::AcceptedUnprotected { peer_address: peer_address.parse().unwrap() };
    world.members[number].node.handle_association(id, event, now);
    world.run(Duration::ZERO);
    id
}

fn nli(number: u8, at: &str) -> Nli {
    Nli { ip_ttl: 64, validity: secs(30), peer: PeerIdentity::new(vec![number; 16]).unwrap(), address: address(at) }
}

fn message(body: Body) -> Message {
    Message { hop_count: 64, nslp_id: NSLP, source_is_signalling: false, body, unknown: Vec::new() }
}

/// A stranger's whole handshake with a node, over an association of TCP alone.
fn join_plain(world: &mut World, number: usize, id: AssociationId, session: SessionId, nli: &Nli) {
    let configuration = |options| StackConfiguration { hold_time: secs(30), options };
    let stack = StackOffer {
        proposal: StackProposal { profiles: vec![Profile::tcp()] },
        configuration: configuration(vec![MaOptions::tcp_query(0)]),
    };
    let cookie = Cookie::new(vec![7; 16]).unwrap();
    let query = Query { nat: None, mri: down(), session, nli: nli.clone(), cookie, stack: Some(stack), payload: None };
    world.inject(number, passing(&format!("{}:270", nli.address), &message(Body::Query(query))));
    let (_, _, response) = world.datagrams_of(number, MessageType::Response).pop().unwrap();
    let Body::Response(response) = response.body else { panic!("Response") };
    let responder = response.responder.unwrap();
    let confirm = Confirm {
        mri: down(),
        session,
        nli: nli.clone(),
        responder_cookie: Some(responder.cookie),
        proposal: responder.stack.map(|stack| stack.proposal),
        configuration: Some(configuration(Vec::new())),
        payload: None,
    };
    world.inject_on(number, id, &message(Body::Confirm(confirm)));
}

/// G-233: with both on offer TLS is taken, and each message says what carried it.
#[test]
fn what_may_go_over_either_goes_over_what_the_asker_prefers() {
    for (change, transport) in
        [(Box::new(tls_first()) as Box<dyn Fn(usize, &mut NodeConfig)>, Transport::Tls), (Box::new(tcp_first()), Transport::Tcp)]
    {
        let mut world = link(change);
        world.send(0, open("open"));
        world.run(secs(1));
        assert_eq!(how(&world, 1), [("open".to_owned(), transport, transport == Transport::Tls)]);
        assert_eq!(world.node(0).associations().iter().map(|entry| entry.transport).collect::<Vec<_>>(), [transport]);
    }
}

/// G-343: TCP alone needs one round trip less, and everybody on the link sees the Query; so who answers fastest must not be who wins.
#[test]
fn who_proves_himself_first_over_tcp_alone_waits_for_who_may_authenticate_himself() {
    let mut world = rivals();
    world.connect_delay = Duration::from_millis(300);
    world.send(0, open("open"));
    also_ask_the_rival(&mut world);
    world.run(Duration::from_millis(100));
    let rivals = world.node(0).associations();
    assert_eq!((rivals.len(), world.node(0).routing_table()[0].peer.clone()), (2, None), "{rivals:?}");
    world.run(secs(2));
    assert_eq!(how(&world, 1), [("open".to_owned(), Transport::Tls, true)]);
    assert!(world.payloads(BYPASS).is_empty());
    assert_eq!(world.node(0).routing_table()[0].peer, Some(identity(1)));
}

/// The other side of it: waiting ends with the last who might have been authenticated.
#[test]
fn over_tcp_alone_it_goes_when_nobody_authenticates_himself() {
    let mut world = rivals();
    world.members[1].listens = false;
    world.send(0, open("open"));
    also_ask_the_rival(&mut world);
    world.run(Duration::from_millis(100));
    assert_eq!(how(&world, BYPASS), [("open".to_owned(), Transport::Tcp, false)]);
    // Somebody answers a refresh who is authenticated: he is the peer, and the application hears what that means.
    world.members[1].listens = true;
    world.run(secs(40));
    assert_eq!(told(&world, 0), [(NetworkEvent::PeerChanged, true)]);
    assert_eq!(world.node(0).routing_table()[0].peer, Some(identity(1)));
    // And stays it, whoever else answers.
    for _ in 0..60 {
        also_ask_the_rival(&mut world);
        world.run(secs(1));
    }
    world.send(0, open("more"));
    world.run(secs(1));
    assert_eq!(how(&world, 1), [("more".to_owned(), Transport::Tls, true)]);
    assert_eq!((world.payloads(BYPASS).len(), told(&world, 0).len()), (1, 1));
}

/// G-051: what has been found for messages that demand nothing is not enough for one that does.
#[test]
fn a_message_that_demands_protection_finds_a_peer_that_has_it() {
    let mut world = link(tcp_first());
    world.send(0, open("open"));
    world.run(secs(1));
    world.send(0, text("safe"));
    world.send(0, open("also"));
    world.run(secs(1));
    let safe = |payload: &str| (payload.to_owned(), Transport::Tls, true);
    assert_eq!(how(&world, 1), [("open".to_owned(), Transport::Tcp, false), safe("safe"), safe("also")]);
    assert_eq!(told(&world, 1), [(NetworkEvent::PeerChanged, true)], "the answerer is told that its peer is authenticated now");
    world.send(1, SendMessage { mri: up(), ..text("back") });
    world.run(secs(90));
    assert_eq!(how(&world, 0), [safe("back")]);
    assert!(world.failures(0).is_empty() && world.failures(1).is_empty(), "{:?} {:?}", world.failures(0), world.failures(1));
    assert!(world.node(0).routing_table().iter().all(|entry| entry.state == "Established"), "refreshes too");
}

/// The same where no peer offers it: the message fails, and nothing of it is sent.
#[test]
fn a_message_that_demands_protection_fails_where_no_peer_offers_it() {
    let mut world = World::fork_with(|number, config| {
        config.registrations[0].offer = if number == 0 { vec![Profile::tls_over_tcp(), Profile::tcp()] } else { vec![Profile::tcp()] };
    });
    world.members[1].relays = false;
    world.send(0, open("open"));
    world.run(secs(1));
    world.send(0, text("safe"));
    world.run(secs(60));
    assert_eq!(how(&world, 1), [("open".to_owned(), Transport::Tcp, false)]);
    assert_eq!(world.failures(0).len(), 1);
    let sent = world.on_associations.iter().filter(|(_, from, message)| *from == 0 && format!("{message:?}").contains("safe"));
    assert_eq!(sent.count(), 0);
    // The next one that demands nothing goes as before.
    world.send(0, open("more"));
    world.run(secs(1));
    assert_eq!(how(&world, 1).last(), Some(&("more".to_owned(), Transport::Tcp, false)));
}

/// G-228: what may go over TCP alone uses a protected association that stands, and costs none of its own.
#[test]
fn what_demands_nothing_uses_a_protected_association_that_stands() {
    let mut world = link(tcp_first());
    world.send(0, text("safe"));
    world.run(secs(1));
    world.send(0, SendMessage { session: session(2), ..open("open") });
    world.run(secs(1));
    assert_eq!(world.connects, 1);
    assert_eq!(how(&world, 1)[1], ("open".to_owned(), Transport::Tls, true));
}

/// G-228: and if both stand, it is the protected one, whichever is newer.
#[test]
fn of_two_associations_the_protected_one_is_used_again() {
    let mut world = link(tcp_first());
    world.send(0, open("open"));
    world.run(secs(1));
    world.send(0, SendMessage { session: session(2), ..text("safe") });
    world.run(secs(1));
    assert_eq!(world.connects, 2);
    for number in 3..8 {
        world.send(0, SendMessage { session: session(number), ..open("more") });
        world.run(secs(1));
    }
    assert_eq!(world.connects, 2);
    assert!(how(&world, 1)[2..].iter().all(|(_, transport, _)| *transport == Transport::Tls), "{:?}", how(&world, 1));
}

/// §8.6: somebody on the way takes TLS out of the Response. The Confirm that echoes it is refused, and its association closed.
#[test]
fn a_response_stripped_of_tls_makes_no_state() {
    let mut world = link(tls_first());
    world.tap(|now, parcel| {
        let Some(mut message) = message_of(parcel) else { return Fate::Pass };
        let (Parcel::Datagram { from, to: 0, datagram }, Body::Response(response)) = (parcel, &mut message.body) else { return Fate::Pass };
        if now > at_millis(5000) {
            return Fate::Pass;
        }
        let stack = response.responder.as_mut().unwrap().stack.as_mut().unwrap();
        stack.proposal.profiles = vec![Profile::tcp()];
        stack.configuration.options = vec![MaOptions::tcp_response(1, PLAIN_PORT)];
        let datagram = gist::node::Datagram { payload: encoded(&message), ..datagram.clone() };
        Fate::Change(Parcel::Datagram { from: *from, to: 0, datagram })
    });
    world.send(0, open("open"));
    world.run(secs(5));
    assert!(world.connects >= 1 && world.node(1).counters().altered_proposals >= 1);
    assert!(world.payloads(1).is_empty() && world.node(1).routing_table().is_empty() && world.node(1).associations().is_empty());
    // When he is gone the message goes as it should have.
    world.run(secs(10));
    assert_eq!(how(&world, 1), [("open".to_owned(), Transport::Tls, true)]);
}

/// §8.6: somebody takes TLS out of the Query while an association over TCP alone stands. The answer offers everything all the same, and the
/// asker takes TLS.
#[test]
fn a_query_stripped_of_tls_is_answered_with_the_whole_offer() {
    let mut world = link(|number, config| {
        config.registrations[0].offer = vec![Profile::tls_over_tcp(), Profile::tcp()];
        let plain =
            gist::node::Registration { nslp_id: gist::wire::NslpId(7), offer: vec![Profile::tcp()], ..config.registrations[0].clone() };
        config.registrations.push(plain);
        let _ = number;
    });
    world.send(0, SendMessage { nslp_id: gist::wire::NslpId(7), session: session(7), ..open("open") });
    world.run(secs(1));
    assert_eq!(how(&world, 1), [("open".to_owned(), Transport::Tcp, false)]);
    world.tap(|_, parcel| {
        let Some(mut message) = message_of(parcel) else { return Fate::Pass };
        let (Parcel::Datagram { from, to: 1, datagram }, Body::Query(query)) = (parcel, &mut message.body) else { return Fate::Pass };
        query.stack.as_mut().unwrap().proposal.profiles = vec![Profile::tcp()];
        let datagram = gist::node::Datagram { payload: encoded(&message), ..datagram.clone() };
        Fate::Change(Parcel::Datagram { from: *from, to: 1, datagram })
    });
    world.send(0, SendMessage { session: session(2), ..open("more") });
    world.run(secs(1));
    assert_eq!(how(&world, 1)[1], ("more".to_owned(), Transport::Tls, true));
}

/// G-128: nobody unauthenticated takes a flow from who is authenticated, and nobody inherits it so.
#[test]
fn a_flow_of_an_authenticated_peer_is_neither_taken_nor_inherited_over_tcp_alone() {
    let mut world = link(tls_first());
    world.send(0, open("open"));
    world.run(secs(1));
    let eve = accept_plain(&mut world, 1, "10.0.1.66:4000");
    for _ in 0..3 {
        join_plain(&mut world, 1, eve, session(1), &nli(0xee, EVE));
        world.run(Duration::from_millis(300));
    }
    let entry = world.node(1).routing_table().remove(0);
    assert_eq!((entry.peer, entry.second_peer), (Some(identity(0)), None));
    assert!(world.node(1).counters().flows_refused >= 1);
    world.send(1, SendMessage { mri: up(), ..open("back") });
    world.run(Duration::from_millis(10));
    assert_eq!(world.payloads(0), ["back"]);
    // Its end is the flow's end, not the stranger's beginning.
    world.kill(0);
    world.run(Duration::from_millis(10));
    assert!(world.node(1).routing_table().is_empty());
    assert_eq!(told(&world, 1), [(NetworkEvent::AssociationLost, false)]);
}

/// The other way round: who came first over TCP alone holds nothing against who is authenticated.
#[test]
fn an_authenticated_peer_takes_a_flow_from_tcp_alone() {
    let mut world = World::chain_with(tls_first());
    let eve = accept_plain(&mut world, 2, "10.0.2.66:4000");
    join_plain(&mut world, 2, eve, session(1), &nli(0xee, "10.0.2.66"));
    // Another stranger waits behind the first.
    let second = accept_plain(&mut world, 2, "10.0.2.67:4000");
    join_plain(&mut world, 2, second, session(1), &nli(0xef, "10.0.2.67"));
    let entry = world.node(2).routing_table().remove(0);
    assert!(entry.peer == Some(nli(0xee, EVE).peer) && entry.second_peer == Some(nli(0xef, EVE).peer), "{entry:?}");
    world.send(0, open("open"));
    world.run(secs(1));
    assert_eq!(told(&world, 2), [(NetworkEvent::PeerChanged, true)]);
    let entry = world.node(2).routing_table().remove(0);
    assert_eq!((entry.peer, entry.second_peer), (Some(identity(1)), None));
    assert_eq!(how(&world, 2), [("open".to_owned(), Transport::Tls, true)]);
    world.send(2, SendMessage { mri: up(), ..text("back") });
    world.run(secs(1));
    assert_eq!(world.payloads(0), ["back"]);
}

/// G-389: the application hears what would carry its message before that is sent, and a veto stops it.
#[test]
fn an_application_may_veto_what_would_carry_its_message() {
    let mut world = link(tcp_first());
    let proposed = |world: &World| {
        let pick = |indication: &Indication| {
            if let Indication::MessageProposed { message, transport } = indication { Some((message.clone(), *transport)) } else { None }
        };
        world.members[0].indications.iter().filter_map(|(_, indication)| pick(indication)).collect::<Vec<_>>()
    };
    let sent = |world: &World| {
        world.on_associations.iter().filter(|(_, from, message)| *from == 0 && message.message_type() == MessageType::Data).count()
    };
    let asking = SendMessage { carriage: Carriage::Ask, ..open("open") };
    world.send(0, asking.clone());
    world.run(secs(1));
    assert_eq!(proposed(&world), [(asking.clone(), Transport::Tcp)], "when there is a peer, and so an answer");
    // It says nothing more about this message.
    world.run(secs(5));
    assert!(sent(&world) == 0 && world.payloads(1).is_empty() && world.failures(0).is_empty());
    // And of another one that it is welcome.
    world.send(0, SendMessage { carriage: Carriage::Only(Transport::Tcp), ..open("well") });
    world.run(secs(1));
    assert_eq!(how(&world, 1), [("well".to_owned(), Transport::Tcp, false)]);
    // What it has said holds for that transport and no other.
    world.send(0, text("safe"));
    world.send(0, SendMessage { carriage: Carriage::Only(Transport::Tcp), ..open("late") });
    world.run(secs(1));
    assert_eq!(
        proposed(&world).last().map(|(message, transport)| (message.payload.clone(), *transport)),
        Some(("late".into(), Transport::Tls))
    );
    assert_eq!((sent(&world), how(&world, 1).len()), (2, 2), "welcome and safe alone");
    // Upstream as well.
    world.send(1, SendMessage { carriage: Carriage::Only(Transport::Tcp), mri: up(), ..open("back") });
    world.run(secs(1));
    assert!(world.payloads(0).is_empty());
}

/// Places for what has confirmed nothing, and places in the table: those over TCP alone have their own.
#[test]
fn strangers_over_tcp_alone_leave_the_places_of_others_free() {
    let caps = Caps { associations: 64, unconfirmed_associations: 32, routing_states: 16, ..Caps::default() };
    let mut world = link(move |number, config| {
        tls_first()(number, config);
        config.caps = caps;
    });
    // Half of them confirm a state, so that they do not only wait.
    for number in 1..=200_u8 {
        let at = format!("10.7.0.{number}");
        let id = accept_plain(&mut world, 1, &format!("{at}:4000"));
        if number % 2 == 1 && world.node(1).associations().iter().any(|entry| entry.association == id) {
            join_plain(&mut world, 1, id, session(number), &nli(number, &at));
        }
        world.run(Duration::from_millis(20));
    }
    let plain = |world: &World| world.node(1).associations().iter().filter(|entry| entry.transport == Transport::Tcp).count();
    assert_eq!(plain(&world), 16, "a quarter of the table");
    assert_eq!(world.node(1).routing_table().len(), 4, "and of the states");
    let friends: Vec<_> = (1..=31_u8).map(|number| world.accept(1, &format!("10.8.0.{number}:4000"), friend(number))).collect();
    let known = world.node(1).associations();
    let taken = friends.iter().filter(|id| known.iter().any(|entry| entry.association == **id)).count();
    assert_eq!(taken, 31, "as many as may wait, less one for the sender");
    world.send(0, text("safe"));
    world.run(secs(1));
    assert_eq!(how(&world, 1), [("safe".to_owned(), Transport::Tls, true)]);
}

/// A full table: what is idle and protected does not give way to TCP alone, what is idle and is not gives way to TLS.
#[test]
fn an_idle_protected_association_does_not_give_way_to_tcp_alone() {
    let caps = Caps { associations: 16, unconfirmed_associations: 16, ..Caps::default() };
    let mut world = link(move |number, config| {
        tls_first()(number, config);
        config.caps = caps;
        config.unconfirmed_timeout = secs(3600);
        config.hold_time = secs(3600);
    });
    let stands = |world: &World, id| world.node(1).associations().iter().any(|entry| entry.association == id);
    let friends: Vec<_> = (1..=14_u8).map(|number| world.accept(1, &format!("10.8.0.{number}:4000"), friend(number / 4))).collect();
    let strangers: Vec<_> = (1..=4).map(|number| accept_plain(&mut world, 1, &format!("10.7.0.{number}:4000"))).collect();
    assert!(friends.iter().all(|id| stands(&world, *id)), "nobody gives way to TCP alone");
    assert_eq!(strangers.iter().map(|id| stands(&world, *id)).collect::<Vec<_>>(), [true, true, false, false]);
    let late = world.accept(1, "10.8.0.99:4000", friend(99));
    assert!(stands(&world, late) && friends.iter().all(|id| stands(&world, *id)), "a stranger gives way to who is authenticated");
    assert_eq!(strangers.iter().filter(|id| stands(&world, **id)).count(), 1);
}

/// Whoever has one address of an IPv6 /64 has all: they are one peer for every limit.
#[test]
fn an_ipv6_network_is_one_peer_over_tcp_alone() {
    let mut world = link(tls_first());
    let stands = |world: &World, id| world.node(1).associations().iter().any(|entry| entry.association == id);
    let caps = Caps::default();
    let share = caps.unconfirmed_associations / 4 / 8;
    let neighbours: Vec<_> =
        (1..=share + 8).map(|number| accept_plain(&mut world, 1, &format!("[2001:db8:0:1::{number:x}]:4000"))).collect();
    assert_eq!(neighbours.iter().filter(|id| stands(&world, **id)).count(), share);
    let elsewhere = accept_plain(&mut world, 1, "[2001:db8:0:2::1]:4000");
    assert!(stands(&world, elsewhere));
}

/// A host of the domain with a key of its own.
fn friend(number: u8) -> PeerCredentials {
    credentials(&format!("friend{number}"), &[])
}
