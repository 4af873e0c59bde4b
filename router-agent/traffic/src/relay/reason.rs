//! Why a relay does not forward, and how often.

use crate::counters::{Count, Pair};
use crate::reason::reasons;

reasons! {
/// Why the packet inside a permitted one is not forwarded. Both are gone then.
RelayDrop {
    /// There is no well-formed packet of the right IP version inside, or nothing but a part of one.
    MalformedInside = "malformed_inside",
    /// A part of a datagram is inside that is none with AH, or a first part that is too short to tell.
    FragmentInside = "fragment_inside",
    /// It is itself packed into another, with AH or without.
    NestedTunnel = "nested_tunnel",
    /// Its source is not that of the packet around it, which alone is proved.
    SpoofedSource = "spoofed_source",
    /// Its sender may send to this node, but not through it.
    NotAdmitted = "not_admitted",
    /// It goes where this relay does not forward to: outside the configured networks, or to no single other node.
    DestinationNotAllowed = "destination_not_allowed",
    /// It goes to this relay itself.
    ToRelay = "to_relay",
    /// It has a source route or a routing header with segments left.
    SourceRouteInside = "source_route_inside",
    /// It has neither AH nor is it signalling: without a permission of its own nobody sends behind a relay either.
    NeitherAhNorSignalling = "neither_ah_nor_signalling",
    /// Its hop limit ends here.
    HopLimit = "hop_limit",
    /// A router on the way was congested, and the packet's ends do not understand that (RFC 6040 §4.2).
    CongestedInside = "congested_inside",
    /// An IPv4 packet with AH that may be fragmented and has the identification 0: the kernel would give it another, which AH does not
    /// allow. Senders of this project send none.
    NoIdentification = "no_identification",
    /// More packets a second than a sender may have forwarded, or more senders at once than are told apart.
    RelayRate = "relay_rate",
    /// Longer than the next link carries; its sender is told.
    TooBig = "too_big",
    /// This node has no route to its destination.
    NoRoute = "no_route",
    /// The link's queue or the socket's had no room.
    LinkBusy = "link_busy",
    /// The packet filter of this node does not let it out: it goes to this node itself, or a table of another program forbids it.
    Filtered = "filtered",
    /// The kernel did not take it for another reason, which is in the log.
    NotSent = "not_sent",
}
}

/// What a relay has done, shared with whoever shows it.
#[derive(Debug, Default)]
pub struct RelayCounters {
    forwarded: Pair,
    dropped: [Pair; RelayDrop::ALL.len()],
    told_too_big: Pair,
}

impl RelayCounters {
    /// Counts an inner packet that was sent on.
    pub(super) fn count_forwarded(&self, bytes: usize) {
        self.forwarded.add(bytes);
    }

    /// Counts one that was not; `bytes` are those of the packet around it, without its AH.
    pub(super) fn count_dropped(&self, reason: RelayDrop, bytes: usize) {
        if let Some(pair) = self.dropped.get(reason.index()) {
            pair.add(bytes);
        }
    }

    /// Counts an ICMP error by which a sender was told about size.
    pub(super) fn count_told_too_big(&self, bytes: usize) {
        self.told_too_big.add(bytes);
    }

    /// Inner packets sent on so far.
    pub fn forwarded(&self) -> Count {
        self.forwarded.read()
    }

    /// What was dropped for `reason` so far.
    pub fn dropped(&self, reason: RelayDrop) -> Count {
        self.dropped.get(reason.index()).map(Pair::read).unwrap_or_default()
    }

    /// ICMP errors about size that were sent.
    pub fn told_too_big(&self) -> Count {
        self.told_too_big.read()
    }
}
