//! Key `interfaces` of `[datapath]`: where packets come past the queue.

use serde_json::{Value, json};
use traffic::af_xdp::{MOST_INTERFACES, Mode, Part, Standing};

use crate::source::{ConfigError, Source};

/// `IFNAMSIZ` without the zero that ends it.
const LONGEST_NAME: usize = 15;

/// Whether an interface can have this name.
pub fn is_name(name: &str) -> bool {
    let of_a_name = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(of_a_name)
}

/// Refuses names that cannot be used.
///
/// # Errors
///
/// What is wrong, and in which line.
pub fn check(names: &[String], config: &Source) -> Result<(), ConfigError> {
    let wrong = |message: String| Err(config.wrong("datapath.interfaces", message));
    if names.len() > MOST_INTERFACES {
        return wrong(format!("names more than {MOST_INTERFACES}"));
    }
    for (place, name) in names.iter().enumerate() {
        if !is_name(name) {
            return wrong(format!("`{name}` is no name of an interface: up to 15 characters without spaces, `/` and `:`"));
        }
        if names.iter().take(place).any(|earlier| earlier == name) {
            return wrong(format!("names `{name}` twice"));
        }
    }
    Ok(())
}

/// Each interface with AF_XDP sockets, as `status` shows it.
pub fn receiving(standing: &Standing) -> Vec<Value> {
    let row = |part: &Part| json!({ "interface": part.name, "program": program(part), "queues": part.queues, "zero_copy": part.zero_copy });
    rows(standing, &row)
}

/// Each interface with a program and nothing else.
pub fn shielding(standing: &Standing) -> Vec<Value> {
    rows(standing, &|part: &Part| json!({ "interface": part.name, "program": program(part) }))
}

fn rows(standing: &Standing, of: &dyn Fn(&Part) -> Value) -> Vec<Value> {
    let row = |(part, takes_part)| {
        let mut row = of(part);
        if let Some(row) = row.as_object_mut() {
            row.insert("takes_part".to_owned(), json!(takes_part));
        }
        row
    };
    standing.show().map(row).collect()
}

fn program(part: &Part) -> &'static str {
    match part.mode {
        Mode::Native => "driver",
        Mode::Generic => "generic",
    }
}
