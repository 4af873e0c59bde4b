//! What the verifiers of several workers of one node have in common ([`crate::spread`]). Nobody waits for it at a packet with AH: numbers are
//! atomic, and the list of flows, which is behind a lock, is looked at only for packets without AH, and changed with permissions.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hashbrown::HashMap;
use smoltcp::time::Instant;

use crate::budget::SignatureBudget;
use crate::flow::Flow;

/// A signature in the unit of the level.
const ONE: i64 = 1_000_000;

/// The node's budget of signatures, how many permissions share it, and which flows have one.
pub struct Common {
    budget: SignatureBudget,
    /// Millionths of signatures that are left; below nothing while flows use the shares that they had saved.
    left: AtomicI64,
    /// When it was filled up last, in microseconds.
    filled: AtomicI64,
    /// Permissions whose packets are signed, of all workers. It orders nothing else in memory.
    signed: AtomicUsize,
    /// Flows with a permission, and how many workers have one.
    covered: RwLock<HashMap<Flow, usize>>,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Common {
    /// No permissions, and a full budget.
    pub fn new(budget: SignatureBudget) -> Arc<Self> {
        let left = AtomicI64::new(i64::from(budget.burst).saturating_mul(ONE));
        let (filled, signed, covered) = (AtomicI64::new(0), AtomicUsize::new(0), RwLock::default());
        Arc::new(Self { budget, left, filled, signed, covered })
    }

    /// Takes so many signatures off, if there are as many or it `must`.
    pub(crate) fn take(&self, weight: u32, must: bool, now: Instant) -> bool {
        let cost = i64::from(weight).saturating_mul(ONE);
        let now = now.total_micros();
        // One worker alone is given what has grown since.
        let grown = now.saturating_sub(self.filled.fetch_max(now, Ordering::Relaxed)).max(0).saturating_mul(self.budget.per_second.into());
        let full = i64::from(self.budget.burst).saturating_mul(ONE).max(cost);
        let take = |left: i64| {
            let left = left.saturating_add(grown).min(full);
            if must || left >= cost { (left - cost, true) } else { (left, false) }
        };
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(take(left).0));
        take(before.unwrap_or_else(|left| left)).1
    }

    /// Permissions whose packets are signed.
    pub(crate) fn signed(&self) -> usize {
        self.signed.load(Ordering::Relaxed)
    }

    /// There is one more of them.
    pub(crate) fn add_signed(&self) {
        self.signed.fetch_add(1, Ordering::Relaxed);
    }

    /// There is one fewer.
    pub(crate) fn remove_signed(&self) {
        self.signed.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether any worker has a permission for the flow.
    pub(crate) fn covers(&self, flow: &Flow) -> bool {
        self.covered.read().unwrap_or_else(PoisonError::into_inner).contains_key(flow)
    }

    /// A worker has the first permission for the flow.
    pub(crate) fn cover(&self, flow: Flow) {
        *self.covered.write().unwrap_or_else(PoisonError::into_inner).entry(flow).or_default() += 1;
    }

    /// A worker has no permission for the flow any more.
    pub(crate) fn uncover(&self, flow: &Flow) {
        let mut covered = self.covered.write().unwrap_or_else(PoisonError::into_inner);
        let left = covered.get_mut(flow).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            covered.remove(flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: SignatureBudget = SignatureBudget { per_second: 1000, burst: 100 };

    #[test]
    fn all_workers_together_take_the_burst_once_and_then_the_rate() {
        let common = Common::new(BUDGET);
        let got: usize = std::thread::scope(|scope| {
            let worker = || (0..10_000_i64).filter(|micro| common.take(1, false, Instant::from_micros(micro * 100))).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!((1095..=1100).contains(&got), "{got} in a second");
    }

    #[test]
    fn a_share_is_taken_even_if_nothing_is_left_and_is_missing_then() {
        let common = Common::new(BUDGET);
        assert_eq!((0..200).filter(|_| common.take(1, false, Instant::ZERO)).count(), 100);
        assert!(common.take(50, true, Instant::ZERO));
        assert!(!common.take(1, false, Instant::from_millis(50)));
        assert!(common.take(1, false, Instant::from_millis(51)));
        assert!(common.take(200, false, Instant::from_millis(5000)), "heavier than the burst");
    }

    #[test]
    fn a_flow_is_covered_as_long_as_any_worker_has_a_permission_for_it() {
        let common = Common::new(BUDGET);
        let address = [192, 0, 2, 1].into();
        let flow = Flow { source: address, destination: address, protocol: 17, source_port: 1, destination_port: 2 };
        assert!(!common.covers(&flow));
        common.cover(flow);
        common.cover(flow);
        common.uncover(&flow);
        assert!(common.covers(&flow));
        common.uncover(&flow);
        assert!(!common.covers(&flow));
    }
}
