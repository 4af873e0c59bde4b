//! What must not be left behind: processes, directories, mounts. Each goes when its owner lets go of it, and all of them go when
//! the laboratory is ended by a signal.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often a directory is removed again if something was written into it meanwhile.
const ATTEMPTS: u32 = 5;
/// Mode of a directory in which private keys will lie.
const PRIVATE: u32 = 0o700;

/// Whoever holds this lock may make something that must not be left behind. A signal takes it and never gives it back.
static REMAINS: Mutex<Remains> = Mutex::new(Remains { next: 0, entries: Vec::new(), kept: false });

struct Remains {
    next: u64,
    /// In the order in which they were made.
    entries: Vec<(u64, Remnant)>,
    /// Whether what was made is meant to stay.
    kept: bool,
}

enum Remnant {
    Process(Child),
    Directory(PathBuf),
    Shared(PathBuf),
    File(PathBuf),
    Mount(PathBuf),
}

impl Remnant {
    fn remove(self) -> io::Result<()> {
        match self {
            Self::Process(mut child) => {
                // One that has ended already cannot be killed.
                let _ = child.kill();
                child.wait().map(drop)
            }
            Self::Directory(path) => remove_directory(&path),
            Self::Shared(path) => {
                // It may hold what others put there, or be a mount of theirs.
                let _ = std::fs::remove_dir(path);
                Ok(())
            }
            Self::File(path) => std::fs::remove_file(path),
            Self::Mount(path) => unmount(&path),
        }
    }
}

/// Something that is removed when this is dropped.
#[derive(Debug)]
pub struct Remainder(u64);

impl Remainder {
    /// Makes a directory that its owner alone may look into. That something is there already is an error, be it a link. What lies
    /// in it goes with it.
    pub fn directory(path: &Path) -> io::Result<Self> {
        let mut remains = lock();
        DirBuilder::new().mode(PRIVATE).create(path).map_err(naming(path))?;
        Ok(remains.add(Remnant::Directory(path.to_owned())))
    }

    /// Makes such a directory among temporary files, under a name that begins with `what` and that nobody can guess: whoever may
    /// write there as well cannot put something in its place beforehand.
    pub fn temporary(what: &str) -> io::Result<(Self, PathBuf)> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("the system gives no random octets"))?;
        let path = std::path::absolute(std::env::temp_dir())?.join(format!("{what}-{}", hex::encode(random)));
        Ok((Self::directory(&path)?, path))
    }

    /// Takes a directory that is there for one's own: it must be empty, no link, and belong to who runs this, and from now on its
    /// owner alone may look into it. What lies in it goes with it.
    pub fn adopted_directory(path: &Path) -> io::Result<Self> {
        let mut remains = lock();
        let directory = File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path).map_err(naming(path))?;
        if directory.metadata()?.uid() != nix::unistd::geteuid().as_raw() {
            return Err(naming(path)(io::Error::other("it belongs to somebody else")));
        }
        directory.set_permissions(Permissions::from_mode(PRIVATE))?;
        // Only now can nobody else put something into it.
        if std::fs::read_dir(path)?.next().is_some() {
            return Err(naming(path)(io::Error::other("it is not empty")));
        }
        Ok(remains.add(Remnant::Directory(path.to_owned())))
    }

    /// Makes a directory where others put things as well, if it is not there yet. It goes only if it is empty then.
    pub fn shared_directory(path: &Path) -> io::Result<Self> {
        let mut remains = lock();
        std::fs::create_dir_all(path)?;
        Ok(remains.add(Remnant::Shared(path.to_owned())))
    }

    /// Makes a file that is not there yet.
    pub fn file(path: &Path) -> io::Result<(Self, std::fs::File)> {
        let mut remains = lock();
        let file = std::fs::File::create_new(path)?;
        Ok((remains.add(Remnant::File(path.to_owned())), file))
    }

    /// Lets `path`, where nothing may be yet, show what `source` shows.
    pub fn mount(source: &Path, path: &Path) -> io::Result<Self> {
        let mut remains = lock();
        std::fs::File::create_new(path)?;
        if let Err(error) = mount(Some(source), path, None::<&str>, MsFlags::MS_BIND, None::<&str>) {
            let _ = std::fs::remove_file(path);
            return Err(error.into());
        }
        Ok(remains.add(Remnant::Mount(path.to_owned())))
    }

    /// Starts a process.
    pub fn process(command: &mut Command) -> io::Result<Self> {
        let mut remains = lock();
        let child = command.spawn()?;
        Ok(remains.add(Remnant::Process(child)))
    }

    /// Does something with the process. Its number cannot pass to another process meanwhile.
    pub fn with_process<T>(&self, work: impl FnOnce(&mut Child) -> io::Result<T>) -> io::Result<T> {
        match lock().entries.iter_mut().find(|(number, _)| *number == self.0) {
            Some((_, Remnant::Process(child))) => work(child),
            _ => Err(io::Error::other("not a process of the laboratory")),
        }
    }

    /// Leaves it where it is.
    pub fn keep(self) {
        drop(lock().take(self.0));
    }
}

impl Drop for Remainder {
    fn drop(&mut self) {
        let mut remains = lock();
        if let Some(remnant) = remains.take(self.0) {
            let _ = remnant.remove();
        }
    }
}

impl Remains {
    fn add(&mut self, remnant: Remnant) -> Remainder {
        self.next += 1;
        self.entries.push((self.next, remnant));
        Remainder(self.next)
    }

    fn take(&mut self, number: u64) -> Option<Remnant> {
        let at = self.entries.iter().position(|(entry, _)| *entry == number)?;
        Some(self.entries.remove(at).1)
    }
}

/// Adds to an error what it is about.
fn naming(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn lock() -> MutexGuard<'static, Remains> {
    REMAINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leaves everything where it is, at one stroke: a signal either removes all of it or comes too late.
pub fn keep_all() {
    let mut remains = lock();
    remains.entries.clear();
    remains.kept = true;
}

/// From here on SIGINT, SIGTERM and SIGHUP remove everything and then end the process with 128 and the signal's number.
pub fn remove_on_signals() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(entered);
    std::thread::spawn(move || {
        let kind = runtime.block_on(first(&mut interrupt, &mut terminate, &mut hang_up));
        let mut remains = lock();
        if remains.kept {
            // The work is done; the process is about to end by itself.
            return;
        }
        let mut left = 0;
        while let Some((_, remnant)) = remains.entries.pop() {
            left += usize::from(remnant.remove().is_err());
        }
        say(&match left {
            0 => "pbs-lab: ended by a signal; nothing is left behind".to_owned(),
            _ => format!("pbs-lab: ended by a signal; {left} things could not be removed"),
        });
        std::process::exit(128 + kind.as_raw_value());
    });
    Ok(())
}

async fn first(interrupt: &mut Signal, terminate: &mut Signal, hang_up: &mut Signal) -> SignalKind {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hang_up.recv() => SignalKind::hangup(),
    }
}

/// Whoever reads standard error may be gone already.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Removes a directory with all that is in it. That it is not there is no error.
pub fn remove_directory(path: &Path) -> io::Result<()> {
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        result = std::fs::remove_dir_all(path).or_else(ignore_absence);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Takes a mount away, and the file that it covered. That either is not there is no error.
pub fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // The file is there, but nothing is mounted on it.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => std::fs::remove_file(path).or_else(ignore_absence),
        Err(error) => Err(error.into()),
    }
}

fn ignore_absence(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_let_go_of_is_removed_and_what_is_kept_stays() {
        let (directory, path) = Remainder::temporary("pbs-lab-remains").unwrap();
        let (file, _) = Remainder::file(&path.join("kept")).unwrap();
        assert!(Remainder::file(&path.join("kept")).is_err(), "it is there already");
        file.keep();
        let process = Remainder::process(Command::new("sleep").arg("600")).unwrap();
        let id = process.with_process(|child| Ok(child.id())).unwrap();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        assert!(path.join("kept").exists());
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_for_keys_is_private_and_never_what_somebody_has_put_in_its_place() {
        let (above, path) = Remainder::temporary("pbs-lab-remains").unwrap();
        let mode = |path: &Path| std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&path), 0o700);
        let (theirs, link) = (path.join("theirs"), path.join("link"));
        std::fs::create_dir(&theirs).unwrap();
        std::fs::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(&theirs, &link).unwrap();
        for taken in [&theirs, &link] {
            assert_eq!(Remainder::directory(taken).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "{}", taken.display());
        }
        assert!(Remainder::adopted_directory(&link).is_err(), "a link is not followed");
        let adopted = Remainder::adopted_directory(&theirs).unwrap();
        assert_eq!(mode(&theirs), 0o700, "an own and empty one may be used once nobody else can look into it");
        drop(adopted);
        assert!(!theirs.exists());
        std::fs::create_dir_all(theirs.join("something")).unwrap();
        assert!(Remainder::adopted_directory(&theirs).is_err(), "what lies in a used one would be removed");
        assert!(theirs.join("something").exists());
        drop(above);
        assert!(!path.exists());
    }
}
