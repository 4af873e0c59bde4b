//! Names that are this node's own, and names that are no application's (RFC 5971 §3.5, A.3.1.3; G-346).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod node_world;

use gist::api::PathId;
use gist::node::{NodeConfig, Registration};
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
