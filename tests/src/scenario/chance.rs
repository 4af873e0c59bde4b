//! What is left to chance in a scenario, all of it decided by the seed before anything runs, and told.

use std::time::Duration;

use serde::Serialize;

use crate::dice::Dice;
use crate::network::relay::Way;

/// What chance decides. The same name and seed give the same; keys, cookies, SPIs and the moments at which the kernel runs what are
/// not in our hands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// How long the flow runs before somebody interferes, besides what it must, in milliseconds: at any moment of a quarter of a
    /// second, several of its packets long.
    pub before_attack_ms: u64,
    /// What the payloads of programs begin with: each octet follows from it.
    pub payload: u64,
    /// What loss begins with.
    pub loss: u64,
    /// How long a node is away that is killed, in milliseconds.
    pub away_ms: u64,
    /// In which order things are done that have none, as a number.
    pub order: u64,
}

impl Plan {
    /// Decides.
    pub fn of(scenario: &str, seed: u64) -> Self {
        let name = scenario.bytes().fold(0_u64, |sum, byte| sum.rotate_left(7) ^ u64::from(byte));
        let mut dice = Dice::new(seed ^ name.rotate_left(32));
        Self {
            before_attack_ms: dice.below(250),
            payload: dice.next(),
            loss: dice.next(),
            away_ms: 200 + dice.below(800),
            order: dice.next(),
        }
    }

    /// How long the flow runs before somebody interferes, besides what it must.
    pub(super) fn before_attack(&self) -> Duration {
        Duration::from_millis(self.before_attack_ms)
    }

    /// How long a node is away that is killed.
    pub(super) fn away(&self) -> Duration {
        Duration::from_millis(self.away_ms)
    }

    /// A payload of this length that no compression and no zero-filled buffer can fake.
    pub(super) fn payload(&self, octets: usize) -> Vec<u8> {
        Dice::new(self.payload).octets(octets)
    }

    /// Whether the next packet of each direction is lost, at so many percent: the n-th of a direction fares the same in each run.
    pub(super) fn losing(&self, percent: u64) -> impl FnMut(Way) -> bool + Send + 'static {
        let [mut there, mut back] = [Dice::new(self.loss), Dice::new(!self.loss)];
        move |way| (if way == Way::There { &mut there } else { &mut back }).below(100) < percent
    }

    /// The entries in an order that follows from the seed.
    pub(super) fn shuffled<T>(&self, entries: impl IntoIterator<Item = T>) -> Vec<T> {
        let mut dice = Dice::new(self.order);
        let mut entries: Vec<T> = entries.into_iter().collect();
        for last in (1..entries.len()).rev() {
            entries.swap(last, usize::try_from(dice.below(last as u64 + 1)).unwrap_or(0));
        }
        entries
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { before_attack_ms, payload, loss, away_ms, order } = self;
        write!(f, "interference {before_attack_ms} ms later, payloads {payload:#x}, loss {loss:#x}, away {away_ms} ms, order {order:#x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_decides_the_same_and_another_seed_or_scenario_something_else() {
        let plan = Plan::of("figure-4", 7);
        assert_eq!(plan, Plan::of("figure-4", 7));
        assert_ne!(plan, Plan::of("figure-4", 8));
        assert_ne!(plan, Plan::of("black-hole", 7));
        assert_eq!(plan.payload(1001), plan.payload(1001));
        assert_ne!(plan.payload(100), Plan::of("figure-4", 8).payload(100));
        let lost = |plan: &Plan| -> Vec<bool> { (0..500).map(|_| Way::There).map(plan.losing(10)).collect() };
        assert_eq!(lost(&plan), lost(&plan));
        assert_ne!(lost(&plan), lost(&Plan::of("figure-4", 8)));
        assert!((20..90).contains(&lost(&plan).iter().filter(|lost| **lost).count()));
        assert_eq!(plan.shuffled(0..9), plan.shuffled(0..9));
    }

    #[test]
    fn what_becomes_of_one_direction_does_not_hang_on_the_other() {
        let plan = Plan::of("loss-above", 1);
        let (mut one, mut other) = (plan.losing(10), plan.losing(10));
        let alone: Vec<bool> = (0..200).map(|_| one(Way::There)).collect();
        let between: Vec<bool> = (0..200).map(|_| (other(Way::Back), other(Way::There)).1).collect();
        assert_eq!(alone, between);
    }
}
