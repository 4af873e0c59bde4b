//! How the packet side of a sender's host is set up.

use super::{AskRule, HeldLimits, IdentificationKey, QuestionLimits};
use crate::icmp::Room;
use crate::paths::PATHS;
use crate::table;

/// How an inserter is set up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InserterConfig {
    /// Which flows ask for a permission by themselves. No rule: none does.
    pub ask: Vec<AskRule>,
    /// Bit added to the mark of packets with AH, so that they are routed again with the route's own MTU.
    pub mark: Option<u32>,
    /// What is added besides for each way out, from way 1 on; 0 where there is none.
    pub path_marks: [u32; PATHS],
    /// Most permissions at a time, and most flows expected at a time.
    pub capacity: usize,
    /// What may wait.
    pub held: HeldLimits,
    /// What AH may come to take.
    pub room: Room,
    /// How much may be asked by itself; never more open questions than half of `capacity`.
    pub questions: QuestionLimits,
    /// What identifies IPv4 datagrams that may be fragmented, so that nobody can tell which number comes next. Without it they keep
    /// those that the kernel has counted.
    pub identifications: Option<IdentificationKey>,
}

impl Default for InserterConfig {
    fn default() -> Self {
        let (held, questions) = (HeldLimits::default(), QuestionLimits::default());
        Self {
            ask: Vec::new(),
            mark: None,
            path_marks: [0; PATHS],
            capacity: table::DEFAULT_CAPACITY,
            held,
            room: Room::LARGEST,
            questions,
            identifications: None,
        }
    }
}
