//! The generator: a checked table to Rust.
//!
//! An action only in rows that are not yet acted upon is left out, so that nobody has to write code that never runs.

mod mutants;
mod text;

use crate::names::{camel, spaced};
use crate::table::{Action, Cell, Table};
pub use mutants::rust_with_mutants;
use text::{ALLOW, WIDTH, block, doc_comment, enumeration, line, rows_text, slice};

/// The Rust of a machine, to be included into a module of its own.
///
/// The table must have passed [`crate::check()`].
#[must_use]
pub fn rust(table: &Table) -> String {
    let mut code = types(table);
    step(&mut code, table);
    code
}

/// Everything but `step`.
fn types(table: &Table) -> String {
    let mut code = String::new();
    line(&mut code, format_args!("// Generated from {}. Change the table, not this file.\n", table.file));
    states(&mut code, table);
    timers(&mut code, table);
    events(&mut code, table);
    guards(&mut code, table);
    actions(&mut code, table);
    outcome(&mut code, table);
    rules(&mut code, table);
    code
}

fn states(code: &mut String, table: &Table) {
    let variant = |name: &str| {
        let shown = spaced(name);
        let left = rows_text(table, |row| table.applies(row, name));
        let doc = if table.is_final(name) { format!("{shown}: the end.") } else { format!("{shown}: {left}.") };
        (name.to_owned(), doc, shown)
    };
    let variants: Vec<_> = table.states.iter().map(|s| variant(&s.name)).collect();
    let doc = format!("States of `{}` ({}).", table.machine.name, table.source);
    enumeration(code, "State", &doc, &variants);
    code.push_str(ALLOW);
    line(code, "impl State {");
    doc_comment(code, 4, "The state before the first event.");
    line(code, format_args!("    pub const INITIAL: Self = Self::{};\n", table.initial.name));
    doc_comment(code, 4, "Whether the machine ends here.");
    line(code, "    #[must_use]");
    line(code, "    pub const fn is_final(self) -> bool {");
    match table.finals.iter().map(|s| format!("Self::{}", s.name)).collect::<Vec<_>>().join(" | ") {
        none if none.is_empty() => line(code, "        false"),
        finals => line(code, format_args!("        matches!(self, {finals})")),
    }
    line(code, "    }\n}\n");
}

fn timers(code: &mut String, table: &Table) {
    let variant = |name: &str| {
        let start = Action::Start(name.to_owned());
        let started = rows_text(table, |row| row.actions.contains(&start));
        let fires = rows_text(table, |row| row.timer() == Some(name));
        (camel(name), format!("`{name}`: started by {started}; expires in {fires}."), name.to_owned())
    };
    let variants: Vec<_> = table.timers.iter().map(|t| variant(&t.name)).collect();
    enumeration(code, "Timer", &format!("Timers of `{}`.", table.machine.name), &variants);
}

fn events(code: &mut String, table: &Table) {
    let variant = |name: &str| {
        let rows = rows_text(table, |row| row.event == name);
        (camel(name), format!("`{name}`: {rows}."), name.to_owned())
    };
    let variants: Vec<_> = table.events().into_iter().map(variant).collect();
    enumeration(code, "Event", &format!("Events of `{}`.", table.machine.name), &variants);
    if table.timers.is_empty() {
        return;
    }
    code.push_str(ALLOW);
    line(code, "impl Timer {");
    doc_comment(code, 4, "The event of this timer's expiry.");
    line(code, "    #[must_use]");
    line(code, "    pub const fn event(self) -> Event {");
    line(code, "        match self {");
    for timer in &table.timers {
        let (timer, event) = (camel(&timer.name), camel(&format!("to_{}", timer.name)));
        line(code, format_args!("            Self::{timer} => Event::{event},"));
    }
    line(code, "        }\n    }\n}\n");
}

fn guards(code: &mut String, table: &Table) {
    doc_comment(code, 0, &format!("What `step` of `{}` asks its caller besides state and event.", table.machine.name));
    code.push_str(ALLOW);
    line(code, "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]");
    if table.guards.is_empty() {
        line(code, "pub struct Guards;\n");
        return;
    }
    line(code, "pub struct Guards {");
    for guard in &table.guards {
        let rows = rows_text(table, |row| row.guard.iter().any(|l| l.guard == guard.name));
        doc_comment(code, 4, &format!("Asked by {rows}."));
        line(code, format_args!("    pub {}: bool,", guard.name));
    }
    line(code, "}\n");
}

fn actions(code: &mut String, table: &Table) {
    doc_comment(code, 0, &format!("What `{}` wants done, in the order given.", table.machine.name));
    code.push_str(ALLOW);
    line(code, "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]");
    block(code, "pub enum Action", |code| {
        if !table.timers.is_empty() {
            doc_comment(code, 4, "`start(T)`: starts the timer, afresh if it runs.");
            line(code, "    Start(Timer),");
            doc_comment(code, 4, "`stop(T)`: stops the timer if it runs.");
            line(code, "    Stop(Timer),");
        }
        for name in table.performed() {
            let action = Action::Perform(name.to_owned());
            let rows = rows_text(table, |row| !row.later && row.actions.contains(&action));
            doc_comment(code, 4, &format!("`{name}`: {rows}."));
            line(code, format_args!("    {},", camel(name)));
        }
    });
}

fn outcome(code: &mut String, table: &Table) {
    let name = &table.machine.name;
    doc_comment(code, 0, &format!("A row of `{name}` that applies."));
    code.push_str(ALLOW);
    line(code, "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]");
    line(code, "pub struct Transition {");
    doc_comment(code, 4, "The rule, as in the table.");
    line(code, "    pub rule: &'static str,");
    doc_comment(code, 4, "The state afterwards.");
    line(code, "    pub next: State,");
    doc_comment(code, 4, "What is to be done, in this order.");
    line(code, "    pub actions: &'static [Action],\n}\n");
    doc_comment(code, 0, &format!("The answer of `{name}` to an event."));
    code.push_str(ALLOW);
    line(code, "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]");
    line(code, "pub enum Outcome {");
    doc_comment(code, 4, "A row applies and is acted upon.");
    line(code, "    Take(Transition),");
    doc_comment(code, 4, "A row of this rule applies and is not yet acted upon: the state stays.");
    line(code, "    Refuse(&'static str),");
    doc_comment(code, 4, "No row applies: the event is ignored and the state stays.");
    line(code, "    Ignore,\n}\n");
}

fn rules(code: &mut String, table: &Table) {
    let name = &table.machine.name;
    let lists = [
        ("RULES", format!("Every rule of `{name}`, in the order of the table."), table.rules()),
        ("LATER", format!("The rules of `{name}` with a row that is not yet acted upon."), table.later_rules()),
    ];
    for (constant, doc, rules) in lists {
        doc_comment(code, 0, &doc);
        code.push_str(ALLOW);
        let items: Vec<_> = rules.iter().map(|rule| format!("\"{rule}\"")).collect();
        line(code, format_args!("pub const {constant}: &[&str] = {};\n", slice(0, 30, &items)));
    }
}

fn step(code: &mut String, table: &Table) {
    let doc = format!("What `{}` does with an event: total, and at most one row applies ({}).", table.machine.name, table.source);
    doc_comment(code, 0, &doc);
    code.push_str(ALLOW);
    line(code, "#[allow(unreachable_patterns)]");
    line(code, "#[must_use]");
    line(code, "pub const fn step(state: State, event: Event, guards: Guards) -> Outcome {");
    line(code, "    match (state, event, guards) {");
    for cell in table.cells() {
        arm(code, &cell);
    }
    line(code, "        _ => Outcome::Ignore,");
    line(code, "    }\n}");
}

fn arm(code: &mut String, Cell { state, row, next }: &Cell<'_>) {
    let guard = match row.guard.iter().map(|l| format!("{}: {}", l.guard, l.wanted)).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "_".to_owned(),
        fields => format!("Guards {{ {fields}, .. }}"),
    };
    let event = camel(&row.event);
    line(code, format_args!("        // Rule {}, line {} of the table.", row.rule, row.line));
    let pattern = format!("(State::{state}, Event::{event}, {guard})");
    if row.later {
        line(code, format_args!("        {pattern} => Outcome::Refuse(\"{}\"),", row.rule));
        return;
    }
    let (rule, actions) = (&row.rule, row.actions.iter().map(action).collect::<Vec<_>>().join(", "));
    let take = format!("Outcome::Take(Transition {{ rule: \"{rule}\", next: State::{next}, actions: &[{actions}] }})");
    if 8 + pattern.len() + 4 + take.len() < WIDTH {
        line(code, format_args!("        {pattern} => {take},"));
    } else if 12 + take.len() <= WIDTH {
        line(code, format_args!("        {pattern} => {{\n            {take}\n        }}"));
    } else {
        line(code, format_args!("        {pattern} => Outcome::Take(Transition {{"));
        line(code, format_args!("            rule: \"{rule}\",\n            next: State::{next},"));
        let items: Vec<_> = row.actions.iter().map(action).collect();
        line(code, format_args!("            actions: {},\n        }}),", slice(12, 10, &items)));
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Perform(name) => format!("Action::{}", camel(name)),
        Action::Start(timer) => format!("Action::Start(Timer::{})", camel(timer)),
        Action::Stop(timer) => format!("Action::Stop(Timer::{})", camel(timer)),
    }
}
