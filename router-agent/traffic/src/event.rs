//! What a packet processor tells the control side.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::flow::Flow;

/// Something on the packet side that signalling should know.
///
/// Events are hints, not commands: they are rate-bounded, may be lost when their queue is full, and change no state here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Traffic of a flow without permission wants out and policy says to ask (sender; FS-01).
    /// Raised again once a second for as long as packets of the flow are held and nobody has answered: it may have been lost.
    FirstPacket(Flow),
    /// The path to an address carries no longer packets than this, AH included, in octets (sender; X-59).
    PathMtu {
        /// Where the path leads.
        destination: IpAddr,
        /// The least MTU of its links as far as it is known.
        mtu: u32,
        /// The way out that it begins with; 0 is where routing leads.
        way: u8,
    },
    /// A sender has used up three quarters of what is allowed, or half of the numbers: time to ask for more (X-36, X-72, FS-33).
    /// Raised once for each allowed volume, and once for the numbers.
    NearlyUsedUp {
        /// The permission's flow.
        flow: Flow,
        /// The permission's SPI.
        spi: u32,
    },
    /// Two packets under one number, both with a right ICV: somebody beside the sender holds the key (receiver; E4, FR-21).
    SecondHolder {
        /// The permission's flow.
        flow: Flow,
        /// The permission's SPI.
        spi: u32,
    },
    /// A packet would go past the allowed volume. At a router or receiver its ICV was right, so a key holder
    /// sent it (FN-43, FR-24); at a sender it is held and an extension should be asked for (FS-41, FS-43).
    OverBudget {
        /// The permission's flow.
        flow: Flow,
        /// The permission's SPI.
        spi: u32,
    },
}

/// Events that wait to be polled at most.
pub(crate) const MAX_WAITING: usize = 1024;

/// Adds an event unless too many wait already.
pub(crate) fn push_bounded(events: &mut VecDeque<Event>, event: Event) {
    if events.len() < MAX_WAITING {
        events.push_back(event);
    } else {
        tracing::debug!(?event, "the control side does not keep up: event lost");
    }
}
