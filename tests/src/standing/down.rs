//! Takes a standing network away: exactly what was made for it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::record::{self, Locked, Process, RECORDS};
use super::{DIRECTORIES, StandingError, check_name};
use crate::network::namespace::NAMES;
use crate::network::sys;
use crate::remains;

/// How long a daemon may take to end when asked to, and then when it is no longer asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// Takes the network `name` away. `false` if there is none.
pub fn down(name: &str) -> Result<bool, StandingError> {
    check_name(name)?;
    let Some(mut locked) = Locked::open(name)? else { return Ok(false) };
    if let Some(record) = locked.read(name)? {
        // Numbers of another run of the machine belong to other processes now.
        if record.boot == record::boot().map_err(StandingError::at("boot identity"))? {
            for process in record.processes.iter().rev() {
                end(process).map_err(StandingError::at(format!("{} ({})", process.name, process.id)))?;
            }
        }
        // A command killed halfway had no time to write down its last daemon.
        for process in unrecorded(&record.directory).map_err(StandingError::at("/proc"))? {
            end(&process).map_err(StandingError::at(format!("{} ({})", process.name, process.id)))?;
        }
        for namespace in &record.namespaces {
            let path = Path::new(NAMES).join(namespace);
            remains::unmount(&path).map_err(StandingError::at(path.display()))?;
        }
        remains::remove_directory(&record.directory).map_err(StandingError::at(record.directory.display()))?;
    }
    let path = record::path(name);
    std::fs::remove_file(&path).map_err(StandingError::at(path.display()))?;
    let _alone = record::alone()?;
    for shared in [RECORDS, NAMES, DIRECTORIES] {
        // One that holds something, or is a mount, stays.
        let _ = std::fs::remove_dir(shared);
    }
    Ok(true)
}

/// Daemons that run with a configuration of the network's own directory, whoever started them.
fn unrecorded(directory: &Path) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has just ended has no command line.
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut words = line.split(|octet| *octet == 0).skip(1).map(OsStr::from_bytes);
        if words.next() != Some(OsStr::new("run")) || words.next() != Some(OsStr::new("--config")) {
            continue;
        }
        let config = words.next().map(Path::new).filter(|config| config.parent() == Some(directory));
        if let Some(host) = config.and_then(Path::file_stem) {
            found.extend(Process::identify(&host.to_string_lossy(), id).ok());
        }
    }
    Ok(found)
}

/// Ends a process if it is still the one that was started.
fn end(process: &Process) -> io::Result<()> {
    let Some(handle) = sys::process_handle(process.id)? else { return Ok(()) };
    // The handle stays with one process; only now is it worth asking which one.
    if record::started(process.id)? != Some(process.started) {
        return Ok(());
    }
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        sys::signal_process(&handle, signal).or_else(ignore_end)?;
        if has_ended(&handle)? {
            return Ok(());
        }
    }
    Err(io::Error::other("does not end"))
}

fn ignore_end(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}

/// Waits a while for the process to end. Its handle can be read from then on (pidfd_open(2)).
fn has_ended(handle: &OwnedFd) -> io::Result<bool> {
    let patience = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
    Ok(poll(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], patience)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_the_very_process_is_ended() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let own = Process::identify("sleep", child.id()).unwrap();
        end(&Process { started: own.started + 1, ..own.clone() }).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "another process had this number");
        end(&own).unwrap();
        assert!(child.wait().unwrap().code().is_none(), "it was ended by a signal");
        end(&own).unwrap();
    }
}
