//! Which way packets to a destination leave this node, as the kernel would route one of its own that says nothing else about
//! itself: rules by source, mark or arrival are not asked.

use std::net::IpAddr;

use crate::heard::Heard;
use crate::netlink::{Attribute, Errno, Malformed, Message, NetlinkError, Protocol, Socket, attributes};

const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// Octets of the fixed part of a message about a route.
const FIXED_LEN: usize = 12;

// Attributes of a route (`linux/rtnetlink.h`).
const DESTINATION: u16 = 1;
const OUTPUT_INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const VIA: u16 = 18;

/// A way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// The interface, by the kernel's index.
    pub interface: u32,
    /// The neighbour; `None` if the destination itself is one.
    pub gateway: Option<IpAddr>,
}

/// Asks the kernel about the network namespace in which it was opened.
#[derive(Debug)]
pub struct NextHops {
    socket: Socket,
}

impl NextHops {
    /// Opens a socket to the kernel.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// The way to `destination` now; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The kernel does not answer, or not in a way that can be read.
    pub fn towards(&self, destination: IpAddr) -> Result<Option<NextHop>, NetlinkError> {
        let (family, octets) = match destination {
            IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
            IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
        };
        let prefix = u8::try_from(octets.len().saturating_mul(8)).unwrap_or_default();
        let fixed: [u8; FIXED_LEN] = [family, prefix, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let asked = self.socket.ask("look up a route", GET_ROUTE, &fixed, |writer| writer.put(DESTINATION, &octets), read);
        match asked {
            Err(NetlinkError::Refused { errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL, .. }) => Ok(None),
            other => Ok(other?.flatten()),
        }
    }
}

/// See [`crate::heard`].
pub(crate) fn hear(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&read(message)?))
}

/// The way out that a reply names; none if it leads nowhere.
fn read(message: &Message<'_>) -> Result<Option<NextHop>, Malformed> {
    if message.kind != NEW_ROUTE {
        return Ok(None);
    }
    let find = |kind| attributes(message.after(FIXED_LEN)?).find(kind);
    let gateway = match (find(GATEWAY)?, find(VIA)?) {
        (Some(gateway), _) => Some(address(gateway.value)?),
        // A neighbour of the other family: its family in two octets, then its address.
        (None, Some(via)) => Some(address(via.value.get(2..).unwrap_or_default())?),
        (None, None) => None,
    };
    let interface = find(OUTPUT_INTERFACE)?.map(|interface: Attribute<'_>| interface.u32()).transpose()?;
    Ok(interface.map(|interface| NextHop { interface, gateway }))
}

fn address(octets: &[u8]) -> Result<IpAddr, Malformed> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).map_err(|_| Malformed("route: its gateway is no address"))
}
