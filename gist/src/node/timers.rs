//! All timers of a node in one order.
//!
//! There may be a million routing states, each with several timers. So a routing state keeps the moments of its timers itself, and here is
//! only the earliest of them; of the two states of a session that passes through, the earliest of both.

use std::collections::{BTreeMap, BTreeSet};

use super::machines::association;
use super::routing_state::RoutingKey;
use super::sorted::SortedSet;
use crate::api::AssociationId;
use crate::time::Instant;

/// Whose time has come. At the same moment the one listed first is first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Due {
    /// A timer of one of the routing states of this name, which know themselves whose and which one.
    State(RoutingKey),
    /// An association's.
    Association(AssociationId, association::Timer),
    /// The rate limiter's: a waiting datagram may go.
    Datagrams,
}

/// Running timers. At most one for each name of routing states and a few for each association, so their caps bound it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Timers {
    states: SortedSet<(Instant, RoutingKey)>,
    associations: BTreeSet<(Instant, AssociationId, association::Timer)>,
    running: BTreeMap<(AssociationId, association::Timer), Instant>,
    datagrams: Option<Instant>,
}

impl Timers {
    /// The first timer of the routing states of this name is due then, and was due before as the caller has noted; `None` where no timer
    /// runs.
    pub(super) fn move_states(&mut self, key: &RoutingKey, from: Option<Instant>, to: Option<Instant>) {
        if from == to {
            return;
        }
        if let Some(at) = from {
            self.states.remove(&(at, key.clone()));
        }
        if let Some(at) = to {
            self.states.insert((at, key.clone()));
        }
    }

    /// Starts an association's timer, afresh if it runs.
    pub(super) fn start(&mut self, id: AssociationId, timer: association::Timer, at: Instant) {
        self.stop(id, timer);
        self.associations.insert((at, id, timer));
        self.running.insert((id, timer), at);
    }

    /// Stops an association's timer if it runs.
    pub(super) fn stop(&mut self, id: AssociationId, timer: association::Timer) {
        if let Some(at) = self.running.remove(&(id, timer)) {
            self.associations.remove(&(at, id, timer));
        }
    }

    /// Whether an association's timer runs.
    pub(super) fn is_running(&self, id: AssociationId, timer: association::Timer) -> bool {
        self.running.contains_key(&(id, timer))
    }

    /// When the first datagram that waits may go, if one does.
    pub(super) fn set_datagrams(&mut self, at: Option<Instant>) {
        self.datagrams = at;
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.first().map(|(at, _)| at)
    }

    /// Takes the earliest one that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        let (_, kind) = self.first().filter(|(at, _)| *at <= now)?;
        match kind {
            Kind::States => self.states.pop_first().map(|(_, key)| Due::State(key)),
            Kind::Association => self.associations.pop_first().map(|(_, id, timer)| {
                self.running.remove(&(id, timer));
                Due::Association(id, timer)
            }),
            Kind::Datagrams => self.datagrams.take().map(|_| Due::Datagrams),
        }
    }

    fn first(&self) -> Option<(Instant, Kind)> {
        let states = self.states.first().map(|(at, _)| (*at, Kind::States));
        let association = self.associations.first().map(|(at, ..)| (*at, Kind::Association));
        let datagrams = self.datagrams.map(|at| (at, Kind::Datagrams));
        states.into_iter().chain(association).chain(datagrams).min()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    States,
    Association,
    Datagrams,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Direction, LooseEnd, Mri, NslpId, SessionId};

    /// Each name of routing states has one of them all the time.
    #[test]
    fn a_timer_of_routing_states_takes_two_words() {
        assert_eq!(size_of::<(Instant, RoutingKey)>(), 16);
    }

    #[test]
    fn timers_come_in_the_order_of_their_time() {
        let key = |id| (AssociationId(id), association::Timer::NoHello);
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        let mut start = |id, at| timers.start(AssociationId(id), association::Timer::NoHello, at);
        start(1, at(30));
        start(2, at(10));
        start(3, at(20));
        start(2, at(40));
        timers.stop(AssociationId(3), association::Timer::NoHello);
        assert_eq!(timers.next(), Some(at(30)));
        assert_eq!(timers.pop_due(at(29)), None);
        assert_eq!(timers.pop_due(at(99)), Some(Due::Association(key(1).0, key(1).1)));
        assert!(!timers.is_running(key(1).0, key(1).1));
        assert!(timers.is_running(key(2).0, key(2).1));
        assert_eq!(timers.pop_due(at(99)), Some(Due::Association(key(2).0, key(2).1)));
        assert_eq!(timers, Timers::default());
    }

    /// The states of a name have one place in the order, wherever their first timer goes, and among equals states come first.
    #[test]
    fn routing_states_of_a_name_have_one_place_in_the_order() {
        let end = |last| core::net::Ipv4Addr::new(192, 0, 2, last).into();
        let mri = Mri::LooseEnd(LooseEnd { direction: Direction::Downstream, source: end(1), destination: end(2) });
        let key = |session| RoutingKey::along(NslpId(1), SessionId([session; 16]), &mri);
        let at = Instant::from_micros;
        let mut timers = Timers::default();
        timers.move_states(&key(1), None, Some(at(20)));
        timers.move_states(&key(1), Some(at(20)), Some(at(10)));
        timers.move_states(&key(1), Some(at(10)), Some(at(30)));
        timers.move_states(&key(0), None, Some(at(30)));
        timers.move_states(&key(2), None, Some(at(20)));
        timers.move_states(&key(2), Some(at(20)), None);
        timers.set_datagrams(Some(at(30)));
        timers.start(AssociationId(1), association::Timer::NoHello, at(30));
        assert_eq!(timers.pop_due(at(29)), None);
        let due: Vec<_> = core::iter::from_fn(|| timers.pop_due(at(30))).collect();
        let others = [Due::Association(AssociationId(1), association::Timer::NoHello), Due::Datagrams];
        assert_eq!(due, [[Due::State(key(0)), Due::State(key(1))], others].concat());
        assert_eq!(timers, Timers::default());
    }
}
