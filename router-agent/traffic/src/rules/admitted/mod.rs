//! The permissions that rules know: a router lets nothing else up to its packet queue ([`super::shield`]), fragments under their SPIs are
//! made whole ([`super::fragments`]), and a router says of their packets that they are too big whatever else it says that of
//! ([`super::router`]).
//!
//! A thread of its own tells the kernel, so that neither packets nor signalling wait for it: at once if nothing is under way, and
//! what comes meanwhile together.

mod book;
mod elements;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::book::Association;
use self::book::{Book, Next};
use self::elements::Changes;
use super::key::Key;
use super::plan::Set;
use super::{Owner, Role, shield};
use crate::counters::Count;
use crate::flow::Flow;
use crate::netlink::{Errno, NetlinkError};
use crate::reason::DropReason;
use crate::table::DEFAULT_CAPACITY;

/// The live permissions, by addresses and SPI. Only their daemon fills it.
pub(super) const ADMITTED: &str = "permissions";
/// Their flows, by which a packet without AH is told from one without permission.
pub(super) const FLOWS: &str = "permitted-flows";
/// How long one is kept if its daemon does not say, in milliseconds.
const KEPT: u64 = 60_000;
/// How long the thread waits for rules that do not stand.
const RETRY: Duration = Duration::from_millis(20);

/// The set that they stand in, with room for `most` of them and for some that have ended and have not been cleared away yet.
pub(super) fn set(most: usize) -> Set {
    Set { capacity: room(most), ..Set::new(ADMITTED.into(), Key::Association, KEPT) }
}

/// The set of their flows, and of the sources and SPIs of tunnels among them ([`key::tunnels_towards`](super::key::tunnels_towards),
/// [`key::tunnel`](super::key::tunnel)).
pub(super) fn flows(most: usize) -> Set {
    Set { capacity: room(most).saturating_mul(3), ..Set::new(FLOWS.into(), Key::Flow, KEPT) }
}

/// Elements that there is room for where `most` may be live.
pub(crate) fn room(most: usize) -> u32 {
    u32::try_from(most.saturating_add(most / 4).saturating_add(1024)).unwrap_or(u32::MAX)
}

/// Stands for one request to [`Admitted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What stands before the rules and lets by what they know. It is told of a change before they are.
pub trait Front: Send + Sync {
    /// Has a permission stand until then, or no longer. Told again it does the same again. What has ended is told to stand no longer some
    /// time afterwards, with what comes then.
    ///
    /// # Errors
    ///
    /// Why it cannot, for people.
    fn change(&self, association: Association, until: Option<Instant>) -> Result<(), String>;

    /// Packets with AH under an SPI that is not known, dropped since it stands; `None` if that cannot be read.
    fn dropped(&self) -> Option<Count>;

    /// Stands in nobody's way any more: there are no rules to stand before. What somebody else takes away does not.
    fn give_way(&self) {}
}

/// Called by the thread when requests have been settled; must not block.
type Notify = Box<dyn Fn() + Send>;

/// The permissions that a daemon has told the rules of its role. Clones are the same; with the last the thread ends.
///
/// At a host they decide only about room in the kernel's memory for fragments. At a router whose rules have a shield nothing else comes
/// to the queue, so that a Permission must not be passed on before the request for it has been settled, nor a removal be confirmed.
#[derive(Debug, Clone)]
pub struct Admitted(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    role: Role,
    owner: Owner,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Something is to be told, or has been.
    changed: Condvar,
}

struct Inner {
    book: Book,
    notify: Vec<Notify>,
    tally: Tally,
    front: Option<Arc<dyn Front>>,
    stop: bool,
    ended: bool,
}

/// What rules have counted whose table was replaced since: as far as somebody has read it.
#[derive(Default)]
struct Tally {
    before: BTreeMap<DropReason, Count>,
    last: BTreeMap<DropReason, Count>,
}

impl Tally {
    /// Takes a new reading, and gives what it comes to with those of former tables.
    fn add(&mut self, read: Vec<(DropReason, Count)>) -> Vec<(DropReason, Count)> {
        let read: BTreeMap<_, _> = read.into_iter().collect();
        let of = |counts: &BTreeMap<DropReason, Count>, reason: &DropReason| counts.get(reason).copied().unwrap_or_default();
        if self.last.iter().any(|(reason, last)| of(&read, reason).packets < last.packets) {
            for (reason, last) in &self.last {
                let before = self.before.entry(*reason).or_default();
                *before = before.plus(*last);
            }
        }
        self.last.clone_from(&read);
        let sum = |reason: &DropReason| (*reason, of(&read, reason).plus(of(&self.before, reason)));
        DropReason::ALL.iter().map(sum).filter(|(_, count)| count.packets > 0).collect()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Admitted {
    /// None, in the network namespace of the calling thread; as many at the most as a table holds by default.
    ///
    /// # Errors
    ///
    /// No socket, or no thread.
    pub fn open(role: Role) -> Result<Self, NetlinkError> {
        Self::at_most(role, DEFAULT_CAPACITY)
    }

    /// The same with another cap. The rules' own ([`RouterRules::permissions`](super::RouterRules::permissions)) must not be smaller.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn at_most(role: Role, most: usize) -> Result<Self, NetlinkError> {
        let owner = Owner::open()?;
        let inner = Inner { book: Book::new(most), notify: Vec::new(), tally: Tally::default(), front: None, stop: false, ended: false };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), changed: Condvar::new() });
        let (own, through) = (Arc::clone(&shared), owner.clone());
        let work = move || {
            if catch_unwind(AssertUnwindSafe(|| own.tell(role, &through))).is_err() {
                tracing::error!("the thread that tells the filter rules of permissions ended: no new ones are let through");
            }
            own.lock().ended = true;
            own.say_so();
        };
        let thread = std::thread::Builder::new().name("pbs-permissions".to_owned()).spawn(work);
        let thread = Some(thread.map_err(|error| NetlinkError::Open(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?);
        Ok(Self(Arc::new(Handle { role, owner, shared, thread })))
    }

    /// Through what the table is changed here. Whoever installs it does so through the same, or it is not to be changed here.
    pub fn owner(&self) -> &Owner {
        &self.0.owner
    }

    /// Has `notify` called whenever requests have been settled.
    pub fn notify(&self, notify: Notify) {
        self.lock().notify.push(notify);
    }

    /// Tells `front` of all that the rules are told of from now on: to be called before the first permission is.
    pub fn stand_behind(&self, front: Arc<dyn Front>) {
        self.lock().front = Some(front);
    }

    /// Lets packets of a flow under this SPI through, for as long as its permission `lasts`.
    pub fn admit(&self, flow: Flow, spi: u32, lasts: Duration) -> Ticket {
        let now = Instant::now();
        self.change(|book| book.admit(flow, spi, now.checked_add(lasts).unwrap_or(now), now))
    }

    /// Has that end when no more than `left` is over.
    pub fn shorten(&self, flow: Flow, spi: u32, left: Duration) -> Ticket {
        let now = Instant::now();
        self.change(|book| book.shorten(flow, spi, now.checked_add(left).unwrap_or(now), now))
    }

    /// Has it end now. What is another flow's stays.
    pub fn forget(&self, flow: Flow, spi: u32) -> Ticket {
        let now = Instant::now();
        self.change(|book| book.forget(flow, spi, now))
    }

    /// What has become of a request; `None` if that is not known yet. An error is said once.
    ///
    /// # Errors
    ///
    /// Why the kernel has not taken it, for people; it is then as it was before.
    pub fn outcome(&self, ticket: Ticket) -> Option<Result<(), String>> {
        let mut inner = self.lock();
        let ended = inner.ended;
        inner.book.outcome(ticket.0).or_else(|| ended.then(|| Err("nobody tells the filter rules of permissions any more".to_owned())))
    }

    /// Waits until every request has been settled.
    pub fn settled(&self) {
        let mut inner = self.lock();
        while !inner.book.is_settled() && !inner.ended {
            inner = self.0.shared.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells the rules of everything anew: they have been installed again.
    pub fn refill(&self) {
        self.lock().book.refill(Instant::now());
        self.0.shared.changed.notify_all();
    }

    /// There are no rules any more, and there is nothing to tell: every request is settled.
    pub fn open_up(&self) {
        let front = {
            let mut inner = self.lock();
            inner.book.open();
            inner.front.take()
        };
        if let Some(front) = front {
            front.give_way();
        }
        self.0.shared.say_so();
    }

    /// Permissions known to the rules, and how often one could not be made known.
    pub fn counts(&self) -> (usize, u64) {
        self.lock().book.counts()
    }

    /// What the rules and what stands before them have dropped before the queue, by reason; nothing at a host, whose rules judge nothing, or
    /// `None` if that cannot be read.
    pub fn dropped(&self) -> Option<Vec<(DropReason, Count)>> {
        if self.0.role == Role::Host {
            return Some(Vec::new());
        }
        let counters = super::counters(Role::Router).ok()?;
        let (mut dropped, front) = {
            let mut inner = self.lock();
            (inner.tally.add(shield::dropped(&counters)), inner.front.clone())
        };
        let before = front.map_or(Some(Count::default()), |front| front.dropped())?;
        match dropped.iter_mut().find(|(reason, _)| *reason == DropReason::UnknownSpi) {
            Some((_, count)) => *count = count.plus(before),
            None if before.packets > 0 => dropped.insert(0, (DropReason::UnknownSpi, before)),
            None => {}
        }
        Some(dropped)
    }

    fn change(&self, change: impl FnOnce(&mut Book) -> u64) -> Ticket {
        let ticket = change(&mut self.lock().book);
        self.0.shared.changed.notify_all();
        Ticket(ticket)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.shared.lock()
    }
}

/// Who stands before the rules is told first: so nothing is known there that is refused for want of room.
fn tell_front(front: Option<&dyn Front>, changes: &Changes) -> Result<(), String> {
    let Some(front) = front else { return Ok(()) };
    changes.ended.iter().try_for_each(|association| front.change(*association, None))?;
    changes.associations.iter().try_for_each(|(association, (_, ends))| front.change(*association, *ends))
}

/// The rules go on without some changes, and so does who stands before them. Not while they are to be told again: known there a moment early a
/// permission harms nothing, and one that lives would be missed.
fn take_back(front: Option<&dyn Front>, stands: &[(Association, Option<Instant>)]) {
    let Some(front) = front else { return };
    for (association, until) in stands {
        if let Err(why) = front.change(*association, *until) {
            let (source, destination, spi) = association;
            tracing::warn!(%source, %destination, spi, why, "a permission stands otherwise before the filter rules than in them");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the kernel until it is asked to stop. What waits then is told no more.
    fn tell(&self, role: Role, owner: &Owner) {
        let mut inner = self.lock();
        while !inner.stop {
            let now = Instant::now();
            let Some(changes) = inner.book.take_changes(now) else {
                inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let front = inner.front.clone();
            drop(inner);
            let told = tell_front(front.as_deref(), &changes);
            let told = told.map_err(|why| (false, why)).and_then(|()| {
                let told = owner.with(|socket| socket.transact(elements::transaction(role, &changes, now)));
                told.map_err(|error| (error.errno() == Some(Errno::ENOENT), error.to_string()))
            });
            inner = self.lock();
            let wait = match told {
                Ok(()) => {
                    inner.book.settle();
                    false
                }
                Err((missing, error)) => {
                    tracing::debug!(error, "the filter rules were not told of permissions");
                    let next = inner.book.fail(missing, &error, Instant::now());
                    if let Next::Without(stands) = &next {
                        take_back(front.as_deref(), stands);
                    }
                    next == Next::AfterAWhile
                }
            };
            inner.notify.iter().for_each(|notify| notify());
            self.changed.notify_all();
            if wait {
                inner = self.changed.wait_timeout(inner, RETRY).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn say_so(&self) {
        self.lock().notify.iter().for_each(|notify| notify());
        self.changed.notify_all();
    }
}
