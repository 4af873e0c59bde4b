//! Whether an error is believed, and what MTU follows from it.

use smoltcp::time::Instant;

use super::quote::{Kind, Quote, QuotingError};
use super::translate;
use crate::checks::Checks;
use crate::flow::Flow;
use crate::reason::DropReason;
use crate::table::inbound::{InboundTable, Key};

/// Numbers back from the last one that count as used lately: what a fast flow has under way, and no more.
const RECENT: u32 = 65_536;
/// No IPv4 link carries less (RFC 791 §3.2).
const LEAST_IPV4_LINK: u32 = 68;
/// What is sent at the least, whatever an error says: on IPv4 what every host takes, on IPv6 what every link carries.
const IPV4_FLOOR: u32 = 576;
const IPV6_FLOOR: u32 = 1280;

/// No error is longer (RFC 1812 §4.3.2.3, RFC 4443 §2.4), so none ever needs fragments.
const LONGEST_IPV4: usize = 576;
const LONGEST_IPV6: usize = 1280;
/// What a router passes on of one at the most: both IP headers, the largest AH, and room for a few options.
const LONGEST_CUT: usize = 256;

/// Octets that AH may come to take in the packets of this host, at the most: those of the protection that a flow may escalate
/// to, by which the MTUs of routes are lowered too. A path MTU that had room only for the present AH would break the flow's
/// connections in the moment in which it escalates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Room {
    /// On IPv4.
    pub ipv4: u32,
    /// On IPv6.
    pub ipv6: u32,
}

impl Room {
    /// For signatures of 64 octets.
    pub const LARGEST: Self = Self { ipv4: 76, ipv6: 80 };

    const fn of(self, is_ipv6: bool) -> u32 {
        if is_ipv6 { self.ipv6 } else { self.ipv4 }
    }
}

/// The MTU for packets without AH that follows from an error, in octets; `present` is what AH takes now.
///
/// `None` if it can be no true one: not less than the packet's own length, or less than any link has. Below the floor nothing is
/// lowered any further.
pub fn path_mtu(mtu: u32, total_len: u32, present: u32, room: Room, is_ipv6: bool) -> Option<u32> {
    let floor = if is_ipv6 { IPV6_FLOOR } else { IPV4_FLOOR };
    can_be_true(mtu, total_len, is_ipv6).then(|| mtu.saturating_sub(room.of(is_ipv6).max(present)).max(floor))
}

/// Whether a link can have this MTU that has not carried a packet of `total_len` octets.
const fn can_be_true(mtu: u32, total_len: u32, is_ipv6: bool) -> bool {
    // RFC 8201 §4: below the least MTU of IPv6 an error is discarded.
    let least = if is_ipv6 { IPV6_FLOOR } else { LEAST_IPV4_LINK };
    mtu >= least && mtu < total_len
}

/// Whether `number` is among the last that were used before `highest`, itself included.
pub(crate) const fn is_recent(number: u32, highest: u32) -> bool {
    number > 0 && number <= highest && highest - number < RECENT
}

/// What a node asks of an error about a flow, beside the live association: that it is no longer than errors are, the packet one of
/// the flow's and no longer than the `longest` one, and the number one that the flow has used lately.
///
/// # Errors
///
/// Why the error is not believed.
pub(crate) fn believe(error: &QuotingError<'_>, flow: &Flow, highest: u32, longest: u32) -> Result<(), DropReason> {
    if !error.quote.may_be_of(flow) || error.destination != flow.source {
        Err(DropReason::FlowMismatch)
    } else {
        check_quote(error, highest, longest)
    }
}

/// The same without the flow.
fn check_quote(error: &QuotingError<'_>, highest: u32, longest: u32) -> Result<(), DropReason> {
    if error.len > if error.destination.is_ipv6() { LONGEST_IPV6 } else { LONGEST_IPV4 } {
        Err(DropReason::ErrorTooLarge)
    } else if !is_recent(error.quote.number, highest) || error.quote.total_len > longest {
        Err(DropReason::ImplausibleError)
    } else {
        Ok(())
    }
}

/// Whether a router lets an error pass against the direction of a flow that it knows, or has seen inside a tunnel to a relay
/// . What passes stands in `out`.
///
/// # Errors
///
/// Why it does not.
pub(crate) fn admit(
    table: &mut InboundTable,
    error: &QuotingError<'_>,
    checks: &dyn Checks,
    out: &mut Vec<u8>,
    now: Instant,
) -> Result<(), DropReason> {
    let quote = &error.quote;
    let (key, inside) = match of_flow(table, error, checks, now) {
        Ok(key) => (key, None),
        // It may have passed inside a packet to a relay, also of a flow that came this way itself before.
        Err(reason) => (of_tunnel(table, error, checks, now).unwrap_or(Err(reason))?, Some((quote.destination, quote.spi))),
    };
    if let Kind::TooBig(mtu) = error.kind
        && !can_be_true(mtu, quote.total_len, quote.destination.is_ipv6())
    {
        return Err(DropReason::ImplausibleError);
    }
    translate::cut(error, out).ok_or(DropReason::Malformed)?;
    if out.len() > LONGEST_CUT {
        Err(DropReason::ErrorTooLarge)
    } else if table.take_error(key, inside, error.kind, now) {
        Ok(())
    } else {
        Err(DropReason::ErrorRate)
    }
}

/// The permission of a flow that came this way.
fn of_flow(table: &InboundTable, error: &QuotingError<'_>, checks: &dyn Checks, now: Instant) -> Result<Key, DropReason> {
    let key = (error.quote.destination, error.quote.spi);
    let entry = table.get(key).ok_or(DropReason::UnknownSpi)?;
    let highest = u32::try_from(entry.association.window().highest()).unwrap_or(u32::MAX);
    if !checks.is_live(entry.expires_at, now) {
        return Err(DropReason::Expired);
    }
    // What has not passed here cannot have been too big behind here.
    believe(error, &entry.flow, highest, entry.longest).map(|()| key)
}

/// That of the tunnel in which the packet came this way, if it did.
fn of_tunnel(table: &InboundTable, error: &QuotingError<'_>, checks: &dyn Checks, now: Instant) -> Option<Result<Key, DropReason>> {
    let Quote { source, destination, spi, .. } = error.quote;
    let (key, inside) = table.tunnel_of(source, (destination, spi))?;
    let expires_at = table.get(key)?.expires_at;
    Some(if !checks.is_live(expires_at, now) {
        Err(DropReason::Expired)
    } else if error.destination != source {
        Err(DropReason::FlowMismatch)
    } else {
        check_quote(error, inside.highest, inside.longest).map(|()| key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_mtu_leaves_room_for_the_largest_protection_and_never_goes_below_the_floor() {
        let mtu = |mtu, present, is_ipv6| path_mtu(mtu, 1500, present, Room::LARGEST, is_ipv6);
        assert_eq!((mtu(1400, 28, false), mtu(1400, 32, true)), (Some(1324), Some(1320)));
        let hmac_only = Room { ipv4: 28, ipv6: 32 };
        assert_eq!(path_mtu(1400, 1500, 76, hmac_only, false), Some(1324), "what AH takes already counts in any case");
        assert_eq!((mtu(600, 28, false), mtu(68, 28, false)), (Some(576), Some(576)));
        assert_eq!((mtu(1300, 32, true), mtu(1280, 32, true)), (Some(1280), Some(1280)));
        assert_eq!((mtu(67, 28, false), mtu(0, 28, false), mtu(1279, 32, true)), (None, None, None));
        assert_eq!((mtu(1500, 28, false), mtu(u32::MAX, 32, true)), (None, None), "the packet would have fitted");
    }

    #[test]
    fn only_numbers_used_lately_are_believed() {
        assert!(is_recent(1, 1) && is_recent(5, 9) && is_recent(1, RECENT));
        assert!(!is_recent(0, 9) && !is_recent(10, 9) && !is_recent(1, RECENT + 1));
        assert!(is_recent(u32::MAX, u32::MAX));
    }
}
