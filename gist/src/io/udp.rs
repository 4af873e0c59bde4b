//! UDP sockets on GIST's port, with destination, interface and TTL of every datagram.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use bytes::Bytes;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::error::ShellError;
use super::parse::is_query_mode;
use super::{Bind, ShellCounters, path_mtu};
use crate::node::Datagram;
use crate::wire::datagram::GIST_PORT;

/// Largest datagram received, in bytes of UDP payload: a frame of 9000 bytes fits. What is longer is dropped.
pub(super) const LARGEST_DATAGRAM: usize = 9216;

/// IP TTL of normal encapsulation: what the node tells in its NLI, whatever the system's default is (G-160).
const IP_TTL: u32 = 64;

/// The sockets of both IP versions, as far as the configuration wants them.
#[derive(Debug)]
pub(super) struct UdpSockets {
    ipv4: Option<UdpSocket>,
    ipv6: Option<UdpSocket>,
    buffer: Vec<u8>,
    /// What the kernel has dropped at either socket, as it said last.
    overflowed: [u32; 2],
}

impl UdpSockets {
    /// Binds the sockets; needs the right to bind ports below 1024.
    pub(super) fn bind(bind: Bind) -> Result<Self, ShellError> {
        Ok(Self {
            ipv4: bind.ipv4.map(|address| socket(address.into())).transpose()?,
            ipv6: bind.ipv6.map(|address| socket(address.into())).transpose()?,
            buffer: vec![0; LARGEST_DATAGRAM],
            overflowed: [0; 2],
        })
    }

    /// Waits until a socket has something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        tokio::select! {
            ready = readable(self.ipv4.as_ref()) => ready,
            ready = readable(self.ipv6.as_ref()) => ready,
        }
    }

    /// Reads the next datagram without waiting; `None` if there is none, or one that was dropped and counted.
    ///
    /// One call reads one socket, and the sockets take turns by the caller's `turn`.
    pub(super) fn receive(&mut self, turn: usize, counters: &mut ShellCounters) -> Option<Datagram> {
        let [of_ipv4, of_ipv6] = &mut self.overflowed;
        let mut sockets = [(&self.ipv4, of_ipv4), (&self.ipv6, of_ipv6)];
        if !turn.is_multiple_of(2) {
            sockets.reverse();
        }
        for (socket, overflowed) in sockets {
            let Some(socket) = socket else { continue };
            let before = *overflowed;
            let received = socket.try_io(Interest::READABLE, || receive(socket, &mut self.buffer, overflowed));
            counters.datagrams_overflowed += u64::from(overflowed.wrapping_sub(before));
            match received {
                Ok(Some(datagram)) => return Some(datagram),
                Ok(None) => counters.datagrams_unusable += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    counters.receive_errors += 1;
                    tracing::debug!(%error, "receiving a datagram failed");
                }
            }
        }
        None
    }

    /// Sends a datagram from port 270 without waiting, from `source` if given.
    pub(super) fn send(&self, destination: SocketAddr, source: Option<IpAddr>, payload: &[u8]) -> io::Result<()> {
        let socket = if destination.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let socket = socket.as_ref().ok_or(io::ErrorKind::AddrNotAvailable)?;
        send(socket, destination, source, payload)
    }
}

async fn readable(socket: Option<&UdpSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

fn socket(address: IpAddr) -> Result<UdpSocket, ShellError> {
    let address = SocketAddr::new(address, GIST_PORT);
    open(address).map_err(|source| ShellError::Bind { what: "UDP", address, source })
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
        socket.set_unicast_hops_v6(IP_TTL)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
        socket.set_ttl_v4(IP_TTL)?;
    }
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    path_mtu::ignore(&socket, address.ip())?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// `overflowed` becomes what the kernel has dropped for want of room until this datagram came.
fn receive(socket: &UdpSocket, buffer: &mut [u8], overflowed: &mut u32) -> io::Result<Option<Datagram>> {
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::c_int, u32);
    let mut destination = None;
    let mut ip_ttl = None;
    let mut interface = 0;
    let (length, source) = {
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Ok(None);
        }
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    destination = Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())));
                    interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                    interface = info.ipi6_ifindex;
                }
                ControlMessageOwned::RxqOvfl(dropped) => *overflowed = dropped,
                ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => ip_ttl = u8::try_from(ttl).ok(),
                _ => {}
            }
        }
        (message.bytes, message.address.as_ref().and_then(socket_address))
    };
    let (Some(source), Some(destination), Some(payload)) = (source, destination, buffer.get(..length)) else {
        return Ok(None);
    };
    Ok(Some(Datagram {
        source,
        destination,
        ip_ttl,
        interface,
        // The kernel does not hand over how a datagram to this node was encapsulated; the C-flag says it (G-154).
        query_mode: is_query_mode(payload),
        router_alert: None,
        payload: Bytes::copy_from_slice(payload),
    }))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(IpAddr::V4(address.ip()), address.port()));
    }
    let address = address.as_sockaddr_in6()?;
    Some(SocketAddr::V6(std::net::SocketAddrV6::new(address.ip(), address.port(), 0, address.scope_id())))
}

fn send(socket: &UdpSocket, destination: SocketAddr, source: Option<IpAddr>, payload: &[u8]) -> io::Result<()> {
    let slices = [IoSlice::new(payload)];
    let destination = SockaddrStorage::from(destination);
    let descriptor = socket.as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    match source {
        None => sendmsg(descriptor, &slices, &[], flags, Some(&destination))?,
        Some(IpAddr::V4(source)) => {
            let unspecified = nix::libc::in_addr { s_addr: 0 };
            let chosen = nix::libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) };
            let info = nix::libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: chosen, ipi_addr: unspecified };
            sendmsg(descriptor, &slices, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&destination))?
        }
        Some(IpAddr::V6(source)) => {
            let chosen = nix::libc::in6_addr { s6_addr: source.octets() };
            let info = nix::libc::in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: chosen };
            sendmsg(descriptor, &slices, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&destination))?
        }
    };
    Ok(())
}
