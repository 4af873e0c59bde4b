//! One line of the table: what was tried, and what became of it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, Watch};
use crate::audit::links::Links;

/// How long the whole demonstration may take, in seconds.
pub const LIMIT: f64 = 90.0;

/// Packets that one node dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The node.
    pub at: String,
    /// The reason, a word of the closed list.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    /// Short name, stable for scripts.
    pub name: String,
    /// What was tried.
    pub tried: String,
    /// Packets that were sent, by whoever sent them.
    pub sent: u64,
    /// Packets that arrived on the receiver's link.
    pub arrived: u64,
    /// What was dropped where and why, by the nodes' own counters.
    pub dropped: Vec<Dropped>,
    /// Measured figures beyond the columns.
    pub measured: String,
    /// Which packets the line is about.
    pub watch: Option<Watch>,
    /// Whether it was tried before the sender's host had its rules: what its programs sent was then in the clear.
    #[serde(default)]
    pub before_rules: bool,
    /// What the capture on the sender's link shows of them.
    pub sender_link: Evidence,
    /// What the capture on the receiver's link shows of them.
    pub receiver_link: Evidence,
    /// Whether everything came out as it must.
    pub holds: bool,
    /// What did not, if something did not.
    pub broken: Vec<String>,
}

impl Line {
    /// Starts a line that so far holds.
    pub fn new(name: impl Into<String>, tried: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tried: tried.into(),
            sent: 0,
            arrived: 0,
            dropped: Vec::new(),
            measured: String::new(),
            watch: None,
            before_rules: false,
            sender_link: Evidence::default(),
            receiver_link: Evidence::default(),
            holds: true,
            broken: Vec::new(),
        }
    }

    /// States something that must be true for the line to hold.
    pub fn must(&mut self, truth: bool, otherwise: impl Into<String>) {
        if !truth {
            self.holds = false;
            self.broken.push(otherwise.into());
        }
    }

    /// Notes a measured figure.
    pub fn measure(&mut self, figure: impl AsRef<str>) {
        if !self.measured.is_empty() {
            self.measured.push_str(", ");
        }
        self.measured.push_str(figure.as_ref());
    }

    /// The line's packets must all have been under AH on both links, each SPI with growing numbers, and every one that entered the
    /// router must have left it, or be counted there as dropped.
    pub fn must_be_under_ah(&mut self) {
        for (link, evidence) in [("sender's", self.sender_link.clone()), ("receiver's", self.receiver_link.clone())] {
            let clear = evidence.clear();
            self.must(clear == 0, format!("{link} link: {clear} packets in the clear"));
            self.must(evidence.there.under_ah() > 0, format!("{link} link: no packet under AH"));
            let growing = evidence.there.spis.values().chain(evidence.back.spis.values()).all(|spi| spi.growing);
            self.must(growing, format!("{link} link: numbers of an SPI do not grow"));
        }
        let entered = self.sender_link.there.packets + self.receiver_link.back.packets;
        let left = self.receiver_link.there.packets + self.sender_link.back.packets;
        let dropped: u64 = self.dropped.iter().filter(|dropped| dropped.at == "router").map(|dropped| dropped.packets).sum();
        self.must(
            entered.checked_sub(left) == Some(dropped),
            format!("{entered} packets entered the router and {left} left it, {dropped} are counted there as dropped"),
        );
    }

    /// Packets dropped at `at` for `reason`.
    pub fn dropped_at(&self, at: &str, reason: &str) -> u64 {
        self.dropped.iter().filter(|dropped| dropped.at == at && dropped.reason == reason).map(|dropped| dropped.packets).sum()
    }
}

/// The whole result of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The lines in the order in which they were tried.
    pub lines: Vec<Line>,
    /// What whole captures show, whatever the lines look at.
    pub links: Links,
    /// Whether every line holds, no capture lost a frame, and it took less than [`LIMIT`].
    pub holds: bool,
    /// Frames that captures could not keep; figures are only as good as this is zero.
    pub lost_frames: u32,
    /// How long the run took, in seconds.
    pub seconds: f64,
}

impl Outcome {
    /// Judges a run that took `seconds`.
    pub fn new(lines: Vec<Line>, links: Links, lost_frames: u32, seconds: f64) -> Self {
        let holds = lost_frames == 0 && seconds < LIMIT && lines.iter().all(|line| line.holds);
        Self { lines, links, holds, lost_frames, seconds }
    }

    /// The table a person reads.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let width = self.lines.iter().map(|line| line.tried.chars().count()).max().unwrap_or(0).max(5);
        let _ = writeln!(text, "{:width$}  {:>6}  {:>7}  {:7}  dropped where and why; measured", "tried", "sent", "arrived", "verdict");
        for line in &self.lines {
            let mut why: Vec<String> =
                line.dropped.iter().map(|dropped| format!("{} {} {}", dropped.at, dropped.reason, dropped.packets)).collect();
            if !line.measured.is_empty() {
                why.push(line.measured.clone());
            }
            let verdict = if line.holds { "holds" } else { "BROKEN" };
            let _ = writeln!(text, "{:width$}  {:>6}  {:>7}  {:7}  {}", line.tried, line.sent, line.arrived, verdict, why.join("; "));
            for broken in &line.broken {
                let _ = writeln!(text, "{:width$}  !! {}: {broken}", "", line.name);
            }
        }
        let held = self.lines.iter().filter(|line| line.holds).count();
        let _ = write!(text, "{held} of {} lines hold, {:.1} s", self.lines.len(), self.seconds);
        if self.seconds >= LIMIT {
            let _ = write!(text, "; it must take less than {LIMIT:.0} s");
        }
        if self.lost_frames > 0 {
            let _ = write!(text, "; captures lost {} frames: no figure above is to be believed", self.lost_frames);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::{Figures, Spi};
    use super::*;

    #[test]
    fn a_broken_line_says_so_in_the_table_and_names_what_broke() {
        let mut line = Line::new("forged", "wrong key");
        line.must(1 + 1 == 3, "one packet arrived");
        let outcome = Outcome::new(vec![line], Links::default(), 0, 1.0);
        assert!(!outcome.holds);
        let table = outcome.table();
        assert!(
            table.contains("BROKEN") && table.contains("!! forged: one packet arrived") && table.contains("0 of 1 lines hold"),
            "{table}"
        );
    }

    #[test]
    fn a_packet_that_is_lost_without_being_counted_breaks_the_line_and_so_does_one_that_is_counted_without_being_lost() {
        let spi = || Spi { packets: 10, first: 1, last: 10, growing: true };
        let evidence = |packets| {
            let there = Figures { packets, spis: [("0x00000100".to_owned(), spi())].into(), ..Figures::default() };
            Evidence { there, back: Figures::default() }
        };
        let judged = |entered, left, packets| {
            let dropped = vec![Dropped { at: "router".to_owned(), reason: "unknown_spi".to_owned(), packets }];
            let mut line = Line { sender_link: evidence(entered), receiver_link: evidence(left), dropped, ..Line::new("tcp", "a file") };
            line.must_be_under_ah();
            line.holds
        };
        assert!(judged(10, 10, 0) && judged(10, 8, 2));
        assert!(!judged(10, 9, 0) && !judged(10, 10, 1) && !judged(9, 10, 0));
    }

    #[test]
    fn a_run_that_takes_too_long_or_loses_frames_does_not_hold() {
        let run = |lost_frames, seconds| Outcome::new(vec![Line::new("granted", "a file")], Links::default(), lost_frames, seconds);
        assert!(run(0, 89.9).holds);
        for late in [run(0, 90.0), run(1, 1.0)] {
            assert!(!late.holds, "{}", late.table());
        }
        assert!(run(0, 90.0).table().ends_with("it must take less than 90 s"));
    }
}
