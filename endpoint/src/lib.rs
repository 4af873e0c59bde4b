//! `pbs`: the host of Permission-Based Sending. As a sender it asks before the first packet leaves and puts AH on every
//! packet; as a receiver it decides who may send how much, verifies, counts, and takes AH off again. Applications stay as
//! they are.

mod change;
mod config;
mod core;
mod paths;
mod policy;
mod reactions;
mod relay;
mod run;
mod short_way;

use std::error::Error;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};
use daemon::cli::{self, Common, Program, Show};
use daemon::config::{Gist, Identity};
use daemon::drive::Around;
use daemon::logging::Form;
use daemon::protocol::Protocol;
use daemon::source::{ConfigError, Source};
use daemon::start::Settings;
use daemon::{control, outcomes};
use serde_json::{Value, json};
use traffic::checks::{Checks, Strict};
use traffic::netlink::{NetlinkError, Socket};
use traffic::rules::{HostRules, Role};

use crate::change::Changes;
use crate::config::Config;

/// The host daemon of Permission-Based Sending, and its command line.
#[derive(Debug, Parser)]
#[command(name = "pbs", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Common(Common),
    /// As a sender: asks for a permission now, without waiting for the first packet, and says what comes of it: 0 granted, 1 not, and
    /// why. It takes 20 s at most.
    Request {
        #[command(flatten)]
        flow: FlowArguments,
        /// Bytes to ask for.
        #[arg(long)]
        volume: u64,
        /// Only asks; what comes of it is in the log and in `flows`.
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        show: Show,
    },
    /// As a sender: gives a permission back.
    Release {
        #[command(flatten)]
        flow: FlowArguments,
        #[command(flatten)]
        show: Show,
    },
    /// As a receiver: takes a permission back. The flow is then refused for as long as `refuse` says (10 min) whatever the rules grant, unless --lift ends that
    /// before, a program of this host sends the other way, or the daemon starts anew. `status` shows which flows are refused.
    Revoke {
        #[command(flatten)]
        flow: FlowArguments,
        /// Revokes nothing, but ends the refusal after an earlier revocation.
        #[arg(long)]
        lift: bool,
        #[command(flatten)]
        show: Show,
    },
    /// As a receiver: changes a permission while it lives, without being asked. Every node on the path learns of it at once.
    Change {
        #[command(flatten)]
        flow: FlowArguments,
        #[command(flatten)]
        changes: Changes,
        #[command(flatten)]
        show: Show,
    },
}

/// The five values that name a flow.
#[derive(Debug, Args)]
struct FlowArguments {
    /// Address of the sender.
    #[arg(long)]
    source: IpAddr,
    /// Address of the receiver.
    #[arg(long)]
    destination: IpAddr,
    /// Protocol by name or number: tcp, udp, icmp, icmpv6, sctp, 17 …
    #[arg(long)]
    protocol: Protocol,
    /// Port of the sender; 0 for protocols without ports.
    #[arg(long, default_value_t = 0)]
    source_port: u16,
    /// Port of the receiver; 0 for protocols without ports.
    #[arg(long, default_value_t = 0)]
    destination_port: u16,
}

impl FlowArguments {
    fn request(&self, command: &str) -> Value {
        json!({
            "command": command,
            "source": self.source,
            "destination": self.destination,
            "protocol": self.protocol.0,
            "source_port": self.source_port,
            "destination_port": self.destination_port,
        })
    }
}

/// What a laboratory may replace. The daemon itself always runs with the default.
#[derive(Clone)]
pub struct Parts {
    /// The checks on what leaves.
    pub outbound_checks: Arc<dyn Checks>,
    /// The checks on what arrives.
    pub inbound_checks: Arc<dyn Checks>,
    /// Puts the filter rules in place, through this socket: what another one changes counts as somebody else's doing.
    pub install_rules: fn(&HostRules, &Socket) -> Result<(), NetlinkError>,
    /// What stands between the signalling cores and the daemon's loop.
    pub around: Arc<Around>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            outbound_checks: Arc::new(Strict),
            inbound_checks: Arc::new(Strict),
            install_rules: HostRules::install_through,
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

/// Reads what a request to change a permission asks for, and does nothing.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_change(request: &Value) -> Result<(), String> {
    change::change(request).map(drop)
}

/// Runs the program with its command line.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    main_with(arguments, Parts::default())
}

/// Runs the program with parts of it replaced: only a laboratory that links this library can.
pub fn main_with(arguments: impl Iterator<Item = OsString>, parts: Parts) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { cli::ERROR } else { cli::YES });
        }
    };
    let host = Host { parts };
    match arguments.command {
        Command::Common(common) => cli::execute(&host, common),
        Command::Request { flow, volume, no_wait, show } => {
            let mut request = flow.request("request");
            if let Some(fields) = request.as_object_mut() {
                fields.insert("volume".to_owned(), volume.into());
                fields.insert("wait".to_owned(), (!no_wait).into());
            }
            cli::finish(if no_wait {
                cli::ask(&host, &show, &request)
            } else {
                cli::ask_patiently(&host, &show, &request, outcomes::LONGEST.saturating_add(control::PATIENCE), outcomes::refusal)
            })
        }
        Command::Release { flow, show } => cli::finish(cli::ask(&host, &show, &flow.request("release"))),
        Command::Change { flow, changes, show } => {
            let mut request = flow.request("change");
            if let Some(fields) = request.as_object_mut() {
                changes.write(fields);
            }
            cli::finish(cli::ask(&host, &show, &request))
        }
        Command::Revoke { flow, lift, show } => cli::finish(cli::ask(&host, &show, &flow.request(if lift { "lift" } else { "revoke" }))),
    }
}

struct Host {
    parts: Parts,
}

impl Program for Host {
    type Config = Config;
    const NAME: &'static str = "pbs";
    const ROLE: Role = Role::Host;
    const STANDARD_SOCKET: &'static str = "/run/pbs/host.sock";

    fn load(&self, config: &Path) -> Result<Config, ConfigError> {
        config::load(config)
    }

    async fn run(&self, config: Config) -> Result<(), Box<dyn Error>> {
        run::run(config, &self.parts).await
    }

    fn undo(&self) -> Result<(), NetlinkError> {
        run::restore_routes()
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
