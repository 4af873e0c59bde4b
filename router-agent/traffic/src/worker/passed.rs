//! Which packets were to pass lately, so that a verdict which the kernel refuses afterwards is not counted as one that took effect.

use crate::processor::PacketId;

/// A refusal comes behind packets that were received before it: not more than the longest queue holds.
const REMEMBERED: usize = crate::queue::OUTBOUND_CAPACITY as usize;

/// The last packets that were to pass, with the bytes that they were counted with.
#[derive(Debug)]
pub(super) struct Passed {
    /// By the lowest bits of their numbers, which the kernel counts up.
    places: Vec<Option<(PacketId, usize)>>,
}

impl Passed {
    pub(super) fn new() -> Self {
        Self { places: vec![None; REMEMBERED] }
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
        let position = usize::try_from(id.0).unwrap_or(0) % REMEMBERED;
        self.places.get_mut(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_taken_out_once_and_only_while_no_later_one_has_its_place() {
        let mut passed = Passed::new();
        passed.remember(PacketId(5), 100);
        assert_eq!(passed.take(PacketId(6)), None);
        assert_eq!(passed.take(PacketId(5)), Some(100));
        assert_eq!(passed.take(PacketId(5)), None);
        passed.remember(PacketId(5), 100);
        let later = PacketId(5 + u64::try_from(REMEMBERED).unwrap());
        passed.remember(later, 200);
        assert_eq!((passed.take(PacketId(5)), passed.take(later)), (None, Some(200)));
    }
}
