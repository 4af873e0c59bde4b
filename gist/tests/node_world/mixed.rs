//! Applications that take TLS and TCP alone: worlds of `node_mixed` and `node_mixed_refresh`.

use gist::api::{Indication, NetworkEvent, SendMessage, TransferAttributes};
use gist::node::NodeConfig;
use gist::wire::{MessageType, Profile};

use super::{BYPASS, World, passing, text};

/// A message that may go to anybody.
pub fn open(payload: &'static str) -> SendMessage {
    SendMessage { attributes: TransferAttributes { reliable: true, secure: false }, ..text(payload) }
}

/// The chain, of which only the first link is used.
pub fn link(change: impl Fn(usize, &mut NodeConfig)) -> World {
    let mut world = World::chain_with(change);
    world.members[1].relays = false;
    world
}

/// Two routers on the sender's link: the first over TLS and TCP, the second over TCP alone. Neither passes messages on.
pub fn rivals() -> World {
    let mut world = World::fork_with(|number, config| {
        let both = vec![Profile::tls_over_tcp(), Profile::tcp()];
        config.registrations[0].offer = if number == BYPASS { vec![Profile::tcp()] } else { both };
    });
    world.members[1].relays = false;
    world.members[BYPASS].relays = false;
    world
}

/// The second router gets the sender's latest Query as well.
pub fn also_ask_the_rival(world: &mut World) {
    let (_, _, query) = world.datagrams_of(0, MessageType::Query).pop().unwrap();
    world.inject(BYPASS, passing("10.0.1.1:270", &query));
}

/// What a node was told of its peers, and whether the new one is authenticated.
pub fn told(world: &World, number: usize) -> Vec<(NetworkEvent, bool)> {
    let pick = |indication: &Indication| match indication {
        Indication::NetworkNotification { event, authenticated, .. } => Some((*event, *authenticated)),
        _ => None,
    };
    world.members[number].indications.iter().filter_map(|(_, indication)| pick(indication)).collect()
}
