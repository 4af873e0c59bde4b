//! A flow whose question was lost asks again, as long as it sends, but no more often than once a second.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::sync::Arc;

use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::event::Event;
use traffic::inserter::{AskRule, Inserter, InserterConfig};
use traffic::processor::{PacketId, PacketProcessor, Verdict};
use traffic::update::Update;

/// A flow that sends a packet every `interval`, and what its host says to signalling.
struct Running {
    inserter: Inserter,
    interval: Duration,
    now: Instant,
    packets: u64,
}

impl Running {
    fn every(milliseconds: u64) -> Self {
        let config = InserterConfig { ask: vec![AskRule::default()], ..InserterConfig::default() };
        let inserter = Inserter::new(config, Arc::new(Strict), Arc::new(Counters::default()));
        Self { inserter, interval: Duration::from_millis(milliseconds), now: Instant::from_micros(1_000_000), packets: 0 }
    }

    /// Sends for so long, and answers when questions were put.
    fn questions_in(&mut self, time: Duration) -> Vec<Instant> {
        let (mut questions, end) = (Vec::new(), self.now + time);
        while self.now < end {
            self.packets += 1;
            assert!(!matches!(
                self.inserter.process(PacketId(self.packets), &udp_v4(100), self.now),
                Verdict::Replace { .. } | Verdict::Accept
            ));
            self.hear(&mut questions);
            let next = self.now + self.interval;
            while let Some(due) = self.inserter.poll_timeout().filter(|due| *due <= next) {
                self.now = self.now.max(due);
                self.inserter.handle_timeout(self.now);
                self.hear(&mut questions);
            }
            self.now = next;
        }
        questions
    }

    fn hear(&mut self, questions: &mut Vec<Instant>) {
        while self.inserter.poll_released().is_some() {}
        while let Some(event) = self.inserter.poll_event() {
            assert_eq!(event, Event::FirstPacket(flow_v4()));
            questions.push(self.now);
        }
    }
}

/// Nobody hears the questions, as when the daemon's queue of events is full, and the flow never pauses.
#[test]
fn a_running_flow_whose_question_was_lost_asks_again_within_two_seconds() {
    for interval in [3, 10, 100, 900, 1000, 1100] {
        let mut flow = Running::every(interval);
        let began = flow.now;
        let questions = flow.questions_in(Duration::from_secs(60));
        assert_eq!(questions[0], began);
        let gaps: Vec<Duration> = questions.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let longest = Duration::from_millis(1000 + 2 * interval);
        assert!(*gaps.iter().max().unwrap() <= longest, "a packet every {interval} ms");
        assert!(flow.now - *questions.last().unwrap() <= longest);
        assert!(*gaps.iter().min().unwrap() >= Duration::from_secs(1), "a packet every {interval} ms");
    }
}

/// What was answered is no open question: the next one comes at once.
#[test]
fn a_flow_that_was_refused_asks_with_its_next_packet() {
    let mut flow = Running::every(10);
    assert_eq!(flow.questions_in(Duration::from_millis(100)).len(), 1);
    flow.inserter.apply(Update::DropHeld { token: 1, flow: flow_v4() }, flow.now).unwrap();
    let refused = flow.now;
    assert_eq!(flow.questions_in(Duration::from_millis(100)), [refused]);
}
