//! Honest sessions over a bad network: sender, two routers and receiver as they are, with their packet sides and real keys, in
//! virtual time. Packets are lost and overtake each other, messages are late or lost; nobody attacks. No test that needs no
//! tolerance may accuse anybody (INV-13); how often those with a tolerance do is what the table says.

mod injecting;
mod node;
mod people;
mod session;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

pub use injecting::Numbers;
use people::People;
use session::{Course, Session};

/// Shares of missing bytes that are tolerated, in percent: each session is held against one of them.
pub const THRESHOLDS: [u8; 5] = [1, 2, 5, 10, 20];
/// Upper ends of the bands of loss in the table, in percent.
pub const BANDS: [u8; 6] = [0, 1, 2, 5, 10, 20];

/// What is to be played.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many sessions.
    pub sessions: u64,
    /// Seed of the first; the others follow.
    pub seed: u64,
    /// Whether somebody with the flow's key adds packets in each of them: the counter-example.
    pub injecting: bool,
}

/// How all of them came out.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Sessions played.
    pub sessions: u64,
    /// Seed of the first.
    pub seed: u64,
    /// Those that got a permission and sent under it.
    pub granted: u64,
    /// Packets that the program sent.
    pub packets_sent: u64,
    /// Those that arrived.
    pub packets_delivered: u64,
    /// Those that the network lost.
    pub packets_lost: u64,
    /// Messages that the network lost.
    pub messages_lost: u64,
    /// Packets that nodes dropped, by node and reason.
    pub dropped: BTreeMap<String, u64>,
    /// Volumes held against each other.
    pub comparisons: u64,
    /// Accusations by tests without tolerance, with seed and words: there must be none.
    pub e_alarms: Vec<Alarm>,
    /// Suspicions (T1), after which nothing happens.
    pub t1_suspicions: u64,
    /// Packets too late for the window beyond the tolerance (T3): sessions.
    pub t3_alarms: u64,
    /// Nothing arrived for two periods (T4): sessions.
    pub t4_alarms: u64,
    /// Sessions with an alarm for missing packets (T2), by threshold and band of loss.
    pub table: Vec<Row>,
    /// Of the counter-example: sessions accused after packets were added, by their numbers and band of loss. Otherwise empty.
    pub injected: Vec<Injected>,
    /// Accusations before anything was added: there must be none either.
    pub too_early: u64,
    /// SHA-256 of everything that happened, in order: the same for the same seed.
    pub trace: String,
    /// Whether every session was granted, volumes were compared, and there was no alarm that must not be; of the counter-example,
    /// whether there was every alarm that must be.
    pub holds: bool,
}

/// An accusation.
#[derive(Debug, Clone, Serialize)]
pub struct Alarm {
    /// Seed of the session alone.
    pub seed: u64,
    /// When, in seconds.
    pub at: f64,
    /// What was said.
    pub said: String,
}

/// A row of the counter-example.
#[derive(Debug, Clone, Serialize)]
pub struct Injected {
    /// Which numbers the added packets had.
    pub numbers: Numbers,
    /// For each band of loss in the order of [`BANDS`]: sessions accused (E1 to E4), and all in which added packets arrived.
    pub bands: Vec<(u64, u64)>,
}

/// A row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Share of missing bytes tolerated, in percent.
    pub threshold: u8,
    /// For each band of loss in the order of [`BANDS`]: sessions with an alarm, and all.
    pub bands: Vec<(u64, u64)>,
}

/// Plays them. `progress` hears of every hundredth.
pub fn run(options: Options, progress: impl Fn(&str) + Sync) -> io::Result<Outcome> {
    let people = People::new()?;
    let next = AtomicU64::new(0);
    let results: Mutex<BTreeMap<u64, io::Result<Course>>> = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= options.sessions {
                        return;
                    }
                    let seed = options.seed.wrapping_add(number);
                    let course = Session::new(&people, seed, threshold_of(number), options.injecting).and_then(Session::play);
                    results.lock().unwrap_or_else(PoisonError::into_inner).insert(number, course);
                    if number.is_multiple_of(100) {
                        progress(&format!("session {number} of {}", options.sessions));
                    }
                }
            });
        }
    });
    let mut outcome = Outcome { sessions: options.sessions, seed: options.seed, ..Outcome::default() };
    outcome.table = THRESHOLDS.iter().map(|threshold| Row { threshold: *threshold, bands: vec![(0, 0); BANDS.len()] }).collect();
    if options.injecting {
        outcome.injected = [Numbers::Next, Numbers::Ahead].map(|numbers| Injected { numbers, bands: vec![(0, 0); BANDS.len()] }).into();
    }
    let mut traces = Vec::new();
    for (number, course) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        outcome.add(number, course?, &mut traces);
    }
    outcome.trace = hex::encode(ring::digest::digest(&ring::digest::SHA256, &traces));
    let played = outcome.granted == outcome.sessions && outcome.comparisons > outcome.sessions;
    outcome.holds = played && if options.injecting { outcome.finds_injection() } else { outcome.e_alarms.is_empty() };
    Ok(outcome)
}

/// What is tolerated in a session, by its place.
fn threshold_of(number: u64) -> u8 {
    let place = usize::try_from(number % THRESHOLDS.len() as u64).unwrap_or(0);
    THRESHOLDS.get(place).copied().unwrap_or(5)
}

impl Outcome {
    fn add(&mut self, number: u64, course: Course, traces: &mut Vec<u8>) {
        self.granted += u64::from(course.delivered > 0);
        self.packets_sent += course.sent;
        self.packets_delivered += course.delivered;
        self.packets_lost += course.lost;
        self.messages_lost += course.messages_lost;
        self.comparisons += course.comparisons;
        self.t1_suspicions += course.suspicions;
        self.t3_alarms += u64::from(course.late);
        self.t4_alarms += u64::from(course.silent);
        for (place, packets) in course.dropped {
            *self.dropped.entry(place).or_default() += packets;
        }
        let seed = self.seed.wrapping_add(number);
        let band = BANDS.iter().position(|end| course.loss <= f64::from(*end)).unwrap_or(BANDS.len() - 1);
        if let Some((begun, numbers, _)) = course.injected.filter(|(_, _, got)| *got > 0) {
            let accused = course.accusations.iter().any(|(at, _)| *at >= begun);
            self.too_early += course.accusations.iter().filter(|(at, _)| *at < begun).count() as u64;
            let row = self.injected.iter_mut().find(|row| row.numbers == numbers);
            if let Some((alarms, all)) = row.and_then(|row| row.bands.get_mut(band)) {
                *alarms += u64::from(accused);
                *all += 1;
            }
        } else {
            self.too_early += course.accusations.len() as u64;
        }
        self.e_alarms.extend(course.accusations.into_iter().map(|(at, said)| Alarm { seed, at, said }));
        let row = self.table.iter_mut().find(|row| row.threshold == threshold_of(number));
        if let Some((alarms, all)) = row.and_then(|row| row.bands.get_mut(band)) {
            *alarms += u64::from(course.missing);
            *all += 1;
        }
        traces.extend(course.trace);
    }

    /// Whether every session is accused that must be: all with numbers ahead, and without loss those with the next ones.
    fn finds_injection(&self) -> bool {
        let must = |row: &Injected| match row.numbers {
            Numbers::Ahead => row.bands.clone(),
            Numbers::Next => row.bands.iter().take(1).copied().collect(),
        };
        let bands: Vec<(u64, u64)> = self.injected.iter().flat_map(must).collect();
        self.too_early == 0 && bands.iter().all(|(alarms, all)| alarms == all) && bands.iter().any(|(_, all)| *all > 0)
    }

    fn text_of_injected(&self, text: &mut String) {
        let _ =
            writeln!(text, "sessions accused (E1 to E4) of those in which packets under the flow's key were added, by numbers and loss:");
        for Injected { numbers, bands } in &self.injected {
            let (name, must) = match numbers {
                Numbers::Next => ("next", "without loss all must be; loss hides as many bytes as it takes"),
                Numbers::Ahead => ("ahead", "all must be"),
            };
            let _ = write!(text, "  {name:>9}");
            for (alarms, all) in bands {
                let _ = write!(text, "{:>12}", format!("{alarms}/{all}"));
            }
            let _ = writeln!(text, "  {must}");
        }
        let _ = writeln!(text, "accusations before anything was added, of which there must be none: {}", self.too_early);
    }

    /// What a person reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{} honest sessions from seed {}, {} granted", self.sessions, self.seed, self.granted);
        let _ = writeln!(
            text,
            "{} packets sent, {} delivered, {} lost by the network, {} messages lost; {} comparisons",
            self.packets_sent, self.packets_delivered, self.packets_lost, self.messages_lost, self.comparisons
        );
        for (place, packets) in &self.dropped {
            let _ = writeln!(text, "dropped by {place}: {packets}");
        }
        let must = if self.injected.is_empty() { ", of which there must be none" } else { "" };
        let _ = writeln!(text, "accusations without tolerance (E1 to E4){must}: {}", self.e_alarms.len());
        for Alarm { seed, at, said } in self.e_alarms.iter().filter(|_| self.injected.is_empty()) {
            let _ = writeln!(text, "  seed {seed}, {at:.3} s: {said}");
        }
        let _ =
            writeln!(text, "suspicions (T1), without effect: {}; sessions with late packets (T3): {}", self.t1_suspicions, self.t3_alarms);
        let _ = writeln!(text, "sessions of which nothing seemed to arrive (T4): {}", self.t4_alarms);
        let _ = writeln!(text, "sessions in which packets counted as missing (T2) for two periods, of all, by threshold and loss:");
        let _ = write!(text, "  tolerated");
        let mut from = 0;
        for end in BANDS {
            let band = if end == 0 { "none".to_owned() } else { format!("{from}-{end} %") };
            let _ = write!(text, "{band:>12}");
            from = end;
        }
        for Row { threshold, bands } in &self.table {
            let _ = write!(text, "\n  {:>7} %", threshold);
            for (alarms, all) in bands {
                let _ = write!(text, "{:>12}", format!("{alarms}/{all}"));
            }
        }
        text.push('\n');
        if !self.injected.is_empty() {
            self.text_of_injected(&mut text);
        }
        let _ = writeln!(text, "trace: {}", self.trace);
        let _ = writeln!(text, "{}", if self.holds { "holds" } else { "DOES NOT HOLD" });
        text
    }
}
