//! Daemons as processes of their own, inside a host's namespace.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use traffic::rules::Role;

use crate::network::namespace::{Lifetime, Namespace};
use crate::remains::Remainder;
use crate::sabotage::Sabotage;

/// Time a daemon has from its start until it answers on its control socket.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Which daemon to run. The laboratory's own program runs them all, told apart by the name it is started under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `pbs-router`.
    Router,
    /// `pbs`.
    Host,
    /// `pbs` of a sender that lies: its own budget check is taken out.
    LyingHost,
    /// `pbs` of a sender that says it has sent half of what it has.
    UnderstatingHost,
    /// `pbs` of a host that floods with Queries.
    FloodingHost,
    /// `pbs` of a receiver that gives two flows one SPI.
    CollidingHost,
    /// `pbs` of a receiver that grants what nobody asks for.
    UnaskedHost,
    /// `pbs-router` that tampers with the Permissions it passes on.
    TamperingRouter,
    /// `pbs-router` that gives away the shared key of every flow.
    LeakingRouter,
}

impl Program {
    /// Whose requests it answers.
    pub fn role(self) -> Role {
        match self {
            Self::Router | Self::TamperingRouter | Self::LeakingRouter => Role::Router,
            Self::Host | Self::LyingHost | Self::UnderstatingHost | Self::CollidingHost | Self::FloodingHost | Self::UnaskedHost => {
                Role::Host
            }
        }
    }

    /// The name the process is started under.
    pub fn name(self) -> &'static str {
        match self {
            Self::Router => "pbs-router",
            Self::Host => "pbs",
            Self::LyingHost => "pbs-lying",
            Self::UnderstatingHost => "pbs-understating",
            Self::FloodingHost => "pbs-flooding",
            Self::CollidingHost => "pbs-colliding",
            Self::UnaskedHost => "pbs-unasked",
            Self::TamperingRouter => "pbs-router-tampering",
            Self::LeakingRouter => "pbs-router-leaking",
        }
    }
}

/// A running daemon. Dropping it ends the process.
#[derive(Debug)]
pub struct Daemon {
    process: Remainder,
    name: String,
    role: Role,
    control: PathBuf,
    log: PathBuf,
}

/// Asks a daemon on this control socket.
pub fn ask(control: &Path, role: Role, request: &Value) -> io::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(daemon::control::ask(control, role, request)).map_err(io::Error::other)
}

/// The laboratory's program, where that is not the running one.
static LABORATORY: OnceLock<String> = OnceLock::new();

/// Says where the laboratory's program lies: for tests, which are programs of their own. The first word counts.
pub fn laboratory_is(path: &str) {
    LABORATORY.get_or_init(|| path.to_owned());
}

impl Daemon {
    /// Starts `program` on `host` with the configuration `<directory>/<name>.toml` and waits until it answers.
    pub fn start(host: &Namespace, program: Program, directory: &Path, name: &str) -> io::Result<Self> {
        Self::start_as(host, program, program.name(), directory, name)
    }

    /// Starts `program` with one check taken out.
    pub fn start_sabotaged(host: &Namespace, program: Program, sabotage: Sabotage, directory: &Path, name: &str) -> io::Result<Self> {
        Self::start_as(host, program, &format!("{}+{}", program.name(), sabotage.word()), directory, name)
    }

    /// Starts `program` so that it can be left running, and does not wait for it. Until it is left, dropping it ends it.
    pub fn spawn_standing(host: &Namespace, program: Program, directory: &Path, name: &str) -> io::Result<Self> {
        Self::spawn(host, program.role(), program.name(), Lifetime::Own, directory, name)
    }

    fn start_as(host: &Namespace, program: Program, called: &str, directory: &Path, name: &str) -> io::Result<Self> {
        let daemon = Self::spawn(host, program.role(), called, Lifetime::Laboratory, directory, name)?;
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    fn spawn(host: &Namespace, role: Role, program: &str, lifetime: Lifetime, directory: &Path, name: &str) -> io::Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(LABORATORY.get().map_or("/proc/self/exe", String::as_str));
        std::os::unix::process::CommandExt::arg0(&mut command, program);
        command.arg("run").arg("--config").arg(directory.join(format!("{name}.toml")));
        command.current_dir("/").stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        host.contain(&mut command, lifetime)?;
        let process = Remainder::process(&mut command)?;
        Ok(Self { process, name: name.to_owned(), role, control: directory.join(format!("{name}.sock")), log })
    }

    /// Waits until the daemon answers on its control socket.
    pub fn wait_until_ready(&self) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = self.ended()? {
                return Err(io::Error::other(format!("{} ended at once ({status}):\n{}", self.name, self.last_words())));
            }
            if self.ask(&json!({ "command": "status" })).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{} does not answer after {START_LIMIT:?}:\n{}", self.name, self.last_words())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks the daemon on its control socket.
    pub fn ask(&self, request: &Value) -> io::Result<Value> {
        ask(&self.control, self.role, request)
    }

    /// Ends the process at once, as a crash would (SIGKILL).
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait()
    }

    /// Asks the process to end (SIGTERM) and waits.
    pub fn terminate(&mut self) -> io::Result<()> {
        self.signal(Signal::SIGTERM)?;
        self.wait()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.with_process(|child| {
            let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
            // A process that has been waited for has no number any more.
            if child.try_wait()?.is_some() { Ok(()) } else { kill(Pid::from_raw(pid), signal).map_err(io::Error::from) }
        })
    }

    /// Waits in small steps, so that a signal to the laboratory need not wait as well.
    fn wait(&self) -> io::Result<()> {
        while self.ended()?.is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn ended(&self) -> io::Result<Option<ExitStatus>> {
        self.process.with_process(|child| child.try_wait())
    }

    /// What it was started as, and its files are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of the process.
    pub fn id(&self) -> io::Result<u32> {
        self.process.with_process(|child| Ok(child.id()))
    }

    /// The end of the daemon's log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(15)).copied().collect::<Vec<_>>().join("\n")
    }
}
