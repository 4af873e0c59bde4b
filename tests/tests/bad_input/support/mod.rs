//! Programs started under their names, and what became of them.

pub(crate) mod capability;
pub(crate) mod daemon;
pub(crate) mod files;
pub(crate) mod site;

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pbs_lab::network::namespace::Namespace;
use pbs_lab::process::Program;
use traffic::rules::{Installed, Role, installed};

/// Longest time that a program which is to end at once may take.
const LIMIT: Duration = Duration::from_secs(20);

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) complaint: String,
}

impl Ended {
    /// It gave this exit code, and said all of `words` on standard error, without a panic.
    #[track_caller]
    pub(crate) fn must_say(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.complaint.contains("panicked"), "{}", self.complaint);
        for word in words {
            assert!(self.complaint.contains(word), "`{word}` is missing in: {}", self.complaint);
        }
    }
}

/// A daemon's program with its first argument.
pub(crate) fn command(program: Program, verb: &str) -> Command {
    named(Path::new(env!("CARGO_BIN_EXE_pbs-lab")), program, verb)
}

/// The same from another copy of the laboratory's program.
pub(crate) fn named(file: &Path, program: Program, verb: &str) -> Command {
    let mut command = Command::new(file);
    command.arg0(program.name()).arg(verb).env_remove("RUST_LOG");
    command
}

/// `verb --config FILE`.
pub(crate) fn with_config(program: Program, verb: &str, config: impl AsRef<OsStr>) -> Command {
    let mut command = command(program, verb);
    command.arg("--config").arg(config);
    command
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn end(command: &mut Command) -> Ended {
    end_within(LIMIT, command)
}

/// The same for one that may take so long.
#[track_caller]
pub(crate) fn end_within(limit: Duration, command: &mut Command) -> Ended {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(limit) else {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("{command:?} did not end");
    };
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), output: text(&output.stdout), complaint: text(&output.stderr) }
}

/// Runs a command to its end inside a namespace.
#[track_caller]
pub(crate) fn end_in(host: &Namespace, command: &mut Command) -> Ended {
    host.run(|| Ok(end(command))).unwrap()
}

/// Runs a command to its end where it can change nothing of this machine: as root in a new namespace, in which afterwards the
/// filter rules stand or not.
#[track_caller]
pub(crate) fn end_apart(command: &mut Command, rules: bool) -> Ended {
    if !nix::unistd::geteuid().is_root() {
        return end(command);
    }
    let host = Namespace::create("apart").unwrap();
    let ended = end_in(&host, command);
    assert_eq!(has_rules(&host), rules, "{ended:?}");
    ended
}

/// Whether the filter rules of either role stand in a namespace, in both families or in none.
#[track_caller]
pub(crate) fn has_rules(host: &Namespace) -> bool {
    [Role::Router, Role::Host].into_iter().any(|role| {
        let Installed { ipv4, ipv6 } = host.run(|| installed(role).map_err(io::Error::other)).unwrap();
        assert_eq!(ipv4, ipv6);
        ipv4
    })
}
