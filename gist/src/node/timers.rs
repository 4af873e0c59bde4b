//! All timers of a node in one order.

use std::collections::{BTreeMap, BTreeSet};

use super::machines::{association, querying, responding};
use super::routing_state::{RoutingKey, User};
use crate::api::AssociationId;
use crate::time::Instant;

/// Whose timer, and which.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum TimerKey {
    /// A querying machine's.
    Querying(RoutingKey, querying::Timer),
    /// A responding machine's.
    Responding(RoutingKey, responding::Timer),
    /// An association's.
    Association(AssociationId, association::Timer),
    /// A querying state's whose message waits until the peer takes more.
    QueryingWaits(RoutingKey),
    /// The same of a responding state.
    RespondingWaits(RoutingKey),
    /// The rate limiter's: a waiting datagram may go.
    Datagrams,
}

impl TimerKey {
    /// Of a message that waits.
    pub(super) fn waiting(user: &User) -> Self {
        match user {
            User::Querying(key) => Self::QueryingWaits(key.clone()),
            User::Responding(key) => Self::RespondingWaits(key.clone()),
        }
    }
}

/// Running timers. At most a few for each routing state and association, so their caps bound it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, TimerKey)>,
    running: BTreeMap<TimerKey, Instant>,
}

impl Timers {
    /// Starts the timer, afresh if it runs.
    pub(super) fn start(&mut self, key: TimerKey, at: Instant) {
        self.stop(&key);
        self.due.insert((at, key.clone()));
        self.running.insert(key, at);
    }

    /// Stops the timer if it runs.
    pub(super) fn stop(&mut self, key: &TimerKey) {
        if let Some((key, at)) = self.running.remove_entry(key) {
            self.due.remove(&(at, key));
        }
    }

    pub(super) fn is_running(&self, key: &TimerKey) -> bool {
        self.running.contains_key(key)
    }

    pub(super) fn expiry(&self, key: &TimerKey) -> Option<Instant> {
        self.running.get(key).copied()
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the earliest one that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<TimerKey> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        self.running.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each routing state has one or two of them all the time, twice.
    #[test]
    fn a_timer_takes_three_words() {
        assert_eq!(size_of::<(Instant, TimerKey)>(), 24);
    }

    #[test]
    fn timers_come_in_the_order_of_their_time() {
        let key = |id| TimerKey::Association(AssociationId(id), association::Timer::NoHello);
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        timers.start(key(1), at(30));
        timers.start(key(2), at(10));
        timers.start(key(3), at(20));
        timers.start(key(2), at(40));
        timers.stop(&key(3));
        assert_eq!(timers.next(), Some(at(30)));
        assert_eq!(timers.pop_due(at(29)), None);
        assert_eq!(timers.pop_due(at(99)), Some(key(1)));
        assert!(!timers.is_running(&key(1)));
        assert_eq!(timers.expiry(&key(2)), Some(at(40)));
        assert_eq!(timers.pop_due(at(99)), Some(key(2)));
        assert_eq!(timers, Timers::default());
    }
}
