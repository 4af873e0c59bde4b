//! Scenarios: one attack each, on the kernel's own packets, against real daemons with two routers between them; what must follow,
//! and how long that took (requirements, machines §8; draft-hong-nsis-pbs-nslp-04 figures 4 to 6).

mod attacker;
pub mod audit;
mod chance;
mod dying;
mod ending;
mod figure_4;
mod flow;
mod forked;
mod losing;
mod lost;
mod lying;
mod messages;
mod outcome;
mod overlay;
mod policy;
mod relaying;
mod replaying;
mod reroute;
mod restarts;
mod session;
mod signed;
mod site;
mod spare;
mod stalled;
mod steps;
mod story;
mod substitution;
mod swallowed;
mod trap;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

pub use chance::Plan;
pub use outcome::{Check, Detected, Outcome};
pub use story::Told;

use crate::network::topology::Family;
use site::{Site, Terms};

/// What a run can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where captures, logs and the outcome are written.
    pub keep: Option<PathBuf>,
    /// Seed of what is left to chance (see [`Plan`]).
    pub seed: u64,
    /// IP version of network and flows.
    pub family: Family,
}

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What it tries, and what must follow.
    pub what: &'static str,
    terms: Terms,
    run: Play,
}

/// Plays a scenario; the last argument hears what is being tried.
type Play = fn(&Site, &mut Outcome, &dyn Fn(&str)) -> io::Result<()>;

/// The scenarios with two ways.
pub static FORKED: [forked::Scenario; 4] = [reroute::SEEN, reroute::UNSEEN, reroute::FAILOVER, restarts::SCENARIO];

/// The scenarios with relays.
pub static OVERLAID: [overlay::Scenario; 2] = [relaying::SCENARIO, swallowed::SCENARIO];

/// The scenarios in a row.
pub static SCENARIOS: [Scenario; 33] = [
    figure_4::SCENARIO,
    substitution::SCENARIO,
    substitution::UPSTREAM,
    losing::DATA,
    losing::ALL,
    losing::NTH,
    spare::DATA,
    spare::ALL,
    dying::SCENARIO,
    stalled::SCENARIO,
    losing::BELOW,
    losing::ABOVE,
    signed::SCENARIO,
    signed::FLOOD,
    replaying::SCENARIO,
    lying::VOLUME,
    lying::COLLISION,
    ending::LOST_BETWEEN,
    ending::LOST_LAST,
    ending::CROSSING,
    ending::DENIED,
    steps::BEFORE,
    steps::HANDSHAKE,
    steps::QUERY,
    steps::PERMISSION,
    steps::DATA,
    steps::REFRESH,
    steps::REKEY,
    steps::RELEASE,
    lost::GRANT,
    lost::REFRESH,
    lost::END,
    lost::HALF_OPEN,
];

/// A scenario of either kind.
#[derive(Debug, Clone, Copy)]
pub enum Found {
    /// Four hosts in a row, somebody on a link.
    InARow(&'static Scenario),
    /// Two ways, and nobody's ill will.
    Forked(&'static forked::Scenario),
    /// Relays beside the routed path, on which somebody sits.
    Overlaid(&'static overlay::Scenario),
}

impl Found {
    /// What it is called, and what it tries.
    pub fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::InARow(scenario) => (scenario.name, scenario.what),
            Self::Forked(scenario) => (scenario.name, scenario.what),
            Self::Overlaid(scenario) => (scenario.name, scenario.what),
        }
    }
}

/// Where a scenario is played.
trait Stage {
    /// What the daemons have logged so far.
    fn story(&self) -> io::Result<story::Story>;
    /// Frames without which figures are not to be believed.
    fn lost_frames(&self) -> u64;
    /// Writes captures and logs.
    fn keep(&mut self, directory: &Path) -> io::Result<()>;
    /// What whole captures show.
    fn shown(&self) -> Vec<audit::Shown> {
        Vec::new()
    }
}

/// Every scenario.
pub fn all() -> impl Iterator<Item = Found> {
    SCENARIOS.iter().map(Found::InARow).chain(FORKED.iter().map(Found::Forked)).chain(OVERLAID.iter().map(Found::Overlaid))
}

/// The scenario called so.
pub fn find(name: &str) -> io::Result<Found> {
    let names = || all().map(|scenario| scenario.told().0).collect::<Vec<_>>().join(", ");
    let found = all().find(|scenario| scenario.told().0 == name);
    found.ok_or_else(|| io::Error::other(format!("no scenario is called `{name}`; there are {}", names())))
}

/// Runs a scenario. `progress` is told what is being tried.
pub fn run(scenario: Found, options: &Options, progress: impl Fn(&str)) -> io::Result<Outcome> {
    let started = Instant::now();
    if let Some(directory) = &options.keep {
        // Better told now than when there is something to lose.
        std::fs::create_dir_all(directory).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())))?;
    }
    let (name, what) = scenario.told();
    let plan = Plan::of(name, options.seed);
    let mut outcome = Outcome::new(name, what, options, plan.clone());
    match scenario {
        Found::InARow(scenario) => {
            progress("building four hosts, somebody between two of them, certificates; starting four daemons");
            let mut site = Site::build(scenario.terms, options.family, plan)?;
            let ran = (scenario.run)(&site, &mut outcome, &progress);
            end(&mut site, ran, outcome, options, started)
        }
        Found::Forked(scenario) => {
            progress("building five hosts, two ways between them, certificates; starting five daemons");
            let mut site = forked::Site::build(scenario.terms, options.family, plan)?;
            let ran = (scenario.run)(&mut site, &mut outcome, &progress);
            end(&mut site, ran, outcome, options, started)
        }
        Found::Overlaid(scenario) => {
            progress("building ten hosts, relays beside the routed path, certificates; starting ten daemons");
            let mut site = overlay::Site::build(scenario.refresh, options.family, plan)?;
            let ran = (scenario.run)(&mut site, &mut outcome, &progress);
            end(&mut site, ran, outcome, options, started)
        }
    }
}

fn end(site: &mut dyn Stage, ran: io::Result<()>, mut outcome: Outcome, options: &Options, started: Instant) -> io::Result<Outcome> {
    outcome.story = site.story()?.into_lines();
    if let Err(error) = ran {
        outcome.check("the scenario can be played to its end", false, error.to_string());
    }
    outcome.lost_frames = site.lost_frames();
    outcome.seconds = started.elapsed().as_secs_f64();
    outcome.judge();
    if let Some(directory) = &options.keep {
        site.keep(directory)?;
        outcome.shown.extend(site.shown());
        std::fs::write(directory.join("outcome.json"), serde_json::to_string_pretty(&outcome)?)?;
    }
    Ok(outcome)
}
