//! Other ways out of a host: a next hop or an uplink besides the routed one, for single flows.
//!
//! Each way has a number, the bits of the packet mark that say so, a routing table of its own, and a routing rule that leads packets
//! with those bits there. Rule and table stand only while a flow is on the way. Packets without the bits are routed as before.
//!
//! ```text
//! 0           everybody's: the host's own addresses
//! 0           with the bits of way 1: table 20547 (0x5043)   protocol 81
//! 1 or 2      …                                              see `routes`
//! ```
//!
//! A way whose link is down has no route, so that its packets go where routing leads.

pub(crate) mod heard;
mod neighbours;
mod next_hop;
mod packer;
mod towards;

pub use neighbours::{Finding, Neighbours};
pub use next_hop::{NextHop, NextHops, restore};
pub use packer::{PackCounters, PackDrop, Packer, PackerError, set_mtu};
pub use towards::Towards;

/// Ways out besides the routed one, at most.
pub const PATHS: usize = 7;

/// The three bits of a packet's mark that hold the number of its way.
pub const MASK: u32 = 0x0700_0000;

/// Number under which rules and routes of ways say whose they are.
pub const PROTOCOL: u8 = 81;

/// The bits of a packet's mark for a way, in the bits that `mask` names; 0 if it has no room for it.
pub const fn mark(mask: u32, path: u8) -> u32 {
    let shifted = (path as u64) << mask.trailing_zeros();
    if shifted <= mask as u64 { shifted as u32 & mask } else { 0 }
}

/// The bits for each way that there is, from way 1 on; 0 for the others.
pub fn marks(mask: u32, ways: usize) -> [u32; PATHS] {
    let mut marks = [0; PATHS];
    marks.iter_mut().zip(1..).take(ways).for_each(|(place, path)| *place = mark(mask, path));
    marks
}

/// The routing table of a way.
const fn table(path: u8) -> u32 {
    crate::routes::TABLE + path as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_its_own_bits_and_ways_that_are_not_there_have_none() {
        assert_eq!(marks(MASK, 3), [0x0100_0000, 0x0200_0000, 0x0300_0000, 0, 0, 0, 0]);
        assert_eq!(marks(MASK, 9), [1, 2, 3, 4, 5, 6, 7].map(|path| path << 24));
        assert_eq!((mark(0x8000_0000, 1), mark(0x8000_0000, 2), mark(0x3, 4)), (0x8000_0000, 0, 0));
    }
}
