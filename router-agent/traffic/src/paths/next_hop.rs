//! Rule and table of a way by another next hop.

use std::net::{IpAddr, Ipv6Addr};

use crate::netlink::{Batch, CREATE, EXCLUSIVE, Errno, Malformed, Message, NetlinkError, Protocol, REPLACE, Socket, attributes};

use super::{PATHS, PROTOCOL, table};
use crate::routes::NarrowPaths;

const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const FIXED_LEN: usize = 12;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const FAMILIES: [u8; 2] = [IPV4, IPV6];

// Attributes of a route and of a rule (`linux/rtnetlink.h`, `linux/fib_rules.h`).
const OUTPUT_INTERFACE: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
const FIREWALL_MARK: u16 = 10;
const TABLE: u16 = 15;
const FIREWALL_MASK: u16 = 16;
const RULE_PROTOCOL: u16 = 21;

// A link, and in it a setting for IPv4 (`linux/if_link.h`, `linux/ip.h`: `IPV4_DEVCONF_SRC_VMARK`).
const NEW_LINK: u16 = 16;
const BY_FAMILY: u16 = 26;
const IPV4_SETTINGS: u16 = 1;
const SOURCE_BY_MARK: u16 = 24;

const TO_TABLE: u8 = 1;
const UNICAST: u8 = 1;
/// The scope of routes over a gateway, and of those straight to the link (`RT_SCOPE_UNIVERSE`, `RT_SCOPE_LINK`).
const UNIVERSE: u8 = 0;
const LINK: u8 = 253;

/// Where packets of a way go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// Number of the way, 1 to [`PATHS`].
    pub path: u8,
    /// Index of the link.
    pub link: u32,
    /// The neighbour on it; without one, everybody is on the link, as on a link with two ends, of either IP version.
    pub via: Option<IpAddr>,
}

impl NextHop {
    fn families(&self) -> impl Iterator<Item = u8> {
        let via = self.via;
        FAMILIES.into_iter().filter(move |family| via.is_none_or(|via| via.is_ipv4() == (*family == 2)))
    }
}

/// Sets up ways in the network namespace in which it was opened.
#[derive(Debug)]
pub struct NextHops {
    socket: Socket,
    mask: u32,
}

impl NextHops {
    /// Changes nothing yet. `mask` names the bits of the mark that hold the number of a way.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub fn open(mask: u32) -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Route)?, mask })
    }

    /// Has packets with the way's bits go by it. To do so twice does no harm.
    ///
    /// What comes back by an IPv4 link is judged by its bits from then on too (`src_valid_mark`): else a strict reverse path filter
    /// (RFC 3704 §2.2) drops it, since routing leads elsewhere. The setting means nothing to packets without bits, and stays.
    ///
    /// # Errors
    ///
    /// The kernel refuses it: the link is down, or the neighbour not on it. Then nothing leads there.
    pub fn set_up(&self, hop: NextHop) -> Result<(), NetlinkError> {
        if hop.families().any(|family| family == IPV4) {
            self.socket.transact(believe_marks(hop.link))?;
        }
        hop.families().try_for_each(|family| self.lead(hop, family))
    }

    /// The same for packets of one IP version, of which nothing comes back by the link: it leads into a tunnel.
    ///
    /// # Errors
    ///
    /// As [`NextHops::set_up`].
    pub fn set_up_one_way(&self, path: u8, link: u32, is_ipv4: bool) -> Result<(), NetlinkError> {
        self.lead(NextHop { path, link, via: None }, if is_ipv4 { IPV4 } else { IPV6 })
    }

    fn lead(&self, hop: NextHop, family: u8) -> Result<(), NetlinkError> {
        // Where to go first, then who goes there.
        self.socket.transact(self.route(hop, family))?;
        match self.socket.transact(self.rule("add", hop.path, family, NEW_RULE, CREATE | EXCLUSIVE)) {
            Err(error) if error.errno() != Some(Errno::EEXIST) => Err(error),
            _ => Ok(()),
        }
    }

    /// Has packets with AH that go by a way to an IPv6 destination fragmented to the MTU of their path, as
    /// [`NarrowPaths`](crate::routes::NarrowPaths) does where routing leads. `false` if there is nothing to do, or no way to do it.
    ///
    /// # Errors
    ///
    /// The kernel does not say what there is, or refuses the route.
    pub fn narrow(&self, path: u8, destination: Ipv6Addr, mtu: u32) -> Result<bool, NetlinkError> {
        NarrowPaths::of_table(table(path))?.narrow(destination, mtu)
    }

    /// Has nothing go by a way any more.
    ///
    /// # Errors
    ///
    /// The first refusal of the kernel; everything else is done.
    pub fn take_down(&self, path: u8) -> Result<(), NetlinkError> {
        let mut outcome = forget_paths(path);
        for family in FAMILIES {
            for batch in [self.rule("remove", path, family, DELETE_RULE, 0), without_route(path, family)] {
                match self.socket.transact(batch) {
                    Err(error) if !matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH)) => outcome = outcome.and(Err(error)),
                    _ => {}
                }
            }
        }
        outcome
    }

    fn route(&self, hop: NextHop, family: u8) -> Batch {
        let scope = if hop.via.is_none() && family == 2 { LINK } else { UNIVERSE };
        let fixed = [family, 0, 0, 0, 0, PROTOCOL, scope, UNICAST, 0, 0, 0, 0];
        let mut batch = Batch::new("set up a way");
        batch.request(format!("set the route of way {}", hop.path), NEW_ROUTE, CREATE | REPLACE, &fixed, |writer| {
            writer.put_u32(TABLE, table(hop.path));
            writer.put_u32(OUTPUT_INTERFACE, hop.link);
            match hop.via {
                Some(IpAddr::V4(via)) => writer.put(GATEWAY, &via.octets()),
                Some(IpAddr::V6(via)) => writer.put(GATEWAY, &via.octets()),
                None => {}
            }
        });
        batch
    }

    fn rule(&self, what: &str, path: u8, family: u8, kind: u16, flags: u16) -> Batch {
        rule(what, family, kind, flags, Marked { table: table(path), mark: super::mark(self.mask, path), mask: self.mask })
    }
}

/// Removes rules and tables of all ways, whoever has left them there, with whatever bits.
///
/// # Errors
///
/// The first refusal of the kernel; everything else is done.
pub fn restore() -> Result<(), NetlinkError> {
    let socket = Socket::open(Protocol::Route)?;
    let mut outcome = Ok(());
    for family in FAMILIES {
        for marked in own_rules(&socket, family)? {
            outcome = outcome.and(socket.transact(rule("remove", family, DELETE_RULE, 0, marked)));
        }
        for path in (1..).take(PATHS) {
            outcome = outcome.and(if family == IPV6 { forget_paths(path) } else { Ok(()) });
            match socket.transact(without_route(path, family)) {
                Err(error) if !matches!(error.errno(), Some(Errno::ENOENT | Errno::ESRCH)) => outcome = outcome.and(Err(error)),
                _ => {}
            }
        }
    }
    outcome
}

fn forget_paths(path: u8) -> Result<(), NetlinkError> {
    NarrowPaths::of_table(table(path))?.forget()
}

/// What a rule of ours says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marked {
    table: u32,
    mark: u32,
    mask: u32,
}

fn rule(what: &str, family: u8, kind: u16, flags: u16, Marked { table, mark, mask }: Marked) -> Batch {
    let fixed = [family, 0, 0, 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0];
    let mut batch = Batch::new("change the routing rules of a way");
    batch.request(format!("{what} the routing rule for mark {mark:#x}"), kind, flags, &fixed, |writer| {
        // Behind the host's own addresses, before all else.
        writer.put_u32(PRIORITY, 0);
        writer.put_u32(TABLE, table);
        writer.put_u32(FIREWALL_MARK, mark);
        writer.put_u32(FIREWALL_MASK, mask);
        writer.put_u8(RULE_PROTOCOL, PROTOCOL);
    });
    batch
}

/// Has a link's packets be judged by routing with their marks.
fn believe_marks(link: u32) -> Batch {
    let [i0, i1, i2, i3] = link.to_ne_bytes();
    let mut batch = Batch::new("set up a way");
    batch.request(
        format!("set src_valid_mark of link {link}"),
        NEW_LINK,
        0,
        &[0, 0, 0, 0, i0, i1, i2, i3, 0, 0, 0, 0, 0, 0, 0, 0],
        |writer| {
            writer.nest(BY_FAMILY, |families| {
                families.nest(u16::from(IPV4), |ipv4| ipv4.nest(IPV4_SETTINGS, |settings| settings.put_u32(SOURCE_BY_MARK, 1)));
            });
        },
    );
    batch
}

fn without_route(path: u8, family: u8) -> Batch {
    let fixed = [family, 0, 0, 0, 0, PROTOCOL, UNIVERSE, UNICAST, 0, 0, 0, 0];
    // Of IPv4 the kernel compares the scope, unless that is "nowhere".
    let fixed = if family == 2 { [2, 0, 0, 0, 0, PROTOCOL, NOWHERE, UNICAST, 0, 0, 0, 0] } else { fixed };
    let mut batch = Batch::new("take a way down");
    batch.request(format!("remove the route of way {path}"), DELETE_ROUTE, 0, &fixed, |writer| writer.put_u32(TABLE, table(path)));
    batch
}

/// `RT_SCOPE_NOWHERE`.
const NOWHERE: u8 = 255;

fn own_rules(socket: &Socket, family: u8) -> Result<Vec<Marked>, NetlinkError> {
    let mut fixed = [0; FIXED_LEN];
    if let Some(field) = fixed.first_mut() {
        *field = family;
    }
    socket.dump("list the routing rules", GET_RULE, &fixed, |_| {}, |message| read_own_rule(message, family))
}

/// What a rule of ways says; none if it is somebody else's, or of the other family.
pub(super) fn read_own_rule(message: &Message<'_>, family: u8) -> Result<Option<Marked>, Malformed> {
    if message.kind != NEW_RULE || message.fixed::<FIXED_LEN>()?.first() != Some(&family) {
        return Ok(None);
    }
    let find = |kind| attributes(message.after(FIXED_LEN)?).find(kind);
    let number = |kind| Ok::<_, Malformed>(find(kind)?.map(|value| value.u32()).transpose()?.unwrap_or(0));
    let is_own = find(RULE_PROTOCOL)?.map(|value| value.u8()).transpose()? == Some(PROTOCOL);
    let marked = Marked { table: number(TABLE)?, mark: number(FIREWALL_MARK)?, mask: number(FIREWALL_MASK)? };
    Ok(is_own.then_some(marked))
}
