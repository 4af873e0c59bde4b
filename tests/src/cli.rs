//! The command line of `pbs-lab`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::network::topology::Family;
use crate::sabotage::Sabotage;
use crate::{audit, bench, coverage, demo, fuzz, gist_node, honest, latency, query_flood, remains, sabotage, scenario, soak, standing};

/// What went on well, what did not hold, what could not be done.
const YES: u8 = 0;
const NO: u8 = 1;
const ERROR: u8 = 2;

/// The laboratory of Permission-Based Sending.
#[derive(Debug, Parser)]
#[command(name = "pbs-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows on real traffic what is let through and what is stopped. Needs root.
    Demo {
        /// The result as JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Writes one capture a link and the outcome as JSON into this directory, for `audit`.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// Takes one check out of the router (`coverage`: out of every node): the lines that stand for it must break, and the exit code
        /// is 1.
        #[arg(long, value_enum, value_name = "CHECK")]
        sabotage: Option<Sabotage>,
        /// Tries only these steps and those that they need.
        #[arg(long, hide = true, value_delimiter = ',', value_name = "STEP")]
        only: Vec<String>,
    },
    /// Runs the demonstration without each of the router's checks in turn. Exit code 0 only if every run said no and named exactly
    /// the lines that stand for the check. Takes some minutes. Needs root.
    Sabotages,
    /// Counts every figure of a kept demonstration or scenario that captures can show again, from the captures alone. Exit code 0 only if
    /// all agree.
    Audit {
        /// What `demo --keep` or `scenario NAME --keep` wrote.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The result as JSON.
        #[arg(long)]
        json: bool,
        /// Instead: one line for each link and SPI of the recorded outcome, to compare with another program's counts.
        #[arg(long, conflicts_with = "json")]
        spi_table: bool,
    },
    /// Plays one attack against real daemons with two routers between them. Exit code 0 only if everything followed that must.
    /// Needs root.
    Scenario {
        /// Which one; `--list` names them.
        #[arg(required_unless_present = "list")]
        name: Option<String>,
        /// Names all scenarios instead.
        #[arg(long, conflicts_with = "name")]
        list: bool,
        /// The result as JSON instead of text.
        #[arg(long)]
        json: bool,
        /// Writes one capture a link, the daemons' logs and the outcome as JSON into this directory.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// What everything follows from that is left to chance: payloads, what is lost, when somebody interferes, how long a node is
        /// away. It is told; the same seed decides the same.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// IP version of network and flows.
        #[arg(long, value_enum, default_value_t = Version::Four, value_name = "VERSION")]
        ip: Version,
        /// Where it is played. There are only network namespaces.
        #[arg(long, value_enum, default_value_t = World::Netns)]
        world: World,
    },
    /// Plays honest sessions over a network that loses, delays and reorders, in virtual time, with the real state machines and packet
    /// sides. Exit code 0 only if no test that needs no tolerance accuses anybody (INV-13).
    Honest {
        /// How many.
        #[arg(long, default_value_t = 1000)]
        sessions: u64,
        /// What the first one's chance begins with; each of the others has the next number.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The counter-example: in each session somebody with the flow's key adds packets once, and must be found out.
        #[arg(long)]
        inject: bool,
        /// The result as JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// One of a hundred sources floods a router with Queries, on real sockets. Exit code 0 only if the ninety-nine keep 95 % of their
    /// grants within three times the time, and the router its memory. Needs root, and a processor for the flooding host alone.
    QueryFlood {
        /// New flows of each source, without the flood and with it.
        #[arg(long, default_value_t = 2)]
        rounds: u32,
        /// The result as JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Measures how long a first packet takes: a new flow over live associations through one router, cold, and a TCP connection with
    /// both permissions. Exit code 0 only if all goals are met, which are those of a release build on an idle machine. Needs root.
    Latency {
        /// New flows.
        #[arg(long, default_value_t = 300)]
        flows: usize,
        /// Cold starts.
        #[arg(long, default_value_t = 15)]
        cold: usize,
        /// TCP connections.
        #[arg(long, default_value_t = 60)]
        connections: usize,
        /// The result as JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Has a router work for a while: permissions come and go under traffic that has them and traffic that has none. Exit code 0 only if no
    /// packet is unaccounted for, its counters add up, and in a run of a minute or more its memory does not grow. Needs root.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 10, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..))]
        minutes: u64,
        /// Packet workers of the router.
        #[arg(long, default_value_t = 2, value_name = "N")]
        workers: u16,
        /// With a shield.
        #[arg(long)]
        shield: bool,
        /// The result as JSON instead of text, with the router's memory of each second.
        #[arg(long)]
        json: bool,
    },
    /// Measures our figures beside bounds from the same run, in alternating pairs. Exit code 0 only if every goal is met, which are those of
    /// a release build.
    Bench {
        /// What.
        #[arg(value_enum)]
        subject: bench::Subject,
        /// Pairs of each row, 7 at least.
        #[arg(long, default_value_t = 7)]
        pairs: usize,
        /// Only rows whose names contain one of these, separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "PART")]
        only: Vec<String>,
        /// Writes all samples of each row into this directory, one JSON file a row.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
        /// The result as JSON instead of text.
        #[arg(long)]
        json: bool,
    },
    /// Runs one GIST node with a console, to try another implementation against it: commands on the standard input, events as JSON
    /// lines on the standard output. Port 270 needs root.
    Gist(gist_node::Options),
    /// Builds the network of the demonstration and leaves it running, under names for `ip netns`. Needs root.
    Up {
        /// What to call it.
        name: String,
        /// Where configurations, keys and logs go; it must be empty or not there. Otherwise a directory below /var/lib/pbs-lab.
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Takes such a network away: its processes, namespaces and files. Exit code 1 if there is none. Needs root.
    Down {
        /// What it is called.
        name: String,
    },
    /// Says which of the numbered requirements and of the tables' transitions are named by a test, and which are not. Exit code 0 only
    /// if no test names a requirement that is not listed; with `--mutate` only if at least 95 % of the mutants are caught as well.
    Coverage {
        /// Breaks so many guards, actions, target states and timers of the tables, one at a time and drawn at random, in a copy of the
        /// tree, and runs the tests that name the broken transition: one of them must fail. Takes minutes; with 0 the tests run
        /// once, and say what they take.
        #[arg(long, value_name = "N")]
        mutate: Option<usize>,
        /// Draws the mutants; the same seed draws the same.
        #[arg(long, requires = "mutate", default_value_t = 1)]
        seed: u64,
        /// Only mutants of the transitions whose name begins so, as the lists have it: `gist-querying`, `gist-querying 4c |`.
        #[arg(long, requires = "mutate", value_name = "NAME")]
        of: Option<String>,
        /// The result as JSON, with the tests of each row.
        #[arg(long)]
        json: bool,
        /// The source tree; otherwise the one that this program was built from.
        #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
        tree: PathBuf,
    },
    /// Gives made-up and damaged input to something that reads octets of others, and asserts what must hold. Exit code 0 only if nothing
    /// broke; what broke is printed in hexadecimal, for the corpus in `tests/vectors/fuzz`.
    Fuzz {
        /// What to give it to; without, all of them are named.
        target: Option<String>,
        /// For how long.
        #[arg(long, default_value_t = 5, value_name = "MINUTES")]
        minutes: u64,
        /// The same seed makes the same inputs.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs AH vectors through the code that the router runs on packets.
    Vectors {
        /// Files with one JSON object a line.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Names every vector that did not pass, was skipped, or is right by RFC 4302 and refused by PBS.
        #[arg(long)]
        verbose: bool,
    },
}

/// Where a scenario is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum World {
    /// Network namespaces of this kernel.
    Netns,
}

/// An IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Version {
    /// IPv4.
    #[value(name = "4")]
    Four,
    /// IPv6.
    #[value(name = "6")]
    Six,
}

impl From<Version> for Family {
    fn from(version: Version) -> Self {
        match version {
            Version::Four => Self::Ipv4,
            Version::Six => Self::Ipv6,
        }
    }
}

/// Runs a command and gives its exit code: 0 yes, 1 no, 2 error.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { ERROR } else { YES });
        }
    };
    let answer = match arguments.command {
        Command::Demo { json, keep, sabotage, only } => run_demo(json, &demo::Options { keep, sabotage, only }),
        Command::Sabotages => run_sabotages(),
        Command::Audit { directory, json, spi_table } => run_audit(&directory, json, spi_table),
        Command::Scenario { name: Some(name), json, keep, seed, ip, world: World::Netns, .. } => {
            run_scenario(&name, json, &scenario::Options { keep, seed, family: ip.into() })
        }
        Command::Scenario { name: None, .. } => list_scenarios(),
        Command::Honest { sessions, seed, inject, json } => run_honest(json, honest::Options { sessions, seed, injecting: inject }),
        Command::QueryFlood { rounds, json } => run_query_flood(json, query_flood::Options { rounds }),
        Command::Soak { minutes, workers, shield, json } => {
            run_soak(json, soak::Options { lasts: Duration::from_secs(minutes * 60), workers, shield })
        }
        Command::Latency { flows, cold, connections, json } => run_latency(json, latency::Options { flows, cold, connections }),
        Command::Bench { subject, pairs, only, keep, json } => run_bench(json, &bench::Options { subject, pairs, only, keep }),
        Command::Gist(options) => gist_node::run(&options),
        Command::Up { name, directory } => run_up(&name, directory),
        Command::Down { name } => run_down(&name),
        Command::Coverage { mutate, seed, of, json, tree } => {
            run_coverage(&tree, mutate.map(|mutants| coverage::Options { mutants, seed, of }), json)
        }
        Command::Fuzz { target, minutes, seed } => run_fuzz(target.as_deref(), minutes, seed),
        Command::Vectors { files, verbose } => run_vectors(&files, verbose),
    };
    match answer {
        Ok(true) => ExitCode::from(YES),
        Ok(false) => ExitCode::from(NO),
        Err(error) => {
            eprintln!("pbs-lab: {error}");
            ExitCode::from(ERROR)
        }
    }
}

fn run_demo(json: bool, options: &demo::Options) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("the demonstration makes network namespaces and needs root"));
    }
    remains::remove_on_signals()?;
    let outcome = demo::run(options, |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        println!("{}", outcome.table());
    }
    Ok(outcome.holds)
}

fn run_sabotages() -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("the demonstration makes network namespaces and needs root"));
    }
    remains::remove_on_signals()?;
    sabotage::try_all(|what| eprintln!("  {what}"), |what| println!("{what}"))
}

fn run_scenario(name: &str, json: bool, options: &scenario::Options) -> std::io::Result<bool> {
    let scenario = scenario::find(name)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("a scenario makes network namespaces and needs root"));
    }
    remains::remove_on_signals()?;
    let outcome = scenario::run(scenario, options, |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        println!("{}", outcome.text());
    }
    Ok(outcome.holds)
}

fn run_query_flood(json: bool, options: query_flood::Options) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("the flood makes network namespaces and needs root"));
    }
    remains::remove_on_signals()?;
    let outcome = query_flood::run(options, |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print!("{}", outcome.text());
    }
    Ok(outcome.holds)
}

fn run_soak(json: bool, options: soak::Options) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("the soak makes network namespaces and needs root"));
    }
    remains::remove_on_signals()?;
    let outcome = soak::run(options, |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print!("{}", outcome.text());
    }
    Ok(outcome.holds)
}

fn run_latency(json: bool, options: latency::Options) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("the benchmark makes network namespaces and needs root"));
    }
    remains::remove_on_signals()?;
    let outcome = latency::run(options, |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print!("{}", outcome.text());
    }
    Ok(outcome.holds)
}

fn run_bench(json: bool, options: &bench::Options) -> std::io::Result<bool> {
    let report = bench::run(options, |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.holds())
}

fn run_honest(json: bool, options: honest::Options) -> std::io::Result<bool> {
    let outcome = honest::run(options, |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print!("{}", outcome.text());
    }
    Ok(outcome.holds)
}

fn list_scenarios() -> std::io::Result<bool> {
    let width = scenario::all().map(|scenario| scenario.told().0.len()).max().unwrap_or(0);
    for (name, what) in scenario::all().map(scenario::Found::told) {
        println!("{name:width$}  {what}");
    }
    Ok(true)
}

fn run_fuzz(target: Option<&str>, minutes: u64, seed: u64) -> std::io::Result<bool> {
    let Some(name) = target else {
        for target in fuzz::TARGETS {
            println!("{:18}{}", target.name, target.reads);
        }
        return Ok(true);
    };
    let target = fuzz::find(name).ok_or_else(|| std::io::Error::other(format!("no target {name}")))?;
    let options = fuzz::Options { inputs: u64::MAX, time: Duration::from_secs(minutes.saturating_mul(60)), seed };
    let outcome = fuzz::run(target, &fuzz::read(name)?, options);
    println!("{name}: {} inputs, seed {seed}; {} different things became of them", outcome.inputs, outcome.kinds);
    if let Some(finding) = &outcome.finding {
        println!("{finding}");
    }
    Ok(outcome.finding.is_none())
}

fn run_up(name: &str, directory: Option<PathBuf>) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("network namespaces need root"));
    }
    remains::remove_on_signals()?;
    println!("{}", standing::up(name, directory).map_err(std::io::Error::other)?);
    Ok(true)
}

fn run_down(name: &str) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("network namespaces need root"));
    }
    let found = standing::down(name).map_err(std::io::Error::other)?;
    if !found {
        eprintln!("pbs-lab: no network is called {name}");
    }
    Ok(found)
}

fn run_audit(directory: &Path, json: bool, spi_table: bool) -> std::io::Result<bool> {
    if scenario::audit::is_scenario(directory) {
        let report = scenario::audit::run(directory)?;
        if json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{report}");
        }
        return Ok(report.agrees);
    }
    if spi_table {
        print!("{}", audit::spi_table(directory).map_err(std::io::Error::other)?);
        return Ok(true);
    }
    let report = audit::run(directory).map_err(std::io::Error::other)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.agrees)
}

fn run_coverage(tree: &Path, mutate: Option<coverage::Options>, json: bool) -> std::io::Result<bool> {
    let mutates = mutate.is_some();
    let coverage = match mutate {
        Some(options) => coverage::mutate(tree, options, |what| eprintln!("  {what}")),
        None => coverage::read(tree),
    };
    let coverage = coverage.map_err(std::io::Error::other)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&coverage)?);
    } else {
        println!("{coverage}");
    }
    let score = coverage.mutation.as_ref().filter(|_| mutates).map_or(100.0, coverage::Mutation::score);
    Ok(coverage.unknown.is_empty() && score >= coverage::LEAST_SCORE)
}

fn run_vectors(files: &[PathBuf], verbose: bool) -> std::io::Result<bool> {
    let report = traffic::vectors::run(files).map_err(std::io::Error::other)?;
    if verbose {
        for result in report.results.iter().filter(|result| !result.is_passed() || result.is_refused()) {
            println!("{result}");
        }
    }
    println!("{report}");
    Ok(report.failed() == 0)
}
