//! The one interface between a packet queue and what decides about its packets.

use smoltcp::time::Instant;

use crate::event::Event;
use crate::reason::DropReason;
use crate::update::{Applied, Refused, Update};

/// The queue's name for a packet whose verdict is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub u32);

/// What to do with a packet, now.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Let it go on unchanged.
    Accept,
    /// Let it go on with these bytes instead; the mark, if any, is set on it so that it is routed again.
    Replace {
        /// The whole new IP packet.
        payload: &'a [u8],
        /// Packet mark.
        mark: Option<u32>,
    },
    /// Drop it.
    Drop(DropReason),
    /// No verdict yet: it comes from [`PacketProcessor::poll_released`] under the same id, always.
    Hold,
}

/// The late verdict on a held packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// Let it go on with these bytes.
    Replace {
        /// The whole new IP packet.
        payload: Vec<u8>,
        /// Packet mark.
        mark: Option<u32>,
    },
    /// Drop it.
    Drop(DropReason),
}

/// Decides about packets against a table that only it owns.
///
/// Contract: after every `apply`, `process` or `handle_timeout`, drain [`poll_released`](Self::poll_released) and
/// [`poll_event`](Self::poll_event) to `None`; then sleep until [`poll_timeout`](Self::poll_timeout).
/// A processor counts each final verdict once in its [`Counters`](crate::counters::Counters); the queue's owner
/// counts only packets that never reach a processor.
pub trait PacketProcessor: Send {
    /// Carries out a table update. A refused update changes nothing.
    fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused>;

    /// Judges one whole IP packet as the queue delivered it.
    fn process<'a>(&'a mut self, id: PacketId, packet: &[u8], now: Instant) -> Verdict<'a>;

    /// The next late verdict on a held packet, `None` when there is none left.
    fn poll_released(&mut self) -> Option<(PacketId, Released)>;

    /// The next event for the control side, `None` when there is none left.
    fn poll_event(&mut self) -> Option<Event>;

    /// Ends what is over at `now`: permissions, drains, held packets.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`handle_timeout`](Self::handle_timeout) is due next, `None` for never.
    fn poll_timeout(&self) -> Option<Instant>;
}
