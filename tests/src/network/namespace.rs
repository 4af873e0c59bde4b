//! One host: a network namespace of the kernel.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::remains::Remainder;

/// Where names of namespaces lie, for `ip netns` and for this.
pub const NAMES: &str = "/run/netns";

/// How long a process inside a namespace lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the laboratory's process at most, however that ends.
    Laboratory,
    /// Until somebody ends it. It belongs to no terminal.
    Own,
}

/// A network namespace. The kernel removes it, with its links and rules, when the last process and the last handle are gone.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: OwnedFd,
}

impl Namespace {
    /// Makes an empty namespace with its loopback interface up.
    pub fn create(name: &str) -> io::Result<Self> {
        let handle = on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
        })?;
        let namespace = Self { name: name.to_owned(), handle };
        namespace.write_setting("net/ipv6/conf/all/accept_dad", "0")?;
        namespace.write_setting("net/ipv6/conf/default/accept_dad", "0")?;
        super::link::bring_up(&namespace, "lo")?;
        Ok(namespace)
    }

    /// Name of the host, as tables and captures show it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets made there stay in the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            setns(&self.handle, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }

    /// Runs asynchronous `work` inside the namespace.
    pub fn run_async<T: Send, F: Future<Output = io::Result<T>>>(&self, work: impl FnOnce() -> F + Send) -> io::Result<T> {
        self.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work()))
    }

    /// Starts a thread that lives inside the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<thread::JoinHandle<io::Result<T>>> {
        let handle = self.handle.try_clone()?;
        Ok(thread::spawn(move || {
            setns(&handle, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        }))
    }

    /// Makes `command` run inside the namespace.
    pub fn contain(&self, command: &mut Command, lifetime: Lifetime) -> io::Result<()> {
        super::sys::run_inside(command, self.handle.try_clone()?, lifetime);
        Ok(())
    }

    /// Gives the namespace a name that other programs know it by: `ip netns exec NAME …`. It lives as long as the name does. The
    /// directory of names must be there.
    pub fn publish(&self, name: &str) -> io::Result<Remainder> {
        let path = Path::new(NAMES).join(name);
        let handle = format!("/proc/self/fd/{}", self.handle.as_raw_fd());
        Remainder::mount(Path::new(&handle), &path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Writes a setting below `/proc/sys`.
    pub fn write_setting(&self, path: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/{path}");
        self.run(|| std::fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}"))))
    }

    /// Writes a setting of an interface, below `/sys/class/net`.
    pub fn write_interface_setting(&self, interface: &str, setting: &str, value: &str) -> io::Result<()> {
        let path = Path::new("/sys/class/net").join(interface).join(setting);
        self.run(|| {
            // What stands in /sys is of the namespace that it was mounted in. This thread ends with its view of it.
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
            std::fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        })
    }

    pub(super) fn raw_handle(&self) -> RawFd {
        self.handle.as_raw_fd()
    }
}

/// Namespaces belong to threads, so whatever enters one does it on a thread that ends afterwards.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("a thread of the laboratory panicked"))))
}
