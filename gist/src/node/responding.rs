//! The responding end of a routing state (RFC 5971 §6.3): its data, its guards, its events.

use core::time::Duration;

use super::cookie::Arrival;
use super::machines::responding::{Event, Guards, Outcome, State, Timer, step};
use super::receive::Received;
use super::receive_data::Delivery;
use super::receive_query::Asked;
use super::routing_state::{Clocks, Expired, Hop, Peer, Route, RoutingKey, User, Validity, first};
use super::waiting::Waiting;
use super::{Installation, Node};
use crate::api::{AssociationId, PeerHandle, SendMessage};
use crate::time::Instant;
use crate::wire::Confirm;

/// A routing state that another node asked for. There may be a million of them: what few of them have is in [`Passing`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Responding {
    pub(super) state: State,
    pub(super) ip_distance: Option<u8>,
    /// How long the peer counts on the state without another Confirm.
    pub(super) validity: Validity,
    /// Where messages go, and come from.
    pub(super) hop: Hop,
    /// From when on a Query of the state's peer has its turn to be answered.
    next_answer: Instant,
    /// When Expire_RNode expires.
    expire: Option<Instant>,
    passing: Option<Box<Passing>>,
}

/// What a responding state has for a while.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Passing {
    /// Who claims to be the peer while the state's own one is there (notes G-128 and X-95 of the table).
    pub(super) second: Option<Path>,
    /// Messages that wait until the peer takes more.
    pub(super) stored: Waiting,
    /// When No_Confirm expires.
    no_confirm: Option<Instant>,
    /// When Tentative does.
    tentative: Option<Instant>,
    /// When the first message has waited too long for the peer to take more.
    waits: Option<Instant>,
}

impl Passing {
    const NOTHING: Self = Self { second: None, stored: Waiting::NONE, no_confirm: None, tentative: None, waits: None };
}

/// A peer upstream, as its Confirm has shown it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Path {
    pub(super) hop: Hop,
    pub(super) ip_distance: Option<u8>,
    /// How long the peer counts on the state without another Confirm.
    pub(super) validity: Validity,
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
        let Path { hop, ip_distance, validity } = path;
        Self { state: State::INITIAL, ip_distance, validity, hop, next_answer: Instant::ZERO, expire: None, passing: None }
    }

    /// The state's peer.
    pub(super) fn path(&self) -> Path {
        Path { hop: self.hop.clone(), ip_distance: self.ip_distance, validity: self.validity }
    }

    /// Has messages go to this peer from now on.
    pub(super) fn lead_to(&mut self, path: Path) {
        (self.hop, self.ip_distance, self.validity) = (path.hop, path.ip_distance, path.validity);
    }

    /// What it has for a while.
    pub(super) fn passing(&self) -> &Passing {
        self.passing.as_deref().unwrap_or(const { &Passing::NOTHING })
    }

    /// The same, to be changed.
    pub(super) fn passing_mut(&mut self) -> &mut Passing {
        self.passing.get_or_insert_with(|| Box::new(Passing::NOTHING))
    }

    /// Lets go of what has passed, so that it takes no memory.
    fn tidy(&mut self) {
        self.passing.take_if(|passing| **passing == Passing::NOTHING);
    }

    /// Who claims to be the peer while the state's own one is there.
    pub(super) fn second(&self) -> Option<&Path> {
        self.passing().second.as_ref()
    }

    /// The one of the two that has this route.
    pub(super) fn hop_by(&self, is_it: impl Fn(&Route) -> bool) -> Option<&Hop> {
        [Some(&self.hop), self.second().map(|second| &second.hop)].into_iter().flatten().find(|hop| is_it(&hop.route()))
    }

    /// Whether the event is about the second peer.
    fn is_about_second(&self, input: &RespondingInput) -> bool {
        let RespondingInput::Ended(id) = input else { return false };
        self.second().is_some_and(|second| second.hop.route() == Route::Association(*id))
    }

    /// Whether a Query that names the state's peer is answered in any case: once in T1, by the interface of the last
    /// Confirm. So no flood keeps a flow from being refreshed, and none of forged refreshes makes more than that.
    pub(super) fn take_answer(&mut self, interface: u32, timer: Duration, now: Instant) -> bool {
        let in_turn = interface == self.hop.interface && self.next_answer <= now;
        self.next_answer = if in_turn { now + timer } else { self.next_answer };
        in_turn
    }

    /// Whether peer and association are those of the Confirm.
    fn is_of(&self, accepted: &AcceptedConfirm) -> bool {
        self.hop.route() == accepted.route && self.hop.peer == Peer::from(&accepted.confirm.nli)
    }

    /// Whether the Query has come in by another interface, where both are known.
    fn is_elsewhere(&self, arrival: &Arrival) -> bool {
        self.hop.interface != 0 && arrival.interface != 0 && self.hop.interface != arrival.interface
    }
}

impl Clocks for Responding {
    type Timer = Timer;
    const TIMERS: &'static [Timer] = Timer::ALL;

    fn expiry(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::ExpireRNode => self.expire,
            Timer::NoConfirm => self.passing().no_confirm,
            Timer::Tentative => self.passing().tentative,
        }
    }

    fn set_timer(&mut self, timer: Timer, at: Option<Instant>) {
        if self.expiry(timer) == at {
            return;
        }
        match timer {
            Timer::ExpireRNode => self.expire = at,
            Timer::NoConfirm => self.passing_mut().no_confirm = at,
            Timer::Tentative => self.passing_mut().tentative = at,
        }
    }

    fn waits(&self) -> Option<Instant> {
        self.passing().waits
    }

    fn set_waits(&mut self, at: Option<Instant>) {
        if self.passing().waits != at {
            self.passing_mut().waits = at;
        }
    }
}

impl Node {
    /// Gives an event to the machine. The machine is out of the table while it acts.
    pub(super) fn responding_event(&mut self, key: &RoutingKey, event: Event, input: RespondingInput, now: Instant) {
        let Some((key, mut machine)) = self.responding.remove_entry(key) else { return };
        let due = machine.due();
        let asked = if let RespondingInput::Query(accepted) = &input { Some(&accepted.asked) } else { None };
        let guards = Guards {
            // A Query proves nothing, whomever it names (note 1 of the table).
            confirm_required: self.requires_confirm(&key, asked, now),
            state_on_query: self.installation(key.nslp_id) == Installation::OnQuery,
            nconf_reached: matches!(input, RespondingInput::Displaced) || self.early.has_waited(&key, self.config.query_timer, now),
            same_path: matches!(&input, RespondingInput::Confirm(accepted) if machine.is_of(accepted)),
            moved: matches!(&input, RespondingInput::Confirm(accepted) if machine.is_elsewhere(&accepted.arrival)),
            held: matches!(&input, RespondingInput::Confirm(accepted) if self.is_held(&machine, accepted)),
            second: machine.is_about_second(&input),
            heir: machine.second().is_some(),
            named: matches!((&input, machine.second()), (RespondingInput::Adopt(handle), Some(second)) if second.hop.handle == *handle),
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
            let other = self.querying.get(&key).and_then(|machine| machine.due());
            self.timers.move_states(&key, first(due, other), other);
            self.early.forget(&key);
            self.translations.forget(&key);
        } else {
            self.put_responding(key, machine, due);
        }
    }

    /// Puts the machine back into the table, out of which its first timer was due then.
    pub(super) fn put_responding(&mut self, key: RoutingKey, mut machine: Box<Responding>, due: Option<Instant>) {
        machine.tidy();
        let due_now = machine.due();
        if due_now != due {
            let other = self.querying.get(&key).and_then(|machine| machine.due());
            self.timers.move_states(&key, first(due, other), first(due_now, other));
        }
        self.responding.insert(key, machine);
    }

    /// The first of its timers has run out, and the node knows of none of this name any more; `other` is when the first of the
    /// querying state's is due.
    pub(super) fn responding_expired(&mut self, key: &RoutingKey, other: Option<Instant>, now: Instant) {
        let Some((owned, mut machine)) = self.responding.remove_entry(key) else { return };
        let expired = machine.take_due();
        self.timers.move_states(&owned, None, first(machine.due(), other));
        machine.tidy();
        self.responding.insert(owned, machine);
        match expired {
            Some(Expired::Timer(timer)) => self.responding_event(key, timer.event(), RespondingInput::None, now),
            Some(Expired::Waits) => self.waited_too_long(&User::Responding(key.clone()), now),
            None => {}
        }
    }
}

impl Node {
    /// Whether the state is somebody else's who may well be there still: the association is open. Only the state's peer by
    /// its key, or the host whose own flow it is, takes over without a word of the application (note G-128 of the table); and whoever
    /// is authenticated where the state's peer is not.
    fn is_held(&self, machine: &Responding, accepted: &AcceptedConfirm) -> bool {
        let (Some(old), Some(new)) = (machine.hop.route().association(), accepted.route.association()) else { return false };
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
    fn a_responding_state_takes_five_words() {
        assert!(size_of::<Responding>() <= 40, "{}", size_of::<Responding>());
    }
}
