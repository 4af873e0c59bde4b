//! What happens to links, addresses and routes while a daemon runs: a thread keeps room for AH on the routes of a host, and
//! tells of new addresses.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use traffic::netlink::NetlinkError;
use traffic::routes::{Left, MtuPlan, Outcome, Paths, Routes};
use traffic::routing_events::RoutingEvents;

use crate::config::local_addresses;
use crate::rules::Undo;
use crate::threads::Threads;

/// How long to wait after a change for those that come with it.
const PAUSE: Duration = Duration::from_millis(100);
/// The same for routing tables so large that a look at them takes long.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A look at everything is followed by a rest of so many times its own length, but for changes no longer than [`LONGEST_PAUSE`].
const SHARE: u32 = 5;
/// How often everything is looked at without being told: not all that happens is.
const QUIET: Duration = Duration::from_secs(5);
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
    paths: Option<Paths>,
    /// When the second table was told of a path last.
    narrowed: Option<Instant>,
    addresses: watch::Receiver<Vec<IpAddr>>,
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
        let follower = Follower { events, own, routes, state: Arc::clone(&self.state), told };
        threads.spawn("routing", move || follower.run().to_string()).map_err(RoutingError::Thread)?;
        let paths = self.plan.map(Paths::open).transpose()?;
        Ok(Followed { routing: self, paths, narrowed: None, addresses })
    }
}

impl Followed {
    /// The node's addresses whenever they have changed; never returns if nobody looks at them any more.
    pub async fn addresses(&mut self) -> Vec<IpAddr> {
        if self.addresses.changed().await.is_err() {
            // The daemon hears of the thread's end elsewhere.
            std::future::pending::<()>().await;
        }
        self.addresses.borrow_and_update().clone()
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
}

impl Follower {
    /// Follows until the socket fails; answers why.
    fn run(mut self) -> NetlinkError {
        let (mut pause, mut quiet) = (PAUSE, QUIET);
        loop {
            if let Err(error) = self.events.settled(self.own, pause, quiet) {
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
