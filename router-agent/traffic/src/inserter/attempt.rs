//! What becomes of a packet that this host sends, and the verdict that says so.

use crate::ah::Sealing;
use crate::counters::Counters;
use crate::processor::Verdict;
use crate::reason::DropReason;

/// What to do with a packet.
pub(super) enum Attempt {
    /// It stands as the last in `sealing`, numbered and counted; these bits are added to its mark.
    Send(Option<u32>),
    /// It has to wait.
    Hold,
    /// It has to wait, and nobody has asked for a permission yet.
    Ask,
    /// It goes no further.
    Drop(DropReason),
}

impl Attempt {
    /// The bits of a packet that goes out; of any other the verdict, counted. `len` is its length without AH.
    pub(super) fn goes_out(self, counters: &Counters, len: usize) -> Result<Option<u32>, Verdict<'static>> {
        match self {
            Self::Send(mark) => Ok(mark),
            Self::Hold | Self::Ask => Err(Verdict::Hold),
            Self::Drop(reason) => {
                counters.count_dropped(reason, len);
                Err(Verdict::Drop(reason))
            }
        }
    }
}

/// The verdict on a packet by its place in `sealing`, counted; `len` is its length without AH. What could not be sealed does not leave.
pub(super) fn sealed<'a>(sealing: &'a Sealing, counters: &Counters, place: usize, (len, mark): (usize, Option<u32>)) -> Verdict<'a> {
    let Some(payload) = sealing.get(place) else {
        counters.count_dropped(DropReason::NotSigned, len);
        return Verdict::Drop(DropReason::NotSigned);
    };
    counters.count_accepted(payload.len());
    Verdict::Replace { payload, mark }
}
