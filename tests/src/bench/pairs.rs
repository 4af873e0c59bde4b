//! Ours and the bound in turn.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use crate::dice::Dice;

/// Fewer pairs say nothing.
pub(crate) const FEWEST: usize = 7;

/// Resamplings behind the interval of a ratio.
const RESAMPLINGS: usize = 2000;

/// One way of measuring once.
pub(crate) type Measure = Box<dyn FnMut() -> io::Result<Sample>>;

/// One row to be.
pub(crate) struct Trial {
    /// What is measured, in words.
    pub(crate) name: String,
    /// Of both figures.
    pub(crate) unit: &'static str,
    /// What is wanted.
    pub(crate) goal: Goal,
    /// What the bound is, in words.
    pub(crate) bound_is: &'static str,
    pub(crate) ours: Measure,
    pub(crate) bound: Measure,
}

/// What is wanted of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(dead_code)]
pub(crate) enum Goal {
    /// Our figure is no less.
    AtLeast(f64),
    /// Our figure is no more.
    AtMost(f64),
    /// Ours over the bound is no less.
    RatioAtLeast(f64),
    /// Ours over the bound is no more.
    RatioAtMost(f64),
    /// It is only to be known.
    Told,
}

/// What one measurement gave.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Sample {
    /// The figure.
    pub(crate) value: f64,
    /// What else is worth knowing of it: processor time of the load's threads, rates by the clock on the wall.
    pub(crate) besides: BTreeMap<&'static str, f64>,
    /// Why it does not show what the row is about: no goal is met by such a one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wanting: Option<&'static str>,
}

/// All measurements of a row.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Pairs {
    pub(crate) ours: Vec<Sample>,
    pub(crate) bound: Vec<Sample>,
}

impl Sample {
    pub(crate) fn of(value: f64) -> Self {
        Self { value, ..Self::default() }
    }

    pub(crate) fn with(mut self, what: &'static str, value: f64) -> Self {
        self.besides.insert(what, value);
        self
    }
}

impl Pairs {
    /// Measures `count` pairs, [`FEWEST`] at least, after one of each that does not count. Ours goes first in every second pair.
    pub(crate) fn measure(trial: &mut Trial, count: usize, progress: &impl Fn(&str)) -> io::Result<Self> {
        let count = count.max(FEWEST);
        progress(&format!("{}: warming up", trial.name));
        (trial.bound)()?;
        (trial.ours)()?;
        let mut pairs = Self::default();
        for number in 1..=count {
            progress(&format!("{}: pair {number} of {count}", trial.name));
            if number % 2 == 0 {
                pairs.bound.push((trial.bound)()?);
                pairs.ours.push((trial.ours)()?);
            } else {
                pairs.ours.push((trial.ours)()?);
                pairs.bound.push((trial.bound)()?);
            }
        }
        Ok(pairs)
    }

    /// The medians of ours and of the bound.
    pub(crate) fn medians(&self) -> (f64, f64) {
        (median(values(&self.ours)), median(values(&self.bound)))
    }

    /// What is wanting, if anything is.
    pub(crate) fn wanting(&self) -> Option<&'static str> {
        self.ours.iter().chain(&self.bound).find_map(|sample| sample.wanting)
    }

    /// Between which values 95 % of the ratios of medians lie when pairs are drawn anew, with replacement (percentile bootstrap).
    pub(crate) fn interval(&self) -> [f64; 2] {
        let (ours, bound) = (values(&self.ours), values(&self.bound));
        let count = ours.len().min(bound.len());
        let mut dice = Dice::new(1);
        let mut ratios: Vec<f64> = (0..RESAMPLINGS)
            .map(|_| {
                let drawn: Vec<usize> = (0..count).map(|_| dice.below(count as u64) as usize).collect();
                let of = |all: &[f64]| median(drawn.iter().filter_map(|place| all.get(*place).copied()).collect());
                ratio(of(&ours), of(&bound))
            })
            .collect();
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| ratios.get((share * (RESAMPLINGS - 1) as f64).round() as usize).copied().unwrap_or(f64::NAN);
        [at(0.025), at(0.975)]
    }

    /// Medians of what else was measured, ours and the bound's.
    pub(crate) fn besides(&self) -> BTreeMap<String, f64> {
        let of = |whose: &'static str, samples: &[Sample]| {
            let mut all = BTreeMap::<&'static str, Vec<f64>>::new();
            for (what, value) in samples.iter().flat_map(|sample| &sample.besides) {
                all.entry(what).or_default().push(*value);
            }
            all.into_iter().map(move |(what, values)| (format!("{whose}: {what}"), median(values))).collect::<Vec<_>>()
        };
        of("ours", &self.ours).into_iter().chain(of("bound", &self.bound)).collect()
    }
}

/// One figure as a multiple of another.
pub(crate) fn ratio(ours: f64, bound: f64) -> f64 {
    ours / bound
}

fn values(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.value).collect()
}

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or(f64::NAN);
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN);
    f64::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    fn pairs(ours: &[f64], bound: &[f64]) -> Pairs {
        let of = |values: &[f64]| values.iter().copied().map(Sample::of).collect();
        Pairs { ours: of(ours), bound: of(bound) }
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_two_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(vec![9.0, 1.0, 5.0, 7.0]), 6.0);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn sides_alternate_after_one_of_each_that_does_not_count() {
        let order = Rc::new(RefCell::new(String::new()));
        let side = |letter: char| -> Measure {
            let order = Rc::clone(&order);
            Box::new(move || {
                order.borrow_mut().push(letter);
                Ok(Sample::of(1.0))
            })
        };
        let mut trial =
            Trial { name: "order".to_owned(), unit: "1", goal: Goal::Told, bound_is: "itself", ours: side('o'), bound: side('b') };
        let measured = Pairs::measure(&mut trial, 1, &|_| ()).unwrap();
        assert_eq!((measured.ours.len(), measured.bound.len()), (FEWEST, FEWEST));
        assert_eq!(*order.borrow(), "boobboobboobboob");
    }

    #[test]
    fn the_interval_holds_the_ratio_and_is_narrow_where_all_samples_agree() {
        let wide = pairs(&[8.0, 9.0, 10.0, 10.0, 11.0, 12.0, 30.0], &[5.0, 5.0, 5.0, 5.0, 5.0, 6.0, 4.0]);
        let (ours, bound) = wide.medians();
        let [low, high] = wide.interval();
        assert!(low < ours / bound && ours / bound < high, "{low} {high}");
        assert_eq!(pairs(&[4.0; 7], &[2.0; 7]).interval(), [2.0, 2.0]);
    }
}
