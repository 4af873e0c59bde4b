//! Handshakes with peers that nobody knows yet: how many at once, how many of one source, and who gives way.
//!
//! A connection costs a stranger nothing, so places must not be held by those who only sit there: when all are taken, the
//! source with the most unfinished handshakes loses its oldest. A peer that connects once is displaced only when every
//! source has no more than one, and then after all that came before.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use super::Limits;

/// All unfinished handshakes.
#[derive(Debug)]
pub(super) struct Visits {
    most: usize,
    most_of_source: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// By source, oldest first; without a handle until its task has been started. No source is kept without a handshake, so
    /// there are `most` at most.
    sources: BTreeMap<IpAddr, VecDeque<(u64, Option<AbortHandle>)>>,
    last_number: u64,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    /// There was a place.
    Free,
    /// Another handshake has been ended for it.
    Displacing,
    /// Its source has enough; nothing was started.
    Refused,
}

/// One unfinished handshake; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Visit {
    visits: Arc<Visits>,
    source: IpAddr,
    number: u64,
}

impl Visits {
    pub(super) fn new(limits: Limits) -> Self {
        Self { most: limits.handshakes.max(1), most_of_source: limits.handshakes_per_source.max(1), table: Mutex::default() }
    }

    /// Starts a handshake with `peer`, whose task must own the visit, unless its source has enough.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr, start: impl FnOnce(Visit) -> AbortHandle) -> Entered {
        let source = source_of(peer);
        let mut table = self.table();
        if table.sources.get(&source).is_some_and(|handshakes| handshakes.len() >= self.most_of_source) {
            return Entered::Refused;
        }
        let displaced = if table.len() >= self.most { table.pop() } else { None };
        table.last_number += 1;
        let number = table.last_number;
        table.sources.entry(source).or_default().push_back((number, None));
        // Not under the lock: a runtime that is ending drops a new task, and its visit, at once.
        drop(table);
        let started = start(Visit { visits: Arc::clone(self), source, number });
        match self.table().place(source, number) {
            Some(place) => *place = Some(started),
            // Displaced by the other listener meanwhile, or at its end already.
            None => started.abort(),
        }
        displaced.map_or(Entered::Free, |displaced| {
            displaced.iter().for_each(AbortHandle::abort);
            Entered::Displacing
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn len(&self) -> usize {
        self.sources.values().map(VecDeque::len).sum()
    }

    /// Takes out the oldest handshake of the source that has the most; of several such sources, the one that waits longest.
    fn pop(&mut self) -> Option<Option<AbortHandle>> {
        let age = |handshakes: &VecDeque<(u64, Option<AbortHandle>)>| Reverse(handshakes.front().map(|(number, _)| *number));
        let (source, _) = self.sources.iter().max_by_key(|(_, handshakes)| (handshakes.len(), age(handshakes)))?;
        let source = *source;
        let (_, oldest) = self.sources.get_mut(&source)?.pop_front()?;
        self.tidy(source);
        Some(oldest)
    }

    fn place(&mut self, source: IpAddr, number: u64) -> Option<&mut Option<AbortHandle>> {
        let mut handshakes = self.sources.get_mut(&source)?.iter_mut();
        handshakes.find(|(known, _)| *known == number).map(|(_, place)| place)
    }

    fn tidy(&mut self, source: IpAddr) {
        if self.sources.get(&source).is_some_and(VecDeque::is_empty) {
            self.sources.remove(&source);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut table = self.visits.table();
        if let Some(handshakes) = table.sources.get_mut(&self.source) {
            handshakes.retain(|(number, _)| *number != self.number);
        }
        table.tidy(self.source);
    }
}

/// Whom a limit counts together: one IPv4 address, or the /64 that one IPv6 host owns.
fn source_of(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Tasks that never end by themselves.
    fn silent(kept: &RefCell<Vec<(String, Visit)>>, from: &str, visit: Visit) -> AbortHandle {
        kept.borrow_mut().push((from.to_owned(), visit));
        tokio::spawn(std::future::pending::<()>()).abort_handle()
    }

    fn visits(most: usize, most_of_source: usize) -> Arc<Visits> {
        Arc::new(Visits::new(Limits { handshakes: most, handshakes_per_source: most_of_source, ..Limits::default() }))
    }

    #[tokio::test]
    async fn the_oldest_of_the_source_with_most_gives_way() {
        let visits = visits(6, 4);
        let kept = RefCell::default();
        let enter = |from: &str| visits.enter(from.parse().unwrap(), |visit| silent(&kept, from, visit));
        for from in ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.2", "10.0.0.3", "10.0.0.3"] {
            assert_eq!(enter(from), Entered::Free);
        }
        assert_eq!(enter("10.0.0.4"), Entered::Displacing);
        let left = |from: &str| visits.table().sources.get(&from.parse().unwrap()).map_or(0, VecDeque::len);
        assert_eq!(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(left), [1, 2, 2, 1]);
        // Two sources have two each: the one that waits longest loses one. Who came once stays.
        assert_eq!(enter("10.0.0.5"), Entered::Displacing);
        assert_eq!(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5"].map(left), [1, 1, 2, 1]);
    }

    #[tokio::test]
    async fn one_source_has_its_own_bound_and_gets_places_back() {
        let visits = visits(6, 2);
        let kept = RefCell::default();
        let enter = |from: &str| visits.enter(from.parse().unwrap(), |visit| silent(&kept, from, visit));
        let states = ["fd00::1", "fd00::2", "fd00::3"].map(enter);
        assert_eq!(states, [Entered::Free, Entered::Free, Entered::Refused], "the /64 counts");
        kept.borrow_mut().clear();
        assert_eq!(visits.table().len(), 0);
        assert!(visits.table().sources.is_empty());
        assert_eq!(enter("fd00::3"), Entered::Free);
    }
}
