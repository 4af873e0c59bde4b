//! Figures of a scenario that captures show, and the audit that counts them again from the kept captures alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::attacker::MARK;
use super::chance::Plan;
use super::messages::{Message, Watcher};
use super::outcome::Outcome;
use super::site::{OTHER_PORT, is_to, of_flow};
use crate::audit::kept;
use crate::network::capture::Frame;
use crate::network::frame;
use crate::network::relay::Way;
use crate::network::topology::{SENDER, SENDER6};

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
    /// Those of them without AH.
    Clear,
    /// Those of the other flow.
    Other,
    /// Not packets of a flow: frames of signalling on the sender's link that bear a Permission.
    Permissions,
    /// Those under AH with another packet inside, whoever they are for.
    Tunnel,
}

/// What a count of packets is to a figure of the outcome: a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What the figure is called.
    pub figure: String,
    /// What is taken of the count.
    pub unit: Unit,
    /// Whether it is taken away.
    pub minus: bool,
}

/// What is taken of a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// How many packets.
    Packets,
    /// Their octets.
    Octets,
    /// Milliseconds until the first of them; 0 if there is none.
    Milliseconds,
}

/// A count of packets, and where it is from.
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
    /// When the first of them was there, in microseconds.
    pub first_us: Option<u64>,
    /// The figure of the outcome that it is a part of.
    pub part: Option<Part>,
}

impl Shown {
    /// Counts.
    pub(super) fn count(name: &str, capture: &str, frames: &[Frame], of: Of, (from, to): (Duration, Duration)) -> Self {
        let (from_us, to_us) = (micros(from), micros(to));
        let (packets, octets, first_us) = count(frames, of, from_us, to_us);
        Self { name: name.to_owned(), capture: capture.to_owned(), from_us, to_us, of, packets, octets, first_us, part: None }
    }

    /// What it gives to its figure.
    fn given(&self) -> i128 {
        let amount = match self.part.as_ref().map(|part| part.unit) {
            Some(Unit::Packets) => self.packets,
            Some(Unit::Octets) => self.octets,
            Some(Unit::Milliseconds) => self.first_us.map_or(0, |first| first.saturating_sub(self.from_us) / 1000),
            None => 0,
        };
        if self.part.as_ref().is_some_and(|part| part.minus) { -i128::from(amount) } else { amount.into() }
    }

    /// The rows of a whole capture.
    pub(super) fn whole(capture: &str, frames: &[Frame]) -> Vec<Self> {
        let ever = (Duration::ZERO, Duration::MAX);
        let kinds = [
            ("of the flow", Of::Flow),
            ("of them the attacker's", Of::Marked),
            ("of them numbers again", Of::Again),
            ("of them in the clear", Of::Clear),
            ("of the other flow", Of::Other),
            ("of tunnels", Of::Tunnel),
        ];
        kinds.into_iter().map(|(name, of)| Self::count(name, capture, frames, of, ever)).collect()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Outcome {
    /// Writes down a figure that counts give, so that an audit can count it again. A sum below zero is none.
    pub(super) fn figure_of(&mut self, figure: &str, unit: Unit, counts: impl IntoIterator<Item = (Shown, bool)>) -> u64 {
        let part = |minus| Some(Part { figure: figure.to_owned(), unit, minus });
        let counts: Vec<Shown> = counts.into_iter().map(|(shown, minus)| Shown { part: part(minus), ..shown }).collect();
        let sum = figure_of(&counts);
        self.figure(figure, sum);
        self.shown.extend(counts);
        sum
    }
}

fn figure_of<'a>(counts: impl IntoIterator<Item = &'a Shown>) -> u64 {
    u64::try_from(counts.into_iter().map(Shown::given).sum::<i128>()).unwrap_or(0)
}

fn count(frames: &[Frame], of: Of, from_us: u64, to_us: u64) -> (u64, u64, Option<u64>) {
    let mut known = BTreeSet::new();
    let mut watcher = Watcher::default();
    let (mut packets, mut octets, mut first) = (0, 0, None);
    for frame in frames {
        let seen = match of {
            Of::Other => frame.ip().and_then(frame::read).filter(|seen| is_to(seen, OTHER_PORT)),
            Of::Permissions => frame.ip().and_then(frame::read).filter(|seen| {
                let way = if [SENDER, SENDER6].contains(&seen.source) { Way::There } else { Way::Back };
                watcher.hear(way, &frame.bytes).contains(&Message::Permission)
            }),
            Of::Tunnel => frame.ip().and_then(frame::read).filter(|seen| [4, 41].contains(&seen.protocol) && seen.authentication.is_some()),
            Of::Flow | Of::Marked | Of::Again | Of::Clear => of_flow(frame),
        };
        let Some(seen) = seen else { continue };
        let counts = match of {
            Of::Flow | Of::Other | Of::Permissions | Of::Tunnel => true,
            Of::Clear => seen.authentication.is_none(),
            Of::Marked => seen.payload.starts_with(MARK),
            Of::Again => seen.authentication.is_some_and(|ah| !known.insert((ah.spi, ah.sequence))),
        };
        let at = micros(frame.at);
        if counts && (from_us..to_us).contains(&at) {
            packets += 1;
            octets += seen.length as u64;
            first = first.or(Some(at));
        }
    }
    (packets, octets, first)
}

/// What an audit of a scenario found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// Each count as the run wrote it down, and as the captures show it.
    pub rows: Vec<(Shown, Shown)>,
    /// Each figure that counts give: as the run wrote it down, if it did, and as the captures show it.
    pub figures: BTreeMap<String, (Option<u64>, u64)>,
    /// Figures of programs and nodes, which no capture shows.
    pub beyond: Vec<String>,
    /// Whether the octets that got through, as the run says, are among them.
    pub through: Option<bool>,
    /// What the run says against itself: its checks against its verdict, its seed against what that decides.
    pub contradictions: Vec<String>,
    /// Whether all agree.
    pub agrees: bool,
}

/// What is read of an outcome.
#[derive(Deserialize)]
struct Recorded {
    name: String,
    seed: u64,
    plan: Value,
    octets_through: u64,
    lost_frames: u64,
    figures: BTreeMap<String, u64>,
    shown: Vec<Shown>,
    table: Table,
    checks: Vec<Held>,
    holds: bool,
}

#[derive(Deserialize)]
struct Table {
    rows: Vec<Vec<String>>,
    figures: Vec<Vec<Option<String>>>,
}

impl Table {
    /// Whether each cell that shows a figure shows what the run says it is.
    fn follows_from(&self, figures: &BTreeMap<String, u64>) -> bool {
        let cells = self.rows.iter().flatten().zip(self.figures.iter().flatten());
        let shown = |name: &str| figures.get(name).map_or("-".to_owned(), u64::to_string);
        let same = |(cell, figure): (&String, &Option<String>)| figure.as_ref().is_none_or(|name| *cell == shown(name));
        self.rows.iter().map(Vec::len).eq(self.figures.iter().map(Vec::len)) && cells.into_iter().all(same)
    }
}

#[derive(Deserialize)]
struct Held {
    holds: bool,
}

/// What the figure of the octets that got through is called.
pub(super) const THROUGH: &str = "octets that got through";
/// What captures may be called.
const CAPTURES: [&str; 12] = [
    "sender-link",
    "middle-left",
    "middle-right",
    "behind-router2",
    "second-uplink",
    "third-uplink",
    "behind-router2a",
    "behind-router2b",
    "relay1-link",
    "relay2-link",
    "before-router3",
    "receiver-link",
];

/// Whether `directory` holds a scenario: its outcome has no lines but counts.
pub fn is_scenario(directory: &Path) -> bool {
    let outcome = std::fs::read_to_string(directory.join(kept::OUTCOME)).unwrap_or_default();
    serde_json::from_str::<Value>(&outcome).is_ok_and(|outcome| outcome.get("shown").is_some())
}

/// Audits what `scenario NAME --keep` wrote into `directory`.
pub fn run(directory: &Path) -> io::Result<Report> {
    let text = std::fs::read_to_string(directory.join(kept::OUTCOME))?;
    let recorded: Recorded = serde_json::from_str(&text).map_err(|error| io::Error::other(format!("{}: {error}", kept::OUTCOME)))?;
    let mut captures = BTreeMap::new();
    let mut rows = Vec::new();
    for shown in recorded.shown {
        // The name is part of a path, and the file somebody else's.
        let Some(name) = CAPTURES.into_iter().find(|name| *name == shown.capture) else {
            return Err(io::Error::other(format!("no capture is called `{}`", shown.capture)));
        };
        if !captures.contains_key(name) {
            captures.insert(name, kept::read_capture(&directory.join(format!("{name}.pcap"))).map_err(io::Error::other)?);
        }
        let frames = captures.get(name).map(Vec::as_slice).unwrap_or_default();
        let (packets, octets, first_us) = count(frames, shown.of, shown.from_us, shown.to_us);
        let captured = Shown { packets, octets, first_us, ..shown.clone() };
        rows.push((shown, captured));
    }
    let mut parts: BTreeMap<&str, Vec<&Shown>> = BTreeMap::new();
    for (_, captured) in &rows {
        let figure = captured.part.iter().map(|part| part.figure.as_str());
        figure.for_each(|figure| parts.entry(figure).or_default().push(captured));
    }
    let figure = |(name, parts): (&str, Vec<&Shown>)| (name.to_owned(), (recorded.figures.get(name).copied(), figure_of(parts)));
    let figures: BTreeMap<_, _> = parts.into_iter().map(figure).collect();
    let beyond = recorded.figures.keys().filter(|name| !figures.contains_key(*name)).cloned().collect();
    let mut through = rows.iter().filter(|(shown, _)| shown.name == THROUGH).map(|(_, captured)| captured.octets).peekable();
    let through = through.peek().is_some().then(|| through.sum::<u64>() == recorded.octets_through);
    let mut contradictions = Vec::new();
    let mut must = |holds: bool, what: &str| contradictions.extend((!holds).then(|| what.to_owned()));
    must(recorded.lost_frames == 0, "frames were lost");
    let held = recorded.lost_frames == 0 && !recorded.checks.is_empty() && recorded.checks.iter().all(|check| check.holds);
    must(recorded.holds == held, "the verdict does not follow from the checks");
    must(recorded.table.follows_from(&recorded.figures), "a cell of the table is not the figure that it shows");
    let plan = serde_json::to_value(Plan::of(&recorded.name, recorded.seed))?;
    must(recorded.plan == plan, "the seed does not decide what the run says it decided");
    let agrees = contradictions.is_empty()
        && !rows.is_empty()
        && rows.iter().all(|(one, other)| one == other)
        && figures.values().all(|(recorded, counted)| *recorded == Some(*counted))
        && through != Some(false);
    Ok(Report { scenario: recorded.name, rows, figures, beyond, through, contradictions, agrees })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: counts and figures, counted again from the captures", self.scenario)?;
        let verdict = |agrees| if agrees { "agrees " } else { "DIFFERS" };
        for (recorded, captured) in &self.rows {
            let Shown { name, capture, packets, octets, .. } = recorded;
            write!(f, "{} {capture:<15} {name}: {packets} packets, {octets} octets", verdict(recorded == captured))?;
            if recorded != captured {
                let Shown { packets, octets, first_us, .. } = captured;
                write!(f, "; captured: {packets} packets, {octets} octets, the first at {first_us:?} µs")?;
            }
            writeln!(f)?;
        }
        for (name, (recorded, counted)) in &self.figures {
            let said = recorded.map_or("nothing".to_owned(), |figure| figure.to_string());
            write!(f, "{} {name}: {said}", verdict(*recorded == Some(*counted)))?;
            writeln!(f, "{}", if *recorded == Some(*counted) { String::new() } else { format!("; captured: {counted}") })?;
        }
        match self.through {
            Some(agrees) => writeln!(f, "{} what got through, as the run says", verdict(agrees))?,
            None => writeln!(f, "what got through is a figure of the receiving program, which no capture shows")?,
        }
        for name in &self.beyond {
            writeln!(f, "no capture shows: {name}")?;
        }
        writeln!(f, "no capture shows: what nodes log and count: rules, detection, drops by reason")?;
        for contradiction in &self.contradictions {
            writeln!(f, "DIFFERS {contradiction}")?;
        }
        write!(f, "{}", if self.agrees { "all agree\n" } else { "NOT ALL AGREE\n" })
    }
}
