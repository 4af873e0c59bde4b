// Generated from fsm-specs/tests/golden/door.fsm. Change the table, not this file.

/// States of `toy-door` (the manual, page 3).
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Closed: rules 1, L-1, L-4, 9.
    Closed,
    /// Standing Open: rules 2, 3, L-4, 9.
    StandingOpen,
    /// Locked: rules L-2, L-3, 9.
    Locked,
    /// Removed: the end.
    Removed,
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl State {
    /// All of them, in the order of the table.
    pub const ALL: &'static [Self] = &[Self::Closed, Self::StandingOpen, Self::Locked, Self::Removed];
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl ::core::fmt::Display for State {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.write_str(match self {
            Self::Closed => "Closed",
            Self::StandingOpen => "Standing Open",
            Self::Locked => "Locked",
            Self::Removed => "Removed",
        })
    }
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl State {
    /// The state before the first event.
    pub const INITIAL: Self = Self::Closed;

    /// Whether the machine ends here.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Removed)
    }
}

/// Timers of `toy-door`.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// `Draught`: started by rules 1, 2; expires in rule 3.
    Draught,
    /// `No_Key`: started by rules L-1, L-3; expires in rule L-3.
    NoKey,
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl Timer {
    /// All of them, in the order of the table.
    pub const ALL: &'static [Self] = &[Self::Draught, Self::NoKey];
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl ::core::fmt::Display for Timer {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.write_str(match self {
            Self::Draught => "Draught",
            Self::NoKey => "No_Key",
        })
    }
}

/// Events of `toy-door`.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// `rx_Push`: rules 1, 2.
    RxPush,
    /// `to_Draught`: rule 3.
    ToDraught,
    /// `rx_Turn-Key`: rules L-1, L-2.
    RxTurnKey,
    /// `to_No_Key`: rule L-3.
    ToNoKey,
    /// `rx_Shout`: rule L-4.
    RxShout,
    /// `rx_Fire`: rule 9.
    RxFire,
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl Event {
    /// All of them, in the order of the table.
    pub const ALL: &'static [Self] = &[Self::RxPush, Self::ToDraught, Self::RxTurnKey, Self::ToNoKey, Self::RxShout, Self::RxFire];
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl ::core::fmt::Display for Event {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.write_str(match self {
            Self::RxPush => "rx_Push",
            Self::ToDraught => "to_Draught",
            Self::RxTurnKey => "rx_Turn-Key",
            Self::ToNoKey => "to_No_Key",
            Self::RxShout => "rx_Shout",
            Self::RxFire => "rx_Fire",
        })
    }
}

#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
impl Timer {
    /// The event of this timer's expiry.
    #[must_use]
    pub const fn event(self) -> Event {
        match self {
            Self::Draught => Event::ToDraught,
            Self::NoKey => Event::ToNoKey,
        }
    }
}

/// What `step` of `toy-door` asks its caller besides state and event.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Guards {
    /// Asked by rules L-1, L-2, L-3.
    pub has_key: bool,
    /// Asked by rule L-3.
    pub is_night: bool,
}

/// What `toy-door` wants done, in the order given.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// `start(T)`: starts the timer, afresh if it runs.
    Start(Timer),
    /// `stop(T)`: stops the timer if it runs.
    Stop(Timer),
    /// `squeak`: rules 1, 9.
    Squeak,
    /// `slam`: rule 3.
    Slam,
    /// `ring_bell`: rule L-3.
    RingBell,
}

/// A row of `toy-door` that applies.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The rule, as in the table.
    pub rule: &'static str,
    /// The state afterwards.
    pub next: State,
    /// What is to be done, in this order.
    pub actions: &'static [Action],
}

/// The answer of `toy-door` to an event.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A row applies and is acted upon.
    Take(Transition),
    /// A row of this rule applies and is not yet acted upon: the state stays.
    Refuse(&'static str),
    /// No row applies: the event is ignored and the state stays.
    Ignore,
}

/// Every rule of `toy-door`, in the order of the table.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
pub const RULES: &[&str] = &["1", "2", "3", "L-1", "L-2", "L-3", "L-4", "9"];

/// The rules of `toy-door` with a row that is not yet acted upon.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
pub const LATER: &[&str] = &["L-4"];

/// What `toy-door` does with an event: total, and at most one row applies (the manual, page 3).
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[allow(unreachable_patterns)]
#[must_use]
pub const fn step(state: State, event: Event, guards: Guards) -> Outcome {
    match (state, event, guards) {
        // Rule 1, line 13 of the table.
        (State::Closed, Event::RxPush, _) => {
            Outcome::Take(Transition { rule: "1", next: State::StandingOpen, actions: &[Action::Squeak, Action::Start(Timer::Draught)] })
        }
        // Rule L-1, line 16 of the table.
        (State::Closed, Event::RxTurnKey, Guards { has_key: true, .. }) => {
            Outcome::Take(Transition { rule: "L-1", next: State::Locked, actions: &[Action::Start(Timer::NoKey)] })
        }
        // Rule L-4, line 21 of the table.
        (State::Closed, Event::RxShout, _) => Outcome::Refuse("L-4"),
        // Rule 9, line 23 of the table.
        (State::Closed, Event::RxFire, _) => Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[] }),
        // Rule 2, line 14 of the table.
        (State::StandingOpen, Event::RxPush, _) => {
            Outcome::Take(Transition { rule: "2", next: State::StandingOpen, actions: &[Action::Start(Timer::Draught)] })
        }
        // Rule 3, line 15 of the table.
        (State::StandingOpen, Event::ToDraught, _) => {
            Outcome::Take(Transition { rule: "3", next: State::Closed, actions: &[Action::Slam] })
        }
        // Rule L-4, line 21 of the table.
        (State::StandingOpen, Event::RxShout, _) => Outcome::Refuse("L-4"),
        // Rule 9, line 22 of the table.
        (State::StandingOpen, Event::RxFire, _) => {
            Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[Action::Squeak] })
        }
        // Rule L-2, line 17 of the table.
        (State::Locked, Event::RxTurnKey, Guards { has_key: true, .. }) => {
            Outcome::Take(Transition { rule: "L-2", next: State::Closed, actions: &[Action::Stop(Timer::NoKey)] })
        }
        // Rule L-3, line 18 of the table.
        (State::Locked, Event::ToNoKey, Guards { has_key: false, is_night: true, .. }) => {
            Outcome::Take(Transition { rule: "L-3", next: State::Locked, actions: &[Action::RingBell, Action::Start(Timer::NoKey)] })
        }
        // Rule L-3, line 19 of the table.
        (State::Locked, Event::ToNoKey, Guards { is_night: false, .. }) => {
            Outcome::Take(Transition { rule: "L-3", next: State::Closed, actions: &[] })
        }
        // Rule L-3, line 20 of the table.
        (State::Locked, Event::ToNoKey, Guards { has_key: true, is_night: true, .. }) => {
            Outcome::Take(Transition { rule: "L-3", next: State::Closed, actions: &[] })
        }
        // Rule 9, line 22 of the table.
        (State::Locked, Event::RxFire, _) => Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[Action::Squeak] }),
        _ => Outcome::Ignore,
    }
}
