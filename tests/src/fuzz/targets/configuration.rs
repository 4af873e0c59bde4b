//! Configuration files of both daemons.

use std::path::{Path, PathBuf};

use daemon::source::{ConfigError, Source};

use crate::fuzz::mark;

/// Letters by which kinds of what is wrong are told apart.
const KIND: usize = 40;

/// The sample files without their remarks, and with every entry that stands there as an example.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let samples = ["endpoint/pbs.toml", "router-agent/pbs-router.toml"].map(|file| std::fs::read_to_string(root.join(file)));
    let samples = samples.into_iter().flatten();
    samples.flat_map(|text| [settings(&text, false), settings(&text, true)]).map(String::into_bytes).collect()
}

/// The lines that say something; those of examples too, if they are wanted.
fn settings(text: &str, examples: bool) -> String {
    let is_setting = |line: &&str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let said = |line: &str| line.split_once("  #").map_or(line, |(said, _)| said).trim_end().to_owned();
    let lines = text.lines().map(|line| if examples { line.trim_start_matches("# ") } else { line });
    lines.filter(is_setting).map(said).collect::<Vec<_>>().join("\n") + "\n"
}

/// No file is one of both daemons; what is wrong is told with a line that is there, in few words.
pub(super) fn take(input: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(input) else { return 0 };
    let source = Source::new(Path::new("fuzz.toml"), text);
    let host = endpoint::check_configuration(&source);
    let router = router_agent::check_configuration(&source);
    assert!(host.is_err() || router.is_err(), "a file of both daemons");
    let told = [host, router].map(|checked| checked.err().map(|error| kind(&error, text)));
    mark(&told)
}

fn kind(error: &ConfigError, text: &str) -> (u8, String) {
    let line = match error {
        ConfigError::Parse { line, .. } | ConfigError::Value { line, .. } => *line,
        other => panic!("no file was read, and yet: {other}"),
    };
    assert!((1..=text.lines().count() + 1).contains(&line), "line {line} of {}: {error}", text.lines().count());
    let words = error.to_string();
    assert!(words.len() <= 2 * text.len() + 1000, "{} octets to say what is wrong with {}", words.len(), text.len());
    match error {
        ConfigError::Value { key, .. } => (1, key.clone()),
        ConfigError::Parse { message, .. } => {
            let words = message.split(['`', '\'', '"']).next().unwrap_or_default();
            (0, words.chars().filter(|letter| !letter.is_ascii_digit()).take(KIND).collect())
        }
        _ => (2, String::new()),
    }
}
