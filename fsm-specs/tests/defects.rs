//! Each check, shown on a good table with one defect planted: the problem is named at its file and line.

#![allow(clippy::unwrap_used)]

use fsm_specs::{Error, Table, check, check_name, read};

const GOOD: &str = include_str!("golden/door.fsm");

fn examine(text: &str) -> Result<Table, Error> {
    let table = read("door.fsm", text)?;
    check(&table)?;
    Ok(table)
}

/// Replaces the line that starts with `start`, blanks ignored, and expects this problem among those found, there or,
/// when `at` names another line by its start, at that one.
fn planted(start: &str, line: &str, at: &str, problem: &str) {
    let squeezed = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<&str> = GOOD.lines().collect();
    let place = lines.iter().position(|l| squeezed(l).starts_with(start)).unwrap();
    lines.splice(place..=place, line.lines());
    let text = lines.join("\n");
    let number = 1 + text.lines().position(|l| squeezed(l).starts_with(at)).unwrap();
    let found = examine(&text).unwrap_err().to_string();
    let problem = problem.replace(" (no clock)", " (start one, or list the state as untimed or transient)");
    let wanted = format!("door.fsm:{number}: {problem}");
    assert!(found.lines().any(|l| l == wanted), "planted {line:?}\nwanted {wanted}\nfound\n{found}");
}

#[test]
fn the_table_without_a_defect_passes() {
    examine(GOOD).unwrap();
}

#[test]
fn a_line_that_is_not_understood_is_refused() {
    planted("note 2", "remark 2 why", "remark", "`remark` is no directive, and a row has columns parted by `|`");
    planted("machine", "machine Toy", "machine", "`Toy` cannot be the name of a machine");
    planted("source", "source", "source", "`source` names no document");
    planted("source", "source a\nsource b", "source b", "`source` is given twice");
    planted("note 2", "note 2", "note 2", "`note` needs a rule and a text");
    planted("untimed", "untimed Closed", "untimed", "`untimed` needs its reason in double quotes at the end of the line");
}

#[test]
fn a_row_that_is_not_understood_is_refused() {
    let five = "a row has 5 columns (rule | state | event [guard] | next | actions), this one has 4";
    planted("3 |", "3 | StandingOpen | to_Draught | Closed", "3 |", five);
    planted("3 |", "3 | StandingOpen | Draught | Closed | slam", "3 |", "`Draught` cannot be the name of an event");
    planted("3 |", "3 | open | to_Draught | Closed | slam", "3 |", "`open` cannot be the name of a state");
    planted(
        "3 |",
        "3 | StandingOpen | to_Draught [has_key | Closed | slam",
        "3 |",
        "the guard `[has_key` has no closing bracket at its end",
    );
    planted("3 |", "3 | StandingOpen | to_Draught [match] | Closed | slam", "3 |", "`match` cannot be the name of a guard");
    planted(
        "3 |",
        "3 | StandingOpen | to_Draught | Closed | begin(Draught)",
        "3 |",
        "`begin(Draught)`: only `start` and `stop` take something in parentheses",
    );
    planted("3 |", "3 | StandingOpen | to_Draught | Closed | start", "3 |", "`start` needs its timer: `start(…)`");
    planted(
        "3 |",
        "3 | StandingOpen | to_Draught | Closed | start(Draught",
        "3 |",
        "`start(Draught` has no closing parenthesis at its end",
    );
}

#[test]
fn a_table_without_its_directives_or_rows_is_refused() {
    let found = examine("").unwrap_err().to_string();
    for missing in ["`machine`", "`source`", "`initial`", "row"] {
        assert!(found.contains(&format!("door.fsm:1: the table has no {missing}")), "{found}");
    }
}

#[test]
fn a_name_that_is_not_declared_is_refused() {
    planted("initial", "initial Ajar", "initial", "state `Ajar` is not declared");
    planted("untimed", "untimed Ajar \"why\"", "untimed", "state `Ajar` is not declared");
    planted("3 |", "3 | Ajar | to_Draught | Closed | slam", "3 |", "state `Ajar` is not declared");
    planted("3 |", "3 | StandingOpen | to_Draught | Ajar | slam", "3 |", "state `Ajar` is not declared");
    planted("3 |", "3 | StandingOpen | to_Storm | Closed | slam", "3 |", "timer `Storm` is not declared");
    planted("3 |", "3 | StandingOpen | to_Draught | Closed | stop(Storm)", "3 |", "timer `Storm` is not declared");
    planted("3 |", "3 | StandingOpen | to_Draught [calm] | Closed | slam", "3 |", "guard `calm` is not declared");
    planted("note 2", "note 22 why", "note", "no row belongs to rule `22`");
}

#[test]
fn a_name_given_twice_is_refused() {
    planted("timers", "timers Draught No_Key Draught", "timers", "`Draught` is declared twice");
    planted("timers", "timers Draught No_Key NoKey", "timers", "`NoKey` and `No_Key` are the same name in Rust");
    planted("L-4 |", "L-4 | Closed, Closed | rx_Shout | = |", "L-4", "state `Closed` is named twice");
    planted("L-2 |", "L-2 | Locked | rx_Turn-Key [has_key & !has_key] | Closed |", "L-2", "guard `has_key` is named twice");
    planted("2 |", "2 | StandingOpen | rx_Push | = | start(Draught) stop(Draught)", "2 |", "timer `Draught` is started or stopped twice");
}

#[test]
fn a_name_declared_and_not_used_is_refused() {
    planted("guards", "guards has_key is_night is_day", "guards", "guard `is_day` is never asked");
    planted("timers", "timers Draught No_Key Storm", "timers", "timer `Storm` is never started");
    planted("3 |", "3 | StandingOpen | rx_Wind | Closed | slam", "timers", "timer `Draught` expires and no row says what then");
}

#[test]
fn a_row_of_a_final_state_or_of_none_is_refused() {
    planted("L-4 |", "L-4 | Closed, Removed | rx_Shout | = |", "L-4", "state `Removed` is final and can have no row");
    planted("initial", "initial Removed", "initial", "the initial state `Removed` is final");
}

#[test]
fn a_row_given_twice_is_refused() {
    planted(
        "L-2 |",
        "L-2 | Locked | rx_Turn-Key [has_key] | Closed | stop(No_Key)\nL-2 | Locked | rx_Turn-Key [has_key] | Locked |",
        "L-2 | Locked | rx_Turn-Key [has_key] | Locked",
        "rule `L-2` for rx_Turn-Key [has_key] in `Locked` is given already in line 17",
    );
}

#[test]
fn two_rows_that_can_apply_at_once_are_refused() {
    planted(
        "L-2 |",
        "L-2 | Locked | to_No_Key [has_key] | Closed |",
        "L-3 | Locked | to_No_Key [!is_night]",
        "to_No_Key [!is_night] in `Locked` can also be rule `L-2` of line 17",
    );
    planted("L-2 |", "L-2 | * | rx_Push | Closed |", "L-2", "rx_Push in `StandingOpen` can also be rule `2` of line 14");
}

#[test]
fn a_state_that_cannot_be_reached_is_refused() {
    planted("states", "states Closed StandingOpen Locked Ajar", "states", "state `Ajar` cannot be reached");
    planted("L-1 |", "L-1 | Closed | to_Draught [has_key] | Locked | start(No_Key)", "states", "state `Locked` cannot be reached");
}

#[test]
fn a_state_without_a_way_out_is_refused() {
    let trap = "L-2 | Closed | rx_Gust | Ajar | start(Draught)\nL-2 | Ajar | to_Draught | Blown | start(Draught)\nL-2 | Blown | to_Draught | Ajar | start(Draught)";
    let text = GOOD.replace("9    | *  ", "9 | Closed, StandingOpen, Locked").replace("states   ", "states Ajar Blown ");
    let found = examine(&text.replace("  L-2 |", &format!("{trap}\n  L-2 |"))).unwrap_err().to_string();
    for state in ["Ajar", "Blown"] {
        assert!(found.contains(&format!("door.fsm:4: state `{state}` has no way out")), "{found}");
    }
}

#[test]
fn a_timer_that_cannot_run_where_its_expiry_has_a_row_is_refused() {
    planted(
        "L-2 |",
        "L-2 | Locked | to_Draught | Closed | stop(No_Key)",
        "L-2",
        "`to_Draught` never happens here: the timer never runs in this state",
    );
}

#[test]
fn a_state_that_may_be_left_with_no_timer_running_is_refused() {
    planted(
        "1 |",
        "1 | Closed | rx_Push | StandingOpen | squeak",
        "1 |",
        "in state `StandingOpen` no timer may be running (no clock): Closed --rx_Push (rule 1)--> StandingOpen",
    );
    planted("untimed", "# none", "initial", "in state `Closed` no timer may be running (no clock): Closed");
}

/// The timer that fires is over unless the row starts it again.
#[test]
fn a_timer_that_fired_runs_no_longer() {
    planted(
        "L-3 | Locked | to_No_Key [!has_key & is_night]",
        "L-3 | Locked | to_No_Key [!has_key & is_night] | = | ring_bell",
        "L-3 | Locked | to_No_Key [!has_key & is_night]",
        "in state `Locked` no timer may be running (no clock): Closed --rx_Turn-Key [has_key] (rule L-1)--> Locked --to_No_Key [!has_key & is_night] (rule L-3)--> Locked",
    );
}

/// Where the guards leave a gap, the expiry is ignored and the timer is over all the same.
#[test]
fn a_timer_that_fires_unanswered_runs_no_longer() {
    planted(
        "L-3 | Locked | to_No_Key [has_key & is_night]",
        "# none",
        "L-1 |",
        "in state `Locked` no timer may be running (no clock): Closed --rx_Turn-Key [has_key] (rule L-1)--> Locked --to_No_Key (ignored)--> Locked",
    );
}

#[test]
fn a_row_not_yet_acted_upon_does_not_answer_a_timer_today() {
    planted(
        "3 |",
        "3 | StandingOpen | to_Draught | Closed | later: slam",
        "1 |",
        "in state `StandingOpen` no timer may be running, as acted upon today (no clock): Closed --rx_Push (rule 1)--> StandingOpen --to_Draught (ignored)--> StandingOpen",
    );
}

/// The later row beside it is for a case that does not arise yet.
#[test]
fn a_timer_answered_by_one_row_acted_upon_is_answered_today() {
    examine(&GOOD.replace("has_key & is_night]  | Closed    |", "has_key & is_night]  | Closed    | later:")).unwrap();
}

#[test]
fn a_timer_that_runs_where_no_row_is_for_it_is_forgotten_unless_it_is_said_to_lapse() {
    let forgotten = GOOD.replace("stop(No_Key)", "");
    let found = examine(&forgotten).unwrap_err().to_string();
    assert!(
        found.contains("timer `No_Key` may run in state `Closed`, where no row answers it (stop it, or list it as lapsing): "),
        "{found}"
    );
    examine(&forgotten.replace("untimed ", "lapsing No_Key \"for once\"\nuntimed ")).unwrap();
    planted(
        "untimed",
        "untimed Closed \"a\"\nlapsing No_Key \"b\"",
        "lapsing",
        "timer `No_Key` is listed as lapsing and is answered wherever it runs",
    );
    planted("untimed", "untimed Closed \"a\"\nlapsing Nap \"b\"", "lapsing", "timer `Nap` is not declared");
}

#[test]
fn no_timer_fires_in_a_transient_state() {
    let through = "5 | StandingOpen | rx_Gust | Swinging |\n  5 | Swinging | rx_Gust | StandingOpen |\n  3    |";
    let text = GOOD.replacen("3    |", through, 1).replace("StandingOpen Locked", "StandingOpen Locked Swinging");
    let found = examine(&text).unwrap_err().to_string();
    assert!(found.contains("in state `Swinging` no timer may be running"), "{found}");
    let text = text.replace("untimed ", "transient Swinging \"for a moment\"\nuntimed ");
    examine(&text).unwrap();
    let found = examine(&text.replace("Swinging | rx_Gust", "Swinging | to_Draught")).unwrap_err().to_string();
    assert!(found.contains("`to_Draught` never happens here"), "{found}");
    planted("untimed", "untimed Closed \"a\"\ntransient Closed \"b\"", "transient", "state `Closed` is listed as untimed and as transient");
}

#[test]
fn a_machine_bears_the_name_of_its_file() {
    let table = examine(GOOD).unwrap();
    check_name(&table, "toy/door").unwrap();
    let found = check_name(&table, "toy/gate").unwrap_err().to_string();
    assert_eq!(found, "door.fsm:2: the machine of this file must be named `toy-gate`");
}

#[test]
fn every_problem_of_a_table_is_named_in_the_order_of_its_lines() {
    let text = GOOD.replace("initial  Closed", "initial  closed").replace("slam", "Slam");
    let error = examine(&text).unwrap_err();
    let lines: Vec<_> = error.problems().iter().map(|p| p.line).collect();
    assert_eq!(lines, [1, 5, 15]);
}
