//! Answers of a daemon as text for people: a list of objects as a table, everything else line by line.

use serde_json::{Map, Value};

/// Shows an answer.
pub fn show(answer: &Value) -> String {
    let mut text = String::new();
    render(&mut text, "", answer);
    let text = text.trim_end();
    if text.is_empty() { "nothing".to_owned() } else { text.to_owned() }
}

fn render(text: &mut String, name: &str, value: &Value) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| render(text, &joined(name, field), value)),
        Value::Array(rows) if rows.iter().all(Value::is_object) => render_rows(text, name, rows),
        other => text.push_str(&format!("{name}: {}\n", word(other))),
    }
}

/// A table with one column a field; rows that say "0 packets" are left out.
fn render_rows(text: &mut String, name: &str, rows: &[Value]) {
    let rows: Vec<Map<String, Value>> = rows.iter().map(flat).filter(|row| row.get("packets").is_none_or(|packets| packets != 0)).collect();
    if !name.is_empty() {
        text.push_str(&format!("{name}: {}\n", if rows.is_empty() { "none" } else { "" }));
    }
    let Some(first) = rows.first() else { return };
    let columns: Vec<&String> = first.keys().collect();
    let widths: Vec<usize> = columns
        .iter()
        .map(|column| rows.iter().map(|row| cell(row, column).chars().count()).chain([column.chars().count()]).max().unwrap_or(0))
        .collect();
    let mut line = |cells: Vec<String>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    };
    line(columns.iter().map(|column| (*column).clone()).collect());
    for row in &rows {
        line(columns.iter().map(|column| cell(row, column)).collect());
    }
}

/// A row with the fields of inner objects beside its own.
fn flat(row: &Value) -> Map<String, Value> {
    let mut fields = Map::new();
    for (name, value) in row.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => fields.extend(inner.iter().map(|(name, value)| (name.clone(), value.clone()))),
            other => drop(fields.insert(name.clone(), other.clone())),
        }
    }
    fields
}

fn cell(row: &Map<String, Value>, column: &str) -> String {
    row.get(column).map(word).unwrap_or_default()
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn joined(name: &str, field: &str) -> String {
    if name.is_empty() { field.to_owned() } else { format!("{name}.{field}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_list_becomes_a_table_and_reasons_without_packets_are_left_out() {
        let answer = json!({ "data": { "dropped": [
            { "reason": "bad_icv", "packets": 3, "bytes": 300 },
            { "reason": "replayed", "packets": 0, "bytes": 0 },
        ] } });
        let shown = show(&answer);
        assert!(shown.contains("bad_icv") && !shown.contains("replayed"), "{shown}");
    }

    #[test]
    fn an_empty_answer_says_so() {
        assert_eq!(show(&json!([])), "nothing");
    }
}
