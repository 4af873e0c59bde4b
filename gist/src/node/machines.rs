//! The four state machines of RFC 5971 §6, generated from `fsm-specs/tables/gist/*.fsm`.

/// The node (RFC 5971 §6.1).
pub(super) mod node {
    include!(concat!(env!("OUT_DIR"), "/gist_node.rs"));
}

/// The querying end of a routing state (RFC 5971 §6.2).
pub(super) mod querying {
    include!(concat!(env!("OUT_DIR"), "/gist_querying.rs"));
}

/// The responding end of a routing state (RFC 5971 §6.3).
pub(super) mod responding {
    include!(concat!(env!("OUT_DIR"), "/gist_responding.rs"));
}

/// A messaging association (RFC 5971 §6.4).
pub(super) mod association {
    include!(concat!(env!("OUT_DIR"), "/gist_association.rs"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The cells of a table that have a row, as `state event`.
    fn cells(table: &str, states: &[String]) -> BTreeSet<String> {
        let lines = table.lines().filter(|line| line.contains('|') && !line.starts_with('#') && !line.starts_with("note"));
        let mut cells = BTreeSet::new();
        for line in lines {
            let columns: Vec<_> = line.split('|').map(str::trim).collect();
            let event = columns[2].split_whitespace().next().unwrap_or_default();
            let named: Vec<_> = columns[1].split(',').map(|state| state.trim().to_owned()).collect();
            let all: Vec<_> = states.iter().filter(|state| *state != "Birth" && *state != "Dead").cloned().collect();
            cells.extend(if columns[1] == "*" { all } else { named }.into_iter().map(|state| format!("{state} {event}")));
        }
        cells
    }

    /// Each state and event of a machine: ignored if and only if the table has no row for it.
    macro_rules! matrix {
        ($machine:ident, $table:literal) => {{
            use super::$machine::{Event, Guards, Outcome, State, step};
            let states: Vec<_> = State::ALL.iter().map(|state| format!("{state:?}")).collect();
            let cells = cells(include_str!($table), &states);
            let mut ignored = 0;
            for (state, event) in State::ALL.iter().flat_map(|state| Event::ALL.iter().map(move |event| (*state, *event))) {
                if !cells.contains(&format!("{state:?} {event}")) {
                    assert_eq!(step(state, event, Guards::default()), Outcome::Ignore, "{event} in {state:?}");
                    ignored += 1;
                }
            }
            assert!(cells.len() > 5 && ignored + cells.len() == State::ALL.len() * Event::ALL.len(), "{cells:?}");
        }};
    }

    /// G-282: an event that the table does not list for a state is ignored there; every state and event of all four machines.
    #[test]
    fn what_no_row_names_is_ignored() {
        matrix!(node, "../../../fsm-specs/tables/gist/node.fsm");
        matrix!(querying, "../../../fsm-specs/tables/gist/querying.fsm");
        matrix!(responding, "../../../fsm-specs/tables/gist/responding.fsm");
        matrix!(association, "../../../fsm-specs/tables/gist/association.fsm");
    }
}
