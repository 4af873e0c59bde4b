//! What the daemons say happened: their log lines, with the rule of the state machine that each names.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

const DAY: u64 = 24 * 60 * 60 * 1_000_000;

/// One moment on both clocks: that of captures and that of log lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) started: Instant,
    /// Microseconds since midnight, UTC.
    midnight_us: u64,
}

impl Clock {
    /// Reads both clocks: the only way to tell log lines from before and after what captures show.
    #[allow(clippy::disallowed_methods)]
    pub(super) fn start() -> io::Result<Self> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let midnight_us = u64::try_from(since.as_micros() % u128::from(DAY)).map_err(io::Error::other)?;
        Ok(Self { started: Instant::now(), midnight_us })
    }

    /// The moment of a time stamp such as `2026-11-21T04:28:56.123456Z`, of the day that follows the start at most.
    fn moment(&self, stamp: &str) -> Option<Duration> {
        let (_, time) = stamp.trim_end_matches('Z').split_once('T')?;
        let mut parts = time.split(':');
        let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
        let seconds: f64 = parts.next()?.parse().ok()?;
        let us = (hours * 60 + minutes) * 60_000_000 + (seconds * 1e6).round() as u64;
        Some(Duration::from_micros((us + DAY - self.midnight_us) % DAY))
    }
}

/// One log line that names a rule.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// Seconds since the captures started.
    pub at: f64,
    /// Who says so.
    pub node: &'static str,
    /// The rule of the node's state machine.
    pub rule: String,
    /// What it says.
    pub message: String,
    /// About which flow; empty if about none.
    pub flow: String,
}

/// What all daemons say, in order.
#[derive(Debug, Default)]
pub(super) struct Story(Vec<Told>);

impl Story {
    pub(super) fn read(directory: &Path, nodes: &[&'static str], clock: &Clock) -> io::Result<Self> {
        let mut told = Vec::new();
        for &node in nodes {
            let log = std::fs::read_to_string(directory.join(format!("{node}.log")))?;
            told.extend(log.lines().filter_map(|line| read(node, line, clock)));
        }
        told.sort_by(|one, other| one.at.total_cmp(&other.at));
        Ok(Self(told))
    }

    /// What `node` said under `rule`, no earlier than `from`.
    pub(super) fn of<'a>(&'a self, node: &'a str, rule: &'a str, from: Duration) -> impl Iterator<Item = &'a Told> {
        self.0.iter().filter(move |told| told.node == node && told.rule == rule && told.at >= from.as_secs_f64())
    }

    /// Everything, for people.
    pub(super) fn into_lines(self) -> Vec<Told> {
        self.0
    }
}

fn read(node: &'static str, line: &str, clock: &Clock) -> Option<Told> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    let rule = text("rule").filter(|rule| !rule.is_empty())?.to_owned();
    let flow = text("flow").unwrap_or_default().to_owned();
    Some(Told { at: clock.moment(text("timestamp")?)?.as_secs_f64(), node, rule, message: text("message")?.to_owned(), flow })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_told_by_the_clock_of_the_captures_also_past_midnight() {
        let clock = Clock { started: Instant::now(), midnight_us: DAY - 1_500_000 };
        let line = r#"{"timestamp":"2026-11-22T00:00:01.250000Z","level":"WARN","message":"denied","rule":"FR-06"}"#;
        let told = read("receiver", line, &clock).unwrap();
        assert_eq!((told.at, told.rule.as_str(), told.message.as_str()), (2.75, "FR-06", "denied"));
        assert!(read("receiver", r#"{"timestamp":"2026-11-22T00:00:01Z","message":"up","rule":""}"#, &clock).is_none());
        assert!(read("receiver", "half a li", &clock).is_none());
    }
}
