//! What packets of this host's programs to a destination are: where they come from, and how long they may be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use nix::sys::socket::getsockopt;

/// Where to; nothing is ever sent there.
const DISCARD: u16 = 9;

/// The routed way to a destination, as the kernel knows it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Towards {
    /// The address that packets without another one get.
    pub source: IpAddr,
    /// The longest packet without AH, in octets: by the route, which leaves room for AH, and by what is known of the path.
    pub mtu: u32,
}

impl Towards {
    /// Asks the kernel, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// No route leads there.
    pub fn ask(destination: IpAddr) -> io::Result<Self> {
        let any: IpAddr = if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(destination, DISCARD))?;
        let mtu = if destination.is_ipv4() { getsockopt(&socket, option::Ipv4Mtu) } else { getsockopt(&socket, option::Ipv6Mtu) }?;
        Ok(Self { source: socket.local_addr()?.ip(), mtu: u32::try_from(mtu).unwrap_or_default() })
    }
}

/// Socket options that the library does not name.
mod option {
    use nix::{getsockopt_impl, libc, sockopt_impl};

    sockopt_impl!(Ipv4Mtu, GetOnly, libc::IPPROTO_IP, libc::IP_MTU, libc::c_int);
    sockopt_impl!(Ipv6Mtu, GetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU, libc::c_int);
}
