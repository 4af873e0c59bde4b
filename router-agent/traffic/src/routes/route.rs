//! A route as the kernel lists it, with all its attributes, so that it can be put back with one of them changed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::heard::Heard;
use crate::netlink::{Attribute, Header, Malformed, Message, NetlinkError, Socket, Writer, attributes, messages};

pub(super) const NEW_ROUTE: u16 = 24;
pub(super) const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;

pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
pub(super) const MAIN_TABLE: u32 = 254;

/// Who has made the routes of narrow paths, likewise.
const PATH_PROTOCOL: u8 = 82;
/// Length of a whole IPv6 address in bits.
const HOST: u8 = 128;

/// Who has made the shadows of advertised routes, among the kernel's numbers for protocols (none of the known ones).
pub(super) const OWN_PROTOCOL: u8 = 80;

// Attributes of a route (`linux/rtnetlink.h`).
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const OUTPUT_INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const PREFERRED_SOURCE: u16 = 7;
const METRICS: u16 = 8;
const MULTIPATH: u16 = 9;
const CACHE_INFO: u16 = 12;
const TABLE: u16 = 15;
const VIA: u16 = 18;
const PREFERENCE: u16 = 20;
const EXPIRES: u16 = 23;
const NEXT_HOP_ID: u16 = 30;

// Metrics of a route.
const LOCKED: u16 = 1;
const MTU: u16 = 2;
/// The bit of [`LOCKED`] that forbids path MTU discovery.
const MTU_LOCKED: u32 = 1 << MTU;

const UNICAST: u8 = 1;
const FROM_ROUTER_ADVERTISEMENT: u8 = 9;
/// The route is a cached copy of another.
const CLONED: u32 = 0x200;
/// The gateway counts as on the link. The only flag that may be given; the others report states.
const ON_LINK: u8 = 4;
/// The loopback interface is the first of every network namespace.
const LOOPBACK: u32 = 1;
const FIXED_LEN: usize = 12;
/// Seconds by which two routes' ends may differ that are meant to be the same.
const EXPIRY_TOLERANCE: u32 = 10;

/// A route of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    family: u8,
    prefix: u8,
    source_prefix: u8,
    tos: u8,
    table: u32,
    protocol: u8,
    scope: u8,
    kind: u8,
    on_link: bool,
    /// Seconds until the kernel removes it, if it does.
    expires: Option<u32>,
    mtu: Option<u32>,
    /// Which metrics are locked, a bit for each.
    locked: u32,
    /// The other metrics.
    metrics: Vec<(u16, Vec<u8>)>,
    /// Every attribute but table, metrics and reports of the kernel.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// What routes of one table share that the kernel tells apart by their next hops alone, if at all.
pub(super) type Place = (Vec<u8>, u8, Vec<u8>, u8, u8, u32);

impl Route {
    /// The routes of a table.
    pub(super) fn list(socket: &Socket, family: u8, table: u32) -> Result<Vec<Self>, NetlinkError> {
        let mut fixed = [0; FIXED_LEN];
        if let Some(field) = fixed.first_mut() {
            *field = family;
        }
        let routes = socket.dump(
            "list the routes",
            GET_ROUTE,
            &fixed,
            |_| {},
            |message| {
                if message.kind == NEW_ROUTE { Self::read(message) } else { Ok(None) }
            },
        )?;
        Ok(routes.into_iter().filter(|route| route.family == family && route.table == table).collect())
    }

    fn read(message: &Message<'_>) -> Result<Option<Self>, Malformed> {
        let [family, prefix, source_prefix, tos, table, protocol, scope, kind, f0, f1, f2, f3] = *message.fixed::<FIXED_LEN>()?;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        if flags & CLONED != 0 {
            return Ok(None);
        }
        let on_link = flags & u32::from(ON_LINK) != 0;
        let mut route = Self {
            family,
            prefix,
            source_prefix,
            tos,
            table: u32::from(table),
            protocol,
            scope,
            kind,
            on_link,
            expires: None,
            mtu: None,
            locked: 0,
            metrics: Vec::new(),
            attributes: Vec::new(),
        };
        for attribute in attributes(message.after(FIXED_LEN)?) {
            let attribute = attribute?;
            match attribute.kind {
                TABLE => route.table = attribute.u32()?,
                METRICS => route.read_metrics(&attribute)?,
                CACHE_INFO => route.expires = expiry(attribute.value),
                MULTIPATH => route.attributes.push((MULTIPATH, without_states(attribute.value)?)),
                kind => route.attributes.push((kind, attribute.value.to_vec())),
            }
        }
        Ok(Some(route))
    }

    /// See [`crate::heard`]. Expiry is told in one way and asked for in another, and what stands in an object has no place beside that.
    pub(super) fn hear(message: &Message<'_>) -> Result<Heard, Malformed> {
        let read = if message.kind == NEW_ROUTE { Self::read(message)? } else { None };
        let Some(route) = read.map(|route| Self { expires: None, ..route }) else { return Ok(Heard::Nothing) };
        let mut writer = Writer::default();
        writer.message(Header { kind: NEW_ROUTE, flags: 0, sequence: 0 }, &route.fixed(), |writer| route.write(writer));
        let octets = writer.finish().unwrap_or_default();
        let again = messages(&octets).next().transpose()?.map(|message| Self::read(&message)).transpose()?.flatten();
        let is_same = again == Some(route.clone()) || octets.is_empty() || route.find(NEXT_HOP_ID).is_some();
        Ok(if is_same { Heard::Kept } else { Heard::Altered })
    }

    fn read_metrics(&mut self, attribute: &Attribute<'_>) -> Result<(), Malformed> {
        for metric in attribute.nested() {
            let metric = metric?;
            match metric.kind {
                MTU => self.mtu = Some(metric.u32()?),
                LOCKED => self.locked = metric.u32()?,
                kind => self.metrics.push((kind, metric.value.to_vec())),
            }
        }
        Ok(())
    }

    /// The fixed part of a message about the route.
    pub(super) const fn fixed(&self) -> [u8; FIXED_LEN] {
        let [f0, f1, f2, f3] = if self.on_link { (ON_LINK as u32).to_ne_bytes() } else { [0; 4] };
        // The table has an attribute, since its number may be longer than one octet.
        [self.family, self.prefix, self.source_prefix, self.tos, 0, self.protocol, self.scope, self.kind, f0, f1, f2, f3]
    }

    /// The attributes of a message about the route.
    pub(super) fn write(&self, writer: &mut Writer) {
        let by_id = self.find(NEXT_HOP_ID).is_some();
        writer.put_u32(TABLE, self.table);
        for (kind, value) in &self.attributes {
            // A route with a next hop object lists what the object says, too; it must not be given twice.
            if !(by_id && matches!(*kind, OUTPUT_INTERFACE | GATEWAY | MULTIPATH | VIA)) {
                writer.put(*kind, value);
            }
        }
        if let Some(expires) = self.expires {
            writer.put_u32(EXPIRES, expires);
        }
        if self.mtu.is_some() || self.locked != 0 || !self.metrics.is_empty() {
            writer.nest(METRICS, |metrics| {
                if self.locked != 0 {
                    metrics.put_u32(LOCKED, self.locked);
                }
                for (kind, value) in &self.metrics {
                    metrics.put(*kind, value);
                }
                if let Some(mtu) = self.mtu {
                    metrics.put_u32(MTU, mtu);
                }
            });
        }
    }

    pub(super) const fn table(&self) -> u32 {
        self.table
    }

    /// The MTU set on the route, `None` if that of the link holds.
    pub(super) const fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    /// The same route with a lowered MTU, open to path MTU discovery: with a locked MTU the kernel would send every packet in
    /// two fragments.
    pub(super) fn lowered(&self, mtu: u32) -> Self {
        Self { mtu: Some(mtu), locked: self.locked & !MTU_LOCKED, ..self.clone() }
    }

    /// The same route with the MTU that another one has, locked or not.
    pub(super) fn with_mtu_of(&self, other: &Self) -> Self {
        Self { mtu: other.mtu, locked: self.locked & !MTU_LOCKED | other.locked & MTU_LOCKED, ..self.clone() }
    }

    /// A copy for another table. It does not expire: it goes when its model has gone.
    pub(super) fn in_table(&self, table: u32) -> Self {
        Self { table, expires: None, ..self.clone() }
    }

    /// A route of [`OWN_PROTOCOL`] to the same place with another metric.
    pub(super) fn shadow(&self, metric: u32) -> Self {
        let mut shadow = Self { protocol: OWN_PROTOCOL, ..self.clone() };
        match shadow.attributes.iter_mut().find(|(kind, _)| *kind == PRIORITY) {
            Some((_, value)) => *value = metric.to_ne_bytes().to_vec(),
            None => shadow.attributes.push((PRIORITY, metric.to_ne_bytes().to_vec())),
        }
        shadow
    }

    /// A route to one IPv6 destination by the way of this one, which is preferred to it, with an MTU of its own, for so many seconds.
    /// `None` if there is none better.
    pub(super) fn path_to(&self, destination: Ipv6Addr, mtu: u32, expires: u32) -> Option<Self> {
        let metric = self.metric().checked_sub(1).filter(|metric| *metric > 0)?;
        let mut path = self.shadow(metric);
        path.attributes.retain(|(kind, _)| *kind != DESTINATION);
        path.attributes.push((DESTINATION, destination.octets().to_vec()));
        let mtu = self.mtu.map_or(mtu, |own| own.min(mtu));
        Some(Self { prefix: HOST, protocol: PATH_PROTOCOL, mtu: Some(mtu), expires: Some(expires), ..path })
    }

    /// Whether it is that of a narrow path.
    pub(super) const fn is_path(&self) -> bool {
        self.family == IPV6 && self.protocol == PATH_PROTOCOL
    }

    /// Whether packets to an IPv6 destination can take it.
    pub(super) fn leads_to(&self, destination: Ipv6Addr) -> bool {
        let IpAddr::V6(own) = self.destination() else { return false };
        let mask = u128::MAX.checked_shl(u32::from(HOST.saturating_sub(self.prefix))).unwrap_or(0);
        self.family == IPV6 && u128::from(own) & mask == u128::from(destination) & mask
    }

    /// Whether packets take it only from some sources.
    pub(super) const fn depends_on_source(&self) -> bool {
        self.source_prefix > 0
    }

    /// Length of its prefix in bits.
    pub(super) const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether both go by the same next hops.
    pub(super) fn goes_like(&self, other: &Self) -> bool {
        let hops = [PREFERRED_SOURCE, OUTPUT_INTERFACE, GATEWAY, MULTIPATH, VIA, NEXT_HOP_ID];
        hops.iter().all(|kind| self.find(*kind) == other.find(*kind))
    }

    /// Whether it is the same route, in whichever table and with whichever MTU.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let key = |route: &Self| (route.family, route.prefix, route.source_prefix, route.tos, route.kind);
        let hops = [DESTINATION, SOURCE, PRIORITY, PREFERRED_SOURCE, OUTPUT_INTERFACE, GATEWAY, MULTIPATH, VIA, NEXT_HOP_ID];
        key(self) == key(other) && hops.iter().all(|kind| self.find(*kind) == other.find(*kind))
    }

    /// Whether both say the same of the same table, and end at the same time as far as that can be told.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let at_once = match (self.expires, other.expires) {
            (None, None) => true,
            (Some(one), Some(other)) => one.abs_diff(other) <= EXPIRY_TOLERANCE,
            _ => false,
        };
        at_once && *self == Self { expires: self.expires, ..other.clone() }
    }

    /// Destination, source, service and metric.
    pub(super) fn place(&self) -> Place {
        let octets = |kind| self.find(kind).unwrap_or_default().to_vec();
        (octets(DESTINATION), self.prefix, octets(SOURCE), self.source_prefix, self.tos, self.metric())
    }

    pub(super) fn metric(&self) -> u32 {
        self.find(PRIORITY).and_then(|value| <[u8; 4]>::try_from(value).ok()).map_or(0, u32::from_ne_bytes)
    }

    /// What a router says of itself (RFC 4191 §2.1), the best first.
    pub(super) fn preference(&self) -> u8 {
        match self.find(PREFERENCE) {
            Some([1]) => 0,
            Some([3]) => 2,
            _ => 1,
        }
    }

    pub(super) const fn family(&self) -> u8 {
        self.family
    }

    /// Whether it is the shadow of an advertised route.
    pub(super) const fn is_shadow(&self) -> bool {
        self.protocol == OWN_PROTOCOL
    }

    /// Whether the route leads anywhere that permissions are about: not to this host, this link's neighbours in person, groups.
    pub(super) fn may_carry_traffic(&self) -> bool {
        let special = match self.destination() {
            IpAddr::V4(address) => self.prefix > 0 && address.is_multicast(),
            IpAddr::V6(address) => self.prefix > 0 && (address.is_multicast() || address.is_unicast_link_local()),
        };
        self.kind == UNICAST && !special && self.links() != [LOOPBACK]
    }

    /// Whether the kernel maintains it from router advertisements.
    pub(super) const fn is_advertised(&self) -> bool {
        self.family == IPV6 && self.protocol == FROM_ROUTER_ADVERTISEMENT
    }

    /// Indexes of the links that it leaves by.
    pub(super) fn links(&self) -> Vec<u32> {
        if let Some(index) = self.find(OUTPUT_INTERFACE).and_then(|value| <[u8; 4]>::try_from(value).ok()) {
            return vec![u32::from_ne_bytes(index)];
        }
        let mut links = Vec::new();
        let mut rest = self.find(MULTIPATH).unwrap_or_default();
        while let Some(([_, _, _, _, i0, i1, i2, i3], next)) = next_hop(rest) {
            links.push(u32::from_ne_bytes([*i0, *i1, *i2, *i3]));
            rest = next;
        }
        links
    }

    pub(super) fn destination(&self) -> IpAddr {
        let octets = self.find(DESTINATION).unwrap_or_default();
        if self.family == IPV4 {
            <[u8; 4]>::try_from(octets).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from).into()
        } else {
            <[u8; 16]>::try_from(octets).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from).into()
        }
    }

    fn find(&self, kind: u16) -> Option<&[u8]> {
        self.attributes.iter().find(|(found, _)| *found == kind).map(|(_, value)| value.as_slice())
    }
}

/// Seconds until a route ends, from what the kernel reports: hundredths of a second, 0 for never, negative if it is due.
fn expiry(cache_info: &[u8]) -> Option<u32> {
    const HUNDREDTHS: u32 = 100;
    let hundredths = i32::from_ne_bytes(*cache_info.get(8..)?.first_chunk::<4>()?);
    (hundredths != 0).then(|| u32::try_from(hundredths).unwrap_or(1).div_ceil(HUNDREDTHS))
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.destination(), self.prefix)
    }
}

/// Takes the first of several next hops: length, flags, weight, interface, attributes.
fn next_hop(octets: &[u8]) -> Option<(&[u8; 8], &[u8])> {
    let head = octets.first_chunk::<8>()?;
    let [l0, l1, ..] = *head;
    let len = usize::from(u16::from_ne_bytes([l0, l1]));
    (len >= 8).then_some(())?;
    Some((head, octets.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

/// Several next hops without the flags that report states, which the kernel does not take back.
fn without_states(octets: &[u8]) -> Result<Vec<u8>, Malformed> {
    const FLAGS_AT: usize = 2;
    let mut kept = octets.to_vec();
    let mut rest = octets;
    while !rest.is_empty() {
        let at = octets.len().saturating_sub(rest.len()).saturating_add(FLAGS_AT);
        let (_, next) = next_hop(rest).ok_or(Malformed("route: next hops"))?;
        if let Some(flags) = kept.get_mut(at) {
            *flags &= ON_LINK;
        }
        rest = next;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_next_hops_are_taken_out_and_their_links_read() {
        let hop = |flags: u8, index: u32| [&[8, 0, flags, 0][..], &index.to_ne_bytes()].concat();
        let both = [hop(0x10 | ON_LINK, 3), hop(1, 4)].concat();
        let cleaned = without_states(&both).unwrap();
        assert_eq!(cleaned, [hop(ON_LINK, 3), hop(0, 4)].concat());
        assert!(without_states(&[3, 0, 0, 0]).is_err());
    }
}
