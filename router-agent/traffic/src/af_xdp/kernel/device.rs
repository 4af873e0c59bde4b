//! A TUN device: what is written to its descriptor arrives at this host by it.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::libc;

use crate::joining::Prefix;

/// Makes a device of this name, which nobody has yet, in the calling thread's network namespace. It goes when the descriptor is closed. Before
/// each packet stands a [`Prefix`].
///
/// # Errors
///
/// `EBUSY` if there is such a device; it takes `CAP_NET_ADMIN` and `/dev/net/tun`.
pub(in crate::af_xdp) fn make_device(name: &str) -> Result<OwnedFd, Errno> {
    const FLAGS: libc::c_int = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/dev/net/tun");
    let descriptor = OwnedFd::from(opened.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?);
    // SAFETY: any octets are a request, and zeros are one about no interface.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last octet stays 0.
    let places = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    places.zip(name.bytes()).for_each(|(place, byte)| *place = libc::c_char::from_ne_bytes([byte]));
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(FLAGS & 0xffff).unwrap_or_else(|_| (FLAGS as u16).cast_signed());
    // SAFETY: `request` is a plain structure without pointers, and lives across the call.
    Errno::result(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    let len = libc::c_int::try_from(size_of::<Prefix>()).unwrap_or_default();
    // SAFETY: `len` is a number, and lives across the call.
    Errno::result(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const len) })?;
    Ok(descriptor)
}
