//! The commands that both daemons understand. Exit codes: 0 yes, 1 no, 2 error.

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use traffic::netlink::NetlinkError;
use traffic::rules::Role;

use crate::claim::{Claim, ClaimError};
use crate::config::local_addresses;
use crate::control::ControlError;
use crate::identity::Credentials;
use crate::source::ConfigError;
use crate::start::Settings;
use crate::{control, flow_table, logging, table};

/// Yes.
pub const YES: u8 = 0;
/// No: denied, not found, no answer.
pub const NO: u8 = 1;
/// The command could not be carried out.
pub const ERROR: u8 = 2;

/// Within this time a daemon that runs has long put its rules back.
const WATCH: Duration = Duration::from_millis(500);

/// A command of either daemon.
#[derive(Debug, Subcommand)]
pub enum Common {
    /// Runs the daemon until it is asked to end (SIGTERM). The filter rules come first and stay afterwards. If the configuration
    /// cannot be used, rules that drop everything are set, unless some stand already.
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
    /// Shows flows: the permissions held, with allowed and counted volume, and what was asked for and not granted.
    #[command(after_help = flow_table::LEGEND)]
    Flows(Show),
    /// Shows what was accepted, and what was dropped why.
    Counters(Show),
    /// Shows routing state and messaging associations.
    Gist(Show),
    /// Takes this program's filter rules away, through its daemon if one runs: from then on traffic passes unverified. Without --yes
    /// it only says so.
    Open {
        /// Really do it.
        #[arg(long)]
        yes: bool,
        /// The configuration file, which tells where the daemon's control socket lies.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The daemon's control socket, where a daemon must answer. Without it, that of the configuration, or the standard one; if
        /// nobody answers there, the rules are removed directly.
        #[arg(long, value_name = "SOCKET")]
        control: Option<PathBuf>,
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
    /// Everything the daemon can be told.
    type Config: Settings;
    /// The program's name.
    const NAME: &'static str;
    /// Whose filter rules it sets.
    const ROLE: Role;
    /// Where the control socket lies if nobody says otherwise.
    const STANDARD_SOCKET: &'static str;

    /// Reads a configuration. The files it names are not looked at.
    fn load(&self, config: &Path) -> Result<Self::Config, ConfigError>;
    /// Runs the daemon.
    fn run(&self, config: Self::Config) -> impl Future<Output = Result<(), Box<dyn Error>>>;
    /// Takes away what a daemon has set up in the kernel besides its filter rules.
    fn undo(&self) -> Result<(), NetlinkError>;
}

/// Carries out a command.
pub fn execute<P: Program>(program: &P, command: Common) -> ExitCode {
    finish(match command {
        Common::Run { config } => run(program, &config),
        Common::Check { config } => check(program, &config),
        Common::Status(show) => ask(program, &show, &json!({ "command": "status" })),
        Common::Flows(show) => ask(program, &show, &json!({ "command": "flows" })),
        Common::Counters(show) => ask(program, &show, &json!({ "command": "counters" })),
        Common::Gist(show) => ask(program, &show, &json!({ "command": "gist" })),
        Common::Open { yes: false, .. } => {
            complain("this lets traffic pass unverified; say --yes if that is meant");
            Ok(ERROR)
        }
        Common::Open { yes: true, config, control } => open(program, config.as_deref(), control),
    })
}

fn run<P: Program>(program: &P, config: &Path) -> Result<u8, Box<dyn Error>> {
    // No check of the files beforehand: what is wrong with them must not keep the filter rules from standing.
    let config = program.load(config).map_err(|error| close::<P>(&error))?;
    logging::start(config.log());
    runtime()?.block_on(program.run(config)).map(|()| YES)
}

/// Lets nothing pass a node whose configuration cannot be used, as far as nobody has set rules there before: it would else stay
/// open from its first start on. Answers the error that the program ends with.
fn close<P: Program>(error: &ConfigError) -> Box<dyn Error> {
    let became = match Claim::take() {
        Err(claim @ ClaimError::Taken) => claim.to_string(),
        // Without the claim nobody else has it either; what the kernel then says of the rules says enough.
        Ok(_) | Err(ClaimError::NotPrivileged | ClaimError::System(_)) => match traffic::rules::close(P::ROLE) {
            Ok(true) => format!("the filter rules now drop everything; `{} open --yes` opens", P::NAME),
            Ok(false) => format!("the filter rules that stood stay; `{} open --yes` opens", P::NAME),
            Err(error) => format!("the filter rules are as they were, traffic may pass: {error}"),
        },
    };
    format!("{error}\n{became}").into()
}

fn check(program: &impl Program, config: &Path) -> Result<u8, Box<dyn Error>> {
    let settings = program.load(config)?;
    let credentials = Credentials::load(settings.identity(), settings.gist())?;
    // Not an error: files may be checked on another machine than theirs.
    if let Some(warning) = local_addresses().ok().and_then(|local| credentials.names_none_of(&local)) {
        complain(&format!("warning: {warning}"));
    }
    say(&format!("{}: good", config.display()))?;
    Ok(YES)
}

/// Through the daemon if one answers, which else would put its rules back; without it directly, unless a socket was named: then
/// another node may have been meant. Neither a configuration that cannot be used nor an expired certificate keeps anybody from it.
fn open<P: Program>(program: &P, config: Option<&Path>, control: Option<PathBuf>) -> Result<u8, Box<dyn Error>> {
    let loaded = config.map(|config| program.load(config)).transpose();
    logging::start(loaded.as_ref().ok().and_then(Option::as_ref).map(Settings::log).unwrap_or_default());
    let of_config = match &loaded {
        Ok(config) => config.as_ref().map(|config| config.control_socket().to_owned()),
        Err(error) => {
            tracing::warn!(%error, "the configuration cannot be used; its control socket is not known");
            None
        }
    };
    let named = control.is_some();
    let socket = control.or(of_config).unwrap_or_else(|| P::STANDARD_SOCKET.into());
    let at = socket.display();
    let (failed, how) = match runtime()?.block_on(control::ask(&socket, P::ROLE, &json!({ "command": "open" }))) {
        Ok(answer) => {
            let failed = answer.get("not_undone").and_then(Value::as_str).map(str::to_owned);
            (failed, format!("the daemon at {at} has removed them and watches over them no longer"))
        }
        Err(error) if named => {
            return Err(format!("{error}; nothing was changed (without --control, rules that no daemon watches over are removed)").into());
        }
        Err(ControlError::Socket { source, .. }) if is_nobody_there(&source) => {
            let (stood, failed) = open_directly(program)?;
            let what = if stood { "they were removed directly" } else { "there were none" };
            (failed.map(|error| error.to_string()), format!("no daemon answers at {at}; {what}"))
        }
        Err(error) => return Err(error.into()),
    };
    let table = P::ROLE.table();
    tracing::warn!(
        "the filter rules are gone: traffic passes unverified (tables ip {table} and ip6 {table} of this network namespace: {how})"
    );
    failed.map_or(Ok(YES), |failed| {
        Err(format!("the filter rules are gone, but not all else that was set up could be undone: {failed}").into())
    })
}

/// Answers whether there were rules, and what besides them could not be undone: whoever wants to open is not kept from it.
fn open_directly<P: Program>(program: &P) -> Result<(bool, Option<NetlinkError>), Box<dyn Error>> {
    const ELSEWHERE: &str = "name its control socket with --control or --config";
    if traffic::rules::held(P::ROLE)? {
        return Err(format!("a running daemon holds its filter rules: {ELSEWHERE}").into());
    }
    let before = traffic::rules::installed(P::ROLE)?;
    let failed = program.undo().err();
    traffic::rules::remove(P::ROLE)?;
    std::thread::sleep(WATCH);
    let installed = traffic::rules::installed(P::ROLE)?;
    if installed.ipv4 || installed.ipv6 {
        return Err(format!("a running daemon has put its filter rules back: {ELSEWHERE}").into());
    }
    Ok((before.ipv4 || before.ipv6, failed))
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
pub fn ask<P: Program>(program: &P, show: &Show, request: &Value) -> Result<u8, Box<dyn Error>> {
    ask_patiently(program, show, request, control::PATIENCE, |_| None)
}

/// The same for an answer that may take as long as `patience`, and that may be a "no" itself: `refusal` says so, and why.
pub fn ask_patiently<P: Program>(
    _: &P,
    show: &Show,
    request: &Value,
    patience: Duration,
    refusal: impl FnOnce(&Value) -> Option<String>,
) -> Result<u8, Box<dyn Error>> {
    let socket = show.control.as_deref().unwrap_or(Path::new(P::STANDARD_SOCKET));
    let (answer, refused) = match runtime()?.block_on(control::ask_patiently(socket, P::ROLE, request, patience)) {
        Ok(answer) => {
            let refused = refusal(&answer);
            (Some(answer), refused)
        }
        Err(ControlError::Refused(why)) => (None, Some(why)),
        Err(ControlError::Socket { path, source }) if is_nobody_there(&source) => {
            return Err(format!("no daemon answers at {} ({source}); {}", path.display(), without_daemon(P::ROLE)).into());
        }
        Err(error) => return Err(error.into()),
    };
    match answer {
        Some(answer) if show.json => say(&format!("{answer:#}"))?,
        Some(answer) if request.get("command").is_some_and(|command| command == "flows") => say(&flow_table::show(&answer))?,
        Some(answer) if refused.is_none() => say(&table::show(&answer))?,
        _ => {}
    }
    Ok(refused.map_or(YES, |why| {
        complain(&format!("no: {why}"));
        NO
    }))
}

/// Whether nobody listens at a socket, as against a socket that may not be asked.
fn is_nobody_there(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

/// What a node does whose daemon is gone.
const fn without_daemon(role: Role) -> &'static str {
    match role {
        Role::Router => {
            "if one ran before, its filter rules still stand: closed interfaces let nothing pass, observed ones (mode observe) everything"
        }
        Role::Host => "if one ran before, its filter rules still stand, and nothing passes but what is exempt",
    }
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
