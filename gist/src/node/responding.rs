//! The responding end of a routing state (RFC 5971 §6.3): its data, its guards, its events.

use core::time::Duration;

use super::cookie::Arrival;
use super::machines::responding::{Event, Guards, Outcome, State, step};
use super::receive::Received;
use super::receive_data::Delivery;
use super::receive_query::Asked;
use super::routing_state::{Peer, Route, RoutingKey};
use super::waiting::Waiting;
use super::{Installation, Node};
use crate::api::{AssociationId, PeerHandle, SendMessage};
use crate::time::Instant;
use crate::wire::Confirm;

/// A routing state that another node asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Responding {
    pub(super) state: State,
    /// Where messages go, and come from.
    pub(super) path: Path,
    /// Who claims to be the peer while the state's own one is there (notes G-128 and X-95 of the table).
    pub(super) second: Option<Box<Path>>,
    /// From when on a Query of the state's peer has its turn to be answered.
    pub(super) next_answer: Instant,
    /// Messages that wait until the peer takes more.
    pub(super) stored: Waiting,
}

/// A peer upstream, as its Confirm has shown it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub(super) peer: Peer,
    /// The peer's name for the application.
    pub(super) handle: PeerHandle,
    pub(super) route: Route,
    pub(super) ip_distance: Option<u8>,
    /// The interface the Query came in by; 0 if unknown.
    pub(super) interface: u32,
    /// How long the peer counts on the state without another Confirm.
    pub(super) validity: Validity,
}

/// A validity time as an NLI says it: whole milliseconds, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Validity(u32);

impl From<Duration> for Validity {
    fn from(span: Duration) -> Self {
        Self(u32::try_from(span.as_millis()).unwrap_or(u32::MAX).max(1))
    }
}

impl Validity {
    pub(super) fn span(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

/// What comes with an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum RespondingInput {
    None,
    /// A Query of the state's own peer.
    Query(Box<AcceptedQuery>),
    /// A Confirm whose cookie is right.
    Confirm(Box<AcceptedConfirm>),
    Message(SendMessage),
    Data(Delivery),
    /// Data that come before the Confirm.
    Early(Box<Received>),
    /// Its place is needed.
    Displaced,
    Lifetime(Duration),
    /// The application takes this peer for the one upstream.
    Adopt(PeerHandle),
    /// The peer of this association says or shows that it is none, or the association is gone.
    Ended(AssociationId),
}

/// A Query that may be answered, and the message as it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AcceptedQuery {
    pub(super) asked: Asked,
    pub(super) received: Received,
}

/// A Confirm with what its cookie brought back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AcceptedConfirm {
    pub(super) confirm: Confirm,
    pub(super) route: Route,
    pub(super) received: Received,
    pub(super) arrival: Arrival,
}

impl Responding {
    pub(super) fn new(path: Path) -> Self {
        Self { state: State::INITIAL, path, second: None, next_answer: Instant::ZERO, stored: Waiting::default() }
    }

    /// The one of the two that has this route.
    pub(super) fn path_by(&self, is_it: impl Fn(&Route) -> bool) -> Option<&Path> {
        [Some(&self.path), self.second.as_deref()].into_iter().flatten().find(|path| is_it(&path.route))
    }

    /// Whether the event is about the second peer.
    fn is_about_second(&self, input: &RespondingInput) -> bool {
        let RespondingInput::Ended(id) = input else { return false };
        self.second.as_ref().is_some_and(|second| second.route == Route::Association(*id))
    }

    /// Whether a Query that names the state's peer is answered in any case: once in T1, by the interface of the last
    /// Confirm. So no flood keeps a flow from being refreshed, and none of forged refreshes makes more than that.
    pub(super) fn take_answer(&mut self, interface: u32, timer: Duration, now: Instant) -> bool {
        let in_turn = interface == self.path.interface && self.next_answer <= now;
        self.next_answer = if in_turn { now + timer } else { self.next_answer };
        in_turn
    }
}

impl Path {
    /// Whether peer and association are those of the Confirm.
    fn is_of(&self, accepted: &AcceptedConfirm) -> bool {
        self.route == accepted.route && self.peer == Peer::from(&accepted.confirm.nli)
    }

    /// Whether the Query has come in by another interface, where both are known.
    fn is_elsewhere(&self, arrival: &Arrival) -> bool {
        self.interface != 0 && arrival.interface != 0 && self.interface != arrival.interface
    }
}

impl Node {
    /// Gives an event to the machine. The machine is out of the table while it acts.
    pub(super) fn responding_event(&mut self, key: &RoutingKey, event: Event, input: RespondingInput, now: Instant) {
        let Some((key, mut machine)) = self.responding.remove_entry(key) else { return };
        let guards = Guards {
            // A Query proves nothing, whomever it names (note 1 of the table).
            confirm_required: self.requires_confirm(&key),
            state_on_query: self.installation(key.nslp_id) == Installation::OnQuery,
            nconf_reached: matches!(input, RespondingInput::Displaced) || self.early.has_waited(&key, self.config.query_timer, now),
            same_path: matches!(&input, RespondingInput::Confirm(accepted) if machine.path.is_of(accepted)),
            moved: matches!(&input, RespondingInput::Confirm(accepted) if machine.path.is_elsewhere(&accepted.arrival)),
            held: matches!(&input, RespondingInput::Confirm(accepted) if self.is_held(&machine, accepted)),
            second: machine.is_about_second(&input),
            heir: machine.second.is_some(),
            named: matches!((&input, &machine.second), (RespondingInput::Adopt(handle), Some(second)) if second.handle == *handle),
            wanted: matches!(&input, RespondingInput::Lifetime(lifetime) if !lifetime.is_zero()),
        };
        let state = machine.state;
        match step(state, event, guards) {
            Outcome::Take(transition) => {
                machine.state = transition.next;
                Self::taken("gist-responding", state, event, transition.rule, transition.next);
                for action in transition.actions {
                    self.responding_action(&key, &mut machine, *action, &input, now);
                }
            }
            Outcome::Refuse(rule) => self.refused("gist-responding", state, event, rule),
            Outcome::Ignore => self.ignored("gist-responding", state, event),
        }
        if machine.state.is_final() {
            self.early.forget(&key);
            self.translations.forget(&key);
        } else {
            self.responding.insert(key, machine);
        }
    }
}

impl Node {
    /// Whether the state is somebody else's who may well be there still: the association is open. Only the state's peer by
    /// its key, or the host whose own flow it is, takes over without a word of the application (note G-128 of the table); and whoever
    /// is authenticated where the state's peer is not.
    fn is_held(&self, machine: &Responding, accepted: &AcceptedConfirm) -> bool {
        let (Some(old), Some(new)) = (machine.path.route.association(), accepted.route.association()) else { return false };
        let is_open = self.associations.get(old).is_some_and(|association| association.is_open());
        let is_own = self.have_same_principal(old, new) || self.is_end_of(new, &accepted.confirm.mri.inverted());
        is_open && !is_own && !self.goes_before(machine, accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a million of them, each in a piece of memory of its own.
    #[test]
    fn a_responding_state_takes_thirteen_words() {
        assert!(size_of::<Responding>() <= 104, "{}", size_of::<Responding>());
    }
}
