//! `pbs-lab`. Started under the name of a daemon it is that daemon, so that the laboratory needs no other program.

use std::process::ExitCode;

fn main() -> ExitCode {
    pbs_lab::run(std::env::args_os())
}
