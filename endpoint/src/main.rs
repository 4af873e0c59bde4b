//! `pbs`, the host daemon and command line of Permission-Based Sending.

use std::process::ExitCode;

fn main() -> ExitCode {
    endpoint::main(std::env::args_os())
}
