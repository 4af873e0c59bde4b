//! Makes the routes of a table what they are meant to be, with as little as possible changed and never without a route that
//! was there before and is meant to stay.
//!
//! Routes of one place (destination, service, metric) that differ in their next hops only stand in an order: the first that
//! is usable counts. The kernel replaces the first of them whichever is meant. So only a route that is alone in its place is
//! replaced; of several, those that are to change are put behind the others, each with the one it stands for.

use std::collections::BTreeMap;

use crate::netlink::{APPEND, Batch, CREATE, NetlinkError, REPLACE, Socket};

use super::route::{self, IPV4, Place, Route};

/// Requests in one batch: the socket's buffer holds errors about all of them.
const PIECE: usize = 100;

/// A place whose routes could not be made what they are meant to be.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) place: Place,
    pub(super) error: NetlinkError,
}

/// Turns `present`, the routes of a table as listed, into `wanted`. What is refused is left as it was, and told.
pub(super) fn reconcile(socket: &Socket, present: &[Route], wanted: &[Route]) -> Vec<Failure> {
    let (present, wanted) = (by_place(present), by_place(wanted));
    let mut failures = Vec::new();
    let mut replaced = Vec::new();
    for (place, wanted) in &wanted {
        let present = present.get(place).map_or(&[][..], Vec::as_slice);
        match (present, wanted.as_slice()) {
            ([] | [_], [only]) => {
                if present.first().is_none_or(|present| !present.is_like(only)) {
                    replaced.push((place, *only));
                }
            }
            (present, wanted) => {
                failures.extend(reorder(socket, present, wanted).err().map(|error| Failure { place: place.clone(), error }))
            }
        }
    }
    for piece in replaced.chunks(PIECE) {
        let routes: Vec<_> = piece.iter().map(|(_, route)| *route).collect();
        if socket.transact(requests("set", &routes, route::NEW_ROUTE, CREATE | REPLACE)).is_err() {
            // To set a route twice does no harm, and one by one it is known which is refused.
            failures.extend(piece.iter().filter_map(|(place, route)| {
                let error = socket.transact(requests("set", &[*route], route::NEW_ROUTE, CREATE | REPLACE)).err()?;
                Some(Failure { place: (*place).clone(), error })
            }));
        }
    }
    let gone: Vec<_> = present.iter().filter(|(place, _)| !wanted.contains_key(*place)).collect();
    let routes: Vec<_> = gone.iter().flat_map(|(place, routes)| routes.iter().map(|route| ((*place).clone(), *route))).collect();
    for piece in routes.chunks(PIECE) {
        let routes: Vec<_> = piece.iter().map(|(_, route)| *route).collect();
        if socket.transact(requests("remove", &routes, route::DELETE_ROUTE, 0)).is_err() {
            failures.extend(
                piece.iter().filter_map(|(place, route)| Some(Failure { place: place.clone(), error: remove(socket, route).err()? })),
            );
        }
    }
    failures
}

fn by_place<'r>(routes: &'r [Route]) -> BTreeMap<Place, Vec<&'r Route>> {
    let mut places: BTreeMap<Place, Vec<&'r Route>> = BTreeMap::new();
    for route in routes {
        places.entry(route.place()).or_default().push(route);
    }
    places
}

/// Several routes of one place. What is right from the first on stays; the rest is put behind it in its order.
fn reorder(socket: &Socket, present: &[&Route], wanted: &[&Route]) -> Result<(), NetlinkError> {
    let right = present.iter().zip(wanted).take_while(|(present, wanted)| present.is_like(wanted)).count();
    let mut old: Vec<&Route> = present.iter().skip(right).copied().collect();
    for new in wanted.iter().skip(right) {
        let replaced = old.iter().position(|old| old.is_same(new)).map(|at| old.remove(at));
        match replaced {
            None => append(socket, new)?,
            // The kernel keeps both for a moment, so that packets have a way throughout.
            Some(old) if new.family() == IPV4 && !old.is_like(new) => {
                append(socket, new)?;
                remove(socket, old)?;
            }
            Some(old) => {
                remove(socket, old)?;
                append(socket, new).inspect_err(|_| {
                    // As it was, if at the end of its row; the refusal of the new one says more than another one.
                    let _ = append(socket, old);
                })?;
            }
        }
    }
    old.into_iter().try_for_each(|old| remove(socket, old))
}

fn append(socket: &Socket, route: &Route) -> Result<(), NetlinkError> {
    socket.transact(requests("add", &[route], route::NEW_ROUTE, CREATE | APPEND))
}

/// Puts one route in the place of whatever stands there.
pub(super) fn set(socket: &Socket, route: &Route) -> Result<(), NetlinkError> {
    socket.transact(requests("set", &[route], route::NEW_ROUTE, CREATE | REPLACE))
}

/// A route that has gone meanwhile is as good as removed.
fn remove(socket: &Socket, route: &Route) -> Result<(), NetlinkError> {
    match socket.transact(requests("remove", &[route], route::DELETE_ROUTE, 0)) {
        Err(error) if error.errno() == Some(crate::netlink::Errno::ESRCH) => Ok(()),
        other => other,
    }
}

fn requests(what: &str, routes: &[&Route], kind: u16, flags: u16) -> Batch {
    let mut batch = Batch::new(format!("{what} routes"));
    for route in routes {
        let name = format!("{what} route {route} in table {}", route.table());
        batch.request(name, kind, flags, &route.fixed(), |writer| route.write(writer));
    }
    batch
}
