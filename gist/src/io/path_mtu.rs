//! Path MTUs: what the kernel knows, and that ICMP errors about signalling do not change it.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// Bytes of the longest IP packet that the kernel would send where the socket is connected to, 65,535 at most: the link's MTU, less if the route
/// says less or the kernel has been told so by somebody on the path whom it believes.
pub(super) fn of(socket: &impl AsFd, address: IpAddr) -> Option<u16> {
    match address {
        IpAddr::V4(_) => getsockopt(socket, sockopt::IpMtu).ok().and_then(|mtu| u16::try_from(mtu.clamp(0, i32::from(u16::MAX))).ok()),
        // No link of it takes less than any datagram made here is long (RFC 8200 §5).
        IpAddr::V6(_) => None,
    }
}

/// Lets the socket send by its link's MTU, and the kernel believe no "too big" that quotes one of its datagrams: anybody can make
/// such an error up, it would hold for everything that this node sends to that address, and D-mode messages fit any path
/// ([`LONGEST_MESSAGE`](crate::wire::datagram), RFC 5971 §4.3.3).
pub(super) fn ignore(socket: &impl AsFd, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => setsockopt(socket, option::Ipv4MtuDiscovery, &nix::libc::IP_PMTUDISC_INTERFACE),
        IpAddr::V6(_) => setsockopt(socket, option::Ipv6MtuDiscovery, &nix::libc::IPV6_PMTUDISC_INTERFACE),
    }?;
    Ok(())
}

/// Socket options that the library does not name.
mod option {
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(Ipv4MtuDiscovery, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int);
    sockopt_impl!(Ipv6MtuDiscovery, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int);
}
