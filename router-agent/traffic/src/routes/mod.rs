//! Room for AH in a host's path MTU.
//!
//! Applications must send packets that still fit the link after AH has been inserted. Lowering the MTU of a route does that,
//! but the kernel then holds the grown packet against the same lowered MTU. So there are two tables: the main one with
//! lowered MTUs, which applications are routed by, and a second one with the same routes as they were, which packets with
//! the bit [`MARK`] are routed by. The verdict that inserts AH adds that bit to the packet's own mark, which counts as before
//! (see `policy`).
//!
//! The second table is also the memory of what the main one was before: from it [`MtuPlan::restore`] restores, and because of
//! it [`Routes::apply`] may be repeated, and must be whenever links, addresses, routes or rules have changed:
//! [`RoutingEvents`](crate::routing_events::RoutingEvents) tells when. What is as it should be is not touched.
//!
//! A route that the kernel maintains from IPv6 router advertisements stays as it is: it gets a shadow of the protocol
//! [`PROTOCOL`] with a better metric, which has the lowered MTU and ends when it ends.
//!
//! IPv6 paths that are narrower than their first link have a route of their own in the second table ([`NarrowPaths`]).
//!
//! Left alone, and named in the [`Outcome`]: routes whose MTU would become too small, and what rules lead to other tables. Not
//! lowered, but copied: loopback, link-local and multicast routes, and those that lead nowhere.

mod desired;
pub(crate) mod heard;
mod links;
mod path;
mod policy;
mod reconcile;
mod route;

use crate::netlink::{Errno, NetlinkError, Protocol, Socket};

use desired::{Desired, Situation};
pub use links::LinkMtu;
use links::Links;
pub use path::NarrowPaths;
use reconcile::{Failure, reconcile};
use route::{MAIN_TABLE, Route};

/// The bit of a packet's mark that says that it carries its AH already.
pub const MARK: u32 = 0x0800_0000;
/// Number of the second table.
pub const TABLE: u32 = 0x5042;
/// Number under which shadows and routing rules say whose they are, where others are `kernel`, `static` or `ra`.
pub const PROTOCOL: u8 = route::OWN_PROTOCOL;

/// IPv6 links carry at least this; the kernel ignores anything smaller (RFC 8200 §5).
const IPV6_MIN_MTU: u32 = 1280;
/// Every IPv4 node accepts datagrams of this size (RFC 791 §3.2).
const IPV4_MIN_MTU: u32 = 576;

/// How much room AH needs, and by which mark and table packets get their full size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtuPlan {
    /// The one bit of a packet's mark that says that it carries its AH already.
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

    /// Once what [`Routes::apply`] does whenever something has changed.
    ///
    /// # Errors
    ///
    /// The kernel does not say what there is, or refuses the routing rules.
    pub fn apply(&self) -> Result<Outcome, NetlinkError> {
        Routes::open(*self)?.apply()
    }

    /// Gives the main table's routes their MTUs back and removes shadows, second table and routing rules. It needs neither the
    /// mark nor the octets that they were set up with.
    ///
    /// # Errors
    ///
    /// The first of what went wrong; everything else is done.
    pub fn restore(&self) -> Result<(), NetlinkError> {
        Routes::open(*self)?.restore()
    }

    const fn families(&self) -> [Family; 2] {
        [
            Family { number: route::IPV4, min_mtu: IPV4_MIN_MTU, overhead: self.ipv4_overhead },
            Family { number: route::IPV6, min_mtu: IPV6_MIN_MTU, overhead: self.ipv6_overhead },
        ]
    }
}

/// What has become of the routes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Routes that have their lowered MTU now.
    pub lowered: Vec<Lowered>,
    /// Routes that could not be given one, and rules that lead to routes without.
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

/// A route or rule that is as it was: packets of full size that go by it do not get through with AH.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    /// The route, as its destination; the rule, as its priority.
    pub route: String,
    /// Why.
    pub why: Why,
}

/// Why a route could not be given a lowered MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Why {
    /// It comes from router advertisements, and another route has the metric that its shadow would need.
    #[error("it comes from router advertisements, and another route stands right before it")]
    Advertised,
    /// What would be left is less than the protocol allows.
    #[error("an MTU of {0} octets leaves no room for AH")]
    TooSmall(u32),
    /// Its link has no MTU.
    #[error("its link is not known")]
    NoLink,
    /// The kernel refuses to have it changed.
    #[error("the kernel refuses to have it changed: {}", Errno::from_raw(*.0))]
    Refused(i32),
    /// The rule leads to a table whose routes are nobody's business here.
    #[error("it leads to table {0}, whose routes keep their MTUs")]
    OtherTable(u32),
    /// The rule goes by the transport protocol or its ports, which AH hides when packets are routed again.
    #[error("it goes by protocol or port, which AH hides")]
    ByTransport,
    /// The rule tests the very bit that marks packets with AH.
    #[error("it uses the bit of the mark that is meant for packets with AH")]
    MarkTaken,
    /// There are more rules than are copied.
    #[error("it and those behind it are too many rules")]
    TooMany,
}

/// Makes room for AH and keeps it, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Routes {
    plan: MtuPlan,
    socket: Socket,
    /// The main table's routes as they were set last.
    set: Vec<Route>,
}

impl Routes {
    /// Changes nothing yet.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub fn open(plan: MtuPlan) -> Result<Self, NetlinkError> {
        Ok(Self { plan, socket: Socket::open(Protocol::Route)?, set: Vec::new() })
    }

    /// The port by which the kernel tells others whose changes are these.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        self.socket.port()
    }

    /// Lowers the MTU of the main table's routes and keeps them as they were in the second table.
    ///
    /// # Errors
    ///
    /// The kernel does not say what there is, or refuses the routing rules. A route that it refuses is [`Left`].
    pub fn apply(&mut self) -> Result<Outcome, NetlinkError> {
        let links = Links::list(&self.socket)?;
        let mut outcome = Outcome::default();
        let mut set = Vec::new();
        for family in self.plan.families() {
            let main = Route::list(&self.socket, family.number, MAIN_TABLE)?;
            let (marked, paths) = path::split(Route::list(&self.socket, family.number, self.plan.table)?);
            let situation = Situation { family, table: self.plan.table, links: &links, main: &main, marked: &marked, set: &self.set };
            let Desired { main: wanted, marked: kept, lowered, left } = Desired::of(&situation);
            outcome.left.extend(left);
            // The way for grown packets first, then the smaller size.
            let mut refused = Vec::new();
            let mut failures = reconcile(&self.socket, &marked, &kept);
            failures.extend(path::forget_moved(&self.socket, &paths, &kept));
            outcome.left.extend(policy::set_up(&self.socket, &self.plan, family.number)?);
            failures.extend(reconcile(&self.socket, &main, &wanted));
            for Failure { place, error } in failures {
                let Some(errno) = error.errno() else { return Err(error) };
                let route = wanted.iter().chain(&main).chain(&marked).find(|route| route.place() == place).map(Route::to_string);
                outcome.left.push(Left { route: route.unwrap_or_default(), why: Why::Refused(errno as i32) });
                refused.push(place);
            }
            outcome.lowered.extend(lowered.into_iter().filter(|(place, _)| !refused.contains(place)).map(|(_, lowered)| lowered));
            set.extend(wanted);
        }
        outcome.left.sort();
        outcome.left.dedup();
        self.set = set;
        Ok(outcome)
    }

    /// See [`MtuPlan::restore`].
    ///
    /// # Errors
    ///
    /// The first of what went wrong; everything else is done.
    pub fn restore(&mut self) -> Result<(), NetlinkError> {
        self.set.clear();
        self.plan.families().into_iter().map(|family| self.restore_family(family)).fold(Ok(()), Result::and)
    }

    fn restore_family(&self, family: Family) -> Result<(), NetlinkError> {
        // Whatever becomes of the routes, packets are no longer led past them.
        let rules = policy::remove_all(&self.socket, family.number);
        let main = Route::list(&self.socket, family.number, MAIN_TABLE)?;
        let (marked, paths) = path::split(Route::list(&self.socket, family.number, self.plan.table)?);
        let failures = reconcile(&self.socket, &main, &desired::restored(&main, &marked));
        // What could not be given back is kept, so that it can be tried again.
        let gone: Vec<_> = marked.into_iter().filter(|kept| failures.iter().all(|failure| failure.place != kept.place())).collect();
        let removed = [&gone, &paths].map(|routes| reconcile(&self.socket, routes, &[])).into_iter().flatten();
        let failed = failures.into_iter().chain(removed).next().map_or(Ok(()), |failure| Err(failure.error));
        failed.and(rules)
    }
}

/// A protocol family with what differs between the two.
#[derive(Debug, Clone, Copy)]
struct Family {
    number: u8,
    min_mtu: u32,
    overhead: u32,
}
