//! Figures of a scenario that captures show, and the audit that counts them again from the kept captures alone.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attacker::MARK;
use super::site::{OTHER_PORT, of_flow};
use crate::audit::kept;
use crate::network::capture::Frame;
use crate::network::frame;
use crate::network::topology::RECEIVER;

/// Which packets are counted, of those on their way to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// Those of the flow, whoever sent them.
    Flow,
    /// Those of them that bear the attacker's mark.
    Marked,
    /// Those of them under AH whose SPI and number had been there before.
    Again,
    /// Those of the other flow.
    Other,
}

/// A figure, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What it is about.
    pub name: String,
    /// The capture, as its file is called without its extension.
    pub capture: String,
    /// From this moment of the captures on, in microseconds.
    pub from_us: u64,
    /// Until before this one.
    pub to_us: u64,
    /// Which packets.
    pub of: Of,
    /// How many.
    pub packets: u64,
    /// Their octets, IP headers included.
    pub octets: u64,
}

impl Shown {
    /// Counts.
    pub(super) fn count(name: &str, capture: &str, frames: &[Frame], of: Of, (from, to): (Duration, Duration)) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (from_us, to_us) = (micros(from), micros(to));
        let (packets, octets) = count(frames, of, from_us, to_us);
        Self { name: name.to_owned(), capture: capture.to_owned(), from_us, to_us, of, packets, octets }
    }

    /// The rows of a whole capture.
    pub(super) fn whole(capture: &str, frames: &[Frame]) -> Vec<Self> {
        let ever = (Duration::ZERO, Duration::MAX);
        let kinds = [
            ("of the flow", Of::Flow),
            ("of them the attacker's", Of::Marked),
            ("of them numbers again", Of::Again),
            ("of the other flow", Of::Other),
        ];
        kinds.into_iter().map(|(name, of)| Self::count(name, capture, frames, of, ever)).collect()
    }
}

fn count(frames: &[Frame], of: Of, from_us: u64, to_us: u64) -> (u64, u64) {
    let mut known = BTreeSet::new();
    let (mut packets, mut octets) = (0, 0);
    for frame in frames {
        let seen = match of {
            Of::Other => frame.ip().and_then(frame::read).filter(|seen| (seen.destination, seen.ports.1) == (RECEIVER, OTHER_PORT)),
            Of::Flow | Of::Marked | Of::Again => of_flow(frame),
        };
        let Some(seen) = seen else { continue };
        let counts = match of {
            Of::Flow | Of::Other => true,
            Of::Marked => seen.payload.starts_with(MARK),
            Of::Again => seen.authentication.is_some_and(|ah| !known.insert((ah.spi, ah.sequence))),
        };
        let at = u64::try_from(frame.at.as_micros()).unwrap_or(u64::MAX);
        if counts && (from_us..to_us).contains(&at) {
            packets += 1;
            octets += seen.length as u64;
        }
    }
    (packets, octets)
}

/// What an audit of a scenario found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Each figure as the run wrote it down, and as the captures show it.
    pub rows: Vec<(Shown, Shown)>,
    /// Whether the octets that got through, as the run says, are among them.
    pub through: Option<bool>,
    /// Whether all agree.
    pub agrees: bool,
}

/// What is read of an outcome.
#[derive(Deserialize)]
struct Recorded {
    name: String,
    octets_through: u64,
    lost_frames: u64,
    shown: Vec<Shown>,
}

/// What the figure of the octets that got through is called.
pub(super) const THROUGH: &str = "octets that got through";

/// Whether `directory` holds a scenario.
pub fn is_scenario(directory: &Path) -> bool {
    directory.join("behind-router2.pcap").exists()
}

/// Audits what `scenario NAME --keep` wrote into `directory`.
pub fn run(directory: &Path) -> io::Result<Report> {
    let text = std::fs::read_to_string(directory.join(kept::OUTCOME))?;
    let recorded: Recorded = serde_json::from_str(&text).map_err(|error| io::Error::other(format!("{}: {error}", kept::OUTCOME)))?;
    let mut rows = Vec::new();
    for shown in recorded.shown {
        // The name is part of a path, and the file somebody else's.
        if !["sender-link", "middle-left", "middle-right", "behind-router2"].contains(&shown.capture.as_str()) {
            return Err(io::Error::other(format!("no capture is called `{}`", shown.capture)));
        }
        let frames = kept::read_capture(&directory.join(format!("{}.pcap", shown.capture))).map_err(io::Error::other)?;
        let (packets, octets) = count(&frames, shown.of, shown.from_us, shown.to_us);
        let captured = Shown { packets, octets, ..shown.clone() };
        rows.push((shown, captured));
    }
    let mut through = rows.iter().filter(|(shown, _)| shown.name == THROUGH).map(|(_, captured)| captured.octets).peekable();
    let through = through.peek().is_some().then(|| through.sum::<u64>() == recorded.octets_through);
    let agrees = recorded.lost_frames == 0 && !rows.is_empty() && rows.iter().all(|(one, other)| one == other) && through != Some(false);
    Ok(Report { scenario: recorded.name, rows, through, agrees })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: figures counted again from the captures", self.scenario)?;
        for (recorded, captured) in &self.rows {
            let verdict = if recorded == captured { "agrees" } else { "DIFFERS" };
            let Shown { name, capture, packets, octets, .. } = recorded;
            write!(f, "{verdict:<8}{capture:<15}{name}: {packets} packets, {octets} octets")?;
            if recorded != captured {
                write!(f, "; captured: {} packets, {} octets", captured.packets, captured.octets)?;
            }
            writeln!(f)?;
        }
        match self.through {
            Some(true) => writeln!(f, "agrees  what got through, as the run says")?,
            Some(false) => writeln!(f, "DIFFERS what got through, as the run says")?,
            None => writeln!(f, "what got through is a figure of the receiving program, which no capture shows")?,
        }
        write!(f, "{}", if self.agrees { "all agree\n" } else { "NOT ALL AGREE\n" })
    }
}
