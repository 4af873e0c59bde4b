//! Whom a node knows. What anybody can send in made-up names must keep nobody out whose name need not be made up.
//!
//! Two sets of addresses, filled from packets: who has spoken over an association whose peer this node has called or authenticated, and
//! to whom it has just sent a GIST datagram, as it does in the handshake that precedes an association. Each of their addresses has buckets
//! of its own, which a flood in its very name takes and no other; the peers share theirs with nobody but, of datagrams, one beside with
//! each other; those written to share theirs among themselves, since a Query in anybody's name has it answered. Full sets take in nobody else: who is in none goes by the buckets of
//! strangers. The peers outlive their table ([`super::kept`]).

use super::expression::{Expression, Unit};
use super::key::Key;
use super::plan::{Bucket, Exemptions, Family, Interface, Rule, Set, Table};

/// Who has spoken over an association lately.
pub(super) const PEERS: &str = "peers";
/// For how long after that, in milliseconds: a day, so that a neighbour that was away comes back through a flood.
const PEER_KEPT: u64 = 24 * 60 * 60 * 1000;
/// To whom this node has sent a GIST datagram.
const WRITTEN_TO: &str = "written-to";
/// For how long after that, in milliseconds: a few tries of TCP.
const WRITTEN_TO_KEPT: u64 = 20_000;

/// The chains through which segments go that open associations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Openings {
    /// Of a peer.
    pub(super) of_a_peer: &'static str,
    /// Of one written to.
    pub(super) of_one_written_to: &'static str,
}

/// The sets themselves.
pub(super) fn sets() -> [Set; 2] {
    [(PEERS, PEER_KEPT), (WRITTEN_TO, WRITTEN_TO_KEPT)].map(|(name, timeout)| Set::new(name.into(), Key::SourceAddress, timeout))
}

/// Keeps the source of a segment of an association, and goes on.
pub(super) fn speaks(family: Family) -> Rule {
    let keep = vec![Expression::Remember { set: PEERS.into(), timeout: PEER_KEPT }];
    Rule::new("a peer speaks", [remote(Interface::Arriving, family), keep])
}

/// Keeps the destination of a GIST datagram, and goes on.
pub(super) fn written_to(test: Vec<Expression>, family: Family) -> Rule {
    let keep = vec![Expression::Remember { set: WRITTEN_TO.into(), timeout: WRITTEN_TO_KEPT }];
    Rule::new("written to", [test, remote(Interface::Leaving, family), keep])
}

/// What opens associations, or answers that, goes by these chains and not by those of strangers.
pub(super) fn openings(chains: Openings, interface: Interface, family: Family) -> [Rule; 2] {
    let to = |chain: &'static str| vec![Expression::Jump(chain.into())];
    [
        Rule::new("of a peer", [is_in(PEERS, interface, family), to(chains.of_a_peer)]),
        Rule::new("of one written to", [is_in(WRITTEN_TO, interface, family), to(chains.of_one_written_to)]),
    ]
}

/// Puts a rule before those of the chain that has the bucket of all signalling: a peer's datagrams pass within a bucket of its own,
/// and one that is as large for all peers together as what the node can work through. What is above those goes on as a stranger's.
pub(super) fn signalling(chain: &'static str, interface: Interface, exemptions: &Exemptions, then: Expression, table: &mut Table) {
    let family = table.family;
    let mut within = |name: String, key: Key, bucket: Bucket| {
        let set = Set::of_buckets(name.into(), key, bucket);
        let limit = Expression::Limit { set: set.name.clone(), timeout: set.timeout, bucket, unit: Unit::Packets };
        table.sets.push(set);
        [key.load(family), vec![limit]].concat()
    };
    let of_one = within(format!("{chain}-of-peer"), Key::Peer(interface), exemptions.signalling_of_a_peer);
    let of_all = within(format!("{chain}-of-peers"), Key::Interface(interface), exemptions.signalling_of_peers);
    let rule = Rule::new("of a peer", [is_in(PEERS, interface, family), of_one, of_all, vec![Expression::Counter, then]]);
    table.put_first(chain, [rule]);
}

fn is_in(set: &'static str, interface: Interface, family: Family) -> Vec<Expression> {
    [remote(interface, family), vec![Expression::Known(set.into())]].concat()
}

/// The other end's address.
fn remote(interface: Interface, family: Family) -> Vec<Expression> {
    match interface {
        Interface::Arriving => Key::SourceAddress.load(family),
        Interface::Leaving => Key::DestinationAddress.load(family),
    }
}
