//! The laboratory: real namespaces, real daemons, real attacks, and a table of what happened.

pub mod attack;
pub mod audit;
mod cli;
pub mod demo;
pub mod ground;
mod lying;
pub mod network;
pub mod pki;
pub mod process;
mod programs;
pub mod remains;
mod rogue;
pub mod sabotage;
pub mod standing;
mod tampering;
pub mod transfer;
mod unasked;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the program whose name is in the first argument: a daemon, or the laboratory itself.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let name = arguments.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str()).unwrap_or_default();
    programs::run(name, &arguments).unwrap_or_else(|| cli::run(arguments.iter().cloned()))
}

/// Whether this process may make network namespaces. Where it may not, it says so in one line; in CI it fails.
#[allow(clippy::print_stderr)]
pub fn may_make_networks() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "network tests need root, and CI must not skip them");
    eprintln!("skipped: network namespaces need root");
    false
}
