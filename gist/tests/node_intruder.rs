//! Peers with a good certificate, and eavesdroppers without one, who want what is not theirs (G-092, X-78).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{AssociationId, NetworkEvent, Principal, Request, RoutingStatus, SendMessage};
use gist::node::{ApdEntry, Datagram, IdentityPattern, PeerCredentials, PeerRole, Registration, Side};
use gist::wire::{
    Body, Confirm, Cookie, Data, ErrorBody, ErrorCause, GistError, Hello, MaOptions, Message, MessageType, Mri, Nli, NslpId, PeerIdentity,
    Profile, Query, ResponderPart, Response, SessionId, StackConfiguration, StackOffer, StackProposal,
};
use node_world::*;

const EVE: &str = "10.0.1.66";

/// A host of the sender's link with a certificate of the domain.
fn eve() -> PeerCredentials {
    credentials("eve", &[EVE])
}

fn other(number: u8) -> PeerIdentity {
    PeerIdentity::new(vec![number; 16]).unwrap()
}

fn nli(identity: PeerIdentity, at: &str) -> Nli {
    Nli { ip_ttl: 64, validity: secs(30), peer: identity, address: address(at) }
}

fn offer(tcp: MaOptions) -> StackOffer {
    let proposal = StackProposal { profiles: vec![Profile::tls_over_tcp()] };
    StackOffer { proposal, configuration: StackConfiguration { hold_time: secs(30), options: vec![tcp] } }
}

fn message(body: Body) -> Message {
    let nslp_id = if matches!(body, Body::Hello(_) | Body::Error(_)) { NslpId::NONE } else { NSLP };
    Message { hop_count: 64, nslp_id, source_is_signalling: false, body, unknown: Vec::new() }
}

fn query(session: SessionId, mri: Mri, nli: Nli) -> Message {
    let (cookie, stack) = (Cookie::new(vec![7; 16]).unwrap(), Some(offer(MaOptions::tcp_query(0))));
    message(Body::Query(Query { nat: None, mri, session, nli, cookie, stack, payload: None }))
}

/// `proposal` goes with a cookie that came in a datagram: the offer there is echoed.
fn confirm(session: SessionId, mri: Mri, nli: Nli, cookie: Cookie, proposal: bool) -> Message {
    message(Body::Confirm(Confirm {
        mri,
        session,
        nli,
        responder_cookie: Some(cookie),
        proposal: proposal.then(|| offer(MaOptions::tcp_query(0)).proposal),
        configuration: proposal.then(|| StackConfiguration { hold_time: secs(30), options: Vec::new() }),
        payload: None,
    }))
}

fn data(session: SessionId, mri: Mri) -> Message {
    let payload = "ask.".into();
    message(Body::Data(Data { nat: None, mri, session, nli: None, payload, explicit: false, context_free: false }))
}

/// Someone's answer to the sender's latest Query.
fn forged_response(world: &World, from: Nli) -> Message {
    let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    let Body::Query(query) = query.body else { panic!("Query") };
    message(Body::Response(Response {
        nat: None,
        mri: query.mri.inverted(),
        session: query.session,
        nli: from,
        query_cookie: query.cookie,
        confirm_requested: true,
        responder: Some(ResponderPart { cookie: Cookie::new(vec![1; 32]).unwrap(), stack: Some(offer(MaOptions::tcp_response(0, 30270))) }),
        payload: None,
    }))
}

fn with_source(source: &str) -> Mri {
    let Mri::PathCoupled(mut mri) = down() else { panic!("path-coupled") };
    mri.source = address(source);
    Mri::PathCoupled(mri)
}

/// The Responder-Cookie in the router's latest Response, and whether it came in a datagram.
fn cookie(world: &World) -> (Cookie, bool) {
    let response = |message: &Message| if let Body::Response(response) = &message.body { Some(response.clone()) } else { None };
    let datagrams =
        world.datagrams_of(1, MessageType::Response).into_iter().map(|(at, _, message)| (at, response(&message).unwrap(), true));
    let others = world.on_associations.iter().filter(|(_, from, _)| *from == 1);
    let others = others.filter_map(|(at, _, message)| Some((*at, response(message)?, false)));
    let (_, response, datagram) = datagrams.chain(others).max_by_key(|(at, ..)| *at).unwrap();
    (response.responder.unwrap().cookie, datagram)
}

/// The whole handshake of a stranger with the router over an association that is open.
fn join(world: &mut World, id: AssociationId, session: SessionId, mri: Mri, nli: Nli) {
    world.inject(1, passing(&format!("{EVE}:270"), &query(session, mri.clone(), nli.clone())));
    world.run(Duration::from_millis(5));
    let (cookie, proposal) = cookie(world);
    world.inject_on(1, id, &confirm(session, mri, nli, cookie, proposal));
}

/// Payloads the node has written to the association.
fn written(world: &World, number: usize, id: AssociationId, payload: &str) -> usize {
    let start = format!("{number} -> SendOnAssociation {{ association: {id:?},");
    world.trace.iter().filter(|line| line.contains(&start) && line.contains(payload)).count()
}

/// A chain along which a message has gone, so that sender, router and receiver know each other.
fn asked(change: impl Fn(usize, &mut gist::node::NodeConfig)) -> World {
    let mut world = World::chain_with(change);
    world.send(0, text("ask."));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["ask."]);
    world
}

/// The same with the first link alone, and the sender's state wanted for an hour.
fn talking() -> World {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("ask."));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) });
    world
}

/// G-092, G-106, X-78: the router's Confirm check. Under her own name, under the victim's, by name or by address.
#[test]
fn a_host_is_sent_nothing_of_the_flow_of_another_host() {
    let entry = |address: &str, role| ApdEntry { pattern: IdentityPattern::Address(address.parse().unwrap()), role, allow: true };
    for by_address in [false, true] {
        for victims_name in [false, true] {
            let mut world = asked(|_, config| {
                if by_address {
                    let routers = ["10.0.1.254/32", "10.0.2.254/32"].map(|address| entry(address, PeerRole::Router));
                    config.authorised_peers = [routers.to_vec(), vec![entry("10.0.0.0/16", PeerRole::Host)]].concat();
                }
            });
            let (victims, _) = cookie(&world);
            let id = world.accept(1, "10.0.1.66:4000", eve());
            if victims_name {
                world.inject_on(1, id, &confirm(session(1), down(), nli(identity(0), "10.0.1.1"), victims, true));
            } else {
                join(&mut world, id, session(1), down(), nli(other(0xee), EVE));
            }
            world.send(2, SendMessage { mri: up(), ..text("key.") });
            world.run(secs(1));
            assert_eq!(written(&world, 1, id, "key."), 0);
            assert_eq!(world.payloads(0), ["key."]);
            assert_eq!(world.node(1).counters().flows_refused, 1);
            assert!(world.node(1).associations().iter().all(|entry| entry.association != id), "its first Confirm was refused");
        }
    }
}

/// The other side of it: G-128 as ever for a flow of one's own, and only for a whole address.
#[test]
fn a_host_may_be_the_peer_of_its_own_flow() {
    let mut world = World::chain();
    world.members[1].relays = false;
    let id = world.accept(1, "10.0.1.66:4000", eve());
    join(&mut world, id, session(3), with_source(EVE), nli(other(0xee), EVE));
    world.inject_on(1, id, &data(session(3), with_source(EVE)));
    assert_eq!(world.payloads(1), ["ask."]);
    let Mri::PathCoupled(mut network) = with_source(EVE) else { panic!("path-coupled") };
    network.source_prefix = 24;
    join(&mut world, id, session(4), Mri::PathCoupled(network), nli(other(0xee), EVE));
    assert_eq!(world.node(1).counters().flows_refused, 1);
    assert_eq!(world.node(1).routing_table().len(), 1);
}

/// G-092 at the querying node: a host that answers first is not the next node of a flow that does not end there.
#[test]
fn a_host_is_not_taken_as_the_next_node_downstream() {
    let mut world = World::chain();
    world.members[1].relays = false;
    // Everything is as usual, but the node in the middle is no router for the sender.
    world.members[1].credentials = credentials("eve", &["10.0.1.254", "10.0.2.254"]);
    world.send(0, text("ask."));
    world.run(secs(40));
    assert!(world.payloads(1).is_empty());
    assert!(!world.on_associations.iter().any(|(_, from, _)| *from == 0), "not even the Confirm");
    assert!(world.node(0).counters().flows_refused >= 1);
    assert_eq!(world.failures(0)[0].1, gist::api::SendError::NotAuthorised);
    assert_eq!(world.events(0), [NetworkEvent::NotAuthorised]);
}

/// G-097: the role is part of the database, so its change reaches flows of associations that stay.
#[test]
fn a_peer_that_loses_its_role_loses_the_flows_of_others() {
    let mut world = talking();
    let now = world.now;
    let hosts = authorised_peers().into_iter().map(|entry| ApdEntry { role: PeerRole::Host, ..entry }).collect();
    world.members[0].node.set_authorised_peers(hosts, now);
    world.request(
        0,
        Request::InvalidateRoutingState {
            nslp_id: NSLP,
            session: session(8),
            mri: down(),
            status: RoutingStatus::Tentative,
            urgent: false,
        },
    );
    assert_eq!(world.events(0), [NetworkEvent::NotAuthorised]);
    assert!(world.node(0).routing_table().is_empty());
    assert_eq!(world.node(0).associations().len(), 1, "it may still serve flows of its own");
}

/// G-254…G-258 (note 1 of the node table): downstream messages follow a Query along the flow and nothing else.
#[test]
fn an_upstream_query_places_nobody_downstream() {
    let mut world = talking();
    let from_eve = query(session(1), up(), nli(other(0xee), EVE));
    world.inject(1, Datagram { query_mode: true, ip_ttl: Some(255), ..direct("10.0.1.66:270", "10.0.1.1", &from_eve) });
    assert_eq!(world.node(1).counters().upstream_queries_refused, 1);
    assert_eq!(world.datagrams_of(1, MessageType::Response).len(), 1, "the sender's alone");
    world.send(1, text("go.."));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["go.."]);
}

/// §4.4.3: the identity of an association is the first one confirmed, and the application hears of one principal.
#[test]
fn an_association_has_one_name_and_one_principal() {
    let mut world = World::chain();
    world.members[1].relays = false;
    let id = world.accept(1, "10.0.1.66:4000", eve());
    for number in 1..=40 {
        let who = if number == 2 { identity(0) } else { other(number) };
        let mri = with_source(EVE);
        // So slowly that each Query is answered.
        world.run(Duration::from_millis(250));
        join(&mut world, id, session(100 + number), mri.clone(), nli(who, EVE));
        world.inject_on(1, id, &data(session(100 + number), mri));
    }
    let received = world.received(1);
    assert_eq!(received.len(), 1);
    assert_eq!((&received[0].peer, received[0].principal), (&other(1), Principal(eve().key_hash)));
    assert_eq!(world.node(1).counters().flows_refused, 39);
}

/// [`Principal`]: of a peer that has proved nothing, a name apart from every key's.
#[test]
fn an_unauthenticated_peer_has_a_principal_of_another_kind() {
    let plain = NslpId(7);
    let mut world = World::chain_with(|_, config| {
        config.registrations.push(Registration { offer: Vec::new(), ..Registration::secure(plain, None) });
    });
    world.members[1].relays = false;
    let attributes = gist::api::TransferAttributes::default();
    world.send(0, SendMessage { nslp_id: plain, attributes, ..text("open") });
    world.send(0, text("ask."));
    world.run(secs(1));
    let received = world.received(1);
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].peer, received[1].peer);
    let principals: Vec<_> = ["open", "ask."].map(|text| received.iter().find(|m| m.payload == text).unwrap().principal).into();
    assert_ne!(principals[0], principals[1]);
    assert_eq!(principals[1], Principal(world.members[0].credentials.key_hash));
    assert!(format!("{:?}", received[0]).contains("principal"));
}

/// Association rule 0u: MA-Hellos do not keep what has confirmed nothing, and one peer gets a share of those places only.
#[test]
fn associations_that_confirm_nothing_keep_nobody_out() {
    for (cap, at_once) in [(16, true), (4, false)] {
        let mut world = World::chain_with(|_, config| config.caps.unconfirmed_associations = cap);
        world.members[1].relays = false;
        let hello = message(Body::Hello(Hello { request: false, id: 0 }));
        let ids: Vec<_> = (0..16).map(|port| world.accept(1, &format!("10.0.1.66:{}", 4000 + port), eve())).collect();
        assert_eq!(world.node(1).associations().len(), 4);
        world.send(0, text("ask."));
        for _ in 0..12 {
            ids.iter().for_each(|id| world.inject_on(1, *id, &hello));
            world.run(secs(1));
            assert_eq!(world.payloads(1).is_empty(), !at_once);
        }
        world.send(0, text("more"));
        // At the latest with the next transmission of the Query, 15.5 s after the first.
        world.run(secs(4));
        assert_eq!(world.payloads(1), ["ask.", "more"]);
    }
}

/// [`gist::node::Caps`]: an eighth of the associations, at least 4, for one key.
#[test]
fn one_key_holds_a_share_of_the_associations() {
    let mut world = World::chain_with(|_, config| config.caps.associations = 16);
    world.members[1].relays = false;
    for number in 1..=16 {
        let id = world.accept(1, &format!("10.0.1.66:{}", 4000 + u16::from(number)), eve());
        join(&mut world, id, session(100 + number), with_source(EVE), nli(other(number), EVE));
    }
    assert_eq!(world.node(1).associations().len(), 4);
    world.send(0, text("ask."));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["ask."]);
}

/// [`gist::node::Caps`]: the same of the routing states, none valid for more than twice this node's own time.
#[test]
fn one_key_holds_a_share_of_the_routing_states_and_not_for_long() {
    let mut world = World::chain_with(|_, config| config.caps.routing_states = 32);
    world.members[1].relays = false;
    let id = world.accept(1, "10.0.1.66:4000", eve());
    let who = Nli { validity: secs(86_400), ..nli(other(1), EVE) };
    for number in 1..=40 {
        join(&mut world, id, session(100 + number), with_source(EVE), who.clone());
    }
    let table = world.node(1).routing_table();
    assert_eq!(table.len(), 4);
    assert!(table.iter().all(|entry| entry.valid_until.unwrap().saturating_duration_since(world.now) <= secs(60)));
    assert_eq!(world.node(1).counters().refused_when_full, 36);
    world.send(0, text("ask."));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["ask."]);
}

/// Note 4 of the querying table: without a certificate behind it a Response ends nothing, in a refresh or in Established.
/// Takes: querying 4, 4c, G-343.
#[test]
fn a_forged_response_breaks_nothing_that_works() {
    for own_peer in [false, true] {
        let mut world = talking();
        let before = world.node(0).routing_table().remove(0);
        let queries = world.datagrams_of(0, MessageType::Query).len();
        while world.datagrams_of(0, MessageType::Query).len() == queries {
            world.run(Duration::from_millis(10));
        }
        let (who, from) = if own_peer { (identity(1), "10.0.1.254") } else { (other(0xee), "10.0.1.77") };
        let forged = forged_response(&world, nli(who, from));
        for pause in [0, 100] {
            world.run(Duration::from_millis(pause));
            world.inject(0, direct(&format!("{from}:270"), "10.0.1.1", &forged));
        }
        world.run(secs(60));
        assert!(world.events(0).is_empty(), "{:?}", world.events(0));
        let after = world.node(0).routing_table().remove(0);
        assert_eq!((after.peer, after.association), (before.peer, before.association));
        world.send(0, text("more"));
        world.run(secs(1));
        assert_eq!(world.payloads(1), ["ask.", "more"]);
    }
}

/// The first handshake too: who answers last, or first, does not decide; who proves itself does.
#[test]
fn a_forged_response_does_not_stop_a_first_handshake() {
    for pause in [0, 3] {
        let mut world = World::chain();
        world.members[1].relays = false;
        world.connect_delay = Duration::from_millis(5);
        world.send(0, text("ask."));
        world.run(Duration::from_millis(pause));
        for number in 0..3 {
            let forged = forged_response(&world, nli(other(0xe0 + number), "10.0.1.77"));
            world.inject(0, direct("10.0.1.77:270", "10.0.1.1", &forged));
        }
        world.run(secs(1));
        assert_eq!(world.payloads(1), ["ask."]);
        world.run(secs(40));
        assert!(world.failures(0).is_empty() && world.events(0).is_empty());
    }
}

/// Note G-064 of the querying table.
#[test]
fn a_forged_endpoint_found_does_not_end_the_search() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.tap(|_, parcel| if matches!(parcel, Parcel::Datagram { to: 1, .. }) { Fate::Lose } else { Fate::Pass });
    world.send(0, text("ask."));
    let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    let header: [u8; 8] = query.to_bytes().unwrap()[..8].try_into().unwrap();
    let mut wrong = header;
    wrong[3] ^= 1;
    for (header, counted) in [(wrong, 0), (header, 1)] {
        let error = GistError { session: Some(session(1)), mri: Some(down()), ..GistError::new(ErrorCause::EndpointFound, header) };
        let error = message(Body::Error(ErrorBody { nat: None, nli: Some(nli(other(3), "172.16.9.9")), error }));
        world.inject(0, direct("172.16.9.9:270", "10.0.1.1", &error));
        assert_eq!(world.node(0).counters().endpoints_found, counted);
    }
    world.tap(|_, _| Fate::Pass);
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["ask."]);
    assert!(world.events(0).is_empty());
}

/// Note G-128 of the responding table: a second router cannot take over what a living one serves, with one cookie or many,
/// unless the application says so (`node_reroute`).
#[test]
fn another_router_takes_over_only_when_the_first_is_gone() {
    let mut world = asked(|_, config| {
        let pattern = IdentityPattern::DnsName("bypass.pbs.test".to_owned());
        config.authorised_peers.insert(0, ApdEntry { pattern, role: PeerRole::Router, allow: true });
    });
    let lifetime = Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) };
    world.request(0, lifetime);
    let owner = |world: &World| {
        let table = world.node(1).routing_table();
        table.iter().find(|entry| entry.side == Side::Responding).and_then(|entry| entry.association)
    };
    let before = owner(&world).unwrap();
    let id = world.accept(1, "10.0.1.66:4000", credentials("bypass", &[EVE]));
    join(&mut world, id, session(1), down(), nli(other(0xee), EVE));
    let (cookie, _) = cookie(&world);
    for _ in 0..5 {
        world.run(secs(1));
        world.inject_on(1, id, &confirm(session(1), down(), nli(other(0xee), EVE), cookie.clone(), true));
        assert_eq!(owner(&world), Some(before));
    }
    assert_eq!(world.node(1).counters().takeovers_refused, 6);
    world.run(secs(12));
    assert_eq!(owner(&world), Some(before), "the first one has answered");
    // What the second says meanwhile is heard, as of somebody who only claims to be the peer.
    world.inject_on(1, id, &data(session(1), down()));
    let heard = world.received(1).pop().unwrap();
    assert_eq!((heard.tentative, heard.peer), (true, other(0xee)));
    // Now it does not: the test that a claim causes finds out.
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { from: 0, .. } | Parcel::Association { from: 0, .. } => Fate::Lose,
        _ => Fate::Pass,
    });
    join(&mut world, id, session(1), down(), nli(other(0xee), EVE));
    assert_eq!(owner(&world), Some(before));
    world.run(secs(11));
    assert_eq!(owner(&world), Some(id), "the heir");
}

/// Notes 1 and 10 of the responding table: a Query alone, which anybody can write, refreshes nothing.
#[test]
fn a_forged_query_of_the_states_own_peer_changes_nothing() {
    let mut world = talking();
    let (_, _, genuine) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    let Body::Query(genuine) = genuine.body else { panic!("Query") };
    let before = world.node(1).routing_table();
    world.tap(|_, parcel| if matches!(parcel, Parcel::Datagram { from: 0, .. }) { Fate::Lose } else { Fate::Pass });
    let end = before[0].valid_until.unwrap();
    while world.now + secs(1) < end {
        let nli = Nli { ip_ttl: 255, validity: secs(86_400), ..genuine.nli.clone() };
        let forged = query(session(1), down(), nli);
        world.inject(1, Datagram { interface: 9, ip_ttl: Some(3), ..passing("10.0.1.1:270", &forged) });
        world.run(secs(1));
        assert_eq!(world.node(1).routing_table(), before);
    }
    world.run(secs(2));
    assert!(world.node(1).routing_table().is_empty());
}
