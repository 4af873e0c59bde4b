//! Where segments leave: raw sockets, past the queue that they have come through already.
//!
//! Whoever may not set marks and write IP headers of his own cannot send like that: the rule that lets them pass asks for AH and the mark
//! ([`crate::rules::HostRules::whole`]).

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrStorage, sendmmsg, setsockopt, socket,
    sockopt,
};

use crate::ah::{BATCH, Sealing};

/// Wished size of a socket's buffer, in octets: what a full link's queue holds.
pub(super) const BUFFER: usize = 4 * 1024 * 1024;

/// The sockets, of both IP versions.
#[derive(Debug)]
pub(crate) struct Outlet {
    ipv4: Marked,
    ipv6: Marked,
}

/// A socket and the mark that it has now.
#[derive(Debug)]
struct Marked {
    socket: OwnedFd,
    mark: Option<u32>,
}

/// Memory for what a call is told; it stays in its thread.
pub(crate) struct Room {
    ipv4: MultiHeaders<SockaddrStorage>,
    ipv6: MultiHeaders<SockaddrStorage>,
    pub(super) frames: MultiHeaders<()>,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self {
            ipv4: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(libc::in_pktinfo))),
            ipv6: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(libc::in6_pktinfo))),
            frames: MultiHeaders::preallocate(BATCH, None),
        }
    }
}

impl Outlet {
    /// Opens the sockets in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel refuses: it takes `CAP_NET_RAW`.
    pub(crate) fn open() -> Result<Self, Errno> {
        let open = |family| -> Result<Marked, Errno> {
            let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, SockProtocol::Raw)?;
            // Without privilege the system's maximum has to do.
            let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER).or_else(|_| setsockopt(&socket, sockopt::SndBuf, &BUFFER));
            Ok(Marked { socket, mark: None })
        };
        Ok(Self { ipv4: open(AddressFamily::Inet)?, ipv6: open(AddressFamily::Inet6)? })
    }

    /// Sends packets in their order from one on, between these addresses and with this mark; never waits. Tells each that does not leave, by its
    /// length, and why.
    pub(crate) fn send(
        &mut self,
        (source, destination): (IpAddr, IpAddr),
        mark: u32,
        (packets, first): (&Sealing, usize),
        room: &mut Room,
        failed: &mut dyn FnMut(usize, Errno),
    ) {
        let to = Some(SockaddrStorage::from(SocketAddr::new(destination, 0)));
        // So that routing rules by source find the one that the packets have.
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(_)) => {
                let from = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                self.ipv4.send(mark, to, ControlMessage::Ipv4PacketInfo(&from), (packets, first), &mut room.ipv4, failed);
            }
            (IpAddr::V6(source), IpAddr::V6(_)) => {
                let from = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source.octets() }, ipi6_ifindex: 0 };
                self.ipv6.send(mark, to, ControlMessage::Ipv6PacketInfo(&from), (packets, first), &mut room.ipv6, failed);
            }
            _ => (first..packets.len()).for_each(|at| failed(packets.get(at).unwrap_or_default().len(), Errno::EINVAL)),
        }
    }
}

impl Marked {
    fn send(
        &mut self,
        mark: u32,
        to: Option<SockaddrStorage>,
        from: ControlMessage<'_>,
        (packets, first): (&Sealing, usize),
        room: &mut MultiHeaders<SockaddrStorage>,
        failed: &mut dyn FnMut(usize, Errno),
    ) {
        let len = |at| packets.get(at).unwrap_or_default().len();
        if self.mark != Some(mark) {
            self.mark = None;
            if let Err(errno) = setsockopt(&self.socket, sockopt::Mark, &mark) {
                return (first..packets.len()).for_each(|at| failed(len(at), errno));
            }
            self.mark = Some(mark);
        }
        let (mut at, to, from) = (first, [to; BATCH], [from]);
        while at < packets.len() {
            // What is not sealed has no octets, and a packet without is refused.
            let parts: heapless::Vec<[IoSlice<'_>; 1], BATCH> =
                (at..packets.len()).take(BATCH).map(|at| [IoSlice::new(packets.get(at).unwrap_or_default())]).collect();
            match sendmmsg(self.socket.as_raw_fd(), room, &parts, to.as_slice(), from.as_slice(), MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    failed(len(at), errno);
                    at += 1;
                }
                Ok(sent) => at += sent.count().max(1),
            }
        }
    }
}
