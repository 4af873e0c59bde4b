//! The programs that the laboratory's own one can be, by the name it is started under.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::sabotage::Sabotage;
use crate::{leaking, lying, tampering, unasked};

/// Exit code of a program that cannot be started.
const ERROR: u8 = 2;

/// Runs the daemon called `name`; `None` if no daemon is called so. A name may end in the check that is taken out of the router:
/// `pbs-router+icv`.
pub(crate) fn run(name: &str, arguments: &[OsString]) -> Option<ExitCode> {
    let given = arguments.iter().cloned();
    let (program, without) = name.split_once('+').map_or((name, None), |(program, check)| (program, Some(check)));
    Some(match (program, without) {
        ("pbs-router", None) => router_agent::main(given),
        ("pbs", None) => endpoint::main(given),
        ("pbs-lying", None) => endpoint::main_with(given, lying::parts()),
        ("pbs-unasked", None) => match config(arguments).and_then(unasked::parts) {
            Ok(parts) => endpoint::main_with(given, parts),
            Err(error) => refuse(name, &error.to_string()),
        },
        ("pbs-router-leaking", None) => match config(arguments) {
            Ok(config) => router_agent::main_with(given, leaking::parts(config)),
            Err(error) => refuse(name, &error.to_string()),
        },
        ("pbs-router" | "pbs-router-tampering", without) => {
            let parts = router_agent::Parts::default();
            let parts = if program == "pbs-router" { parts } else { tampering::parts(parts) };
            match without.map(Sabotage::from_word) {
                None => router_agent::main_with(given, parts),
                Some(Some(sabotage)) => router_agent::main_with(given, sabotage.apply(parts)),
                Some(None) => refuse(name, "no such check"),
            }
        }
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
