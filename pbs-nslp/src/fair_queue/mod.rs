//! Messages that wait for the node to check their signatures, served in turn, so that whoever floods waits for itself.
//!
//! A message waits after GIST has delivered it and before anything of it is decoded or verified: what that costs is what the
//! turns are about. There are three levels of turns, each a deficit round robin by the cost of verification: over the peers
//! as their certificates proved them, then over the hosts that the messages of a peer come from by what they claim, then over
//! the hosts at the other end of the flow. Nobody can take the place of somebody else: a peer that makes up hosts divides its own
//! turn, and a host that is asked for by many flows, or answers them, divides its own.
//!
//! What a message costs is known when it has been checked, so it is charged afterwards ([`FairQueue::charge`]): whoever has
//! had more than its turn waits until the others have had as much.
//!
//! When there is no more room, the newest message goes of those who wait with the most: of the peer that takes up most, the host
//! that does, and there the other end. However many messages an attacker sends, only its own are pushed out.

mod class;

use bytes::Bytes;
use gist::api::{Principal, ReceivedMessage};
use gist::wire::{Direction, Mri, PeerIdentity};

use class::{Class, LEVELS, Name};

/// What a message costs besides its signatures, in the unit of [`FairQueue::charge`].
pub const MESSAGE_COST: u32 = 1;
/// What the verification of one signature of an ordinary key costs (weight 1). Measured: `cargo run --release -p pbs-nslp
/// --example query_cost`.
pub const SIGNATURE_COST: u32 = 8;

/// Octets that an entry counts for besides its payload: the message's other fields, and its places at each level of turns where it
/// is the only one of its peer, with what the allocator adds.
pub const ENTRY_OCTETS: usize = 5120;

/// All who are not authenticated: they may choose any principal, and as many as they like.
const ANYBODY: Principal = Principal([0; 32]);

/// Messages that wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FairQueue {
    limit: usize,
    peers: Class,
    messages: usize,
    turned_away: u64,
}

/// A message whose turn it is, and who is to be charged for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Turn {
    /// The message.
    pub message: ReceivedMessage,
    /// For [`FairQueue::charge`].
    pub account: Account,
}

/// Who is charged for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Account([Name; LEVELS]);

impl FairQueue {
    /// A queue that takes up at most `limit` octets of memory: each message counts for its payload and [`ENTRY_OCTETS`]. Besides,
    /// up to 256 peers, and 64 hosts behind each peer that waits, are remembered while they have had more than their turn, with
    /// less than 1024 octets each. A limit of 0 turns everything away.
    pub fn new(limit: usize) -> Self {
        Self { limit, peers: Class::default(), messages: 0, turned_away: 0 }
    }

    /// Takes a message in, and gives those that had to go for it, this one maybe among them.
    pub fn push(&mut self, message: ReceivedMessage) -> Vec<ReceivedMessage> {
        let account = Account::of(&message);
        self.peers.push(&account.0, own_memory(message));
        self.messages += 1;
        let mut gone = Vec::new();
        while self.peers.octets() > self.limit {
            let Some(message) = self.peers.give_up() else { break };
            self.messages -= 1;
            self.turned_away = self.turned_away.saturating_add(1);
            gone.push(message);
        }
        gone
    }

    /// The message whose turn it is.
    pub fn pop(&mut self) -> Option<Turn> {
        let message = self.peers.pop(0)?;
        self.messages -= 1;
        Some(Turn { account: Account::of(&message), message })
    }

    /// Says what a message has cost: [`MESSAGE_COST`], and [`SIGNATURE_COST`] for each signature, times the weight of its key.
    pub fn charge(&mut self, account: &Account, cost: u32) {
        if self.messages == 0 {
            // Nobody had to wait, so nobody has had more than its turn.
            self.peers = Class::default();
        } else {
            self.peers.charge(&account.0, cost);
        }
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Octets that they count for.
    pub fn octets(&self) -> usize {
        self.peers.octets()
    }

    /// Messages that there was no room for, ever.
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }
}

impl Account {
    fn of(message: &ReceivedMessage) -> Self {
        let peer = if message.authenticated { message.principal } else { ANYBODY };
        let (source, destination, direction) = match &message.mri {
            Mri::PathCoupled(mri) => (mri.source, mri.destination, mri.direction),
            Mri::LooseEnd(mri) => (mri.source, mri.destination, mri.direction),
        };
        let (from, to) = match direction {
            Direction::Downstream => (source, destination),
            Direction::Upstream => (destination, source),
        };
        Self([Name::Peer(peer), Name::Host(from), Name::Host(to)])
    }
}

/// A message that shares no memory with others: a part of a large buffer would keep all of it, and count for little.
fn own_memory(message: ReceivedMessage) -> ReceivedMessage {
    let payload = Bytes::copy_from_slice(&message.payload);
    let peer = PeerIdentity::new(Bytes::copy_from_slice(message.peer.as_bytes())).unwrap_or(message.peer);
    ReceivedMessage { payload, peer, ..message }
}
