//! Who may ask next: first packets that ask for a permission take turns by user, and are bounded in number and rate.
//!
//! A question costs a signed Query, a place in the table of sessions, and datagrams of the signalling exemption for as
//! long as nobody answers. So questions are put only while few are open; no user may have more than three times as many open
//! as are left; and users who want to ask take turns, so that one who floods waits for itself alone.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Bound;

use smoltcp::time::{Duration, Instant};

use super::holders::Owner;
use crate::flow::Flow;
use crate::state::{Map, Micros};
use crate::table::after;

/// How much the host's traffic may ask by itself. What was asked for by a command is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuestionLimits {
    /// Flows whose answer may be awaited at a time.
    pub open: usize,
    /// Questions a second on average.
    pub per_second: u32,
    /// Questions beyond the average that may come at once.
    pub burst: u32,
}

impl Default for QuestionLimits {
    /// Unanswered, a question costs up to nine datagrams within 15 s (X-47, RFC 5971 §5.3.3): three quarters of 256 open ones
    /// leave the larger part of the signalling bucket (500 a second) to the refreshes of what is permitted.
    fn default() -> Self {
        Self { open: 256, per_second: 200, burst: 200 }
    }
}

/// After which time nobody answers any more: the sender tries twice, for 5 s and for 10 s.
const ANSWER: Duration = Duration::from_secs(16);

/// A question that nobody has answered is put again after this time if the flow still wants to ask: the former one may not have been
/// heard. Not earlier, or a single flow would use up the rate with the packets that it has waiting.
const AGAIN: Duration = Duration::from_secs(1);

/// A user may have this many times as many questions open as may still be opened.
const FREE_SHARE: usize = 3;

/// Questions to be put, and questions put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Questions {
    limits: QuestionLimits,
    /// Flows that want to ask. As many as have packets waiting, at most.
    wanting: Map<Flow, (Owner, u64)>,
    /// The same by user, in the order in which they began to want.
    by_user: BTreeMap<Owner, BTreeMap<u64, Flow>>,
    began: u64,
    /// Whose turn it was last.
    last_turn: Owner,
    open: Map<Flow, (Owner, Instant)>,
    open_by_user: Map<Owner, usize>,
    ends: BTreeSet<(Instant, Flow)>,
    /// When the rate would be used up evenly; ahead of now by what is used of the burst.
    paid_until: Instant,
    /// When to look again, if something wants to ask and may not.
    due: Option<Instant>,
}

impl Hash for Questions {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The others are orders of what is wanted and what is open.
        let Self { limits, wanting, by_user: _, began, last_turn, open, open_by_user: _, ends: _, paid_until, due } = self;
        (limits, wanting, began, last_turn, paid_until.in_micros(), due.in_micros(), open.len()).hash(state);
        open.in_order().iter().for_each(|(flow, (owner, until))| (flow, owner, until.in_micros()).hash(state));
    }
}

impl Questions {
    pub(super) fn new(limits: QuestionLimits) -> Self {
        Self {
            limits,
            wanting: Map::new(),
            by_user: BTreeMap::new(),
            began: 0,
            last_turn: None,
            open: Map::new(),
            open_by_user: Map::new(),
            ends: BTreeSet::new(),
            paid_until: Instant::from_micros(i64::MIN),
            due: None,
        }
    }

    /// A flow of this user wants to ask. Whoever has asked just before has to want it again later.
    pub(super) fn want(&mut self, flow: Flow, owner: Owner, now: Instant) {
        // An open question ends [`ANSWER`] after it was put.
        let just_asked = self.open.get(&flow).is_some_and(|(_, until)| after(now, ANSWER - AGAIN) < *until);
        if !just_asked && !self.wanting.contains_key(&flow) {
            self.began = self.began.saturating_add(1);
            self.wanting.insert(flow, (owner, self.began));
            self.by_user.entry(owner).or_default().insert(self.began, flow);
        }
    }

    /// Nothing of the flow waits any more: it does not want to ask.
    pub(super) fn withdraw(&mut self, flow: &Flow) {
        if let Some((owner, began)) = self.wanting.remove(flow)
            && let Some(flows) = self.by_user.get_mut(&owner)
        {
            flows.remove(&began);
            if flows.is_empty() {
                self.by_user.remove(&owner);
            }
        }
    }

    /// Signalling has answered, or asks no more.
    pub(super) fn answered(&mut self, flow: &Flow) {
        self.withdraw(flow);
        self.close(flow);
    }

    /// The next flow that may ask now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Flow> {
        self.due = None;
        if self.wanting.is_empty() {
            return None;
        }
        self.close_due(now);
        if let Some(at) = self.blocked_until(now) {
            self.due = Some(at);
            return None;
        }
        let Some((owner, flow)) = self.next_turn() else {
            // None of those who want may open another one: the next end makes room.
            self.due = self.ends.first().map(|(end, _)| *end);
            return None;
        };
        self.last_turn = owner;
        self.paid_until = after(self.paid_until.max(now), self.interval());
        self.withdraw(&flow);
        self.keep_open(flow, owner, after(now, ANSWER));
        Some(flow)
    }

    /// When [`next`](Self::next) may have something again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The first flow that may ask, of the first user after the one whose turn was last.
    fn next_turn(&self) -> Option<(Owner, Flow)> {
        let behind = self.by_user.range((Bound::Excluded(self.last_turn), Bound::Unbounded));
        let before = self.by_user.range((Bound::Unbounded, Bound::Included(self.last_turn)));
        let free = self.limits.open.saturating_sub(self.open.len());
        behind.chain(before).find_map(|(owner, flows)| {
            let open = self.open_by_user.get(owner).copied().unwrap_or(0);
            if open < free.saturating_mul(FREE_SHARE) {
                return flows.values().next().map(|flow| (*owner, *flow));
            }
            // Asking again for what is open opens nothing.
            flows.values().next().filter(|flow| self.open.contains_key(*flow)).map(|flow| (*owner, *flow))
        })
    }

    /// When the rate allows another question, `None` for now.
    fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let ahead = self.interval().total_micros().saturating_mul(u64::from(self.limits.burst.max(1) - 1));
        let ahead = i64::try_from(ahead).unwrap_or(i64::MAX);
        let at = Instant::from_micros(self.paid_until.total_micros().saturating_sub(ahead));
        (at > now).then_some(at)
    }

    fn interval(&self) -> Duration {
        Duration::from_micros(1_000_000 / u64::from(self.limits.per_second.max(1)))
    }

    fn keep_open(&mut self, flow: Flow, owner: Owner, until: Instant) {
        self.close(&flow);
        self.open.insert(flow, (owner, until));
        *self.open_by_user.entry(owner).or_default() += 1;
        self.ends.insert((until, flow));
    }

    fn close(&mut self, flow: &Flow) {
        let Some((owner, until)) = self.open.remove(flow) else { return };
        self.ends.remove(&(until, *flow));
        if let Some(count) = self.open_by_user.get_mut(&owner) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.open_by_user.remove(&owner);
            }
        }
    }

    fn close_due(&mut self, now: Instant) {
        while let Some((end, flow)) = self.ends.first().copied()
            && end <= now
        {
            self.close(&flow);
        }
    }
}
