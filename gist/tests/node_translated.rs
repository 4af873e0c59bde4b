//! A GIST-aware NAT between two nodes (RFC 5971 §7.2.2, §7.2.3): it is no part of this crate, which is what talks through it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use bytes::Bytes;
use gist::api::{SendMessage, TransferAttributes};
use gist::node::{AssociationEvent, Datagram, NodeConfig, Side};
use gist::wire::{Body, Cookie, ErrorCause, Message, MessageType, Mri, NatTraversal, ObjectType, ObjectTypeFault};
use node_world::*;

/// What the sender is called outside.
const OUTSIDE: &str = "10.0.9.9";

/// The sender's flow as it is called outside.
fn outside(mri: &Mri) -> Mri {
    let Mri::PathCoupled(mut mri) = mri.clone() else { panic!("path-coupled") };
    (mri.source, mri.source_port) = (address(OUTSIDE), Some(61_000));
    Mri::PathCoupled(mri)
}

/// The NAT's part: what leaves in Q-mode is translated and told so; connections come from outside; what comes back is let in.
fn translate(parcel: &Parcel) -> Fate {
    match parcel {
        Parcel::Datagram { from: 0, to: 1, datagram } if datagram.query_mode => {
            let mut message = message_of(parcel).unwrap();
            let Body::Query(query) = &mut message.body else { return Fate::Pass };
            let translated = [ObjectType::MessageRoutingInformation, ObjectType::NetworkLayerInformation].map(ObjectType::number).to_vec();
            query.nat = Some(NatTraversal { original: query.mri.clone(), translated, opaque: vec![Bytes::from_static(b"note")] });
            query.mri = outside(&query.mri);
            query.nli.address = address(OUTSIDE);
            message.source_is_signalling = true;
            let source = format!("{OUTSIDE}:270").parse().unwrap();
            Fate::Change(Parcel::Datagram { from: 0, to: 1, datagram: Datagram { source, payload: encoded(&message), ..datagram.clone() } })
        }
        Parcel::Datagram { from: 0, to: 1, datagram } => {
            let source = format!("{OUTSIDE}:270").parse().unwrap();
            Fate::Change(Parcel::Datagram { from: 0, to: 1, datagram: Datagram { source, ..datagram.clone() } })
        }
        Parcel::Association { from: 0, to: 1, id, event: AssociationEvent::Accepted { credentials, .. } } => {
            let event =
                AssociationEvent::Accepted { peer_address: format!("{OUTSIDE}:49152").parse().unwrap(), credentials: credentials.clone() };
            Fate::Change(Parcel::Association { from: 0, to: 1, id: *id, event })
        }
        _ => Fate::Pass,
    }
}

fn behind_a_nat(change: impl Fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::chain_with(|number, config| {
        config.behind_nats = true;
        change(number, config);
    });
    world.members[1].relays = false;
    world.members[0].addresses.push(address(OUTSIDE));
    // Both addresses are the sender's by its certificate.
    world.members[0].credentials.addresses.push(address(OUTSIDE));
    world.tap(|_, parcel| translate(parcel));
    world
}

fn nat_of(message: &Message) -> Option<&NatTraversal> {
    match &message.body {
        Body::Response(response) => response.nat.as_ref(),
        Body::Error(body) => body.nat.as_ref(),
        _ => None,
    }
}

/// G-322, G-323, G-324, G-325, G-001: the Response has the NAT-Traversal object, the flow as it is called outside and the responder's own NLI; the
/// querying node takes it for the flow it has asked about; every later message has the inner name of the flow on the wire, and each application
/// hears its own side's.
#[test]
fn a_flow_has_a_name_on_each_side_of_a_nat() {
    let mut world = behind_a_nat(|_, _| {});
    world.send(0, text("down"));
    world.run(secs(1));
    let (_, _, message) = world.datagrams_of(1, MessageType::Response)[0].clone();
    assert_eq!(message.to_bytes().unwrap()[8..10], [0, 7], "the first object is NAT-Traversal");
    assert_eq!(nat_of(&message).unwrap().original, down());
    let Body::Response(response) = message.body else { panic!("Response") };
    assert_eq!(response.mri, outside(&up()));
    assert_eq!(response.nli.peer, identity(1));
    let received = world.received(1).remove(0);
    assert_eq!((&received.payload[..], &received.mri), (&b"down"[..], &outside(&down())));
    world.send(1, SendMessage { mri: outside(&up()), ..text("back") });
    world.run(secs(1));
    assert_eq!((world.payloads(0), world.received(0)[0].mri.clone()), (vec!["back".into()], up()));
    let mut mris = world.on_associations.iter().filter_map(|(_, _, message)| match &message.body {
        Body::Confirm(confirm) => Some(&confirm.mri),
        Body::Data(data) => Some(&data.mri),
        _ => None,
    });
    assert!(mris.all(|mri| [down(), up()].contains(mri)), "the inner name alone");
    let tables = [0, 1].map(|number| world.node(number).routing_table().remove(0));
    assert_eq!((tables[0].side, &tables[0].mri), (Side::Querying, &down()));
    assert_eq!((tables[1].side, &tables[1].mri), (Side::Responding, &outside(&up())));
    // Refreshed like any other, and nothing is left when it ends.
    world.run(secs(100));
    assert_eq!(world.node(1).routing_table().len(), 1);
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
}

/// G-320: messages in datagrams need addresses that no NAT changes: where one is on the way an application needs associations.
#[test]
fn messages_in_datagrams_do_not_cross_a_nat() {
    let mut world = behind_a_nat(|_, config| config.registrations[0].offer.clear());
    let plain = |payload, mri| SendMessage { attributes: TransferAttributes::default(), mri, ..text(payload) };
    world.send(0, plain("down", down()));
    world.run(secs(1));
    // The NAT leaves alone what is neither in Q-mode nor has its object: S=1 with an inner NLI.
    assert_eq!(world.node(1).counters().address_mismatch, 2, "Confirm and Data");
    assert!(world.payloads(1).is_empty());
}

/// G-326, G-332: the translation travels in the Responder-Cookie: a responder that has forgotten everything installs the same state, and a cookie whose
/// translation somebody has changed installs none.
#[test]
fn the_translation_comes_back_in_the_cookie() {
    let mut world = behind_a_nat(|_, _| {});
    world.send(0, text("down"));
    world.run(std::time::Duration::from_micros(2500));
    assert!(world.node(1).routing_table().is_empty());
    world.restart(1, |_, config| config.behind_nats = true);
    world.members[1].relays = false;
    world.run(secs(1));
    assert_eq!(world.received(1)[0].mri, outside(&down()));

    for place in [32, 47, 52, 60] {
        let mut world = behind_a_nat(|_, _| {});
        world.tap(move |_, parcel| {
            let Some(mut message) = message_of(parcel) else { return translate(parcel) };
            let (Parcel::Association { from: 0, to: 1, id, .. }, Body::Confirm(confirm)) = (parcel, &mut message.body) else {
                return translate(parcel);
            };
            let mut bytes = confirm.responder_cookie.as_ref().unwrap().as_bytes().to_vec();
            assert!(bytes.len() > 60);
            bytes[place] ^= 1;
            confirm.responder_cookie = Cookie::new(bytes);
            let event = AssociationEvent::Received(message.to_bytes().unwrap());
            Fate::Change(Parcel::Association { from: 0, to: 1, id: *id, event })
        });
        world.send(0, text("down"));
        world.run(std::time::Duration::from_millis(400));
        assert!(world.node(1).routing_table().is_empty(), "byte {place}");
    }
}

/// G-322, G-324: an Error about such a Query has the object first, and is taken for the flow by its inner name.
#[test]
fn an_error_about_a_translated_query_is_understood() {
    let mut world = behind_a_nat(|number, config| {
        if number == 1 {
            config.registrations[0].nslp_id = gist::wire::NslpId(99);
            config.role = gist::node::Role::Host;
        }
    });
    world.send(0, text("down"));
    world.run(std::time::Duration::from_millis(100));
    let (_, _, error) = world.datagrams_of(1, MessageType::Error)[0].clone();
    assert_eq!(error.to_bytes().unwrap()[8..10], [0, 7]);
    assert_eq!(nat_of(&error).unwrap().original, down());
    assert_eq!(world.node(0).counters().endpoints_found, 1);
}

/// G-321: what no NAT has translated, and any translation where that is not wanted, is refused with the object named.
#[test]
fn what_is_not_translated_is_refused() {
    let mut world = behind_a_nat(|number, config| config.behind_nats = number == 0);
    world.send(0, text("down"));
    world.run(secs(1));
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::ObjectType(ObjectTypeFault::Untranslated)));
    assert!(world.node(1).routing_table().is_empty());
}

/// G-327: no node of this crate is a NAT, so none has to translate flows: a router changes no flow and adds nothing to what passes it.
#[test]
fn a_router_translates_nothing() {
    let mut plain = World::chain();
    plain.members[1].node.set_peering(NSLP, false);
    plain.send(0, text("down"));
    plain.run(secs(1));
    for (_, _, message) in plain.datagrams_of(1, MessageType::Query) {
        assert!(matches!(&message.body, Body::Query(query) if query.nat.is_none() && query.mri == down()));
    }
}
