//! One daemon a network namespace: a second one of the same kind would put its filter rules in place of the first one's, and of
//! two kinds each would drop what the other lets pass.

use std::io::ErrorKind;
use std::path::Path;

use traffic::queue::{Queue, QueueConfig, QueueError};

/// The packet queue that a daemon holds and to which no rule leads. Only who may set filter rules can hold a packet queue, each
/// network namespace has its own, the kernel gives a number to one holder alone, and takes it back with the process, however that
/// ends. No port is as good: programs without privilege may hold those from `net.ipv4.ip_unprivileged_port_start` on.
pub const QUEUE: u16 = u16::MAX;

/// From this port on programs without privilege may bind, in the network namespace of whoever reads it.
const FIRST_UNPRIVILEGED: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
/// The UDP port of GIST (RFC 5971 §9), whose datagrams need no permission.
const GIST_PORT: u32 = 270;

/// Why this network namespace cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another daemon runs here.
    #[error("packet queue {QUEUE} is held: another pbs or pbs-router runs in this network namespace; its filter rules are left alone")]
    Taken,
    /// The process may not hold the queue.
    #[error("cannot hold packet queue {QUEUE}: root, or CAP_NET_ADMIN, is needed")]
    NotPrivileged,
    /// Anything else.
    #[error("cannot hold packet queue {QUEUE}: {0}")]
    System(QueueError),
}

/// The right to this network namespace's filter rules, for as long as it is held.
#[derive(Debug)]
pub struct Claim {
    _queue: Queue,
}

impl Claim {
    /// Claims the network namespace of the calling thread.
    pub fn take() -> Result<Self, ClaimError> {
        let unused = QueueConfig { capacity: 1, socket_buffer: 4096, ..QueueConfig::new(QUEUE) };
        let queue = Queue::open(unused).map_err(|error| match error {
            QueueError::Taken(_) => ClaimError::Taken,
            QueueError::NotPrivileged(_) => ClaimError::NotPrivileged,
            QueueError::Failed { .. } => ClaimError::System(error),
        })?;
        Ok(Self { _queue: queue })
    }
}

/// Why the port of GIST does not tell who sends.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Anybody here may use it.
    #[error(
        "any program here may bind UDP port {GIST_PORT} (net.ipv4.ip_unprivileged_port_start is {first}) and would send and receive \
         without permission; set it to 1024, in a container from outside"
    )]
    Unprivileged {
        /// The first port that needs no privilege.
        first: u32,
    },
    /// Nobody knows.
    #[error("cannot tell whether any program here may bind UDP port {GIST_PORT}: {FIRST_UNPRIVILEGED}: {0}")]
    Unknown(String),
}

/// Makes sure that only privileged programs can use GIST's port, since the filter rules know signalling by it.
pub fn gist_port_is_privileged() -> Result<(), PortError> {
    judge(std::fs::read_to_string(Path::new(FIRST_UNPRIVILEGED)))
}

/// Whether GIST's port has become one that any program may bind, which is looked at from time to time.
#[derive(Debug, Default)]
pub struct PortWatch {
    wrong: Option<String>,
}

impl PortWatch {
    /// Looks again, and says so in the log if that has changed. Nothing ends because of it: as long as this daemon holds the port
    /// nobody else gets it, and the filter rules outlive the daemon.
    pub fn look(&mut self) {
        self.hear(gist_port_is_privileged());
    }

    /// What is wrong, as it was when last looked at.
    pub fn wrong(&self) -> Option<&str> {
        self.wrong.as_deref()
    }

    fn hear(&mut self, found: Result<(), PortError>) {
        let wrong = found.err().map(|error| error.to_string());
        match (&self.wrong, &wrong) {
            (None, Some(wrong)) => {
                tracing::error!("{wrong}; only this daemon's own hold on the port keeps them from it: do not stop it before")
            }
            (Some(_), None) => tracing::info!("UDP port {GIST_PORT} is again for privileged programs only"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.wrong = wrong;
    }
}

fn judge(setting: std::io::Result<String>) -> Result<(), PortError> {
    let text = match setting {
        Ok(text) => text,
        // Kernels before 4.11 have no such setting.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(PortError::Unknown(error.to_string())),
    };
    let first: u32 = text.trim().parse().map_err(|_| PortError::Unknown(format!("{text:?} is not a number")))?;
    if first > GIST_PORT { Ok(()) } else { Err(PortError::Unprivileged { first }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_becomes_anybodys_is_known_until_it_is_not_any_more() {
        let mut watch = PortWatch::default();
        watch.hear(judge(Ok("1024\n".to_owned())));
        assert_eq!(watch.wrong(), None);
        watch.hear(judge(Ok("0\n".to_owned())));
        assert!(watch.wrong().is_some_and(|wrong| wrong.contains("any program here may bind UDP port 270")));
        watch.hear(judge(Ok("1024\n".to_owned())));
        assert_eq!(watch.wrong(), None);
    }

    #[test]
    fn the_port_of_gist_is_privileged_only_below_the_first_that_is_not() {
        let first = |text: &str| judge(Ok(text.to_owned()));
        assert!(first("1024\n").is_ok() && first("271\n").is_ok());
        assert!(matches!(first("270\n"), Err(PortError::Unprivileged { first: 270 })));
        assert!(matches!(first("0\n"), Err(PortError::Unprivileged { first: 0 })));
        assert!(matches!(first("none\n"), Err(PortError::Unknown(_))));
        assert!(judge(Err(ErrorKind::NotFound.into())).is_ok());
        assert!(matches!(judge(Err(ErrorKind::PermissionDenied.into())), Err(PortError::Unknown(_))));
    }
}
