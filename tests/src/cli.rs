//! The command line of `pbs-lab`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::demo;

/// What went on well, what did not hold, what could not be done.
const YES: u8 = 0;
const NO: u8 = 1;
const ERROR: u8 = 2;

/// The laboratory of Permission-Based Sending.
#[derive(Debug, Parser)]
#[command(name = "pbs-lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows on real traffic what is let through and what is stopped. Needs root.
    Demo {
        /// The result as JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Writes one capture a link into this directory.
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
    /// Runs AH vectors through the code that the router runs on packets.
    Vectors {
        /// Files with one JSON object a line.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Names every vector that did not pass or was skipped.
        #[arg(long)]
        verbose: bool,
    },
}

/// Runs a command and gives its exit code: 0 yes, 1 no, 2 error.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { ERROR } else { YES });
        }
    };
    let answer = match arguments.command {
        Command::Demo { json, keep } => run_demo(json, keep),
        Command::Vectors { files, verbose } => run_vectors(&files, verbose),
    };
    match answer {
        Ok(true) => ExitCode::from(YES),
        Ok(false) => ExitCode::from(NO),
        Err(error) => {
            eprintln!("pbs-lab: {error}");
            ExitCode::from(ERROR)
        }
    }
}

fn run_demo(json: bool, keep: Option<PathBuf>) -> std::io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        return Err(std::io::Error::other("the demonstration makes network namespaces and needs root"));
    }
    let outcome = demo::run(keep.as_deref(), |what| eprintln!("  {what}"))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        println!("{}", outcome.table());
    }
    Ok(outcome.holds)
}

fn run_vectors(files: &[PathBuf], verbose: bool) -> std::io::Result<bool> {
    let report = traffic::vectors::run(files).map_err(std::io::Error::other)?;
    if verbose {
        for result in report.results.iter().filter(|result| !result.is_passed()) {
            println!("{result}");
        }
    }
    println!("{report}");
    Ok(report.failed() == 0)
}
