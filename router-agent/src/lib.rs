//! `pbs-router`: the router on the path. It takes signalling for its NSLP off the path, verifies and remembers, and lets a
//! data packet pass only under a permission that both ends of the flow have signed.

mod config;
mod core;
mod ingress;
mod limits;
mod modes;
mod run;
mod short_way;
mod signalling;

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use daemon::cli::{self, Common, Program};
use daemon::config::{Gist, Identity};
use daemon::drive::Around;
use daemon::logging::Form;
use daemon::source::{ConfigError, Source};
use daemon::start::Settings;
use pbs_nslp::router::table::{self, Event, Guards, Outcome, State};
use traffic::checks::{Checks, Strict};
use traffic::netlink::{NetlinkError, Socket};
use traffic::rules::{Role, RouterRules};

use crate::config::Config;

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
    /// Puts the filter rules in place, through this socket: what another one changes counts as somebody else's doing.
    pub install_rules: fn(&RouterRules, &Socket) -> Result<(), NetlinkError>,
    /// Whether the shield may stand at the ingress of interfaces, if the configuration has it so.
    pub ingress_shield: bool,
    /// What stands between the signalling core and the daemon's loop.
    pub around: Arc<Around>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            checks: Arc::new(Strict),
            table: table::step,
            install_rules: RouterRules::install_through,
            ingress_shield: true,
            around: Arc::new(|core| core),
        }
    }
}

/// Reads and checks a configuration file, and does nothing with it; for whoever makes files up.
///
/// # Errors
///
/// What is wrong with it, and where.
pub fn check_configuration(file: &Source) -> Result<(), ConfigError> {
    config::parse(file).map(drop)
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
    type Config = Config;
    const NAME: &'static str = "pbs-router";
    const ROLE: Role = Role::Router;
    const STANDARD_SOCKET: &'static str = "/run/pbs/router.sock";

    fn load(&self, config: &Path) -> Result<Config, ConfigError> {
        config::load(config)
    }

    async fn run(&self, config: Config) -> Result<(), Box<dyn Error>> {
        run::run(config, &self.parts).await
    }

    fn undo(&self) -> Result<(), NetlinkError> {
        traffic::af_xdp::restore()
    }
}

impl Settings for Config {
    fn log(&self) -> Form {
        self.log
    }

    fn control_socket(&self) -> &Path {
        &self.control_socket
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn gist(&self) -> &Gist {
        &self.gist
    }

    fn permissions(&self) -> usize {
        self.datapath.permissions
    }
}
