//! What happens to links, addresses and routes while a daemon runs: a thread keeps room for AH on the routes of a host, and
//! tells of new addresses, and of flows that leave by another next hop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use traffic::netlink::NetlinkError;
use traffic::routes::{Left, MtuPlan, NarrowPaths, Outcome, Routes};
use traffic::routing_events::{RoutingEvents, Settled};

use crate::config::local_addresses;
use crate::rules::Undo;
use crate::threads::Threads;
use crate::ways::Ways;

/// How long to wait after a change for those that come with it.
const PAUSE: Duration = Duration::from_millis(100);
/// The same for routing tables so large that a look at them takes long.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A look at everything is followed by a rest of so many times its own length, but for changes no longer than [`LONGEST_PAUSE`].
const SHARE: u32 = 5;
/// How often everything is looked at without being told: not all that happens is.
const QUIET: Duration = Duration::from_secs(5);
/// Changes of next hops that wait for the daemon's loop; while there are so many, no more are looked for.
const CHANGES: usize = 4;
/// When to try again what has failed.
const RETRY: Duration = Duration::from_secs(1);

/// The second table is told of narrow paths no more often than this.
const BETWEEN_PATHS: Duration = Duration::from_millis(20);

/// Why nothing can be followed.
#[derive(Debug, thiserror::Error)]
pub enum RoutingError {
    /// The kernel refused it.
    #[error("routes: {0}")]
    Netlink(#[from] NetlinkError),
    /// The addresses of this node cannot be read.
    #[error("cannot read the addresses of this node: {0}")]
    Addresses(std::io::Error),
    /// No thread for it.
    #[error("cannot start the thread that follows links, addresses and routes: {0}")]
    Thread(std::io::Error),
}

/// The routes and addresses of a node.
#[derive(Debug, Clone)]
pub struct Routing {
    plan: Option<MtuPlan>,
    state: Arc<Mutex<State>>,
}

/// What the thread and the daemon both know. Whoever changes routes holds it meanwhile.
#[derive(Debug, Default)]
struct State {
    opened: bool,
    lowered: usize,
    left: Vec<Left>,
    failed: u64,
}

/// The routes and addresses of a node whose changes are followed.
#[derive(Debug)]
pub struct Followed {
    routing: Routing,
    paths: Option<NarrowPaths>,
    /// When the second table was told of a path last.
    narrowed: Option<Instant>,
    addresses: watch::Receiver<Vec<IpAddr>>,
    ways: Ways,
    moved: mpsc::Receiver<BTreeSet<IpAddr>>,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The node has these addresses now.
    Addresses(Vec<IpAddr>),
    /// Packets to these destinations leave by another next hop.
    NextHops(BTreeSet<IpAddr>),
}

impl Routing {
    /// Changes nothing yet. Without a plan routes are left alone.
    pub fn new(plan: Option<MtuPlan>) -> Self {
        Self { plan, state: Arc::default() }
    }

    /// Gives the routes back as they were, for good.
    pub fn undo(&self) -> Undo {
        let Self { plan, state } = self.clone();
        Box::new(move || {
            let mut state = lock(&state);
            state.opened = true;
            state.lowered = 0;
            plan.map_or(Ok(()), |plan| plan.restore())
        })
    }

    /// Makes room for AH, in the network namespace of the calling thread, and keeps it from then on.
    ///
    /// # Errors
    ///
    /// What keeps it from being made in the first place. Later errors are logged, and it is tried again.
    pub fn follow(self, threads: &Threads) -> Result<Followed, RoutingError> {
        let events = RoutingEvents::listen()?;
        let mut routes = self.plan.map(Routes::open).transpose()?;
        let own = routes.as_ref().map(Routes::port).transpose()?;
        if let Some(routes) = &mut routes {
            lock(&self.state).take(routes.apply()?);
        }
        let (told, addresses) = watch::channel(local_addresses().map_err(RoutingError::Addresses)?);
        let ways = Ways::open()?;
        let (moving, moved) = mpsc::channel(CHANGES);
        let follower = Follower { events, own, routes, state: Arc::clone(&self.state), told, ways: ways.clone(), moving };
        threads.spawn("routing", move || follower.run().to_string()).map_err(RoutingError::Thread)?;
        let paths = self.plan.map(NarrowPaths::open).transpose()?;
        Ok(Followed { routing: self, paths, narrowed: None, addresses, ways, moved })
    }
}

impl Followed {
    /// What happens next; never returns if nobody looks any more: the daemon hears of the thread's end elsewhere.
    pub async fn change(&mut self) -> Change {
        tokio::select! {
            Ok(()) = self.addresses.changed() => Change::Addresses(self.addresses.borrow_and_update().clone()),
            Some(destinations) = self.moved.recv() => Change::NextHops(destinations),
            else => std::future::pending().await,
        }
    }

    /// A message of a flow leaves for `destination`: from now on it is told when the way there changes.
    pub fn use_way(&self, destination: IpAddr) {
        self.ways.use_way(destination, Instant::now());
    }

    /// Has packets with AH to an IPv6 destination fragmented to the MTU of their path. On IPv4 routers do it.
    pub fn narrow(&mut self, destination: IpAddr, mtu: u32) {
        let (Some(paths), IpAddr::V6(destination)) = (&self.paths, destination) else { return };
        // Whoever sends errors does not decide how often the routes are read: the next error about this path tells again.
        if self.narrowed.is_some_and(|last| last.elapsed() < BETWEEN_PATHS) {
            return;
        }
        self.narrowed = Some(Instant::now());
        let state = lock(&self.routing.state);
        if state.opened {
            return;
        }
        match paths.narrow(destination, mtu) {
            Ok(true) => tracing::info!(%destination, mtu, "the path is narrower than its first link"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%destination, mtu, %error, "packets with AH that are longer than the path's MTU may be lost"),
        }
    }

    /// For `status`: how many routes have room for AH, what has none and why, and how often it could not be made.
    pub fn show(&self) -> Value {
        let state = lock(&self.routing.state);
        let left = state.left.iter().map(|left| json!({ "route": left.route, "why": left.why.to_string() }));
        json!({ "lowered": state.lowered, "left": left.collect::<Vec<_>>(), "failed": state.failed })
    }
}

impl State {
    fn take(&mut self, outcome: Outcome) {
        for left in outcome.left.iter().filter(|left| !self.left.contains(left)) {
            tracing::warn!(
                route = left.route,
                why = %left.why,
                "keeps its MTU: packets with AH that fill it will be fragmented or refused"
            );
        }
        self.lowered = outcome.lowered.len();
        self.left = outcome.left;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Follower {
    events: RoutingEvents,
    own: Option<u32>,
    routes: Option<Routes>,
    state: Arc<Mutex<State>>,
    told: watch::Sender<Vec<IpAddr>>,
    ways: Ways,
    moving: mpsc::Sender<BTreeSet<IpAddr>>,
}

impl Follower {
    /// Follows until the socket fails; answers why.
    fn run(mut self) -> NetlinkError {
        let (mut pause, mut quiet) = (PAUSE, QUIET);
        loop {
            if let Err(error) = self.wait(pause, quiet) {
                return error;
            }
            let start = Instant::now();
            quiet = match self.look() {
                Ok(()) => QUIET,
                Err(error) => {
                    tracing::warn!(%error, "routes and addresses are as they were; trying again");
                    lock(&self.state).failed += 1;
                    RETRY
                }
            };
            let rest = start.elapsed().saturating_mul(SHARE);
            pause = rest.clamp(PAUSE, LONGEST_PAUSE);
            quiet = quiet.max(rest);
        }
    }

    /// Waits for a change and those that come with it. What it does to next hops cannot wait.
    fn wait(&mut self, pause: Duration, quiet: Duration) -> Result<(), NetlinkError> {
        if self.events.changed(self.own, quiet)? == Settled::Changed {
            self.look_at_ways();
            std::thread::sleep(pause);
            self.events.has_changed(self.own)?;
        }
        self.look_at_ways();
        Ok(())
    }

    fn look_at_ways(&self) {
        // What cannot be told now is seen at the next look.
        let Ok(place) = self.moving.try_reserve() else { return };
        match self.ways.look(Instant::now()) {
            Ok(destinations) if destinations.is_empty() => {}
            Ok(destinations) => place.send(destinations),
            Err(error) => tracing::warn!(%error, "cannot look at next hops; trying again"),
        }
    }

    fn look(&mut self) -> Result<(), RoutingError> {
        if let Some(routes) = &mut self.routes {
            // Held until all is done: whoever opens waits for it, and nothing is lowered again afterwards.
            let mut state = lock(&self.state);
            if !state.opened {
                let outcome = routes.apply()?;
                state.take(outcome);
            }
        }
        let now = local_addresses().map_err(RoutingError::Addresses)?;
        self.told.send_if_modified(|addresses| {
            let differs = *addresses != now;
            *addresses = now;
            differs
        });
        Ok(())
    }
}
