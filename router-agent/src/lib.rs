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
use daemon::logging::Form;
use traffic::checks::{Checks, Strict};

/// The on-path router of Permission-Based Sending.
#[derive(Debug, Parser)]
#[command(name = "pbs-router", version)]
struct Arguments {
    #[command(subcommand)]
    command: Common,
}

/// What a laboratory may replace. The daemon itself always runs with the default.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The checks of the packet path.
    pub checks: Arc<dyn Checks>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { checks: Arc::new(Strict) }
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

    fn check(&self, config: &Path) -> Result<Form, Box<dyn Error>> {
        let config = config::load(config)?;
        daemon::identity::Credentials::load(&config.identity)?;
        Ok(config.log)
    }

    async fn run(&self, config: &Path) -> Result<(), Box<dyn Error>> {
        run::run(config::load(config)?, &self.parts).await
    }

    fn open(&self, _: &Path) -> Result<(), Box<dyn Error>> {
        Ok(traffic::rules::remove()?)
    }
}
