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

/// The table's own step, or that of a mutant.
#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]
#[allow(unreachable_patterns, unused_mut, missing_docs, clippy::unwrap_used)]
#[must_use]
pub fn step(state: State, event: Event, mut guards: Guards) -> Outcome {
    let mutant = table_mutants::chosen();
    if mutant == 16 && state == State::Locked && event == Event::ToNoKey { guards.has_key = !guards.has_key; }
    if mutant == 17 && state == State::Locked && event == Event::ToNoKey { guards.is_night = !guards.is_night; }
    if mutant == 20 && state == State::Locked && event == Event::ToNoKey { guards.is_night = !guards.is_night; }
    if mutant == 22 && state == State::Locked && event == Event::ToNoKey { guards.has_key = !guards.has_key; }
    if mutant == 23 && state == State::Locked && event == Event::ToNoKey { guards.is_night = !guards.is_night; }
    let (transition, outcome) = match (state, event, guards) {
        (State::Closed, Event::RxPush, _) => (0, match mutant {
            0 => Outcome::Take(Transition { rule: "1", next: State::StandingOpen, actions: &[Action::Start(Timer::Draught)] }),
            _ => Outcome::Take(Transition { rule: "1", next: State::StandingOpen, actions: &[Action::Squeak, Action::Start(Timer::Draught)] }),
        }),
        (State::Closed, Event::RxTurnKey, Guards { has_key: false, .. }) if mutant == 1 => (1, Outcome::Take(Transition { rule: "L-1", next: State::Locked, actions: &[Action::Start(Timer::NoKey)] })),
        (State::Closed, Event::RxTurnKey, _) if mutant == 2 => (1, Outcome::Take(Transition { rule: "L-1", next: State::Locked, actions: &[Action::Start(Timer::NoKey)] })),
        (State::Closed, Event::RxTurnKey, Guards { has_key: true, .. }) if !matches!(mutant, 1 | 2) => (1, match mutant {
            _ => Outcome::Take(Transition { rule: "L-1", next: State::Locked, actions: &[Action::Start(Timer::NoKey)] }),
        }),
        (State::Closed, Event::RxFire, _) if !matches!(mutant, 3) => (2, match mutant {
            4 => Outcome::Take(Transition { rule: "9", next: State::Closed, actions: &[] }),
            _ => Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[] }),
        }),
        (State::StandingOpen, Event::RxPush, _) => (3, match mutant {
            5 => Outcome::Take(Transition { rule: "2", next: State::Removed, actions: &[Action::Start(Timer::Draught)] }),
            6 => Outcome::Take(Transition { rule: "2", next: State::StandingOpen, actions: &[] }),
            _ => Outcome::Take(Transition { rule: "2", next: State::StandingOpen, actions: &[Action::Start(Timer::Draught)] }),
        }),
        (State::StandingOpen, Event::ToDraught, _) => (4, match mutant {
            7 => Outcome::Take(Transition { rule: "3", next: State::Removed, actions: &[Action::Slam] }),
            8 => Outcome::Take(Transition { rule: "3", next: State::Closed, actions: &[] }),
            _ => Outcome::Take(Transition { rule: "3", next: State::Closed, actions: &[Action::Slam] }),
        }),
        (State::StandingOpen, Event::RxFire, _) if !matches!(mutant, 9) => (5, match mutant {
            10 => Outcome::Take(Transition { rule: "9", next: State::StandingOpen, actions: &[Action::Squeak] }),
            11 => Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[] }),
            _ => Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[Action::Squeak] }),
        }),
        (State::Locked, Event::RxTurnKey, Guards { has_key: false, .. }) if mutant == 13 => (6, Outcome::Take(Transition { rule: "L-2", next: State::Closed, actions: &[Action::Stop(Timer::NoKey)] })),
        (State::Locked, Event::RxTurnKey, _) if mutant == 14 => (6, Outcome::Take(Transition { rule: "L-2", next: State::Closed, actions: &[Action::Stop(Timer::NoKey)] })),
        (State::Locked, Event::RxTurnKey, Guards { has_key: true, .. }) if !matches!(mutant, 12 | 13 | 14) => (6, match mutant {
            15 => Outcome::Take(Transition { rule: "L-2", next: State::Removed, actions: &[Action::Stop(Timer::NoKey)] }),
            _ => Outcome::Take(Transition { rule: "L-2", next: State::Closed, actions: &[Action::Stop(Timer::NoKey)] }),
        }),
        (State::Locked, Event::ToNoKey, Guards { has_key: false, is_night: true, .. }) => (7, match mutant {
            18 => Outcome::Take(Transition { rule: "L-3", next: State::Removed, actions: &[Action::RingBell, Action::Start(Timer::NoKey)] }),
            19 => Outcome::Take(Transition { rule: "L-3", next: State::Locked, actions: &[Action::Start(Timer::NoKey)] }),
            _ => Outcome::Take(Transition { rule: "L-3", next: State::Locked, actions: &[Action::RingBell, Action::Start(Timer::NoKey)] }),
        }),
        (State::Locked, Event::ToNoKey, Guards { is_night: false, .. }) => (8, match mutant {
            21 => Outcome::Take(Transition { rule: "L-3", next: State::Removed, actions: &[] }),
            _ => Outcome::Take(Transition { rule: "L-3", next: State::Closed, actions: &[] }),
        }),
        (State::Locked, Event::ToNoKey, Guards { has_key: true, is_night: true, .. }) => (9, match mutant {
            24 => Outcome::Take(Transition { rule: "L-3", next: State::Removed, actions: &[] }),
            _ => Outcome::Take(Transition { rule: "L-3", next: State::Closed, actions: &[] }),
        }),
        (State::Locked, Event::RxFire, _) if !matches!(mutant, 25) => (10, match mutant {
            26 => Outcome::Take(Transition { rule: "9", next: State::Locked, actions: &[Action::Squeak] }),
            27 => Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[] }),
            _ => Outcome::Take(Transition { rule: "9", next: State::Removed, actions: &[Action::Squeak] }),
        }),
        (State::Closed, Event::RxShout, _) => return Outcome::Refuse("L-4"),
        (State::StandingOpen, Event::RxShout, _) => return Outcome::Refuse("L-4"),
        _ => return Outcome::Ignore,
    };
    table_mutants::note(transition);
    outcome
}

/// Which mutant this process is, and what its tests take.
#[allow(unreachable_pub, missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]
mod table_mutants {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::sync::{Mutex, OnceLock};

    pub fn chosen() -> usize {
        static CHOSEN: OnceLock<usize> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let named = std::env::var("TABLE_MUTANT").unwrap_or_default();
            named.strip_prefix("toy-door ").and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
        })
    }

    pub fn note(transition: usize) {
        static PATH: OnceLock<Option<std::ffi::OsString>> = OnceLock::new();
        static NOTED: Mutex<BTreeSet<(usize, String)>> = Mutex::new(BTreeSet::new());
        let Some(path) = PATH.get_or_init(|| std::env::var_os("TABLE_NOTES")) else { return };
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        if NOTED.lock().unwrap().insert((transition, test.clone())) {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
            file.write_all(format!("toy-door\t{transition}\t{test}\n").as_bytes()).unwrap();
        }
    }
}
