//! What a receiver's comparisons lead to (FR-31 to FR-44).

use gist::time::Instant;

use super::Receiver;
use super::rows::Step;
use super::session::Session;
use super::table::{Action, Event, Guards};
use super::watch::Ladder;
use crate::detection::{Count, Finding, Test};
use crate::flow::FlowId;
use crate::node::SessionKey;
use crate::report::{Attack, Reaction, ReportEvent};

impl Receiver {
    /// Holds the Query that the session compares against what was counted.
    pub(super) fn compare(&mut self, key: SessionKey, count: &Count, now: Instant) {
        let thresholds = self.config.reactions.thresholds;
        if let Some(session) = self.sessions.get_mut(&key).filter(|session| session.is_comparable()) {
            session.compare(&thresholds, count, now);
        }
    }

    /// What the newest comparison says.
    pub(super) fn comparison_guards(&self, key: SessionKey, now: Instant) -> Guards {
        let Some(session) = self.sessions.get(&key) else {
            return Guards::default();
        };
        let finding = session.watch.finding();
        let deficit = finding.is_deficit();
        Guards {
            injection: matches!(finding, Finding::Injection { .. }),
            deficit,
            moved: session.moved,
            proven: matches!(finding, Finding::Silence { .. }) || deficit && session.watch.is_second(session.refresh(), now),
            ..Guards::default()
        }
    }

    /// Which reaction is left.
    pub(super) fn reaction_guards(&self, key: SessionKey) -> Guards {
        let Some(session) = self.sessions.get(&key) else {
            return Guards::default();
        };
        let reactions = &self.config.reactions;
        Guards {
            strongest: session.is_strongest(),
            revoking: reactions.ladder == Ladder::Revoke,
            proven: session.is_suspicious(),
            suspended: session.watch.paths_asked >= reactions.path_changes,
            ..Guards::default()
        }
    }

    /// Nothing was found.
    pub(super) fn agree(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let refresh = session.refresh();
            session.watch.agree(refresh, now);
        }
    }

    /// After the grace time: what is still missing makes the next period the second one.
    pub(super) fn suspect(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&key) {
            let (missing, refresh) = (session.watch.finding().is_deficit(), session.refresh());
            session.watch.suspect(missing, refresh, now);
        }
    }

    /// Injected packets are proven or suspected: a reaction follows in the same step.
    pub(super) fn note_injection(&mut self, step: &Step<'_>, action: Action) {
        let evidence = match (action, self.sessions.get(&step.key).map(|session| session.watch.finding())) {
            (Action::NoteOverrun, _) => Attack::Overrun,
            (Action::NoteInjection, Some(Finding::Injection { test, excess, tolerated })) => Attack::Injection { test, excess, tolerated },
            _ => Attack::Injection { test: Test::E4, excess: 0, tolerated: 0 },
        };
        self.node.tell(step.key, step.rule, ReportEvent::Evidence(evidence));
        self.follow.push_back((step.key, Event::TgInjection));
    }

    /// Packets are missing for the second period in a row.
    pub(super) fn note_drop(&mut self, step: &Step<'_>) {
        let evidence = match self.sessions.get(&step.key).map(|session| session.watch.finding()) {
            Some(Finding::Missing { deficit, tolerated }) => Some(Attack::Drop { deficit, tolerated }),
            Some(Finding::Silence { packets, tolerated }) => Some(Attack::Silence { packets, tolerated }),
            _ => None,
        };
        if let Some(attack) = evidence {
            self.node.tell(step.key, step.rule, ReportEvent::Evidence(attack));
        }
        self.follow.push_back((step.key, Event::TgDrop));
    }

    /// The epoch to begin takes over what the sender had not used, and its packets are signed (FR-40). So are those of later
    /// epochs and sessions until the flow has been quiet for a while (INV-09, X-108).
    pub(super) fn escalate(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.unused = Some(session.left_unused());
            session.rekey = None;
        }
        self.sign_from_now_on(key.flow, now);
    }

    /// Later epochs and sessions of the flow are signed, until it has been quiet for a while.
    pub(super) fn sign_from_now_on(&mut self, flow: FlowId, now: Instant) {
        if self.signed.len() >= self.config.sessions {
            self.signed.retain(|_, until| *until > now);
        }
        self.signed.insert(flow, now + self.config.quiet);
    }

    /// A flow whose packets are signed stays so for as long as it lives, and a while longer.
    pub(super) fn prolong_signed(&mut self, key: SessionKey, now: Instant) {
        if self.sessions.get(&key).is_some_and(Session::is_signed)
            && let Some(until) = self.signed.get_mut(&key.flow)
        {
            *until = now + self.config.quiet;
        }
    }

    /// The next Permission asks for another path.
    pub(super) fn ask_other_path(&mut self, step: &Step<'_>) {
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.watch.ask_path(step.now);
            session.other_path = true;
            let times = session.watch.paths_asked;
            self.node.tell(step.key, step.rule, ReportEvent::Attacked { reaction: Reaction::OtherPathAsked { times } });
        }
    }

    /// No rule grants the flow again for a while: the end of the ladder.
    pub(super) fn refuse_flow(&mut self, key: SessionKey, now: Instant) {
        if self.revoked.len() >= self.config.sessions {
            self.revoked.retain(|_, until| *until > now);
        }
        if self.revoked.len() < self.config.sessions {
            self.revoked.insert(key.flow, now + self.config.refuse);
        }
        self.expected.remove(&key.flow);
    }

    pub(super) fn report_escalated(&mut self, key: SessionKey, rule: &'static str) {
        if let Some(epoch) = self.sessions.get(&key).and_then(|session| session.epoch.as_ref()) {
            let reaction = Reaction::Escalated { spi: epoch.spi, algorithm: epoch.protection.name() };
            self.node.tell(key, rule, ReportEvent::Attacked { reaction });
        }
    }

    pub(super) fn report_tolerated(&mut self, step: &Step<'_>) {
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.watch.settle(true, step.now);
        }
        self.node.tell(step.key, step.rule, ReportEvent::Attacked { reaction: Reaction::Tolerated });
    }
}
