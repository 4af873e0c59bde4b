//! Which processor does what of sender, router and sink, of the two that these rows need.

use std::io;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use traffic::worker::processors;

use crate::network::namespace::Namespace;
use crate::network::sys;

/// One of the ways to give them out. The worker always has the second. A virtual link hands a packet to its other end on the processor of
/// whoever sends it, and unless something is set the kernel does there what it has to do for a packet that comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Arrangement {
    /// Nothing is set, and the sender has the first: what the kernel does of the router's when a packet comes in is on the first as well.
    #[default]
    Apart,
    /// Nothing is set, and everything is on the second, the sender too.
    Together,
    /// The sender has the first, which hands each packet that comes to the router over to the second (RPS), as a network card does with the
    /// interrupts of its only queue. Programs of XDP run before that, on the first.
    HandedOver,
    /// The sender has the first. A thread of the kernel's on the second takes in what comes to the router (threaded NAPI), which a virtual link
    /// has where packets are put together that are alike (GRO), or an XDP program stands.
    Threaded,
    /// The sender has the first. The router's interface waits for the worker to take in what comes (`napi_defer_hard_irqs`), and the clock by
    /// which it looks after the worker runs on the worker's processor.
    Polled,
}

impl Arrangement {
    /// The place of the sender's processor among those that may be used.
    pub(super) const fn senders(self) -> usize {
        if matches!(self, Self::Together) { 1 } else { 0 }
    }

    /// Gives them out. What is set goes with the namespaces. The sink takes in what comes on the first processor, where the router has the
    /// second and the sender not.
    ///
    /// # Errors
    ///
    /// There is but one processor, or the kernel does not do it.
    pub(super) fn give_out(self, router: &Namespace, sink: &Namespace) -> io::Result<()> {
        let [first, second, ..] = *processors() else {
            // Without a second everything is on the only one.
            return if self == Self::Apart { Ok(()) } else { Err(io::Error::other("this row needs two processors")) };
        };
        let mask = |processor: usize| format!("{:x}", 1_u64 << processor);
        if !matches!(self, Self::Apart | Self::Together) {
            sink.write_interface_setting("far1", "queues/rx-0/rps_cpus", &mask(first))?;
        }
        match self {
            Self::Apart | Self::Together => Ok(()),
            Self::HandedOver => router.write_interface_setting("near1", "queues/rx-0/rps_cpus", &mask(second)),
            Self::Threaded => {
                router.run(|| sys::gather_packets("near1"))?;
                router.write_interface_setting("near1", "threaded", "1")?;
                keep_kernel_thread("napi/near1", second)
            }
            Self::Polled => {
                router.write_interface_setting("near1", "napi_defer_hard_irqs", "2")?;
                router.write_interface_setting("near1", "gro_flush_timeout", "200000")
            }
        }
    }
}

/// Keeps the kernel's threads whose names begin so on a processor.
fn keep_kernel_thread(name: &str, processor: usize) -> io::Result<()> {
    let mut one = CpuSet::new();
    one.set(processor)?;
    let mut found = false;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|number| number.parse().ok()) else { continue };
        // One that has ended meanwhile is none of them.
        if std::fs::read_to_string(process.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)) {
            sched_setaffinity(Pid::from_raw(number), &one)?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(io::Error::other(format!("the kernel has no thread {name}"))) }
}
