//! The demonstration: ask, grant, send, be stopped, on the kernel's own packets.

mod consent;
pub mod evidence;
mod expiry;
mod flipped;
mod forged;
mod grant;
mod held_back;
mod lifecycle;
pub mod line;
mod misused;
mod over_budget;
mod restart;
mod signalling;
pub mod site;
mod sizes;
mod steps;
mod tampered;
mod tcp;
pub mod trial;
pub mod whole;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use line::{Line, Outcome};
use site::Site;
use steps::Step;

use crate::sabotage::Sabotage;

/// How long a packet may take from one end to the other and into every counter.
const SETTLE: Duration = Duration::from_millis(300);

/// How long a person watches without a word.
const SILENCE: Duration = Duration::from_secs(2);

/// What a run can be told.
#[derive(Debug, Default)]
pub struct Options {
    /// Where one capture a link and the outcome are written.
    pub keep: Option<PathBuf>,
    /// Which check the router, or every node, runs without.
    pub sabotage: Option<Sabotage>,
    /// The steps to try, with those that they need; all if none is named.
    pub only: Vec<String>,
}

/// Runs every line in order. `progress` is told what is being tried, how long that may take, and what came of it.
pub fn run(options: &Options, progress: impl Fn(&str)) -> io::Result<Outcome> {
    let started = Instant::now();
    let steps = steps::chosen(&options.only)?;
    if let Some(sabotage) = options.sabotage {
        progress(&format!("sabotage: {} without the check `{}`", sabotage.who(), sabotage.word()));
    }
    if let Some(directory) = &options.keep {
        // Better told now than when there is something to lose.
        std::fs::create_dir_all(directory).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())))?;
    }
    progress("building three hosts, two links, certificates");
    let mut site = Site::build(options.sabotage)?;
    // Daemons die with the thread that started them, so one thread tries everything, and this one speaks meanwhile.
    let tried = std::thread::scope(|scope| {
        let (say, said) = sync_channel(1);
        let site = &mut site;
        let trying = scope.spawn(move || try_all(site, &steps, &say));
        pass_on(&said, &progress);
        trying.join().map_err(|_| io::Error::other("a step of the demonstration panicked"))?
    });
    let mut lines = tried?;
    let links = site.end_captures();
    let whole = whole::line(&links, &lines);
    progress(&verdict(&whole));
    lines.push(whole);
    let outcome = Outcome::new(lines, links, site.lost_frames(), started.elapsed().as_secs_f64());
    if let Some(directory) = &options.keep {
        site.keep(directory, &outcome)?;
    }
    Ok(outcome)
}

fn try_all(site: &mut Site, steps: &[&Step], say: &SyncSender<String>) -> io::Result<Vec<Line>> {
    // Nobody listens only if whoever did has panicked.
    let say = |what: String| say.send(what).map_err(|_| io::Error::other("nobody listens"));
    let mut lines = Vec::new();
    for step in steps {
        say(format!("trying: {} (at most {} s)", step.what, step.at_most.as_secs()))?;
        for line in (step.run)(site)? {
            say(verdict(&line))?;
            lines.push(line);
        }
    }
    Ok(lines)
}

fn verdict(line: &Line) -> String {
    format!("{}: {}", if line.holds { "holds " } else { "BROKEN" }, line.tried)
}

/// Tells `progress` what is said until nobody speaks any more, and how long it has been silent.
fn pass_on(said: &Receiver<String>, progress: impl Fn(&str)) {
    let mut last = Instant::now();
    loop {
        match said.recv_timeout(SILENCE) {
            Ok(what) => {
                progress(&what);
                last = Instant::now();
            }
            Err(RecvTimeoutError::Timeout) => progress(&format!("        … {} s", last.elapsed().as_secs())),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn whoever_watches_never_waits_long_for_a_word() {
        let (say, said) = sync_channel(1);
        let speaker = std::thread::spawn(move || {
            say.send("trying".to_owned()).unwrap();
            std::thread::sleep(SILENCE * 2 + SILENCE / 4);
            say.send("holds".to_owned()).unwrap();
        });
        let heard = RefCell::new(Vec::new());
        pass_on(&said, |what| heard.borrow_mut().push(what.trim().to_owned()));
        speaker.join().unwrap();
        assert_eq!(*heard.borrow(), ["trying", "… 2 s", "… 4 s", "holds"]);
    }
}
