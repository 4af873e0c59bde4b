//! Other ways to the receiver (Solution 4, X-99): which there are, whether they live, and which flows are on them.
//!
//! The machine names a way and no more; a [`Strategy`] makes packets get there.

mod config;
mod next_hop;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use daemon::datapath::NarrowPath;
use daemon::threads::Threads;
use gist::api::PathId;
use gist::time::Instant;
use pbs_nslp::flow::FlowId;
use pbs_nslp::host::Host;
use pbs_nslp::sender::Way;
use serde_json::{Value, json};
use traffic::icmp::Room;
use traffic::netlink::NetlinkError;
use traffic::paths::{PATHS, marks, restore};

pub(crate) use config::{Lead, Path, asks, check};

use crate::policy;
use next_hop::ByNextHop;
use relay::ByRelay;

/// How often it is looked whether ways live.
const LOOK: Duration = Duration::from_secs(1);
/// The same while flows are on one.
const LOOK_IN_USE: Duration = Duration::from_millis(500);
/// How long a way has to be dead until its flows leave it, unless its strategy has waited already: a link that goes and comes back at
/// once costs none of the few changes that a flow has.
const LEAVE: Duration = Duration::from_secs(1);
/// What a way has to carry besides AH: on IPv6 no link carries less (RFC 8200 §5), on IPv4 every host takes so much (RFC 791 §3.1),
/// and by path MTU discovery nothing is lowered further.
const LEAST_IPV6: u32 = 1280;
/// See [`LEAST_IPV6`].
const LEAST_IPV4: u32 = 576;
/// The tables of ways are told of narrow paths no more often than this.
const BETWEEN_PATHS: Duration = Duration::from_millis(20);

/// Why there are no other ways.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathsError {
    /// The kernel does not answer, or refuses.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The way of this name cannot be made.
    #[error("path {0}: {1}")]
    Relay(String, String),
}

/// What a look at a way tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Look {
    /// Whether packets get out by it now, as far as this host can tell.
    pub live: bool,
    /// Whether it is dead for so long already that flows leave it at once.
    pub is_lost: bool,
    /// How far its relay is: nodes with PBS up to it, then the shortest time to an answer; `None` without a relay, or before that has
    /// answered.
    pub distance: Option<(u8, Duration)>,
}

/// How flows are taken along one way, and taken off it again.
pub(crate) trait Strategy {
    /// Looks at the way. Called once a second, and twice while flows are on any; what it needs of this host's own permissions it asks
    /// for. `in_use`: whether flows are on this one.
    fn look(&mut self, host: &mut Host, in_use: bool, now: Instant) -> Look;
    /// Has packets that bear the way's mark go by it.
    ///
    /// # Errors
    ///
    /// Why they do not.
    fn set_up(&mut self) -> Result<(), String>;
    /// Has nothing go by it any more.
    fn take_down(&mut self) -> Result<(), String>;
    /// What its first link carries, in octets, as far as it is known.
    fn mtu(&self) -> Option<u32>;
    /// Has packets with AH to an IPv6 destination fragmented to what its path by this way carries; on IPv4 routers do it.
    fn narrow(&mut self, destination: Ipv6Addr, mtu: u32) -> Result<(), String>;
    /// For `status`: what is known of a relay; null of any other way.
    fn show(&self) -> Value {
        Value::Null
    }
}

/// Every way of a host.
pub(crate) struct Paths {
    ways: Vec<Configured>,
    flows: BTreeMap<FlowId, PathId>,
    next_look: Option<Instant>,
    narrowed: Option<Instant>,
}

struct Configured {
    name: String,
    way: Way,
    distance: Option<(u8, Duration)>,
    dead_since: Option<Instant>,
    strategy: Box<dyn Strategy>,
}

impl Paths {
    /// The ways as configured; none is set up, and what a daemon that was killed has left is gone.
    ///
    /// # Errors
    ///
    /// See [`PathsError`].
    pub(crate) fn open(paths: &[Path], mask: u32, room: Room, threads: &Threads) -> Result<Self, PathsError> {
        restore()?;
        let configured = |(path, number): (&Path, u8)| {
            let way = Way { path: PathId(number), covers: policy::destination(path.covers()), live: false, relay: path.relay };
            let strategy: Box<dyn Strategy> = match path.lead() {
                Some(Lead::Link { interface, via }) => Box::new(ByNextHop::open(path, (interface, via), (number, mask), room)?),
                Some(Lead::Relay { address, volume }) => {
                    Box::new(ByRelay::open((&path.name, address, volume), (number, mask), room, threads)?)
                }
                None => return Err(PathsError::Relay(path.name.clone(), "leads nowhere".to_owned())),
            };
            Ok(Configured { name: path.name.clone(), way, distance: None, dead_since: None, strategy })
        };
        let ways = paths.iter().zip(1..).map(configured).collect::<Result<Vec<_>, PathsError>>()?;
        let next_look = (!ways.is_empty()).then_some(Instant::ZERO);
        Ok(Self { ways, flows: BTreeMap::new(), next_look, narrowed: None })
    }

    /// The bits of the packet mark for each way.
    pub(crate) fn marks(paths: &[Path], mask: u32) -> [u32; PATHS] {
        marks(mask, paths.len())
    }

    /// The links of the ways, with the bits of each.
    pub(crate) fn links(paths: &[Path], mask: u32) -> Vec<(String, u32)> {
        let of_link = |(path, mark): (&Path, u32)| match path.lead()? {
            Lead::Link { interface, .. } => Some((interface.to_owned(), mark)),
            // What comes back comes by whatever link the network chooses.
            Lead::Relay { .. } => None,
        };
        paths.iter().zip(Self::marks(paths, mask)).filter_map(of_link).collect()
    }

    /// When [`Paths::look`] is wanted next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks whether the ways live, if it is time, and tells the machine what has changed: which ways there are now, those by a link
    /// first, as configured, then those over relays, the nearest first; and which of those in use are dead (FS-36).
    pub(crate) fn look(&mut self, host: &mut Host, now: Instant) {
        if self.next_look.is_none_or(|next| now < next) {
            return;
        }
        let used: BTreeSet<PathId> = self.flows.values().copied().collect();
        self.next_look = Some(now + if used.is_empty() { LOOK } else { LOOK_IN_USE });
        let (mut changed, mut lost) = (false, Vec::new());
        for Configured { name, way, distance, dead_since, strategy } in &mut self.ways {
            let in_use = used.contains(&way.path);
            let Look { live, is_lost, distance: found } = strategy.look(host, in_use, now);
            changed |= *distance != found;
            *distance = found;
            if live != way.live {
                tracing::info!(path = name.as_str(), live, "another way out {}", if live { "lives" } else { "is dead" });
                changed = true;
            }
            let is_back = live && !way.live;
            way.live = live;
            // With its link the kernel has thrown the route away.
            if is_back && in_use {
                Self::say(name, strategy.set_up());
            }
            if leaves(dead_since, live, is_lost, now) && in_use {
                lost.push(way.path);
            }
        }
        if changed {
            let mut ways: Vec<&Configured> = self.ways.iter().collect();
            ways.sort_by_key(|configured| rank(configured.way.relay.is_some(), configured.distance));
            host.set_ways(ways.into_iter().map(|configured| configured.way.clone()).collect());
        }
        lost.into_iter().for_each(|path| host.way_is_dead(path, now));
    }

    /// A flow leaves by this way from now on. Rule and table of a way stand as long as a flow is on it.
    pub(crate) fn route(&mut self, flow: FlowId, path: PathId) {
        let former = if path == PathId::ROUTED { self.flows.remove(&flow) } else { self.flows.insert(flow, path) };
        if former != Some(path) && path != PathId::ROUTED && self.users(path) == 1 {
            self.with(path, |strategy| strategy.set_up());
        }
        if let Some(former) = former.filter(|former| *former != path && self.users(*former) == 0) {
            self.with(former, |strategy| strategy.take_down());
        }
    }

    /// Takes in that the path of a flow on a way is narrower than the way's first link.
    pub(crate) fn narrow(&mut self, NarrowPath { destination, mtu, way }: NarrowPath, now: Instant) {
        let IpAddr::V6(destination) = destination else { return };
        // Whoever sends errors does not decide how often the routes are read: the next error about this path tells again.
        if self.narrowed.is_some_and(|last| now.saturating_duration_since(last) < BETWEEN_PATHS) {
            return;
        }
        self.narrowed = Some(now);
        let Some(configured) = self.ways.iter_mut().find(|configured| configured.way.path == PathId(way)) else { return };
        if let Err(why) = configured.strategy.narrow(destination, mtu) {
            tracing::warn!(path = configured.name, %destination, mtu, why, "packets with AH that are longer than the path's MTU may be lost");
        }
    }

    /// For `status`.
    pub(crate) fn show(&self) -> Value {
        let ways = self.ways.iter().map(|Configured { name, way, strategy, .. }| {
            json!({
                "name": name, "path": way.path.0, "live": way.live, "flows": self.users(way.path), "mtu": strategy.mtu(), "relay": strategy.show(),
            })
        });
        ways.collect()
    }

    fn users(&self, path: PathId) -> usize {
        self.flows.values().filter(|used| **used == path).count()
    }

    fn with(&mut self, path: PathId, change: impl FnOnce(&mut dyn Strategy) -> Result<(), String>) {
        if let Some(configured) = self.ways.iter_mut().find(|configured| configured.way.path == path) {
            Self::say(&configured.name, change(&mut *configured.strategy));
        }
    }

    fn say(name: &str, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            tracing::error!(path = name, why, "another way out: its packets go where routing leads");
        }
    }
}

/// Takes down since when a way is dead, and answers whether flows leave it.
fn leaves(dead_since: &mut Option<Instant>, live: bool, is_lost: bool, now: Instant) -> bool {
    *dead_since = if live { None } else { dead_since.or(Some(now)) };
    dead_since.is_some_and(|since| is_lost || now.saturating_duration_since(since) >= LEAVE)
}

/// In which order ways are offered, the smallest first; those that are alike as configured.
fn rank(over_relay: bool, distance: Option<(u8, Duration)>) -> (bool, (u8, Duration)) {
    (over_relay, distance.unwrap_or((u8::MAX, Duration::MAX)))
}

impl Drop for Paths {
    fn drop(&mut self) {
        if let Err(error) = restore() {
            tracing::warn!(%error, "rules and tables of other ways out are left behind; the next start removes them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X-99, FS-36: a link that goes and comes back at once costs no change; a relay has been waited for already.
    #[test]
    fn a_way_is_left_once_it_has_been_dead_for_a_second_and_a_silent_relay_at_once() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut dead_since = None;
        let looks = [(0, true), (500, false), (1000, true), (1500, false), (2000, false), (2500, false), (3000, true)];
        let left: Vec<u64> = looks
            .into_iter()
            .filter(|(millis, live)| leaves(&mut dead_since, *live, false, at(*millis)))
            .map(|(millis, _)| millis)
            .collect();
        assert_eq!(left, [2500]);
        assert!(leaves(&mut dead_since, false, true, at(3500)));
    }

    /// links as configured, then relays, by GIST hops and then by time; one that has not answered is the last.
    #[test]
    fn links_come_before_relays_and_of_those_the_nearest_is_first() {
        let relay = |hops, millis| rank(true, Some((hops, Duration::from_millis(millis))));
        let mut ranks = vec![rank(true, None), relay(3, 1), relay(1, 40), rank(false, None), relay(1, 7), rank(false, None)];
        ranks.sort();
        assert_eq!(ranks, [rank(false, None), rank(false, None), relay(1, 7), relay(1, 40), relay(3, 1), rank(true, None)]);
    }
}
