//! Routing state that is installed with the Query (RFC 5971 §6.3, cases 1 and 2), for applications whose policy says so.
//!
//! Anybody can write a Query. So states that nobody has confirmed have one part of the table, past which a Query is answered without keeping
//! anything, as everywhere else; they give their places to whatever else needs one, in an order that nobody outside knows; their Responses
//! have no turn before others, count against the limit on what is sent to one destination, and are repeated [`REPETITIONS`] times at most;
//! and of a Query that is kept, only what its Response needs is kept. A state that a Confirm has shown to be somebody's is never changed by a
//! Query.
//!
//! Where no Confirm is wanted (case 1), one is asked for all the same while much is asked in the name of one address or by everybody
//! (G-340): who has confirmed one state is a [neighbour](super::neighbours), and has an account of its own for the refreshes of the others.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::machines::responding::{Event, State, Timer};
use super::neighbours::Neighbours;
use super::querying_state::MAX_BACKOFF;
use super::receive_query::{Account, Asked, Existing};
use super::responding::{AcceptedQuery, Path, Responding, RespondingInput};
use super::routing_state::{Clocks, Peer, Route, RoutingKey};
use super::{Installation, Node};
use crate::time::Instant;
use crate::wire::NslpId;

/// One part in so many of the table is for states that nobody has confirmed.
const UNCONFIRMED_PART: usize = 4;

/// How often a Response is repeated until a Confirm comes, whatever is asked meanwhile: a Query may be forged, and then each costs whoever it
/// names (G-339). Against the loss of a Confirm, which is what repetition is for, two are enough.
const REPETITIONS: u32 = 2;

/// What states that came with a Query need beside the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Early {
    /// Those that no Confirm has shown to be anybody's, each with its place among them.
    unconfirmed: BTreeMap<RoutingKey, u64>,
    /// The same in the order of their places, which are drawn: the first one gives way first.
    order: BTreeSet<(u64, RoutingKey)>,
    /// Those whose Response is repeated until a Confirm comes; a confirmed one is among them while it is refreshed.
    awaited: BTreeMap<RoutingKey, Box<Awaited>>,
    /// Who has shown to be there.
    pub(super) neighbours: Neighbours,
}

/// A Response with its repetitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Awaited {
    asked: Asked,
    since: Instant,
    /// How often the timer has been started since the last Query.
    started: u32,
    /// How often the Response has been repeated since the last Confirm.
    repeated: u32,
}

impl Early {
    pub(super) fn is_unconfirmed(&self, key: &RoutingKey) -> bool {
        self.unconfirmed.contains_key(key)
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// A state that nobody has confirmed takes the place that was drawn for it.
    fn insert(&mut self, key: RoutingKey, place: u64) {
        self.order.insert((place, key.clone()));
        self.unconfirmed.insert(key, place);
    }

    /// A valid Confirm has come.
    pub(super) fn confirmed(&mut self, key: &RoutingKey) {
        self.forget(key);
    }

    /// Nothing is waited for any more, or the state is gone.
    pub(super) fn forget(&mut self, key: &RoutingKey) {
        if let Some(place) = self.unconfirmed.remove(key) {
            self.order.remove(&(place, key.clone()));
        }
        self.awaited.remove(key);
    }

    /// A Query has come whose Response is repeated: the intervals begin anew, the whole does not (G-285).
    fn await_confirm(&mut self, key: &RoutingKey, asked: Asked, now: Instant) {
        let (since, repeated) = self.awaited.get(key).map_or((now, 0), |awaited| (awaited.since, awaited.repeated));
        self.awaited.insert(key.clone(), Box::new(Awaited { asked, since, started: 0, repeated }));
    }

    /// The Query whose Response goes once more.
    fn repeat(&mut self, key: &RoutingKey) -> Option<Asked> {
        let awaited = self.awaited.get_mut(key)?;
        awaited.repeated = awaited.repeated.saturating_add(1);
        Some(awaited.asked.clone())
    }

    /// Whether the Confirm for a state that nobody has confirmed yet has been waited for long enough: T2 (rule 9, G-192, G-200).
    pub(super) fn has_waited(&self, key: &RoutingKey, timer: Duration, now: Instant) -> bool {
        self.awaited.get(key).is_none_or(|awaited| now >= awaited.since + timer.saturating_mul(MAX_BACKOFF))
    }

    /// When No_Confirm expires: the interval doubles with each Response, as with Queries (G-200). When none goes any more it is the end of a
    /// state that nobody has confirmed, and never for another.
    pub(super) fn next_repetition(&mut self, key: &RoutingKey, timer: Duration, now: Instant) -> Option<Instant> {
        let is_unconfirmed = self.is_unconfirmed(key);
        let Some(awaited) = self.awaited.get_mut(key) else { return Some(now + timer) };
        let end = is_unconfirmed.then_some(awaited.since + timer.saturating_mul(MAX_BACKOFF));
        if awaited.repeated >= REPETITIONS {
            return end;
        }
        let interval = timer.saturating_mul(2_u32.saturating_pow(awaited.started).min(MAX_BACKOFF));
        awaited.started = awaited.started.saturating_add(1);
        Some(end.map_or(now + interval, |end| (now + interval).min(end)))
    }
}

impl Node {
    /// When the application's states come into being here.
    pub(super) fn installation(&self, nslp_id: NslpId) -> Installation {
        let registration = self.registration(nslp_id).filter(|registration| registration.offer.is_empty());
        registration.map_or(Installation::OnConfirm, |registration| registration.installation)
    }

    /// Whether a Query makes a state: its application has asked for that, and there is room. What a NAT has changed comes back in the
    /// Confirm only (G-326).
    pub(super) fn installs_on_query(&mut self, asked: &Asked, now: Instant) -> bool {
        let has_part = self.early.unconfirmed.len() < self.config.caps.routing_states / UNCONFIRMED_PART;
        let is_early = match self.installation(asked.nslp_id) {
            Installation::OnConfirm => false,
            Installation::OnQuery => true,
            Installation::WithoutConfirm => !self.wants_proof(asked, now),
        };
        is_early && has_part && self.has_room_for_state() && asked.query.nat.is_none()
    }

    /// Whether a Confirm is what keeps this state: in case 1 as well, once one has come or while proof is wanted of who asks.
    pub(super) fn requires_confirm(&mut self, key: &RoutingKey, asked: Option<&Asked>, now: Instant) -> bool {
        let is_free = self.installation(key.nslp_id) == Installation::WithoutConfirm && self.early.is_unconfirmed(key);
        !is_free || asked.is_some_and(|asked| self.wants_proof_again(asked, now))
    }

    /// Rules 1 and 5 of the machine: state with the Query.
    pub(super) fn create_early(&mut self, accepted: &AcceptedQuery, now: Instant) {
        let asked = &accepted.asked;
        let key = self.shared_key(RoutingKey::along(asked.nslp_id, asked.query.session, &asked.query.mri));
        self.early.insert(key.clone(), self.random.u64(&*self.backend.0));
        let path = self.path_of_query(asked);
        self.responding.insert(key.clone(), Box::new(Responding::new(path)));
        self.responding_event(&key, Event::RxQuery, RespondingInput::Query(Box::new(accepted.clone())), now);
    }

    /// The peer as its Query names it.
    fn path_of_query(&mut self, asked: &Asked) -> Path {
        let nli = &asked.query.nli;
        let route = Route::Datagram(asked.origin.reply_to(nli.address));
        Path {
            hop: self.hop_to(Peer::from(nli), route, asked.arrival.interface),
            ip_distance: asked.arrival.ip_distance,
            validity: self.agreed_validity(nli.validity).into(),
        }
    }

    /// The Response to the Query that the state has just been asked by, or that it waits with.
    pub(super) fn respond_to(&mut self, key: &RoutingKey, machine: &mut Responding, input: &RespondingInput, now: Instant) {
        let is_unconfirmed = self.early.is_unconfirmed(key);
        let asked = match input {
            RespondingInput::Query(accepted) => {
                if is_unconfirmed {
                    // Nobody has said anything better.
                    machine.lead_to(self.path_of_query(&accepted.asked));
                }
                if self.installation(key.nslp_id) == Installation::OnQuery {
                    self.early.await_confirm(key, accepted.asked.detached(), now);
                }
                Some(accepted.asked.clone())
            }
            _ => self.early.repeat(key),
        };
        let Some(asked) = asked else { return };
        let is_first = matches!(input, RespondingInput::Query(_));
        let confirm = self.requires_confirm(key, Some(&asked).filter(|_| is_first), now);
        let account = if is_first { self.account_of(machine, is_unconfirmed, &asked, now) } else { Account::Strangers };
        self.send_response(&asked, Some(Existing { route: machine.hop.route(), account, confirm }), now);
    }

    /// What nobody has confirmed takes no turn from what somebody has, nor does a Response that goes once more; but a neighbour's refreshes are
    /// no stranger's.
    fn account_of(&mut self, machine: &mut Responding, is_unconfirmed: bool, asked: &Asked, now: Instant) -> Account {
        let is_new = machine.expiry(Timer::ExpireRNode).is_none();
        if is_new || !machine.take_answer(asked.arrival.interface, self.config.query_timer, now) {
            return Account::Strangers;
        }
        match is_unconfirmed {
            false => Account::State,
            true if self.takes_turn_of_neighbour(asked, now) => Account::Neighbour,
            true => Account::Strangers,
        }
    }

    fn has_room_for_state(&self) -> bool {
        self.routing_states() < self.config.caps.routing_states
    }

    /// Whether one more state fits that somebody stands for. In a full table one that nobody has confirmed gives way; it ends as if it had
    /// waited long enough.
    pub(super) fn make_room_for_state(&mut self, now: Instant) -> bool {
        if self.has_room_for_state() {
            return true;
        }
        let Some((_, key)) = self.early.order.first().cloned() else { return false };
        self.counters.unconfirmed_displaced += 1;
        let waits = self.responding.get(&key).is_some_and(|machine| machine.state == State::AwaitingConfirm);
        let timer = if waits { Timer::NoConfirm } else { Timer::ExpireRNode };
        self.responding_event(&key, timer.event(), RespondingInput::Displaced, now);
        self.has_room_for_state()
    }
}
