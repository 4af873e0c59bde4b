//! Routing state that is installed with the Query (RFC 5971 §6.3, cases 1 and 2), for applications whose policy says so.
//!
//! Anybody can write a Query. So states that nobody has confirmed have one part of the table, past which a Query is answered without keeping
//! anything, as everywhere else; they give their places to whatever else needs one; their Responses have no turn before others, and
//! count against the limit on what is sent to one destination, however often they are repeated; and of a Query that is kept, only what its
//! Response needs is kept. A state that a Confirm has shown to be somebody's is never changed by a Query.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use super::machines::responding::{Event, State, Timer};
use super::querying_state::MAX_BACKOFF;
use super::receive_query::{Asked, Existing};
use super::responding::{AcceptedQuery, Path, Responding, RespondingInput};
use super::routing_state::{Peer, Route, RoutingKey};
use super::{Installation, Node};
use crate::time::Instant;
use crate::wire::NslpId;

/// One part in so many of the table is for states that nobody has confirmed.
const UNCONFIRMED_PART: usize = 4;

/// What states that came with a Query need beside the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Early {
    /// Those that no Confirm has shown to be anybody's.
    unconfirmed: BTreeSet<RoutingKey>,
    /// Those whose Response is repeated until a Confirm comes; a confirmed one is among them while it is refreshed.
    awaited: BTreeMap<RoutingKey, Box<Awaited>>,
}

/// A Response with its repetitions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Awaited {
    asked: Asked,
    since: Instant,
    /// How often the timer has been started since the last Query.
    started: u32,
}

impl Early {
    pub(super) fn is_unconfirmed(&self, key: &RoutingKey) -> bool {
        self.unconfirmed.contains(key)
    }

    pub(super) fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    /// A valid Confirm has come.
    pub(super) fn confirmed(&mut self, key: &RoutingKey) {
        self.forget(key);
    }

    /// Nothing is waited for any more, or the state is gone.
    pub(super) fn forget(&mut self, key: &RoutingKey) {
        self.unconfirmed.remove(key);
        self.awaited.remove(key);
    }

    /// A Query has come whose Response is repeated: the intervals begin anew, the whole does not (G-285).
    fn await_confirm(&mut self, key: &RoutingKey, asked: Asked, now: Instant) {
        let since = self.awaited.get(key).map_or(now, |awaited| awaited.since);
        self.awaited.insert(key.clone(), Box::new(Awaited { asked, since, started: 0 }));
    }

    /// Whether the Confirm for a state that nobody has confirmed yet has been waited for long enough: T2 (rule 9, G-192, G-200).
    pub(super) fn has_waited(&self, key: &RoutingKey, timer: Duration, now: Instant) -> bool {
        self.awaited.get(key).is_none_or(|awaited| now >= awaited.since + timer.saturating_mul(MAX_BACKOFF))
    }

    /// When No_Confirm expires: the interval doubles with each Response, as with Queries (G-200).
    pub(super) fn next_repetition(&mut self, key: &RoutingKey, timer: Duration, now: Instant) -> Instant {
        let end = self.unconfirmed.contains(key).then_some(timer.saturating_mul(MAX_BACKOFF));
        let Some(awaited) = self.awaited.get_mut(key) else { return now + timer };
        let interval = timer.saturating_mul(2_u32.saturating_pow(awaited.started).min(MAX_BACKOFF));
        awaited.started = awaited.started.saturating_add(1);
        end.map_or(now + interval, |end| (now + interval).min(awaited.since + end))
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
    pub(super) fn installs_on_query(&self, asked: &Asked) -> bool {
        let has_part = self.early.unconfirmed.len() < self.config.caps.routing_states / UNCONFIRMED_PART;
        let is_early = self.installation(asked.nslp_id) != Installation::OnConfirm;
        is_early && has_part && self.has_room_for_state() && asked.query.nat.is_none()
    }

    /// Whether a Confirm is what keeps this state: in case 1 as well, once one has come.
    pub(super) fn requires_confirm(&self, key: &RoutingKey) -> bool {
        self.installation(key.nslp_id) != Installation::WithoutConfirm || !self.early.is_unconfirmed(key)
    }

    /// Rules 1 and 5 of the machine: state with the Query.
    pub(super) fn create_early(&mut self, accepted: &AcceptedQuery, now: Instant) {
        let asked = &accepted.asked;
        let key = self.shared_key(RoutingKey::along(asked.nslp_id, asked.query.session, &asked.query.mri));
        self.early.unconfirmed.insert(key.clone());
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
            _ => self.early.awaited.get(key).map(|awaited| awaited.asked.clone()),
        };
        let Some(asked) = asked else { return };
        // What nobody has confirmed takes no turn from what somebody has, nor does a Response that goes once more.
        let is_first = matches!(input, RespondingInput::Query(_));
        let in_turn = is_first && !is_unconfirmed && machine.take_answer(asked.arrival.interface, self.config.query_timer, now);
        let existing = Existing { route: machine.hop.route, in_turn, confirm: self.requires_confirm(key) };
        self.send_response(&asked, Some(existing), now);
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
        let Some(key) = self.early.unconfirmed.first().cloned() else { return false };
        self.counters.unconfirmed_displaced += 1;
        let waits = self.responding.get(&key).is_some_and(|machine| machine.state == State::AwaitingConfirm);
        let timer = if waits { Timer::NoConfirm } else { Timer::ExpireRNode };
        self.responding_event(&key, timer.event(), RespondingInput::Displaced, now);
        self.has_room_for_state()
    }
}
