//! The answer to `flows` as a table for people.

use serde_json::Value;

use crate::protocol::Protocol;

/// What the columns mean, for `--help`.
pub const LEGEND: &str = "\
Columns:
  way             out: this host sends; in: this host receives; through: this router forwards
  flow            source > destination, with ports where the protocol has them
  state           permitted: packets pass; asks: a Query waits for its answer; not granted: refused or unanswered, see note;
                  compares: the receiver holds what was sent against what came; gives back: released, waits for the answer
  allowed bytes   AV: what the permission allows in all, Authentication Headers included
  counted bytes   CV: what has been counted of it here; on the sending host SV: what has been sent under it
  left s          seconds until the permission ends if nobody prolongs it
  refresh s       T: the sender asks anew at least every so many seconds
  authentication  how packets prove that they belong to the flow
  SPI             number of the security association that packets name
  note            why the flow is not granted, and after how many seconds it may ask again
Volumes are IP packets with their headers. `--json` has the same and more, see router-agent/README.md.";

const HEADINGS: [&str; 10] =
    ["way", "flow", "state", "allowed bytes", "counted bytes", "left s", "refresh s", "authentication", "SPI", "note"];
/// Columns that hold numbers, which stand at the right.
const NUMBERS: std::ops::RangeInclusive<usize> = 3..=6;

/// Shows a list of flows.
pub(crate) fn show(answer: &Value) -> String {
    let rows: Vec<[String; 10]> = answer.as_array().into_iter().flatten().map(cells).collect();
    if rows.is_empty() {
        return "no flows".to_owned();
    }
    let headings = HEADINGS.map(str::to_owned);
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            let cells = rows.iter().chain([&headings]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let line = |row: &[String; 10]| {
        let cells =
            row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    std::iter::once(&headings).chain(&rows).map(line).collect::<Vec<_>>().join("\n")
}

fn cells(row: &Value) -> [String; 10] {
    let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |field: &str| row.get(field).and_then(Value::as_u64);
    let or_none = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let seconds = |field: &str| number(field).map(|milliseconds| milliseconds.div_ceil(1000));
    let spi = text("spi");
    let again = seconds("ask_again_ms").map(|seconds| format!("may ask again in {seconds} s"));
    let note = [Some(text("why")).filter(|why| !why.is_empty()), again].into_iter().flatten().collect::<Vec<_>>().join("; ");
    [
        text("direction"),
        flow(row.get("flow").unwrap_or(&Value::Null)),
        state(&text("state"), !spi.is_empty()).to_owned(),
        or_none(number("allowed")),
        or_none(number("counted")),
        or_none(seconds("ttl_ms")),
        or_none(seconds("refresh_ms")),
        Some(text("algorithm")).filter(|name| !name.is_empty()).unwrap_or_else(|| "-".to_owned()),
        Some(spi).filter(|spi| !spi.is_empty()).unwrap_or_else(|| "-".to_owned()),
        note,
    ]
}

fn flow(flow: &Value) -> String {
    let number = |field: &str| flow.get(field).and_then(Value::as_u64).unwrap_or(0);
    let end = |address: &str, port: &str| {
        let address = flow.get(address).and_then(Value::as_str).unwrap_or_default();
        match number(port) {
            0 => address.to_owned(),
            port if address.contains(':') => format!("[{address}]:{port}"),
            port => format!("{address}:{port}"),
        }
    };
    let protocol = u8::try_from(number("protocol")).map(Protocol).map_or_else(|_| "?".to_owned(), |protocol| protocol.to_string());
    format!("{} > {} {protocol}", end("source", "source_port"), end("destination", "destination_port"))
}

/// The states of the machines in words; one that has none is shown as it is.
fn state(name: &str, permitted: bool) -> &str {
    match name {
        "Permitted" => "permitted",
        "WaitP" | "Decision" => "asks",
        "Idle" => "not granted",
        "CompareSv" | "Grace" | "Policy" if permitted => "compares",
        "Releasing" => "gives back",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_units_words_and_the_reason_of_a_refusal() {
        let flow = |protocol: u8, port: u16| json!({ "source": "192.0.2.1", "destination": "198.51.100.1", "protocol": protocol, "source_port": port, "destination_port": port });
        let answer = json!([
            { "direction": "out", "flow": flow(17, 9), "state": "Permitted", "allowed": 1000, "counted": 64, "ttl_ms": 59_001,
              "refresh_ms": 5000, "algorithm": "hmac-sha-256-128", "spi": "0x00000100", "why": null, "ask_again_ms": null },
            { "direction": "out", "flow": flow(1, 0), "state": "Idle", "allowed": null, "counted": null, "ttl_ms": null,
              "refresh_ms": null, "algorithm": null, "spi": null, "why": "denied by the receiver", "ask_again_ms": 1500 },
        ]);
        let shown = show(&answer);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(HEADINGS.iter().all(|heading| lines[0].contains(heading)), "{shown}");
        assert!(HEADINGS.iter().all(|heading| LEGEND.contains(&format!("\n  {heading} "))), "each column is explained");
        for word in ["out", "192.0.2.1:9 > 198.51.100.1:9 udp", "permitted", "1000", "64", " 60 ", " 5 "] {
            assert!(lines[1].contains(word), "{word}: {shown}");
        }
        for word in ["192.0.2.1 > 198.51.100.1 icmp", "not granted", "denied by the receiver; may ask again in 2 s"] {
            assert!(lines[2].contains(word), "{word}: {shown}");
        }
        assert_eq!(show(&json!([])), "no flows");
    }
}
