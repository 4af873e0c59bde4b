//! The walk over (state, timers running): every state is reached, and none is left waiting for nothing.
//!
//! The machine is walked twice: as the table says, and as it is acted upon today, without the rows marked `later`. A
//! timer that fires runs no longer unless the row starts it again; when no row applies it is gone all the same. When a
//! row acted upon answers the expiry of a timer, the `later` ones beside it are for cases that do not arise yet. A final
//! state stops all timers, and in a transient one none can fire. A timer that runs where no row is for its expiry has been forgotten,
//! unless the table says that it may lapse.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::Error;
use crate::table::{Action, Cell, Row, Table};

/// A state with the timers that run in it, one bit each in the order declared.
type Position<'a> = (&'a str, u32);

/// How a position was reached first.
struct Step<'a> {
    from: Position<'a>,
    /// The row taken, or the timer that fired with no row for it.
    by: Result<&'a Row, &'a str>,
}

pub(crate) fn check(table: &Table) -> Error {
    let mut error = Error::default();
    let whole = Walk::new(table, true);
    for state in table.states.iter().filter(|s| !whole.states.contains(s.name.as_str())) {
        error.push(&table.file, state.line, format_args!("state `{}` cannot be reached", state.name));
    }
    for row in table.rows.iter().filter(|row| !whole.rows.contains(&row.line) && whole.could_fire(row)) {
        error.push(&table.file, row.line, format_args!("`{}` never happens here: the timer never runs in this state", row.event));
    }
    let mut stranded = BTreeSet::new();
    for (walk, when) in [(whole, ""), (Walk::new(table, false), ", as acted upon today")] {
        for (state, line, path) in walk.stranded() {
            if stranded.insert(state) {
                error.push(
                    &table.file,
                    line,
                    format_args!(
                        "in state `{state}` no timer may be running{when} (start one, or list the state as untimed or transient): {path}"
                    ),
                );
            }
        }
    }
    let today = Walk::new(table, false);
    for (state, timer, line, path) in today.unanswered() {
        error.push(
            &table.file,
            line,
            format_args!("timer `{timer}` may run in state `{state}`, where no row answers it (stop it, or list it as lapsing): {path}"),
        );
    }
    for excused in table.lapsing.iter().filter(|excused| !today.lapse(&excused.state)) {
        error.push(
            &table.file,
            excused.line,
            format_args!("timer `{}` is listed as lapsing and is answered wherever it runs", excused.state),
        );
    }
    error
}

/// The timers that may run in each state, as acted upon today: pairs of a state and a timer.
pub(crate) fn running(table: &Table) -> BTreeSet<(&str, &str)> {
    let walk = Walk::new(table, false);
    let mut found = BTreeSet::new();
    for (state, set) in &walk.order {
        let of_state = table.timers.iter().map(|timer| timer.name.as_str()).filter(|timer| set & walk.bit(timer) != 0);
        found.extend(of_state.map(|timer| (*state, timer)));
    }
    found
}

struct Walk<'a> {
    table: &'a Table,
    /// Whether rows marked `later` are taken.
    whole: bool,
    /// In the order of the walk, shortest way first.
    order: Vec<Position<'a>>,
    steps: BTreeMap<Position<'a>, Option<Step<'a>>>,
    states: BTreeSet<&'a str>,
    /// The lines of the rows taken somewhere.
    rows: BTreeSet<usize>,
}

impl<'a> Walk<'a> {
    fn new(table: &'a Table, whole: bool) -> Self {
        let (order, steps, states, rows) = Default::default();
        let mut walk = Self { table, whole, order, steps, states, rows };
        let cells = table.cells();
        let mut open = VecDeque::from([((table.initial.name.as_str(), 0), None)]);
        while let Some((position, step)) = open.pop_front() {
            if walk.steps.contains_key(&position) {
                continue;
            }
            walk.steps.insert(position, step);
            walk.order.push(position);
            walk.states.insert(position.0);
            for (next, step) in walk.successors(position, &cells) {
                if let Ok(row) = step.by {
                    walk.rows.insert(row.line);
                }
                open.push_back((next, Some(step)));
            }
        }
        walk
    }

    fn successors(&self, from: Position<'a>, cells: &[Cell<'a>]) -> Vec<(Position<'a>, Step<'a>)> {
        let (state, running) = from;
        let mut found = Vec::new();
        for Cell { row, next, .. } in cells.iter().filter(|c| c.state == state && self.takes(c.row)) {
            let fired = row.timer().map_or(0, |timer| self.bit(timer));
            if fired & running != fired || (fired != 0 && self.table.is_transient(state)) {
                continue;
            }
            let left = row.actions.iter().fold(running & !fired, |set, action| match action {
                Action::Start(timer) => set | self.bit(timer),
                Action::Stop(timer) => set & !self.bit(timer),
                Action::Perform(_) => set,
            });
            let left = if self.table.is_final(next) { 0 } else { left };
            found.push(((*next, left), Step { from, by: Ok(*row) }));
        }
        for timer in &self.table.timers {
            let (name, bit) = (timer.name.as_str(), self.bit(&timer.name));
            if running & bit != 0 && !self.table.is_transient(state) && !self.answered(state, name, cells) {
                found.push(((state, running & !bit), Step { from, by: Err(name) }));
            }
        }
        found
    }

    /// Whether some row applies to the timer's expiry whatever the guards, and some row of them is taken. The rows
    /// exclude each other, so the shares of the assignments they cover add up.
    fn answered(&self, state: &str, timer: &str, cells: &[Cell<'a>]) -> bool {
        let all = 1_u128 << 64;
        let rows = || cells.iter().filter(|c| c.state == state && c.row.timer() == Some(timer));
        let covered = rows().map(|c| all >> c.row.guard.len().min(64)).sum::<u128>() >= all;
        covered && rows().any(|c| self.takes(c.row))
    }

    fn takes(&self, row: &Row) -> bool {
        self.whole || !row.later
    }

    fn bit(&self, timer: &str) -> u32 {
        let at = self.table.timers.iter().position(|t| t.name == timer);
        at.and_then(|at| 1_u32.checked_shl(u32::try_from(at).ok()?)).unwrap_or(0)
    }

    /// Whether the row is for a timer in a state that is reached, so that it should be taken somewhere.
    fn could_fire(&self, row: &Row) -> bool {
        row.timer().is_some() && self.states.iter().any(|state| self.table.applies(row, state))
    }

    /// The states met with no timer running: each with the line that leads there last and the way, shortest first.
    fn stranded(&self) -> Vec<(&'a str, usize, String)> {
        let bare =
            self.order.iter().filter(|(state, running)| *running == 0 && !self.table.is_final(state) && !self.table.is_untimed(state));
        bare.map(|position| {
            let (line, path) = self.path(*position);
            (position.0, line, path)
        })
        .collect()
    }

    /// The timers that run where no row answers them, each once for a state, with the way there.
    fn unanswered(&self) -> Vec<(&'a str, &'a str, usize, String)> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for position in &self.order {
            for timer in self.left_alone(*position).filter(|timer| !self.table.lapsing.iter().any(|excused| excused.state == *timer)) {
                if seen.insert((position.0, timer)) {
                    let (line, path) = self.path(*position);
                    found.push((position.0, timer, line, path));
                }
            }
        }
        found
    }

    /// Whether a timer runs somewhere where no row answers it.
    fn lapse(&self, timer: &str) -> bool {
        self.order.iter().any(|position| self.left_alone(*position).any(|left| left == timer))
    }

    /// The timers that run here and that no row of the state is for.
    fn left_alone(&self, (state, running): Position<'a>) -> impl Iterator<Item = &'a str> {
        let is_quiet = self.table.is_final(state) || self.table.is_transient(state);
        let has_row = move |timer: &str| self.table.rows.iter().any(|row| row.timer() == Some(timer) && self.table.applies(row, state));
        let timers = self.table.timers.iter().map(|timer| timer.name.as_str());
        timers.filter(move |timer| !is_quiet && running & self.bit(timer) != 0 && !has_row(timer))
    }

    fn path(&self, to: Position<'a>) -> (usize, String) {
        let mut words = vec![to.0.to_owned()];
        let mut line = None;
        let mut at = to;
        while let Some(Some(step)) = self.steps.get(&at) {
            match step.by {
                Ok(row) => {
                    line = line.or(Some(row.line));
                    words.push(format!("--{} (rule {})-->", row.condition(), row.rule));
                }
                Err(timer) => words.push(format!("--to_{timer} (ignored)-->")),
            }
            at = step.from;
            words.push(at.0.to_owned());
        }
        words.reverse();
        (line.unwrap_or(self.table.initial.line), words.join(" "))
    }
}
