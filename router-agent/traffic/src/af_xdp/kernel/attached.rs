//! A program at the ingress of an interface (`bpf(2)`, a link of kind tcx, Linux 6.6), for as long as this process holds it.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::Program;
use super::bpf::{AskInformation, INFORMATION, call, owned};

/// `BPF_LINK_CREATE`.
const CREATE: libc::c_int = 28;
/// `BPF_TCX_INGRESS`.
const INGRESS: u32 = 46;

/// A program where it runs. It goes when this is dropped, or with the process.
#[derive(Debug)]
pub(in crate::af_xdp) struct Attached(OwnedFd);

/// `union bpf_attr` of the command, up to what is used.
#[repr(C)]
struct Create {
    program: u32,
    interface: u32,
    kind: u32,
    flags: u32,
    relative_to: u64,
    revision: u64,
}

/// `struct bpf_link_info` of such a link.
#[repr(C)]
#[derive(Default)]
struct Information {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    interface: u32,
    place: u32,
}

impl Attached {
    /// Has a program run behind those that run at the ingress of an interface already.
    ///
    /// # Errors
    ///
    /// `EINVAL` by a kernel that knows no such links, `ENODEV` if the interface has gone.
    pub(in crate::af_xdp) fn new(program: &Program, interface: u32) -> Result<Self, Errno> {
        let program = program.descriptor().cast_unsigned();
        call(CREATE, &mut Create { program, interface, kind: INGRESS, flags: 0, relative_to: 0, revision: 0 }).map(owned).map(Self)
    }

    /// Whether it still runs on this interface: not if that has gone, or somebody has taken the program off.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub(in crate::af_xdp) fn runs_on(&self, interface: u32) -> Result<bool, Errno> {
        let mut information = Information::default();
        let len = u32::try_from(size_of::<Information>()).unwrap_or_default();
        let at = std::ptr::from_mut(&mut information) as u64;
        call(INFORMATION, &mut AskInformation { object: self.0.as_raw_fd().cast_unsigned(), len, information: at })?;
        Ok(information.interface == interface)
    }
}
