//! Names and addresses that are this node's own, and names that are no application's (RFC 5971 §3.5, A.3.1.3; G-158, G-346).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use gist::api::{PathId, TransferAttributes};
use gist::node::{Datagram, NodeConfig, Registration};
use gist::wire::{Body, Data, Message, MessageType, Nli, NslpId, PeerIdentity};
use node_world::*;

fn named(names: [&'static str; 3]) -> World {
    let mut world = World::chain_with(move |number, config| config.identity = PeerIdentity::new(names[number].as_bytes()).unwrap());
    world.members[1].relays = false;
    world
}

/// A node's name may begin with another's, as texts of addresses do: neither takes the other's messages for its own come back.
#[test]
fn a_name_that_begins_with_this_nodes_is_anothers() {
    for (short, long) in [("10.0.0.1", "10.0.0.10"), ("10.0.0.1", "10.0.0.1\u{8}"), ("10.0.0.1", "10.0.0.123")] {
        for names in [[short, long, "receiver"], [long, short, "receiver"]] {
            let mut world = named(names);
            world.send(0, text("down"));
            world.run(secs(1));
            assert_eq!(world.payloads(1), ["down"], "{names:?}");
        }
    }
}

/// What this node calls itself on another way out is its own all the same.
#[test]
fn a_query_of_another_way_that_comes_back_is_ones_own() {
    for path in [PathId(1), PathId::GREATEST] {
        let mut world = named(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        world.send(0, gist::api::SendMessage { path, ..text("down") });
        let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
        let before = world.datagrams.len();
        world.inject(0, passing("10.0.1.1:270", &query));
        assert_eq!((world.node(0).counters().stray, world.datagrams.len()), (1, before));
    }
}

/// G-346: even if somebody registers it.
#[test]
fn nslpid_0_is_not_served_if_it_is_registered() {
    let registered = |_: usize, config: &mut NodeConfig| {
        config.registrations = [NslpId::NONE, NSLP]
            .map(|nslp_id| Registration { unvalidated_data: true, offer: Vec::new(), ..Registration::secure(nslp_id, None) })
            .to_vec();
    };
    let nli = Nli { ip_ttl: 64, validity: secs(30), peer: identity(0), address: address("10.0.1.1") };
    for (nslp_id, served) in [(NSLP, 1), (NslpId::NONE, 0)] {
        let mut world = World::chain_with(registered);
        world.send(0, gist::api::SendMessage { attributes: Default::default(), ..text("down") });
        let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
        world.inject(1, passing("10.0.1.1:270", &Message { nslp_id, ..query.clone() }));
        assert_eq!(world.datagrams_of(1, MessageType::Response).len(), served);
        let payload = "data".into();
        let data =
            Data { nat: None, mri: down(), session: session(1), nli: Some(nli.clone()), payload, explicit: false, context_free: true };
        let data = Message { hop_count: 5, nslp_id, source_is_signalling: false, body: Body::Data(data), unknown: Vec::new() };
        world.inject(1, passing("10.0.1.1:270", &data));
        assert_eq!(world.received(1).len(), served);
    }
}

/// The router's other address on the receiver's link.
const OTHER: &str = "10.0.2.250";

/// The router asks, nobody has heard its first Query or the answer to it, which is kept, and then it leaves by its other address.
fn moving(datagrams: bool) -> (World, Datagram) {
    let mut world = World::chain_with(move |number, config| {
        if number == 1 {
            config.local_addresses.push(address(OTHER));
        }
        if datagrams {
            config.registrations[0].offer.clear();
        }
    });
    world.members[1].credentials.addresses.push(address(OTHER));
    let kept: Rc<RefCell<Option<Datagram>>> = Rc::default();
    let first = Rc::clone(&kept);
    world.tap(move |_, parcel| match parcel {
        Parcel::Datagram { from: 2, datagram, .. } if first.borrow().is_none() => {
            *first.borrow_mut() = Some(datagram.clone());
            Fate::Lose
        }
        _ => Fate::Pass,
    });
    let attributes = if datagrams { TransferAttributes::default() } else { TransferAttributes::RELIABLE_AND_SECURE };
    world.send(1, gist::api::SendMessage { attributes, ..text("down") });
    world.run(Duration::from_millis(100));
    world.leaves_by(1, "10.0.2.0/24", OTHER);
    let kept = kept.borrow().clone().expect("the first Response");
    (world, kept)
}

/// Which of its addresses the router has named in messages of a kind.
fn named_in(world: &World, kind: MessageType) -> Vec<IpAddr> {
    let all = world.datagrams_of(1, kind).into_iter().map(|(_, _, message)| message);
    let on_associations = world.on_associations.iter().filter(|(_, from, _)| *from == 1).map(|(_, _, message)| message.clone());
    let all = all.chain(on_associations.filter(|message| message.message_type() == kind));
    all.map(|message| message.nli().unwrap().address).collect()
}

/// G-158, G-194, G-251: a handshake goes where the flow goes now, not where it went when the first Query left: what answers to an address
/// that packets do not come from any more may find nobody there.
#[test]
fn a_query_that_is_repeated_follows_the_route_of_the_moment() {
    for datagrams in [false, true] {
        let (mut world, _) = moving(datagrams);
        world.run(secs(1));
        assert_eq!(named_in(&world, MessageType::Query), [address("10.0.2.254"), address(OTHER)]);
        assert_eq!(named_in(&world, MessageType::Confirm), [address(OTHER)]);
        assert_eq!(world.payloads(2), ["down"], "datagrams: {datagrams}");
    }
}

/// G-195: a reply to any of the transmissions is good, so the Confirm names what that one has named: the Responder-Cookie is bound to it.
#[test]
fn an_answer_to_the_query_of_the_former_route_is_still_good() {
    for datagrams in [false, true] {
        let (mut world, first) = moving(datagrams);
        let nothing_passes = world.blackout.clone();
        let shut = nothing_passes.clone();
        world.tap(move |_, _| if shut.get() { Fate::Lose } else { Fate::Pass });
        nothing_passes.set(true);
        world.run(secs(1));
        nothing_passes.set(false);
        assert_eq!(named_in(&world, MessageType::Query), [address("10.0.2.254"), address(OTHER)]);
        world.inject(1, first);
        world.run(Duration::from_millis(400));
        assert_eq!(named_in(&world, MessageType::Confirm), [address("10.0.2.254")]);
        assert_eq!(world.payloads(2), ["down"], "datagrams: {datagrams}");
        let counters = world.node(2).counters();
        assert_eq!((counters.bad_responder_cookies, counters.flows_refused), (0, 0));
    }
}

/// G-194, G-251: once the answer to a later Query is taken, what answers one that went by the former route leads back nowhere, however
/// often somebody repeats it.
#[test]
fn a_late_answer_to_the_query_of_the_former_route_does_not_lead_back() {
    for datagrams in [false, true] {
        let (mut world, first) = moving(datagrams);
        world.run(secs(1));
        assert_eq!(named_in(&world, MessageType::Confirm), [address(OTHER)]);
        let refused = world.node(1).counters().bad_query_cookies;
        for _ in 0..3 {
            world.inject(1, first.clone());
            world.run(Duration::from_millis(100));
        }
        world.send(1, gist::api::SendMessage { attributes: TransferAttributes::default(), ..text("more") });
        world.run(Duration::from_millis(100));
        assert_eq!(named_in(&world, MessageType::Confirm), [address(OTHER)]);
        assert_eq!(world.node(1).counters().bad_query_cookies, refused + 3);
        assert_eq!(world.payloads(2), ["down", "more"], "datagrams: {datagrams}");
    }
}

/// Querying rule 4 in Awaiting Refresh, G-105: the peer answers over another association than the state's, made since by the node's other address:
/// what waits for the old one goes over the new one.
#[test]
fn what_waits_goes_over_the_association_that_the_peer_answers_on() {
    let mut world = World::chain_with(|number, config| {
        if number == 1 {
            config.local_addresses.push(address(OTHER));
            config.caps.unwritten_bytes = 1;
        }
    });
    world.members[1].credentials.addresses.push(address(OTHER));
    world.members[1].relays = false;
    world.send(1, text("one."));
    world.run(secs(1));
    world.leaves_by(1, "10.0.2.0/24", OTHER);
    world.send(1, text_for(session(2), b"two."));
    world.run(secs(1));
    assert_eq!(world.node(1).associations().len(), 2);
    let of_first = |world: &World| {
        let table = world.node(1).routing_table();
        let entry = table.into_iter().find(|entry| entry.session == session(1)).unwrap();
        (entry.state, entry.association, entry.queued)
    };
    let (_, old, _) = of_first(&world);
    world.stall(1, true);
    for payload in ["gone", "wait", "last"] {
        world.send(1, text(payload));
    }
    let (mri, status) = (down(), gist::api::RoutingStatus::Tentative);
    world.request(1, gist::api::Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri, status, urgent: true });
    assert_eq!(of_first(&world), ("Awaiting Refresh".to_owned(), old, 2));
    world.run(Duration::from_millis(10));
    let (state, new, queued) = of_first(&world);
    assert_eq!((state.as_str(), queued, world.connects), ("Established", 2, 2));
    assert_ne!(new, old);
    world.stall(1, false);
    world.run(Duration::from_millis(100));
    assert_eq!(world.payloads(2), ["one.", "two.", "gone", "wait", "last"]);
}
