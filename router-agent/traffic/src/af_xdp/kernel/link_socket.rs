//! A socket that sends frames to a link (`packet(7)`).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::last_error;

/// Opens a socket for whole frames, in the network namespace of the calling thread. It never waits, and receives nothing: it is for no protocol.
///
/// # Errors
///
/// The privilege for it is missing (`CAP_NET_RAW`).
pub(crate) fn link_socket() -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if descriptor < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Has it send to a link, by the kernel's index.
///
/// # Errors
///
/// There is no such link.
pub(crate) fn bind_to_link(socket: &OwnedFd, link: u32) -> Result<(), Errno> {
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
        sll_protocol: 0,
        sll_ifindex: i32::try_from(link).map_err(|_| Errno::ENODEV)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    // SAFETY: a plain value that lives across the call, with its true length.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if bound < 0 { Err(last_error()) } else { Ok(()) }
}
