//! Privileges taken from a process before it starts.
#![allow(unsafe_code)]

use std::io;

/// Privileges of Linux, by their numbers (capabilities(7)).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Capability {
    BindService = 10,
    Administration = 12,
    RawSockets = 13,
    Trace = 19,
}

/// Programs that the calling thread starts from now on do not get this privilege, even as root.
pub(crate) fn withhold(capability: Capability) -> io::Result<()> {
    // SAFETY: this call takes numbers only, and changes nothing but the calling thread's bounding set.
    let result = unsafe { nix::libc::prctl(nix::libc::PR_CAPBSET_DROP, capability as nix::libc::c_ulong, 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
