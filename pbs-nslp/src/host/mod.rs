//! A host: sender of some flows, receiver of others, and of connections both at once.
//!
//! TCP, SCTP and DCCP need both directions, and each direction is a session of its own with a permission of its own.
//! A host that grants such a flow asks for its reverse by itself; a host that has asked for such a flow grants its reverse by
//! itself, for as long as its own permission lives.
//!
//! After every `handle_*` and every wish or order, drain [`Host::poll_output`] to `None`; then sleep until
//! [`Host::poll_timeout`].

mod part;
mod reverse;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use gist::api::{Indication, PathId, ReceivedMessage};
use gist::time::Instant;
use gist::wire::{Direction, SessionId};

use crate::datapath::Event;
use crate::fair_queue::MESSAGE_COST;
use crate::flow::FlowId;
use crate::output::Output;
use crate::receiver::{Change, Decision, Receiver, Strength, Terms};
use crate::sender::{Sender, WantError, Way};
use crate::wire::Volume;

use reverse::Pair;

pub use part::{Part, part};

/// Both parts of a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    sender: Sender,
    receiver: Receiver,
    /// What connects the two directions of a connection, by the flow that this host sends. At most one for each session.
    pairs: BTreeMap<FlowId, Pair>,
    /// Connections that something may have happened to, by the flow that this host sends.
    touched: BTreeSet<FlowId>,
    outputs: VecDeque<(Part, Output)>,
}

impl Host {
    /// A host of these two parts, which have the same addresses and have done nothing yet.
    pub fn new(sender: Sender, receiver: Receiver) -> Self {
        Self { sender, receiver, pairs: BTreeMap::new(), touched: BTreeSet::new(), outputs: VecDeque::new() }
    }

    /// The sender, to be looked at.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The receiver, to be looked at.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Takes what GIST says.
    pub fn handle_gist(&mut self, indication: Indication, now: Instant) {
        match part(&indication) {
            Part::Sender => self.sender.handle_gist(indication, now),
            Part::Receiver => self.receiver.handle_gist(indication, now),
        }
        self.settle(now);
    }

    /// Counts a message as refused that there was no room for where it had to wait.
    pub fn turn_away(&mut self, message: &ReceivedMessage) {
        match message.mri.direction() {
            Direction::Downstream => self.receiver.turn_away(),
            Direction::Upstream => self.sender.turn_away(),
        }
    }

    /// What the messages taken since this was asked last have cost, as [`crate::fair_queue::FairQueue::charge`] counts it for one.
    pub fn take_cost(&mut self) -> u32 {
        // Either part counts the message itself, and only one of them has had it.
        self.sender.take_cost().saturating_add(self.receiver.take_cost()).saturating_sub(MESSAGE_COST)
    }

    /// Takes an answer or an event of the packet side: of what leaves for [`Part::Sender`], of what arrives for
    /// [`Part::Receiver`].
    pub fn handle_datapath(&mut self, part: Part, event: Event, now: Instant) {
        match part {
            Part::Sender => self.sender.handle_datapath(event, now),
            Part::Receiver => self.receiver.handle_datapath(event, now),
        }
        self.settle(now);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sender.handle_timeout(now);
        self.receiver.handle_timeout(now);
        self.settle(now);
    }

    /// Says what time it is, in Unix seconds; to be repeated once in a while.
    pub fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.sender.set_wall_clock(unix_seconds, now);
        self.receiver.set_wall_clock(unix_seconds, now);
    }

    /// Replaces the addresses of both parts. What is under way goes on.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) {
        self.sender.set_addresses(addresses.to_vec());
        self.receiver.set_addresses(addresses.to_vec());
    }

    /// Says which ways out there are besides the routed one: [`Sender::set_ways`].
    pub fn set_ways(&mut self, ways: Vec<Way>) {
        self.sender.set_ways(ways);
    }

    /// Has flows leave a way that is dead: [`Sender::way_is_dead`].
    pub fn way_is_dead(&mut self, path: PathId, now: Instant) {
        self.sender.way_is_dead(path, now);
        self.settle(now);
    }

    /// Asks whether a flow's receiver is there: [`Sender::probe`].
    pub fn probe(&mut self, flow: FlowId, now: Instant) {
        self.sender.probe(flow, now);
        self.settle(now);
    }

    /// Has certificates verified anew, as after a change of anchors or revocation lists, and ends what was signed by those that are
    /// believed no more.
    pub fn reconsider_certificates(&mut self, now: Instant) {
        self.sender.reconsider_certificates(now);
        self.receiver.reconsider_certificates(now);
        self.settle(now);
    }

    /// Asks for a permission to send, or for more of it: [`Sender::want`].
    ///
    /// # Errors
    /// [`WantError`] says why the wish is not taken up.
    pub fn want(&mut self, flow: FlowId, volume: Volume, now: Instant) -> Result<(), WantError> {
        self.sender.want(flow, volume, now)?;
        self.adopt(flow);
        self.settle(now);
        Ok(())
    }

    /// Gives a permission back: [`Sender::release`]. If it is the reverse of a flow that this host receives, it is not asked
    /// for again as long as that one lives.
    pub fn release(&mut self, flow: FlowId, now: Instant) {
        self.give_up(flow);
        self.sender.release(flow, now);
        self.settle(now);
    }

    /// Takes permissions back: [`Receiver::revoke`]. If it is the reverse of a flow that this host sends, it is not granted
    /// again as long as that one lives.
    pub fn revoke(&mut self, flow: FlowId, now: Instant) -> bool {
        self.give_up(flow.reversed());
        let revoked = self.receiver.revoke(flow, now);
        self.settle(now);
        revoked
    }

    /// Ends what [`Host::revoke`] said about Queries to come: [`Receiver::lift`].
    pub fn lift(&mut self, flow: &FlowId, now: Instant) -> bool {
        self.receiver.lift(flow, now)
    }

    /// Changes a live permission: [`Receiver::change`].
    pub fn change(&mut self, flow: FlowId, terms: Terms, now: Instant) -> bool {
        let changed = self.receiver.change(flow, terms, now);
        self.settle(now);
        changed
    }

    /// Changes parts of a live permission: [`Receiver::amend`].
    pub fn amend(&mut self, flow: FlowId, change: Change, now: Instant) -> bool {
        let changed = self.receiver.amend(flow, change, now);
        self.settle(now);
        changed
    }

    /// Begins another epoch of a live permission: [`Receiver::rekey`].
    pub fn rekey(&mut self, flow: FlowId, strength: Strength, now: Instant) -> bool {
        let begun = self.receiver.rekey(flow, strength, now);
        self.settle(now);
        begun
    }

    /// Takes the answer to [`Output::Ask`]: [`Receiver::decide`].
    pub fn decide(&mut self, flow: FlowId, session: SessionId, decision: Decision, now: Instant) {
        self.receiver.decide(flow, session, decision, now);
        self.settle(now);
    }

    /// Gives back and takes back everything before the host stops (FS-60, FR-60).
    pub fn shutdown(&mut self, now: Instant) {
        self.sender.shutdown(now);
        self.receiver.shutdown(now);
        self.settle(now);
    }

    /// The next thing to do; a command is for the packets that leave or for those that arrive, as the part says.
    pub fn poll_output(&mut self) -> Option<(Part, Output)> {
        self.outputs.pop_front()
    }

    /// When [`Host::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.sender.poll_timeout(), self.receiver.poll_timeout()].into_iter().flatten().min()
    }
}
