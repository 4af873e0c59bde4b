//! The epoch that another has replaced: its sender reports its end once more, and that is compared once more (X-38, FR-19).

use std::collections::VecDeque;

use gist::time::Instant;

use super::Receiver;
use super::rows::Step;
use super::session::{PAST_LIMIT, Sent, Session};
use super::table::Event;
use super::watch::Watch;
use crate::datapath::{Command, Protection};
use crate::detection::{Acknowledged, Claim, Count, Covered, Finding, Thresholds};
use crate::node::SessionKey;
use crate::report::{Attack, ReportEvent};
use crate::wire::Volume;

/// A question to the packet side about an epoch that has been replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LastCount {
    key: SessionKey,
    spi: u32,
    up_to: u32,
}

/// All numbers: asked for when an epoch is about to be removed.
pub(super) const LAST: u32 = u32::MAX;

/// What is left of an epoch when another has begun in the same session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Former {
    spi: u32,
    /// Whether its packets were signed.
    is_signed: bool,
    /// What was counted when the packet side was last asked; when it has been removed, its last state.
    count: Count,
    /// The number up to which that tells what is covered.
    up_to: u32,
    /// SV and N as its sender has told them in the end.
    claim: Option<(Volume, u32)>,
    /// Whether its count is the last one.
    is_over: bool,
    /// Whether what is missing of it says nothing, or has been judged: packets beyond a lowered volume are dropped here.
    is_judged: bool,
    /// The Permissions of its time.
    log: VecDeque<Sent>,
    watch: Watch,
}

impl Former {
    pub(super) fn spi(&self) -> u32 {
        self.spi
    }

    /// Whether its sender has said its last word about it, but packets may still come.
    pub(super) fn awaits_its_end(&self) -> bool {
        self.claim.is_some() && !self.is_over && !self.is_judged
    }

    /// What is missing of it in the end (T2), beyond what was missing before and what is tolerated; with that.
    fn missing(&self, thresholds: &Thresholds) -> Option<(u64, u64)> {
        let (sent, highest) = self.claim.filter(|(_, highest)| self.is_over && !self.is_judged && *highest >= self.count.highest)?;
        let before = self.watch.before();
        let claim = Claim {
            sent,
            before,
            elapsed: core::time::Duration::MAX,
            highest: Some(highest),
            acknowledged: None,
            unheard: false,
            path_from: 0,
        };
        let all = self.count.counted;
        let count = Count { counted: all, covered: Some(Covered { at_least: all, at_most: all }), ..Count::default() };
        match thresholds.compare(&claim, &count) {
            Finding::Missing { deficit, tolerated } => Some((deficit, tolerated)),
            _ => None,
        }
    }
}

impl Session {
    /// Keeps what a last comparison needs of the epoch in use, which ends now.
    pub(super) fn keep_former(&mut self) {
        if let Some(epoch) = &self.epoch {
            if self.past.len() >= PAST_LIMIT {
                self.past.pop_front();
            }
            self.past.push_back(epoch.spi);
            self.former = Some(Former {
                spi: epoch.spi,
                is_signed: matches!(epoch.protection, Protection::SignedBy(_)),
                count: Count { counted: epoch.counted.0, highest: epoch.highest, ..Count::default() },
                up_to: 0,
                claim: None,
                is_over: false,
                is_judged: self.is_lowered(),
                log: std::mem::take(&mut self.log),
                watch: self.watch.clone(),
            });
        }
    }

    /// Whether packets were missing in the former of two periods, be it one of the epoch before.
    pub(super) fn is_suspicious(&self) -> bool {
        self.watch.suspicious
            || self.former.as_ref().is_some_and(|former| former.claim.is_some() && !former.is_judged && former.watch.suspicious)
    }

    /// The epoch before is judged once.
    fn end_former(&mut self) {
        if let Some(former) = &mut self.former {
            former.is_judged = true;
        }
    }

    /// The epoch before, if the newest Query reports about it.
    fn reported_former(&self) -> Option<&Former> {
        let named = self.query.context?.spi;
        self.former.as_ref().filter(|former| former.spi == named && self.query.sent.is_some())
    }

    /// What the last comparison of the epoch before says; `None` if the newest Query does not report about it. Whatever was counted
    /// in it had been sent before its sender took up the next one, so that E2 and E3 hold for all of it if the Query says that.
    fn finding_of_former(&self, thresholds: &Thresholds) -> Option<(Finding, Claim, Count)> {
        let (former, context) = (self.reported_former()?, self.query.context?);
        let is_final = self.knows_epoch(&context);
        let named = former.log.iter().rev().find(|sent| sent.number == context.permission);
        let last = Acknowledged { counted: Volume(former.count.counted), highest: former.count.highest };
        let acknowledged = named.map(|sent| Acknowledged { counted: sent.counted, highest: sent.highest });
        let claim = Claim {
            sent: self.query.sent?,
            before: former.watch.before(),
            elapsed: core::time::Duration::MAX,
            highest: Some(context.highest),
            acknowledged: if is_final { Some(last) } else { acknowledged },
            unheard: false,
            path_from: 0,
        };
        let all = former.count.counted;
        let covered = match former.count.covered {
            _ if context.highest >= former.count.highest => Some(Covered { at_least: all, at_most: all }),
            covered => covered.filter(|_| former.up_to == context.highest),
        };
        let count = Count { covered, ..former.count };
        Some((thresholds.compare(&claim, &count), claim, count))
    }
}

impl Receiver {
    /// Asks for what was counted in the epoch before, if the packet side still has it and the newest Query is about it.
    pub(super) fn ask_former_count(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let up_to = session.query.context.map_or(0, |context| context.highest);
        if let Some(spi) = session.reported_former().map(Former::spi).filter(|spi| session.draining == Some(*spi)) {
            self.count_of_former(key, spi, up_to);
        }
    }

    /// Asks for what was counted in an epoch that drains or is about to be removed.
    pub(super) fn count_of_former(&mut self, key: SessionKey, spi: u32, up_to: u32) {
        let is_former = |session: &Session| session.former.as_ref().is_some_and(|former| former.spi == spi);
        if self.sessions.get(&key).is_some_and(is_former) {
            let delay = self.config.reactions.thresholds.delay;
            let token = self.node.token();
            self.node.command(Command::Compare { token, flow: key.flow, spi, up_to, delay });
            self.last_counts.insert(token, LastCount { key, spi, up_to });
        }
    }

    /// The packet side has told it.
    pub(super) fn former_counted(&mut self, LastCount { key, spi, up_to }: LastCount, count: &Count, now: Instant) {
        let former = self.sessions.get_mut(&key).and_then(|session| session.former.as_mut());
        if let Some(former) = former.filter(|former| former.spi == spi) {
            (former.count, former.up_to) = (*count, up_to);
            former.is_over |= up_to == LAST;
            self.judge_former(key, now);
            self.follow_up(now);
        }
    }

    /// Once nothing of the epoch before is in flight any more, what is missing of it counts as for any other: the grace time of T2
    /// (FR-45, FR-46). Whoever drops packets gains nothing by another epoch.
    fn judge_former(&mut self, key: SessionKey, now: Instant) {
        let thresholds = &self.config.reactions.thresholds;
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let judges = session.judges_missing(now);
        if session.former.as_ref().is_some_and(|former| judges && former.missing(thresholds).is_some()) {
            self.follow.push_back((key, Event::TgFormerMissing));
        }
    }

    /// Packets were missing in the end of the epoch before: if some are in this one, that makes two periods.
    pub(super) fn suspect_former(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.watch.suspicious = true;
            session.end_former();
        }
    }

    /// Packets are missing for the second period in a row, which was the last of the epoch before.
    pub(super) fn note_former_drop(&mut self, step: &Step<'_>) {
        let former = self.sessions.get(&step.key).and_then(|session| session.former.as_ref());
        if let Some((deficit, tolerated)) = former.and_then(|former| former.missing(&self.config.reactions.thresholds)) {
            self.node.tell(step.key, step.rule, ReportEvent::Evidence(Attack::Drop { deficit, tolerated }));
        }
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.end_former();
        }
        self.follow.push_back((step.key, Event::TgDrop));
    }

    /// Whether the newest Query is about the epoch before, and whether that shows injected packets. An epoch with weaker protection
    /// than the one in use proves nothing that has not been acted upon.
    pub(super) fn former_guards(&self, key: SessionKey) -> (bool, bool) {
        let Some(session) = self.sessions.get(&key) else {
            return (false, false);
        };
        let finding = session.finding_of_former(&self.config.reactions.thresholds);
        let as_strong = session.former.as_ref().is_some_and(|former| former.is_signed == session.is_signed());
        let injection = matches!(finding, Some((Finding::Injection { .. }, ..)));
        (finding.is_some(), injection && as_strong)
    }

    pub(super) fn report_former(&mut self, step: &Step<'_>) {
        let session = self.sessions.get(&step.key);
        if let Some((finding, claim, count)) = session.and_then(|session| session.finding_of_former(&self.config.reactions.thresholds)) {
            let (counted, counted_highest) = (Volume(count.counted), count.highest);
            let event = ReportEvent::Compared { sent: claim.sent, counted, sent_highest: claim.highest, counted_highest, finding };
            self.node.tell(step.key, step.rule, event);
            if let Some(former) = self.sessions.get_mut(&step.key).and_then(|session| session.former.as_mut()) {
                former.claim = claim.highest.map(|highest| (claim.sent, highest));
            }
            self.judge_former(step.key, step.now);
        }
    }

    /// Injected packets are proven in the epoch before: a reaction follows in the same step.
    pub(super) fn note_former(&mut self, step: &Step<'_>) {
        let session = self.sessions.get(&step.key);
        let finding = session.and_then(|session| session.finding_of_former(&self.config.reactions.thresholds));
        if let Some((Finding::Injection { test, excess, tolerated }, ..)) = finding {
            self.node.tell(step.key, step.rule, ReportEvent::Evidence(Attack::Injection { test, excess, tolerated }));
        }
        self.follow.push_back((step.key, Event::TgInjection));
    }
}
