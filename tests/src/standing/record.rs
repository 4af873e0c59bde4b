//! What a standing network consists of, written down before it is made, so that exactly this can be removed.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::StandingError;

/// Where records lie: processes and namespaces do not outlive the machine's run either.
pub(super) const RECORDS: &str = "/run/pbs-lab";
/// Octets of the largest record.
const LARGEST: u64 = 1 << 16;

/// A standing network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The run of the machine that the processes belong to.
    pub(super) boot: String,
    /// Configurations, keys and logs.
    pub(super) directory: PathBuf,
    /// Names of the namespaces.
    pub(super) namespaces: Vec<String>,
    /// The daemons that were started so far.
    pub(super) processes: Vec<Process>,
}

/// A process, known by its number and the moment it started, so that no other process is taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) id: u32,
    /// In ticks since the machine started.
    pub(super) started: u64,
}

impl Process {
    /// The running process `id`.
    pub(super) fn identify(name: &str, id: u32) -> io::Result<Self> {
        let started = started(id)?.ok_or_else(|| io::Error::other(format!("{name} has ended")))?;
        Ok(Self { name: name.to_owned(), id, started })
    }
}

/// When process `id` started, in ticks since the machine started; `None` if there is none.
pub(super) fn started(id: u32) -> io::Result<Option<u64>> {
    let text = match std::fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(text) => text,
        // The process ended while it was being read.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(error) => return Err(error),
    };
    // The program's name, in parentheses, may hold anything. Behind it the start is field 20 (proc(5)).
    let start = text.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().nth(19)?.parse().ok());
    start.map(Some).ok_or_else(|| io::Error::other(format!("/proc/{id}/stat cannot be read")))
}

/// What tells this run of the machine from any other.
pub(super) fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Whoever makes or removes the directories that networks share does it alone: one must not vanish before something lies in it.
pub(super) fn alone() -> Result<Flock<File>, StandingError> {
    const ABOVE: &str = "/run";
    let above = File::open(ABOVE).map_err(StandingError::at(ABOVE))?;
    Flock::lock(above, FlockArg::LockExclusive).map_err(|(_, error)| StandingError::at(ABOVE)(error.into()))
}

/// Where the record of `network` lies.
pub(super) fn path(network: &str) -> PathBuf {
    Path::new(RECORDS).join(format!("{network}.json"))
}

/// A record on disk, locked: only one command at a time works on a network.
#[derive(Debug)]
pub(super) struct Locked(Flock<File>);

impl Locked {
    /// Locks an open record.
    pub(super) fn new(network: &str, file: File) -> Result<Self, StandingError> {
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map(Self).map_err(|_| StandingError::Busy(network.to_owned()))
    }

    /// Opens and locks the record of `network`; `None` if there is none.
    pub(super) fn open(network: &str) -> Result<Option<Self>, StandingError> {
        let path = path(network);
        match File::options().read(true).write(true).open(&path) {
            Ok(file) => {
                let locked = Self::new(network, file)?;
                let links = locked.0.metadata().map_err(StandingError::at(path.display()))?.nlink();
                // Another command may have removed it just before.
                Ok((links > 0).then_some(locked))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StandingError::at(path.display())(error)),
        }
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        self.0.rewind()?;
        self.0.set_len(0)?;
        self.0.write_all(&text)
    }

    /// Reads the record; `None` if the command that made it was killed before it made anything else.
    pub(super) fn read(&mut self, network: &str) -> Result<Option<Record>, StandingError> {
        let path = path(network);
        let mut text = String::new();
        self.0.rewind().map_err(StandingError::at(path.display()))?;
        (&*self.0).take(LARGEST).read_to_string(&mut text).map_err(StandingError::at(path.display()))?;
        if text.is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&text).map(Some).map_err(|error| StandingError::Record(path.display().to_string(), error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = Process::identify("test", std::process::id()).unwrap();
        assert_eq!(started(own.id).unwrap(), Some(own.started));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        assert_eq!(started(id).unwrap(), None);
    }
}
