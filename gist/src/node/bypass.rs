//! Q-mode messages of applications that this node does not serve, on their way past it (RFC 5971 §4.3.4).
//!
//! Such a message goes on as a packet would: a hop less in its IP header and in its common header, and nothing else changed. No more of it is
//! looked at than the common header and the flow, and that only to tell its sender of what would stop it: packets that the next link cannot
//! take whole, a flow that has no single way, a hop count used up.

use bytes::Bytes;

use super::receive::Received;
use super::receive_query::with_hop_count;
use super::routing_state::{DatagramOrigin, Origin};
use super::{Node, Role};
use crate::time::Instant;
use crate::wire::datagram::{self, MAGIC_LENGTH};
use crate::wire::{CommonHeader, ErrorCause, ErrorInfo, Message, MessageType, Mri, MriFault, VERSION, header_bytes, routing_information};

/// IPv4 header with router alert, or IPv6 header with hop-by-hop options, and UDP header.
const HEADERS: [usize; 2] = [24 + 8, 48 + 8];

/// A flow to so many addresses has one way: prefixes of this length are what routes go by.
const SHORTEST_PREFIX: [u8; 2] = [24, 64];

impl Node {
    /// The message and its header, if it is only on its way past.
    pub(super) fn not_for_us(&self, payload: &Bytes, origin: &DatagramOrigin) -> Option<(Bytes, CommonHeader)> {
        if !origin.intercepted || self.config.role != Role::Router {
            return None;
        }
        let raw = datagram::message(payload)?;
        let header = CommonHeader::from_bytes(header_bytes(&raw)?);
        let travels = matches!(header.message_type, Ok(MessageType::Query | MessageType::Data)) && header.context_free;
        (header.version == VERSION && travels && self.registration(header.nslp_id).is_none()).then_some((raw, header))
    }

    pub(super) fn pass_by(&mut self, raw: &Bytes, header: CommonHeader, origin: &DatagramOrigin, now: Instant) {
        self.counters.unknown_nslp_id += 1;
        let mri = routing_information(raw);
        let hop_count = header.hop_count.checked_sub(1).filter(|left| *left != 0);
        let too_small = self.too_small_link(raw, origin);
        let refusal = match (&mri, hop_count, too_small) {
            (_, None, _) => Some((ErrorCause::HopLimitExceeded, None)),
            (Some(mri), _, _) if is_too_wild(mri) => {
                Some((ErrorCause::MriValidation(MriFault::TooWild), super::error_reply::mri_info(mri, 0)))
            }
            (_, _, Some(mtu)) => Some((ErrorCause::MessageTooLarge, Some(ErrorInfo::LinkMtu(mtu)))),
            _ => None,
        };
        if let Some((cause, info)) = refusal {
            self.counters.not_passed_by += 1;
            return self.refuse_passing(raw, cause, info, origin, now);
        }
        // As any router does with a packet whose time is up, and that may say so by ICMP.
        let ip_ttl = origin.ip_ttl.and_then(|ttl| ttl.checked_sub(1)).filter(|left| *left != 0);
        if let (Some(hop_count), Some(ip_ttl)) = (hop_count, ip_ttl) {
            self.counters.passed_by += 1;
            self.send_on(origin, mri.as_ref(), ip_ttl, with_hop_count(raw, hop_count));
        }
    }

    /// The MTU of the next link if the packet, which must not be fragmented, is longer.
    fn too_small_link(&self, raw: &Bytes, origin: &DatagramOrigin) -> Option<u16> {
        let mtu = self.backend.0.link_mtu(origin.destination)?;
        let headers = if origin.destination.is_ipv4() { HEADERS[0] } else { HEADERS[1] };
        (headers + MAGIC_LENGTH + raw.len() > usize::from(mtu)).then_some(mtu)
    }

    /// Only for the address of the answer more of the message is read than its flow.
    fn refuse_passing(&mut self, raw: &Bytes, cause: ErrorCause, info: Option<ErrorInfo>, origin: &DatagramOrigin, now: Instant) {
        match Message::decode(raw.clone()) {
            Ok(message) => {
                let received = Received { raw: raw.clone(), message, origin: Origin::Datagram(*origin) };
                self.answer(&received, cause, info.into_iter().collect(), now);
            }
            Err(fault) => self.answer_unread(&fault, cause, info, origin, now),
        }
    }
}

/// Whether the flow has more destinations than one way can lead to (G-072).
pub(super) fn is_too_wild(mri: &Mri) -> bool {
    let Mri::PathCoupled(mri) = mri else { return false };
    let shortest = if mri.destination.is_ipv4() { SHORTEST_PREFIX[0] } else { SHORTEST_PREFIX[1] };
    mri.destination_prefix < shortest
}
