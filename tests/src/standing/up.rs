//! Builds a network and leaves it running.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::record::{self, Locked, Process, RECORDS, Record};
use super::{DIRECTORIES, HOSTS, StandingError, check_name, namespace_of};
use crate::ground::{Ground, REFRESH};
use crate::network::namespace::NAMES;
use crate::network::topology::{RECEIVER, RECEIVER6, SENDER, SENDER6};
use crate::process::{Daemon, Program};
use crate::remains::{self, Remainder};

/// A network that runs.
#[derive(Debug)]
pub struct Standing {
    name: String,
    directory: PathBuf,
}

/// Builds the network `name` with its files in `directory` and leaves it running. If that fails nothing is left behind.
pub fn up(name: &str, directory: Option<PathBuf>) -> Result<Standing, StandingError> {
    check_name(name)?;
    let directory = directory.unwrap_or_else(|| Path::new(DIRECTORIES).join(name));
    let directory = std::path::absolute(&directory).map_err(StandingError::at(directory.display()))?;
    let path = record::path(name);
    let alone = record::alone()?;
    let mut shared = Vec::new();
    for above in [RECORDS, NAMES, DIRECTORIES].map(Path::new) {
        shared.push(Remainder::shared_directory(above).map_err(StandingError::at(above.display()))?);
    }
    let (_record, mut locked) = create_record(name, &path)?;
    refuse_used(&directory)?;

    let namespaces = HOSTS.map(|host| namespace_of(name, host)).to_vec();
    let boot = record::boot().map_err(StandingError::at("boot identity"))?;
    let mut record = Record { boot, directory: directory.clone(), namespaces, processes: Vec::new() };
    locked.write(&record).map_err(StandingError::at(path.display()))?;

    let ground = Ground::lay_in(&directory).map_err(StandingError::at("building the network"))?;
    let mut mounts = Vec::new();
    for (host, namespace) in [&ground.chain.sender, &ground.chain.router, &ground.chain.receiver].into_iter().zip(&record.namespaces) {
        mounts.push(host.publish(namespace).map_err(StandingError::at("naming a namespace"))?);
    }
    drop(alone);
    link_programs(&directory).map_err(StandingError::at("linking programs"))?;
    let mut daemons = Vec::new();
    for (host, program, namespace) in [
        ("router", Program::Router, &ground.chain.router),
        ("receiver", Program::Host, &ground.chain.receiver),
        ("sender", Program::Host, &ground.chain.sender),
    ] {
        let daemon = Daemon::spawn_standing(namespace, program, &directory, host).map_err(StandingError::at(host))?;
        let process = daemon.id().and_then(|id| Process::identify(host, id)).map_err(StandingError::at(host))?;
        let file = directory.join(format!("{host}.pid"));
        std::fs::write(&file, format!("{}\n", process.id)).map_err(StandingError::at(file.display()))?;
        record.processes.push(process);
        locked.write(&record).map_err(StandingError::at(path.display()))?;
        daemon.wait_until_ready().map_err(StandingError::at(host))?;
        daemons.push(daemon);
    }
    remains::keep_all();
    Ok(Standing { name: name.to_owned(), directory })
}

/// Takes the name: the record is the first thing made, and the last removed.
fn create_record(name: &str, path: &Path) -> Result<(Remainder, Locked), StandingError> {
    let (remainder, file) = Remainder::file(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => StandingError::Taken(name.to_owned()),
        _ => StandingError::at(path.display())(error),
    })?;
    Ok((remainder, Locked::new(name, file)?))
}

/// The directory will be removed with everything in it: it must be the network's own.
fn refuse_used(directory: &Path) -> Result<(), StandingError> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(StandingError::NotEmpty(directory.display().to_string())),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StandingError::at(directory.display())(error)),
    }
}

/// The daemons' command lines under their own names.
fn link_programs(directory: &Path) -> io::Result<()> {
    let programs = directory.join("bin");
    std::fs::create_dir(&programs)?;
    let own = std::env::current_exe()?;
    [Program::Router, Program::Host].into_iter().try_for_each(|program| symlink(&own, programs.join(program.name())))
}

impl Display for Standing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, directory } = self;
        let (directory, refresh) = (directory.display(), REFRESH.as_secs());
        let [sender, router, receiver] = HOSTS.map(|host| namespace_of(name, host));
        write!(
            f,
            "{name} is up: {SENDER} {SENDER6} ({sender}) – {router} – {RECEIVER} {RECEIVER6} ({receiver})

Send through it; the first packet asks for a permission by itself (UDP 9000-9799, TCP 9100-9199):
  ip netns exec {receiver} nc -u -l -p 9000
  ip netns exec {sender} nc -u {RECEIVER} 9000
Ask for a permission beforehand, give it back, take it back:
  {directory}/bin/pbs request --control {directory}/sender.sock --source {SENDER} --destination {RECEIVER} \\
      --protocol 17 --source-port 29000 --destination-port 9000 --volume 1000000
  {directory}/bin/pbs release --control {directory}/sender.sock … the same flow, without volume
  {directory}/bin/pbs revoke --control {directory}/receiver.sock … the same flow
Look at it (sender.sock and receiver.sock with pbs, router.sock with pbs-router; status, flows, counters, gist):
  {directory}/bin/pbs status --control {directory}/sender.sock
  {directory}/bin/pbs-router counters --control {directory}/router.sock
  ip netns exec {router} tcpdump -n -i r1        # r0 is towards the sender, r1 towards the receiver
Permissions are refreshed every {refresh} s. Configurations, keys and logs: {directory}
Take it away: pbs-lab down {name}"
        )
    }
}
