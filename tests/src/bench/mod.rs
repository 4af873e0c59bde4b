//! Benchmarks: a figure of ours beside a bound measured in the same run, since absolute figures of a shared machine say little.
//!
//! ```text
//!  pairs      ours, bound, bound, ours, …: at least seven pairs, the side that begins changes; medians, and the ratio of
//!             the medians with the interval that holds 95 % of its resamplings
//!  row        what is said of one figure: {name, ours, bound, unit, ratio, goal, met, spread}
//!  processor  time of single threads on the processor, so that what makes the load and what bears it are told apart
//! ```
//!
//! A benchmark is a list of [`Trial`]s and a place in [`Subject`].

mod datapath;
mod gist;
mod pairs;
mod processor;
mod row;

use std::io;
use std::path::{Path, PathBuf};

use pairs::Pairs;
use row::{Report, Row};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Subject {
    /// GIST (RFC 5971): handshakes, Data messages and memory of one router. Needs root.
    Gist,
    /// The datapath: the packet queue, the verifier and its parts, a packet each. Needs root, and `cc` for one row.
    Datapath,
}

/// How it is measured.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) subject: Subject,
    /// Pairs of each row, [`pairs::FEWEST`] at least.
    pub(crate) pairs: usize,
    /// Rows whose names contain one of these; all if there are none.
    pub(crate) only: Vec<String>,
    /// Where raw samples go, one file a row.
    pub(crate) keep: Option<PathBuf>,
}

/// Measures every row of a subject that is wanted.
///
/// # Errors
///
/// A trial cannot be made, or a file not be written.
pub(crate) fn run(options: &Options, progress: impl Fn(&str)) -> io::Result<Report> {
    let (trials, literature) = match options.subject {
        Subject::Gist => (gist::trials(), &gist::LITERATURE[..]),
        Subject::Datapath => (datapath::trials(), &datapath::LITERATURE[..]),
    };
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|part| name.contains(part));
    let mut report = Report::begin(literature);
    for mut trial in trials.into_iter().filter(|trial| wanted(&trial.name)) {
        let pairs = Pairs::measure(&mut trial, options.pairs, &progress).map_err(|error| named(&trial.name, &error))?;
        if let Some(directory) = &options.keep {
            keep(directory, &trial.name, &pairs)?;
        }
        report.rows.push(Row::of(&trial, &pairs));
    }
    report.end();
    Ok(report)
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{name}: {error}"))
}

fn keep(directory: &Path, name: &str, pairs: &Pairs) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let file: String = name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    std::fs::write(directory.join(format!("{file}.json")), serde_json::to_vec_pretty(pairs)?)
}
