//! A table as read: names as they are written, each with its line.

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The file it was read from, for messages.
    pub file: String,
    /// `machine`: words joined by `-`.
    pub machine: Declared,
    /// `source`: where the machine is specified.
    pub source: String,
    /// `states`, then those of `final` not named there.
    pub states: Vec<Declared>,
    /// `initial`: the state before the first event.
    pub initial: Declared,
    /// `final`: the states that end the machine.
    pub finals: Vec<Declared>,
    /// `timers`.
    pub timers: Vec<Declared>,
    /// `guards`.
    pub guards: Vec<Declared>,
    /// `untimed`: the states that may stand with no timer running.
    pub untimed: Vec<Excused>,
    /// `transient`: the states passed while one event is handled, in which no timer can expire.
    pub transient: Vec<Excused>,
    /// `lapsing`: the timers that may expire where no row answers it.
    pub lapsing: Vec<Excused>,
    /// `note`: remarks to rules.
    pub notes: Vec<Note>,
    /// The rows, in the order of the file.
    pub rows: Vec<Row>,
}

/// A declared name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The name.
    pub name: String,
    /// The line that declares it.
    pub line: usize,
}

/// A state excused from having a timer, or a timer from having an answer everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excused {
    /// The state, or the timer.
    pub state: String,
    /// Why it needs none.
    pub reason: String,
    /// The line of the directive.
    pub line: usize,
}

/// A remark to a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The rule.
    pub rule: String,
    /// The remark.
    pub text: String,
    /// The line of the directive.
    pub line: usize,
}

/// One line of the table proper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The rule; several rows may belong to one.
    pub rule: String,
    /// The states it applies to.
    pub from: Scope,
    /// The event.
    pub event: String,
    /// The guard: all of these together; none means always.
    pub guard: Vec<Literal>,
    /// The state afterwards.
    pub next: Next,
    /// What is done, in this order.
    pub actions: Vec<Action>,
    /// In the table, but not yet acted upon.
    pub later: bool,
    /// Its line.
    pub line: usize,
}

/// The states a row applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// `*`: every state that is neither final nor an untimed initial one.
    Every,
    /// The states named.
    Named(Vec<String>),
}

/// One guard or its negation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Literal {
    /// The guard.
    pub guard: String,
    /// The value it must have.
    pub wanted: bool,
}

/// The state after a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// `=`: the state before it.
    Same,
    /// The state named.
    State(String),
}

/// One action of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Something the machine's owner performs.
    Perform(String),
    /// `start(T)`: starts the timer, or starts it afresh.
    Start(String),
    /// `stop(T)`: stops the timer if it runs.
    Stop(String),
}

/// One row as it applies to one state.
#[derive(Debug, Clone, Copy)]
pub struct Cell<'a> {
    /// The state before.
    pub state: &'a str,
    /// The row.
    pub row: &'a Row,
    /// The state after.
    pub next: &'a str,
}

impl Table {
    /// The rows spread over the states they apply to: by state in the order declared, then in the order of the file.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell<'_>> {
        let mut cells = Vec::new();
        for Declared { name: state, .. } in &self.states {
            let rows = self.rows.iter().filter(|row| self.applies(row, state));
            cells.extend(rows.map(|row| Cell { state, row, next: row.next_from(state) }));
        }
        cells
    }

    /// The transitions: the rows acted upon, each in each state it applies to, where rows acted upon lead to that state.
    #[must_use]
    pub fn transitions(&self) -> Vec<Cell<'_>> {
        let cells: Vec<_> = self.cells().into_iter().filter(|cell| !cell.row.later).collect();
        let mut reached = vec![self.initial.name.as_str()];
        while let Some(cell) = cells.iter().find(|cell| reached.contains(&cell.state) && !reached.contains(&cell.next)) {
            reached.push(cell.next);
        }
        cells.into_iter().filter(|cell| reached.contains(&cell.state)).collect()
    }

    /// Whether a row applies to a state.
    #[must_use]
    pub fn applies(&self, row: &Row, state: &str) -> bool {
        match &row.from {
            Scope::Every => {
                let waits_to_begin = state == self.initial.name && self.is_untimed(state);
                !self.is_final(state) && !waits_to_begin
            }
            Scope::Named(states) => states.iter().any(|s| s == state),
        }
    }

    /// Whether the initial state is left with the event that makes the machine, and never come back to.
    #[must_use]
    pub fn is_birth(&self) -> bool {
        !self.finals.is_empty()
            && self.is_untimed(&self.initial.name)
            && !self.rows.iter().any(|row| row.next == Next::State(self.initial.name.clone()))
    }

    /// Whether a state ends the machine.
    #[must_use]
    pub fn is_final(&self, state: &str) -> bool {
        self.finals.iter().any(|s| s.name == state)
    }

    /// Whether a state is excused from having a timer.
    #[must_use]
    pub fn is_untimed(&self, state: &str) -> bool {
        self.is_transient(state) || self.untimed.iter().any(|e| e.state == state)
    }

    /// Whether a state is passed while one event is handled.
    #[must_use]
    pub fn is_transient(&self, state: &str) -> bool {
        self.transient.iter().any(|e| e.state == state)
    }

    /// The rules, in the order of the file, each once.
    #[must_use]
    pub fn rules(&self) -> Vec<&str> {
        distinct(self.rows.iter().map(|row| row.rule.as_str()))
    }

    /// The rules with at least one row that is not yet acted upon.
    #[must_use]
    pub fn later_rules(&self) -> Vec<&str> {
        distinct(self.rows.iter().filter(|row| row.later).map(|row| row.rule.as_str()))
    }

    /// The events, in the order of the file, each once.
    #[must_use]
    pub fn events(&self) -> Vec<&str> {
        distinct(self.rows.iter().map(|row| row.event.as_str()))
    }

    /// The actions other than of timers in rows that are acted upon, in the order of the file, each once.
    #[must_use]
    pub fn performed(&self) -> Vec<&str> {
        let acted_upon = self.rows.iter().filter(|row| !row.later);
        distinct(acted_upon.flat_map(|row| &row.actions).filter_map(|action| match action {
            Action::Perform(name) => Some(name.as_str()),
            Action::Start(_) | Action::Stop(_) => None,
        }))
    }

    /// The name of the generated file and of the page, without ending: `gist_querying` for `gist-querying`.
    #[must_use]
    pub fn file_stem(&self) -> String {
        self.machine.name.replace('-', "_")
    }
}

impl Row {
    /// The state after this row when it was taken in `state`.
    #[must_use]
    pub fn next_from<'a>(&'a self, state: &'a str) -> &'a str {
        match &self.next {
            Next::Same => state,
            Next::State(next) => next,
        }
    }

    /// The timer whose expiry is the event, if it is one.
    #[must_use]
    pub fn timer(&self) -> Option<&str> {
        self.event.strip_prefix("to_")
    }

    /// Event and guard as the table writes them.
    #[must_use]
    pub fn condition(&self) -> String {
        if self.guard.is_empty() {
            return self.event.clone();
        }
        format!("{} [{}]", self.event, self.guard_text())
    }

    /// The guard as the table writes it, without brackets.
    #[must_use]
    pub fn guard_text(&self) -> String {
        let literal = |l: &Literal| format!("{}{}", if l.wanted { "" } else { "!" }, l.guard);
        self.guard.iter().map(literal).collect::<Vec<_>>().join(" & ")
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Perform(name) => f.write_str(name),
            Self::Start(timer) => write!(f, "start({timer})"),
            Self::Stop(timer) => write!(f, "stop({timer})"),
        }
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}
