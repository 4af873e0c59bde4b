//! What PBS asks of a packet beyond RFC 4302.

use crate::packet::IpPacket;
use crate::reason::DropReason;
use crate::replay::Numbering;

/// Whether PBS takes a packet that RFC 4302 has let pass, under an association of this numbering.
///
/// # Errors
///
/// * extended numbers: their high half cannot be learned by a router that joins in mid-flow;
/// * a source route, or a routing header with segments left: a node on the way cannot always tell what the packet will
///   be;
/// * a fragment: only whole datagrams are judged;
/// * any IPv6 Fragment header, that of an atomic fragment too (RFC 6946, RFC 8200 §4.5): it is not under the ICV (RFC 4302
///   appendix A2), so that anybody on the way could put some in and use up the volume with them. Reassembly takes one out;
///   what carries one behind it did not leave its sender like that.
pub fn check(packet: &IpPacket<'_>, numbering: Numbering) -> Result<(), DropReason> {
    if numbering == Numbering::Extended {
        Err(DropReason::ExtendedSequence)
    } else if packet.has_fragment_header() {
        Err(DropReason::FragmentNotReassembled)
    } else if packet.is_source_routed() {
        Err(DropReason::SourceRoute)
    } else {
        Ok(())
    }
}
