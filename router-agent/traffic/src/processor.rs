//! The one interface between a packet queue and what decides about its packets.

use std::net::IpAddr;

use smoltcp::time::Instant;

use crate::ah::Sealing;
use crate::event::Event;
use crate::reason::DropReason;
use crate::update::{Applied, Refused, Update};

/// The queue's name for a packet whose verdict is open: the kernel's number in the lower 32 bits, and above them which of two queues it
/// waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(pub u64);

/// A user of this host, by the number that the kernel knows the sending socket's owner under.
///
/// One person may go under several: who has subordinate numbers (`/etc/subuid`) can send as each of them. So it is good for
/// sharing something out fairly, not for letting anybody do anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u32);

/// What to do with a packet, now.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Let it go on unchanged.
    Accept,
    /// Let it go on with these bytes instead; the bits, if any, are added to its mark so that it is routed again.
    Replace {
        /// The whole new IP packet.
        payload: &'a [u8],
        /// Bits added to the packet's own mark.
        mark: Option<u32>,
    },
    /// Drop it.
    Drop(DropReason),
    /// It goes no further: the processor has done with it what there was to do, and counted it.
    Taken,
    /// No verdict yet: it comes from [`PacketProcessor::poll_released`] under the same id, always.
    Hold,
}

/// What leaves in place of a super-packet, in this order.
#[derive(Debug)]
pub struct Segments<'a> {
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub destination: IpAddr,
    /// Whole IP packets with AH.
    pub packets: &'a Sealing,
    /// Bits added to the super-packet's own mark.
    pub mark: Option<u32>,
}

/// The late verdict on a held packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Released {
    /// Let it go on with these bytes.
    Replace {
        /// The whole new IP packet.
        payload: Vec<u8>,
        /// Bits added to the packet's own mark.
        mark: Option<u32>,
    },
    /// Drop it.
    Drop(DropReason),
}

/// A packet for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival<'a> {
    /// The queue's name for it.
    pub id: PacketId,
    /// Whose it is, if a program of this host sends it and the kernel says so.
    pub user: Option<UserId>,
    /// Whether it has come over a link, where the queue has both ([`PacketProcessor::process_arrived`]).
    pub has_arrived: bool,
    /// Whether its TCP checksum is still to be computed: it comes from a program of this host, through a queue of super-packets.
    pub is_unfinished: bool,
    /// The whole IP packet.
    pub bytes: &'a [u8],
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

    /// The same for a packet that a program of this host sends, if the kernel says whose. Only who shares something out among
    /// users has to tell them apart.
    fn process_sent<'a>(&'a mut self, id: PacketId, user: Option<UserId>, packet: &[u8], now: Instant) -> Verdict<'a> {
        let _ = user;
        self.process(id, packet, now)
    }

    /// The same for a packet that has come over a link, where the queue has both. Only who judges what this host sends has to
    /// tell them apart: what comes to it from outside are errors about that.
    fn process_arrived<'a>(&'a mut self, id: PacketId, packet: &[u8], now: Instant) -> Verdict<'a> {
        self.process(id, packet, now)
    }

    /// How many packets [`process_batch`](Self::process_batch) may be given at once: 1 unless something is gained by more.
    fn batch_size(&self) -> usize {
        1
    }

    /// Judges packets in their order and gives each its verdict with its place among them, before the next one's. The verdicts, and
    /// what is noted and counted, are those of judging one after the other.
    fn process_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        for (at, Arrival { id, user, has_arrived, bytes, .. }) in packets.iter().enumerate() {
            let verdict = if *has_arrived { self.process_arrived(*id, bytes, now) } else { self.process_sent(*id, *user, bytes, now) };
            give(at, verdict);
        }
    }

    /// Judges a TCP super-packet of this host's, whose segments carry at most `largest` octets of data, as if these came one after the
    /// other, if all of them go out now. `None` if that is not so, or it cannot be cut: then nothing has changed.
    ///
    /// Each segment is counted for itself; one that cannot be sealed counts as dropped and does not stand among them.
    fn process_whole<'a>(&'a mut self, packet: &[u8], largest: usize, now: Instant) -> Option<Segments<'a>> {
        let _ = (packet, largest, now);
        None
    }

    /// The next late verdict on a held packet, `None` when there is none left.
    fn poll_released(&mut self) -> Option<(PacketId, Released)>;

    /// The next event for the control side, `None` when there is none left.
    fn poll_event(&mut self) -> Option<Event>;

    /// Ends what is over at `now`: permissions, drains, held packets.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`handle_timeout`](Self::handle_timeout) is due next, `None` for never.
    fn poll_timeout(&self) -> Option<Instant>;
}
