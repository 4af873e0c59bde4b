//! What is said of a figure.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::pairs::{Goal, Pairs, Trial, ratio};

/// One figure with its bound. What it must not be taken for without the words of `bound_is`.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// Median of ours.
    pub(crate) ours: f64,
    /// Median of the bound.
    pub(crate) bound: f64,
    /// Of both.
    pub(crate) unit: &'static str,
    /// Ours over the bound.
    pub(crate) ratio: f64,
    /// What is wanted, in words; none if the figure is only told.
    pub(crate) goal: Option<String>,
    /// Whether that is met; none without a goal.
    pub(crate) met: Option<bool>,
    /// 95 % interval of the ratio.
    pub(crate) spread: [f64; 2],
    /// What the bound is.
    pub(crate) bound_is: &'static str,
    /// Why the row does not show what it is about, if it does not: its goal is not met then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wanting: Option<&'static str>,
    /// Medians of what else was measured, by side.
    pub(crate) besides: BTreeMap<String, f64>,
}

/// All rows of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    /// Processes that wanted to run, on average of the last minute, before and after.
    pub(crate) load: [f64; 2],
    /// Whether this is a release build.
    pub(crate) release: bool,
    /// Figures that others have published, with their source.
    pub(crate) literature: Vec<Published>,
}

/// A figure of somebody else, on another machine.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Published {
    pub(crate) what: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) source: &'static str,
}

impl Goal {
    fn words(self) -> Option<String> {
        match self {
            Self::AtLeast(least) => Some(format!("ours >= {least}")),
            Self::AtMost(most) => Some(format!("ours <= {most}")),
            Self::RatioAtLeast(least) => Some(format!("ratio >= {least}")),
            Self::RatioAtMost(most) => Some(format!("ratio <= {most}")),
            Self::Told => None,
        }
    }

    fn is_met(self, ours: f64, ratio: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(ours >= least),
            Self::AtMost(most) => Some(ours <= most),
            Self::RatioAtLeast(least) => Some(ratio >= least),
            Self::RatioAtMost(most) => Some(ratio <= most),
            Self::Told => None,
        }
    }
}

impl Row {
    pub(crate) fn of(trial: &Trial, pairs: &Pairs) -> Self {
        let (ours, bound) = pairs.medians();
        let ratio = ratio(ours, bound);
        Self {
            name: trial.name.clone(),
            ours,
            bound,
            unit: trial.unit,
            ratio,
            goal: trial.goal.words(),
            met: trial.goal.is_met(ours, ratio).map(|met| met && pairs.wanting().is_none()),
            spread: pairs.interval(),
            bound_is: trial.bound_is,
            wanting: pairs.wanting(),
            besides: pairs.besides(),
        }
    }
}

impl Report {
    pub(crate) fn begin(literature: &[Published]) -> Self {
        Self { rows: Vec::new(), load: [load(), 0.0], release: !cfg!(debug_assertions), literature: literature.to_vec() }
    }

    pub(crate) fn end(&mut self) {
        let [_, after] = &mut self.load;
        *after = load();
    }

    /// Whether no goal was missed.
    pub(crate) fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.met != Some(false))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let build = if self.release { "release" } else { "debug" };
        let [before, after] = self.load;
        writeln!(f, "{build} build; load before {before:.1}, after {after:.1}")?;
        for row in &self.rows {
            let [low, high] = row.spread;
            writeln!(f, "{}", row.name)?;
            writeln!(f, "    ours {} {}, ratio {:.3} ({low:.3} to {high:.3})", figure(row.ours), row.unit, row.ratio)?;
            writeln!(f, "    bound {} {}: {}", figure(row.bound), row.unit, row.bound_is)?;
            if let (Some(goal), Some(met)) = (&row.goal, row.met) {
                writeln!(f, "    goal {goal}: {}", if met { "met" } else { "NOT MET" })?;
            }
            row.wanting.iter().try_for_each(|why| writeln!(f, "    {why}"))?;
            row.besides.iter().try_for_each(|(what, value)| writeln!(f, "    {what} {}", figure(*value)))?;
        }
        if !self.literature.is_empty() {
            writeln!(f, "others, on other machines")?;
        }
        self.literature.iter().try_for_each(|other| writeln!(f, "    {}: {} ({})", other.what, other.figure, other.source))
    }
}

/// As many digits as a measurement deserves.
fn figure(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// The first figure of the kernel's load average.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::super::pairs::{Measure, Sample};
    use super::*;

    #[test]
    fn goals_are_held_against_the_side_that_they_are_about() {
        assert_eq!(Goal::AtLeast(5.0).is_met(5.0, 0.1), Some(true));
        assert_eq!(Goal::AtMost(5.0).is_met(5.1, 0.1), Some(false));
        assert_eq!(Goal::RatioAtLeast(0.95).is_met(1.0, 0.94), Some(false));
        assert_eq!(Goal::RatioAtMost(0.45).is_met(1.0, 0.45), Some(true));
        assert_eq!((Goal::Told.is_met(1.0, 1.0), Goal::Told.words()), (None, None));
    }

    #[test]
    fn no_goal_is_met_by_a_row_one_of_whose_samples_does_not_show_what_it_is_about() {
        let none = || -> Measure { Box::new(|| Ok(Sample::of(1.0))) };
        let trial = |goal| Trial { name: "a".to_owned(), unit: "1", goal, bound_is: "itself", ours: none(), bound: none() };
        let (good, wanting) = (Sample::of(1.0), Sample { wanting: Some("too little was offered"), ..Sample::of(1.0) });
        let of = |samples: &[&Sample]| samples.iter().map(|sample| (*sample).clone()).collect();
        for (second, met) in [(&good, true), (&wanting, false)] {
            let pairs = Pairs { ours: of(&[&good, second]), bound: of(&[&good, &good]) };
            let row = Row::of(&trial(Goal::RatioAtLeast(0.9)), &pairs);
            assert_eq!((row.met, row.wanting.is_none()), (Some(met), met));
            assert_eq!(Row::of(&trial(Goal::Told), &pairs).met, None);
        }
    }

    #[test]
    fn a_report_has_the_fields_that_all_benchmarks_have() {
        let row = Row {
            name: "a".to_owned(),
            ours: 2.0,
            bound: 4.0,
            unit: "1/s",
            ratio: 0.5,
            goal: Goal::RatioAtLeast(0.6).words(),
            met: Some(false),
            spread: [0.4, 0.6],
            bound_is: "something bare",
            wanting: None,
            besides: BTreeMap::new(),
        };
        let report = Report { rows: vec![row], load: [0.0, 0.0], release: true, literature: Vec::new() };
        assert!(!report.holds());
        let shown = serde_json::to_value(&report).unwrap();
        for field in ["name", "ours", "bound", "unit", "ratio", "goal", "met", "spread"] {
            assert!(shown["rows"][0].get(field).is_some(), "{field}");
        }
    }
}
