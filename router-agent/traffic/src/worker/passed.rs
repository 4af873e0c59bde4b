//! Which packets were to pass lately, so that a verdict which the kernel refuses afterwards is not counted as one that took effect.

use crate::processor::PacketId;
use crate::queue::SECOND;

/// The last packets that were to pass, with the bytes that they were counted with: of each of a worker's two queues as many as wait in one
/// at the most, since a refusal comes behind no more packets than waited when the kernel spoke it.
#[derive(Debug)]
pub(super) struct Passed {
    /// Places of one queue.
    each: usize,
    /// By the lowest bits of their numbers, which the kernel counts up for each queue.
    places: Vec<Option<(PacketId, usize)>>,
}

impl Passed {
    /// None yet, of queues for so many packets.
    pub(super) fn new(capacity: u32) -> Self {
        let each = usize::try_from(capacity).unwrap_or(0).max(1);
        Self { each, places: vec![None; each.saturating_mul(2)] }
    }

    pub(super) fn remember(&mut self, id: PacketId, bytes: usize) {
        if let Some(place) = self.place(id) {
            *place = Some((id, bytes));
        }
    }

    /// Takes a packet out; `None` if it was not to pass, or that was too long ago.
    pub(super) fn take(&mut self, id: PacketId) -> Option<usize> {
        let (_, bytes) = self.place(id)?.take_if(|(remembered, _)| *remembered == id)?;
        Some(bytes)
    }

    fn place(&mut self, id: PacketId) -> Option<&mut Option<(PacketId, usize)>> {
        let of_kernel = usize::try_from(id.0 & u64::from(u32::MAX)).unwrap_or(0);
        let first = if id.0 & SECOND == 0 { 0 } else { self.each };
        self.places.get_mut(first + of_kernel % self.each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_out_once_and_only_while_no_later_one_has_its_place() {
        let mut passed = Passed::new(64);
        passed.remember(PacketId(5), 100);
        assert_eq!(passed.take(PacketId(6)), None);
        assert_eq!(passed.take(PacketId(5)), Some(100));
        assert_eq!(passed.take(PacketId(5)), None);
        passed.remember(PacketId(5), 100);
        let later = PacketId(5 + 64);
        passed.remember(later, 200);
        assert_eq!((passed.take(PacketId(5)), passed.take(later)), (None, Some(200)));
    }

    /// Counters add up (issue 5): the kernel's no to the first verdict comes behind all that waited then, in the longest queue that may be
    /// configured, and the packets of the other queue have numbers of their own.
    #[test]
    fn a_refusal_behind_a_whole_queue_still_finds_its_packet_whatever_has_passed_by_the_other_queue() {
        const LONGEST: u32 = 65_536;
        let mut passed = Passed::new(LONGEST);
        for number in 1..=u64::from(LONGEST) {
            passed.remember(PacketId(number), 100);
            passed.remember(PacketId(SECOND | number), 200);
        }
        assert_eq!((passed.take(PacketId(1)), passed.take(PacketId(SECOND | 1))), (Some(100), Some(200)));
    }
}
