//! The ways that flows leave this node by: when one changes, whoever is next on the path is to be found again at once
//! (RFC 5971 §7.1.2, G-305; X-95). What the kernel's routes do not tell, probing finds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use traffic::netlink::NetlinkError;
use traffic::next_hop::{NextHop, NextHops};

/// Destinations that are watched at most. The way to others is found again by probing alone.
const MOST: usize = 65_536;
/// Looked at before the daemon's loop may have its turn.
const AT_A_TIME: usize = 64;
/// How long a destination is watched to which no message goes. A permission is refreshed far more often.
const FORGET: Duration = Duration::from_secs(3600);

/// The ways to the destinations of flows, known to the daemon's loop and to the thread that follows routes.
#[derive(Debug, Clone)]
pub(crate) struct Ways(Arc<Mutex<Watched>>);

#[derive(Debug)]
struct Watched {
    kernel: NextHops,
    ways: BTreeMap<IpAddr, Way>,
}

#[derive(Debug)]
struct Way {
    next: Option<NextHop>,
    used: Instant,
}

impl Ways {
    /// Those of the network namespace of the calling thread.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self(Arc::new(Mutex::new(Watched { kernel: NextHops::open()?, ways: BTreeMap::new() }))))
    }

    /// A message of a flow to `destination` leaves: from now on its way is watched.
    pub(crate) fn use_way(&self, destination: IpAddr, now: Instant) {
        let mut watched = self.lock();
        if let Some(way) = watched.ways.get_mut(&destination) {
            way.used = now;
        } else if watched.ways.len() < MOST {
            match watched.kernel.towards(destination) {
                Ok(next) => drop(watched.ways.insert(destination, Way { next, used: now })),
                Err(error) => tracing::warn!(%destination, %error, "its next hop is not watched"),
            }
        }
    }

    /// The destinations that have another next hop than when this was asked last. One without any is still on its old way.
    pub(crate) fn look(&self, now: Instant) -> Result<BTreeSet<IpAddr>, NetlinkError> {
        let (mut changed, mut from) = (BTreeSet::new(), Bound::Unbounded);
        while let Some(last) = self.look_at_some(from, now, &mut changed)? {
            from = Bound::Excluded(last);
        }
        Ok(changed)
    }

    /// Looks at so few that the daemon's loop need not wait; answers which was the last one.
    fn look_at_some(&self, from: Bound<IpAddr>, now: Instant, changed: &mut BTreeSet<IpAddr>) -> Result<Option<IpAddr>, NetlinkError> {
        let mut watched = self.lock();
        let Watched { kernel, ways } = &mut *watched;
        let (mut last, mut unused) = (None, Vec::new());
        for (destination, way) in ways.range_mut((from, Bound::Unbounded)).take(AT_A_TIME) {
            last = Some(*destination);
            if now.saturating_duration_since(way.used) >= FORGET {
                unused.push(*destination);
                continue;
            }
            let next = kernel.towards(*destination)?;
            if next.is_some() && next != way.next {
                tracing::info!(%destination, next = %shown(next), former = %shown(way.next), "another next hop");
                way.next = next;
                changed.insert(*destination);
            }
        }
        for destination in unused {
            ways.remove(&destination);
        }
        Ok(last)
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(next: Option<NextHop>) -> String {
    match next {
        Some(NextHop { interface, gateway: Some(gateway) }) => format!("{gateway} by interface {interface}"),
        Some(NextHop { interface, gateway: None }) => format!("interface {interface}"),
        None => "none".to_owned(),
    }
}
