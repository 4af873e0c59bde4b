//! What may be a name, and how a name of the table becomes a name of Rust.

/// Words Rust keeps for itself, so that no guard can be a field of that name.
const KEPT: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum", "extern",
    "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv",
    "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use",
    "virtual", "where", "while", "yield",
];

/// What means something else in generated code.
const RESERVED: &[&str] = &["Self", "ALL", "INITIAL"];

/// `gist-querying`.
pub(crate) fn is_machine(name: &str) -> bool {
    starts_with(name, |c| c.is_ascii_lowercase()) && all(name, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// `AwaitingResponse`: the Rust name is the same.
pub(crate) fn is_state(name: &str) -> bool {
    starts_with(name, |c| c.is_ascii_uppercase()) && all(name, |c| c.is_ascii_alphanumeric()) && !RESERVED.contains(&name)
}

/// `NoResponse`, `No_Response`.
pub(crate) fn is_timer(name: &str) -> bool {
    starts_with(name, |c| c.is_ascii_uppercase()) && all(name, |c| c.is_ascii_alphanumeric() || c == '_') && !RESERVED.contains(&name)
}

/// `rx_Query`, `rx_MA-Hello`.
pub(crate) fn is_event(name: &str) -> bool {
    starts_with(name, |c| c.is_ascii_lowercase()) && all(name, |c| c.is_ascii_alphanumeric() || c == '_' || c == '-') && name != "self"
}

/// `send_query`, and the guards.
pub(crate) fn is_snake(name: &str) -> bool {
    starts_with(name, |c| c.is_ascii_lowercase())
        && all(name, |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !KEPT.contains(&name)
}

/// `2`, `FS-12`.
pub(crate) fn is_rule(name: &str) -> bool {
    !name.is_empty() && all(name, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

/// `rx_Query` → `RxQuery`, `send_query` → `SendQuery`.
pub(crate) fn camel(name: &str) -> String {
    let mut out = String::new();
    for word in name.split(['_', '-']) {
        let mut letters = word.chars();
        out.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        out.extend(letters);
    }
    out
}

/// `AwaitingResponse` → `Awaiting Response`, `MAIdle` → `MA Idle`.
pub(crate) fn spaced(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|i| letters.get(i));
        let after = letters.get(at + 1);
        let starts_word = letter.is_ascii_uppercase()
            && before.is_some_and(|b| b.is_ascii_lowercase() || (b.is_ascii_uppercase() && after.is_some_and(char::is_ascii_lowercase)));
        if starts_word {
            out.push(' ');
        }
        out.push(*letter);
    }
    out
}

fn starts_with(name: &str, test: impl Fn(char) -> bool) -> bool {
    name.chars().next().is_some_and(test)
}

fn all(name: &str, test: impl Fn(char) -> bool) -> bool {
    name.chars().all(test)
}

#[cfg(test)]
mod tests {
    use super::{camel, spaced};

    #[test]
    fn names_of_the_table_become_names_of_rust() {
        for (table, rust) in [
            ("rx_Query", "RxQuery"),
            ("tg_NSLPData", "TgNSLPData"),
            ("rx_MA-Hello", "RxMAHello"),
            ("to_NoResponse", "ToNoResponse"),
            ("send_query", "SendQuery"),
            ("No_Response", "NoResponse"),
        ] {
            assert_eq!(camel(table), rust);
        }
    }

    #[test]
    fn states_print_as_the_rfc_prints_them() {
        for (name, shown) in [("AwaitingResponse", "Awaiting Response"), ("Dead", "Dead"), ("WaitP", "Wait P"), ("MAIdle", "MA Idle")] {
            assert_eq!(spaced(name), shown);
        }
    }
}
