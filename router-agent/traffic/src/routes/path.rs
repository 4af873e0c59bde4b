//! Paths that are narrower than their first link.
//!
//! The kernel learns the MTU of a path from ICMP for the route by which it has sent, and that is one of the main table. Packets
//! with AH are routed again by the second table, which learns nothing. On IPv4 routers fragment what is too long there; on IPv6
//! only the sender does, so that larger datagrams would be lost for good. So the second table gets a route of its own to such a
//! destination, with the path's full MTU. The kernel removes it after ten minutes, as it forgets what it has learned itself.

use std::net::Ipv6Addr;

use super::links::Links;
use super::route::{IPV6, Route};
use super::{MtuPlan, reconcile};
use crate::netlink::{NetlinkError, Protocol, Socket};

/// What is sent at the least (RFC 8201 §4).
const LEAST: u32 = super::IPV6_MIN_MTU;
/// Paths that are known at a time at the most. One more waits until another is forgotten.
const MOST: usize = 1024;
/// Seconds until a path is forgotten.
const LASTS: u32 = 600;

/// Tells the second table of narrow paths, in the network namespace in which it was opened.
#[derive(Debug)]
pub struct NarrowPaths {
    table: u32,
    socket: Socket,
}

impl NarrowPaths {
    /// Changes nothing yet.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub fn open(plan: MtuPlan) -> Result<Self, NetlinkError> {
        Self::of_table(plan.table)
    }

    /// The same for another table that packets with AH are routed by, that of a way.
    pub(crate) fn of_table(table: u32) -> Result<Self, NetlinkError> {
        Ok(Self { table, socket: Socket::open(Protocol::Route)? })
    }

    /// Forgets all of them.
    pub(crate) fn forget(&self) -> Result<(), NetlinkError> {
        let (_, paths) = split(Route::list(&self.socket, IPV6, self.table)?);
        reconcile::reconcile(&self.socket, &paths, &[]).into_iter().next().map_or(Ok(()), |failure| Err(failure.error))
    }

    /// Has packets with AH to `destination` fragmented to `mtu` octets. `false` if there is nothing to do, or no way to do it: no
    /// route leads there, or it depends on the source or carries no more than that itself, or too many paths are known.
    ///
    /// # Errors
    ///
    /// The kernel does not say what there is, or refuses the route.
    pub fn narrow(&self, destination: Ipv6Addr, mtu: u32) -> Result<bool, NetlinkError> {
        let routes = Route::list(&self.socket, IPV6, self.table)?;
        let links = Links::list(&self.socket)?;
        let Some(wanted) = wanted(&routes, &links, destination, mtu) else { return Ok(false) };
        reconcile::set(&self.socket, &wanted)?;
        Ok(true)
    }
}

/// The route that a narrow path needs beside the second table's `routes`, if it needs one and can have one.
fn wanted(routes: &[Route], links: &Links, destination: Ipv6Addr, mtu: u32) -> Option<Route> {
    let paths = || routes.iter().filter(|route| route.is_path());
    let known = paths().find(|route| route.leads_to(destination));
    let is_narrower = known.is_none_or(|known| known.mtu().is_none_or(|known| mtu < known));
    if mtu < LEAST || !is_narrower || known.is_none() && paths().count() >= MOST {
        return None;
    }
    let model = model(routes, destination)?;
    // A path is narrower than its first link, or it is none: a larger MTU would have packets sent that the link does not carry.
    if links.carried_by(model).is_none_or(|carried| mtu >= carried) {
        return None;
    }
    model.path_to(destination, mtu, LASTS)
}

/// The route that packets to `destination` take where no narrow path is known.
fn model(routes: &[Route], destination: Ipv6Addr) -> Option<&Route> {
    let candidates = || routes.iter().filter(|route| !route.is_path() && route.leads_to(destination));
    if candidates().any(Route::depends_on_source) {
        return None;
    }
    let best = candidates().min_by_key(|route| (std::cmp::Reverse(route.prefix()), route.metric()))?;
    let carries = best.may_carry_traffic() && !candidates().any(|route| route.place() == best.place() && !std::ptr::eq(route, best));
    carries.then_some(best)
}

/// Removes those of the second table's `paths` that no longer go the way of their destination's route among `routes`; answers
/// the errors.
pub(super) fn forget_moved(socket: &Socket, paths: &[Route], routes: &[Route]) -> Vec<reconcile::Failure> {
    let is_moved = |path: &&Route| match path.destination() {
        std::net::IpAddr::V6(destination) => model(routes, destination).is_none_or(|model| !path.goes_like(model)),
        std::net::IpAddr::V4(_) => true,
    };
    let moved: Vec<_> = paths.iter().filter(is_moved).cloned().collect();
    reconcile::reconcile(socket, &moved, &[])
}

/// Splits the second table's routes into copies of the main one's and narrow paths.
pub(super) fn split(routes: Vec<Route>) -> (Vec<Route>, Vec<Route>) {
    routes.into_iter().partition(|route| !route.is_path())
}
