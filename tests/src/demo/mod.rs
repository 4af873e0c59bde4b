//! The demonstration: ask, grant, send, be stopped, on the kernel's own packets.

pub mod evidence;
mod forged;
mod grant;
mod lifecycle;
pub mod line;
mod over_budget;
mod restart;
mod signalling;
pub mod site;
mod sizes;
mod tcp;
pub mod trial;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use line::{Line, Outcome};
use site::Site;

/// How long a packet may take from one end to the other and into every counter.
const SETTLE: Duration = Duration::from_millis(300);

/// Runs every line in order. `progress` is told what is being tried; with `keep`, one capture a link is written there.
pub fn run(keep: Option<&Path>, progress: impl Fn(&str)) -> io::Result<Outcome> {
    let started = Instant::now();
    progress("building three hosts, two links, certificates");
    let mut site = Site::build()?;
    let mut lines = Vec::new();
    let steps: [fn(&mut Site) -> io::Result<Vec<Line>>; 11] = [
        grant::before_permission,
        grant::granted,
        grant::denied,
        tcp::files,
        sizes::large_and_unfragmentable,
        forged::attacks,
        signalling::passed_on,
        lifecycle::ended,
        lifecycle::refreshed,
        over_budget::both_senders,
        restart::router_killed,
    ];
    for step in steps {
        for line in step(&mut site)? {
            progress(&format!("{}: {}", if line.holds { "holds " } else { "BROKEN" }, line.tried));
            lines.push(line);
        }
    }
    if let Some(directory) = keep {
        site.keep_captures(directory)?;
    }
    let lost_frames = site.lost_frames();
    let holds = lost_frames == 0 && lines.iter().all(|line| line.holds);
    Ok(Outcome { lines, holds, lost_frames, seconds: started.elapsed().as_secs_f64() })
}
