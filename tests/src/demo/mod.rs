//! The demonstration: ask, grant, send, be stopped, on the kernel's own packets.

mod consent;
pub mod evidence;
mod expiry;
mod forged;
mod grant;
mod lifecycle;
pub mod line;
mod over_budget;
mod restart;
mod signalling;
pub mod site;
mod sizes;
mod steps;
mod tampered;
mod tcp;
pub mod trial;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use line::Outcome;
use site::Site;

use crate::sabotage::Sabotage;

/// How long a packet may take from one end to the other and into every counter.
const SETTLE: Duration = Duration::from_millis(300);

/// What a run can be told.
#[derive(Debug, Default)]
pub struct Options {
    /// Where one capture a link and the outcome are written.
    pub keep: Option<PathBuf>,
    /// Which check the router runs without.
    pub sabotage: Option<Sabotage>,
    /// The steps to try, with those that they need; all if none is named.
    pub only: Vec<String>,
}

/// Runs every line in order. `progress` is told what is being tried.
pub fn run(options: &Options, progress: impl Fn(&str)) -> io::Result<Outcome> {
    let started = Instant::now();
    let steps = steps::chosen(&options.only)?;
    if let Some(sabotage) = options.sabotage {
        progress(&format!("sabotage: the router runs without its check `{}`", sabotage.word()));
    }
    if let Some(directory) = &options.keep {
        // Better told now than when there is something to lose.
        std::fs::create_dir_all(directory).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())))?;
    }
    progress("building three hosts, two links, certificates");
    let mut site = Site::build(options.sabotage)?;
    let mut lines = Vec::new();
    for step in steps {
        for line in (step.run)(&mut site)? {
            progress(&format!("{}: {}", if line.holds { "holds " } else { "BROKEN" }, line.tried));
            lines.push(line);
        }
    }
    let links = site.end_captures();
    let lost_frames = site.lost_frames();
    let holds = lost_frames == 0 && lines.iter().all(|line| line.holds);
    let outcome = Outcome { lines, links, holds, lost_frames, seconds: started.elapsed().as_secs_f64() };
    if let Some(directory) = &options.keep {
        site.keep(directory, &outcome)?;
    }
    Ok(outcome)
}
