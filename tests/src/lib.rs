//! The laboratory: real namespaces, real daemons, real attacks, and a table of what happened.

pub mod attack;
mod cli;
pub mod demo;
mod lying;
pub mod network;
pub mod pki;
pub mod process;
pub mod transfer;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs the program whose name is in the first argument: a daemon, or the laboratory itself.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().peekable();
    let name = arguments.peek().map(|name| Path::new(name).file_name().unwrap_or_default().to_owned());
    match name.as_deref().and_then(|name| name.to_str()) {
        Some("pbs-router") => router_agent::main(arguments),
        Some("pbs") => endpoint::main(arguments),
        Some("pbs-lying") => endpoint::main_with(arguments, lying::parts()),
        _ => cli::run(arguments),
    }
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
