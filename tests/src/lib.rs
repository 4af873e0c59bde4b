//! The laboratory: real namespaces, real daemons, real attacks, and a table of what happened.

pub mod attack;
pub mod audit;
mod bench;
mod cli;
pub mod coverage;
pub mod demo;
mod dice;
mod flooding;
pub mod fuzz;
pub mod gist_node;
pub mod ground;
pub mod honest;
mod hostile;
pub mod latency;
mod leaking;
mod lying;
pub mod network;
pub mod pki;
pub mod process;
mod programs;
pub mod query_flood;
pub mod remains;
mod rogue;
pub mod sabotage;
pub mod scenario;
pub mod soak;
pub mod standing;
mod tampering;
pub mod transfer;
mod unasked;
mod uncovered;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Once;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

/// Runs the program whose name is in the first argument: a daemon, or the laboratory itself.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str()).unwrap_or_default();
    programs::run(name, &arguments).unwrap_or_else(|| cli::run(arguments.iter().cloned()))
}

/// Whether this process may make network namespaces. Where it may not, it says so in one line, which no test harness hides; in CI
/// it fails.
pub fn may_make_networks() -> bool {
    static SAID: Once = Once::new();
    let outcome = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().unwrap_or(Err(Errno::UnknownErrno));
    if let Err(error) = outcome {
        assert!(!in_ci(), "network tests must not be skipped in CI, and network namespaces need root ({error})");
        SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "skipped: network namespaces need root ({error})");
        });
    }
    outcome.is_ok()
}

/// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}
