//! Section `[reactions]`: what this host as a receiver does about injected and missing packets.

use std::time::Duration;

use daemon::config::Span;
use pbs_nslp::detection::{Thresholds, Tolerance};
use pbs_nslp::receiver::{Ladder, Overrun, Reactions};
use pbs_nslp::wire::Volume;
use serde::Deserialize;

/// The section; every key has the profile's value as default (requirements ).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Section {
    /// What follows the evidence of injected packets.
    pub on_attack: OnAttack,
    /// What follows authenticated packets beyond the allowed volume.
    pub on_overrun: OnOverrun,
    /// How many times a sender is asked to take another path.
    pub path_changes: u8,
    /// What may have arrived beyond the last number that a Query names.
    pub in_flight: Share,
    /// How much longer than data a Query may travel.
    pub delay: Span,
    /// What may be missing.
    pub missing: Share,
    /// How many packets may be missing where nothing arrives.
    pub in_a_row: u32,
    /// How long what is missing may still arrive.
    pub grace: Span,
}

/// A share of what was sent in the last period, and at least a fixed volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    /// The fixed volume in bytes.
    pub bytes: u64,
    /// The share in percent, 0 to 100.
    #[serde(deserialize_with = "percent")]
    pub percent: u8,
}

/// Values of `on_attack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnAttack {
    /// Signed packets, then revocation.
    Graded,
    /// Revocation.
    Revoke,
}

/// Values of `on_overrun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum OnOverrun {
    /// Revocation.
    Revoke,
    /// As any other attack.
    Escalate,
}

impl Default for Section {
    fn default() -> Self {
        let Thresholds { in_flight, missing, delay, in_a_row, grace } = Thresholds::default();
        let share = |tolerance: Tolerance| Share { bytes: tolerance.floor.0, percent: tolerance.percent };
        Self {
            on_attack: OnAttack::Graded,
            on_overrun: OnOverrun::Revoke,
            path_changes: Reactions::default().path_changes,
            in_flight: share(in_flight),
            delay: Span(delay),
            missing: share(missing),
            in_a_row,
            grace: Span(grace),
        }
    }
}

impl Section {
    /// In the words of the NSLP.
    pub(crate) fn reactions(&self) -> Reactions {
        let tolerance = |share: Share| Tolerance { floor: Volume(share.bytes), percent: share.percent };
        Reactions {
            thresholds: Thresholds {
                in_flight: tolerance(self.in_flight),
                missing: tolerance(self.missing),
                delay: self.delay.0,
                in_a_row: self.in_a_row,
                grace: self.grace.0,
            },
            ladder: match self.on_attack {
                OnAttack::Graded => Ladder::Graded,
                OnAttack::Revoke => Ladder::Revoke,
            },
            on_overrun: match self.on_overrun {
                OnOverrun::Revoke => Overrun::Revoke,
                OnOverrun::Escalate => Overrun::Escalate,
            },
            path_changes: self.path_changes,
        }
    }
}

fn percent<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let percent = u8::deserialize(deserializer)?;
    if percent <= 100 { Ok(percent) } else { Err(serde::de::Error::custom(format!("{percent} percent; it must be 0 to 100"))) }
}

/// The longest grace that leaves an answer within the sender's first time-out of 5 s, on a path with a long way too.
pub(crate) const LONGEST_GRACE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    /// P-174, X-40.
    #[test]
    fn each_threshold_and_choice_of_the_file_is_the_one_that_counts() {
        let file = serde_json::json!({
            "on_attack": "revoke", "on_overrun": "escalate", "path_changes": 1, "delay": "5s", "grace": "2s",
            "in_flight": { "bytes": 1, "percent": 2 }, "missing": { "bytes": 3, "percent": 4 }, "in_a_row": 5,
        });
        let expected = Reactions {
            thresholds: Thresholds {
                in_flight: Tolerance { floor: Volume(1), percent: 2 },
                missing: Tolerance { floor: Volume(3), percent: 4 },
                delay: Duration::from_secs(5),
                in_a_row: 5,
                grace: Duration::from_secs(2),
            },
            ladder: Ladder::Revoke,
            on_overrun: Overrun::Escalate,
            path_changes: 1,
        };
        assert_eq!(serde_json::from_value::<Section>(file).unwrap().reactions(), expected);
        assert_eq!(serde_json::from_str::<Section>("{}").unwrap().reactions(), Reactions::default());
    }
}
