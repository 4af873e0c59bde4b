//! `pbs-router`: the router on the path. It takes signalling for its NSLP off the path, verifies and remembers, and lets a
//! data packet pass only under a permission that both ends of the flow have signed.

mod config;
mod core;
mod run;
mod signalling;

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use daemon::cli::{self, Common, Program};
use daemon::drive::Around;
use daemon::logging::Form;
use pbs_nslp::router::table::{self, Event, Guards, Outcome, State};
use traffic::checks::{Checks, Strict};
use traffic::netlink::NetlinkError;
use traffic::rules::RouterRules;

/// The on-path router of Permission-Based Sending.
#[derive(Debug, Parser)]
#[command(name = "pbs-router", version)]
struct Arguments {
    #[command(subcommand)]
    command: Common,
}

/// What a laboratory may replace. The daemon itself always runs with the default.
#[derive(Clone)]
pub struct Parts {
    /// The checks of the packet path.
    pub checks: Arc<dyn Checks>,
    /// The table of the signalling machine.
    pub table: fn(State, Event, Guards) -> Outcome,
    /// Puts the filter rules in place.
    pub install_rules: fn(&RouterRules) -> Result<(), NetlinkError>,
    /// What stands between the signalling core and the daemon's loop.
    pub around: Arc<Around>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { checks: Arc::new(Strict), table: table::step, install_rules: RouterRules::install, around: Arc::new(|core| core) }
    }
}

/// Runs the program with its command line.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    main_with(arguments, Parts::default())
}

/// Runs the program with parts of it replaced: only a laboratory that links this library can.
pub fn main_with(arguments: impl Iterator<Item = OsString>, parts: Parts) -> ExitCode {
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => cli::execute(&Router { parts }, arguments.command),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { cli::ERROR } else { cli::YES })
        }
    }
}

struct Router {
    parts: Parts,
}

impl Program for Router {
    fn standard_socket(&self) -> &Path {
        Path::new("/run/pbs/router.sock")
    }

    fn log(&self, config: &Path) -> Result<Form, Box<dyn Error>> {
        Ok(config::load(config)?.log)
    }

    fn check(&self, config: &Path) -> Result<(), Box<dyn Error>> {
        daemon::identity::Credentials::load(&config::load(config)?.identity)?;
        Ok(())
    }

    async fn run(&self, config: &Path) -> Result<(), Box<dyn Error>> {
        run::run(config::load(config)?, &self.parts).await
    }

    fn open(&self, _: &Path) -> Result<(), Box<dyn Error>> {
        Ok(traffic::rules::remove()?)
    }
}
