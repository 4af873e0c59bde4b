//! What a scenario must show, and what it showed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Options;
use super::chance::Plan;
use super::story::Told;
use crate::demo::line::Dropped;
use crate::network::topology::Family;

/// How a scenario came out.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub name: &'static str,
    /// What it tries.
    pub tried: &'static str,
    /// IP version of network and flows.
    pub family: Family,
    /// Seed of what was left to chance.
    pub seed: u64,
    /// What it decided.
    pub plan: Plan,
    /// Who attacks, and how he got what he has.
    pub attacker: String,
    /// The first evidence, if there was to be one.
    pub detected: Option<Detected>,
    /// Octets of the attacker's IP packets that got to the receiver's link, or of the flow's that did not, in all.
    pub octets_through: u64,
    /// Other figures.
    pub figures: BTreeMap<String, u64>,
    /// What was tried one after the other, and its figures.
    pub table: Table,
    /// What captures show, for an audit.
    pub shown: Vec<super::audit::Shown>,
    /// What the nodes' own counters say was dropped since the attack began.
    pub dropped: Vec<Dropped>,
    /// What must be true.
    pub checks: Vec<Check>,
    /// What the daemons said.
    pub story: Vec<Told>,
    /// Frames lost by captures and relay; figures are only as good as this is zero.
    pub lost_frames: u64,
    /// How long the run took, in seconds.
    pub seconds: f64,
    /// Whether everything came out as it must.
    pub holds: bool,
}

/// Figures of what was tried one after the other.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Table {
    /// What the columns are.
    pub head: Vec<String>,
    /// A row for each.
    pub rows: Vec<Vec<String>>,
    /// For each cell the figure that it shows, if it shows one.
    pub figures: Vec<Vec<Option<String>>>,
}

/// A cell of the table.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// What it says.
    Text(String),
    /// The figure that it shows, `-` if there is none of that name.
    Figure(String),
}

/// The first evidence of an attack.
#[derive(Debug, Clone, Serialize)]
pub struct Detected {
    /// The rule of the receiver's state machine.
    pub rule: String,
    /// What it says, test and numbers.
    pub evidence: String,
    /// From the attack's first packet until the evidence, in refresh periods.
    pub periods: f64,
}

/// One thing that must be true.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// What must be.
    pub must: String,
    /// What was found.
    pub found: String,
    /// Whether it is so.
    pub holds: bool,
}

impl Table {
    fn lines(&self) -> impl Iterator<Item = &Vec<String>> {
        Some(&self.head).filter(|head| !head.is_empty()).into_iter().chain(&self.rows)
    }
}

impl Outcome {
    pub(super) fn new(name: &'static str, tried: &'static str, options: &Options, plan: Plan) -> Self {
        Self {
            name,
            tried,
            family: options.family,
            seed: options.seed,
            plan,
            attacker: "nobody".to_owned(),
            detected: None,
            octets_through: 0,
            figures: BTreeMap::new(),
            table: Table::default(),
            shown: Vec::new(),
            dropped: Vec::new(),
            checks: Vec::new(),
            story: Vec::new(),
            lost_frames: 0,
            seconds: 0.0,
            holds: false,
        }
    }

    /// States something that must be true, and what was found.
    pub(super) fn check(&mut self, must: impl Into<String>, holds: bool, found: impl Into<String>) {
        self.checks.push(Check { must: must.into(), found: found.into(), holds });
    }

    /// Writes down a figure that no capture shows.
    pub(super) fn figure(&mut self, name: impl Into<String>, figure: u64) {
        self.figures.insert(name.into(), figure);
    }

    /// Begins the table: what its rows are about, and their columns.
    pub(super) fn head(&mut self, what: &str, columns: &[&str]) {
        self.table.head = [what].iter().chain(columns).map(|column| (*column).to_owned()).collect();
    }

    /// A row of the table.
    pub(super) fn row(&mut self, what: &str, cells: Vec<Cell>) {
        let cells: Vec<Cell> = [Cell::Text(what.to_owned())].into_iter().chain(cells).collect();
        let said = |cell: &Cell| match cell {
            Cell::Text(text) => (text.clone(), None),
            Cell::Figure(name) => (self.figures.get(name).map_or("-".to_owned(), u64::to_string), Some(name.clone())),
        };
        let (texts, figures) = cells.iter().map(said).unzip();
        self.table.rows.push(texts);
        self.table.figures.push(figures);
    }

    /// Packets dropped at a node for a reason since the attack began.
    pub(super) fn dropped_at(&self, node: &str, reason: &str) -> u64 {
        self.dropped.iter().filter(|dropped| dropped.at == node && dropped.reason == reason).map(|dropped| dropped.packets).sum()
    }

    /// Judges. Without a check nothing has been shown.
    pub(super) fn judge(&mut self) {
        self.holds = self.lost_frames == 0 && !self.checks.is_empty() && self.checks.iter().all(|check| check.holds);
    }

    /// What a person reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}: {}", self.name, self.tried);
        let version = if self.family == Family::Ipv4 { "IPv4" } else { "IPv6" };
        let _ = writeln!(text, "{version}; seed {}: {}", self.seed, self.plan);
        let _ = writeln!(text, "attacker: {}", self.attacker);
        if let Some(detected) = &self.detected {
            let _ = writeln!(text, "detected: {} {}, after {:.2} refresh periods", detected.rule, detected.evidence, detected.periods);
        }
        let _ = writeln!(text, "octets of the attacker that got through: {}", self.octets_through);
        let width = |column: usize| self.table.lines().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        for row in self.table.lines() {
            let cells = row.iter().enumerate().map(|(column, cell)| format!("{cell:>width$}", width = width(column).unwrap_or(0)));
            let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  "));
        }
        for (name, figure) in &self.figures {
            let _ = writeln!(text, "{name}: {figure}");
        }
        for Dropped { at, reason, packets } in &self.dropped {
            let _ = writeln!(text, "dropped since the attack began: {at} {reason} {packets}");
        }
        for told in self.story.iter().filter(|told| told.at >= 0.0) {
            let _ = writeln!(text, "  {:7.3} s  {:8}  {:5}  {}", told.at, told.node, told.rule, told.message);
        }
        for check in &self.checks {
            let verdict = if check.holds { "holds " } else { "BROKEN" };
            let _ = writeln!(text, "{verdict}  {}: {}", check.must, check.found);
        }
        let held = self.checks.iter().filter(|check| check.holds).count();
        let _ = write!(text, "{held} of {} checks hold, {:.1} s", self.checks.len(), self.seconds);
        if self.lost_frames > 0 {
            let _ = write!(text, "; {} frames were lost: no figure above is to be believed", self.lost_frames);
        }
        text
    }
}

/// When a packet arrived, counted from the beginning of the scenario.
pub(super) fn arrival(at: Option<Duration>) -> String {
    at.map_or_else(|| "nothing arrived".to_owned(), |at| format!("arrived at {:.3} s", at.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_holds_only_if_something_was_checked_everything_holds_and_no_frame_was_lost() {
        let options = Options { keep: None, seed: 1, family: Family::Ipv4 };
        let judged = |checks: &[bool], lost_frames| {
            let mut outcome = Outcome { lost_frames, ..Outcome::new("name", "tried", &options, Plan::of("name", 1)) };
            checks.iter().for_each(|holds| outcome.check("it", *holds, "that"));
            outcome.judge();
            outcome.holds
        };
        assert!(judged(&[true, true], 0));
        assert!(!judged(&[], 0));
        assert!(!judged(&[true, false], 0));
        assert!(!judged(&[true], 1));
    }
}
