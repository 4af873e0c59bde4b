//! Every row of the three tables that is acted upon is taken by at least one test.
//!
//! The test of that runs all the others once more, in a process that notes which rows they take.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const TABLES: [(&str, &str); 3] = [
    ("sender", include_str!("../../../fsm-specs/tables/pbs/sender.fsm")),
    ("receiver", include_str!("../../../fsm-specs/tables/pbs/receiver.fsm")),
    ("router", include_str!("../../../fsm-specs/tables/pbs/router.fsm")),
];

/// Names the file that rows are noted in.
const NOTES: &str = "PBS_ROWS_TAKEN";

/// One way to take a row: a state, an event, and what must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    machine: &'static str,
    rule: String,
    state: String,
    event: String,
    guard: String,
}

/// What a machine did.
#[derive(Default)]
struct Step {
    rule: String,
    from: String,
    event: String,
    /// As printed.
    guards: String,
    is_step: bool,
}

impl Visit for Step {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let shown = format!("{value:?}");
        match field.name() {
            "from" => self.from = shown.replace(' ', ""),
            "event" => self.event = shown,
            "guards" => self.guards = shown,
            "message" => self.is_step = shown == "row taken",
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "rule" {
            value.clone_into(&mut self.rule);
        }
    }
}

/// Notes each step once, with the name of the test that made it.
struct Notes {
    path: String,
    noted: Mutex<BTreeSet<String>>,
}

impl Subscriber for Notes {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pbs_nslp")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut step = Step::default();
        event.record(&mut step);
        if !step.is_step {
            return;
        }
        let machine = event.metadata().target().split("::").nth(1).unwrap_or_default();
        let line = format!("{machine}\t{}\t{}\t{}\t{}", step.rule, step.from, step.event, step.guards);
        if self.noted.lock().unwrap().insert(line.clone()) {
            // Rust's test harness names its threads after the tests.
            let line = format!("{line}\t{}\n", std::thread::current().name().unwrap_or_default());
            let mut file = OpenOptions::new().create(true).append(true).open(&self.path).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Has steps noted, if that is what the process is for. To be called before anything happens in a test.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if let Ok(path) = std::env::var(NOTES) {
            tracing::subscriber::set_global_default(Notes { path, noted: Mutex::default() }).unwrap();
        }
    });
}

/// `rx_Query` is `RxQuery` in the code.
fn in_code(event: &str) -> String {
    let (kind, name) = event.split_once('_').unwrap();
    format!("{}{}{name}", kind[..1].to_uppercase(), &kind[1..])
}

/// The rows of a table that are acted upon, in states that such rows lead to. What single packets do is the packet side's, and
/// signalling never sees it.
fn rows(machine: &'static str, table: &str) -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    let mut ways = Vec::new();
    for line in table.lines().filter(|line| line.contains('|') && !line.starts_with('#') && !line.starts_with("note")) {
        let columns: Vec<_> = line.split('|').map(str::trim).collect();
        let [rule, from, event, next, actions] = columns.as_slice() else { panic!("{line}") };
        let (event, guard) = event.split_once(' ').unwrap_or((event, ""));
        if actions.starts_with("later:") || event == "tg_Data" {
            continue;
        }
        for state in from.split(',').map(|state| state.trim().to_owned()) {
            ways.push((state.clone(), (*next).to_owned()));
            rows.insert(Row { machine, rule: (*rule).to_owned(), state, event: in_code(event), guard: guard.trim().to_owned() });
        }
    }
    let mut reached = BTreeSet::from(["Idle".to_owned()]);
    while let Some((_, next)) = ways.iter().find(|(from, next)| next != "=" && reached.contains(from) && !reached.contains(next)) {
        reached.insert(next.clone());
    }
    rows.retain(|row| reached.contains(&row.state));
    rows
}

/// Whether printed guards meet a condition such as `[a & !b]`.
fn holds(guard: &str, printed: &str) -> bool {
    let terms = guard.trim_matches(['[', ']']).split('&').map(str::trim).filter(|term| !term.is_empty());
    let is_set = |name: &str| {
        let set = |value: &str| printed.contains(&format!(" {name}: {value}"));
        assert!(set("true") || set("false"), "no guard {name} in {printed}");
        set("true")
    };
    terms.into_iter().all(|term| term.strip_prefix('!').map_or_else(|| is_set(term), |name| !is_set(name)))
}

/// Runs all other tests, and gives what they noted. Attacks in every state take long, and no row that is not taken to get there.
fn notes() -> String {
    let path = std::env::temp_dir().join(format!("pbs-rows-{}", std::process::id()));
    let mut others = Command::new(std::env::current_exe().unwrap());
    others.args(["--skip", "coverage::", "--skip", "hostile::"]).env(NOTES, &path).stdout(Stdio::null()).stderr(Stdio::null());
    let status = others.status().unwrap();
    let notes = std::fs::read_to_string(&path).unwrap_or_default();
    drop(std::fs::remove_file(&path));
    assert!(status.success(), "the other tests must pass first");
    notes
}

#[test]
fn every_row_that_is_acted_upon_is_taken_by_a_test() {
    let notes = notes();
    let mut witnesses: BTreeMap<Row, BTreeSet<&str>> =
        TABLES.into_iter().flat_map(|(machine, table)| rows(machine, table)).map(|row| (row, BTreeSet::new())).collect();
    assert!(witnesses.len() > 120, "{}", witnesses.len());
    for line in notes.lines() {
        let columns: Vec<_> = line.split('\t').collect();
        let [machine, rule, from, event, guards, test] = columns.as_slice() else { panic!("{line}") };
        for (row, tests) in &mut witnesses {
            let is_row = (row.machine, row.rule.as_str(), row.state.as_str(), row.event.as_str()) == (machine, *rule, *from, *event);
            if is_row && holds(&row.guard, guards) {
                tests.insert(test);
            }
        }
    }
    let taken = witnesses.values().filter(|tests| !tests.is_empty()).count();
    // Past the harness, which keeps what tests print to itself.
    writeln!(std::io::stderr(), "PBS: {taken} of {} transitions are taken by a test", witnesses.len()).unwrap();
    let mut wrong = String::new();
    for (row, tests) in witnesses {
        if tests.is_empty() {
            let Row { machine, rule, state, event, guard } = row;
            writeln!(wrong, "{machine} {rule} | {state} | {event} {guard}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "rows that no test takes:\n{wrong}");
}

#[test]
fn a_condition_is_held_against_what_is_printed() {
    let printed = "Guards { full: false, taken: true }";
    assert!(holds("", printed) && holds("[taken]", printed) && holds("[!full & taken]", printed));
    assert!(!holds("[full]", printed) && !holds("[!full & !taken]", printed));
    assert_eq!(in_code("tg_OverBudget"), "TgOverBudget");
}
