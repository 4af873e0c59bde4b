//! Packets that would be dropped, and pass because their interface is in open or observe mode ([`crate::mode`]).

use smoltcp::time::{Duration, Instant};

use crate::counters::Counters;
use crate::mode::{BITS, OBSERVE, TRICKLE, Treatment, treatment};
use crate::packet::IpPacket;
use crate::queue::{Decision, Packet};
use crate::reason::DropReason;

/// One line of the log for each reason in this time.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What has been told of packets that would have been dropped.
#[derive(Debug)]
pub(super) struct Leniency {
    told: [Told; DropReason::ALL.len()],
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    last: Option<Instant>,
    /// Packets since then, of which nothing was said.
    untold: u64,
}

/// How a packet of this mark goes on: if it is observed, without the bits that say so, since those that leave with them are counted as
/// not judged.
pub(super) const fn judged(mark: u32) -> Decision<'static> {
    if mark & BITS == OBSERVE { Decision::AcceptMarked(mark & !BITS) } else { Decision::Accept }
}

impl Default for Leniency {
    fn default() -> Self {
        Self { told: [Told::default(); DropReason::ALL.len()] }
    }
}

impl Leniency {
    /// How a packet goes on that the processor has counted as dropped for `reason`; `None` if it does not.
    pub(super) fn decide(
        &mut self,
        packet: &Packet<'_>,
        reason: DropReason,
        counters: &Counters,
        now: Instant,
    ) -> Option<Decision<'static>> {
        let bytes = packet.len;
        match treatment(packet.mark, reason) {
            Treatment::Drop => None,
            Treatment::Trickle => {
                counters.count_trickled(reason, bytes);
                Some(Decision::AcceptMarked(packet.mark & !BITS | TRICKLE))
            }
            Treatment::Observe => {
                counters.count_would_drop(reason, bytes);
                self.tell(packet, reason, now);
                Some(judged(packet.mark))
            }
        }
    }

    fn tell(&mut self, packet: &Packet<'_>, reason: DropReason, now: Instant) {
        let Some(told) = self.told.get_mut(reason.index()) else { return };
        if told.last.is_some_and(|last| now < last + TELL_EVERY) {
            told.untold = told.untold.saturating_add(1);
            return;
        }
        let flow = IpPacket::parse(packet.payload).ok().and_then(|packet| packet.flow()).map(|flow| flow.to_string());
        let untold = std::mem::take(&mut told.untold);
        told.last = Some(now);
        tracing::warn!(%reason, flow = flow.unwrap_or_default(), untold, interface = packet.output_interface, "WOULD_DROP");
    }
}
