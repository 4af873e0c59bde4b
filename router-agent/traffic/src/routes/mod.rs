//! Room for AH in a host's path MTU.
//!
//! Applications must send packets that still fit the link after AH has been inserted. Lowering the MTU of a route does that,
//! but the kernel then holds the grown packet against the same lowered MTU. So there are two tables: the main one with
//! lowered MTUs, which applications are routed by, and a second one with the same routes as they were, which packets with
//! [`MARK`] are routed by. The verdict that inserts AH sets the mark.
//!
//! The second table is also the memory of what the main one was before: from it [`MtuPlan::restore`] restores, and because of
//! it [`MtuPlan::apply`] may be repeated, and should be whenever routes have changed.
//!
//! Left alone, and named in the [`Outcome`]: routes that the kernel maintains from IPv6 router advertisements, and those whose
//! MTU would become too small. Not touched at all: loopback, link-local and multicast routes, and tables other than main.

mod route;

use std::collections::BTreeMap;

use crate::netlink::{Batch, CREATE, EXCLUSIVE, Errno, NetlinkError, Protocol, REPLACE, Socket, attributes};

use route::{MAIN_TABLE, Route};

/// Mark of packets that carry their AH already.
pub const MARK: u32 = 0x5042_0002;
/// Number of the second table.
pub const TABLE: u32 = 0x5042;

/// IPv6 links carry at least this; the kernel ignores anything smaller (RFC 8200 §5).
const IPV6_MIN_MTU: u32 = 1280;
/// Every IPv4 node accepts datagrams of this size (RFC 791 §3.2).
const IPV4_MIN_MTU: u32 = 576;
/// Where the routing rule stands: right before the main table (32766), so that a user's own rules keep their precedence.
const RULE_PRIORITY: u32 = 32_765;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;

/// How much room AH needs, and by which mark and table packets get their full size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtuPlan {
    /// Mark of packets that carry their AH already.
    pub mark: u32,
    /// Number of the second table.
    pub table: u32,
    /// Octets that AH adds to an IPv4 packet, at the most.
    pub ipv4_overhead: u32,
    /// Octets that AH adds to an IPv6 packet, at the most.
    pub ipv6_overhead: u32,
}

impl MtuPlan {
    /// A plan with [`MARK`] and [`TABLE`].
    pub const fn new(ipv4_overhead: u32, ipv6_overhead: u32) -> Self {
        Self { mark: MARK, table: TABLE, ipv4_overhead, ipv6_overhead }
    }
}

/// What has become of the routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Routes that have their lowered MTU now.
    pub lowered: Vec<Lowered>,
    /// Routes that could not be given one.
    pub left: Vec<Left>,
}

/// A route with a lowered MTU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lowered {
    /// The route, as its destination.
    pub route: String,
    /// Its MTU in octets now.
    pub mtu: u32,
}

/// A route that is as it was: packets of full size on it do not get through with AH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The route, as its destination.
    pub route: String,
    /// Why.
    pub why: Why,
}

/// Why a route could not be given a lowered MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The kernel replaces it with every router advertisement.
    #[error("it comes from router advertisements")]
    Advertised,
    /// What would be left is less than the protocol allows.
    #[error("an MTU of {0} octets leaves no room for AH")]
    TooSmall(u32),
    /// Its link has no MTU.
    #[error("its link is not known")]
    NoLink,
}

/// A protocol family with what differs between the two.
#[derive(Debug, Clone, Copy)]
struct Family {
    number: u8,
    min_mtu: u32,
    overhead: u32,
}

impl MtuPlan {
    /// Lowers the MTU of the main table's routes and keeps them as they were in the second table.
    pub fn apply(&self) -> Result<Outcome, NetlinkError> {
        let socket = Socket::open(Protocol::Route)?;
        let links = link_mtus(&socket)?;
        let mut outcome = Outcome::default();
        for family in self.families() {
            let main = Route::list(&socket, family.number, MAIN_TABLE)?;
            let marked = Route::list(&socket, family.number, self.table)?;
            let mut keep = Vec::new();
            let mut lower = Vec::new();
            for route in main.into_iter().filter(Route::may_carry_traffic) {
                let original = marked.iter().find(|kept| kept.is_same(&route)).map_or_else(|| route.mtu(), Route::mtu);
                match lowered_mtu(&route, original, family, &links) {
                    Ok(mtu) => {
                        outcome.lowered.push(Lowered { route: route.to_string(), mtu });
                        keep.push(route.with_mtu(original).in_table(self.table));
                        lower.push(route.with_mtu(Some(mtu)));
                    }
                    Err(why) => outcome.left.push(Left { route: route.to_string(), why }),
                }
            }
            // The way for grown packets first, then the smaller size; routes that are no more go last.
            socket.transact(put("keep", &keep))?;
            self.add_rule(&socket, family)?;
            socket.transact(put("lower the MTU of", &lower))?;
            let gone: Vec<_> = marked.into_iter().filter(|kept| !keep.iter().any(|route| route.is_same(kept))).collect();
            socket.transact(delete(&gone))?;
        }
        Ok(outcome)
    }

    /// Gives the main table's routes their MTUs back and removes the second table with its rule.
    pub fn restore(&self) -> Result<(), NetlinkError> {
        let socket = Socket::open(Protocol::Route)?;
        for family in self.families() {
            let main = Route::list(&socket, family.number, MAIN_TABLE)?;
            let marked = Route::list(&socket, family.number, self.table)?;
            let restored: Vec<_> =
                main.iter().filter_map(|route| Some(route.with_mtu(marked.iter().find(|kept| kept.is_same(route))?.mtu()))).collect();
            socket.transact(put("restore", &restored))?;
            self.remove_rule(&socket, family)?;
            socket.transact(delete(&marked))?;
        }
        Ok(())
    }

    const fn families(&self) -> [Family; 2] {
        [
            Family { number: route::IPV4, min_mtu: IPV4_MIN_MTU, overhead: self.ipv4_overhead },
            Family { number: route::IPV6, min_mtu: IPV6_MIN_MTU, overhead: self.ipv6_overhead },
        ]
    }

    fn add_rule(&self, socket: &Socket, family: Family) -> Result<(), NetlinkError> {
        match socket.transact(self.rule("add the routing rule", family, NEW_RULE, CREATE | EXCLUSIVE)) {
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    fn remove_rule(&self, socket: &Socket, family: Family) -> Result<(), NetlinkError> {
        match socket.transact(self.rule("remove the routing rule", family, DELETE_RULE, 0)) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    fn rule(&self, name: &str, family: Family, kind: u16, flags: u16) -> Batch {
        const PRIORITY: u16 = 6;
        const FIREWALL_MARK: u16 = 10;
        const TABLE: u16 = 15;
        const FIREWALL_MASK: u16 = 16;
        const TO_TABLE: u8 = 1;
        let fixed = [family.number, 0, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0];
        let mut batch = Batch::new(name);
        batch.request(format!("{name} for mark {:#x}", self.mark), kind, flags, &fixed, |writer| {
            writer.put_u32(PRIORITY, RULE_PRIORITY);
            writer.put_u32(FIREWALL_MARK, self.mark);
            writer.put_u32(FIREWALL_MASK, u32::MAX);
            writer.put_u32(TABLE, self.table);
        });
        batch
    }
}

fn lowered_mtu(route: &Route, original: Option<u32>, family: Family, links: &BTreeMap<u32, u32>) -> Result<u32, Why> {
    if route.is_advertised() {
        return Err(Why::Advertised);
    }
    let of_links = route.links().iter().map(|index| links.get(index).copied()).min().flatten().ok_or(Why::NoLink)?;
    let full = original.map_or(of_links, |mtu| mtu.min(of_links));
    full.checked_sub(family.overhead).filter(|mtu| *mtu >= family.min_mtu).ok_or(Why::TooSmall(full))
}

/// MTU of every link by its index.
fn link_mtus(socket: &Socket) -> Result<BTreeMap<u32, u32>, NetlinkError> {
    const MTU: u16 = 4;
    let links = socket.dump(
        "list the links",
        GET_LINK,
        &[0; 16],
        |_| {},
        |message| {
            if message.kind != NEW_LINK {
                return Ok(None);
            }
            let [_, _, _, _, i0, i1, i2, i3, ..] = *message.fixed::<16>()?;
            let mtu = attributes(message.after(16)?).find(MTU)?.map(|mtu| mtu.u32()).transpose()?;
            Ok(mtu.map(|mtu| (u32::from_ne_bytes([i0, i1, i2, i3]), mtu)))
        },
    )?;
    Ok(links.into_iter().collect())
}

fn put(what: &str, routes: &[Route]) -> Batch {
    let mut batch = Batch::new(format!("{what} routes"));
    for route in routes {
        let name = format!("{what} route {route} in table {}", route.table());
        batch.request(name, route::NEW_ROUTE, CREATE | REPLACE, &route.fixed(), |writer| route.write(writer));
    }
    batch
}

fn delete(routes: &[Route]) -> Batch {
    let mut batch = Batch::new("remove routes");
    for route in routes {
        let name = format!("remove route {route} from table {}", route.table());
        batch.request(name, route::DELETE_ROUTE, 0, &route.fixed(), |writer| route.write(writer));
    }
    batch
}
