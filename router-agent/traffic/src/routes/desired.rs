//! What the routes of one family are meant to be: no socket, no clock.

use std::collections::{BTreeMap, BTreeSet};

use super::links::Links;
use super::route::{Place, Route};
use super::{Family, Left, Lowered, Why};

/// What there is to decide from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Situation<'a> {
    pub(super) family: Family,
    pub(super) table: u32,
    pub(super) links: &'a Links,
    /// The main table as listed.
    pub(super) main: &'a [Route],
    /// The second table as listed.
    pub(super) marked: &'a [Route],
    /// The main table's routes as they were set last, as far as that is known.
    pub(super) set: &'a [Route],
}

/// What both tables are meant to hold.
#[derive(Debug, Default)]
pub(super) struct Desired {
    pub(super) main: Vec<Route>,
    pub(super) marked: Vec<Route>,
    /// Routes with room for AH, by where they stand.
    pub(super) lowered: Vec<(Place, Lowered)>,
    pub(super) left: Vec<Left>,
}

impl Desired {
    pub(super) fn of(situation: &Situation<'_>) -> Self {
        let mut desired = Self::default();
        let (marked, set) = (Index::of(situation.marked), Index::of(situation.set));
        let of_others = || situation.main.iter().filter(|route| !route.is_shadow());
        for route in of_others().filter(|route| !route.is_advertised()) {
            let original = original(route, marked.find(route), set.find(route), situation);
            // Whole tables must be alike: where one had no route, packets would take a less specific one.
            desired.marked.push(original.in_table(situation.table));
            let lowered = route.may_carry_traffic().then(|| lowered_mtu(&original, situation));
            desired.main.push(match lowered {
                None => route.clone(),
                Some(Ok(mtu)) => {
                    desired.lowered.push((route.place(), Lowered { route: route.to_string(), mtu }));
                    original.lowered(mtu)
                }
                Some(Err(why)) => {
                    desired.left.push(Left { route: route.to_string(), why });
                    original
                }
            });
        }
        let mut advertised: BTreeMap<Place, Vec<&Route>> = BTreeMap::new();
        for route in of_others().filter(|route| route.is_advertised()) {
            desired.main.push(route.clone());
            advertised.entry(route.place()).or_default().push(route);
        }
        let taken: BTreeSet<Place> = of_others().map(Route::place).collect();
        for routes in advertised.into_values() {
            desired.shadow(routes, &taken, situation);
        }
        desired
    }

    /// Routes that the kernel rewrites whenever a router advertises itself are left alone. Each gets a shadow that is preferred
    /// to it, in the order in which the kernel prefers the routers.
    fn shadow(&mut self, mut routes: Vec<&Route>, taken: &BTreeSet<Place>, situation: &Situation<'_>) {
        routes.sort_by_key(|route| route.preference());
        let steps = u32::try_from(routes.len()).unwrap_or(u32::MAX);
        for (route, step) in routes.into_iter().zip(0..) {
            let metric = route.metric().checked_sub(steps).map(|first| first.saturating_add(step)).filter(|metric| *metric > 0);
            // A metric below another route's would take its place as well.
            let shadow = metric.map(|metric| route.shadow(metric)).filter(|shadow| !taken.contains(&shadow.place()));
            let Some(shadow) = shadow else {
                self.left.push(Left { route: route.to_string(), why: Why::Advertised });
                continue;
            };
            self.marked.push(shadow.in_table(situation.table));
            if !route.may_carry_traffic() {
                continue;
            }
            match lowered_mtu(route, situation) {
                Ok(mtu) => {
                    self.lowered.push((shadow.place(), Lowered { route: route.to_string(), mtu }));
                    self.main.push(shadow.lowered(mtu));
                }
                Err(why) => self.left.push(Left { route: route.to_string(), why }),
            }
        }
    }
}

/// The main table as it was, as far as the second one tells.
pub(super) fn restored(main: &[Route], marked: &[Route]) -> Vec<Route> {
    let marked = Index::of(marked);
    let of_others = main.iter().filter(|route| !route.is_shadow());
    of_others
        .map(|route| match marked.find(route) {
            Some(kept) if !route.is_advertised() => route.with_mtu_of(kept),
            _ => route.clone(),
        })
        .collect()
}

/// The route as people or programs have set it. What has been kept of it counts, unless somebody has set it anew since.
fn original(route: &Route, kept: Option<&Route>, set: Option<&Route>, situation: &Situation<'_>) -> Route {
    let by_the_kernel = |mtu| route.links().iter().any(|index| situation.links.mtu(*index, route.family()) == Some(mtu));
    let is_new = set.is_some_and(|set| route.mtu() != set.mtu() && route.mtu().is_none_or(|mtu| !by_the_kernel(mtu)));
    match kept {
        Some(kept) if !is_new => route.with_mtu_of(kept),
        _ => route.clone(),
    }
}

fn lowered_mtu(route: &Route, situation: &Situation<'_>) -> Result<u32, Why> {
    let Family { min_mtu, overhead, .. } = situation.family;
    let full = situation.links.carried_by(route).ok_or(Why::NoLink)?;
    full.checked_sub(overhead).filter(|mtu| *mtu >= min_mtu).ok_or(Why::TooSmall(full))
}

/// Routes by where they stand.
struct Index<'r>(BTreeMap<Place, Vec<&'r Route>>);

impl<'r> Index<'r> {
    fn of(routes: &'r [Route]) -> Self {
        let mut places: BTreeMap<Place, Vec<&Route>> = BTreeMap::new();
        for route in routes {
            places.entry(route.place()).or_default().push(route);
        }
        Self(places)
    }

    fn find(&self, route: &Route) -> Option<&'r Route> {
        self.0.get(&route.place())?.iter().find(|other| other.is_same(route)).copied()
    }
}
