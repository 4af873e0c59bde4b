//! All timers of a machine's sessions, in the order of their expiry.

use std::collections::{BTreeMap, BTreeSet};

use gist::time::Instant;

/// Running timers, named by session and timer. At most one of a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Timers<K, T> {
    by_name: BTreeMap<(K, T), Instant>,
    by_time: BTreeSet<(Instant, K, T)>,
}

impl<K: Copy + Ord, T: Copy + Ord> Timers<K, T> {
    pub(crate) fn new() -> Self {
        Self { by_name: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Starts a timer, afresh if it runs.
    pub(crate) fn start(&mut self, session: K, timer: T, expires_at: Instant) {
        self.stop(session, timer);
        self.by_name.insert((session, timer), expires_at);
        self.by_time.insert((expires_at, session, timer));
    }

    /// Stops a timer if it runs.
    pub(crate) fn stop(&mut self, session: K, timer: T) {
        if let Some(expires_at) = self.by_name.remove(&(session, timer)) {
            self.by_time.remove(&(expires_at, session, timer));
        }
    }

    /// When a timer expires, if it runs.
    pub(crate) fn expiry(&self, session: K, timer: T) -> Option<Instant> {
        self.by_name.get(&(session, timer)).copied()
    }

    /// The next expiry of all.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(expires_at, ..)| *expires_at)
    }

    /// Takes out the earliest timer that has expired.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<(K, T)> {
        let (expires_at, session, timer) = self.by_time.first().copied()?;
        if expires_at > now {
            return None;
        }
        self.stop(session, timer);
        Some((session, timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::from_micros(micros)
    }

    #[test]
    fn timers_expire_in_order_and_once() {
        let mut timers = Timers::new();
        timers.start(1, 'a', at(20));
        timers.start(2, 'a', at(10));
        timers.start(1, 'b', at(30));
        timers.start(1, 'a', at(15));
        timers.stop(1, 'b');
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.expiry(1, 'a'), Some(at(15)));
        assert_eq!(timers.pop_expired(at(9)), None);
        assert_eq!(timers.pop_expired(at(99)), Some((2, 'a')));
        assert_eq!(timers.pop_expired(at(99)), Some((1, 'a')));
        assert_eq!(timers.pop_expired(at(99)), None);
        assert_eq!(timers.next(), None);
    }
}
