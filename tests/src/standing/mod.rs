//! A network that outlives the command that made it: the same hosts, links and daemons as in the demonstration, under names that
//! other programs know.

mod down;
mod record;
mod up;

use std::io;

pub use down::down;
pub use up::{Standing, up};

/// Below it each network has its directory, unless another one is given.
const DIRECTORIES: &str = "/var/lib/pbs-lab";

/// Letters of the longest name of a network.
const LONGEST_NAME: usize = 32;

/// Names of hosts; each is also the name of its daemon.
const HOSTS: [&str; 3] = ["sender", "router", "receiver"];

/// What goes wrong with a standing network.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// The name cannot name namespaces and files.
    #[error("`{0}` is no name for a network: small letters, digits and hyphens, not first, at most {LONGEST_NAME}")]
    Name(String),
    /// The name is taken.
    #[error("a network called {0} is up, or was left by a machine that went down; `pbs-lab down {0}` takes it away")]
    Taken(String),
    /// Another command is at work on it.
    #[error("another command is making or removing {0} right now")]
    Busy(String),
    /// The directory is somebody else's.
    #[error("{0} is not empty")]
    NotEmpty(String),
    /// The record of the network is damaged.
    #[error("{0}: not the record of a network: {1}")]
    Record(String, String),
    /// The system refused.
    #[error("{0}: {1}")]
    System(String, io::Error),
}

impl StandingError {
    /// Names what was being done when the system refused.
    fn at(what: impl ToString) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System(what.to_string(), error)
    }
}

fn check_name(name: &str) -> Result<(), StandingError> {
    let good = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    let fits = !name.is_empty() && name.len() <= LONGEST_NAME && !name.starts_with('-') && name.chars().all(good);
    if fits { Ok(()) } else { Err(StandingError::Name(name.to_owned())) }
}

/// Name of the namespace of a host.
fn namespace_of(network: &str, host: &str) -> String {
    format!("{network}-{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_name_files_and_nothing_above_them() {
        for good in ["a", "try-2", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "../a", "a/b", "A", "a b", "a\0", &"a".repeat(33)] {
            check_name(bad).unwrap_err();
        }
    }
}
