//! Keys `mode`, `egress_rate` and entries `[[interface]]` of the configuration file: what becomes of traffic without permission.

use daemon::interfaces::is_name;
use daemon::source::{ConfigError, Source};
use serde::Deserialize;
use serde_json::{Value, json};
use traffic::rules::{self, MOST_INTERFACES};

/// What becomes of packets without permission that leave by an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// They are dropped.
    #[default]
    Closed,
    /// They trickle.
    Open,
    /// They pass, and it is said why they would have been dropped.
    Observe,
}

/// One entry `[[interface]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Interface {
    /// Its name in the kernel.
    pub name: String,
    /// Its mode.
    pub mode: Mode,
    /// Bits a second that it can send; left out: as for all others.
    pub egress_rate: Option<u64>,
}

/// Bits a second of an interface of which nothing is said.
pub(crate) const DEFAULT_EGRESS_RATE: u64 = 1_000_000_000;
/// The share of an interface's rate that may leave without permission, one part in so many (X-105: 5 %).
const SHARE: u64 = 20;
/// Bits a second at least: the share of less would not be the trickle of a single source.
const LEAST_EGRESS_RATE: u64 = 64_000 * SHARE;

/// Refuses entries that cannot be used.
pub(crate) fn check(egress_rate: u64, interfaces: &[Interface], config: &Source) -> Result<(), ConfigError> {
    let small = || format!("is less than {LEAST_EGRESS_RATE} bits a second, of which 5 % are the trickle of one source");
    if egress_rate < LEAST_EGRESS_RATE {
        return Err(config.wrong("egress_rate", small()));
    }
    for (place, entry) in interfaces.iter().enumerate() {
        let wrong = |key: &str, message: String| Err(config.wrong(&format!("interface.{place}.{key}"), message));
        if place >= MOST_INTERFACES {
            return wrong("name", format!("is one too many: there may be {MOST_INTERFACES} entries"));
        }
        if !is_name(&entry.name) {
            return wrong("name", "is no name of an interface: up to 15 characters without spaces, `/` and `:`".to_owned());
        }
        if interfaces.iter().take(place).any(|earlier| earlier.name == entry.name) {
            return wrong("name", format!("`{}` has an entry already", entry.name));
        }
        if entry.egress_rate.is_some_and(|rate| rate < LEAST_EGRESS_RATE) {
            return wrong("egress_rate", small());
        }
        if entry.egress_rate.is_some() && entry.mode != Mode::Open {
            return wrong("egress_rate", "counts in open mode only".to_owned());
        }
    }
    Ok(())
}

/// The modes as the packet filter takes them.
pub(crate) fn rules(others: Mode, egress_rate: u64, interfaces: &[Interface]) -> rules::Modes {
    let mode = |mode, rate: u64| match mode {
        Mode::Closed => rules::Mode::Closed,
        Mode::Open => rules::Mode::Open { aggregate: u32::try_from(rate / 8 / SHARE).unwrap_or(u32::MAX) },
        Mode::Observe => rules::Mode::Observe,
    };
    let listed = |entry: &Interface| (entry.name.clone(), mode(entry.mode, entry.egress_rate.unwrap_or(egress_rate)));
    rules::Modes { others: mode(others, egress_rate), interfaces: interfaces.iter().map(listed).collect() }
}

/// For `status`: one row an interface that has a mode of its own, and one, `*`, for all others.
pub(crate) fn show(modes: &rules::Modes) -> Value {
    let others = std::iter::once(("*", modes.others));
    let listed = modes.interfaces.iter().map(|(name, mode)| (&**name, *mode));
    let row = |(interface, mode): (&str, rules::Mode)| {
        let (word, trickle) = match mode {
            rules::Mode::Closed => ("closed", None),
            rules::Mode::Open { aggregate } => ("open", Some(aggregate)),
            rules::Mode::Observe => ("observe", None),
        };
        json!({ "interface": interface, "mode": word, "trickle_octets_a_second": trickle })
    };
    listed.chain(others).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_interfaces_rate_a_twentieth_trickles() {
        let entry = |name: &str, mode, egress_rate| Interface { name: name.to_owned(), mode, egress_rate };
        let list = [entry("a", Mode::Open, Some(100_000_000)), entry("b", Mode::Open, None), entry("c", Mode::Closed, None)];
        let modes = rules(Mode::Observe, DEFAULT_EGRESS_RATE, &list);
        let open = |aggregate| rules::Mode::Open { aggregate };
        let expected =
            [("a", open(625_000)), ("b", open(6_250_000)), ("c", rules::Mode::Closed)].map(|(name, mode)| (name.to_owned(), mode));
        assert_eq!(modes, rules::Modes { others: rules::Mode::Observe, interfaces: expected.to_vec() });
        let shown = show(&modes);
        let row = |at: usize| (shown[at]["interface"].as_str(), shown[at]["mode"].as_str(), shown[at]["trickle_octets_a_second"].as_u64());
        assert_eq!(row(0), (Some("a"), Some("open"), Some(625_000)));
        assert_eq!([row(2), row(3)], [(Some("c"), Some("closed"), None), (Some("*"), Some("observe"), None)]);
        assert!(rules(Mode::Closed, DEFAULT_EGRESS_RATE, &list[2..]).are_closed());
    }
}
