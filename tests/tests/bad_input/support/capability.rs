//! Privileges taken from a process before it starts.
#![allow(unsafe_code)]

use std::io;

/// Privileges of Linux, by their numbers (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Capability {
    BindService = 10,
    Administration = 12,
    RawSockets = 13,
    Trace = 19,
}

/// Those that the kernel may come to have.
const ALL: u32 = 64;

/// Programs that the calling thread starts from now on do not get this privilege, even as root.
pub(crate) fn withhold(capability: Capability) -> io::Result<()> {
    drop_one(capability as u32)
}

/// They get these and no others.
pub(crate) fn keep_only(kept: &[Capability]) -> io::Result<()> {
    let gone = (0..ALL).filter(|number| kept.iter().all(|capability| *capability as u32 != *number));
    for number in gone {
        match drop_one(number) {
            // Beyond the last one that this kernel has.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => return Ok(()),
            other => other?,
        }
    }
    Ok(())
}

fn drop_one(number: u32) -> io::Result<()> {
    // SAFETY: this call takes numbers only, and changes nothing but the calling thread's bounding set.
    let result = unsafe { nix::libc::prctl(nix::libc::PR_CAPBSET_DROP, nix::libc::c_ulong::from(number), 0, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
