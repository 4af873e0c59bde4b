//! The programs that the laboratory's own one can be, by the name it is started under.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::sabotage::Sabotage;
use crate::{flooding, leaking, lying, tampering, unasked};

/// Exit code of a program that cannot be started.
const ERROR: u8 = 2;

/// Runs the daemon called `name`; `None` if no daemon is called so. A name may end in the check that is taken out: `pbs-router+icv`.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> Option<ExitCode> {
    let given = arguments.iter().cloned();
    let (program, without) = name.split_once('+').map_or((name, None), |(program, check)| (program, Some(check)));
    let config = || config(arguments);
    let router = |parts: io::Result<router_agent::Parts>| match (parts, without.map(Sabotage::from_word)) {
        (Ok(parts), None) => router_agent::main_with(given.clone(), parts),
        (Ok(parts), Some(Some(sabotage))) => router_agent::main_with(given.clone(), sabotage.apply(parts)),
        (Ok(_), Some(None)) => refuse(name, "no such check"),
        (Err(error), _) => refuse(name, &error.to_string()),
    };
    let host = |parts: io::Result<endpoint::Parts>| match (parts, without.map(Sabotage::from_word)) {
        (Ok(parts), None) => endpoint::main_with(given.clone(), parts),
        (Ok(parts), Some(sabotage)) => match sabotage.and_then(|sabotage| sabotage.apply_to_host(parts)) {
            Some(parts) => endpoint::main_with(given.clone(), parts),
            None => refuse(name, "no such check of a host"),
        },
        (Err(error), _) => refuse(name, &error.to_string()),
    };
    Some(match program {
        "pbs-router" if without.is_none() => router_agent::main(given),
        "pbs-router" => router(Ok(router_agent::Parts::default())),
        "pbs-router-tampering" => router(Ok(tampering::parts(router_agent::Parts::default()))),
        "pbs-router-leaking" => router(config().map(leaking::parts)),
        "pbs" if without.is_none() => endpoint::main(given),
        "pbs" => host(Ok(endpoint::Parts::default())),
        "pbs-lying" => host(Ok(lying::parts())),
        "pbs-understating" => host(config().and_then(lying::about_volume)),
        "pbs-colliding" => host(config().and_then(lying::with_one_spi)),
        "pbs-flooding" => host(config().and_then(flooding::parts)),
        "pbs-unasked" => host(config().and_then(unasked::parts)),
        _ => return None,
    })
}

/// The configuration file on the command line.
fn config(arguments: &[OsString]) -> io::Result<&Path> {
    let option = arguments.iter().skip_while(|argument| *argument != "--config").nth(1);
    option.map(Path::new).ok_or_else(|| io::Error::other("no --config"))
}

#[allow(clippy::print_stderr)]
fn refuse(name: &str, why: &str) -> ExitCode {
    eprintln!("{name}: {why}");
    ExitCode::from(ERROR)
}
