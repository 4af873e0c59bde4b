//! What a node says of the rows that end something or refuse it: whoever runs it must hear of each, in whatever state it was taken.

use pbs_nslp::report::{Reaction, ReportEvent};

/// Whether an event is the one that is due when a rule is taken; `None` for rules of which nothing, or not always the same, is said.
pub(crate) fn is_due(rule: &str, event: &ReportEvent) -> Option<bool> {
    use ReportEvent as E;
    Some(match rule {
        "FR-06" | "FR-07" | "FN-07" => matches!(event, E::Denied { .. }),
        "FR-09" | "FR-12" | "FS-50" | "FS-53" => matches!(event, E::Released),
        "FR-14" | "FR-15" | "FN-09" | "FN-27" | "FN-28" | "FS-17" | "FS-28" | "FS-29" => matches!(event, E::Expired { .. }),
        "FR-16" | "FR-44" | "FN-26" | "FS-27" => matches!(event, E::Revoked),
        "FS-72" | "FR-73" | "FN-73" => matches!(event, E::Distrusted { .. }),
        "FR-24" => matches!(event, E::OverBudget { .. }),
        "FR-41" => matches!(event, E::Attacked { reaction: Reaction::Revoked }),
        "FR-50" | "FR-72" | "FN-71" => matches!(event, E::Superseded),
        "FR-70" | "FS-70" => matches!(event, E::DatapathFailed { .. }),
        "FR-71" => matches!(event, E::BudgetSpent),
        "FS-03" => matches!(event, E::Stray),
        "FS-07" => matches!(event, E::AlgorithmRefused),
        "FS-10" => matches!(event, E::Unreachable { .. }),
        "FS-13" => matches!(event, E::Notified { .. }),
        "FS-23" => matches!(event, E::KeySwapRefused { .. }),
        "FS-26" => matches!(event, E::NoOtherPath),
        "FS-42" => matches!(event, E::Exhausted { .. }),
        _ => return None,
    })
}
