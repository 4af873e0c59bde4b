//! The way over a relay: a device into which its packets are routed, and who packs them and sends them to the relay (X-99, P-189).
//!
//! ```text
//! packet with AH, or signalling,         packed as       raw socket, without bits: as any packet of this host it
//! with the way's bits ──> the device ──> protocol 4 ───> asks for a permission of its own, gets AH and counts
//!                                        or 41
//! ```
//!
//! The packet inside keeps everything, its hop limit too. It is of the relay's IP version, and goes from the address that it has
//! itself: the relay lets pass only what comes from the very sender that it has admitted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use smoltcp::phy::{Device, Medium, RxToken, TunTapInterface, wait};
use smoltcp::time::Instant;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::counters::{Count, Pair};
use crate::netlink::{self, Batch, NetlinkError};
use crate::packet::IpPacket;
use crate::reason::reasons;
use crate::tunnel::{Ends, IPV4_INSIDE, IPV6_INSIDE, PackError, pack};

/// Hop limit of the packets around (RFC 1700, the present default of IPv4 and IPv6).
const HOP_LIMIT: u8 = 64;
/// Packets taken out of the device before others have their turn; the kernel keeps 500 meanwhile and drops the rest.
const AT_ONCE: usize = 64;
/// `select` knows no descriptor beyond.
const MOST_DESCRIPTOR: i32 = 1023;

const NEW_LINK: u16 = 16;
const LINK_LEN: usize = 16;
/// Flag of a link: administratively up.
const UP: u32 = 1;
// Attributes of a link (`linux/if_link.h`).
const MTU: u16 = 4;
const BY_FAMILY: u16 = 26;
const IPV6: u16 = 10;
const ADDRESS_GENERATION: u16 = 8;
/// No link-local address, and so nothing that asks who else has it.
const NO_ADDRESS: u8 = 1;

reasons! {
/// Why a packet does not get into a tunnel, or out of this host in it.
PackDrop {
    /// It is no well-formed IP packet.
    MalformedToPack = "malformed_to_pack",
    /// It is for the relay itself, for no single node, or of the other IP version: nothing of a flow.
    NotForRelay = "not_for_relay",
    /// With the header around it would be longer than a packet can be.
    PackedTooLong = "packed_too_long",
    /// With the header around it is longer than the link carries.
    PackedTooBig = "packed_too_big",
    /// There is no route to the relay.
    NoRouteToRelay = "no_route_to_relay",
    /// The link's queue or the socket's had no room.
    LinkBusyToRelay = "link_busy_to_relay",
    /// The kernel did not take it for another reason, which is in the log.
    NotSentToRelay = "not_sent_to_relay",
}
}

/// What has gone into a tunnel, shared with whoever shows it.
#[derive(Debug, Default)]
pub struct PackCounters {
    packed: Pair,
    dropped: [Pair; PackDrop::ALL.len()],
}

impl PackCounters {
    /// Packets handed to the kernel in another one so far; bytes without that.
    pub fn packed(&self) -> Count {
        self.packed.read()
    }

    /// What was dropped for `reason` so far.
    pub fn dropped(&self, reason: PackDrop) -> Count {
        self.dropped.get(reason.index()).map(Pair::read).unwrap_or_default()
    }
}

/// Why there is no way over a relay.
#[derive(Debug, thiserror::Error)]
pub enum PackerError {
    /// The device cannot be had: it takes `CAP_NET_ADMIN` and `/dev/net/tun`.
    #[error("the device {0} (it takes /dev/net/tun): {1}")]
    Device(String, io::Error),
    /// The socket cannot be had: it takes `CAP_NET_RAW`.
    #[error("a raw socket for what goes to the relay: {0}")]
    Socket(io::Error),
    /// The device cannot be set up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Packs what is routed into its device. It stays in the thread in which it was opened.
#[derive(Debug)]
pub struct Packer {
    device: TunTapInterface,
    link: u32,
    relay: IpAddr,
    socket: Socket,
    is_connected: bool,
    counters: Arc<PackCounters>,
    packed: Vec<u8>,
}

impl Packer {
    /// Makes a device that is there as long as this process, in the network namespace of the calling thread, and sets it up.
    ///
    /// # Errors
    ///
    /// See [`PackerError`].
    pub fn open(device: &str, relay: IpAddr, counters: Arc<PackCounters>) -> Result<Self, PackerError> {
        let refused = |error: io::Error| PackerError::Device(device.to_owned(), error);
        let made = TunTapInterface::new(device, Medium::Ip).map_err(refused)?;
        if made.as_raw_fd() > MOST_DESCRIPTOR {
            return Err(refused(Errno::EMFILE.into()));
        }
        let link = nix::net::if_::if_nametoindex(device).map_err(|errno| refused(errno.into()))?;
        netlink::Socket::open(netlink::Protocol::Route)?.transact(set_up(link))?;
        let socket = raw(relay).map_err(PackerError::Socket)?;
        Ok(Self { device: made, link, relay, socket, is_connected: false, counters, packed: Vec::new() })
    }

    /// The kernel's index of the device.
    pub const fn link(&self) -> u32 {
        self.link
    }

    /// Packs and sends until the device is gone; answers why.
    pub fn run(mut self) -> io::Error {
        loop {
            if let Err(error) = wait(self.device.as_raw_fd(), None) {
                return error;
            }
            for _ in 0..AT_ONCE {
                let Some(packet) = self.device.receive(Instant::ZERO).map(|(token, _)| token.consume(<[u8]>::to_vec)) else { break };
                match self.take(&packet) {
                    Ok(()) => self.counters.packed.add(packet.len()),
                    Err(reason) => {
                        tracing::trace!(relay = %self.relay, %reason, "not sent over the relay");
                        if let Some(pair) = self.counters.dropped.get(reason.index()) {
                            pair.add(packet.len());
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, inner: &[u8]) -> Result<(), PackDrop> {
        let packet = IpPacket::parse(inner).map_err(|_| PackDrop::MalformedToPack)?;
        let ends = Ends { source: packet.source(), destination: self.relay };
        if packet.destination() == self.relay || packet.source().is_ipv4() != self.relay.is_ipv4() || is_of_many(packet.destination()) {
            return Err(PackDrop::NotForRelay);
        }
        pack(inner, &ends, HOP_LIMIT, &mut self.packed).map_err(|error| match error {
            PackError::Malformed(_) => PackDrop::MalformedToPack,
            PackError::MixedVersions => PackDrop::NotForRelay,
            PackError::TooLong => PackDrop::PackedTooLong,
        })?;
        self.send().map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMSGSIZE) => PackDrop::PackedTooBig,
            Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL) => PackDrop::NoRouteToRelay,
            Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => PackDrop::LinkBusyToRelay,
            _ => {
                tracing::debug!(relay = %self.relay, %error, "the kernel does not take a packet for the relay");
                PackDrop::NotSentToRelay
            }
        })
    }

    fn send(&mut self) -> io::Result<()> {
        // When the daemon starts there may be no route to the relay yet.
        if !self.is_connected {
            self.socket.connect(&SockAddr::from(SocketAddr::new(self.relay, 0)))?;
            self.is_connected = true;
        }
        self.socket.send(&self.packed).map(drop)
    }
}

/// Has a device carry packets of so many octets.
///
/// # Errors
///
/// The kernel refuses.
pub fn set_mtu(link: u32, mtu: u32) -> Result<(), NetlinkError> {
    let mut batch = Batch::new("set up a way over a relay");
    batch.request(format!("set the MTU of link {link} to {mtu}"), NEW_LINK, 0, &of_link(link, false), |writer| writer.put_u32(MTU, mtu));
    netlink::Socket::open(netlink::Protocol::Route)?.transact(batch)
}

fn set_up(link: u32) -> Batch {
    let mut batch = Batch::new("set up a way over a relay");
    batch.request(format!("give link {link} no address"), NEW_LINK, 0, &of_link(link, false), |writer| {
        writer.nest(BY_FAMILY, |families| families.nest(IPV6, |ipv6| ipv6.put_u8(ADDRESS_GENERATION, NO_ADDRESS)));
    });
    batch.request(format!("set link {link} up"), NEW_LINK, 0, &of_link(link, true), |_| {});
    batch
}

fn of_link(link: u32, up: bool) -> [u8; LINK_LEN] {
    let [i0, i1, i2, i3] = link.to_ne_bytes();
    let [f0, f1, f2, f3] = if up { UP.to_ne_bytes() } else { [0; 4] };
    [0, 0, 0, 0, i0, i1, i2, i3, f0, f1, f2, f3, f0, f1, f2, f3]
}

/// A socket of the tunnel's own protocol: by that the kernel knows whom to tell that the path to the relay is narrower, once it is
/// connected. What comes of this protocol is never read: it stays in the smallest buffer that there is, and is dropped.
fn raw(relay: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = if relay.is_ipv4() { (Domain::IPV4, IPV4_INSIDE) } else { (Domain::IPV6, IPV6_INSIDE) };
    let socket = Socket::new_raw(domain, Type::RAW.nonblocking(), Some(Protocol::from(i32::from(protocol))))?;
    match relay {
        IpAddr::V4(_) => socket.set_header_included_v4(true)?,
        IpAddr::V6(_) => socket.set_header_included_v6(true)?,
    }
    socket.set_recv_buffer_size(0)?;
    Ok(socket)
}

fn is_of_many(address: IpAddr) -> bool {
    address.is_multicast()
        || address.is_unspecified()
        || match address {
            IpAddr::V4(address) => address == Ipv4Addr::BROADCAST || address.is_link_local(),
            IpAddr::V6(address) => address == Ipv6Addr::LOCALHOST || address.is_unicast_link_local(),
        }
}
