//! What a link carries.

use std::collections::BTreeMap;

use crate::netlink::{Attribute, Malformed, Message, NetlinkError, Protocol, Socket, attributes};

use super::route::{IPV4, IPV6, Route};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
/// Octets of the fixed part of a message about a link.
const FIXED_LEN: usize = 16;

// Attributes of a link (`linux/if_link.h`).
const MTU: u16 = 4;
const BY_FAMILY: u16 = 26;
const IPV6_SETTINGS: u16 = 2;
/// Place of the MTU among the settings of a link for IPv6, each of 32 bits (`DEVCONF_MTU6`).
const IPV6_MTU_AT: usize = 2 * 4;

/// The MTUs of all links, by index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Links(BTreeMap<u32, Mtu>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mtu {
    link: u32,
    /// What router advertisements or people have lowered it to for IPv6.
    ipv6: Option<u32>,
}

impl Links {
    pub(super) fn list(socket: &Socket) -> Result<Self, NetlinkError> {
        let links = socket.dump("list the links", GET_LINK, &[0; FIXED_LEN], |_| {}, read)?;
        Ok(Self(links.into_iter().collect()))
    }

    /// MTU of a link for packets of a family.
    pub(super) fn mtu(&self, index: u32, family: u8) -> Option<u32> {
        let mtu = self.0.get(&index)?;
        Some(mtu.ipv6.filter(|_| family == IPV6).map_or(mtu.link, |ipv6| ipv6.min(mtu.link)))
    }

    /// The longest packet that a route carries whichever of its links it takes; `None` if one of them is not known.
    pub(super) fn carried_by(&self, route: &Route) -> Option<u32> {
        let of_links = route.links().iter().map(|index| self.mtu(*index, route.family())).min().flatten()?;
        Some(route.mtu().map_or(of_links, |mtu| mtu.min(of_links)))
    }
}

/// Asks what single links carry, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct LinkMtu(Socket);

impl LinkMtu {
    /// Asks nothing yet.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self(Socket::open(Protocol::Route)?))
    }

    /// The longest packet that a link carries, by the kernel's index, in octets; `None` if there is no such link.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn of(&self, index: u32, is_ipv6: bool) -> Result<Option<u32>, NetlinkError> {
        Ok(Links::list(&self.0)?.mtu(index, if is_ipv6 { IPV6 } else { IPV4 }))
    }
}

/// What is said of a link: its index, and what it carries.
pub(super) fn read(message: &Message<'_>) -> Result<Option<(u32, Mtu)>, Malformed> {
    if message.kind != NEW_LINK {
        return Ok(None);
    }
    let [_, _, _, _, i0, i1, i2, i3, ..] = *message.fixed::<FIXED_LEN>()?;
    let find = |kind| attributes(message.after(FIXED_LEN)?).find(kind);
    let link = find(MTU)?.map(|mtu| mtu.u32()).transpose()?;
    let ipv6 = find(BY_FAMILY)?.map(ipv6_mtu).transpose()?.flatten();
    Ok(link.map(|link| (u32::from_ne_bytes([i0, i1, i2, i3]), Mtu { link, ipv6 })))
}

/// The MTU among what the kernel says of a link in each family; 0 is none.
fn ipv6_mtu(by_family: Attribute<'_>) -> Result<Option<u32>, Malformed> {
    let Some(family) = by_family.nested().find(u16::from(IPV6))? else { return Ok(None) };
    let Some(settings) = family.nested().find(IPV6_SETTINGS)? else { return Ok(None) };
    let field = settings.value.get(IPV6_MTU_AT..).and_then(|rest| rest.first_chunk::<4>());
    Ok(field.map(|octets| u32::from_ne_bytes(*octets)).filter(|mtu| *mtu > 0))
}
