//! How many signatures are verified: a bound for each flow, and one for the node that its flows share (Solution 3, X-69).
//!
//! Whoever sees a flow can have signatures verified for it: a live SPI and a number that was not seen are enough. What that may cost
//! is bounded twice, so that a forger takes neither the node nor, from the other flows, their share:
//!
//! * a flow never gets more than its own bound;
//! * within it, a flow gets its share of the node's bound, the bound divided by the signed flows there are, whatever the others do;
//! * beyond its share it gets what the others leave unused, first come, first served.
//!
//! The node verifies no more than its bound a second, and once its burst twice, or one for each flow if that is more.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use smoltcp::time::Instant;

use crate::common::Common;
use crate::state::{Aside, Micros};

/// How many signatures are verified. One is about what an elliptic curve or an RSA key of 2048 bits costs; longer RSA keys count for
/// more ([`SignatureAlgorithm::weight`](crate::algorithm::SignatureAlgorithm::weight)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignatureBudget {
    /// Signatures a second.
    pub per_second: u32,
    /// Signatures at once.
    pub burst: u32,
}

impl SignatureBudget {
    /// Of a flow: 4000 a second, 1000 at once. 48 Mbit/s of full packets, at some fifth of one processor.
    pub const DEFAULT: Self = Self::per_second(4000);
    /// Of a node: 10,000 a second, 2500 at once. About half a processor.
    pub const NODE: Self = Self::per_second(10_000);

    /// So many a second, and a quarter of them at once, but never so few that the heaviest key would have none.
    pub const fn per_second(per_second: u32) -> Self {
        let quarter = per_second / 4;
        Self { per_second, burst: if quarter < HEAVIEST { HEAVIEST } else { quarter } }
    }
}

/// What the longest RSA key counts for.
const HEAVIEST: u32 = 16;

/// One signature. Finer than a millionth, so that the share of a flow among very many still grows from one microsecond to the next.
const ONE: i128 = 1_000_000 << 16;

/// What is left of a bound; below nothing for the node while flows use the shares that they had saved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Level(Option<(i128, Instant)>);

impl Level {
    /// What is left at `now` of a budget of which `flows` flows have an equal share each. It can fill up to `least` in any case.
    fn refill(&mut self, budget: SignatureBudget, flows: i128, least: i128, now: Instant) -> &mut i128 {
        let full = (i128::from(budget.burst) * ONE / flows).max(least);
        let (left, then) = self.0.unwrap_or((full, now));
        let elapsed = i128::from(now.total_micros().saturating_sub(then.total_micros()).max(0));
        let more = elapsed * i128::from(budget.per_second) * (ONE / 1_000_000) / flows;
        let (left, _) = self.0.insert((left.saturating_add(more).min(full), now));
        left
    }
}

impl Hash for Level {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.map(|(left, then)| (left, then.in_micros())).hash(state);
    }
}

/// What is left to one flow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct FlowLevels {
    /// Of its own bound.
    own: Level,
    /// Of its share of the node's.
    share: Level,
}

impl FlowLevels {
    /// Of a flow whose packets have never been signed.
    pub(crate) const FULL: Self = Self { own: Level(None), share: Level(None) };
}

/// Both bounds, and what is left of the node's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Signatures {
    flow: SignatureBudget,
    node: SignatureBudget,
    level: Level,
    /// Where several workers take from the node's: what is left is there, and not here.
    common: Option<Aside<Arc<Common>>>,
}

impl Signatures {
    pub(crate) const fn new(flow: SignatureBudget, node: SignatureBudget) -> Self {
        Self { flow, node, level: Level(None), common: None }
    }

    /// The same for one of several workers.
    pub(crate) fn sharing(self, common: Arc<Common>) -> Self {
        Self { common: Some(Aside(common)), ..self }
    }

    /// Whether a signature of this weight may be verified for a flow, one of `flows` whose packets are signed; if so, it is taken off.
    pub(crate) fn take(&mut self, of_flow: &mut FlowLevels, weight: u32, flows: usize, now: Instant) -> bool {
        let flows = i128::try_from(flows).unwrap_or(i128::MAX).max(1);
        let cost = i128::from(weight) * ONE;
        let own = of_flow.own.refill(self.flow, 1, cost, now);
        let share = of_flow.share.refill(self.node, flows, cost, now);
        if *own < cost {
            return false;
        }
        let in_share = *share >= cost;
        let taken = match &self.common {
            Some(common) => common.0.take(weight, in_share, now),
            None => {
                let node = self.level.refill(self.node, 1, cost, now);
                let enough = in_share || *node >= cost;
                *node -= if enough { cost } else { 0 };
                enough
            }
        };
        if taken {
            *own -= cost;
            *share -= if in_share { cost } else { 0 };
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: SignatureBudget = SignatureBudget { per_second: 1000, burst: 100 };
    const FLOW: SignatureBudget = SignatureBudget { per_second: 500, burst: 50 };

    /// Lets each flow want so many signatures a millisecond for a second, the first of the list first; gives what each got.
    fn second(signatures: &mut Signatures, flows: &mut [FlowLevels], wanted: &[u32], from: i64) -> Vec<u32> {
        let (mut got, count) = (vec![0; flows.len()], flows.len());
        for milli in 0..1000 {
            for (flow, levels) in flows.iter_mut().enumerate() {
                for _ in 0..wanted[flow] {
                    got[flow] += u32::from(signatures.take(levels, 1, count, Instant::from_millis(from + milli)));
                }
            }
        }
        got
    }

    #[test]
    fn a_flow_alone_gets_its_own_bound_and_no_more() {
        let (mut signatures, mut flows) = (Signatures::new(FLOW, NODE), [FlowLevels::default()]);
        assert!((500..=550).contains(&second(&mut signatures, &mut flows, &[5], 0)[0]));
    }

    #[test]
    fn ten_flooded_flows_cost_no_more_than_the_nodes_bound_and_one_that_uses_its_share_gets_all_of_it() {
        let common = Common::new(NODE);
        let of_three = [(); 3].map(|()| Signatures::new(FLOW, NODE).sharing(Arc::clone(&common)));
        share_the_nodes_bound(&mut [Signatures::new(FLOW, NODE)]);
        share_the_nodes_bound(&mut of_three.clone());
    }

    /// With one worker, or with several that have the flows in turn.
    fn share_the_nodes_bound(workers: &mut [Signatures]) {
        let mut flows = vec![FlowLevels::default(); 10];
        // Nine flooded ones come first in each millisecond; the tenth wants 90 a second, somewhat less than a tenth.
        for round in 0..5 {
            let mut honest = 0;
            let mut all = 0;
            for milli in 0..1000 {
                let now = Instant::from_millis(round * 1000 + milli);
                let several = workers.len();
                for (place, flooded) in flows.iter_mut().take(9).enumerate() {
                    all += (0..6).filter(|_| workers[place % several].take(flooded, 1, 10, now)).count();
                }
                if milli % 11 == 0 {
                    honest += usize::from(workers[9 % several].take(&mut flows[9], 1, 10, now));
                }
            }
            assert_eq!(honest, 91, "round {round}");
            // Both bursts at most, the node's and those of the shares, in the first second.
            let burst = if round == 0 { 100 + 10 * 10 } else { 0 };
            assert!(all + honest <= 1000 + burst + 20, "round {round}: {all}");
            assert!(all + honest >= 950, "round {round}: what some leave others use: {all}");
        }
    }

    #[test]
    fn what_others_leave_unused_a_flow_may_have_up_to_its_own_bound() {
        let mut signatures = Signatures::new(FLOW, NODE);
        let mut flows = vec![FlowLevels::default(); 100];
        let mut wanted = vec![0; 100];
        wanted[7] = 5;
        second(&mut signatures, &mut flows, &wanted, 0);
        let got = second(&mut signatures, &mut flows, &wanted, 1000)[7];
        assert!((495..=505).contains(&got), "{got} of 500, and its share is 10");
    }

    #[test]
    fn a_share_grows_however_often_and_however_small_it_is_looked_at() {
        let any = SignatureBudget::per_second(u32::MAX);
        let mut signatures = Signatures::new(any, SignatureBudget { per_second: 1000, burst: 16 });
        let (mut busy, mut small) = (FlowLevels::default(), FlowLevels::default());
        let mut got = 0;
        for micro in 0..10_000_000 {
            let now = Instant::from_micros(micro);
            // Somebody else uses all that is left.
            while signatures.take(&mut busy, 1, 1, now) {}
            if micro % 10 == 0 {
                got += u32::from(signatures.take(&mut small, 1, 1000, now));
            }
        }
        assert!((10..=11).contains(&got), "one a second and one at once: {got}");
    }

    #[test]
    fn a_heavy_key_gets_fewer_and_never_none() {
        let budget = SignatureBudget::per_second(40);
        let (mut signatures, mut flow) = (Signatures::new(budget, budget), FlowLevels::default());
        assert!(signatures.take(&mut flow, HEAVIEST, 1000, Instant::ZERO));
        assert!(!signatures.take(&mut flow, HEAVIEST, 1000, Instant::ZERO));
        assert!(signatures.take(&mut flow, HEAVIEST, 1000, Instant::from_millis(400)));
    }
}
