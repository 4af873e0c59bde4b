//! The shield at the ingress of interfaces: whole packets with AH are judged there, before IP sees them.
//!
//! ```text
//!              ┌─ of a live permission ── signed ──▶ filter rules let it by unlooked ──▶ routing, queue
//! interface ──▶┤─ of none: dropped, counted
//!              └─ all else (fragments, options, no AH, by a link that is no Ethernet) ──▶ filter rules judge it as always
//! ```
//!
//! It knows what the set of the filter rules knows ([`Front`]), is told of each change before that, and takes a packet one line of the
//! processor's cache to decide about, where the set takes two or three and more instructions. It stands in front of a router all of whose
//! interfaces are closed, and whose rules know its sign ([`RouterRules::ingress`](crate::rules::RouterRules::ingress)).
//!
//! It is no door: with the process its programs go, then nothing is signed any more, and the rules look everything up. So they do with what
//! comes by an interface on which there is none. Interfaces are looked for every few seconds.

mod lines;
mod program;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::kernel::{Attached, Map, MapKind, Program, ProgramKind};
use super::link::Links;
use crate::counters::Count;
use crate::netlink::NetlinkError;
use crate::rules::{Association, Front};
use lines::Lines;
use program::{DROPPED_LEN, Parts};

/// Interfaces that it stands on at the most.
const MOST_INTERFACES: usize = 1024;
/// How often interfaces are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The name under which the kernel lists the program.
const PROGRAM_NAME: &str = "pbs_router_in";

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngressError {
    /// Links cannot be listed.
    #[error(transparent)]
    Link(#[from] NetlinkError),
    /// The kernel refuses something else.
    #[error("cannot {what}: {errno}{}", needed(*.errno))]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The kernel does not take the program.
    #[error("the kernel refuses the program at the ingress: {errno}: {said}{}", needed(*.errno))]
    Program {
        /// Its error.
        errno: Errno,
        /// The last of what it says about it.
        said: String,
    },
}

const fn needed(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => " (CAP_BPF and CAP_NET_ADMIN are needed)",
        Errno::EINVAL => " (Linux 6.6 is needed)",
        _ => "",
    }
}

fn refused(what: &'static str) -> impl Fn(Errno) -> IngressError {
    move |errno| IngressError::Refused { what, errno }
}

/// The shield at the ingress. With it the programs go.
#[derive(Debug)]
pub struct Ingress {
    shared: Arc<Shared>,
    /// Closed to end the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    lines: Mutex<Lines>,
    dropped: Map,
    program: Program,
    links: Links,
    standing: Mutex<Standing>,
}

/// Where it stands.
#[derive(Debug, Default)]
struct Standing {
    /// By number of the interface.
    interfaces: BTreeMap<u32, Stand>,
    /// Whether it is to stand nowhere any more.
    gave_way: bool,
}

/// One Ethernet link.
#[derive(Debug)]
struct Stand {
    name: String,
    there: Result<Attached, Errno>,
}

impl Ingress {
    /// Has it stand on every Ethernet link of the calling thread's network namespace, with room for as many permissions as the rules have for
    /// `most`. It knows none.
    ///
    /// # Errors
    ///
    /// The kernel has no such place for programs (Linux 6.6), or not for this process.
    pub fn open(most: usize) -> Result<Self, IngressError> {
        let lines = Lines::new(most).map_err(refused("make a map of permissions"))?;
        let dropped = Map::new(MapKind::PerProcessor, DROPPED_LEN, 1).map_err(refused("make a map of what is dropped"))?;
        let parts = Parts { lines: lines.map().descriptor(), dropped: dropped.descriptor(), mixing: lines.mixing() };
        let astray = |_| IngressError::Program { errno: Errno::EINVAL, said: "a jump leads nowhere".to_owned() };
        let code = program::assemble(&parts).map_err(astray)?;
        let program = Program::load(ProgramKind::Ingress, &code, PROGRAM_NAME);
        let program = program.map_err(|(errno, said)| IngressError::Program { errno, said })?;
        let (lines, standing) = (Mutex::new(lines), Mutex::default());
        let shared = Arc::new(Shared { lines, dropped, program, links: Links::open()?, standing });
        shared.look_around()?;
        if let Some(errno) = shared.standing().interfaces.values().find_map(|stand| stand.there.as_ref().err().copied()) {
            return Err(refused("set a program at the ingress of an interface")(errno));
        }
        let (stop, stopped) = mpsc::channel::<()>();
        let own = Arc::clone(&shared);
        let work = move || {
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                own.look_after();
            }
        };
        let thread = std::thread::Builder::new().name("pbs-ingress".to_owned()).spawn(work);
        let thread = thread.map_err(|error| refused("start a thread")(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What is to be told of permissions.
    pub fn front(&self) -> Arc<dyn Front> {
        self.shared.clone()
    }

    /// Each interface, and whether the shield stands there now: not if it could not be set, or somebody has just taken it off. `None` if it
    /// has given way to whoever opened the node.
    pub fn show(&self) -> Option<Vec<(String, bool)>> {
        let runs = |(index, stand): (&u32, &Stand)| (stand.name.clone(), stand.runs_on(*index));
        let standing = self.shared.standing();
        (!standing.gave_way).then(|| standing.interfaces.iter().map(runs).collect())
    }
}

impl Drop for Ingress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
        // Whoever is told of permissions may live on.
        self.shared.give_way();
    }
}

impl Stand {
    fn runs_on(&self, index: u32) -> bool {
        self.there.as_ref().is_ok_and(|there| there.runs_on(index).unwrap_or(false))
    }
}

impl Shared {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the program where it is not.
    fn look_around(&self) -> Result<(), NetlinkError> {
        let listed = self.links.list()?;
        let mut standing = self.standing();
        if standing.gave_way {
            return Ok(());
        }
        let standing = &mut standing.interfaces;
        standing.retain(|index, _| listed.iter().any(|link| link.index == *index));
        for link in listed.iter().filter(|link| link.address.is_some()) {
            if standing.get(&link.index).is_some_and(|stand| stand.runs_on(link.index)) {
                continue;
            }
            if standing.len() >= MOST_INTERFACES && !standing.contains_key(&link.index) {
                break;
            }
            let there = Attached::new(&self.program, link.index);
            if let Err(errno) = there {
                tracing::debug!(interface = link.name, %errno, "no shield at its ingress: the filter rules judge what comes by it");
            }
            standing.insert(link.index, Stand { name: link.name.clone(), there });
        }
        Ok(())
    }

    fn look_after(&self) {
        if let Err(error) = self.look_around() {
            tracing::debug!(%error, "interfaces are not known: the filter rules judge what comes by new ones");
        }
        // So that nothing is there when its time comes round again.
        if let Err(errno) = self.lines().clear_away(Instant::now()) {
            tracing::debug!(%errno, "permissions that have ended stand at the ingress still");
        }
    }
}

impl Front for Shared {
    fn change(&self, association: Association, until: Option<Instant>) -> Result<(), String> {
        self.lines().change(association, until)
    }

    fn dropped(&self) -> Option<Count> {
        let values = self.dropped.of_processors(&[0; 4]).ok()?;
        let (numbers, _) = values.as_chunks::<8>();
        let sum =
            |place: usize| numbers.iter().skip(place).step_by(2).map(|number| u64::from_ne_bytes(*number)).fold(0, u64::saturating_add);
        Some(Count { packets: sum(0), bytes: sum(1) })
    }

    fn give_way(&self) {
        let mut standing = self.standing();
        standing.gave_way = true;
        standing.interfaces.clear();
    }
}
