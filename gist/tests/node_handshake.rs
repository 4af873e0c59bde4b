//! The handshake along a chain of three nodes (RFC 5971 §4.4.1, §5.3.3, §5.7.1, §6.2, §6.3).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use gist::api::SendError;
use gist::node::{Side, Transmit};
use gist::wire::{Body, Cookie, MessageType, Mri, Profile, StackProposal};
use node_world::*;

/// G-036, G-076, G-271, G-286: node rule 5; querying 0, 4, 4c, 5, 7; responding 2, 3, 4; association 0, 5, 6, 1, 2. G-086,
/// G-144, G-235, G-267…G-275.
#[test]
fn messages_cross_the_chain_in_both_directions() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down"]);
    assert_eq!(world.payloads(2), ["down"]);

    let mut answer = text("back");
    answer.mri = up();
    world.send(2, answer);
    world.run(secs(1));
    assert_eq!(world.payloads(0), ["back"]);
    assert_eq!(world.payloads(1), ["down", "back"]);

    for message in world.received(0).into_iter().chain(world.received(2)) {
        assert!(message.authenticated);
        assert!(message.association.is_some());
    }
    assert_eq!(world.received(2)[0].peer, identity(1));
    assert_eq!(world.received(0)[0].peer, identity(1));
    // The router answers upstream and asks downstream for the same session.
    let sides: Vec<_> = world.node(1).routing_table().iter().map(|entry| (entry.side, entry.state.clone())).collect();
    assert_eq!(sides, [(Side::Querying, "Established".to_owned()), (Side::Responding, "Established".to_owned())]);
    assert_eq!(world.connects, 2);
    assert!(world.members.iter().all(|member| member.node.counters().events_refused == 0));
}

/// G-075, G-250…G-252, G-155, G-158, G-160, G-172, G-182, G-137…G-140: the first Query at the sender and at the router.
#[test]
fn a_query_goes_the_way_of_the_flow() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    for (number, own, is_signalling) in [(0, "10.0.1.1", true), (1, "10.0.2.254", false)] {
        let (_, transmit, message) = world.datagrams_of(number, MessageType::Query)[0].clone();
        let Transmit::QueryMode { source, destination, source_port, ip_ttl, router_alert, .. } = transmit else { panic!("Q-mode") };
        assert_eq!((source, destination), (address("10.0.1.1"), address("10.0.2.1")));
        assert_eq!((source_port, router_alert), (270, Some(65503)));
        assert_eq!(message.source_is_signalling, is_signalling);
        assert_eq!(message.nslp_id, NSLP);
        let Body::Query(query) = message.body else { panic!("Query") };
        assert_eq!((&query.mri, query.session), (&down(), session(1)));
        assert_eq!((&query.nli.peer, query.nli.address), (&identity(number), address(own)));
        assert_eq!(query.nli.ip_ttl, ip_ttl);
        assert_eq!(query.nli.validity, secs(30));
        assert_eq!(query.cookie.as_bytes().len(), 16);
        let stack = query.stack.unwrap();
        assert_eq!(stack.proposal, StackProposal { profiles: vec![Profile::tls_over_tcp()] });
        assert!(stack.is_consistent());
        assert_eq!(query.payload, None);
    }
}

/// G-252, X-98: Diffserv field and flow label are the flow's.
#[test]
fn a_query_looks_like_the_flow_to_the_routers() {
    let mut world = World::chain();
    world.members[0].node.set_local_addresses(vec![address("fd00::1")]);
    let Mri::PathCoupled(mut mri) = down() else { panic!("path-coupled") };
    (mri.source, mri.destination) = (address("fd00::1"), address("fd00::2"));
    (mri.source_prefix, mri.destination_prefix) = (128, 128);
    (mri.ds_field, mri.flow_label) = (Some(46), Some(0xabcde));
    let mut message = text("down");
    message.mri = Mri::PathCoupled(mri);
    world.send(0, message);
    let (_, transmit, message) = world.datagrams_of(0, MessageType::Query)[0].clone();
    let Transmit::QueryMode { source, ds_field, flow_label, .. } = transmit else { panic!("Q-mode") };
    assert_eq!((source, ds_field, flow_label), (address("fd00::1"), 46 << 2, 0xabcde));
    assert_eq!(message.nli().unwrap().address, address("fd00::1"), "G-159");
}

/// G-077, G-078, G-142, G-162, G-165, G-169; G-084, G-085, G-145, G-146 for the Confirm.
#[test]
fn response_and_confirm_carry_what_the_rfc_asks() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let (_, transmit, message) = world.datagrams_of(1, MessageType::Response)[0].clone();
    let Transmit::Normal { destination, source, .. } = transmit else { panic!("normal") };
    assert_eq!(destination, "10.0.1.1:270".parse().unwrap());
    assert_eq!(source, Some(address("10.0.1.254")));
    assert!(message.source_is_signalling);
    let Body::Response(response) = message.body else { panic!("Response") };
    assert_eq!(response.mri, up());
    let Body::Query(query) = &world.datagrams_of(0, MessageType::Query)[0].2.body else { panic!("Query") };
    assert_eq!(response.query_cookie, query.cookie, "G-077: as it was asked");
    assert_eq!((&response.nli.peer, response.nli.address), (&identity(1), address("10.0.1.254")), "G-077: who has answered");
    assert!(response.confirm_requested);
    let responder = response.responder.unwrap();
    let stack = responder.stack.unwrap();

    let first = world.on_associations.iter().find(|(_, from, _)| *from == 0).unwrap().2.clone();
    assert!(first.source_is_signalling);
    let Body::Confirm(confirm) = first.body else { panic!("the Confirm is the first message") };
    assert_eq!(confirm.mri, down());
    assert_eq!(confirm.responder_cookie, Some(responder.cookie));
    assert_eq!(confirm.proposal, Some(stack.proposal));
    let configuration = confirm.configuration.unwrap();
    assert_eq!((configuration.hold_time, configuration.options.len()), (secs(30), 0));
    // Data in C-mode has no NLI (G-148).
    let data = world.on_associations.iter().find_map(|(_, _, m)| if let Body::Data(data) = &m.body { Some(data) } else { None });
    assert_eq!(data.unwrap().nli, None);
}

/// G-079, G-088 case 2, G-201, G-340: answering Queries costs the responder no memory and no timer.
#[test]
fn the_responder_keeps_nothing_before_the_confirm() {
    let mut world = World::chain();
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { to: 0, .. } => Fate::Lose,
        _ => Fate::Pass,
    });
    let before = world.node(1).clone();
    world.send(0, text("down"));
    world.run(secs(20));
    let router = world.node(1);
    assert_eq!(router.counters().responses_sent, 6);
    assert!(router.routing_table().is_empty());
    assert!(router.associations().is_empty());
    assert_eq!(router.poll_timeout(), None);
    // No table, no queue, and no place at all where a session or a cookie could be: two nodes that have answered differ in
    // counters, levels of buckets and rolled secrets only.
    let (before, after) = (format!("{before:?}"), format!("{router:?}"));
    for field in ["querying", "responding", "associations", "tasks", "outputs", "timers", "declining", "queued_bytes"] {
        assert_eq!(field_of(&after, field), field_of(&before, field), "{field}");
    }
    let parts = ["Querying", "Responding", "SessionId", "Cookie(", "PeerIdentity"].map(|word| after.matches(word).count());
    assert_eq!(parts, ["Querying", "Responding", "SessionId", "Cookie(", "PeerIdentity"].map(|word| before.matches(word).count()));
}

/// G-189, G-272, G-274, G-190…G-192, G-194, G-251; querying rule 2 with and without nresp_reached.
#[test]
fn an_unanswered_query_is_repeated_with_doubling_intervals_until_t2() {
    let mut world = World::chain();
    world.members[1].alive = false;
    world.send(0, text("down"));
    assert_eq!(world.node(0).routing_table()[0].state, "Awaiting Response");
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), 1, "sent at birth");
    world.run(secs(60));
    let queries = world.datagrams_of(0, MessageType::Query);
    let instants: Vec<_> = queries.iter().map(|(at, _, _)| *at).collect();
    assert_eq!(instants, [0, 500, 1500, 3500, 7500, 15_500, 31_500].map(at_millis));
    let mut cookies: Vec<Cookie> = queries.iter().map(|(_, _, message)| query_cookie(message)).collect();
    cookies.sort();
    cookies.dedup();
    assert_eq!(cookies.len(), 7);
    assert_eq!(world.failures(0), [(at_millis(32_000), SendError::NoResponse)]);
    assert!(world.node(0).routing_table().is_empty());
    assert_eq!(world.node(0).poll_timeout(), None);
}

/// G-251: at the router every second transmission carries its own address.
#[test]
fn retransmissions_alternate_between_flow_source_and_signalling_address() {
    let mut world = World::chain();
    world.members[2].alive = false;
    world.send(0, text("down"));
    world.run(secs(5));
    let sources: Vec<_> = world
        .datagrams_of(1, MessageType::Query)
        .into_iter()
        .map(|(_, transmit, message)| match transmit {
            Transmit::QueryMode { source, .. } => (source.to_string(), message.source_is_signalling),
            Transmit::Normal { .. } => panic!("Q-mode"),
        })
        .collect();
    let (flow, own) = (("10.0.1.1".to_owned(), false), ("10.0.2.254".to_owned(), true));
    assert_eq!(sources, [flow.clone(), own.clone(), flow, own]);
}

/// G-193, X-96: the application's timeout bounds the process, and the next message starts anew at T1.
#[test]
fn a_message_with_a_timeout_ends_the_process_in_time() {
    let mut world = World::chain();
    world.members[1].alive = false;
    let mut message = text("down");
    message.timeout = Some(secs(1));
    world.send(0, message.clone());
    world.run(secs(3));
    assert_eq!(world.failures(0), [(at_millis(1000), SendError::NoResponse)]);
    world.send(0, message);
    world.run(secs(3));
    let instants: Vec<_> = world.datagrams_of(0, MessageType::Query).iter().map(|(at, _, _)| *at).collect();
    assert_eq!(instants, [0, 500, 3000, 3500].map(at_millis));
}

/// Querying B.1: of two messages each has its own bound.
#[test]
fn each_waiting_message_has_its_own_bound() {
    let mut world = World::chain();
    world.members[1].alive = false;
    let [mut short, mut long] = [text("shrt"), text("long")];
    (short.timeout, long.timeout) = (Some(secs(1)), Some(secs(4)));
    world.send(0, short);
    world.send(0, long);
    world.run(secs(10));
    assert_eq!(world.failures(0), [(at_millis(1000), SendError::TimedOut), (at_millis(4000), SendError::NoResponse)]);
}

/// G-195, G-196: the reply to the first Query arrives after the third.
#[test]
fn a_reply_to_any_transmission_is_accepted() {
    let mut world = World::chain();
    let held: Rc<RefCell<Vec<Parcel>>> = Rc::default();
    let keep = Rc::clone(&held);
    world.tap(move |_, parcel| match parcel {
        Parcel::Datagram { to: 0, .. } => {
            keep.borrow_mut().push(parcel.clone());
            Fate::Lose
        }
        _ => Fate::Pass,
    });
    world.send(0, text("down"));
    world.run(secs(2));
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), 3);
    world.tap(|_, _| Fate::Pass);
    let first = held.borrow()[0].clone();
    let Parcel::Datagram { datagram, .. } = first else { panic!("datagram") };
    world.inject(0, datagram);
    world.run(secs(3));
    assert_eq!(world.payloads(2), ["down"]);
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), 3);
}

/// Note 4 of the querying table: the peer whose association is open answers over it, so a second Response in a
/// datagram that names it is looked at and moves nothing.
#[test]
fn a_second_response_from_the_states_own_peer_harms_nothing() {
    let mut world = World::chain();
    let held: Rc<RefCell<Vec<Parcel>>> = Rc::default();
    let keep = Rc::clone(&held);
    world.tap(move |_, parcel| {
        if matches!(parcel, Parcel::Datagram { to: 0, .. }) {
            keep.borrow_mut().push(parcel.clone());
        }
        Fate::Pass
    });
    world.send(0, text("down"));
    world.run(secs(1));
    let before = world.node(1).routing_table();
    let Parcel::Datagram { datagram, .. } = held.borrow()[0].clone() else { panic!("datagram") };
    world.inject(0, datagram);
    world.run(secs(1));
    let confirms = world.on_associations.iter().filter(|(_, from, m)| *from == 0 && m.message_type() == MessageType::Confirm);
    assert_eq!(confirms.count(), 1);
    assert_eq!(world.connects, 2);
    assert_eq!(world.node(1).routing_table().len(), before.len());
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
}

/// G-087: a Response with a made-up Query-Cookie leaves the table as it is.
#[test]
fn a_response_with_a_wrong_cookie_changes_nothing() {
    let mut world = World::chain();
    world.tap(|_, parcel| {
        let Some(mut message) = message_of(parcel) else { return Fate::Pass };
        let (Parcel::Datagram { from, to: 0, datagram }, Body::Response(response)) = (parcel, &mut message.body) else { return Fate::Pass };
        response.query_cookie = Cookie::new(vec![0x11; 16]).unwrap();
        let datagram = gist::node::Datagram { payload: encoded(&message), ..datagram.clone() };
        Fate::Change(Parcel::Datagram { from: *from, to: 0, datagram })
    });
    world.send(0, text("down"));
    world.run(secs(2));
    assert_eq!(world.connects, 0);
    let table = world.node(0).routing_table();
    assert_eq!((table[0].state.as_str(), &table[0].peer), ("Awaiting Response", &None));
    assert_eq!(world.node(0).counters().bad_query_cookies, 3);
    assert_eq!(world.node(0).counters().errors_sent, 0);
}

/// G-230, G-231, G-232, G-337; node rule 3 with a bad cookie; association rule G-231: no state, no association, no answer.
#[test]
fn a_confirm_with_a_wrong_cookie_installs_nothing_and_costs_the_new_association() {
    let mut world = World::chain();
    world.tap(change_confirm(|confirm| confirm.responder_cookie = Some(Cookie::new(vec![0x22; 32]).unwrap())));
    world.send(0, text("down"));
    world.run(Duration::from_millis(400));
    let router = world.node(1);
    assert!(router.routing_table().is_empty());
    assert!(router.associations().is_empty());
    assert_eq!(router.counters().stale_responder_cookies, 1);
    assert_eq!(router.counters().cookie_macs, 0, "G-334");
    assert!(world.errors_of(1).is_empty());
}

/// G-230, §8.6: the proposal echoed is not the one sent.
#[test]
fn a_confirm_with_another_proposal_installs_nothing() {
    let mut world = World::chain();
    world.tap(change_confirm(|confirm| confirm.proposal = Some(StackProposal { profiles: vec![Profile::tcp()] })));
    world.send(0, text("down"));
    world.run(Duration::from_millis(400));
    assert!(world.node(1).routing_table().is_empty());
    assert_eq!(world.node(1).counters().altered_proposals, 1);
    assert!(world.payloads(1).is_empty());
}

/// G-343, querying rule G-343: somebody takes TLS out of the Response.
#[test]
fn a_response_stripped_of_tls_is_not_taken() {
    let mut world = World::chain();
    world.tap(|_, parcel| {
        let Some(mut message) = message_of(parcel) else { return Fate::Pass };
        let (Parcel::Datagram { from, to: 0, datagram }, Body::Response(response)) = (parcel, &mut message.body) else { return Fate::Pass };
        let stack = response.responder.as_mut().unwrap().stack.as_mut().unwrap();
        stack.proposal.profiles = vec![Profile::tcp()];
        let datagram = gist::node::Datagram { payload: encoded(&message), ..datagram.clone() };
        Fate::Change(Parcel::Datagram { from: *from, to: 0, datagram })
    });
    world.send(0, text("down"));
    world.run(secs(40));
    assert_eq!(world.connects, 0);
    assert_eq!(world.failures(0), [(at_millis(32_000), SendError::NoResponse)]);
}

/// G-121: the first Confirm on a new association without its hold time.
#[test]
fn a_first_confirm_without_hold_time_is_answered_with_missing_object() {
    let mut world = World::chain();
    world.tap(change_confirm(|confirm| confirm.configuration = None));
    world.send(0, text("down"));
    world.run(Duration::from_millis(100));
    let errors = world.errors_of(1);
    assert_eq!((errors[0].code, errors[0].subcode), (9, 2));
    assert_eq!(errors[0].session, Some(session(1)));
    assert!(world.node(1).routing_table().is_empty());
}

/// G-269, G-091: the responder is restarted between Response and Confirm and still knows its cookie.
#[test]
fn a_responder_restarted_before_the_confirm_still_installs_state() {
    let mut world = World::chain();
    let mut world = {
        world.send(0, text("down"));
        world.run(Duration::from_micros(2500));
        assert_eq!(world.connects, 1);
        world
    };
    let table_before = world.node(1).routing_table();
    assert!(table_before.is_empty());
    // Only the process's memory is new; its connections survive in this world.
    world.restart(1, |_, _| {});
    world.run(secs(1));
    assert_eq!(world.node(1).routing_table().len(), 2);
    assert_eq!(world.payloads(2), ["down"]);
}

/// G-103, G-104, G-141, responding rule 2 over an association in use: the Response comes over it, nothing is connected.
#[test]
fn a_second_session_reuses_the_association() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    let responses = world.datagrams_of(1, MessageType::Response).len();
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["down", "more"]);
    assert_eq!(world.connects, 2);
    assert_eq!(world.datagrams_of(1, MessageType::Response).len(), responses);
    assert_eq!(world.node(1).associations().len(), 2);
    let over = world.on_associations.iter().filter(|(_, from, m)| *from == 1 && m.message_type() == MessageType::Response);
    let Body::Response(response) = &over.last().unwrap().2.body else { panic!("Response") };
    assert!(response.responder.as_ref().unwrap().stack.is_none());
    // G-084: the Confirm precedes the data of its flow; only the first on the association tells the hold time.
    let of_second: Vec<_> = world.on_associations.iter().filter(|(_, from, m)| *from == 0 && m.session() == Some(session(2))).collect();
    assert_eq!(of_second[0].2.message_type(), MessageType::Confirm);
    let Body::Confirm(confirm) = &of_second[0].2.body else { panic!("Confirm") };
    assert_eq!(confirm.configuration, None);
}

/// G-103: two sessions start before either has an association; both Responses come as datagrams, one connection is made.
#[test]
fn two_sessions_starting_together_share_one_association() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["down", "more"]);
    assert_eq!(world.node(0).associations().len(), 1);
    assert_eq!(world.connects, 2);
}

/// The same while TLS takes its time: whoever asks meanwhile waits for that association too.
#[test]
fn sessions_starting_while_an_association_opens_share_it() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.connect_delay = secs(5);
    world.send(0, text("down"));
    world.run(secs(3));
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(3));
    assert_eq!(world.payloads(1), ["down", "more"]);
    assert_eq!(world.connects, 1);
}

/// G-105: identity and interface address must both match.
#[test]
fn only_a_perfect_match_of_the_nli_reuses_an_association() {
    for (identity_number, source) in [(7, "10.0.1.1"), (0, "10.0.1.77")] {
        let mut world = World::chain();
        world.send(0, text("down"));
        world.run(secs(1));
        let (_, _, mut query) = world.datagrams_of(0, MessageType::Query)[0].clone();
        let Body::Query(body) = &mut query.body else { panic!("Query") };
        body.nli.peer = identity(identity_number);
        body.nli.address = address(source);
        body.session = session(9);
        let before = world.datagrams_of(1, MessageType::Response).len();
        world.inject(1, passing(&format!("{source}:270"), &query));
        assert_eq!(world.datagrams_of(1, MessageType::Response).len(), before + 1);
    }
}

/// G-013: order within a session, whatever waits for what.
/// Takes: querying 1.
#[test]
fn messages_of_a_session_keep_their_order() {
    let mut world = World::chain();
    for word in ["one.", "two.", "tree", "four"] {
        world.send(0, text(word));
        world.run(Duration::from_micros(1500));
    }
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["one.", "two.", "tree", "four"]);
}

/// G-161, G-162, G-163: plain routers in between are counted, at both ends.
#[test]
fn the_distance_in_ip_hops_is_measured_and_told() {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { from: 0, to: 1, datagram } => {
            let datagram = gist::node::Datagram { ip_ttl: datagram.ip_ttl.map(|ttl| ttl - 3), ..datagram.clone() };
            Fate::Change(Parcel::Datagram { from: 0, to: 1, datagram })
        }
        _ => Fate::Pass,
    });
    world.send(0, text("down"));
    world.run(secs(1));
    assert_eq!(world.received(1)[0].ip_distance, Some(3));
    let mut answer = text("back");
    answer.mri = up();
    world.send(1, answer);
    world.run(secs(1));
    assert_eq!(world.received(0)[0].ip_distance, Some(3));
}

/// One field of a node as it shows itself for debugging, up to the next comma on the same level.
fn field_of(node: &str, name: &str) -> String {
    let (_, rest) = node.split_once(&format!(" {name}: ")).expect("the field is there");
    let mut depth = 0;
    let end = rest.find(|letter| {
        depth += i32::from(matches!(letter, '{' | '[' | '(')) - i32::from(matches!(letter, '}' | ']' | ')'));
        depth == 0 && letter == ',' || depth < 0
    });
    rest[..end.expect("it ends")].to_owned()
}

fn query_cookie(message: &gist::wire::Message) -> Cookie {
    let Body::Query(query) = &message.body else { panic!("Query") };
    query.cookie.clone()
}

/// Changes each Confirm on its way to the router.
fn change_confirm(change: impl Fn(&mut gist::wire::Confirm) + 'static) -> impl FnMut(gist::time::Instant, &Parcel) -> Fate {
    move |_, parcel| {
        let Some(mut message) = message_of(parcel) else { return Fate::Pass };
        let (Parcel::Association { from: 0, to: 1, id, .. }, Body::Confirm(confirm)) = (parcel, &mut message.body) else {
            return Fate::Pass;
        };
        change(confirm);
        let event = gist::node::AssociationEvent::Received(message.to_bytes().unwrap());
        Fate::Change(Parcel::Association { from: 0, to: 1, id: *id, event })
    }
}
