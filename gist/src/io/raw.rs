//! Raw sockets for Q-mode packets, which are handed to the kernel with their IP header.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::error::ShellError;
use super::{Bind, path_mtu};

/// Sending sockets of both IP versions, as far as the configuration wants them.
#[derive(Debug)]
pub(super) struct RawSockets {
    ipv4: Option<Socket>,
    ipv6: Option<Socket>,
}

impl RawSockets {
    /// Opens the sockets; needs the right to use raw sockets.
    pub(super) fn open(bind: Bind) -> Result<Self, ShellError> {
        Ok(Self {
            ipv4: bind.ipv4.map(|address| raw("IPv4", Domain::IPV4, address.into())).transpose()?,
            ipv6: bind.ipv6.map(|address| raw("IPv6", Domain::IPV6, address.into())).transpose()?,
        })
    }

    /// Sends a whole IP packet on the route to `destination` that packets with `mark` have, without waiting.
    pub(super) fn send(&self, packet: &[u8], destination: IpAddr, mark: u32) -> io::Result<()> {
        let socket = if destination.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let socket = socket.as_ref().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let send = || socket.send_to(packet, &SockAddr::from(SocketAddr::new(destination, 0))).map(drop);
        if mark == 0 {
            return send();
        }
        setsockopt(socket, sockopt::Mark, &mark)?;
        let sent = send();
        // The next one goes where routing leads.
        setsockopt(socket, sockopt::Mark, &0)?;
        sent
    }
}

fn raw(version: &'static str, domain: Domain, address: IpAddr) -> Result<Socket, ShellError> {
    let open = || {
        let socket = Socket::new_raw(domain, Type::RAW.nonblocking(), Some(Protocol::from(IPPROTO_RAW)))?;
        path_mtu::ignore(&socket, address)?;
        Ok(socket)
    };
    open().map_err(|source| ShellError::RawSocket { version, source })
}

/// The protocol whose sockets only send, and always with the caller's IP header (raw(7), ipv6(7)).
const IPPROTO_RAW: i32 = 255;
