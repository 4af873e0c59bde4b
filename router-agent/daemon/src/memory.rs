//! What a daemon holds in memory stays there: keys are to be found neither in core dumps nor by other processes.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Has the kernel write no core dump of this process, be it to a file or to a program that collects them, and has it show its memory
/// only to who may look at any process. To be called before keys are read.
pub fn keep_private() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // The limit alone does not keep a dump from a program named in kernel.core_pattern.
    prctl::set_dumpable(false)
}
