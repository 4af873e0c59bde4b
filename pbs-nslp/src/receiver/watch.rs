//! How a receiver watches a session: comparisons, evidence, and how far the reactions have gone.

use core::time::Duration;

use gist::time::Instant;

use super::session::{Asked, Session};
use crate::datapath::Protection;
use crate::detection::{Acknowledged, Before, Claim, Count, Finding, Test, Thresholds};
use crate::wire::Volume;

/// What is kept from one comparison to the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Watch {
    /// What the former comparison of this epoch started the next one from.
    before: Before,
    /// When that was; `None` before the epoch's first.
    compared_at: Option<Instant>,
    /// What the newest comparison found, and would start the next one from.
    latest: Option<(Finding, Before)>,
    /// Whether packets were missing in the former period, after the grace time.
    pub(super) suspicious: bool,
    /// Since when nothing has arrived.
    heard: Option<Heard>,
    /// The last number of which a Query has told.
    named: u32,
    /// What that was when the flow left its former path; 0 if it has not.
    path_from: u32,
    /// How many times another path was asked for (INV-09).
    pub(super) paths_asked: u8,
    path_asked_at: Option<Instant>,
    /// When the sender was last told to ask at once.
    hastened_at: Option<Instant>,
}

/// The last comparison that found more counted than the one before it, and what became of the flow since (T4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Heard {
    /// What had been counted then.
    counted: u64,
    /// Periods since then in which something was sent and nothing arrived.
    silent: u8,
    /// What had been sent when the newest of them ended, and when that was; or then.
    sent: Volume,
    at: Instant,
}

/// What a receiver does when a comparison fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reactions {
    /// When it fails.
    pub thresholds: Thresholds,
    /// What follows injected packets: the ladder, or at once the end (FR-44).
    pub ladder: Ladder,
    /// What follows authenticated packets beyond the allowed volume.
    pub on_overrun: Overrun,
    /// How many times a sender is asked to take another path; then it is tolerated (FR-43).
    pub path_changes: u8,
}

impl Default for Reactions {
    fn default() -> Self {
        Self { thresholds: Thresholds::default(), ladder: Ladder::Graded, on_overrun: Overrun::Revoke, path_changes: 2 }
    }
}

/// How the answer to injected packets is chosen. Missing ones lead to another path and in the end to nothing (FR-42, FR-43), whatever
/// is chosen here: nobody at the ends is to blame for them, and who drops them must not be able to end a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ladder {
    /// Signed packets, then the end of the permission.
    Graded,
    /// The end of the permission.
    Revoke,
}

/// What follows authenticated packets beyond the allowed volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Overrun {
    /// The end of the permission: as on the slide (FR-24).
    Revoke,
    /// The ladder: a holder of the shared key cannot end an honest flow with it (FR-25).
    Escalate,
}

impl Watch {
    /// A new epoch: counters begin at 0, and evidence about the old one says nothing about it.
    pub(super) fn begin_epoch(&mut self, now: Instant) {
        self.compared_at = Some(now);
        (self.before, self.latest, self.suspicious) = (Before::default(), None, false);
        self.heard = Some(Heard { counted: 0, silent: 0, sent: Volume::ZERO, at: now });
        (self.named, self.path_from) = (0, 0);
    }

    /// What the former comparison of this epoch started the next one from.
    pub(super) fn before(&self) -> Before {
        self.before
    }

    /// What the newest comparison found.
    pub(super) fn finding(&self) -> Finding {
        self.latest.map_or(Finding::Agreement, |(finding, _)| finding)
    }

    /// Takes the newest comparison as the one that the next starts from.
    pub(super) fn settle(&mut self, suspicious: bool, now: Instant) {
        if let Some((_, before)) = self.latest {
            self.before = before;
            self.compared_at = Some(now);
        }
        self.suspicious = suspicious;
    }

    /// Nothing was found. The next comparison starts from this one if this is the period's.
    pub(super) fn agree(&mut self, refresh: Duration, now: Instant) {
        if !self.is_early(refresh, now) {
            self.settle(false, now);
        }
    }

    /// After the grace time packets were `missing` still, or not: that makes the next period the second one.
    pub(super) fn suspect(&mut self, missing: bool, refresh: Duration, now: Instant) {
        if !self.is_early(refresh, now) || (missing && !self.suspicious) {
            self.settle(missing, now);
        }
    }

    /// Whether packets were missing in the former period too.
    pub(super) fn is_second(&self, refresh: Duration, now: Instant) -> bool {
        self.suspicious && !self.is_early(refresh, now)
    }

    /// Whether less than half a period is over since the comparison from which this one starts, as when a sender asks for more, or
    /// whether its relay lives. What is tolerated is so for a period: however often somebody asks, it is not granted anew.
    fn is_early(&self, refresh: Duration, now: Instant) -> bool {
        self.compared_at.is_some_and(|at| now.saturating_duration_since(at) < refresh / 2)
    }

    /// Takes note that another path was asked for. What was missing before says nothing about it.
    pub(super) fn ask_path(&mut self, now: Instant) {
        self.paths_asked = self.paths_asked.saturating_add(1);
        self.path_asked_at = Some(now);
        self.leave_path();
        self.settle(false, now);
    }

    /// The flow takes another path, or is to: of that one nothing has been heard or missed yet (T4).
    fn leave_path(&mut self) {
        (self.heard, self.path_from) = (None, self.named);
    }

    /// Whether the sender should ask at once, since its next Query tells what a suspicion is worth: once in a period.
    pub(super) fn take_haste(&mut self, refresh: Duration, now: Instant) -> bool {
        let rested = self.hastened_at.is_none_or(|at| now.saturating_duration_since(at) >= refresh);
        let due = rested && matches!(self.finding(), Finding::Suspicion { .. });
        if due {
            self.hastened_at = Some(now);
        }
        due
    }

    /// Takes note of what has been sent and counted. Whether nothing has arrived for two periods in which something was sent: a flow that
    /// rests says nothing. A period is over with the first comparison after three quarters of it, since Queries may come somewhat early.
    fn is_unheard(&mut self, sent: Volume, counted: u64, refresh: Duration, now: Instant) -> bool {
        let began = Heard { counted, silent: 0, sent, at: now };
        let heard = self.heard.filter(|heard| heard.counted == counted).unwrap_or(began);
        let is_over = sent > heard.sent && now.saturating_duration_since(heard.at) >= refresh.saturating_mul(3) / 4;
        let heard = if is_over { Heard { silent: heard.silent.saturating_add(1), sent, at: now, ..heard } } else { heard };
        self.heard = Some(heard);
        heard.silent >= 2
    }

    /// Whether missing packets count: not for two periods after another path was asked for (FR-42).
    fn judges_missing(&self, refresh: Duration, now: Instant) -> bool {
        self.path_asked_at.is_none_or(|at| now.saturating_duration_since(at) >= refresh.saturating_mul(2))
    }
}

impl Session {
    /// Holds the Query that is being compared against what was counted.
    pub(super) fn compare(&mut self, thresholds: &Thresholds, count: &Count, now: Instant) {
        let &Asked { sent: Some(sent), context, .. } = self.claim() else {
            return;
        };
        let refresh = self.refresh();
        let highest = context.map(|context| context.highest);
        self.watch.named = highest.unwrap_or_default();
        if self.moved {
            self.watch.leave_path();
        }
        let unheard = self.watch.is_unheard(sent, count.counted, refresh, now);
        let claim = Claim {
            unheard,
            sent,
            before: self.watch.before,
            elapsed: self.watch.compared_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at)),
            highest,
            path_from: self.watch.path_from,
            acknowledged: self.acknowledged(),
        };
        let mut finding = thresholds.compare(&claim, count);
        // A sender without Vol-Context names nothing that E1 to E3 could rest on: two periods in a row have to do.
        if let Finding::Suspicion { excess, tolerated } = finding
            && claim.highest.is_none()
            && !self.watch.is_early(refresh, now)
            && matches!(self.watch.finding(), Finding::Suspicion { .. })
        {
            finding = Finding::Injection { test: Test::T1, excess, tolerated };
        }
        if finding.is_deficit() && !self.judges_missing(now) {
            finding = Finding::Agreement;
        }
        self.watch.latest = Some((finding, Before::next(&claim, count)));
    }

    /// Whether missing packets count now.
    pub(super) fn judges_missing(&self, now: Instant) -> bool {
        self.watch.judges_missing(self.refresh(), now)
    }

    /// The period in which it is to be asked for again; nothing if none was granted.
    pub(super) fn refresh(&self) -> Duration {
        self.terms.map(|terms| terms.refresh).unwrap_or_default()
    }

    /// What had been counted when the Permission left that the sender names; of another epoch it says nothing.
    fn acknowledged(&self) -> Option<Acknowledged> {
        let named = self.claim().context?.permission;
        let sent = self.log.iter().rev().find(|sent| sent.number == named)?;
        Some(Acknowledged { counted: sent.counted, highest: sent.highest })
    }

    /// What the sender had not used of the allowed volume when it last said so (FR-40), or would have been given if its Query had
    /// been answered: that an attack shows when everything is used up is no reason to end the flow.
    pub(super) fn left_unused(&self) -> Volume {
        let about_it = self.is_about_epoch(&self.query);
        let sent = self.query.sent.filter(|_| about_it).map_or(0, |sent| sent.0);
        let Some(terms) = self.terms else {
            return Volume(self.allowed.0.saturating_sub(sent));
        };
        let requested = self.query.requested.filter(|_| about_it).unwrap_or(Volume::ZERO);
        match terms.extended(self.allowed, requested.min(terms.total())).0.saturating_sub(sent) {
            0 => terms.first(None),
            left => Volume(left),
        }
    }

    /// Whether nothing stronger is left to ask for: packets are signed already, or the sender cannot sign them or will not.
    pub(super) fn is_strongest(&self) -> bool {
        self.is_signed() || !self.can_sign()
    }

    /// Whether the sender signs its packets.
    pub(super) fn is_signed(&self) -> bool {
        self.epoch.as_ref().is_some_and(|epoch| matches!(epoch.protection, Protection::SignedBy(_)))
    }
}
