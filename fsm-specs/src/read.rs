//! The reader: text to [`Table`], refusing what it does not understand at file and line.

use crate::error::Error;
use crate::names;
use crate::table::{Action, Declared, Excused, Literal, Next, Note, Row, Scope, Table};

/// Reads a table; `file` is the name that messages show.
///
/// Reads names, does not resolve them: [`crate::check()`] does. Never panics, whatever the text.
///
/// # Errors
///
/// Every line that is not of the format, and directives that are missing or given twice.
pub fn read(file: &str, text: &str) -> Result<Table, Error> {
    let mut reader = Reader { file, error: Error::default(), draft: Draft::default() };
    for (at, line) in text.lines().enumerate() {
        let line_number = at + 1;
        if let Err(message) = reader.line(line.trim(), line_number) {
            reader.error.push(file, line_number, message);
        }
    }
    reader.finish()
}

struct Reader<'a> {
    file: &'a str,
    error: Error,
    draft: Draft,
}

/// The table while it is being read.
#[derive(Default)]
struct Draft {
    machine: Option<Declared>,
    source: Option<String>,
    initial: Option<Declared>,
    states: Vec<Declared>,
    finals: Vec<Declared>,
    timers: Vec<Declared>,
    guards: Vec<Declared>,
    untimed: Vec<Excused>,
    transient: Vec<Excused>,
    lapsing: Vec<Excused>,
    notes: Vec<Note>,
    rows: Vec<Row>,
}

impl Reader<'_> {
    fn line(&mut self, text: &str, line: usize) -> Result<(), String> {
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        let draft = &mut self.draft;
        match word {
            "machine" => once(&mut draft.machine, one(rest, line, "a machine", names::is_machine)?, word),
            "initial" => once(&mut draft.initial, one(rest, line, "a state", names::is_state)?, word),
            "source" if rest.is_empty() => Err("`source` names no document".to_owned()),
            "source" => once(&mut draft.source, rest.to_owned(), word),
            "states" => declare(&mut draft.states, rest, line, "a state", names::is_state),
            "final" => declare(&mut draft.finals, rest, line, "a state", names::is_state),
            "timers" => declare(&mut draft.timers, rest, line, "a timer", names::is_timer),
            "guards" => declare(&mut draft.guards, rest, line, "a guard", names::is_snake),
            "untimed" => excuse(&mut draft.untimed, rest, line, word, ("a state", names::is_state)),
            "transient" => excuse(&mut draft.transient, rest, line, word, ("a state", names::is_state)),
            "lapsing" => excuse(&mut draft.lapsing, rest, line, word, ("a timer", names::is_timer)),
            "note" => note(&mut draft.notes, rest, line),
            _ if text.contains('|') => {
                draft.rows.push(row(text, line)?);
                Ok(())
            }
            _ => Err(format!("`{word}` is no directive, and a row has columns parted by `|`")),
        }
    }

    fn finish(mut self) -> Result<Table, Error> {
        let Draft { machine, source, initial, mut states, finals, timers, guards, untimed, transient, lapsing, notes, rows } = self.draft;
        for (given, word) in [(machine.is_some(), "machine"), (source.is_some(), "source"), (initial.is_some(), "initial")] {
            if !given {
                self.error.push(self.file, 1, format_args!("the table has no `{word}`"));
            }
        }
        if rows.is_empty() {
            self.error.push(self.file, 1, "the table has no row");
        }
        for state in &finals {
            if !states.iter().any(|s| s.name == state.name) {
                states.push(state.clone());
            }
        }
        let (Some(machine), Some(source), Some(initial)) = (machine, source, initial) else {
            return Err(self.error.sorted());
        };
        let file = self.file.to_owned();
        self.error.into_result(Table {
            file,
            machine,
            source,
            states,
            initial,
            finals,
            timers,
            guards,
            untimed,
            transient,
            lapsing,
            notes,
            rows,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("`{word}` is given twice")),
    }
}

fn one(text: &str, line: usize, what: &str, test: fn(&str) -> bool) -> Result<Declared, String> {
    Ok(Declared { name: named(text, what, test)?, line })
}

fn named(text: &str, what: &str, test: fn(&str) -> bool) -> Result<String, String> {
    if test(text) { Ok(text.to_owned()) } else { Err(format!("`{text}` cannot be the name of {what}")) }
}

fn declare(list: &mut Vec<Declared>, text: &str, line: usize, what: &str, test: fn(&str) -> bool) -> Result<(), String> {
    for word in words(text) {
        let declared = one(word, line, what, test)?;
        if list.iter().any(|d| d.name == declared.name) {
            return Err(format!("`{word}` is declared twice"));
        }
        list.push(declared);
    }
    Ok(())
}

/// `Birth Idle "why"`.
fn excuse(list: &mut Vec<Excused>, text: &str, line: usize, word: &str, (what, test): (&str, fn(&str) -> bool)) -> Result<(), String> {
    let quoted = text.split_once('"').and_then(|(states, rest)| Some((states, rest.strip_suffix('"')?.trim())));
    let Some((states, reason)) = quoted.filter(|(_, reason)| !reason.is_empty()) else {
        return Err(format!("`{word}` needs its reason in double quotes at the end of the line"));
    };
    for state in words(states) {
        let state = named(state, what, test)?;
        if list.iter().any(|u| u.state == state) {
            return Err(format!("`{state}` is listed as {word} twice"));
        }
        list.push(Excused { state, reason: reason.to_owned(), line });
    }
    Ok(())
}

/// `4 why this rule differs`.
fn note(list: &mut Vec<Note>, text: &str, line: usize) -> Result<(), String> {
    match text.split_once(char::is_whitespace) {
        Some((rule, text)) => {
            let rule = named(rule, "a rule", names::is_rule)?;
            list.push(Note { rule, text: text.trim().to_owned(), line });
            Ok(())
        }
        None => Err("`note` needs a rule and a text".to_owned()),
    }
}

/// `2 | AwaitingResponse | to_NoResponse [!nresp_reached] | = | send_query start(NoResponse)`.
fn row(text: &str, line: usize) -> Result<Row, String> {
    let columns: Vec<&str> = text.split('|').map(str::trim).collect();
    let [rule, from, event, next, actions] = columns.as_slice() else {
        return Err(format!("a row has 5 columns (rule | state | event [guard] | next | actions), this one has {}", columns.len()));
    };
    let (event, guard) = match event.split_once('[') {
        None => (*event, Vec::new()),
        Some((event, rest)) => {
            let inner = rest.strip_suffix(']').ok_or_else(|| format!("the guard `[{rest}` has no closing bracket at its end"))?;
            (event.trim(), conjunction(inner)?)
        }
    };
    let (later, actions) = match actions.strip_prefix("later:") {
        Some(rest) => (true, rest),
        None => (false, *actions),
    };
    Ok(Row {
        rule: named(rule, "a rule", names::is_rule)?,
        from: states(from)?,
        event: named(event, "an event", names::is_event)?,
        guard,
        next: if *next == "=" { Next::Same } else { Next::State(named(next, "a state", names::is_state)?) },
        actions: actions.split_whitespace().map(action).collect::<Result<_, _>>()?,
        later,
        line,
    })
}

fn states(text: &str) -> Result<Scope, String> {
    if text == "*" {
        return Ok(Scope::Every);
    }
    let named = |state: &str| named(state.trim(), "a state", names::is_state);
    Ok(Scope::Named(text.split(',').map(named).collect::<Result<_, _>>()?))
}

fn conjunction(text: &str) -> Result<Vec<Literal>, String> {
    let literal = |part: &str| {
        let part = part.trim();
        let (wanted, guard) = match part.strip_prefix('!') {
            Some(guard) => (false, guard.trim()),
            None => (true, part),
        };
        Ok(Literal { guard: named(guard, "a guard", names::is_snake)?, wanted })
    };
    text.split('&').map(literal).collect()
}

fn action(text: &str) -> Result<Action, String> {
    let Some((verb, rest)) = text.split_once('(') else {
        return match text {
            "start" | "stop" => Err(format!("`{text}` needs its timer: `{text}(…)`")),
            _ => Ok(Action::Perform(named(text, "an action", names::is_snake)?)),
        };
    };
    let timer = rest.strip_suffix(')').ok_or_else(|| format!("`{text}` has no closing parenthesis at its end"))?;
    let timer = named(timer, "a timer", names::is_timer)?;
    match verb {
        "start" => Ok(Action::Start(timer)),
        "stop" => Ok(Action::Stop(timer)),
        _ => Err(format!("`{text}`: only `start` and `stop` take something in parentheses")),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty())
}
