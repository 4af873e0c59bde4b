//! The commands that both daemons understand. Exit codes: 0 yes, 1 no, 2 error.

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{control, logging, table};

/// Yes.
pub const YES: u8 = 0;
/// No: denied, not found, no answer.
pub const NO: u8 = 1;
/// The command could not be carried out.
pub const ERROR: u8 = 2;

/// A command of either daemon.
#[derive(Debug, Subcommand)]
pub enum Common {
    /// Runs the daemon until it is asked to end (SIGTERM). The filter rules come first and stay afterwards.
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Reads a configuration with all files it names, says what is wrong with it, and starts nothing.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Says whether the daemon answers, and what it holds.
    Status(Show),
    /// Shows the permissions held, with allowed and counted volume.
    Flows(Show),
    /// Shows what was accepted, and what was dropped why.
    Counters(Show),
    /// Shows routing state and messaging associations.
    Gist(Show),
    /// Takes the filter rules away: from then on traffic passes unverified. Without --yes it only says so.
    Open {
        /// Really do it.
        #[arg(long)]
        yes: bool,
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

/// Where to ask, and how to show the answer.
#[derive(Debug, Clone, Args)]
pub struct Show {
    /// The daemon's control socket; without it, the standard one.
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,
    /// The answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What the commands need of a daemon.
pub trait Program {
    /// Where the control socket lies if nobody says otherwise.
    fn standard_socket(&self) -> &Path;
    /// Reads a configuration and gives the form of the log. The files it names are not looked at.
    fn log(&self, config: &Path) -> Result<logging::Form, Box<dyn Error>>;
    /// Checks a configuration with all files it names.
    fn check(&self, config: &Path) -> Result<(), Box<dyn Error>>;
    /// Runs the daemon.
    fn run(&self, config: &Path) -> impl Future<Output = Result<(), Box<dyn Error>>>;
    /// Takes away what the daemon set up in the kernel. If that fails, the filter rules are still there.
    fn open(&self, config: &Path) -> Result<(), Box<dyn Error>>;
}

/// Carries out a command.
pub fn execute(program: &impl Program, command: Common) -> ExitCode {
    let done = match command {
        // No check of the files beforehand: what is wrong with them must not keep the filter rules from standing.
        Common::Run { config } => program.log(&config).and_then(|form| {
            logging::start(form);
            runtime()?.block_on(program.run(&config)).map(|()| YES)
        }),
        Common::Check { config } => program.check(&config).and_then(|()| {
            say(&format!("{}: good", config.display()))?;
            Ok(YES)
        }),
        Common::Status(show) => ask(program, &show, &json!({ "command": "status" })),
        Common::Flows(show) => ask(program, &show, &json!({ "command": "flows" })),
        Common::Counters(show) => ask(program, &show, &json!({ "command": "counters" })),
        Common::Gist(show) => ask(program, &show, &json!({ "command": "gist" })),
        Common::Open { yes: false, .. } => {
            complain("this lets traffic pass unverified; say --yes if that is meant");
            Ok(NO)
        }
        // An expired certificate must not keep anybody from it.
        Common::Open { yes: true, config } => program.log(&config).and_then(|form| {
            logging::start(form);
            program.open(&config)?;
            tracing::warn!("the filter rules are gone: traffic passes unverified");
            Ok(YES)
        }),
    };
    finish(done)
}

/// The exit code, and the error if there is one.
pub fn finish(done: Result<u8, Box<dyn Error>>) -> ExitCode {
    done.map_or_else(
        |error| {
            complain(&format!("error: {error}"));
            ExitCode::from(ERROR)
        },
        ExitCode::from,
    )
}

/// Asks the daemon and shows the answer. A refusal is a "no".
pub fn ask(program: &impl Program, show: &Show, request: &Value) -> Result<u8, Box<dyn Error>> {
    let socket = show.control.as_deref().unwrap_or(program.standard_socket());
    match runtime()?.block_on(control::ask(socket, request)) {
        Ok(answer) if show.json => say(&format!("{answer:#}"))?,
        Ok(answer) => say(&table::show(&answer))?,
        Err(control::ControlError::Refused(why)) => {
            complain(&format!("no: {why}"));
            return Ok(NO);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(YES)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Writes an answer. Whoever closes the other end of a pipe has read enough.
fn say(text: &str) -> Result<(), Box<dyn Error>> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(format!("standard output: {error}").into()),
        _ => Ok(()),
    }
}

/// Writes to standard error. If that is not possible there is nobody to tell; the exit code still says it.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
