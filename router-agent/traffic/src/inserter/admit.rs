//! What a sender's host looks at before anything else.

use crate::flow::Flow;
use crate::packet::IpPacket;
use crate::reason::DropReason;

/// What can be sent at all: a whole datagram without AH of somebody else's, without Fragment header (no verifier takes one,
/// see [`crate::ah::policy`]) and without a source route.
pub(super) fn admit(bytes: &[u8]) -> Result<(IpPacket<'_>, Flow), DropReason> {
    let packet = IpPacket::parse(bytes)?;
    if packet.has_fragment_header() {
        return Err(DropReason::FragmentNotReassembled);
    }
    if packet.ah().is_some() {
        // Its protocol is AH itself, for which no policy asks.
        return Err(DropReason::NotAsked);
    }
    if packet.is_source_routed() {
        return Err(DropReason::SourceRoute);
    }
    let flow = packet.flow().ok_or(DropReason::Malformed)?;
    Ok((packet, flow))
}
