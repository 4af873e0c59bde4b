//! What becomes of traffic without permission on its way through a router: the mode of the interface by which it leaves.
//!
//! The filter rules write the mode into two bits of the packet's mark before the queue, and the worker reads it there: so the name of
//! an interface is the kernel's business alone, and an interface that comes later has its mode at once. The bits are set for every
//! forwarded packet if any interface has another mode than closed, and cleared before it leaves.

use crate::reason::DropReason;

/// The bits of the packet mark that hold the mode while a packet is forwarded.
pub const BITS: u32 = 0x3000_0000;
/// It leaves by an interface in open mode.
pub const OPEN: u32 = 0x1000_0000;
/// It leaves by an interface in observe mode.
pub const OBSERVE: u32 = 0x2000_0000;
/// It leaves by an interface in open mode, has no permission, and is to be held to its trickle.
pub const TRICKLE: u32 = 0x3000_0000;

/// What to do with a packet that has no right to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Drop it.
    Drop,
    /// Let it pass within the trickle, whose buckets the filter rules keep.
    Trickle,
    /// Let it pass, and say why it would have been dropped.
    Observe,
}

/// What to do with a packet of this mark that would be dropped for this reason. An open interface lets only that trickle which claims
/// no permission: what claims one and is wrong is an attack in any mode (P-192).
pub const fn treatment(mark: u32, reason: DropReason) -> Treatment {
    match (mark & BITS, reason) {
        (OBSERVE, _) => Treatment::Observe,
        (OPEN, DropReason::NoPermission) => Treatment::Trickle,
        _ => Treatment::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_claims_no_permission_trickles_and_what_is_observed_passes_whatever_is_wrong() {
        for reason in DropReason::ALL {
            assert_eq!(treatment(0, *reason), Treatment::Drop);
            assert_eq!(treatment(TRICKLE, *reason), Treatment::Drop);
            assert_eq!(treatment(OBSERVE | 7, *reason), Treatment::Observe);
            let open = if *reason == DropReason::NoPermission { Treatment::Trickle } else { Treatment::Drop };
            assert_eq!(treatment(OPEN | 0x0800_0000, *reason), open);
        }
    }
}
