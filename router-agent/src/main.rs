//! `pbs-router`, the on-path daemon of Permission-Based Sending.

use std::process::ExitCode;

fn main() -> ExitCode {
    router_agent::main(std::env::args_os())
}
