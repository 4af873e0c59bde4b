//! Reader, checker, generator and diagram writer on text nobody meant as a table.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

const GOOD: &str = include_str!("golden/door.fsm");

/// Reads, and what can be read goes on through everything.
fn feed(text: &str) {
    let Ok(table) = fsm_specs::read("arbitrary.fsm", text) else { return };
    if fsm_specs::check(&table).is_ok() {
        assert!(fsm_specs::rust(&table).contains("pub const fn step"));
        assert!(fsm_specs::diagram(&table).contains("stateDiagram-v2"));
    }
}

fn line_of_words() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "machine",
        "source",
        "states",
        "initial",
        "final",
        "timers",
        "guards",
        "untimed",
        "transient",
        "lapsing",
        "note",
        "|",
        "|",
        "|",
        "|",
        "*",
        "=",
        "A",
        "B",
        "T",
        "a",
        "b",
        "to_T",
        "rx_B",
        "[",
        "]",
        "!",
        "&",
        "start(T)",
        "stop(T)",
        "later:",
        "\"",
        "\"why\"",
        "1",
        "1-x",
        ",",
        "é",
        "#",
    ]);
    prop::collection::vec(words, 0..12).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        feed(&text);
    }

    #[test]
    fn any_lines_of_the_words_of_a_table_are_read_or_refused(lines in prop::collection::vec(line_of_words(), 0..12)) {
        feed(&lines.join("\n"));
    }

    #[test]
    fn a_good_table_with_a_piece_replaced_is_read_or_refused(
        from in 0..GOOD.len(), length in 0_usize..12, piece in "[A-Za-z_|*=!&\\[\\]() ,\"\n#]{0,6}",
    ) {
        let mut text = GOOD.to_owned();
        text.replace_range(from..(from + length).min(GOOD.len()), &piece);
        feed(&text);
    }
}
