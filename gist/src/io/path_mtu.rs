//! Keeps ICMP errors about signalling from changing what this node believes of paths.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;

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
