//! Messages of applications that a router does not serve, on their way past it (RFC 5971 §4.3.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use bytes::Bytes;
use gist::api::SendMessage;
use gist::node::{Datagram, Output, Registration, Transmit};
use gist::wire::{Body, ErrorCause, ErrorInfo, Message, MessageType, Mri, MriFault, NslpId};
use node_world::*;

/// An application that the ends serve and the router does not.
const FOREIGN: NslpId = NslpId(32710);

fn foreign_ends() -> World {
    World::chain_with(|number, config| {
        if number != 1 {
            config.registrations.push(Registration::secure(FOREIGN, Some(4711)));
        }
    })
}

fn foreign(mri: Mri) -> SendMessage {
    SendMessage { nslp_id: FOREIGN, mri, ..text("past") }
}

/// The sender's first Query for a flow.
fn query(mri: Mri) -> Message {
    let mut world = foreign_ends();
    world.send(0, foreign(mri));
    world.datagrams_of(0, MessageType::Query)[0].2.clone()
}

fn with(change: impl FnOnce(&mut gist::wire::PathCoupled)) -> Mri {
    let Mri::PathCoupled(mut mri) = down() else { panic!("path-coupled") };
    change(&mut mri);
    Mri::PathCoupled(mri)
}

/// What the router does with a packet on its way past: passes it on, or says why not.
fn passed(datagram: Datagram) -> Result<Transmit, (ErrorCause, Vec<ErrorInfo>)> {
    let (mut world, now) = (World::chain(), at_millis(0));
    let router = &mut world.members[1].node;
    router.handle_datagram(datagram, now);
    let Some(Output::Transmit(transmit)) = router.poll_output() else { panic!("one datagram") };
    assert_eq!((router.poll_output(), router.poll_timeout()), (None, None));
    assert!(router.routing_table().is_empty());
    if matches!(transmit, Transmit::QueryMode { .. }) {
        assert_eq!(router.counters().passed_by, 1);
        return Ok(transmit);
    }
    assert_eq!(router.counters().not_passed_by, 1);
    let Body::Error(body) = message_in(&transmit).body else { panic!("an Error") };
    Err((body.error.cause().unwrap(), body.error.info))
}

fn towards(destination: &str, message: &Message) -> Datagram {
    Datagram { query_mode: true, router_alert: Some(4711), ..direct("10.0.1.1:270", destination, message) }
}

/// G-065, G-066, G-040, G-001: the two ends become peers past the router, which changes nothing but TTL and GIST hop count, of a session it
/// does not look at.
#[test]
fn a_router_that_does_not_serve_the_application_is_passed_by() {
    let mut world = foreign_ends();
    world.send(0, foreign(down()));
    world.run(secs(1));
    assert_eq!(world.received(2)[0].peer, identity(0));
    assert_eq!(world.received(2)[0].ip_distance, Some(1), "one router between");
    assert_eq!(world.received(2)[0].hop_count, 63, "messages over the association do not pass it");
    assert!(world.node(1).routing_table().is_empty() && world.node(1).associations().is_empty());
    assert_eq!(world.node(1).counters().passed_by, 1);
    let [before, after] = [0, 1].map(|number| world.datagrams_of(number, MessageType::Query)[0].1.clone());
    let (
        Transmit::QueryMode { source, destination, source_port, ip_ttl, ds_field, flow_label, router_alert, path, payload },
        Transmit::QueryMode {
            source: source_2,
            destination: destination_2,
            source_port: port_2,
            ip_ttl: ttl_2,
            ds_field: ds_2,
            flow_label: label_2,
            router_alert: alert_2,
            path: path_2,
            payload: payload_2,
        },
    ) = (before, after)
    else {
        panic!("Q-mode")
    };
    assert_eq!((source, destination, source_port), (source_2, destination_2, port_2));
    assert_eq!((ds_field, flow_label, router_alert, path), (ds_2, label_2, alert_2, path_2));
    assert_eq!(ttl_2, ip_ttl - 1);
    let changed: Vec<_> = (0..payload.len()).filter(|at| payload[*at] != payload_2[*at]).collect();
    assert_eq!((payload.len(), changed), (payload_2.len(), vec![5]));
    assert_eq!(payload_2[5], payload[5] - 1);
}

/// G-070, G-376: a hop count that is, or becomes, 0 ends the way, and the sender is told.
#[test]
fn a_message_whose_hops_are_used_up_is_answered_and_not_passed_on() {
    for hop_count in [0, 1] {
        let message = Message { hop_count, ..query(down()) };
        assert_eq!(passed(towards("10.0.2.1", &message)), Err((ErrorCause::HopLimitExceeded, vec![])));
    }
    assert!(passed(towards("10.0.2.1", &Message { hop_count: 2, ..query(down()) })).is_ok());
}

/// G-068, G-382: what the next link cannot take whole is answered with that link's MTU.
#[test]
fn a_message_too_large_for_the_next_link_is_answered_with_its_mtu() {
    let narrow = query(with(|mri| mri.destination = address("10.0.5.1")));
    let length = 24 + 8 + 4 + narrow.to_bytes().unwrap().len();
    assert!(length > usize::from(NARROW), "{length}");
    assert_eq!(passed(towards("10.0.5.1", &narrow)), Err((ErrorCause::MessageTooLarge, vec![ErrorInfo::LinkMtu(NARROW)])));
    assert!(passed(towards("10.0.2.1", &query(down()))).is_ok());
}

/// G-072: a flow to more destinations than one way leads to.
#[test]
fn a_flow_without_one_single_way_is_answered() {
    let Err((cause, info)) = passed(towards("10.0.2.1", &query(with(|mri| mri.destination_prefix = 8)))) else { panic!("refused") };
    assert_eq!(cause, ErrorCause::MriValidation(MriFault::TooWild));
    assert!(matches!(&info[..], [ErrorInfo::ObjectValue(_)]), "the MRI goes with it (G-386)");
    assert!(passed(towards("10.0.2.1", &query(with(|mri| mri.destination_prefix = 24)))).is_ok());
}

/// The same message with some bytes behind the magic number and the common header changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Datagram {
    let mut datagram = towards("10.0.2.1", &query(down()));
    let mut bytes = datagram.payload.to_vec();
    change(&mut bytes);
    datagram.payload = Bytes::from(bytes);
    datagram
}

/// G-067, G-188: what an IP header says of the flow's way stays with the packet: destination, Diffserv field and flow label. Of options it has the
/// router alert that it came with, and none that routes.
#[test]
fn what_is_passed_on_goes_the_flows_way_as_far_as_a_header_says_it() {
    let six = with(|mri| {
        (mri.source, mri.destination) = (address("2001:db8::1"), address("2001:db8::2"));
        (mri.source_prefix, mri.destination_prefix) = (128, 128);
        (mri.ds_field, mri.flow_label) = (Some(10), Some(0xabcde));
    });
    let mut message = query(down());
    for (mri, ds, label) in [(down(), 0, 0), (with(|mri| mri.ds_field = Some(46)), 46 << 2, 0), (six, 10 << 2, 0xabcde)] {
        let Body::Query(body) = &mut message.body else { panic!("Query") };
        body.mri = mri.clone();
        let datagram = towards(&mri.destination().to_string(), &message);
        let Transmit::QueryMode { destination, ds_field, flow_label, router_alert, .. } = passed(datagram).unwrap() else {
            panic!("Q-mode")
        };
        assert_eq!((destination, ds_field, flow_label, router_alert), (mri.destination(), ds, label, Some(4711)));
    }
}

/// G-073: of a method that the router does not know it cannot judge the flow, and passes it on.
#[test]
fn a_method_that_is_not_known_is_passed_on() {
    let unknown = changed(|bytes| bytes[16] = 120);
    let Ok(Transmit::QueryMode { payload, .. }) = passed(unknown.clone()) else { panic!("passed on") };
    assert_eq!(payload[16..], unknown.payload[16..]);
}

/// G-074: what comes behind the flow makes no difference, nor do objects and lengths that no message could have.
#[test]
fn nothing_behind_the_flow_is_looked_at() {
    let mri_end = 4 + 8 + 4 + 20;
    for garbage in [0x00, 0x5a, 0xff] {
        let datagram = changed(|bytes| bytes[mri_end..].fill(garbage));
        let Ok(Transmit::QueryMode { payload, .. }) = passed(datagram.clone()) else { panic!("passed on") };
        assert_eq!(payload[6..], datagram.payload[6..]);
    }
    assert!(passed(changed(|bytes| bytes.truncate(mri_end))).is_ok());
}

/// §4.3.4 cases 4 and 5, and what is no Q-mode message: only what travels is passed on.
#[test]
fn what_does_not_travel_in_query_mode_is_not_passed_on() {
    for kind in [1, 2, 4, 5] {
        let mut world = World::chain();
        let now = world.now;
        world.members[1].node.handle_datagram(changed(|bytes| bytes[10] = kind), now);
        assert_eq!(world.node(1).counters().passed_by, 0, "type {kind}");
    }
    let mut world = World::chain();
    world.inject(1, direct("10.0.1.1:270", "10.0.1.254", &query(down())));
    assert_eq!(world.node(1).counters().passed_by, 0);
    // An end system passes nothing on.
    let mut world = World::chain();
    world.inject(2, towards("10.0.2.1", &query(down())));
    assert_eq!(world.errors_of(2)[0].cause(), Some(ErrorCause::EndpointFound));
}
