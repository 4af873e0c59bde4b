//! Where a relay's packets leave this node.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, setsockopt, socket, sockopt::Mark,
};

use crate::netlink::NetlinkError;
use crate::next_hop::NextHops;
use crate::routes::LinkMtu;

/// Why a packet did not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// It is longer than its link carries.
    TooBig,
    /// There is no route.
    NoRoute,
    /// A queue is full.
    Busy,
    /// A filter rule forbids it.
    Filtered,
    /// Anything else.
    Failed,
}

/// Sends whole IP packets of any source.
pub trait Outlet: Send {
    /// Sends a packet as it is; never waits.
    ///
    /// # Errors
    ///
    /// See [`NotSent`].
    fn send(&mut self, destination: IpAddr, packet: &[u8]) -> Result<(), NotSent>;

    /// The longest packet that the link towards a destination carries, in octets; `None` if nobody knows.
    fn carried(&mut self, destination: IpAddr) -> Option<u32>;
}

/// Why there is no outlet.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// The sockets cannot be had: they take `CAP_NET_RAW` and `CAP_NET_ADMIN`.
    #[error("a relay's raw sockets: {0}")]
    Socket(#[from] Errno),
    /// The kernel cannot be asked about routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Raw sockets with the mark by which this node's own rules let their packets pass.
#[derive(Debug)]
pub struct RawOutlet {
    ipv4: OwnedFd,
    ipv6: OwnedFd,
    next_hops: NextHops,
    links: LinkMtu,
}

impl RawOutlet {
    /// Opens the sockets in the network namespace of the calling thread; `mark` is that of the rules
    /// ([`crate::rules::HostRules::relayed`]).
    ///
    /// # Errors
    ///
    /// See [`OutletError`].
    pub fn open(mark: u32) -> Result<Self, OutletError> {
        let open = |family| -> Result<OwnedFd, Errno> {
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::Raw)?;
            setsockopt(&socket, Mark, &mark)?;
            Ok(socket)
        };
        let (ipv4, ipv6) = (open(AddressFamily::Inet)?, open(AddressFamily::Inet6)?);
        // Parts of datagrams leave as they came. IPv6 has no such option: there a rule for the mark keeps reassembly away.
        setsockopt(&ipv4, option::NotReassembled, &1)?;
        Ok(Self { ipv4, ipv6, next_hops: NextHops::open()?, links: LinkMtu::open()? })
    }
}

impl Outlet for RawOutlet {
    fn send(&mut self, destination: IpAddr, packet: &[u8]) -> Result<(), NotSent> {
        let socket = if destination.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let to = SockaddrStorage::from(SocketAddr::new(destination, 0));
        match sendto(socket.as_raw_fd(), packet, &to, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(()),
            Err(Errno::EMSGSIZE) => Err(NotSent::TooBig),
            // A route that only says no gives EINVAL.
            Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL) => Err(NotSent::NoRoute),
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => Err(NotSent::Busy),
            Err(Errno::EPERM | Errno::EACCES) => Err(NotSent::Filtered),
            Err(errno) => {
                tracing::debug!(%destination, %errno, "the kernel does not take a packet to relay");
                Err(NotSent::Failed)
            }
        }
    }

    fn carried(&mut self, destination: IpAddr) -> Option<u32> {
        let interface = self.next_hops.towards(destination).ok()??.interface;
        self.links.of(interface, destination.is_ipv6()).ok()?
    }
}

/// Socket options that the library does not name.
mod option {
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(NotReassembled, SetOnly, libc::IPPROTO_IP, libc::IP_NODEFRAG, libc::c_int);
}
