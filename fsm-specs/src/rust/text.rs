//! Pieces of generated text: comments, enumerations, slices.

use std::fmt::Write as _;

use crate::table::{Row, Table};

/// Longest line of generated code.
pub(super) const WIDTH: usize = 140;

/// On each generated item: which of them a crate uses, and whether it makes the module public, is the crate's matter.
pub(super) const ALLOW: &str = "#[allow(dead_code, unreachable_pub, clippy::all, clippy::pedantic)]\n";

/// An enumeration of plain names: variant, doc, and what `Display` prints.
pub(super) fn enumeration(code: &mut String, name: &str, doc: &str, variants: &[(String, String, String)]) {
    doc_comment(code, 0, doc);
    code.push_str(ALLOW);
    line(code, "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]");
    block(code, &format!("pub enum {name}"), |code| {
        for (variant, doc, _) in variants {
            doc_comment(code, 4, doc);
            line(code, format_args!("    {variant},"));
        }
    });
    code.push_str(ALLOW);
    line(code, format_args!("impl {name} {{"));
    doc_comment(code, 4, "All of them, in the order of the table.");
    let all: Vec<_> = variants.iter().map(|(variant, ..)| format!("Self::{variant}")).collect();
    line(code, format_args!("    pub const ALL: &'static [Self] = {};", slice(4, 38, &all)));
    line(code, "}\n");
    code.push_str(ALLOW);
    line(code, format_args!("impl ::core::fmt::Display for {name} {{"));
    let unused = if variants.is_empty() { "_" } else { "" };
    line(code, format_args!("    fn fmt(&self, {unused}f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {{"));
    if variants.is_empty() {
        line(code, "        match *self {}");
    } else {
        line(code, "        f.write_str(match self {");
        for (variant, _, shown) in variants {
            line(code, format_args!("            Self::{variant} => \"{shown}\","));
        }
        line(code, "        })");
    }
    line(code, "    }\n}\n");
}

/// `head {`, the body and `}`, closed at once when the body is empty.
pub(super) fn block(code: &mut String, head: &str, body: impl Fn(&mut String)) {
    let mut inner = String::new();
    body(&mut inner);
    let gap = if inner.is_empty() { "" } else { "\n" };
    line(code, format_args!("{head} {{{gap}{inner}}}\n"));
}

/// The rules of the rows that `matches` picks, as a phrase.
pub(super) fn rows_text(table: &Table, matches: impl Fn(&Row) -> bool) -> String {
    let mut rules: Vec<&str> = Vec::new();
    for row in table.rows.iter().filter(|row| matches(row)) {
        if !rules.contains(&row.rule.as_str()) {
            rules.push(&row.rule);
        }
    }
    match rules.as_slice() {
        [] => "no rule".to_owned(),
        [rule] => format!("rule {rule}"),
        _ => format!("rules {}", rules.join(", ")),
    }
}

/// `&[a, b]`, over several lines when it would not fit behind `before` columns at this indentation.
pub(super) fn slice(indent: usize, before: usize, items: &[String]) -> String {
    let flat = format!("&[{}]", items.join(", "));
    if indent + before + flat.len() <= WIDTH {
        return flat;
    }
    let inner = " ".repeat(indent + 4);
    let lines: String = items.iter().map(|item| format!("{inner}{item},\n")).collect();
    format!("&[\n{lines}{}]", " ".repeat(indent))
}

pub(super) fn doc_comment(code: &mut String, indent: usize, text: &str) {
    let margin = format!("{}///", " ".repeat(indent));
    let mut current = margin.clone();
    for word in text.split_whitespace() {
        if current.len() + 1 + word.len() > WIDTH && current != margin {
            line(code, &current);
            current.clone_from(&margin);
        }
        current.push(' ');
        current.push_str(word);
    }
    line(code, current);
}

pub(super) fn line(code: &mut String, text: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(code, "{text}");
}
