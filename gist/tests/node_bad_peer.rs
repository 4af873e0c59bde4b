//! A peer that the application calls bad (RFC 5971 §7.1.3, B.6).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use std::time::Duration;

use gist::api::{Request, RoutingStatus};
use gist::wire::MessageType;
use node_world::*;

fn invalidate(status: RoutingStatus) -> Request {
    Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status, urgent: true }
}

/// G-307, G-311, G-392: after Bad nothing goes to the old peer, in either state; messages wait for the new one.
#[test]
fn a_bad_peer_is_sent_nothing_more() {
    for refreshing in [false, true] {
        let mut world = World::fork();
        let switch = world.reroute();
        world.members[1].relays = false;
        world.members[BYPASS].relays = false;
        world.send(0, text("old."));
        world.run(secs(1));
        if refreshing {
            world.tap(|_, parcel| if matches!(parcel, Parcel::Datagram { from: 0, .. }) { Fate::Lose } else { Fate::Pass });
            world.request(0, invalidate(RoutingStatus::Tentative));
            world.run(Duration::from_millis(100));
            assert_eq!(world.node(0).routing_table()[0].state, "Awaiting Refresh");
            world.tap(|_, parcel| detour(parcel, true));
        }
        switch.set(true);
        world.request(0, invalidate(RoutingStatus::Bad));
        world.send(0, text("new."));
        world.run(secs(1));
        assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["old.".into()], vec!["new.".into()]));
        // Good again: the table names the new peer and the association to it.
        let entry = world.node(0).routing_table().remove(0);
        assert_eq!((entry.state.as_str(), &entry.peer), ("Established", &Some(identity(BYPASS))));
        let associations = world.node(0).associations();
        let used = associations.iter().find(|one| Some(one.association) == entry.association).unwrap();
        assert_eq!((&used.peer, used.users), (&Some(identity(BYPASS)), 1));
        assert!(associations.iter().filter(|one| one.peer == Some(identity(1))).all(|one| one.users == 0));
    }
}

/// B.6: Bad, and not urgent: no Query before the next message, and that one waits for the answer.
#[test]
fn a_bad_peer_without_urgency_is_replaced_by_the_next_message() {
    let mut world = World::fork();
    let switch = world.reroute();
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    world.send(0, text("old."));
    world.run(secs(1));
    switch.set(true);
    world.request(
        0,
        Request::InvalidateRoutingState { nslp_id: NSLP, session: session(1), mri: down(), status: RoutingStatus::Bad, urgent: false },
    );
    world.run(secs(1));
    assert_eq!(world.datagrams_of(0, MessageType::Query).len(), 1);
    assert!(world.events(0).is_empty(), "G-309");
    world.send(0, text("new."));
    world.run(secs(1));
    assert_eq!((world.payloads(1), world.payloads(BYPASS)), (vec!["old.".into()], vec!["new.".into()]));
}

/// The same peer answers again: it is still the one, and nobody hears of a change.
#[test]
fn a_bad_peer_that_answers_is_the_peer_again() {
    let mut world = World::fork();
    world.members[1].relays = false;
    world.send(0, text("old."));
    world.run(secs(1));
    world.request(0, invalidate(RoutingStatus::Bad));
    world.send(0, text("new."));
    world.run(secs(1));
    assert_eq!(world.payloads(1), ["old.", "new."]);
    assert!(world.events(0).is_empty());
    assert_eq!(world.connects, 1);
}
