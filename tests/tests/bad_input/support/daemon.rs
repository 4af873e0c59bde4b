//! A daemon that runs.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pbs_lab::network::namespace::{Lifetime, Namespace};
use pbs_lab::process::Program;
use serde_json::{Value, json};

use super::files::Files;
use super::with_config;

/// Longest wait for anything that is to happen.
const PATIENCE: Duration = Duration::from_secs(15);

/// A running daemon. It ends with this value, or with the thread that started it.
pub(crate) struct Daemon {
    child: Child,
    program: Program,
    control: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts `<name>.toml` and waits until the daemon answers.
    #[track_caller]
    pub(crate) fn start(host: &Namespace, program: Program, files: &Files, name: &str) -> Self {
        let log = files.path(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        Self::start_with(host, program, files, name, output.into())
    }

    /// The same with another standard error.
    #[track_caller]
    pub(crate) fn start_with(host: &Namespace, program: Program, files: &Files, name: &str, errors: Stdio) -> Self {
        Self::start_as(host, program, files, name, with_config(program, "run", files.path(format!("{name}.toml"))), errors)
    }

    /// The same by another command.
    #[track_caller]
    pub(crate) fn start_as(host: &Namespace, program: Program, files: &Files, name: &str, mut command: Command, errors: Stdio) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        host.contain(&mut command, Lifetime::Laboratory).unwrap();
        let mut daemon = Self {
            child: command.spawn().unwrap(),
            program,
            control: files.path(format!("{name}.sock")),
            log: files.path(format!("{name}.log")),
        };
        wait_until("the daemon answers", || {
            assert!(daemon.child.try_wait().unwrap().is_none(), "ended at once: {}", daemon.log());
            daemon.try_ask("status").is_ok()
        });
        daemon
    }

    fn try_ask(&self, command: &str) -> Result<Value, daemon::control::ControlError> {
        self.try_ask_with(&json!({ "command": command }))
    }

    fn try_ask_with(&self, request: &Value) -> Result<Value, daemon::control::ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(daemon::control::ask(&self.control, self.program.role(), request))
    }

    /// Asks for something that has more to it than a name; the daemon must do it.
    #[track_caller]
    pub(crate) fn ask_with(&self, request: &Value) -> Value {
        self.try_ask_with(request).unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// Asks the daemon; it must answer.
    #[track_caller]
    pub(crate) fn ask(&self, command: &str) -> Value {
        self.try_ask(command).unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// A counter of GIST.
    #[track_caller]
    pub(crate) fn gist(&self, counter: &str) -> u64 {
        self.ask("gist").pointer(&format!("/counters/{counter}")).and_then(Value::as_u64).unwrap()
    }

    /// Entries of `flows` that have a permission.
    #[track_caller]
    pub(crate) fn permissions(&self) -> Vec<Value> {
        let Value::Array(flows) = self.ask("flows") else { panic!("flows are a list") };
        flows.into_iter().filter(|flow| !flow["spi"].is_null()).collect()
    }

    pub(crate) fn control(&self) -> &std::path::Path {
        &self.control
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until a line of the log has all of `words`.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, words: &[&str]) {
        let found = || self.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
        wait_until_or(found, || format!("no line with {words:?} in the log:\n{}", self.log()));
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn wait(mut self) -> ExitStatus {
        let mut ended = None;
        wait_until("the daemon ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// Asks it to end (SIGTERM) and waits.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Ends it at once (SIGKILL).
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let panic =
            std::fs::read_to_string(&self.log).unwrap_or_default().lines().find(|line| line.contains("panicked")).map(str::to_owned);
        assert!(std::thread::panicking() || panic.is_none(), "{panic:?}");
    }
}

/// Waits until something holds.
#[track_caller]
pub(crate) fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    wait_until_or(holds, || format!("in vain: {what}"));
}

#[track_caller]
fn wait_until_or(mut holds: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(10));
    }
}
