//! Routing state from refresh to end (RFC 5971 §4.4.4, §4.4.6, §6.2, §6.3, §7.1).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use gist::api::{NetworkEvent, Request, RoutingStatus, SendError};
use gist::node::{Datagram, DatagramRate, Side};
use gist::time::Instant;
use gist::wire::{Body, ErrorBody, ErrorCause, GistError, Message, MessageType, NslpId};
use node_world::*;

/// Sender and router have exchanged one message; the application wants the state for an hour.
fn talking() -> World {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    world.request(0, lifetime(3600));
    world
}

fn lifetime(seconds: u64) -> Request {
    Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(seconds) }
}

fn invalidate(urgent: bool) -> Request {
    Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status: RoutingStatus::Tentative, urgent }
}

fn state(world: &World, number: usize) -> Vec<(Side, String)> {
    world.node(number).routing_table().into_iter().map(|entry| (entry.side, entry.state)).collect()
}

fn no_routing_state(mri: gist::wire::Mri, about: MessageType) -> Message {
    let header = [1, 64, 0, 0, 0x7f, 0xc0, about as u8, 0x80];
    let error = GistError { session: Some(session(1)), mri: Some(mri), ..GistError::new(ErrorCause::NoRoutingState, header) };
    let body = Body::Error(ErrorBody { nat: None, nli: None, error });
    Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

/// G-130, G-132: a node that has lost many states at once tells of each as soon as its Data come, however many that are, since no Error has more
/// octets than they: nobody goes on sending into nothing until the next refresh.
#[test]
fn of_many_states_that_are_lost_at_once_each_is_asked_for_anew_with_its_first_data() {
    const FLOWS: u8 = 200;
    const PAYLOAD: &[u8] = &[b'.'; 64];
    let mut world = World::chain();
    world.members[1].relays = false;
    for number in 1..=FLOWS {
        world.send(0, text_for(session(number), PAYLOAD));
        world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(number), mri: down(), lifetime: secs(3600) });
        world.run(Duration::from_millis(50));
    }
    world.run(secs(1));
    for number in 1..=FLOWS {
        let lost = Request::SetStateLifetime { nslp_id: NSLP, session: session(number), mri: up(), lifetime: Duration::ZERO };
        world.request(1, lost);
    }
    assert_eq!(world.node(1).routing_states(), 0);
    (1..=FLOWS).for_each(|number| world.send(0, text_for(session(number), PAYLOAD)));
    world.run(secs(1));
    assert_eq!(world.node(1).routing_states(), usize::from(FLOWS));
    (1..=FLOWS).for_each(|number| world.send(0, text_for(session(number), PAYLOAD)));
    world.run(secs(1));
    assert_eq!(world.received(1).len(), 2 * usize::from(FLOWS), "what was said into nothing is lost, and nothing else");
}

/// G-114: flows that begin in one moment do not stay together, and a refresh leaves time for its repetitions: with two of three Queries lost,
/// and a way that takes a second, no state ends.
#[test]
fn refreshes_of_many_flows_spread_and_survive_losses() {
    const FLOWS: u8 = 200;
    let mut world = World::chain();
    world.members[1].relays = false;
    for number in 0..FLOWS {
        world.send(0, text_for(session(number), b"down"));
        let lifetime = Request::SetStateLifetime { nslp_id: NSLP, session: session(number), mri: down(), lifetime: secs(3600) };
        world.request(0, lifetime);
    }
    world.run(secs(1));
    let (mut seen, first) = (BTreeMap::<_, u32>::new(), world.datagrams.len());
    let late: Rc<RefCell<VecDeque<(Instant, Datagram)>>> = Rc::default();
    let held = Rc::clone(&late);
    world.tap(move |now, parcel| match parcel {
        Parcel::Datagram { to: 1, datagram, .. } => {
            let count = seen.entry(message_of(parcel).unwrap().session()).or_default();
            *count += 1;
            if count.is_multiple_of(3) {
                held.borrow_mut().push_back((now + secs(1), datagram.clone()));
            }
            Fate::Lose
        }
        _ => Fate::Pass,
    });
    for _ in 0..6000 {
        world.run(Duration::from_millis(20));
        while let Some((_, datagram)) = late.borrow_mut().pop_front_if(|(at, _)| *at <= world.now) {
            world.inject(1, datagram);
        }
    }
    let mut by_second = BTreeMap::<u64, BTreeSet<_>>::new();
    for (at, _, transmit) in world.datagrams.iter().skip(first) {
        let second = at.saturating_duration_since(at_millis(0)).as_secs();
        by_second.entry(second).or_default().insert(message_in(transmit).session());
    }
    let most = by_second.values().map(BTreeSet::len).max().unwrap();
    assert!(most < usize::from(FLOWS) / 2, "{most} of {FLOWS} in one second");
    assert!(
        (14..=24).filter(|second| by_second.contains_key(second)).count() >= 7,
        "the first round takes half as long as the shortest gap"
    );
    for number in [0, 1] {
        assert_eq!(world.node(number).routing_table().len(), usize::from(FLOWS));
        assert!(world.events(number).is_empty());
    }
}

/// G-304, G-111, G-115, G-138, G-277, G-278: querying rules 8 and 4, responding rule 5; the Response comes over the
/// association.
/// Takes: querying 4c.
#[test]
fn state_is_refreshed_between_half_and_three_quarters_of_its_validity() {
    let mut world = talking();
    world.run(secs(300));
    let queries: Vec<_> = world.datagrams_of(0, MessageType::Query).into_iter().map(|(at, _, message)| (at, message)).collect();
    let gaps: Vec<_> = queries.windows(2).map(|pair| pair[1].0.saturating_duration_since(pair[0].0)).collect();
    assert!(gaps.iter().all(|gap| (secs(15)..secs(23)).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap != gaps[0]), "the instants are random");
    for (_, message) in &queries {
        let Body::Query(query) = &message.body else { panic!("Query") };
        assert!(query.stack.is_some());
        assert_eq!(query.nli.peer, identity(0), "G-102: the same as long as it runs");
    }
    assert_eq!(world.datagrams_of(1, MessageType::Response).len(), 1, "only the first one as a datagram");
    assert_eq!(state(&world, 0), [(Side::Querying, "Established".to_owned())]);
    assert_eq!(state(&world, 1), [(Side::Responding, "Established".to_owned())]);
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
}

/// G-111: every other Query is lost.
#[test]
fn refreshing_survives_loss() {
    let mut world = talking();
    let mut number = 0;
    world.tap(move |_, parcel| match parcel {
        Parcel::Datagram { to: 1, .. } => {
            number += 1;
            if number % 2 == 0 { Fate::Pass } else { Fate::Lose }
        }
        _ => Fate::Pass,
    });
    world.run(secs(600));
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
    assert_eq!(state(&world, 1), [(Side::Responding, "Established".to_owned())]);
}

/// G-278, G-289: data flows while the refresh waits for its answer (querying rule 5 in Awaiting Refresh).
#[test]
fn data_flows_during_a_refresh() {
    let mut world = talking();
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { to: 1, .. } => Fate::Lose,
        _ => Fate::Pass,
    });
    world.run(secs(23));
    assert_eq!(state(&world, 0), [(Side::Querying, "Awaiting Refresh".to_owned())]);
    world.send(0, text("more"));
    let mut answer = text("back");
    answer.mri = up();
    world.send(1, answer);
    world.run(Duration::from_millis(100));
    assert_eq!(world.payloads(1), ["down", "more"]);
    assert_eq!(world.payloads(0), ["back"]);
}

/// G-112, G-274, G-023, G-290: responding rule 11 at the validity time; querying rule 2 in Awaiting Refresh no later than that.
#[test]
fn state_that_is_not_refreshed_ends_at_both_ends() {
    let mut world = talking();
    let installed = world.node(1).routing_table()[0].valid_until.unwrap();
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { .. } => Fate::Lose,
        Parcel::Association { .. } => Fate::Pass,
    });
    let left = installed.saturating_duration_since(world.now);
    world.run(left - Duration::from_micros(1));
    assert_eq!(world.node(1).routing_table().len(), 1);
    world.run(Duration::from_micros(1));
    assert!(world.node(1).routing_table().is_empty());
    assert_eq!(world.events(1), [NetworkEvent::RouteDeleted]);
    assert_eq!(world.events(0), [NetworkEvent::RouteDeleted]);
    assert!(world.node(0).routing_table().is_empty());
}

/// G-107, G-109: the Response's validity counts; the responder takes over a longer proposal, never a shorter one.
#[test]
fn the_validity_of_the_response_counts() {
    for (proposed, own, agreed) in [(30, 60, 60), (60, 30, 60), (6, 30, 30)] {
        let mut world = World::chain_with(|number, config| {
            config.validity = secs(if number == 0 { proposed } else { own });
        });
        world.members[1].relays = false;
        world.send(0, text("down"));
        world.run(secs(1));
        for number in [0, 1] {
            let left = world.node(number).routing_table()[0].valid_until.unwrap().saturating_duration_since(world.now);
            assert!((secs(agreed - 1)..=secs(agreed)).contains(&left), "{number}: {left:?}");
        }
    }
}

/// G-110: with a tight rate limit and many states the validity rises.
#[test]
fn many_states_raise_the_validity() {
    let mut world = World::chain_with(|_, config| {
        config.datagram_rate = DatagramRate { per_second: 1, burst: 256, most_per_second: 1 };
    });
    world.members[1].relays = false;
    for number in 0..40 {
        world.send(0, text_for(session(number), b"down"));
    }
    world.run(secs(60));
    let (_, _, message) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    let Body::Query(query) = message.body else { panic!("Query") };
    assert!(query.nli.validity >= secs(70), "{:?}", query.nli.validity);
}

/// G-280: querying rule 6; responding rule 11 follows.
#[test]
fn state_without_traffic_of_the_application_ends() {
    let mut world = World::chain_with(|_, config| config.inactivity = secs(100));
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(60));
    world.send(0, text("more"));
    world.run(secs(99));
    assert_eq!(world.node(0).routing_table().len(), 1);
    world.run(secs(2));
    assert!(world.node(0).routing_table().is_empty());
    assert_eq!(world.events(0), [NetworkEvent::RouteDeleted]);
    world.run(secs(31));
    assert!(world.node(1).routing_table().is_empty());
}

/// G-281: querying rule B.5 restarts the timer with the new period.
#[test]
fn the_application_sets_the_period_of_inactivity() {
    let mut world = talking();
    world.request(0, lifetime(10));
    world.run(Duration::from_millis(9_999));
    assert_eq!(world.node(0).routing_table().len(), 1);
    world.run(Duration::from_millis(1));
    assert!(world.node(0).routing_table().is_empty());
}

/// G-113, G-303: querying and responding rule B.5 with lifetime 0: no Query afterwards, no indication.
#[test]
fn a_lifetime_of_zero_ends_the_state_on_either_side() {
    let mut world = talking();
    let queries = world.datagrams_of(0, MessageType::Query).len();
    world.request(0, lifetime(0));
    world.request(1, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: up(), lifetime: Duration::ZERO });
    world.run(secs(60));
    assert!(world.node(0).routing_table().is_empty() && world.node(1).routing_table().is_empty());
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), queries);
    assert!(world.events(0).is_empty() && world.events(1).is_empty());
}

/// G-130, G-132, G-279: the responder has lost its state; node rule 4, then querying rule 3, and the session goes on.
/// Takes: association 1, 2.
#[test]
fn lost_state_at_the_responder_is_repaired() {
    let mut world = talking();
    world.request(1, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: up(), lifetime: Duration::ZERO });
    assert!(world.node(1).routing_table().is_empty());
    world.send(0, text("lost"));
    world.run(secs(1));
    assert_eq!(world.errors_of(1)[0].cause(), Some(ErrorCause::NoRoutingState));
    assert_eq!(world.events(0), [NetworkEvent::AssociationLost], "G-014: a reliable message may be lost");
    assert_eq!(world.node(1).routing_table().len(), 1);
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
    assert_eq!(world.connects, 1);
}

/// G-133, G-134: responding rule 11 (er_NoRSM).
#[test]
fn a_responder_deletes_state_that_its_peer_has_lost() {
    let mut world = talking();
    world.request(0, lifetime(0));
    let mut answer = text("back");
    answer.mri = up();
    world.send(1, answer);
    world.run(Duration::from_millis(100));
    assert!(world.payloads(0).is_empty());
    assert!(world.node(1).routing_table().is_empty());
    assert_eq!(world.events(1), [NetworkEvent::RouteDeleted]);
}

/// G-270, G-131, G-135: node rule 4b: the error comes as a datagram, over another association, or for unknown state.
#[test]
fn no_routing_state_is_believed_only_from_the_peer_itself() {
    let mut world = talking();
    let id = world.node(1).associations()[0].association;
    world.inject(0, direct("10.0.1.254:270", "10.0.1.1:270".split(':').next().unwrap(), &no_routing_state(down(), MessageType::Data)));
    let credentials = gist::node::PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..Default::default() };
    let other = world.accept(1, "10.0.1.9:40000", credentials);
    world.inject_on(1, other, &no_routing_state(up(), MessageType::Data));
    assert_eq!(state(&world, 0), [(Side::Querying, "Established".to_owned())]);
    assert_eq!(state(&world, 1), [(Side::Responding, "Established".to_owned())]);
    assert_eq!((world.node(0).counters().stray, world.node(1).counters().stray), (1, 1));
    world.inject_on(1, id, &no_routing_state(up(), MessageType::Data));
    assert!(world.node(1).routing_table().is_empty());
    assert!(world.errors_of(0).is_empty() && world.errors_of(1).is_empty(), "G-129");
}

/// Note 3 of the querying table: after er_NoRSM no refresh timer runs on, and errors faster than T1 do not multiply Queries.
#[test]
fn no_routing_state_errors_cannot_drive_queries() {
    let mut world = talking();
    world.run(secs(5));
    let id = world.node(0).associations()[0].association;
    let before = world.datagrams_of(0, MessageType::Query).len();
    world.members[1].alive = false;
    for _ in 0..100 {
        world.inject_on(0, id, &no_routing_state(down(), MessageType::Data));
    }
    assert_eq!(state(&world, 0), [(Side::Querying, "Awaiting Response".to_owned())]);
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), before + 1);
    world.run(secs(40));
    // 1 and 6 retransmissions, and nothing else: Refresh_QNode does not fire in Awaiting Response.
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), before + 7);
    assert!(world.node(0).routing_table().is_empty());
}

/// G-310, G-312: querying rule 7.1.3, urgent.
/// Takes: responding 1, 10.
#[test]
fn an_urgent_invalidation_asks_at_once() {
    let mut world = talking();
    let before = world.datagrams_of(0, MessageType::Query).len();
    world.request(0, invalidate(true));
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), before + 1);
    assert_eq!(state(&world, 0), [(Side::Querying, "Awaiting Refresh".to_owned())]);
    world.run(secs(1));
    assert_eq!(state(&world, 0), [(Side::Querying, "Established".to_owned())]);
    assert!(world.events(0).is_empty());
}

/// G-299: b.6: querying rule 7.1.3, not urgent: the next message asks, and travels meanwhile.
#[test]
fn a_calm_invalidation_asks_with_the_next_message() {
    let mut world = talking();
    let before = world.datagrams_of(0, MessageType::Query).len();
    world.request(0, invalidate(false));
    world.run(secs(1));
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), before);
    world.send(0, text("more"));
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), before + 1);
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
    world.send(0, text("last"));
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), before + 1, "asked once");
}

/// G-316, G-276, G-300, G-306: querying rule G-306: the Query now reaches the receiver, past the router.
#[test]
fn another_peer_takes_over_at_the_querying_node() {
    let mut world = talking();
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { from: 0, to: 1, datagram } if datagram.query_mode => {
            Fate::Change(Parcel::Datagram { from: 0, to: 2, datagram: datagram.clone() })
        }
        _ => Fate::Pass,
    });
    world.request(0, invalidate(true));
    world.run(secs(1));
    assert_eq!(world.events(0), [NetworkEvent::PeerChanged]);
    let entry = world.node(0).routing_table().remove(0);
    assert_eq!((entry.peer, entry.peer_address), (Some(identity(2)), Some(address("10.0.2.1"))));
    world.send(0, text("more"));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["more"]);
    assert_eq!(world.payloads(1), ["down"]);
    // The old association is not needed any more and goes.
    world.run(secs(60));
    assert_eq!(world.node(0).associations().len(), 1);
}

/// G-306, G-128: responding rule G-128: another upstream peer confirms the same session.
#[test]
fn another_peer_takes_over_at_the_responding_node() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    // The flow now comes directly from the sender's link to the receiver.
    world.tap(|_, parcel| match parcel {
        Parcel::Datagram { from: 0, to: 1, datagram } if datagram.query_mode => {
            Fate::Change(Parcel::Datagram { from: 0, to: 2, datagram: datagram.clone() })
        }
        _ => Fate::Pass,
    });
    world.request(0, invalidate(true));
    world.run(secs(1));
    assert_eq!(world.events(2), [NetworkEvent::PeerChanged]);
    assert_eq!(world.node(2).routing_table()[0].peer, Some(identity(0)));
    let mut answer = text("back");
    answer.mri = up();
    world.send(2, answer);
    world.run(Duration::from_millis(100));
    assert_eq!(world.payloads(0), ["back"]);
}

/// A Query of somebody else for a session in use is answered and changes nothing: only a Confirm would.
#[test]
fn a_foreign_query_for_a_session_in_use_changes_nothing() {
    let mut world = talking();
    let (_, _, mut query) = world.datagrams_of(0, MessageType::Query)[0].clone();
    let Body::Query(body) = &mut query.body else { panic!("Query") };
    body.nli.peer = identity(9);
    body.nli.address = address("10.0.1.9");
    let before = world.node(1).routing_table();
    world.inject(1, Datagram { ip_ttl: Some(9), ..passing("10.0.1.9:270", &query) });
    world.run(Duration::from_millis(10));
    assert_eq!(world.node(1).routing_table(), before);
    assert_eq!(world.datagrams_of(1, MessageType::Response).len(), 2);
}

/// G-064: querying rule G-064: a hint, believed when nobody answers (its note).
#[test]
fn endpoint_found_is_told_when_nobody_answers() {
    let mut world = World::chain_with(|number, config| {
        if number == 2 {
            config.registrations.clear();
        }
    });
    world.send(0, text("down"));
    world.run(secs(1));
    assert_eq!(world.errors_of(2)[0].cause(), Some(ErrorCause::EndpointFound));
    assert_eq!((world.errors_of(2)[0].session, world.errors_of(2)[0].mri.clone()), (Some(session(1)), Some(down())));
    assert!(world.failures(1).is_empty(), "the search goes on");
    assert!(world.node(1).counters().endpoints_found >= 1);
    world.run(secs(40));
    assert_eq!(world.events(1), [NetworkEvent::LastNode]);
    assert_eq!(world.failures(1)[0].1, SendError::NoResponse);
    let left: Vec<_> = world.node(1).routing_table().iter().map(|entry| entry.side).collect();
    assert_eq!(left, [Side::Responding], "the upstream state stays");
}
