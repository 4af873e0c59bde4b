//! Reports of the NSLP as log events. What packets can cause again and again is told once in a while for each flow.

use std::collections::BTreeMap;
use std::time::Duration;

use gist::time::Instant;
use pbs_nslp::flow::FlowId;
use pbs_nslp::report::{Report, ReportEvent};
use tracing::Level;

/// How often the same is said of a flow.
const EVERY: Duration = Duration::from_secs(5);
/// Flows that are remembered; those beyond share one line in so much time.
const MOST_FLOWS: usize = 1024;

/// What was said of flows lately.
#[derive(Debug, Default)]
pub(crate) struct Log {
    said: BTreeMap<Option<FlowId>, Said>,
}

/// The last line of a kind, and how many like it were left out since.
#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl Log {
    /// Writes a report, unless the same was said of its flow just before.
    pub(crate) fn write(&mut self, report: &Report, now: Instant) {
        if !is_caused_by_packets(&report.event) {
            return write(report, 0);
        }
        if let Some(left_out) = self.may_say(report.flow, now) {
            write(report, left_out);
        }
    }

    /// Whether it is time for another line about a flow; then how many were left out before it.
    fn may_say(&mut self, flow: Option<FlowId>, now: Instant) -> Option<u64> {
        if !self.said.contains_key(&flow) && self.said.len() >= MOST_FLOWS {
            self.said.retain(|_, said| now.saturating_duration_since(said.at) < EVERY);
        }
        let key = if self.said.contains_key(&flow) || self.said.len() < MOST_FLOWS { flow } else { None };
        match self.said.get_mut(&key) {
            Some(said) if now.saturating_duration_since(said.at) < EVERY => {
                said.left_out = said.left_out.saturating_add(1);
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.left_out))
            }
            None => {
                self.said.insert(key, Said { at: now, left_out: 0 });
                Some(0)
            }
        }
    }
}

/// A program that sends without permission causes one for each packet.
fn is_caused_by_packets(event: &ReportEvent) -> bool {
    matches!(event, ReportEvent::HeldDown { .. })
}

/// Writes a report at its own level; flow, session and rule are fields.
fn write(report: &Report, left_out: u64) {
    let flow = report.flow.map(|flow| flow.to_string()).unwrap_or_default();
    let session = report.session;
    // What no rule has caused has no such field.
    let rule = (!report.rule.is_empty()).then_some(report.rule);
    let event = &report.event;
    if left_out > 0 {
        return tracing::info!(%flow, %session, rule, left_out, "{event}; {left_out} lines like this left out before");
    }
    match report.level() {
        Level::ERROR => tracing::error!(%flow, %session, rule, "{event}"),
        Level::WARN => tracing::warn!(%flow, %session, rule, "{event}"),
        Level::INFO => tracing::info!(%flow, %session, rule, "{event}"),
        Level::DEBUG => tracing::debug!(%flow, %session, rule, "{event}"),
        Level::TRACE => tracing::trace!(%flow, %session, rule, "{event}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> Option<FlowId> {
        FlowId::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), 17, port, 9000).ok()
    }

    #[test]
    fn a_flow_is_spoken_of_once_in_five_seconds_and_the_next_line_counts_what_was_left_out() {
        let mut log = Log::default();
        let mut now = Instant::ZERO;
        assert_eq!(log.may_say(flow(1), now), Some(0));
        for _ in 0..100 {
            now += Duration::from_millis(40);
            assert_eq!(log.may_say(flow(1), now), None);
        }
        assert_eq!(log.may_say(flow(2), now), Some(0), "another flow");
        now += Duration::from_secs(1);
        assert_eq!(log.may_say(flow(1), now), Some(100));
        assert_eq!(log.may_say(flow(1), now), None);
    }

    #[test]
    fn flows_without_number_share_one_line_and_little_memory() {
        let mut log = Log::default();
        let said = |log: &mut Log, now| (1..=u16::MAX).filter(|port| log.may_say(flow(*port), now).is_some()).count();
        assert_eq!(said(&mut log, Instant::ZERO), MOST_FLOWS + 1, "one for all others");
        assert!(log.said.len() <= MOST_FLOWS + 1);
        let later = Instant::ZERO + EVERY;
        assert_eq!(said(&mut log, later), MOST_FLOWS + 1);
        assert!(log.said.len() <= MOST_FLOWS + 1);
    }
}
