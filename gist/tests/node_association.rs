//! Messaging associations: opening, keeping, losing and refusing them (RFC 5971 §4.4.2, §4.4.5, §6.4).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{NetworkEvent, Request, RoutingStatus, SendError};
use gist::node::{ApdEntry, AssociationEvent, IdentityPattern, PeerCredentials, PeerRole};
use gist::wire::{Body, Hello, Message, NslpId};
use node_world::*;

fn hello(request: bool, id: u32) -> Message {
    let body = Body::Hello(Hello { request, id });
    Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

fn hellos(world: &World, number: usize) -> Vec<Hello> {
    let mine = world.on_associations.iter().filter(|(_, from, _)| *from == number);
    mine.filter_map(|(_, _, message)| if let Body::Hello(hello) = &message.body { Some(*hello) } else { None }).collect()
}

/// A chain over whose first link one message has gone, its GIST state wanted for an hour.
fn talking() -> World {
    let mut world = World::chain();
    world.members[1].relays = false;
    world.send(0, text("down"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down"]);
    let lifetime = Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: secs(3600) };
    world.request(0, lifetime);
    world
}

/// G-082, G-095, G-098, G-241: association rule 4.4.2 in Birth; querying rule 6.4 of a candidate, since the other end
/// only sees a close.
#[test]
fn the_responder_closes_on_an_unauthorised_peer_without_a_message() {
    let mut world = World::chain_with(|number, config| {
        if number == 1 {
            config.authorised_peers.truncate(1);
        }
    });
    world.send(0, text("down"));
    world.run(secs(1));
    assert_eq!(world.node(1).counters().not_authorised, 2, "another answer may be better: with each transmission one try");
    assert!(world.node(1).associations().is_empty());
    assert!(world.node(1).routing_table().is_empty());
    assert!(!world.on_associations.iter().any(|(_, from, _)| *from == 1), "closed without a message");
    assert!(world.payloads(1).is_empty());
    world.run(secs(40));
    assert_eq!(world.failures(0)[0].1, SendError::AssociationFailed("closed by the peer".to_owned()));
    assert!(world.node(0).routing_table().is_empty());
}

/// G-082, G-095, G-098: association and querying rule 4.4.2.
#[test]
fn the_querying_node_closes_on_an_unauthorised_peer_and_says_so() {
    let mut world = World::chain_with(|number, config| {
        if number == 0 {
            config.authorised_peers = Vec::new();
        }
    });
    world.send(0, text("down"));
    world.run(secs(40));
    assert_eq!(world.failures(0)[0].1, SendError::NotAuthorised);
    assert_eq!(world.events(0), [NetworkEvent::NotAuthorised]);
    assert!(world.node(0).routing_table().is_empty());
    assert!(world.node(0).associations().is_empty());
    assert!(world.on_associations.is_empty(), "not even the Confirm");
    world.run(secs(60));
    assert!(world.node(1).associations().is_empty());
}

/// G-097: association rule 4.4.2 in Connected; querying and responding 4.4.2.
#[test]
fn a_change_of_the_database_reaches_existing_associations() {
    let mut world = talking();
    let now = world.now;
    world.members[1].node.set_authorised_peers(vec![ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Host, allow: false }], now);
    world.run(secs(1));
    // The outputs of the change are drained with the next input.
    world.request(
        1,
        Request::InvalidateRoutingState {
            nslp_id: NSLP,
            session: session(8),
            mri: down(),
            status: RoutingStatus::Tentative,
            urgent: false,
        },
    );
    world.run(secs(1));
    assert_eq!(world.events(1), [NetworkEvent::NotAuthorised]);
    assert!(world.node(1).associations().is_empty());
    assert!(world.node(1).routing_table().is_empty());
    assert_eq!(world.events(0), [NetworkEvent::AssociationLost]);
}

/// G-059, G-236, G-301: association rule 8, querying rule 6.4 (er_MAConnect).
#[test]
fn a_refused_connection_is_reported_for_each_waiting_message() {
    let mut world = World::chain();
    world.members[1].listens = false;
    world.send(0, text("one."));
    world.send(0, text("two."));
    world.run(secs(1));
    assert!(world.failures(0).is_empty(), "another answer may be better");
    world.run(secs(40));
    let reason = SendError::AssociationFailed("connection refused".to_owned());
    let errors: Vec<_> = world.failures(0).into_iter().map(|(_, error)| error).collect();
    assert_eq!(errors, [reason.clone(), reason]);
    assert!(world.events(0).is_empty(), "nothing can have been lost");
    assert!(world.node(0).routing_table().is_empty());
}

/// Association rule 0c: RFC 5971 §6.4 leaves this timer out of its figure.
#[test]
fn a_connection_that_never_opens_times_out() {
    let mut world = World::chain();
    world.tap(|_, parcel| match parcel {
        Parcel::Association { .. } => Fate::Lose,
        Parcel::Datagram { .. } => Fate::Pass,
    });
    world.send(0, text("down"));
    world.run(Duration::from_secs(9));
    assert_eq!(world.node(0).associations()[0].state, "Awaiting Connection");
    world.run(secs(2));
    assert!(world.node(0).associations().is_empty());
    world.run(secs(40));
    assert_eq!(world.failures(0)[0].1, SendError::AssociationFailed("no connection in time".to_owned()));
    assert!(world.node(0).associations().is_empty());
}

/// G-014, G-122, G-295: association rule 8, querying and responding rule 6.4 (er_MAFailure).
#[test]
fn a_lost_association_is_told_to_every_session_on_it() {
    let mut world = talking();
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    world.kill(1);
    world.run(secs(1));
    assert_eq!(world.events(0), [NetworkEvent::AssociationLost, NetworkEvent::AssociationLost]);
    assert!(world.node(0).routing_table().is_empty());
    assert!(world.node(0).associations().is_empty());
}

/// The router is killed and restarted: the next message makes everything anew.
#[test]
fn a_restarted_router_is_found_again_by_the_next_message() {
    let mut world = World::chain();
    world.send(0, text("down"));
    world.run(secs(1));
    world.kill(1);
    world.run(secs(1));
    assert_eq!(world.events(2), [NetworkEvent::AssociationLost]);
    world.restart(1, |_, _| {});
    world.send(0, text("agin"));
    world.run(secs(1));
    assert_eq!(world.payloads(2), ["down", "agin"]);
}

/// G-124, G-103 the other way round: a D-mode Response from a peer with an old association shows that the peer has forgotten it.
/// The session takes a new association, the old one is tested (association rules 4 and 8, to_HelloReply, G-296).
#[test]
fn an_association_that_the_peer_has_forgotten_is_tested_and_not_used() {
    let mut world = talking();
    world.run(secs(3));
    let old = world.node(0).associations()[0].association;
    // Power fails at the router: nothing is said, the connection hangs.
    world.forget_link(0, old);
    world.restart(1, |_, _| {});
    world.members[1].relays = false;
    world.send(0, text_for(session(2), b"more"));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["down", "more"]);
    assert_eq!(world.node(0).associations().len(), 2);
    world.run(secs(11));
    let left: Vec<_> = world.node(0).associations().iter().map(|entry| entry.association).collect();
    assert_eq!(left.len(), 1);
    assert_ne!(left[0], old);
    assert_eq!(world.events(0), [NetworkEvent::AssociationLost]);
}

/// G-117, G-120, G-125, G-292: association rules 3 and 4.
/// Takes: association 0u, 2.
#[test]
fn an_idle_association_is_kept_by_hellos() {
    let mut world = talking();
    world.run(secs(300));
    assert_eq!(world.node(0).associations()[0].state, "Connected");
    assert_eq!(world.node(1).associations()[0].state, "Connected");
    let requests = hellos(&world, 0).iter().filter(|hello| hello.request).count();
    // Ten hold times of 30 s, a Hello each 15 to 22.5 s at the latest, less what the other traffic saves.
    assert!((5..=20).contains(&requests), "{requests}");
    assert_eq!(world.connects, 1);
}

/// G-151: association rule 3, and rule 9 in Idle.
#[test]
fn a_hello_with_a_request_is_answered_with_its_number() {
    let mut world = talking();
    let id = world.node(1).associations()[0].association;
    world.on_associations.clear();
    world.inject_on(1, id, &hello(true, 4711));
    assert_eq!(hellos(&world, 1), [Hello { request: false, id: 4711 }]);
    world.inject_on(1, id, &hello(false, 0));
    assert_eq!(hellos(&world, 1).len(), 1);

    let stranger = PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..PeerCredentials::default() };
    let idle = world.accept(1, "10.0.1.9:40000", stranger);
    world.inject_on(1, idle, &hello(true, 12));
    assert_eq!(hellos(&world, 1)[1], Hello { request: false, id: 12 });
}

/// G-119, G-293, G-294: association rules 7 and 8 (to_NoHello).
#[test]
fn an_association_nobody_uses_goes_after_the_hold_time() {
    let mut world = talking();
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: Duration::ZERO });
    world.run(secs(1));
    assert!(world.node(0).routing_table().is_empty());
    assert_eq!(world.node(0).associations()[0].state, "Idle");
    assert!(world.events(0).is_empty(), "G-309: the application caused it itself");
    world.run(secs(90));
    assert!(world.node(0).associations().is_empty());
    assert!(world.node(1).associations().is_empty());
}

/// G-117, G-294: association rule 9: a peer's Hellos keep what this node does not need.
#[test]
fn hellos_of_the_peer_keep_an_idle_association() {
    let mut world = talking();
    let id = world.node(1).associations()[0].association;
    world.forget_link(1, id);
    // What the peer says is made up; it would open another association.
    world.members[0].alive = false;
    world.request(1, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: up(), lifetime: Duration::ZERO });
    for _ in 0..10 {
        world.run(secs(29));
        world.inject_on(1, id, &hello(false, 0));
    }
    assert_eq!(world.node(1).associations()[0].state, "Idle");
    world.run(Duration::from_millis(29_999));
    assert_eq!(world.node(1).associations().len(), 1);
    world.run(Duration::from_millis(1));
    assert!(world.node(1).associations().is_empty());
}

/// Note 2 of the table: RFC 5971's figure would leave a revived association without SendHello, and the peer would purge it.
/// Takes: association 1, 2, responding 10.
#[test]
fn a_revived_association_sends_hellos_again() {
    let mut world = talking();
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(1), mri: down(), lifetime: Duration::ZERO });
    world.run(secs(5));
    assert_eq!(world.node(0).associations()[0].state, "Idle");
    world.send(0, text_for(session(3), b"anew"));
    world.run(secs(1));
    world.request(0, Request::SetStateLifetime { nslp_id: NSLP, session: session(3), mri: down(), lifetime: secs(3600) });
    assert_eq!(world.node(0).associations()[0].state, "Connected");
    world.run(secs(200));
    assert_eq!(world.connects, 1, "the same association all the time");
    assert_eq!(world.payloads(1), ["down", "anew"]);
}

/// A peer that says nothing useful is let go, whatever else it says: the accepted association begins in Idle (note 0), and
/// association rule 0u ends it.
#[test]
fn an_accepted_association_without_a_confirm_goes_in_spite_of_hellos() {
    let mut world = World::chain();
    let credentials = PeerCredentials { dns_names: vec!["other.pbs.test".to_owned()], ..PeerCredentials::default() };
    world.accept(1, "10.0.1.9:40000", credentials);
    let id = world.node(1).associations()[0].association;
    for _ in 0..9 {
        world.run(secs(1));
        assert_eq!(world.node(1).associations()[0].state, "Idle");
        world.inject_on(1, id, &hello(false, 0));
    }
    world.run(secs(1));
    assert!(world.node(1).associations().is_empty());
}

/// Nothing is said or believed about an association after its end.
#[test]
fn news_of_a_closed_association_are_ignored() {
    let mut world = talking();
    let id = world.node(0).associations()[0].association;
    world.kill(1);
    world.run(secs(1));
    let before = world.node(0).clone();
    for event in [
        AssociationEvent::Closed,
        AssociationEvent::Failed("again".to_owned()),
        AssociationEvent::Connected { credentials: PeerCredentials::default() },
        AssociationEvent::Received(hello(true, 1).to_bytes().unwrap()),
    ] {
        let now = world.now;
        world.members[0].node.handle_association(id, event, now);
        assert_eq!(world.members[0].node.poll_output(), None);
    }
    assert_eq!(*world.node(0), before);
}

/// §4.4.3: a peer cannot draw what is meant for another by claiming its NLI.
#[test]
fn a_confirm_under_an_address_that_its_peer_does_not_prove_is_refused() {
    let mut world = World::chain();
    world.members[1].relays = false;
    // The sender's certificate does not name the address it claims, and it comes from elsewhere.
    world.members[0].credentials.addresses.clear();
    world.tap(|_, parcel| match parcel {
        Parcel::Association { from, to: 1, id, event: AssociationEvent::Accepted { credentials, .. } } => {
            let event = AssociationEvent::Accepted { peer_address: "10.0.1.66:4000".parse().unwrap(), credentials: credentials.clone() };
            Fate::Change(Parcel::Association { from: *from, to: 1, id: *id, event })
        }
        _ => Fate::Pass,
    });
    world.send(0, text("down"));
    world.run(secs(1));
    assert!(world.payloads(1).is_empty());
    assert!(world.node(1).routing_table().is_empty());
    assert!(world.node(1).associations().is_empty());
    assert!(world.node(1).counters().flows_refused >= 1);
}
