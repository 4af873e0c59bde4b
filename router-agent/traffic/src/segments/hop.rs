//! Where segments leave if they are put into frames here: by which link, to which neighbour, as the kernel's own routing has it.
//!
//! Everything is asked of the kernel: the route with the addresses, the mark and the class that the packets have, the neighbour, the link,
//! and whether any IPsec policy stands, of which frames would know nothing. Whatever is not known, or not as simple as that, is left to
//! the raw socket.

use std::net::IpAddr;

use hashbrown::HashMap;
use smoltcp::time::{Duration, Instant};

use crate::heard::Heard;
use crate::netlink::{Attribute, Batch, Malformed, Message, NetlinkError, Protocol, Socket, attributes};
use crate::routing_events::RoutingEvents;

/// How long an answer holds if the kernel tells of no change.
const HOLDS: Duration = Duration::from_secs(1);
/// Ways known at a time.
const MOST: usize = 1024;
/// Octets of an Ethernet header.
pub(super) const ETHERNET_LEN: usize = 14;

// Messages of `linux/rtnetlink.h` and `linux/xfrm.h`, and the length of their fixed parts.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const LINK_LEN: usize = 16;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const ROUTE_LEN: usize = 12;
const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;
const NEIGHBOUR_LEN: usize = 12;
const GET_POLICIES: u16 = 0x25;

// Attributes of a route.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const OUTPUT_INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const METRICS: u16 = 8;
const METRIC_MTU: u16 = 2;
const MULTIPATH: u16 = 9;
const MARK: u16 = 16;
const VIA: u16 = 18;
const NEW_DESTINATION: u16 = 19;
const ENCAPSULATION_KIND: u16 = 21;
const ENCAPSULATION: u16 = 22;
/// A route to somebody else's address (`RTN_UNICAST`).
const UNICAST: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;

// A link: `ARPHRD_ETHER`, and flags of `linux/if.h`: it is up; it is the host itself; its neighbours have no addresses.
const ETHERNET: u16 = 1;
const UP: u32 = 0x1;
const LOOPBACK: u32 = 0x8;
const NO_ADDRESSES: u32 = 0x80;
const LINK_ADDRESS: u16 = 1;
const LINK_MTU: u16 = 4;

// A neighbour, its states (`linux/neighbour.h`), and that its entry is used.
const NEIGHBOUR_DESTINATION: u16 = 1;
const NEIGHBOUR_ADDRESS: u16 = 2;
const STALE: u16 = 0x04;
/// Reachable, stale, delayed, probed, permanent: the kernel sends to it at once.
const KNOWN: u16 = 0x02 | STALE | 0x08 | 0x10 | 0x80;
const USE: u8 = 0x01;

/// How many policies there are: of `struct xfrmu_spdinfo`, those for what goes out.
const POLICY_COUNTS: u16 = 1;
const OUTGOING_AT: usize = 4;

/// What routing looks at in a packet of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Towards {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) mark: u32,
    /// DSCP in its place in the octet (RFC 2474 §3).
    pub(super) class: u8,
}

/// A frame's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hop {
    /// The link, by the kernel's index.
    pub(super) interface: u32,
    /// The longest packet that goes there, in octets.
    pub(super) mtu: usize,
    /// What frames begin with.
    pub(super) header: [u8; ETHERNET_LEN],
}

/// Asks in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Hops {
    socket: Socket,
    /// None if the kernel knows no IPsec.
    policies: Option<Socket>,
    events: RoutingEvents,
    known: HashMap<Towards, (Option<Hop>, Instant)>,
}

impl Hops {
    /// # Errors
    ///
    /// There are no sockets to be had.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let policies = match Socket::open(Protocol::Policies) {
            Err(NetlinkError::Open(nix::errno::Errno::EPROTONOSUPPORT)) => None,
            other => Some(other?),
        };
        Ok(Self {
            socket: Socket::open(Protocol::Route)?,
            policies,
            events: RoutingEvents::listen_with_neighbours()?,
            known: HashMap::new(),
        })
    }

    /// The way of a packet now; `None` if it is for the kernel to find.
    pub(super) fn of(&mut self, towards: &Towards, now: Instant) -> Option<Hop> {
        // What cannot be heard any more may have been anything.
        if self.events.has_changed(None).unwrap_or(true) || self.known.len() >= MOST {
            self.known.clear();
        }
        if let Some((hop, until)) = self.known.get(towards)
            && now < *until
        {
            return *hop;
        }
        let hop = self.ask(towards).unwrap_or_else(|error| {
            tracing::debug!(?towards, %error, "the way of frames is not known");
            None
        });
        self.known.insert(*towards, (hop, now + HOLDS));
        hop
    }

    /// Leaves a packet's way to the kernel for a while.
    pub(super) fn refuse(&mut self, towards: Towards, now: Instant) {
        self.known.insert(towards, (None, now + HOLDS));
    }

    fn ask(&self, towards: &Towards) -> Result<Option<Hop>, NetlinkError> {
        if self.has_policies()? {
            return Ok(None);
        }
        let Some(route) = self.route(towards)? else { return Ok(None) };
        let Some(link) = self.link(route.interface)? else { return Ok(None) };
        let Some(neighbour) = self.neighbour(route.interface, route.gateway.unwrap_or(towards.destination))? else { return Ok(None) };
        let mut header = [0; ETHERNET_LEN];
        let kind: [u8; 2] = if towards.destination.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        header.iter_mut().zip(neighbour.into_iter().chain(link.address).chain(kind)).for_each(|(place, octet)| *place = octet);
        let mtu = route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
        Ok(Some(Hop { interface: route.interface, mtu: usize::try_from(mtu).unwrap_or_default(), header }))
    }

    /// Whether the kernel may have to do with IPsec what leaves.
    fn has_policies(&self) -> Result<bool, NetlinkError> {
        let Some(socket) = &self.policies else { return Ok(false) };
        let count = socket.ask("count IPsec policies", GET_POLICIES, &[0; 4], |_| {}, read_policies)?;
        Ok(count.flatten() != Some(0))
    }

    fn route(&self, towards: &Towards) -> Result<Option<Route>, NetlinkError> {
        let (source, destination) = (octets_of(towards.source), octets_of(towards.destination));
        let len = |octets: &[u8]| u8::try_from(octets.len() * 8).unwrap_or_default();
        let family = family_of(towards.destination);
        let fixed: [u8; ROUTE_LEN] = [family, len(&destination), len(&source), towards.class, 0, 0, 0, 0, 0, 0, 0, 0];
        let fill = |writer: &mut crate::netlink::Writer| {
            writer.put(DESTINATION, &destination);
            writer.put(SOURCE, &source);
            writer.put_u32(MARK, towards.mark);
        };
        // There is none, or it only says no: the raw socket finds out why.
        Ok(known(self.socket.ask("look up a route", GET_ROUTE, &fixed, fill, read_route))?.flatten())
    }

    fn link(&self, index: u32) -> Result<Option<Link>, NetlinkError> {
        let [a, b, c, d] = index.to_ne_bytes();
        let fixed: [u8; LINK_LEN] = [0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0];
        Ok(known(self.socket.ask("look at a link", GET_LINK, &fixed, |_| {}, read_link))?.flatten())
    }

    /// Its hardware address. The kernel is told that the neighbour is in use, as if it had sent to it itself.
    fn neighbour(&self, index: u32, address: IpAddr) -> Result<Option<[u8; 6]>, NetlinkError> {
        let ([a, b, c, d], octets) = (index.to_ne_bytes(), octets_of(address));
        let fixed = |flags| -> [u8; NEIGHBOUR_LEN] { [family_of(address), 0, 0, 0, a, b, c, d, 0, 0, flags, 0] };
        let fill = |writer: &mut crate::netlink::Writer| writer.put(NEIGHBOUR_DESTINATION, &octets);
        let found = known(self.socket.ask("look at a neighbour", GET_NEIGHBOUR, &fixed(0), fill, read_neighbour))?.flatten();
        let Some(Neighbour { state, address }) = found.filter(|neighbour| neighbour.state & KNOWN != 0) else { return Ok(None) };
        if state == STALE {
            let mut batch = Batch::new("use a neighbour");
            batch.request("use a neighbour", NEW_NEIGHBOUR, 0, &fixed(USE), fill);
            self.socket.transact(batch)?;
        }
        Ok(Some(address))
    }
}

/// Nothing, if the kernel says that there is no such thing.
fn known<T>(asked: Result<Option<T>, NetlinkError>) -> Result<Option<T>, NetlinkError> {
    match asked {
        Err(NetlinkError::Refused { .. }) => Ok(None),
        other => other,
    }
}

/// A route as far as frames can follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: u32,
    gateway: Option<IpAddr>,
    mtu: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    address: [u8; 6],
    mtu: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Neighbour {
    state: u16,
    address: [u8; 6],
}

/// See [`crate::heard`].
pub fn hear_route(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&read_route(message)?))
}

/// See [`crate::heard`].
pub fn hear_link(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&read_link(message)?))
}

/// See [`crate::heard`].
pub fn hear_neighbour(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&read_neighbour(message)?))
}

/// See [`crate::heard`].
pub fn hear_policies(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&read_policies(message)?))
}

fn read_route(message: &Message<'_>) -> Result<Option<Route>, Malformed> {
    if message.kind != NEW_ROUTE {
        return Ok(None);
    }
    let [_, _, _, _, _, _, _, kind, ..] = *message.fixed::<ROUTE_LEN>()?;
    let find = |kind| attributes(message.after(ROUTE_LEN)?).find(kind);
    let number = |attribute: Option<Attribute<'_>>| attribute.map(|value| value.u32()).transpose();
    let mut is_plain = kind == UNICAST;
    for attribute in [MULTIPATH, NEW_DESTINATION, ENCAPSULATION_KIND, ENCAPSULATION] {
        is_plain &= find(attribute)?.is_none();
    }
    let gateway = match (find(GATEWAY)?, find(VIA)?) {
        (Some(gateway), _) => Some(address(gateway.value)?),
        // A neighbour of the other family: its family in two octets, then its address.
        (None, Some(via)) => Some(address(via.value.get(2..).unwrap_or_default())?),
        (None, None) => None,
    };
    let mtu = number(find(METRICS)?.map(|metrics| metrics.nested().find(METRIC_MTU)).transpose()?.flatten())?.filter(|mtu| *mtu > 0);
    let interface = number(find(OUTPUT_INTERFACE)?)?;
    Ok(interface.filter(|_| is_plain).map(|interface| Route { interface, gateway, mtu }))
}

fn read_link(message: &Message<'_>) -> Result<Option<Link>, Malformed> {
    if message.kind != NEW_LINK {
        return Ok(None);
    }
    let [_, _, k0, k1, _, _, _, _, f0, f1, f2, f3, ..] = *message.fixed::<LINK_LEN>()?;
    let find = |kind| attributes(message.after(LINK_LEN)?).find(kind);
    let is_usable = u16::from_ne_bytes([k0, k1]) == ETHERNET && u32::from_ne_bytes([f0, f1, f2, f3]) & (UP | LOOPBACK | NO_ADDRESSES) == UP;
    let address = find(LINK_ADDRESS)?.and_then(|address| <[u8; 6]>::try_from(address.value).ok());
    let mtu = find(LINK_MTU)?.map(|mtu| mtu.u32()).transpose()?;
    Ok(address.zip(mtu).filter(|_| is_usable).map(|(address, mtu)| Link { address, mtu }))
}

fn read_neighbour(message: &Message<'_>) -> Result<Option<Neighbour>, Malformed> {
    if message.kind != NEW_NEIGHBOUR {
        return Ok(None);
    }
    let [.., low, high, _, _] = *message.fixed::<NEIGHBOUR_LEN>()?;
    let address = attributes(message.after(NEIGHBOUR_LEN)?).find(NEIGHBOUR_ADDRESS)?;
    let address = address.and_then(|address| <[u8; 6]>::try_from(address.value).ok());
    Ok(address.map(|address| Neighbour { state: u16::from_ne_bytes([low, high]), address }))
}

/// How many policies there are for what leaves.
fn read_policies(message: &Message<'_>) -> Result<Option<u32>, Malformed> {
    let counts = attributes(message.after(4)?).find(POLICY_COUNTS)?;
    Ok(counts.and_then(|counts| counts.value.get(OUTGOING_AT..)?.first_chunk().copied()).map(u32::from_ne_bytes))
}

fn address(octets: &[u8]) -> Result<IpAddr, Malformed> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).map_err(|_| Malformed("route: its gateway is no address"))
}

const fn family_of(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

fn octets_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests;
